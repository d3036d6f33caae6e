//! Free memory reaches no image: neither the bytes of freed objects, nor those behind an object's
//! length, nor its size.

use std::os::unix::fs::MetadataExt;

use super::super::packing::{self, Form, pack, unpack};
use super::*;
use crate::allocator::size_classes::{CLASSES, SizeClass};
use crate::containers::deque::{Deque, DequeLimits, DequeRoot};
use crate::containers::packed::{self, Encoded};
use crate::containers::tree::{BeforeTies, Tree, TreeRoot};
use crate::layout::UNITS_PER_CHUNK;
use crate::{Isolation, Offset, UndoOptions};

const SECRET: &[u8] = b"<secret that was freed>";

fn backings() -> [Backing; 2] {
    let options = UndoOptions { limit: 16 << 20, block: 512 };
    let undo = Backing { kind: PageKind::Small, isolation: Isolation::UndoLog(options) };
    [PageKind::Small.into(), undo]
}

/// The uncompressed images of an arena by both ways.
fn images(arena: &Arena) -> [Vec<u8>; 2] {
    let dir = TempDir::new().unwrap();
    let target = target(&dir);
    let options = ImageOptions { codec: ChunkCodec::None, ..OPTIONS };
    let prepared = PreparedCheckpoint::new(&target, &options, arena).unwrap();
    checkpoint_by_fork(prepared, arena).unwrap();
    let by_fork = fs::read(target.path()).unwrap();
    let prepared = PreparedCheckpoint::new(&target, &options, arena).unwrap();
    checkpoint_here(prepared, arena).unwrap();
    [by_fork, fs::read(target.path()).unwrap()]
}

fn count(bytes: &[u8], wanted: &[u8]) -> usize {
    let first = wanted[0];
    let ends = bytes.len().saturating_sub(wanted.len() - 1);
    (0..ends).filter(|at| bytes[*at] == first && bytes[*at..].starts_with(wanted)).count()
}

fn fill_with_secrets(bytes: &mut [u8]) {
    for place in bytes.chunks_mut(SECRET.len()) {
        place.copy_from_slice(&SECRET[..place.len()]);
    }
}

/// Lengths of objects of every size class, of runs of units and of runs of chunks.
fn lengths() -> Vec<u64> {
    let classes = (0..CLASSES).filter_map(SizeClass::from_index);
    let mut lengths: Vec<u64> =
        classes.flat_map(|class| [class.size() - 3, class.size()]).collect();
    lengths.extend([16_385, 30_000, 900_000, 2_080_768, 2_080_769, 3 << 20]);
    lengths
}

#[test]
fn bytes_of_freed_objects_are_in_no_image() {
    for backing in backings() {
        let arena = empty(backing, 256);
        let shard = ShardIndex::of_hash(3);
        let mut held = arena.lock(ShardSet::one(shard));
        let mut mem = held.mem(shard);
        let mut objects = Vec::new();
        for len in lengths().into_iter().cycle().take(lengths().len() * 12) {
            let at = mem.allocate(len).unwrap();
            fill_with_secrets(mem.bytes_mut(at, len));
            objects.push((at, len));
        }
        // Some stay, and hold other bytes.
        for (i, (at, len)) in objects.into_iter().enumerate() {
            match i % 5 {
                0 => mem.bytes_mut(at, len).fill(b'.'),
                _ => mem.release(at, len),
            }
        }
        drop(held);
        let live = arena.used_bytes();
        for image in images(&arena) {
            assert_eq!(count(&image, &SECRET[..12]), 0);
            let most = live * 11 / 10 + 8192 + arena.used_chunks() * 4096;
            assert!(image.len() as u64 <= most, "{} bytes for {live} in use", image.len());
        }
    }
}

/// An object that is taken where others were has none of their bytes behind its length.
#[test]
fn bytes_behind_an_object_are_zero() {
    for backing in backings() {
        let arena = empty(backing, 256);
        let shard = ShardIndex::of_hash(3);
        let mut held = arena.lock(ShardSet::one(shard));
        let mut mem = held.mem(shard);
        let mut kept = Vec::new();
        for round in 0..3 {
            let mut objects = Vec::new();
            for len in lengths() {
                let at = mem.allocate(len).unwrap();
                let size = crate::allocated_size(len);
                let behind = mem.bytes(at + len, size - len);
                assert!(behind.iter().all(|byte| *byte == 0), "{len} bytes, round {round}");
                fill_with_secrets(mem.bytes_mut(at, size));
                objects.push((at, len));
                let at = mem.allocate_zeroed_from(len, len / 3).unwrap();
                let behind = mem.bytes(at + len / 3, size - len / 3);
                assert!(behind.iter().all(|byte| *byte == 0), "{len} bytes, round {round}");
                fill_with_secrets(mem.bytes_mut(at, size));
                objects.push((at, len));
            }
            // One stays, so that slabs and chunks do.
            kept.push(objects.swap_remove(7 * round));
            for (at, len) in objects {
                mem.release(at, len);
            }
        }
        drop(held);
        // Memory that went to the kernel comes back as zeros.
        while arena.trim(64) > 0 {}
        let mut held = arena.lock(ShardSet::one(shard));
        let mut mem = held.mem(shard);
        let at = mem.allocate_zeroed_from(40 << 20, 0).unwrap();
        assert!(mem.bytes(at, 40 << 20).iter().all(|byte| *byte == 0));
    }
}

/// Memory that the kernel has just given is not touched for the zeros in it.
#[test]
fn fresh_memory_is_not_zeroed() {
    let arena = empty(backings()[1], 64);
    let shard = ShardIndex::of_hash(3);
    let mut held = arena.lock(ShardSet::one(shard));
    let committed = || arena.store.map.file().unwrap().metadata().unwrap().blocks() * 512;
    let before = committed();
    held.mem(shard).allocate_zeroed_from(32 << 20, 0).unwrap();
    held.mem(shard).allocate_zeroed_from(1 << 20, 0).unwrap();
    drop(held);
    assert!(committed() - before < 1 << 20, "{}", committed() - before);
}

#[test]
fn elements_removed_from_a_deque_are_in_no_image() {
    let limits = DequeLimits { bytes: 1024, count: None };
    let arena = empty(PageKind::Small, 64);
    let shard = ShardIndex::of_hash(3);
    let mut random = Random(99);
    let mut held = arena.lock(ShardSet::one(shard));
    let mut mem = held.mem(shard);
    let root = mem.allocate(64).unwrap();
    mem.write(Offset::new(root), DequeRoot::EMPTY);
    let deque = Deque::at(Offset::new(root));
    for round in 0..3000 {
        let secret = format!("<secret that was freed> {round}{}", "-".repeat(round % 90));
        let (secret, plain) = (Encoded::of(secret.as_bytes()), Encoded::of(b"plain"));
        let len = deque.len(&mem);
        let index = if len == 0 { 0 } else { random.next() % len };
        match random.next() % 8 {
            0 => deque.push_front(&mut mem, &plain, limits).unwrap(),
            1 => deque.push_back(&mut mem, &plain, limits).unwrap(),
            2 => {
                deque.push_front(&mut mem, &secret, limits).unwrap();
                deque.remove_front(&mut mem, 1);
            }
            3 => {
                deque.push_back(&mut mem, &secret, limits).unwrap();
                deque.remove_back(&mut mem, 1);
            }
            4..7 if len > 0 => {
                let cursor = deque.seek(&mem, index).unwrap();
                match random.next() % 2 {
                    0 => deque.insert_before(&mut mem, cursor, &secret, limits).unwrap(),
                    _ => deque.insert_after(&mut mem, cursor, &secret, limits).unwrap(),
                }
                let index = (0..len + 1).find(|at| {
                    let cursor = deque.seek(&mem, *at).unwrap();
                    deque.get(&mem, cursor).size() > 5
                });
                let cursor = deque.seek(&mem, index.unwrap()).unwrap();
                match random.next() % 2 {
                    0 => deque.set(&mut mem, cursor, &plain, limits).unwrap(),
                    _ => drop(deque.remove(&mut mem, cursor)),
                }
            }
            _ if len > 200 => deque.remove_front(&mut mem, len / 2),
            _ => {}
        }
    }
    assert!(deque.len(&mem) > 20);
    drop(held);
    images(&arena).iter().for_each(|image| assert_eq!(count(image, &SECRET[..12]), 0));
}

#[test]
fn keys_removed_from_a_tree_are_in_no_image() {
    let arena = empty(PageKind::Small, 64);
    let shard = ShardIndex::of_hash(3);
    let mut random = Random(99);
    let mut held = arena.lock(ShardSet::one(shard));
    let mut mem = held.mem(shard);
    let root = mem.allocate(64).unwrap();
    mem.write(Offset::new(root), TreeRoot::EMPTY);
    let tree = Tree::at(Offset::new(root));
    // The upper half of a key tells what is to be removed.
    let key = |secret: bool, low: u64| (if secret { 0x5ec2e7 } else { 0x9a1e } << 32) | low;
    for round in 0..4000 {
        let is_secret = random.next().is_multiple_of(2);
        let key = key(is_secret, random.next() as u32 as u64).rotate_left(random.next() as u32 % 2);
        tree.insert(&mut mem, key, 64 + round, &BeforeTies).unwrap();
    }
    let is_secret = |key: u64| [key, key.rotate_right(1)].iter().any(|key| key >> 32 == 0x5ec2e7);
    let mut rank = 0;
    while let Some(entry) = tree.nth(&mem, rank) {
        if is_secret(entry.key) {
            tree.remove_nth(&mut mem, rank);
        } else {
            rank += 1;
        }
    }
    assert!(rank > 1000);
    drop(held);
    for image in images(&arena) {
        let words = (0..image.len() - 8).map(|at| &image[at..at + 8]);
        let secrets =
            words.filter(|word| is_secret(u64::from_le_bytes((*word).try_into().unwrap())));
        assert_eq!(secrets.count(), 0);
    }
}

#[test]
fn erased_elements_say_nothing_and_are_elements() {
    let numbers = (0..63).flat_map(|bits| [1_i64 << bits, -(1 << bits), (1 << bits) - 1]);
    let texts = ["", "a", "secret", "0123", &"s".repeat(200), &"s".repeat(70_000)];
    let elements = numbers.map(|number| number.to_string());
    for text in elements.chain(texts.map(String::from)) {
        let mut run = Vec::new();
        Encoded::of(text.as_bytes()).push_to(&mut run);
        let len = run.len();
        assert_eq!(packed::erase(&mut run, 0), len);
        assert_eq!(packed::check(&run), Some(1), "{text}");
        let mut other = Vec::new();
        // Whatever it was, only its kind and its length are left.
        let similar = match packed::get(&run, 0).0 {
            packed::Element::Int(number) => number.to_string().into_bytes(),
            packed::Element::Bytes(bytes) => vec![0; bytes.len()],
        };
        Encoded::of(&similar).push_to(&mut other);
        assert_eq!(run, other);
    }
}

/// Random chunks, packed by both ways and expanded.
#[test]
fn packed_chunks_expand_to_what_was_in_use() {
    let mut random = Random(0xfeed);
    for round in 0..40 {
        let arena = empty(PageKind::Small, 64);
        let mut objects = Vec::new();
        while arena.used_bytes() < 6 << 20 {
            let shard = ShardIndex::of_hash(random.next());
            let len = match random.next() % 16 {
                0 => 2_500_000,
                1..4 => 20_000 + random.next() % 60_000,
                _ => 1 + random.next() % 3000,
            };
            let mut held = arena.lock(ShardSet::one(shard));
            let mut mem = held.mem(shard);
            let at = mem.allocate(len).unwrap();
            let used = random.next() % (len + 1);
            random.fill(&mut mem.bytes_mut(at, len)[..used as usize], Content::Noise);
            objects.push((shard, at, len));
        }
        // From nearly full to nearly empty.
        let kept = random.next() % 64;
        for (shard, at, len) in objects {
            if random.next() % 64 >= kept {
                arena.lock(ShardSet::one(shard)).mem(shard).release(at, len);
            }
        }
        let mut held = arena.lock(ShardSet::ALL);
        let safepoint = held.safepoint().unwrap();
        for (chunk, bytes) in safepoint.chunks() {
            let is_cut = crate::bits::get(&arena.store.cut, chunk.0.into());
            let wanted = packing::without_free(bytes, is_cut);
            let mut copied = vec![0xaa; bytes.len()];
            let by_copy = pack(Some(bytes), &mut copied, is_cut);
            let mut moved = bytes.to_vec();
            let in_place = pack(None, &mut moved, is_cut);
            assert_eq!(by_copy, in_place);
            assert!(copied[..by_copy.len] == moved[..in_place.len]);
            assert!(by_copy.form != Form::Blocks || !is_cut);
            let mut again = vec![0; bytes.len()];
            unpack(&copied[..by_copy.len], by_copy.form, &mut again).unwrap();
            assert!(again == wanted, "round {round}, chunk {}", chunk.0);
        }
    }
}

/// A chunk whose descriptors are not as the writer knows them is stored with all of its bytes.
#[test]
fn an_unknown_descriptor_loses_nothing() {
    let arena = filled(PageKind::Small, 4, Content::Noise);
    let mut held = arena.lock(ShardSet::ALL);
    let safepoint = held.safepoint().unwrap();
    let (_, bytes) = safepoint
        .chunks()
        .find(|(chunk, _)| crate::bits::get(&arena.store.cut, chunk.0.into()))
        .unwrap();
    for unit in 0..UNITS_PER_CHUNK as usize {
        let mut chunk = bytes.to_vec();
        chunk[unit * 64 + 60] = 1;
        let mut packed = chunk.clone();
        let outcome = pack(None, &mut packed, true);
        let mut again = vec![0; chunk.len()];
        unpack(&packed[..outcome.len], outcome.form, &mut again).unwrap();
        assert!(again == chunk, "unit {unit}");
    }
}

/// Frames that no writer writes end in an error, never in a panic.
#[test]
fn noise_in_packed_frames_is_refused_or_harmless() {
    let mut chunk = vec![0; CHUNK_SIZE as usize];
    let arena = filled(PageKind::Small, 4, Content::Noise);
    let mut held = arena.lock(ShardSet::ALL);
    let safepoint = held.safepoint().unwrap();
    let mut random = Random(0xabcdef);
    for (number, bytes) in safepoint.chunks() {
        let is_cut = crate::bits::get(&arena.store.cut, number.0.into());
        let mut packed = bytes.to_vec();
        // Most of the chunk is freed, so that it is packed.
        if is_cut {
            packed[200 * 64..256 * 64].fill(0);
            packed[200 / 8..32].fill(0xff);
        }
        let outcome = pack(None, &mut packed, is_cut);
        if outcome.form == Form::Whole {
            continue;
        }
        for _ in 0..500 {
            let mut frame = packed[..outcome.len].to_vec();
            for _ in 0..1 + random.next() % 4 {
                let at = random.next() as usize % frame.len().min(3000);
                frame[at] = random.next() as u8;
            }
            if random.next().is_multiple_of(4) {
                frame.truncate(random.next() as usize % frame.len());
            }
            for form in [Form::Whole, Form::Units, Form::Blocks] {
                chunk.fill(0);
                let _ = unpack(&frame, form, &mut chunk);
            }
        }
    }
}

#[test]
fn an_empty_arena_is_a_small_image() {
    for backing in backings() {
        let arena = empty(backing, 64);
        for image in images(&arena) {
            assert!(image.len() <= 16 << 10, "{}", image.len());
        }
    }
}

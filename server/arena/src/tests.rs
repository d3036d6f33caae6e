//! The arena as a whole: allocation against a plain model, audits, re-opening.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LAYOUT: u64 = 7;

fn arena(mib: u64) -> Arena {
    ReservedArena::reserve(PageKind::Small, mib << 20).unwrap().format(LAYOUT, 1).unwrap()
}

fn shard(i: usize) -> ShardIndex {
    ShardIndex::new(i).unwrap()
}

/// Copies every chunk in use into a fresh arena, as a restore does.
fn reopen(old: &Arena, mib: u64) -> Result<Arena, OpenError> {
    let blank = ReservedArena::reserve(PageKind::Small, mib << 20).unwrap();
    let mut held = old.lock(ShardSet::ALL);
    let safepoint = held.safepoint().unwrap();
    for (chunk, bytes) in safepoint.chunks() {
        blank.chunk(chunk)?.copy_from_slice(bytes);
    }
    blank.open(LAYOUT)
}

fn audit(arena: &Arena, live: &BTreeMap<u64, (u64, usize)>) -> Result<AuditSummary, Corruption> {
    let mut held = arena.lock(ShardSet::ALL);
    let audit = Audit::begin(&mut held)?;
    for (&at, &(len, s)) in live {
        audit.claim(at, len, shard(s))?;
    }
    audit.finish()
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 1u64..2000,
        4 => 2000u64..20_000,
        2 => 20_000u64..300_000,
        1 => 1_900_000u64..7_000_000,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn objects_never_overlap_and_survive(
        steps in prop::collection::vec((length(), 0usize..64, any::<bool>()), 1..300),
    ) {
        let arena = arena(64);
        let mut live: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
        for (i, (len, s, free)) in steps.into_iter().enumerate() {
            if free && !live.is_empty() {
                let at = *live.keys().nth(i % live.len()).unwrap();
                let (len, s) = live.remove(&at).unwrap();
                let mut held = arena.lock(ShardSet::one(shard(s)));
                let mut mem = held.mem(shard(s));
                prop_assert!(mem.bytes(at, len).iter().all(|b| *b == (at / 16) as u8));
                mem.release(at, len);
                continue;
            }
            let mut held = arena.lock(ShardSet::one(shard(s)));
            let mut mem = held.mem(shard(s));
            if let Ok(at) = mem.allocate(len) {
                mem.bytes_mut(at, len).fill((at / 16) as u8);
                let before = live.range(..=at).next_back();
                prop_assert!(before.is_none_or(|(b, (l, _))| b + l <= at));
                let after = live.range(at..).next();
                prop_assert!(after.is_none_or(|(a, _)| at + len <= *a));
                let lines = !allocated_size(len).is_multiple_of(64) || at.is_multiple_of(64);
                prop_assert!(at % 4 == 0 && lines);
                let slab = mem.slab_class_at(at).map(SizeClass::size);
                prop_assert_eq!(slab.is_some(), len <= MAX_SLAB_OBJECT);
                let most = (len.max(20) + 15).max(len * 4 / 3);
                prop_assert!(slab.is_none_or(|size| (len..=most).contains(&size)));
                live.insert(at, (len, s));
            }
        }
        let summary = audit(&arena, &live).unwrap();
        prop_assert_eq!(summary.bytes, arena.used_bytes());
        prop_assert!(summary.bytes >= live.values().map(|l| allocated_size(l.0)).sum::<u64>());
        prop_assert_eq!(summary.chunks, arena.used_chunks());
        let again = reopen(&arena, 80).unwrap();
        prop_assert_eq!(audit(&again, &live).unwrap(), summary);
        prop_assert_eq!(again.used_bytes(), arena.used_bytes());
        for (at, (len, s)) in live {
            let mut held = again.lock(ShardSet::one(shard(s)));
            let mut mem = held.mem(shard(s));
            prop_assert!(mem.bytes(at, len).iter().all(|b| *b == (at / 16) as u8));
            mem.release(at, len);
        }
        prop_assert_eq!(again.used_bytes(), 0);
        prop_assert_eq!(again.used_chunks(), 1);
    }
}

#[test]
fn a_full_arena_says_so_and_recovers() {
    let arena = arena(16);
    let mut held = arena.lock(ShardSet::one(shard(3)));
    let mut mem = held.mem(shard(3));
    let mut taken = Vec::new();
    while let Ok(at) = mem.allocate(4000) {
        taken.push(at);
    }
    assert!(taken.len() > 3000, "{}", taken.len());
    assert_eq!(mem.allocate(3 << 20), Err(OutOfMemory));
    for at in taken {
        mem.release(at, 4000);
    }
    assert_eq!(arena.used_chunks(), 1);
    assert!(mem.allocate(10 << 20).is_ok());
}

#[test]
fn free_chunks_are_handed_back_and_usable_again() {
    let arena = arena(128);
    let mut held = arena.lock(ShardSet::one(shard(0)));
    let mut mem = held.mem(shard(0));
    let at = mem.allocate(100 << 20).unwrap();
    mem.bytes_mut(at, 100 << 20).fill(9);
    mem.release(at, 100 << 20);
    // Two of the 64 chunks keep their memory.
    assert_eq!(arena.trim(usize::MAX), 48);
    assert_eq!(arena.trim(usize::MAX), 0);
    let at = mem.allocate(100 << 20).unwrap();
    let last = mem.bytes(at, 100 << 20)[(100 << 20) - 1];
    assert_eq!(last, 0, "the memory came back from the kernel");
}

#[test]
fn damaged_tables_are_named() {
    type Damage = (&'static str, u64, &'static [u8]);
    let table = layout::TABLE_AT;
    let damages: [Damage; 8] = [
        ("no arena", 0, b"x"),
        ("its layout is", 8, b"x"),
        ("unknown state 9", table + 16, &[9]),
        ("tail of a run without a head", table + 16, &[4]),
        ("a run of 4096 chunks", table + 16, &[3, 0, 0, 0, 0, 16]),
        ("its head is damaged", CHUNK_SIZE, &[1]),
        ("objects counted", CHUNK_SIZE + 2 * 64 + 6, &[77]),
        ("unknown shard 64", CHUNK_SIZE + 2 * 64 + 2, &[64]),
    ];
    for (reason, at, bytes) in damages {
        let arena = arena(16).without_owner_checks();
        let mut held = arena.lock(ShardSet::ALL);
        held.mem(shard(5)).allocate(100).unwrap();
        held.mem(shard(5)).bytes_mut(at, bytes.len() as u64).copy_from_slice(bytes);
        drop(held);
        let error = reopen(&arena, 16).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn claims_must_agree_with_the_allocator() {
    let arena = arena(16);
    let mut held = arena.lock(ShardSet::ALL);
    let at = held.mem(shard(5)).allocate(100).unwrap();
    drop(held);
    let mut held = arena.lock(ShardSet::ALL);
    let audit = Audit::begin(&mut held).unwrap();
    assert!(audit.claim(at, 100, shard(6)).is_err(), "another shard's");
    assert!(audit.claim(at, 200, shard(5)).is_err(), "another class");
    assert!(audit.claim(at + 16, 100, shard(5)).is_err(), "inside an object");
    assert!(audit.claim(at + 112, 100, shard(5)).is_err(), "free");
    assert!(audit.claim(u64::MAX, 100, shard(5)).is_err(), "outside");
    audit.claim(at, 100, shard(5)).unwrap();
    assert!(audit.claim(at, 100, shard(5)).is_err(), "twice");
    audit.finish().unwrap();
    let lost = Audit::begin(&mut held).unwrap().finish().unwrap_err();
    assert!(lost.reason.contains("1 objects are in use"), "{lost}");
}

/// The chunks in use with their bytes, to be forged.
fn chunks_of(arena: &Arena) -> Vec<(ChunkIndex, Vec<u8>)> {
    let mut held = arena.lock(ShardSet::ALL);
    let safepoint = held.safepoint().unwrap();
    safepoint.chunks().map(|(chunk, bytes)| (chunk, bytes.to_vec())).collect()
}

fn open_chunks(chunks: &[(ChunkIndex, Vec<u8>)], capacity: u64) -> Result<Arena, OpenError> {
    let blank = ReservedArena::reserve(PageKind::Small, capacity).unwrap();
    for (chunk, bytes) in chunks {
        blank.chunk(*chunk)?.copy_from_slice(bytes);
    }
    blank.open(LAYOUT)
}

fn refusal(chunks: &[(ChunkIndex, Vec<u8>)], capacity: u64) -> String {
    open_chunks(chunks, capacity).err().map(|e| e.to_string()).unwrap_or_default()
}

/// An image had a slab's descriptor inside a run of units. The audit stepped over it, since the
/// run's head covers those units; the index did not, and put the slab into its shard's list: the
/// next objects of that shard lay in the middle of the run's object.
#[test]
fn a_slab_inside_a_run_is_refused() {
    let arena = arena(16);
    let at = arena.lock(ShardSet::ALL).mem(shard(3)).allocate(100_000).unwrap();
    let chunks = chunks_of(&arena);
    assert_eq!(refusal(&chunks, 16 << 20), "");
    let unit = (at % CHUNK_SIZE / layout::UNIT_SIZE) as usize;
    // A slab of one object, and a single byte in a place without objects.
    let damages: [(usize, &[u8]); 2] =
        [((unit + 2) * 64, &[1, 2, 5, 0, 1, 0, 1, 0, 1]), ((unit + 12) * 64 + 50, &[1])];
    for (place, bytes) in damages {
        let mut forged = chunks.clone();
        let (_, chunk) = forged.iter_mut().find(|(c, _)| *c == ChunkIndex::of(at)).unwrap();
        chunk[place..place + bytes.len()].copy_from_slice(bytes);
        let error = refusal(&forged, 16 << 20);
        assert!(error.contains("inside it is described"), "{error}");
    }
}

/// An image had a run of chunks 65535 and 65536. The second holds a part of the chunk table, so
/// that writing to the object wrote states of chunks.
#[test]
fn a_run_over_the_chunk_table_is_refused() {
    use layout::{ChunkEntry, ChunkState};
    use zerocopy::IntoBytes as _;

    let place = |i: u32| (ChunkIndex(i).entry().raw() % CHUNK_SIZE) as usize;
    let mut chunks = chunks_of(&arena(16));
    let head = ChunkEntry::new(ChunkState::RunHead, 2);
    chunks[0].1[place(65535)..place(65535) + 16].copy_from_slice(head.as_bytes());
    let mut table = vec![0; CHUNK_SIZE as usize];
    let tail = ChunkEntry::new(ChunkState::RunTail, 1);
    table[place(65536)..place(65536) + 16].copy_from_slice(tail.as_bytes());
    chunks.push((ChunkIndex(65535), vec![7; CHUNK_SIZE as usize]));
    chunks.push((ChunkIndex(65536), table));
    let error = refusal(&chunks, (128 << 30) + (16 << 20));
    assert!(error.contains("covers a part of the chunk table"), "{error}");
}

/// More claims than objects made the audit subtract the larger number from the smaller: it must say
/// so instead. (No sound table allows it; the audit shall not depend on that.)
#[test]
fn more_claims_than_objects_are_an_error() {
    let arena = arena(16);
    let mut held = arena.lock(ShardSet::ALL);
    let at = held.mem(shard(5)).allocate(100).unwrap();
    let mut audit = Audit::begin(&mut held).unwrap();
    audit.expect_objects(0);
    audit.claim(at, 100, shard(5)).unwrap();
    let broken = audit.finish().unwrap_err();
    assert!(broken.reason.contains("1 objects are referred to, but 0 are in use"), "{broken}");
}

/// `cowherd check` sizes its arena by the highest chunk that an image names: one chunk at 64 TiB
/// cost gigabytes of tables, and units beyond 32 TiB got the numbers of others.
#[test]
fn an_arena_too_large_to_number_is_refused() {
    for capacity in [(32 << 40) + 1, 64 << 40, u64::MAX] {
        let error = ReservedArena::reserve(PageKind::Small, capacity).err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("the largest has 33554432 MiB")), "{capacity}");
    }
}

/// All chunks but one were in use, and the trimmer was giving that one back: an allocation found
/// no room and failed, though the chunk was free a moment before and a moment later.
#[test]
fn an_allocation_waits_for_the_trimmer() {
    let arena = arena(32);
    let mut held = arena.lock(ShardSet::one(shard(0)));
    let at = held.mem(shard(0)).allocate(30 << 20).unwrap();
    held.mem(shard(0)).release(at, 30 << 20);
    drop(held);
    let trimmed = arena.pool.lock().begin_release(&arena.store.barrier, 8).unwrap();
    let mut attempts = 0;
    let taken = arena.take_from_pool(|pool| {
        attempts += 1;
        let taken = pool.take_run(&arena.store, 15);
        if taken.is_err() {
            // What the trimmer does a moment later.
            pool.end_release(trimmed, true);
        }
        taken
    });
    assert_eq!((taken.map(|taken| taken.chunk), attempts), (Ok(ChunkIndex(1)), 2));
    let full = arena.take_from_pool(|pool| {
        attempts += 1;
        pool.take_run(&arena.store, 1)
    });
    assert_eq!((full.err(), attempts), (Some(OutOfMemory), 3), "a full arena is full at once");
}

//! Images: damages the memory of a small keyspace, then opens and verifies it as a restore does.
//! Neither may panic; and what passes must serve: all keys are read, changed and removed.
//!
//! The damage happens behind the file's checksums, so that no input is lost on them. An input is a
//! list of patches, six bytes each: a word of the memory that means something (16 bits), another
//! such word (16 bits), what to do (8 bits), a number (8 bits).
#![no_main]

use std::sync::OnceLock;

use cowherd::keyspace::{CompactLimits, Databases, Expiry, Keyspace, layout_hash};
use cowherd_arena::layout::ChunkState;
use cowherd_arena::{ReservedArena, CHUNK_SIZE, ChunkIndex, PageKind, ShardIndex, ShardSet};
use libfuzzer_sys::fuzz_target;

const CAPACITY: u64 = 16 << 20;
const NOW: i64 = 1_000;
const PAGE: usize = 4096;
const MOST_PATCHES: usize = 64;

/// The memory of a keyspace before the damage.
struct Sound {
    /// Each page that is not all zero: its chunk, its offset there, its bytes.
    pages: Vec<(ChunkIndex, usize, Vec<u8>)>,
    chunks: Vec<ChunkIndex>,
    /// The words on cache lines that are not all zero, as page and offset.
    words: Vec<(usize, usize)>,
}

static SOUND: OnceLock<Sound> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let sound = SOUND.get_or_init(sound);
    let mut pages: Vec<Vec<u8>> = sound.pages.iter().map(|(_, _, bytes)| bytes.clone()).collect();
    for patch in input.chunks_exact(6).take(MOST_PATCHES) {
        apply(sound, &mut pages, patch);
    }
    let blank = ReservedArena::reserve(PageKind::Small, CAPACITY).expect("memory");
    for chunk in &sound.chunks {
        let to = blank.chunk(*chunk).expect("each chunk once");
        for ((_, at, _), bytes) in
            sound.pages.iter().zip(&pages).filter(|((c, _, _), _)| c == chunk)
        {
            to[*at..*at + PAGE].copy_from_slice(bytes);
        }
    }
    let Ok(arena) = blank.open(layout_hash()) else { return };
    let space = Keyspace::open(arena).expect("memory");
    if space.verify(1).is_ok() {
        exercise(&space);
    }
});

fn names() -> impl Iterator<Item = Vec<u8>> {
    (0..60).map(|i| format!("key:{i}:{}", "x".repeat(if i % 20 == 7 { 3000 } else { i })).into())
}

fn value(i: usize) -> Vec<u8> {
    match i % 10 {
        0 | 1 => i.to_string().into_bytes(),
        2 => vec![b'v'; 3_000],
        3 => vec![b'w'; 20_000],
        4 if i == 4 => vec![b'z'; 2_200_000],
        _ => vec![b'u'; i * 3],
    }
}

fn fill(space: &Keyspace) {
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for (i, name) in names().enumerate() {
        let key = space.key(i % 3, &name);
        let expiry = if i % 3 == 0 { Expiry::At(i64::MAX / 2) } else { Expiry::None };
        // What passed may be full.
        let _ = shards.set(i % 3, &key, &value(i), expiry);
        let old = shards.lookup(i % 3, &key);
        if i % 4 == 0 {
            let _ = shards.write_at(i % 3, &key, old.as_ref(), i as u64, b"edit");
        }
    }
}

fn rename(space: &Keyspace) {
    let mut shards = space.lock(ShardSet::ALL, NOW);
    let fields: Vec<_> = (0..200).map(|i: u32| i.to_string().into_bytes()).collect();
    let pairs = fields.iter().map(|field| (field.as_slice(), &b"value"[..]));
    let limits = CompactLimits { entries: 4, value: 64 };
    let (from, to) = (space.key(0, b"from"), space.key(0, b"to"));
    let set = shards.hash_set(0, &from, None, pairs, Expiry::None, &limits);
    set.expect("room");
    assert_eq!(shards.rename(0, &from, &to), Ok(true));
    assert_ne!(space.key(0, b"to").shard, to.home_shard(), "no key is away from home");
}

fn sound() -> Sound {
    let blank = ReservedArena::reserve(PageKind::Small, CAPACITY).expect("memory");
    let space = Keyspace::create(blank, 7).expect("memory");
    fill(&space);
    // A large value away from its key's home, and databases that wait to be freed.
    rename(&space);
    space.lock(ShardSet::ALL, NOW).flush(Databases::One(2));
    fill(&space);
    let arena = space.arena();
    let held = arena.lock(ShardSet::ALL);
    let mem = held.view(ShardIndex::of_hash(0));
    let mut sound = Sound { pages: Vec::new(), chunks: Vec::new(), words: Vec::new() };
    for chunk in (0..(CAPACITY / CHUNK_SIZE) as u32).map(ChunkIndex) {
        if arena.chunk_state(chunk) == ChunkState::Free {
            continue;
        }
        sound.chunks.push(chunk);
        let bytes = mem.bytes(chunk.start(), CHUNK_SIZE);
        for (number, page) in bytes.chunks(PAGE).enumerate() {
            if page.iter().all(|byte| *byte == 0) {
                continue;
            }
            for (line, bytes) in page.chunks(64).enumerate() {
                // Values are filled with one byte and mean nothing.
                if bytes.iter().any(|byte| *byte != bytes[0]) {
                    let words = (0..8).map(|word| (sound.pages.len(), line * 64 + word * 8));
                    sound.words.extend(words);
                }
            }
            sound.pages.push((chunk, number * PAGE, page.to_vec()));
        }
    }
    assert!(sound.words.len() < 1 << 16, "a patch names {} words", sound.words.len());
    sound
}

fn apply(sound: &Sound, pages: &mut [Vec<u8>], patch: &[u8]) {
    let word = |low: u8, high: u8| {
        sound.words[usize::from(u16::from_le_bytes([low, high])) % sound.words.len()]
    };
    let (page, at) = word(patch[0], patch[1]);
    let (from_page, from) = word(patch[2], patch[3]);
    let (action, number) = (patch[4], patch[5]);
    let byte = at + usize::from(action & 7);
    let old = pages[page][byte];
    match action >> 3 & 7 {
        0 => pages[page][byte] = number,
        1 => pages[page][byte] = old ^ 1 << (number & 7),
        2 => pages[page][byte] = old.wrapping_add(number),
        3 => pages[page][at..at + 8].fill(number),
        // A reference more, or the same in another place.
        4 | 5 => {
            let bytes: [u8; 8] = pages[from_page][from..from + 8].try_into().expect("a word");
            pages[page][at..at + 8].copy_from_slice(&bytes);
        }
        _ => {
            let bytes = pages[from_page][from..from + 8].to_vec();
            let here = pages[page][at..at + 8].to_vec();
            pages[page][at..at + 8].copy_from_slice(&bytes);
            pages[from_page][from..from + 8].copy_from_slice(&here);
        }
    }
}

/// Uses what passed the check for all that it can be used for, and checks it again.
fn exercise(space: &Keyspace) {
    space.lock(ShardSet::ALL, NOW).digest();
    fill(space);
    {
        let mut shards = space.lock(ShardSet::ALL, NOW);
        for (db, name) in (0..3).flat_map(|db| names().step_by(2).map(move |name| (db, name))) {
            let _ = shards.persist(db, &space.key(db, &name));
            shards.remove(db, &space.key(db, &name));
        }
    }
    space.verify(1).expect("still whole");
    let mut more = true;
    while more {
        more = false;
        let mut shards = space.lock(ShardSet::ALL, NOW);
        shards.flush(Databases::All);
        for shard in ShardIndex::all() {
            more |= shards.clean(shard, 0, &mut Default::default(), 1000).more_deferred;
        }
    }
    assert_eq!(space.arena().used_bytes(), 0);
}

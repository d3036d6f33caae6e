//! Harness of the target `image`: damages the memory of a small keyspace, then opens and verifies
//! it as a restore does. Neither may panic, the verdict must be the same with and without an
//! inspection of the chunks, and a keyspace that passes verification must be usable: all keys are
//! read, changed and removed.
//!
//! The damage is done after the image's checksums would have been checked, so that no input is
//! rejected by a checksum. An input is a list of patches of six bytes: the index of a meaningful
//! word of the memory (16 bits), the index of another (16 bits), the action (8 bits) and a number
//! (8 bits).

use std::sync::OnceLock;

use cowherd_arena::{ChunkIndex, ObjectNotes, PageKind, ReservedArena, ShardIndex, ShardSet};

use crate::keyspace::{CompactLimits, Databases, EntryInspector, Expiry, Keyspace, layout_hash};

const CAPACITY: u64 = 16 << 20;
const NOW: i64 = 1_000;
const PAGE: usize = 4096;
const MAX_PATCHES: usize = 64;
/// The cleaning of a flushed database visits this many entries at a time.
const CLEAN_SLICE: usize = 1000;

/// The memory of a keyspace before the damage.
struct SoundMemory {
    /// Each page that is not all zero: its chunk, its offset in the chunk, its bytes.
    pages: Vec<(ChunkIndex, usize, Vec<u8>)>,
    chunks: Vec<ChunkIndex>,
    /// The meaningful words, as index of the page and offset in it.
    words: Vec<(usize, usize)>,
}

static SOUND: OnceLock<SoundMemory> = OnceLock::new();

/// Applies the patches of `input` to a sound keyspace's memory, and opens and verifies the result.
///
/// # Panics
/// Opening or verifying panics, or a keyspace that passes verification is not usable.
pub fn run_image(input: &[u8]) {
    let sound = SOUND.get_or_init(SoundMemory::create);
    let mut pages: Vec<Vec<u8>> = sound.pages.iter().map(|(_, _, bytes)| bytes.clone()).collect();
    for patch in input.chunks_exact(6).take(MAX_PATCHES) {
        apply(sound, &mut pages, patch);
    }
    let Some((keyspace, notes)) = open(sound, &pages) else { return };
    let verdict = keyspace.verify_restored(1, Some(notes));
    // Without notes, every object is read when it is referred to.
    let (other, _) = open(sound, &pages).expect("it was opened before");
    assert_eq!(verdict, other.verify(1), "another verdict without notes");
    if verdict.is_ok() {
        exercise(&keyspace);
    }
}

/// Opens a keyspace of these pages, and inspects its chunks as a restore does.
fn open(sound: &SoundMemory, pages: &[Vec<u8>]) -> Option<(Keyspace, ObjectNotes)> {
    let reserved = ReservedArena::reserve(PageKind::Small, CAPACITY).expect("memory");
    let notes = ObjectNotes::new(CAPACITY, sound.chunks.len() as u64).expect("memory");
    let mut hash_seed = None;
    for chunk in &sound.chunks {
        let to = reserved.chunk(*chunk).expect("each chunk once");
        let patched = sound.pages.iter().zip(pages);
        for ((_, at, _), bytes) in patched.filter(|((of, _, _), _)| of == chunk) {
            to[*at..*at + PAGE].copy_from_slice(bytes);
        }
        let seed = *hash_seed.get_or_insert_with(|| ObjectNotes::hash_seed(to).unwrap_or(0));
        notes.inspect(*chunk, to, seed, &EntryInspector);
    }
    let arena = reserved.open(layout_hash()).ok()?;
    Some((Keyspace::open(arena).expect("memory"), notes))
}

fn names() -> impl Iterator<Item = Vec<u8>> {
    (0..60).map(|i| format!("key:{i}:{}", "x".repeat(if i % 20 == 7 { 3000 } else { i })).into())
}

/// Values of every kind of allocation: integers, embedded values, objects in slabs, in runs of
/// units and in runs of chunks.
fn value(i: usize) -> Vec<u8> {
    match i % 10 {
        0 | 1 => i.to_string().into_bytes(),
        2 => vec![b'v'; 3_000],
        3 => vec![b'w'; 20_000],
        4 if i == 4 => vec![b'z'; 2_200_000],
        _ => vec![b'u'; i * 3],
    }
}

fn fill(keyspace: &Keyspace) {
    let mut shards = keyspace.lock(ShardSet::ALL, NOW);
    for (i, name) in names().enumerate() {
        let key = keyspace.key(i % 3, &name);
        let expiry = if i % 3 == 0 { Expiry::At(i64::MAX / 2) } else { Expiry::None };
        // Fails where a damaged allocator has no free memory, which verification permits.
        let _ = shards.set(i % 3, &key, &value(i), expiry);
        let old = shards.lookup(i % 3, &key);
        if i % 4 == 0 {
            let _ = shards.write_at(i % 3, &key, old.as_ref(), i as u64, b"edit");
        }
    }
}

/// Relocates a large value: renames a hash to a key with another home shard.
fn relocate(keyspace: &Keyspace) {
    let mut shards = keyspace.lock(ShardSet::ALL, NOW);
    let fields: Vec<_> = (0..200).map(|i: u32| i.to_string().into_bytes()).collect();
    let pairs = fields.iter().map(|field| (field.as_slice(), &b"value"[..]));
    let limits = CompactLimits { entries: 4, value: 64 };
    let (from, to) = (keyspace.key(0, b"from"), keyspace.key(0, b"to"));
    shards.hash_set(0, &from, None, pairs, Expiry::None, &limits).expect("free memory");
    assert_eq!(shards.rename(0, &from, &to), Ok(true));
    assert_ne!(keyspace.key(0, b"to").shard, to.home_shard(), "the key was not relocated");
}

impl SoundMemory {
    fn create() -> Self {
        let reserved = ReservedArena::reserve(PageKind::Small, CAPACITY).expect("memory");
        let keyspace = Keyspace::create(reserved, 7).expect("memory");
        fill(&keyspace);
        relocate(&keyspace);
        // Leaves a flushed database whose entries wait to be freed.
        keyspace.lock(ShardSet::ALL, NOW).flush(Databases::One(2));
        fill(&keyspace);
        let arena = keyspace.arena();
        let mut held = arena.lock(ShardSet::ALL);
        let safepoint = held.safepoint().expect("invariant: every shard is locked");
        let mut sound = Self { pages: Vec::new(), chunks: Vec::new(), words: Vec::new() };
        for (chunk, bytes) in safepoint.chunks() {
            sound.add_chunk(chunk, bytes);
        }
        assert!(sound.words.len() < 1 << 16, "a patch names {} words", sound.words.len());
        sound
    }

    fn add_chunk(&mut self, chunk: ChunkIndex, bytes: &[u8]) {
        self.chunks.push(chunk);
        for (number, page) in bytes.chunks(PAGE).enumerate() {
            if page.iter().all(|byte| *byte == 0) {
                continue;
            }
            for (line, bytes) in page.chunks(64).enumerate() {
                // A cache line of equal bytes is zero or part of a value: damage has no effect.
                if bytes.iter().any(|byte| *byte != bytes[0]) {
                    let words = (0..8).map(|word| (self.pages.len(), line * 64 + word * 8));
                    self.words.extend(words);
                }
            }
            self.pages.push((chunk, number * PAGE, page.to_vec()));
        }
    }
}

fn apply(sound: &SoundMemory, pages: &mut [Vec<u8>], patch: &[u8]) {
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
        // Copies a word: a second reference to an object, or a reference to another.
        4 | 5 => {
            let bytes: [u8; 8] = pages[from_page][from..from + 8].try_into().expect("a word");
            pages[page][at..at + 8].copy_from_slice(&bytes);
        }
        // Swaps two words.
        _ => {
            let from_bytes = pages[from_page][from..from + 8].to_vec();
            let bytes = pages[page][at..at + 8].to_vec();
            pages[page][at..at + 8].copy_from_slice(&from_bytes);
            pages[from_page][from..from + 8].copy_from_slice(&bytes);
        }
    }
}

/// Reads, changes and removes everything in a keyspace that passed verification, and verifies the
/// keyspace again.
fn exercise(keyspace: &Keyspace) {
    keyspace.lock(ShardSet::ALL, NOW).digest();
    fill(keyspace);
    {
        let mut shards = keyspace.lock(ShardSet::ALL, NOW);
        for (db, name) in (0..3).flat_map(|db| names().step_by(2).map(move |name| (db, name))) {
            let _ = shards.persist(db, &keyspace.key(db, &name));
            shards.remove(db, &keyspace.key(db, &name));
        }
    }
    keyspace.verify(1).expect("the keyspace still passes verification");
    let mut more = true;
    while more {
        more = false;
        let mut shards = keyspace.lock(ShardSet::ALL, NOW);
        shards.flush(Databases::All);
        for shard in ShardIndex::all() {
            let mut cursors = Default::default();
            more |= shards.clean(shard, 0, &mut cursors, CLEAN_SLICE).more_deferred;
        }
    }
    assert_eq!(keyspace.arena().used_bytes(), 0);
}

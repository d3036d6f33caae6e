//! Checkpoints and restores end to end; helpers of the tests.

mod damage;
mod failures;
mod free_memory;
mod round_trip;
mod speed;
mod undo;

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::Recording;
use crate::{
    Arena, Backing, CHUNK_SIZE, ChunkIndex, Held, PageKind, ReservedArena, ShardIndex, ShardSet,
};

const LAYOUT: u64 = 0x1234_5678_9abc_def0;
const CREATED: u64 = 1_700_000_000_123;

const OPTIONS: ImageOptions = ImageOptions {
    codec: ChunkCodec::Lz4,
    layout: LAYOUT,
    created_ms: CREATED,
    delay_per_chunk: Duration::ZERO,
};

/// Options of a checkpoint that does not end by itself.
const ENDLESS: ImageOptions =
    ImageOptions { delay_per_chunk: Duration::from_secs(3600), ..OPTIONS };

#[derive(Clone, Copy, PartialEq)]
enum Content {
    Text,
    Noise,
}

/// Waits for exclusive use of the machine's hugetlb pools: tests of other processes, which take the
/// same lock, rely on free pages and on the pools' counters.
fn claim_hugetlb_pools() -> File {
    let path = std::env::temp_dir().join("cowherd-tests-hugepages.lock");
    // Another user's file can be opened for reading, which is enough to lock it.
    let file = File::open(&path).or_else(|_| File::create(&path)).unwrap();
    file.lock().unwrap();
    file
}

fn empty(backing: impl Into<Backing>, mib: u64) -> Arena {
    ReservedArena::reserve(backing, mib << 20).unwrap().format(LAYOUT, 42).unwrap()
}

/// An arena with objects of many sizes in all shards, about `mib` MiB of them.
fn filled(backing: impl Into<Backing>, mib: u64, content: Content) -> Arena {
    let arena = empty(backing, mib + mib / 4 + 32);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    while arena.used_bytes() < mib << 20 {
        let shard = ShardIndex::of_hash(random.next());
        let len = match random.next() % 8 {
            0 => 3 << 20,
            1..3 => 900_000,
            3..5 => 30_000,
            _ => 1 + random.next() % 4000,
        };
        let mut held = arena.lock(ShardSet::one(shard));
        let mut mem = held.mem(shard);
        let at = mem.allocate(len).unwrap();
        random.fill(mem.bytes_mut(at, len), content);
    }
    arena
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, bytes: &mut [u8], content: Content) {
        const WORDS: [&[u8]; 8] = [
            b"user:1000:",
            b"\"name\":",
            b"session ",
            b"true, ",
            b"2024-05-",
            b"{\"id\": ",
            b"alice",
            b"}, ",
        ];
        let mut rest = bytes;
        while !rest.is_empty() {
            let number = self.next();
            let raw = number.to_le_bytes();
            let digits = raw.map(|byte| b'0' + byte % 10);
            let word = match content {
                Content::Noise => &raw[..],
                Content::Text if number & 0x300 == 0 => &digits[..7],
                Content::Text => WORDS[(number >> 10) as usize % WORDS.len()],
            };
            let len = word.len().min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            now.copy_from_slice(&word[..len]);
            rest = later;
        }
    }
}

/// The chunks in use with a hash of their bytes, of which those that are free count as zero.
fn digest(arena: &Arena) -> Vec<(u32, u64)> {
    digest_of(&mut arena.lock(ShardSet::ALL))
}

/// The same, with all locks held.
fn digest_of(held: &mut Held<'_>) -> Vec<(u32, u64)> {
    let safepoint = held.safepoint().unwrap();
    let hash = |(chunk, bytes): (ChunkIndex, &[u8])| {
        let is_cut = crate::bits::get(&safepoint.arena().store.cut, chunk.0.into());
        (chunk.0, xxhash_rust::xxh3::xxh3_64(&packing::without_free(bytes, is_cut)))
    };
    safepoint.chunks().map(hash).collect()
}

fn target(dir: &TempDir) -> ImageTarget {
    ImageTarget { dir: dir.path().to_owned(), filename: "dump.cow".into() }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn fork<'a>(
    prepared: PreparedCheckpoint<'a>,
    arena: &'a Arena,
) -> Result<RunningCheckpoint<'a>, CheckpointError> {
    let mut held = arena.lock(ShardSet::ALL);
    prepared.fork(&held.safepoint().unwrap())
}

/// Observes a checkpoint as a server does.
struct Observer<'a>(&'a Arena);

impl<'a> CheckpointObserver<'a> for Observer<'a> {
    fn poll_interval(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn poll(&mut self) -> Option<CheckpointError> {
        let log = self.0.barrier().undo_log()?;
        log.reclaim();
        log.prefault();
        let limit = log.limit();
        self.0.barrier().has_overflowed().then_some(CheckpointError::UndoLimit { limit })
    }

    fn child_exiting(&mut self) {
        self.0.barrier().child_exiting();
    }

    fn child_exited(&mut self, recording: Recording<'a>) {
        let mut held = self.0.lock(ShardSet::ALL);
        let finished = recording.finish(&held.safepoint().unwrap());
        drop(held);
        drop(finished);
    }
}

fn checkpoint_by_fork(
    prepared: PreparedCheckpoint<'_>,
    arena: &Arena,
) -> Result<CheckpointOutcome, CheckpointError> {
    fork(prepared, arena)?.wait(&mut Observer(arena))
}

fn checkpoint_here(
    prepared: PreparedCheckpoint<'_>,
    arena: &Arena,
) -> Result<CheckpointOutcome, CheckpointError> {
    let mut held = arena.lock(ShardSet::ALL);
    prepared.write_here(&held.safepoint().unwrap())
}

fn restored(path: &Path, arena: &Arena) -> Arena {
    restore(path, arena.backing(), arena.capacity(), LAYOUT, 3).unwrap().0
}

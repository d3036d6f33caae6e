//! Round trips: an image restores to the arena that was written, for each page kind, codec and
//! mode.

use std::num::NonZeroU32;

use xxhash_rust::xxh3::xxh3_64;
use zerocopy::{FromZeros, IntoBytes};

use super::super::format::{FOOTER_MAGIC, FileHeader, Footer, IndexEntry, MAGIC};
use super::*;
use crate::memory::pages::{self, HugetlbPool};
use crate::{Isolation, ObjectInspector, ObjectNotes, SlabObject, layout_hash};

fn round_trip(arena: &Arena, options: &ImageOptions) -> CheckpointOutcome {
    let dir = TempDir::new().unwrap();
    let target = target(&dir);
    let before = digest(arena);
    let prepared = PreparedCheckpoint::new(&target, options, arena).unwrap();
    let by_fork = checkpoint_by_fork(prepared, arena).unwrap();
    assert_eq!(names(dir.path()), ["dump.cow"]);
    let image = fs::read(target.path()).unwrap();
    assert_eq!(image.len() as u64, by_fork.image_bytes);
    assert_eq!(by_fork.chunks, before.len() as u64);
    let most = by_fork.chunks * CHUNK_SIZE;
    assert!(by_fork.raw_bytes > arena.used_bytes() * 3 / 4 && by_fork.raw_bytes < most);
    let again = restored(&target.path(), arena);
    assert_eq!(digest(&again), before);
    assert_eq!(again.used_bytes(), arena.used_bytes());
    assert_eq!(again.hash_seed(), arena.hash_seed());

    let prepared = PreparedCheckpoint::new(&target, options, arena).unwrap();
    let here = checkpoint_here(prepared, arena).unwrap();
    assert_eq!(here.lz4_chunks, by_fork.lz4_chunks);
    assert_eq!(fs::read(target.path()).unwrap(), image, "both ways write the same bytes");
    assert!(!arena.barrier().is_active());
    by_fork
}

#[test]
fn small_pages() {
    let outcome = round_trip(&filled(PageKind::Small, 24, Content::Text), &OPTIONS);
    // The tables take one block of the file as they are.
    assert_eq!(outcome.lz4_chunks, outcome.chunks - 1);
    assert!(outcome.image_bytes < outcome.raw_bytes);
}

#[test]
fn transparent_huge_pages() {
    if pages::check(PageKind::Thp.into(), 1).is_err() {
        return;
    }
    let options = ImageOptions { codec: ChunkCodec::None, ..OPTIONS };
    let outcome = round_trip(&filled(PageKind::Thp, 24, Content::Text), &options);
    assert_eq!(outcome.lz4_chunks, 0);
    let padding = outcome.image_bytes - outcome.raw_bytes - 2 * 4096;
    assert!(padding < outcome.chunks * 4096, "{padding}");
}

#[test]
fn pages_of_the_hugetlb_pool() {
    let _claim = claim_hugetlb_pools();
    let pages = HugetlbPool::read(PageKind::Huge2Mb).map_or(0, |pool| pool.available());
    // Two arenas of 64 MiB at once, and copies of the pages that are written during the checkpoint.
    if pages < 80 {
        return;
    }
    round_trip(&filled(PageKind::Huge2Mb, 25, Content::Text), &OPTIONS);
}

#[test]
fn chunks_that_do_not_shrink_are_stored_as_they_are() {
    let outcome = round_trip(&filled(PageKind::Small, 24, Content::Noise), &OPTIONS);
    assert!(outcome.lz4_chunks > 0, "the tables shrink");
    assert!(outcome.lz4_chunks < outcome.chunks, "noise does not");
}

#[test]
fn an_image_holds_the_instant_of_the_fork() {
    let arena = filled(PageKind::Small, 16, Content::Noise).without_owner_checks();
    let dir = TempDir::new().unwrap();
    let target = target(&dir);
    let before = digest(&arena);
    // The child lags behind the writers.
    let options = ImageOptions { delay_per_chunk: Duration::from_millis(5), ..OPTIONS };
    let running =
        fork(PreparedCheckpoint::new(&target, &options, &arena).unwrap(), &arena).unwrap();
    assert!(running.pid() > 0);
    let handle = running.handle();
    for chunk in 1..arena.used_chunks() {
        let mut held = arena.lock(ShardSet::ALL);
        held.mem(ShardIndex::of_hash(0)).bytes_mut(chunk * CHUNK_SIZE, CHUNK_SIZE).fill(1);
    }
    let outcome = running.wait(&mut Observer(&arena)).unwrap();
    let progress = handle.progress();
    assert_eq!(progress.phase, WriterPhase::Done);
    assert_eq!(progress.chunks_done, progress.chunks_total);
    assert_eq!(progress.image_bytes, outcome.image_bytes);
    assert_eq!(digest(&restored(&target.path(), &arena)), before);
}

#[test]
fn an_image_restores_into_a_larger_arena_of_other_pages() {
    let arena = filled(PageKind::Small, 8, Content::Text);
    let dir = TempDir::new().unwrap();
    let target = target(&dir);
    checkpoint_here(PreparedCheckpoint::new(&target, &OPTIONS, &arena).unwrap(), &arena).unwrap();
    let kind = pages::choose(1 << 40, Isolation::KernelCow).0;
    let (again, stats) = restore(&target.path(), kind, 256 << 20, LAYOUT, 2).unwrap();
    assert_eq!(again.used_bytes(), arena.used_bytes());
    // Four readers for each of two processors, and no more than chunks.
    assert_eq!(stats.threads as u64, stats.image.chunks.min(8));
    assert_eq!(stats.image.page_kind, PageKind::Small);
    assert_eq!(stats.image.capacity, arena.capacity());
    // The tables hold the capacity; the rest is the same.
    assert_eq!(digest(&again)[1..], digest(&arena)[1..]);
}

#[test]
fn a_filesystem_without_direct_io_will_do() {
    let Ok(dir) = TempDir::new_in("/dev/shm") else { return };
    let target = target(&dir);
    let arena = filled(PageKind::Small, 8, Content::Noise);
    checkpoint_by_fork(PreparedCheckpoint::new(&target, &OPTIONS, &arena).unwrap(), &arena)
        .unwrap();
    assert_eq!(digest(&restored(&target.path(), &arena)), digest(&arena));
}

#[test]
fn inspecting_tells_what_a_restore_needs() {
    let arena = filled(PageKind::Small, 8, Content::Text);
    let dir = TempDir::new().unwrap();
    let target = target(&dir);
    checkpoint_here(PreparedCheckpoint::new(&target, &OPTIONS, &arena).unwrap(), &arena).unwrap();
    let info = inspect(&target.path()).unwrap();
    assert_eq!((info.layout, info.created_ms), (LAYOUT, CREATED));
    assert_eq!(info.chunks, arena.used_chunks());
    assert_eq!(info.lz4_chunks, info.chunks - 1);
    assert_eq!(info.needed_capacity, arena.used_chunks() * CHUNK_SIZE);
    assert!(info.writer.starts_with("cowherd "), "{}", info.writer);
    let small = info.needed_capacity - CHUNK_SIZE;
    let error = restore(&target.path(), PageKind::Small, small, LAYOUT, 1).err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains(&format!("maxmemory to at least {}mb", info.needed_capacity >> 20)),
        "{text}"
    );
    restore(&target.path(), PageKind::Small, info.needed_capacity, LAYOUT, 1).unwrap();
}

/// An image as version 1 wrote it: whole chunks, with what is free in them.
fn version_1(arena: &Arena) -> Vec<u8> {
    let mut held = arena.lock(ShardSet::ALL);
    let safepoint = held.safepoint().unwrap();
    let mut header = FileHeader::new_zeroed();
    (header.magic, header.version) = (MAGIC, 1.into());
    (header.layout, header.chunk_size) = (LAYOUT.into(), CHUNK_SIZE.into());
    header.capacity = arena.capacity().into();
    header.checksum = header.expected_checksum().into();
    let (mut file, mut index) = (header.as_bytes().to_vec(), Vec::new());
    for (chunk, bytes) in safepoint.chunks() {
        let entry = IndexEntry {
            chunk: chunk.0.into(),
            stored: (CHUNK_SIZE as u32).into(),
            offset: (file.len() as u64).into(),
            checksum: xxh3_64(bytes).into(),
            codec: 0,
            form: 0,
            reserved: [0; 2],
            len: 0.into(),
        };
        file.extend_from_slice(bytes);
        index.push(entry);
    }
    let chunks = index.len() as u64;
    let index_at = file.len() as u64;
    let tail = format::tail_len(chunks);
    file.extend_from_slice(index.as_bytes());
    file.resize((index_at + tail - format::FOOTER_LEN) as usize, 0);
    let mut footer = Footer {
        magic: FOOTER_MAGIC,
        length: (index_at + tail).into(),
        index_at: index_at.into(),
        chunks: chunks.into(),
        index_checksum: xxh3_64(&file[index_at as usize..]).into(),
        header_checksum: header.checksum,
        reserved: 0.into(),
        checksum: 0.into(),
    };
    footer.checksum = footer.expected_checksum().into();
    file.extend_from_slice(footer.as_bytes());
    file
}

#[test]
fn an_image_of_version_1_with_the_same_layout_is_restored() {
    let arena = filled(PageKind::Small, 8, Content::Noise);
    let dir = TempDir::new().unwrap();
    let target = target(&dir);
    fs::write(target.path(), version_1(&arena)).unwrap();
    assert_eq!(inspect(&target.path()).unwrap().version, 1);
    let again = restored(&target.path(), &arena);
    assert_eq!(digest(&again), digest(&arena));
    assert_eq!(again.used_bytes(), arena.used_bytes());
}

/// The image of an empty arena, pinned: an older image must stay readable, or be refused by its
/// version or layout.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden-empty.cow");

fn write_golden(dir: &Path) -> Vec<u8> {
    let layout = layout_hash(&[]);
    let arena =
        ReservedArena::reserve(PageKind::Small, 8 << 20).unwrap().format(layout, 42).unwrap();
    let target = ImageTarget { dir: dir.to_owned(), filename: "golden-empty.cow".into() };
    let options = ImageOptions { layout, ..OPTIONS };
    let mut prepared = PreparedCheckpoint::new(&target, &options, &arena).unwrap();
    prepared.job.header.writer = *b"cowherd golden\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    checkpoint_here(prepared, &arena).unwrap();
    fs::read(target.path()).unwrap()
}

#[test]
fn the_golden_image_is_read_and_written_alike() {
    let golden = Path::new(GOLDEN);
    let info = inspect(golden).unwrap();
    assert_eq!(info.version, 2);
    assert_eq!(info.writer, "cowherd golden");
    assert_eq!((info.created_ms, info.page_kind), (CREATED, PageKind::Small));
    assert_eq!((info.chunks, info.capacity), (1, 8 << 20));
    let layout = layout_hash(&[]);
    let (arena, _) = restore(golden, PageKind::Small, 8 << 20, layout, 1).unwrap();
    assert_eq!((arena.used_chunks(), arena.used_bytes(), arena.hash_seed()), (1, 0, 42));
    let dir = TempDir::new().unwrap();
    assert!(write_golden(dir.path()) == fs::read(golden).unwrap(), "the bytes differ");
}

/// Writes the golden image anew, after a change that is meant to change it:
/// `cargo test -p cowherd-arena --lib bless_the_golden_image -- --ignored`
#[test]
#[ignore = "overwrites the golden image"]
fn bless_the_golden_image() {
    let dir = TempDir::new().unwrap();
    fs::write(GOLDEN, write_golden(dir.path())).unwrap();
}

/// Notes the first byte of each object.
struct NoteFirstByte;

impl ObjectInspector for NoteFirstByte {
    fn inspect(&self, object: &SlabObject<'_>) -> Option<NonZeroU32> {
        assert_eq!(object.hash_seed, 42);
        NonZeroU32::new(1 + u32::from(object.bytes[0]))
    }
}

#[test]
fn every_object_is_inspected_once_its_chunk_is_read() {
    for (content, codec) in [(Content::Text, ChunkCodec::Lz4), (Content::Noise, ChunkCodec::None)] {
        let arena = filled(PageKind::Small, 24, content);
        let mut held = arena.lock(ShardSet::ALL);
        for i in 0..3_000 {
            held.mem(ShardIndex::of_hash(i)).allocate(40 + i % 900).unwrap();
        }
        drop(held);
        let dir = TempDir::new().unwrap();
        let target = target(&dir);
        let options = ImageOptions { codec, ..OPTIONS };
        let prepared = PreparedCheckpoint::new(&target, &options, &arena).unwrap();
        checkpoint_here(prepared, &arena).unwrap();
        let expected = ObjectNotes::new(arena.capacity(), 64).unwrap();
        let mut held = arena.lock(ShardSet::ALL);
        for (chunk, bytes) in held.safepoint().unwrap().chunks() {
            expected.inspect(chunk, bytes, arena.hash_seed(), &NoteFirstByte);
        }
        drop(held);
        assert!(expected.count() >= 3_000, "{} objects", expected.count());
        for threads in [1, 3] {
            let hooks = RestoreHooks { inspector: Some(&NoteFirstByte), ..RestoreHooks::NONE };
            let (kind, capacity) = (PageKind::Small, arena.capacity());
            let restored =
                restore_with(&target.path(), kind, capacity, LAYOUT, threads, hooks).unwrap();
            assert_eq!(restored.1.map(|notes| notes.count()), Some(expected.count()));
            assert_eq!(digest(&restored.0), digest(&arena));
        }
    }
}

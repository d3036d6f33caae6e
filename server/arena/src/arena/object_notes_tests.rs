//! Claims with and without notes of one arena, and inspections of bytes that are no chunk's.

use proptest::prelude::*;
use zerocopy::IntoBytes as _;

use super::*;
use crate::{Arena, Audit, PageKind, ReservedArena, ShardSet};

const LAYOUT: u64 = 7;

/// Notes 9 of every object.
struct NoteAll;

impl ObjectInspector for NoteAll {
    fn inspect(&self, object: &SlabObject<'_>) -> Option<NonZeroU32> {
        assert_eq!(object.bytes.len() as u64, object.class.size());
        NonZeroU32::new(9)
    }
}

fn shard(number: usize) -> ShardIndex {
    ShardIndex::new(number).unwrap()
}

fn arena() -> Arena {
    ReservedArena::reserve(PageKind::Small, 16 << 20).unwrap().format(LAYOUT, 1).unwrap()
}

/// A copy of an arena, and notes of all its small objects.
fn inspected(arena: &Arena) -> (Arena, ObjectNotes) {
    let blank = ReservedArena::reserve(PageKind::Small, arena.capacity()).unwrap();
    let notes = ObjectNotes::new(arena.capacity(), 8).unwrap();
    let mut held = arena.lock(ShardSet::ALL);
    for (chunk, bytes) in held.safepoint().unwrap().chunks() {
        blank.chunk(chunk).unwrap().copy_from_slice(bytes);
        notes.inspect(chunk, bytes, arena.hash_seed(), &NoteAll);
    }
    (blank.open(LAYOUT).unwrap(), notes)
}

#[test]
fn an_object_is_claimed_once_with_or_without_its_note() {
    let original = arena();
    let mut held = original.lock(ShardSet::ALL);
    let objects: [u64; 3] = std::array::from_fn(|_| held.mem(shard(5)).allocate(100).unwrap());
    let run = held.mem(shard(5)).allocate(100_000).unwrap();
    drop(held);
    let (arena, notes) = inspected(&original);
    assert_eq!(notes.count(), 3);
    let mut held = arena.lock(ShardSet::ALL);
    let audit = Audit::begin_with(&mut held, Some(notes)).unwrap();
    let [one, other, lost] = objects;
    assert_eq!(audit.claim_noted(one, shard(6)), Ok(None), "another shard's");
    assert_eq!(audit.claim_noted(one + 4, shard(5)), Ok(None), "inside an object");
    assert_eq!(audit.claim_noted(run, shard(5)), Ok(None), "a run");
    assert_eq!(audit.claim_noted(u64::MAX, shard(5)), Ok(None), "outside");
    assert_eq!(audit.claim_noted(0, shard(5)), Ok(None), "tables");
    assert_eq!(audit.claim_noted(one, shard(5)), Ok(NonZeroU32::new(9)));
    assert!(audit.claim_noted(one, shard(5)).is_err(), "twice by the note");
    assert!(audit.claim(one, 100, shard(5)).is_err(), "by the note, then by the length");
    audit.claim(other, 100, shard(5)).unwrap();
    assert!(audit.claim_noted(other, shard(5)).is_err(), "by the length, then by the note");
    audit.claim(run, 100_000, shard(5)).unwrap();
    assert_eq!(audit.note(one), NonZeroU32::new(9), "a claim leaves the note");
    let broken = audit.finish().unwrap_err();
    assert_eq!(broken.chunk, ChunkIndex::of(lost));
    assert!(broken.reason.contains("1 objects are in use"), "{broken}");
}

/// The chunks of a large object hold a copy of a chunk that is cut into units: an inspection takes
/// it for one.
#[test]
fn objects_inside_a_run_of_chunks_cannot_be_claimed() {
    let arena = arena();
    let mut held = arena.lock(ShardSet::ALL);
    let small = held.mem(shard(5)).allocate(100).unwrap();
    let cut = ChunkIndex::of(small);
    let chunk: Vec<u8> = {
        let safepoint = held.safepoint().unwrap();
        let found = safepoint.chunks().find(|(chunk, _)| *chunk == cut);
        found.unwrap().1.to_vec()
    };
    let large = held.mem(shard(5)).allocate(CHUNK_SIZE).unwrap();
    held.mem(shard(5)).bytes_mut(large, CHUNK_SIZE).copy_from_slice(&chunk);
    drop(held);
    let (arena, notes) = inspected(&arena);
    assert_eq!(notes.count(), 2);
    let mut held = arena.lock(ShardSet::ALL);
    let audit = Audit::begin_with(&mut held, Some(notes)).unwrap();
    let false_object = large + small % CHUNK_SIZE;
    assert_eq!(audit.note(false_object), None);
    assert_eq!(audit.claim_noted(false_object, shard(5)), Ok(None));
    assert!(audit.claim(false_object, 100, shard(5)).is_err());
    audit.claim(large, CHUNK_SIZE, shard(5)).unwrap();
    assert!(audit.claim_noted(small, shard(5)).unwrap().is_some());
    audit.finish().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Descriptors of any content, many of them of slabs.
    #[test]
    fn any_bytes_can_be_inspected(
        descriptors in prop::collection::vec(
            (0u8..5, any::<u8>(), any::<u8>(), 0u16..12, any::<[u64; 7]>()), 256
        ),
    ) {
        let mut chunk = vec![0; index(CHUNK_SIZE)];
        let places = chunk.chunks_exact_mut(size_of::<UnitDescriptor>());
        for (place, (kind, class, shard, units, objects)) in places.zip(descriptors) {
            let none = UnitDescriptor::NONE;
            let descriptor = UnitDescriptor { kind, class, shard, units, objects, ..none };
            place.copy_from_slice(descriptor.as_bytes());
        }
        let notes = ObjectNotes::new(16 << 20, 1).unwrap();
        notes.inspect(ChunkIndex(1), &chunk, 0, &NoteAll);
        for at in (0..CHUNK_SIZE * 8).step_by(4) {
            let _ = notes.word(at);
        }
        // Twice is once too often: there are no words for it, but no harm is done.
        notes.inspect(ChunkIndex(1), &chunk, 0, &NoteAll);
        notes.inspect(ChunkIndex(7), &chunk, 0, &NoteAll);
        notes.inspect(ChunkIndex(100), &chunk, 0, &NoteAll);
        notes.inspect(ChunkIndex(1), &chunk[1..], 0, &NoteAll);
    }
}

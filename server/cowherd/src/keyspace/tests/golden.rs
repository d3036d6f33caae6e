//! The golden image, a pinned image with a few keys: images of older versions must stay readable,
//! and the layout of the keyspace's structures must not change unnoticed. See docs/image-format.md.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use cowherd_arena::checkpoint::{
    ChunkCodec, ImageOptions, ImageTarget, PreparedCheckpoint, RestoreError, inspect, restore,
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/keys.cow");
/// The golden image of version 2 of the keyspace, which had no database for libraries.
const GOLDEN_2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/keys-2.cow");
const CREATED: u64 = 1_700_000_000_123;
const SEED: u64 = 42;
/// Wall clock of the steps, in milliseconds.
const NOW: i64 = 1_700_000_000_000;
const LATER: i64 = 4_000_000_000_000;

/// A value that is external.
fn long() -> Vec<u8> {
    (0..=255).cycle().take(5000).collect()
}

/// Database, key, value, expiry and encoding.
type Expected = (usize, &'static [u8], Vec<u8>, Option<i64>, &'static str);

fn expected() -> Vec<Expected> {
    vec![
        (0, b"int", b"-42".to_vec(), None, "int"),
        (0, b"short", b"a short value".to_vec(), None, "embstr"),
        (0, b"empty", Vec::new(), None, "embstr"),
        (0, b"long", long(), None, "raw"),
        (0, b"edited", b"to be continued".to_vec(), None, "raw"),
        (0, b"expires", b"one day".to_vec(), Some(LATER), "embstr"),
        (0, b"long and expires", long(), Some(LATER + 1), "raw"),
        (9, b"short", b"in another database".to_vec(), None, "embstr"),
        (9, b"int expires", b"7".to_vec(), Some(LATER + 2), "int"),
    ]
}

/// The hashes: name, number of fields and encoding. Every third field of a volatile one expires.
const HASHES: [(&[u8], usize, bool, &str); 4] = [
    (b"compact hash", 3, false, "listpack"),
    (b"volatile hash", 4, true, "listpackex"),
    (b"large hash", 40, false, "hashtable"),
    (b"large volatile hash", 70, true, "hashtable"),
];
const LIMITS: CompactLimits = CompactLimits { entries: 16, value: 64 };

/// Field `i` of a hash: its name, value and expiry.
fn field(i: usize, is_volatile: bool) -> (Vec<u8>, Vec<u8>, Option<i64>) {
    let value = if i.is_multiple_of(2) { i.to_string() } else { format!("value {i}") };
    let expiry = (is_volatile && i.is_multiple_of(3)).then_some(LATER + i as i64);
    (format!("field {i}").into_bytes(), value.into_bytes(), expiry)
}

fn add_hashes(space: &Keyspace) {
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for (name, count, is_volatile, _) in HASHES {
        let key = space.key(0, name);
        for (name, value, expiry) in (0..count).map(|i| field(i, is_volatile)) {
            let old = shards.hash(0, &key).unwrap();
            let pair = std::iter::once((name.as_slice(), value.as_slice()));
            let expiry = expiry.map_or(Expiry::None, Expiry::At);
            shards.hash_set(0, &key, old.as_ref(), pair, expiry, &LIMITS).unwrap();
        }
    }
}

fn check_hashes(space: &Keyspace) {
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for (name, count, is_volatile, encoding) in HASHES {
        let entry = shards.hash(0, &space.key(0, name)).unwrap().unwrap();
        assert_eq!(shards.encoding_name(&entry), encoding);
        assert_eq!(shards.hash_len(&entry), count as u64);
        for (name, value, expiry) in (0..count).map(|i| field(i, is_volatile)) {
            let (found, at) = shards.hash_get(&entry, &name).unwrap();
            assert_eq!((found.bytes(&mut itoa::Buffer::new()), at), (value.as_slice(), expiry));
        }
    }
}

/// The sorted sets: name, number of members and encoding.
const SORTED_SETS: [(&[u8], usize, &str); 2] =
    [(b"compact sorted set", 5, "listpack"), (b"large sorted set", 100, "skiplist")];

/// Member `i` of a sorted set, and its score.
fn member(i: usize) -> (Vec<u8>, f64) {
    (format!("member {i}").into_bytes(), i as f64 * 0.75 - 10.0)
}

fn add_sorted_sets(space: &Keyspace) {
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for (name, count, _) in SORTED_SETS {
        let (key, mut entry) = (space.key(0, name), None);
        // Not in ascending order.
        for (member, score) in (0..count).map(|i| member(i * 7 % count)) {
            let put = shards.put_member(0, &key, entry, &member, &LIMITS, |_| Some(score));
            entry = put.unwrap().0;
        }
    }
}

fn check_sorted_sets(space: &Keyspace) {
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for (name, count, encoding) in SORTED_SETS {
        let entry = shards.lookup(0, &space.key(0, name)).unwrap();
        assert_eq!(shards.encoding_name(&entry), encoding);
        let view = shards.sorted_set(&entry);
        assert_eq!(view.len(), count as u64);
        for i in 0..count {
            let (member, score) = member(i);
            assert_eq!(view.rank(&member), Some((i as u64, score)));
        }
    }
}

const STREAM: &[u8] = b"stream";
const STREAM_LIMITS: StreamLimits = StreamLimits { bytes: 4096, entries: 4 };
/// Entries of the stream, every fifth of which has another field, and how many the group has read.
const ENTRIES: u64 = 10;
const READ: u64 = 6;

/// Entry `i` of the stream: its id, its field and its value.
fn stream_entry(i: u64) -> (StreamId, &'static [u8], String) {
    let field: &[u8] = if i.is_multiple_of(5) { b"another field" } else { b"field" };
    (StreamId { ms: 1000 + i / 3, seq: i }, field, format!("value {i}"))
}

fn add_stream(space: &Keyspace) {
    let mut shards = space.lock(ShardSet::ALL, NOW);
    let (key, mut entry) = (space.key(0, STREAM), None);
    for (id, field, value) in (1..=ENTRIES).map(stream_entry) {
        let pair = std::iter::once((field, value.as_bytes()));
        entry = Some(shards.stream_add(0, &key, entry.as_ref(), id, pair, &STREAM_LIMITS).unwrap());
    }
    let entry = entry.unwrap();
    shards.group_create(&entry, b"group", StreamId::MIN, Some(0)).unwrap();
    let group = shards.stream_group(&entry, b"group").unwrap().group;
    for (name, from) in [(&b"first"[..], 1), (b"second", READ / 2 + 1)] {
        let consumer = shards.consumer_create(&entry, group, name).unwrap();
        let ids: Vec<StreamId> = (from..from + READ / 2).map(|i| stream_entry(i).0).collect();
        shards.pending_prepare(&entry, group, consumer, &ids).unwrap();
        let claim = PendingClaim { consumer, delivered_at: NOW, deliveries: from };
        ids.iter().for_each(|id| shards.pending_set(&entry, group, *id, &claim));
    }
    shards.group_set(&entry, group, stream_entry(READ).0, Some(READ));
    let gone = [stream_entry(1).0, stream_entry(7).0];
    assert_eq!(shards.stream_delete(0, &key, &entry, gone.into_iter()), 2);
}

fn check_stream(space: &Keyspace) {
    let mut shards = space.lock(ShardSet::ALL, NOW);
    let entry = shards.stream(0, &space.key(0, STREAM)).unwrap().unwrap();
    assert_eq!(shards.encoding_name(&entry), "stream");
    let mut found = Vec::new();
    shards.stream_range(&entry, StreamId::MIN, StreamId::MAX, false, u64::MAX, |id, fields| {
        for (field, value) in fields.iter() {
            let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
            found.push((id, field.bytes(&mut a).to_vec(), value.bytes(&mut b).to_vec()));
        }
    });
    let left = (1..=ENTRIES).filter(|i| !matches!(i, 1 | 7)).map(stream_entry);
    let expected = left.map(|(id, field, value)| (id, field.to_vec(), value.into_bytes()));
    assert_eq!(found, expected.collect::<Vec<_>>());
    let info = shards.stream_info(&entry);
    assert_eq!((info.added, info.length, info.last), (ENTRIES, ENTRIES - 2, stream_entry(10).0));
    assert_eq!(info.deleted, stream_entry(7).0);
    let group = shards.stream_group(&entry, b"group").unwrap();
    assert_eq!((group.last, group.read), (stream_entry(READ).0, Some(READ)));
    assert_eq!((group.consumers, group.pending), (2, READ));
    let second = shards.consumer(&entry, group.group, b"second").unwrap();
    let pending = shards.pending(&entry, group.group, stream_entry(READ).0).unwrap();
    assert_eq!((pending.consumer, pending.deliveries), (second, READ / 2 + 1));
    assert_eq!(pending.delivered_at, NOW);
}

/// The library of functions: name and code.
const LIBRARY: (&[u8], &[u8]) =
    (b"lib", b"#!lua name=lib\nredis.register_function('answer', function() return 42 end)");

/// The steps that lead to the golden image.
fn steps() -> Keyspace {
    let blank = ReservedArena::reserve(PageKind::Small, 16 << 20).unwrap();
    let space = Keyspace::create(blank, SEED).unwrap();
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for (db, name, value, expiry, _) in expected() {
        let key = space.key(0, name);
        let expiry = expiry.map_or(Expiry::None, Expiry::At);
        if name == b"edited" {
            shards.set(db, &key, b"to be", expiry).unwrap();
            let old = shards.lookup(db, &key);
            shards.write_at(db, &key, old.as_ref(), 5, b" continued").unwrap();
        } else {
            shards.set(db, &key, &value, expiry).unwrap();
        }
    }
    drop(shards);
    add_hashes(&space);
    add_sorted_sets(&space);
    add_stream(&space);
    space.lock(ShardSet::ALL, NOW).store_library(LIBRARY.0, LIBRARY.1).unwrap();
    space
}

/// Saves the keys into `dir` and returns the image's bytes.
fn write_golden(dir: &Path) -> Vec<u8> {
    let space = steps();
    let target = ImageTarget { dir: dir.to_owned(), filename: "keys.cow".into() };
    let options = ImageOptions {
        codec: ChunkCodec::Lz4,
        layout: layout_hash(),
        created_ms: CREATED,
        delay_per_chunk: Duration::ZERO,
    };
    let prepared = PreparedCheckpoint::new(&target, &options, space.arena()).unwrap();
    let mut held = space.arena().lock(ShardSet::ALL);
    prepared.write_here(&held.safepoint().unwrap()).unwrap();
    fs::read(target.path()).unwrap()
}

/// Clears the parts of an image that depend on the version that wrote it: its name, and the
/// checksums over that.
fn without_writer(mut image: Vec<u8>) -> Vec<u8> {
    let footer = image.len() - 64;
    let fields: [Range<usize>; 4] =
        [56..88, 4088..4096, footer + 40..footer + 48, footer + 56..footer + 64];
    for field in fields {
        image[field].fill(0);
    }
    image
}

#[test]
fn the_golden_keys_are_read_and_written_alike() {
    let golden = Path::new(GOLDEN);
    let info = inspect(golden).unwrap();
    assert_eq!((info.version, info.layout, info.created_ms), (2, layout_hash(), CREATED));
    let (arena, _) = restore(golden, PageKind::Small, 16 << 20, layout_hash(), 1).unwrap();
    assert_eq!(arena.hash_seed(), SEED);
    let space = Keyspace::open(arena).unwrap();
    let contents = space.verify(1).unwrap();
    let expected = expected();
    let expiring = expected.iter().filter(|(_, _, _, expiry, _)| expiry.is_some()).count();
    let keys = expected.len() + HASHES.len() + SORTED_SETS.len() + 1;
    assert_eq!((contents.keys, contents.expires), (keys as u64, expiring as u64));
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for (db, name, value, expiry, encoding) in expected {
        let entry = shards.lookup(db, &space.key(db, name)).unwrap();
        let mut buffer = itoa::Buffer::new();
        assert_eq!(shards.string(&entry).unwrap().bytes(&mut buffer), value);
        assert_eq!(shards.expiry(&entry), expiry);
        assert_eq!(shards.encoding_name(&entry), encoding);
    }
    drop(shards);
    check_hashes(&space);
    check_sorted_sets(&space);
    check_stream(&space);
    assert_eq!(space.libraries(), [(LIBRARY.0.to_vec(), LIBRARY.1.to_vec())]);
    let dir = TempDir::new().unwrap();
    let written = without_writer(write_golden(dir.path()));
    assert!(written == without_writer(fs::read(golden).unwrap()), "another image than before");
}

#[test]
fn the_golden_image_of_version_2_is_refused() {
    let golden = Path::new(GOLDEN_2);
    let layout = inspect(golden).unwrap().layout;
    assert_ne!(layout, layout_hash());
    let error = restore(golden, PageKind::Small, 16 << 20, layout_hash(), 1).err().unwrap();
    let expected = layout_hash();
    assert!(
        matches!(&error, RestoreError::Version { what: "memory layout", found, expected: own, .. }
            if *found == layout && *own == expected),
        "{error}"
    );
}

/// Writes the golden image anew, after an intended change of the layout:
/// `cargo test -p cowherd --lib bless_the_golden_keys -- --ignored`
#[test]
#[ignore = "overwrites the golden image"]
fn bless_the_golden_keys() {
    write_golden(Path::new(GOLDEN).parent().unwrap());
}

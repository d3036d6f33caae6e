//! An image with a few keys, pinned: what older versions saved must stay readable, and what the
//! keyspace's structures look like in memory does not change unnoticed. See docs/image-format.md.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::checkpoint::{Codec, Options, Prepared, Target, inspect, restore};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/keys.cow");
const CREATED: u64 = 1_700_000_000_123;
const SEED: u64 = 42;
/// Wall clock of the steps, in milliseconds.
const NOW: i64 = 1_700_000_000_000;
const LATER: i64 = 4_000_000_000_000;

/// A value that is an object of its own.
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

/// The steps that lead to the golden image.
fn steps() -> Keyspace {
    let blank = Blank::reserve(PageKind::Small, 16 << 20).unwrap();
    let space = Keyspace::create(blank, SEED).unwrap();
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for (db, name, value, expiry, _) in expected() {
        let key = space.key(name);
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
    space
}

/// Saves the keys into `dir` and returns the image's bytes.
fn write_golden(dir: &Path) -> Vec<u8> {
    let space = steps();
    let target = Target { dir: dir.to_owned(), filename: "keys.cow".into() };
    let options = Options {
        codec: Codec::Lz4,
        layout: layout_hash(),
        created_ms: CREATED,
        delay_per_chunk: Duration::ZERO,
    };
    let prepared = Prepared::new(&target, &options, space.arena()).unwrap();
    let mut held = space.arena().lock(ShardSet::ALL);
    prepared.write_here(&held.safepoint().unwrap()).unwrap();
    fs::read(target.path()).unwrap()
}

/// Clears what depends on the version that wrote an image: its name, and the checksums over that.
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
    assert_eq!((info.version, info.layout, info.created_ms), (1, layout_hash(), CREATED));
    let (arena, _) = restore(golden, PageKind::Small, 16 << 20, layout_hash(), 1).unwrap();
    assert_eq!(arena.hash_seed(), SEED);
    let space = Keyspace::open(arena).unwrap();
    let contents = space.verify(1).unwrap();
    let expected = expected();
    let expiring = expected.iter().filter(|(_, _, _, expiry, _)| expiry.is_some()).count();
    assert_eq!((contents.keys, contents.expires), (expected.len() as u64, expiring as u64));
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for (db, name, value, expiry, encoding) in expected {
        let entry = shards.lookup(db, &space.key(name)).unwrap();
        let mut buffer = itoa::Buffer::new();
        assert_eq!(shards.string(&entry).unwrap().bytes(&mut buffer), value);
        assert_eq!(shards.expiry(&entry), expiry);
        assert_eq!(shards.encoding_name(&entry), encoding);
    }
    drop(shards);
    let dir = TempDir::new().unwrap();
    let written = without_writer(write_golden(dir.path()));
    assert!(written == without_writer(fs::read(golden).unwrap()), "another image than before");
}

/// Writes the golden image anew, after a change that is meant to change it:
/// `cargo test -p cowherd --lib bless_the_golden_keys -- --ignored`
#[test]
#[ignore = "overwrites the golden image"]
fn bless_the_golden_keys() {
    write_golden(Path::new(GOLDEN).parent().unwrap());
}

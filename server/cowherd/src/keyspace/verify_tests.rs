//! Verification with notes of an inspection: what is noted, and damage that is found when the
//! references are followed. `verdict` verifies each image without notes too.

use super::super::roots::db_root;
use super::super::tests::{reopen, slots_of, space, verdict};
use super::super::{CompactLimits, Expiry, Key};
use super::*;
use cowherd_arena::containers::dict::DictRoot;

const NOW: i64 = 1_000;

fn names(count: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(|i| format!("key:{i}").into_bytes())
}

/// Keys `0`, `1`, ... of one shard.
fn names_in_one_shard(space: &Keyspace, count: usize) -> Vec<Vec<u8>> {
    let of = |name: &Vec<u8>| ShardIndex::of_hash(space.hash(name));
    let first = of(&b"key:0".to_vec());
    names(100_000).filter(|name| of(name) == first).take(count).collect()
}

#[test]
fn entries_are_noted_unless_other_objects_belong_to_them() {
    let space = space(32);
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for (i, name) in names(3_000).enumerate() {
        let key = space.key(i % 3, &name);
        let expiry = if i % 2 == 0 { Expiry::At(1 << 50) } else { Expiry::None };
        let value = if i % 5 == 0 { i.to_string() } else { format!("value {i}") };
        shards.set(i % 3, &key, value.as_bytes(), expiry).unwrap();
    }
    drop(shards);
    let (noted, contents) = verdict(&space);
    let contents = contents.unwrap();
    assert_eq!((contents.keys, contents.expires), (3_000, 1_500));
    assert!(noted >= contents.keys, "{noted} of {} entries", contents.keys);

    let mut shards = space.lock(ShardSet::ALL, NOW);
    for name in names(3_000) {
        let key = space.key(3, &name);
        shards.set(3, &key, &[b'v'; 2_500], Expiry::None).unwrap();
    }
    drop(shards);
    let (still, contents) = verdict(&space);
    assert_eq!(contents.map(|contents| contents.keys), Ok(6_000));
    assert!(still < noted + 100, "{still} notes, but {noted} without the large values");
}

#[test]
fn compact_collections_are_noted() {
    let space = space(16);
    let limits = CompactLimits { entries: 64, value: 64 };
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for name in names(100) {
        let hash = space.key(0, &name);
        let pairs = [(&b"a"[..], &b"1"[..]), (b"b", b"2")];
        shards.hash_set(0, &hash, None, pairs.into_iter(), Expiry::None, &limits).unwrap();
    }
    drop(shards);
    assert!(verdict(&space).0 >= 100);
    reopen(&space);
}

/// What the verification says of three keys in one segment, after damage to their slots.
fn verdict_of_damaged_slots(
    change: impl Fn(&mut Mem<'_>, &[(u64, u64)], &DictRoot, Offset<DictRoot>),
) -> String {
    let space = space(16);
    let names = names_in_one_shard(&space, 3);
    let mut shards = space.lock(ShardSet::ALL, NOW);
    let keys: Vec<Key<'_>> = names.iter().map(|name| space.key(0, name)).collect();
    for key in &keys {
        shards.set(0, key, b"value", Expiry::None).unwrap();
    }
    let shard = keys[0].shard;
    let root_at = Offset::new(db_root(shard, 0).raw());
    let root: DictRoot = shards.mem(shard).read(root_at);
    let slots = slots_of(&mut shards, shard, &root);
    change(&mut shards.mem(shard), &slots, &root, root_at);
    drop(shards);
    let (noted, verdict) = verdict(&space);
    assert!(noted >= 3, "{noted} notes");
    verdict.err().map(|broken| broken.reason).unwrap_or_default()
}

#[test]
fn damaged_references_to_noted_entries_are_found() {
    assert_eq!(verdict_of_damaged_slots(|_, _, _, _| {}), "");
    let twice = verdict_of_damaged_slots(|mem, slots, _, _| {
        mem.write(Offset::new(slots[0].0), slots[1].1);
    });
    assert!(twice.contains("two references"), "{twice}");
    let other_tag = verdict_of_damaged_slots(|mem, slots, _, _| {
        mem.write(Offset::new(slots[2].0), slots[2].1 ^ 1 << 48);
    });
    assert!(other_tag.contains("in the wrong place"), "{other_tag}");
    let inside = verdict_of_damaged_slots(|mem, slots, _, _| {
        mem.write(Offset::new(slots[2].0), slots[2].1 + 4);
    });
    assert_ne!(inside, "");
    let lost = verdict_of_damaged_slots(|mem, slots, root, root_at| {
        mem.write(Offset::new(slots[2].0), 0u64);
        let head: u64 = mem.read(Offset::new(root.directory));
        mem.write(Offset::new(root.directory), head - (1 << 32));
        mem.write(root_at, DictRoot { len: 2, ..*root });
    });
    assert!(lost.contains("1 objects are in use but nothing refers to them"), "{lost}");
}

/// One claim is by the note, the other by the length.
#[test]
fn an_entry_cannot_be_the_value_of_another() {
    let space = space(16);
    let names = names_in_one_shard(&space, 2);
    let [victim, other] = [0, 1].map(|i| space.key(0, &names[i]));
    let mut shards = space.lock(ShardSet::ALL, NOW);
    shards.set(0, &victim, &[b'v'; 2_000], Expiry::None).unwrap();
    shards.set(0, &other, &[b'w'; 2_045], Expiry::None).unwrap();
    let [noted, external] = [victim, other].map(|key| shards.peek(0, &key).unwrap());
    assert!(!noted.head.is_external() && external.head.is_external());
    let mut mem = shards.mem(victim.shard);
    let (old, reserved) = external.head.object(&mem, external.at);
    external.head.set_object(&mut mem, external.at, noted.at, reserved);
    mem.release(old, reserved);
    drop(shards);
    let broken = verdict(&space).1.unwrap_err();
    assert!(broken.reason.contains("two references"), "{broken}");
}

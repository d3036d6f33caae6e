//! Relocated keys: renamed and moved with large values, among databases, against a plain model; by
//! several threads at once; with keys of the same hash.

use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::super::tests::{reopen, space};
use super::super::{CompactLimits, Databases, Expiry};
use super::*;

const NOW: i64 = 1_000;
const LIMITS: CompactLimits = CompactLimits { entries: 4, value: 64 };

/// Sets fields `0` to `fields - 1` of a hash to `value`.
fn set_hash(shards: &mut Shards<'_>, db: DbIndex, name: &[u8], fields: usize, value: &[u8]) {
    let key = shards.keyspace().key(db, name);
    let names: Vec<_> = (0..fields).map(|field| field.to_string().into_bytes()).collect();
    let pairs = names.iter().map(|field| (field.as_slice(), value));
    let old = shards.hash_read(db, &key).unwrap();
    shards.hash_set(db, &key, old.as_ref(), pairs, Expiry::None, &LIMITS).unwrap();
}

/// Number of fields of a hash and the value of field 0; `None` if there is no such key.
fn hash_at(space: &Keyspace, db: DbIndex, name: &[u8]) -> Option<(u64, Vec<u8>)> {
    let mut shards = space.lock_named(NOW, || space.shards_of(space.hash(name)));
    let entry = shards.peek(db, &space.key(db, name))?;
    let (value, _) = shards.hash_get(&entry, b"0").unwrap();
    let value = value.bytes(&mut itoa::Buffer::new()).to_vec();
    Some((shards.hash_len(&entry), value))
}

/// A name whose home shard is not that of any of `others`.
fn name_apart(space: &Keyspace, others: &[&[u8]]) -> Vec<u8> {
    let homes: Vec<_> = others.iter().map(|name| ShardIndex::of_hash(space.hash(name))).collect();
    let mut names = (0..).map(|i: u32| format!("name:{i}").into_bytes());
    names.find(|name| !homes.contains(&ShardIndex::of_hash(space.hash(name)))).unwrap()
}

#[test]
fn renaming_a_large_value_relocates_the_key() {
    let space = space(64);
    let to = name_apart(&space, &[b"from"]);
    let mut shards = space.lock(ShardSet::ALL, NOW);
    set_hash(&mut shards, 0, b"from", 10_000, b"value");
    let (from, target) = (space.key(0, b"from"), space.key(0, &to));
    let header = |shards: &Shards<'_>, entry: &super::super::Entry| {
        entry.head.large_header(&shards.held.view(entry.shard), entry.at)
    };
    let before = shards.peek(0, &from).unwrap();
    let (was_at, used) = (header(&shards, &before), space.arena().used_bytes());
    shards.rename(0, &from, &target).unwrap();
    assert!(shards.peek(0, &from).is_none());
    let now = space.key(0, &to);
    assert_eq!((now.shard, now.home_shard()), (from.shard, target.home_shard()));
    let after = shards.peek(0, &now).unwrap();
    assert_eq!((header(&shards, &after), space.arena().used_bytes()), (was_at, used));
    drop(shards);
    let here_and_home = ShardSet::one(now.shard) | ShardSet::one(now.home_shard());
    assert_eq!((space.shards_of(now.hash), space.forwarding.count()), (here_and_home, 1));
    space.verify(2).unwrap();
    // The forwarding table follows from the image.
    let again = reopen(&space);
    assert_eq!(hash_at(&again, 0, &to), Some((10_000, b"value".to_vec())));
    // Back under its first name the key is in its home shard.
    let mut shards = again.lock(ShardSet::ALL, NOW);
    shards.rename(0, &again.key(0, &to), &again.key(0, b"from")).unwrap();
    drop(shards);
    assert_eq!(hash_at(&again, 0, b"from"), Some((10_000, b"value".to_vec())));
    again.verify(2).unwrap();
}

#[test]
fn renaming_a_small_value_copies_it_to_the_home_shard() {
    let space = space(64);
    let to = name_apart(&space, &[b"from"]);
    let mut shards = space.lock(ShardSet::ALL, NOW);
    set_hash(&mut shards, 0, b"from", 6, b"value");
    assert!(shards.peek(0, &space.key(0, b"from")).unwrap().head.is_large());
    shards.rename(0, &space.key(0, b"from"), &space.key(0, &to)).unwrap();
    drop(shards);
    assert_eq!((space.forwarding.count(), space.relocations()), (0, 0));
    assert_eq!(hash_at(&space, 0, &to), Some((6, b"value".to_vec())));
}

#[test]
fn records_of_removed_keys_are_removed() {
    let space = space(64);
    let to = name_apart(&space, &[b"from"]);
    let (hash, home) = (space.hash(&to), ShardIndex::of_hash(space.hash(&to)));
    let make = || {
        let mut shards = space.lock(ShardSet::ALL, NOW);
        set_hash(&mut shards, 0, b"from", 100, b"value");
        shards.rename(0, &space.key(0, b"from"), &space.key(0, &to)).unwrap();
        assert_eq!(space.forwarding.count(), 1);
        space.key(0, &to).shard
    };
    let is_removed = || {
        let known =
            (space.forwarding.count(), space.shards_of(hash), space.forwarding.may_have(hash));
        known == (0, ShardSet::one(home), false)
    };
    // At once, if the home shard is locked.
    let away = make();
    let key = space.key(0, &to);
    let mut shards = space.lock(ShardSet::one(home) | ShardSet::one(away), NOW);
    assert!(shards.remove(0, &key) && is_removed());
    // A key that was resolved before, and is created again, is created where it was.
    shards.set(0, &key, b"text", Expiry::None).unwrap();
    assert_eq!((space.key(0, &to).shard, space.forwarding.count()), (away, 1));
    assert!(shards.remove(0, &key) && is_removed());
    drop(shards);
    // Later, if the home shard is not locked.
    let away = make();
    assert!(space.lock(ShardSet::one(away), NOW).remove(0, &space.key(0, &to)));
    assert!(!is_removed() && !space.prune_relocations(1) && is_removed());
    // Not if the key was created again meanwhile.
    let away = make();
    let mut shards = space.lock(ShardSet::one(away), NOW);
    assert!(shards.remove(0, &space.key(0, &to)));
    drop(shards);
    let mut shards = space.lock(ShardSet::ALL, NOW);
    shards.set(0, &space.key(0, &to), b"text", Expiry::None).unwrap();
    drop(shards);
    assert!(!space.prune_relocations(1) && space.forwarding.count() == 1);
    assert_eq!(space.key(0, &to).shard, away);
    space.verify(1).unwrap();
    // With the whole database.
    space.lock(ShardSet::ALL, NOW).flush(Databases::One(1));
    assert!(!is_removed());
    space.lock(ShardSet::ALL, NOW).flush(Databases::All);
    assert!(is_removed() && !space.forwarding.flushed.lock().is_empty());
    assert!(!space.prune_relocations(1) && space.forwarding.flushed.lock().is_empty());
    space.verify(1).unwrap();
}

/// A record of a removed key must not hide a key of the same name in its home shard.
#[test]
fn a_new_key_replaces_the_record_of_a_removed_one() {
    let space = space(64);
    let to = name_apart(&space, &[b"from"]);
    let home = ShardIndex::of_hash(space.hash(&to));
    let names = (0..).map(|i: u32| format!("near:{i}").into_bytes());
    let near = names.into_iter().find(|name| ShardIndex::of_hash(space.hash(name)) == home);
    let near = near.unwrap();
    let mut shards = space.lock(ShardSet::ALL, NOW);
    set_hash(&mut shards, 0, b"from", 100, b"value");
    shards.rename(0, &space.key(0, b"from"), &space.key(0, &to)).unwrap();
    set_hash(&mut shards, 0, &near, 200, b"other");
    drop(shards);
    let away = space.key(0, &to).shard;
    assert!(space.lock(ShardSet::one(away), NOW).remove(0, &space.key(0, &to)));
    assert_eq!(space.key(0, &to).shard, away);
    let mut shards = space.lock(ShardSet::ALL, NOW);
    shards.rename(0, &space.key(0, &near), &space.key(0, &to)).unwrap();
    drop(shards);
    assert_eq!(hash_at(&space, 0, &to), Some((200, b"other".to_vec())));
    assert!(!space.prune_relocations(1));
    assert_eq!(hash_at(&space, 0, &to), Some((200, b"other".to_vec())));
    space.verify(1).unwrap();
}

/// Images in which a command would not find a key, or would find one of two.
#[test]
fn verify_refuses_a_key_in_two_shards() {
    let broken = |shards: &[usize], has_moved: bool| {
        let space = space(16);
        let key = space.key(0, b"key");
        let mut locked = space.lock(ShardSet::ALL, NOW);
        for shard in shards {
            let home = (key.home_shard().get() + shard) % SHARDS;
            let there = Key { shard: ShardIndex::new(home).unwrap(), ..key };
            locked.set(0, &there, b"value", Expiry::None).unwrap();
        }
        // As after a restore.
        space.forwarding.flush(0);
        space.forwarding.relocations.store(0, Ordering::Relaxed);
        if has_moved {
            space.forwarding.record(1, 1, ShardIndex::of_hash(2));
        }
        drop(locked);
        space.verify(1).err().map(|broken| broken.reason).unwrap_or_default()
    };
    assert_eq!(broken(&[0], false), "");
    assert_eq!(broken(&[3], false), "");
    assert!(broken(&[0, 3], false).contains("it is there, but should be in shard"));
    assert!(broken(&[3, 4], false).contains("but also"));
    // If keys were relocated since the restore, all relocated keys must be recorded.
    assert!(broken(&[3], true).contains("at home"));
}

/// The keys of database 0 in the order of a scan, and the most keys of one step. `between` runs
/// after each step.
fn scan(space: &Keyspace, least: usize, mut between: impl FnMut()) -> (Vec<Vec<u8>>, usize) {
    let (mut seen, mut most) = (Vec::new(), 0);
    for home in ShardIndex::all() {
        let mut cursor = Some(DictCursor::default());
        while let Some(from) = cursor {
            let shards = space.lock_named(NOW, || space.shards_of_home(home));
            let before = seen.len();
            cursor = shards.scan(0, home, from, least, |key, _| seen.push(key.to_vec()));
            most = most.max(seen.len() - before);
            drop(shards);
            // As a client sends it.
            cursor = cursor.map(|cursor| DictCursor::unpack(cursor.pack()));
            between();
        }
    }
    (seen, most)
}

#[test]
fn a_scan_visits_relocated_keys_of_one_home_shard_in_steps() {
    let space = space(64);
    let from = ShardIndex::of_hash(space.hash(b"from"));
    let home = ShardIndex::all().find(|shard| *shard != from).unwrap();
    let names = (0..).map(|i: u32| format!("name:{i}").into_bytes());
    let at_home = names.filter(|name| ShardIndex::of_hash(space.hash(name)) == home);
    let mut names: Vec<_> = at_home.take(60).collect();
    for name in &names {
        let mut shards = space.lock(ShardSet::ALL, NOW);
        set_hash(&mut shards, 0, b"from", 100, b"value");
        shards.rename(0, &space.key(0, b"from"), &space.key(0, name)).unwrap();
    }
    assert_eq!(space.forwarding.count(), names.len());
    // The shard in which they live has a key of its own, too.
    let mut shards = space.lock(ShardSet::ALL, NOW);
    shards.set(0, &space.key(0, b"from"), b"text", Expiry::None).unwrap();
    drop(shards);
    names.push(b"from".to_vec());
    names.sort_unstable();
    for (least, limit) in [(1, 2), (7, 8), (usize::MAX, names.len())] {
        let (mut seen, most) = scan(&space, least, || {});
        seen.sort_unstable();
        assert_eq!(seen, names, "at least {least}");
        assert!(most <= limit, "{most} at once of at least {least}");
    }
}

#[test]
fn a_scan_visits_every_key_that_exists_throughout() {
    let (space, mut generator) = (space(256), fastrand::Rng::with_seed(1));
    let names: Vec<_> = (0..400).map(|i| format!("name:{i}").into_bytes()).collect();
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for name in &names {
        shards.set(0, &space.key(0, name), b"text", Expiry::None).unwrap();
    }
    drop(shards);
    let mut relocated = 0;
    for least in [1, 3, 50] {
        let (seen, _) = scan(&space, least, || {
            let random = generator.u64(..);
            let name = &names[random as usize % names.len()];
            let mut shards = space.lock(ShardSet::ALL, NOW);
            match random >> 32 & 3 {
                0 => shards.set(0, &space.key(0, name), b"text", Expiry::None).unwrap(),
                // Relocated, and in the home shard again.
                1 => {
                    let at = format!("other:{}", random >> 34).into_bytes();
                    set_hash(&mut shards, 0, &at, 100, b"value");
                    shards.rename(0, &space.key(0, &at), &space.key(0, name)).unwrap();
                }
                _ => {
                    let home = ShardIndex::of_hash(space.hash(name));
                    let at = (0..).map(|i: u64| format!("other:{i}:{random}").into_bytes());
                    let is_near = |at: &Vec<u8>| ShardIndex::of_hash(space.hash(at)) == home;
                    let at = at.into_iter().find(is_near).unwrap();
                    set_hash(&mut shards, 0, &at, 100, b"value");
                    shards.rename(0, &space.key(0, &at), &space.key(0, name)).unwrap();
                }
            }
            relocated = relocated.max(space.forwarding.count());
        });
        for name in &names {
            assert!(seen.contains(name), "{}", String::from_utf8_lossy(name));
        }
    }
    assert!(relocated > 20, "{relocated} relocated keys");
    assert_eq!(space.verify(2).unwrap().keys, names.len() as u64);
}

#[derive(Clone, Debug)]
enum Step {
    Fill(usize, u8, usize, u8),
    Remove(usize, u8),
    Rename(usize, u8, u8),
    Copy(usize, u8, usize, u8),
    Move(usize, u8, usize),
    Swap(usize, usize),
    Flush(usize),
    Forget,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let (db, key) = (0usize..3, 0u8..6);
    prop_oneof![
        6 => (db.clone(), key.clone(), prop_oneof![1usize..4, 5usize..20, 66usize..90], any::<u8>())
            .prop_map(|(d, k, n, v)| Step::Fill(d, k, n, v)),
        3 => (db.clone(), key.clone()).prop_map(|(d, k)| Step::Remove(d, k)),
        12 => (db.clone(), key.clone(), key.clone()).prop_map(|(d, a, b)| Step::Rename(d, a, b)),
        3 => (db.clone(), key.clone(), db.clone(), key.clone())
            .prop_map(|(d, a, e, b)| Step::Copy(d, a, e, b)),
        6 => (db.clone(), key, db.clone()).prop_map(|(d, k, e)| Step::Move(d, k, e)),
        2 => (db.clone(), db.clone()).prop_map(|(a, b)| Step::Swap(a, b)),
        1 => db.prop_map(Step::Flush),
        2 => Just(Step::Forget),
        1 => Just(Step::Reopen),
    ]
}

fn name(key: u8) -> Vec<u8> {
    format!("key:{key}").into_bytes()
}

type Model = BTreeMap<(usize, u8), (u64, Vec<u8>)>;

fn run(space: &Keyspace, model: &mut Model, step: Step) {
    let mut shards = space.lock(ShardSet::ALL, NOW);
    let key = |db, bytes| space.key(db, bytes);
    match step {
        Step::Fill(db, k, fields, value) => {
            shards.remove(db, &key(db, &name(k)));
            set_hash(&mut shards, db, &name(k), fields, &[value]);
            model.insert((db, k), (fields as u64, vec![value]));
        }
        Step::Remove(db, k) => {
            let was = shards.remove(db, &key(db, &name(k)));
            assert_eq!(was, model.remove(&(db, k)).is_some());
        }
        Step::Rename(db, a, b) if a != b => {
            let (from, to) = (name(a), name(b));
            let was = shards.rename(db, &key(db, &from), &key(db, &to)).unwrap();
            let had = model.remove(&(db, a));
            assert_eq!(was, had.is_some());
            if let Some(had) = had {
                model.insert((db, b), had);
            }
        }
        Step::Copy(d, a, e, b) if (d, a) != (e, b) => {
            let (from, to) = (name(a), name(b));
            let was = shards.copy(d, &key(d, &from), e, &key(e, &to)).unwrap();
            let had = model.get(&(d, a)).cloned();
            assert_eq!(was, had.is_some());
            if let Some(had) = had {
                model.insert((e, b), had);
            }
        }
        Step::Move(d, k, e) if d != e => {
            let free = !model.contains_key(&(e, k));
            let was = shards.move_key(d, &key(d, &name(k)), e).unwrap();
            assert_eq!(was, free && model.contains_key(&(d, k)));
            if was {
                let had = model.remove(&(d, k)).unwrap();
                model.insert((e, k), had);
            }
        }
        Step::Swap(a, b) if a != b => {
            shards.swap_databases(a, b);
            let swap = |db| {
                if db == a {
                    b
                } else if db == b {
                    a
                } else {
                    db
                }
            };
            *model = std::mem::take(model)
                .into_iter()
                .map(|((db, k), had)| ((swap(db), k), had))
                .collect();
        }
        Step::Flush(db) => {
            shards.flush(Databases::One(db));
            model.retain(|(d, _), _| *d != db);
        }
        _ => {}
    }
}

fn compare(space: &Keyspace, model: &Model) {
    for (db, k) in (0..3).flat_map(|db| (0..6).map(move |k| (db, k))) {
        assert_eq!(hash_at(space, db, &name(k)).as_ref(), model.get(&(db, k)), "{db} {k}");
    }
}

fn forget(space: &Keyspace) {
    while space.prune_relocations(3) {}
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn keys_are_found_wherever_they_live(steps in prop::collection::vec(step(), 1..80)) {
        let (mut space, mut model) = (space(64), Model::new());
        for step in steps {
            match step {
                Step::Forget => forget(&space),
                Step::Reopen => {
                    let digest = space.lock(ShardSet::ALL, NOW).digest();
                    space = reopen(&space);
                    prop_assert_eq!(space.lock(ShardSet::ALL, NOW).digest(), digest);
                }
                step => run(&space, &mut model, step),
            }
            compare(&space, &model);
        }
        let keys = space.verify(2).unwrap().keys;
        prop_assert_eq!(keys, model.len() as u64);
        forget(&space);
        prop_assert!(space.forwarding.count() <= model.len());
        space.verify(2).unwrap();
        compare(&space, &model);
    }
}

#[test]
fn threads_find_every_key_while_it_moves() {
    const NAMES: u64 = 8;
    const HASHES: u64 = 4;
    const TURNS: u64 = 3_000;
    let space = space(64);
    for k in 0..HASHES {
        set_hash(&mut space.lock(ShardSet::ALL, NOW), 0, &name(k as u8), 100, b"0");
    }
    let (rises, renames) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = |thread: u64| {
        let mut generator = fastrand::Rng::with_seed(thread);
        for turn in 0..TURNS {
            let random = generator.u64(..);
            let (a, b) = (name((random % NAMES) as u8), name((random / NAMES % NAMES) as u8));
            let hashes = [space.hash(&a), space.hash(&b)];
            let plan = || space.shards_of(hashes[0]) | space.shards_of(hashes[1]);
            let mut shards = space.lock_named(NOW, plan);
            let (from, to) = (space.key(0, &a), space.key(0, &b));
            let Some(entry) = shards.peek(0, &from) else { continue };
            if shards.peek(0, &to).is_none() {
                assert!(shards.rename(0, &from, &to).unwrap());
                renames.fetch_add(1, Ordering::Relaxed);
            } else {
                let (count, _) = shards.hash_get(&entry, b"0").unwrap();
                let count = String::from_utf8(count.bytes(&mut itoa::Buffer::new()).to_vec());
                let count = (count.unwrap().parse::<u64>().unwrap() + 1).to_string();
                let pair = std::iter::once((&b"0"[..], count.as_bytes()));
                shards.hash_set(0, &from, Some(&entry), pair, Expiry::None, &LIMITS).unwrap();
                rises.fetch_add(1, Ordering::Relaxed);
            }
            drop(shards);
            if turn % 64 == thread {
                forget(&space);
            }
            if turn % 1024 == thread {
                assert_eq!(space.verify(1).unwrap().keys, HASHES);
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let work = &work;
            scope.spawn(move || work(thread));
        }
    });
    assert_eq!(space.verify(2).unwrap().keys, HASHES);
    let found: Vec<_> = (0..NAMES).filter_map(|k| hash_at(&space, 0, &name(k as u8))).collect();
    let sum = found
        .iter()
        .map(|(_, count)| String::from_utf8(count.clone()).unwrap().parse::<u64>().unwrap());
    assert_eq!((found.len() as u64, sum.sum::<u64>()), (HASHES, rises.into_inner()));
    assert!(renames.into_inner() > TURNS / 4, "keys were relocated all the time");
}

/// A key of eight bytes with a given hash. XXH3 of 4 to 8 bytes can be inverted by anyone who knows
/// the seed: it consists of multiplications by odd numbers, shifts and rotations.
fn key_with_hash(space: &Keyspace, hash: u64) -> [u8; 8] {
    const FACTOR: u64 = 0x9fb2_1c65_1e98_df25;
    let inverse = (0..6).fold(FACTOR, |inverse, _| {
        inverse.wrapping_mul(2u64.wrapping_sub(FACTOR.wrapping_mul(inverse)))
    });
    let rotated = |x: u64| x ^ x.rotate_left(49) ^ x.rotate_left(24);
    let undo = |hash: u64| {
        let x = (hash ^ hash >> 28 ^ hash >> 56).wrapping_mul(inverse);
        let x = (x ^ ((x >> 35) + 8)).wrapping_mul(inverse);
        // Applied 64 times, `rotated` is the identity.
        (0..63).fold(x, |x, _| rotated(x))
    };
    let keyed = undo(hash) ^ undo(space.hash(&[0; 8]));
    let key = keyed.rotate_left(32).to_le_bytes();
    assert_eq!(space.hash(&key), hash);
    key
}

#[test]
fn keys_of_one_hash_stay_in_one_shard() {
    let space = space(64);
    let one = *b"one key";
    let other = key_with_hash(&space, space.hash(&one));
    let from = name_apart(&space, &[&one]);
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for db in [0, 1] {
        shards.set(db, &space.key(db, &other), b"text", Expiry::None).unwrap();
        set_hash(&mut shards, db, &from, 100, b"value");
    }
    // The value is moved to the shard of the other key.
    shards.rename(0, &space.key(0, &from), &space.key(0, &one)).unwrap();
    let (here, there) = (space.key(0, &one), space.key(0, &other));
    assert_eq!((here.shard, there.shard), (here.home_shard(), here.home_shard()));
    drop(shards);
    assert_eq!(hash_at(&space, 0, &one), Some((100, b"value".to_vec())));
    space.verify(1).unwrap();
    // In database 1 the key is relocated first; a new key of its hash is created beside it.
    let mut shards = space.lock(ShardSet::ALL, NOW);
    assert!(shards.remove(1, &space.key(1, &other)));
    shards.rename(1, &space.key(1, &from), &space.key(1, &one)).unwrap();
    let away = space.key(1, &one).shard;
    assert_ne!(away, here.home_shard());
    shards.set(1, &space.key(1, &other), b"more", Expiry::None).unwrap();
    assert_eq!(space.key(1, &other).shard, away);
    // Both are moved to database 2, the second one to the shard of the first.
    assert!(shards.move_key(1, &space.key(1, &one), 2).unwrap());
    assert_eq!(space.key(2, &one).shard, away);
    assert!(shards.move_key(0, &space.key(0, &other), 2).unwrap());
    assert_eq!(space.key(2, &other).shard, away);
    drop(shards);
    assert_eq!(hash_at(&space, 2, &one), Some((100, b"value".to_vec())));
    assert_eq!(space.verify(1).unwrap().keys, 4);
    let again = reopen(&space);
    assert_eq!(hash_at(&again, 2, &one), Some((100, b"value".to_vec())));
}

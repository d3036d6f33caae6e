//! The keyspace against a plain model: every operation, in several databases, in a small arena that
//! becomes full; reopened from its bytes and verified at the end.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::roots::db_root;
use super::*;
use cowherd_arena::containers::dict::DictRoot;
use cowherd_arena::{Corruption, ObjectNotes, Offset, PageKind, ReservedArena, allocated_size};

pub(super) fn space(mib: u64) -> Keyspace {
    Keyspace::create(ReservedArena::reserve(PageKind::Small, mib << 20).unwrap(), 77).unwrap()
}

/// A verified keyspace in a copy of another's bytes.
pub(super) fn reopen(old: &Keyspace) -> Keyspace {
    verdict(old).1.unwrap();
    let (again, notes) = copy_of(old);
    again.verify_restored(2, Some(notes)).unwrap();
    again
}

/// What the verification of a copy of a keyspace says, and how many objects had a note: with notes
/// and without it says the same.
pub(super) fn verdict(old: &Keyspace) -> (u64, Result<Contents, Corruption>) {
    let without = copy_of(old).0.verify(1);
    let (copy, notes) = copy_of(old);
    let noted = notes.count();
    assert_eq!(copy.verify_restored(1, Some(notes)), without);
    (noted, without)
}

/// A keyspace in a copy of another's bytes, inspected as a restore does.
fn copy_of(old: &Keyspace) -> (Keyspace, ObjectNotes) {
    let arena = old.arena();
    let blank = ReservedArena::reserve(PageKind::Small, arena.capacity()).unwrap();
    let mut held = arena.lock(ShardSet::ALL);
    let safepoint = held.safepoint().unwrap();
    let notes = ObjectNotes::new(arena.capacity(), safepoint.chunks().count() as u64).unwrap();
    for (chunk, bytes) in safepoint.chunks() {
        blank.chunk(chunk).unwrap().copy_from_slice(bytes);
        notes.inspect(chunk, bytes, arena.hash_seed(), &EntryInspector);
    }
    (Keyspace::open(blank.open(layout_hash()).unwrap()).unwrap(), notes)
}

mod golden;

type Model = BTreeMap<(usize, Vec<u8>), (Vec<u8>, Option<i64>)>;

#[derive(Clone, Debug)]
enum Step {
    Set(usize, u8, Vec<u8>, Option<i64>),
    SetAll(usize, Vec<(u8, Vec<u8>)>),
    WriteAt(usize, u8, u64, Vec<u8>),
    Remove(usize, u8),
    Expire(usize, u8, i64),
    Persist(usize, u8),
    Rename(usize, u8, u8),
    Copy(usize, u8, usize, u8),
    Move(usize, u8, usize),
    Flush(usize),
    FlushAll,
    Swap(usize, usize),
    Clean,
    Later(i64),
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        1 => Just(b"007".to_vec()),
        1 => Just(Vec::new()),
        6 => prop::collection::vec(any::<u8>(), 0..200),
        3 => (any::<u8>(), 1500usize..30_000).prop_map(|(b, n)| vec![b; n]),
        1 => (any::<u8>(), 300_000usize..4_000_000).prop_map(|(b, n)| vec![b; n]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let (db, key) = (0usize..3, 0u8..60);
    let place = prop_oneof![Just(0), 0u64..20_000];
    prop_oneof![
        12 => (db.clone(), key.clone(), value(), prop::option::of(1i64..3000))
            .prop_map(|(d, k, v, e)| Step::Set(d, k, v, e)),
        3 => (db.clone(), prop::collection::vec((key.clone(), value()), 1..6))
            .prop_map(|(d, p)| Step::SetAll(d, p)),
        6 => (db.clone(), key.clone(), place, prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(d, k, at, v)| Step::WriteAt(d, k, at, v)),
        5 => (db.clone(), key.clone()).prop_map(|(d, k)| Step::Remove(d, k)),
        4 => (db.clone(), key.clone(), -10i64..3000).prop_map(|(d, k, e)| Step::Expire(d, k, e)),
        2 => (db.clone(), key.clone()).prop_map(|(d, k)| Step::Persist(d, k)),
        4 => (db.clone(), key.clone(), key.clone()).prop_map(|(d, a, b)| Step::Rename(d, a, b)),
        4 => (db.clone(), key.clone(), db.clone(), key.clone())
            .prop_map(|(d, a, e, b)| Step::Copy(d, a, e, b)),
        3 => (db.clone(), key, db.clone()).prop_map(|(d, k, e)| Step::Move(d, k, e)),
        1 => db.clone().prop_map(Step::Flush),
        1 => Just(Step::FlushAll),
        1 => (db.clone(), db).prop_map(|(a, b)| Step::Swap(a, b)),
        2 => Just(Step::Clean),
        2 => (1i64..900).prop_map(Step::Later),
    ]
}

fn name(key: u8) -> Vec<u8> {
    let long =
        if key.is_multiple_of(7) { "x".repeat(usize::from(key) * 70) } else { String::new() };
    format!("key:{key}:{long}").into_bytes()
}

/// Runs a step on keyspace and model; a step that fails for lack of memory changes neither.
fn run(space: &Keyspace, model: &mut Model, now: &mut i64, step: Step) {
    model.retain(|_, (_, expiry)| expiry.is_none_or(|at| at > *now));
    let mut shards = space.lock(ShardSet::ALL, *now);
    match step {
        Step::Set(db, k, value, ttl) => {
            let expiry = ttl.map_or(Expiry::None, |ttl| Expiry::At(*now + ttl));
            if shards.set(db, &space.key(db, &name(k)), &value, expiry).is_ok() {
                model.insert((db, name(k)), (value, ttl.map(|ttl| *now + ttl)));
            }
        }
        Step::SetAll(db, pairs) => {
            let named: Vec<_> = pairs.iter().map(|(k, v)| (name(*k), v)).collect();
            let keyed = named.iter().map(|(k, v)| (space.key(db, k), v.as_slice()));
            if shards.set_all(db, keyed, |_| {}).is_ok() {
                for (key, value) in named.iter() {
                    model.insert((db, key.clone()), ((*value).clone(), None));
                }
            }
        }
        Step::WriteAt(db, k, at, data) => {
            let (name, key_name) = (name(k), name(k));
            let key = space.key(db, &key_name);
            let old = shards.lookup(db, &key);
            if shards.write_at(db, &key, old.as_ref(), at, &data).is_ok() {
                let value = &mut model.entry((db, name)).or_default().0;
                let end = at as usize + data.len();
                value.resize(value.len().max(end), 0);
                value[at as usize..end].copy_from_slice(&data);
            }
        }
        Step::Remove(db, k) => {
            let was = shards.remove(db, &space.key(db, &name(k)));
            assert_eq!(was, model.remove(&(db, name(k))).is_some());
        }
        Step::Expire(db, k, ttl) => {
            let rule = ExpireRule::default();
            if let Ok(was) = shards.expire_at(db, &space.key(db, &name(k)), *now + ttl, rule) {
                let there = model.get_mut(&(db, name(k)));
                assert_eq!(was, there.is_some());
                if let Some(there) = there {
                    there.1 = Some(*now + ttl);
                }
            }
        }
        Step::Persist(db, k) => {
            if let Ok(was) = shards.persist(db, &space.key(db, &name(k))) {
                let there = model.get_mut(&(db, name(k)));
                assert_eq!(was, there.and_then(|t| t.1.take()).is_some());
            }
        }
        Step::Rename(db, a, b) if a != b => {
            if let Ok(was) = shards.rename(db, &space.key(db, &name(a)), &space.key(db, &name(b))) {
                let moved = model.remove(&(db, name(a)));
                assert_eq!(was, moved.is_some());
                moved.map(|moved| model.insert((db, name(b)), moved));
            }
        }
        Step::Copy(d, a, e, b) if (d, a) != (e, b) => {
            if let Ok(was) = shards.copy(d, &space.key(d, &name(a)), e, &space.key(e, &name(b))) {
                let copied = model.get(&(d, name(a))).cloned();
                assert_eq!(was, copied.is_some());
                copied.map(|copied| model.insert((e, name(b)), copied));
            }
        }
        Step::Move(d, k, e) if d != e => {
            if let Ok(was) = shards.move_key(d, &space.key(d, &name(k)), e) {
                let free = !model.contains_key(&(e, name(k)));
                assert_eq!(was, free && model.contains_key(&(d, name(k))));
                if was {
                    let moved = model.remove(&(d, name(k))).unwrap();
                    model.insert((e, name(k)), moved);
                }
            }
        }
        Step::Flush(db) => {
            let flushed: u64 = shards.flush(Databases::One(db));
            assert!(flushed >= model.keys().filter(|(d, _)| *d == db).count() as u64);
            model.retain(|(d, _), _| *d != db);
        }
        Step::FlushAll => {
            shards.flush(Databases::All);
            model.clear();
        }
        Step::Swap(a, b) => {
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
            *model =
                std::mem::take(model).into_iter().map(|((d, k), v)| ((swap(d), k), v)).collect();
        }
        Step::Clean => {
            for shard in ShardIndex::all() {
                for db in 0..3 {
                    shards.clean(shard, db, &mut Default::default(), 40);
                }
            }
        }
        Step::Later(by) => *now += by,
        _ => {}
    }
}

fn compare(space: &Keyspace, model: &Model, now: i64) {
    let mut shards = space.lock(ShardSet::ALL, now);
    let alive = model.iter().filter(|(_, (_, expiry))| expiry.is_none_or(|at| at > now));
    for ((db, name), (value, expiry)) in alive {
        let entry = shards.lookup(*db, &space.key(*db, name)).unwrap();
        let mut buffer = itoa::Buffer::new();
        assert!(shards.string(&entry).unwrap().bytes(&mut buffer) == value);
        assert_eq!(shards.expiry(&entry), *expiry);
    }
    for db in 0..3 {
        let mut seen = Vec::new();
        for shard in ShardIndex::all() {
            shards
                .scan(db, shard, Default::default(), usize::MAX, |key, _| seen.push(key.to_vec()));
        }
        seen.sort();
        let expected: Vec<_> = model
            .iter()
            .filter(|((d, _), (_, expiry))| *d == db && expiry.is_none_or(|at| at > now))
            .map(|((_, key), _)| key.clone())
            .collect();
        assert!(seen == expected, "database {db} lists other keys");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn agrees_with_a_map(steps in prop::collection::vec(step(), 1..250), small in any::<bool>()) {
        let space = space(if small { 10 } else { 256 });
        let (mut model, mut now) = (Model::new(), 1_000_000);
        for step in steps {
            run(&space, &mut model, &mut now, step);
        }
        compare(&space, &model, now);
        space.verify(2).unwrap();
        let digest = space.lock(ShardSet::ALL, now).digest();
        let again = reopen(&space);
        prop_assert_eq!(again.lock(ShardSet::ALL, now).digest(), digest);
        compare(&again, &model, now);
        // All memory can be freed again.
        loop {
            let mut shards = again.lock(ShardSet::ALL, now);
            let mut more = false;
            shards.flush(Databases::All);
            for shard in ShardIndex::all() {
                more |= shards.clean(shard, 0, &mut Default::default(), 1000).more_deferred;
            }
            if !more {
                break;
            }
        }
        prop_assert_eq!(again.arena().used_bytes(), 0);
    }
}

#[test]
fn numbers_are_kept_as_numbers_and_edited_values_as_bytes() {
    let space = space(16);
    let mut shards = space.lock(ShardSet::ALL, 0);
    let key = space.key(0, b"n");
    let mut encoding = |value: &[u8], edit: bool| {
        shards.set(0, &key, value, Expiry::None).unwrap();
        let mut entry = shards.lookup(0, &key).unwrap();
        if edit {
            shards.write_at(0, &key, Some(&entry), 0, b"1").unwrap();
            entry = shards.lookup(0, &key).unwrap();
        }
        shards.encoding_name(&entry)
    };
    assert_eq!(encoding(b"-9223372036854775808", false), "int");
    assert_eq!(encoding(b"9223372036854775808", false), "embstr");
    assert_eq!(encoding(b"+1", false), "embstr");
    assert_eq!(encoding(&[b'a'; 44], false), "embstr");
    assert_eq!(encoding(&[b'a'; 45], false), "raw");
    assert_eq!(encoding(b"10", true), "raw");
}

#[test]
fn repeated_append_rarely_copies() {
    let space = space(64);
    let mut shards = space.lock(ShardSet::ALL, 0);
    let key = space.key(0, b"log");
    let (mut moves, mut place) = (0, 0);
    for i in 0..8000u64 {
        let entry = shards.lookup(0, &key);
        shards.write_at(0, &key, entry.as_ref(), i * 1000, &[7; 1000]).unwrap();
        let entry = shards.lookup(0, &key).unwrap();
        let now = entry.head.value_offset(&shards.mem(entry.shard), entry.at);
        moves += u32::from(now != place);
        place = now;
    }
    assert!(moves < 60, "{moves} copies");
}

#[test]
fn verify_names_a_damaged_entry() {
    let damage = |change: &dyn Fn(&mut [u8])| {
        let space = space(16);
        let mut shards = space.lock(ShardSet::ALL, 0);
        let key = space.key(0, b"some key");
        shards.set(0, &key, b"some value", Expiry::At(9)).unwrap();
        let at = shards.peek(0, &key).unwrap().at;
        change(shards.mem(key.shard).bytes_mut(at, 64));
        drop(shards);
        verdict(&space).1.err().map(|broken| broken.to_string()).unwrap_or_default()
    };
    assert_eq!(damage(&|_| {}), "");
    assert!(damage(&|bytes| bytes[0] |= 7).contains("unknown type"));
    assert!(damage(&|bytes| bytes[1] = 0xf0).contains("unknown type or encoding"));
    assert!(damage(&|bytes| bytes[3] = 200).contains("no such object"));
    let long_key = |bytes: &mut [u8]| {
        bytes[1] |= 1 << 3;
        bytes[2..6].fill(0xff);
    };
    assert!(damage(&long_key).contains("key of"));
    assert!(damage(&|bytes| bytes[1] |= 1 << 3).contains("no such object"));
    assert_ne!(damage(&|bytes| bytes[13] ^= 1), "", "another key");
    assert_ne!(damage(&|bytes| bytes[0] &= !(1 << 5)), "", "without its expiry");
}

/// A server could not restore its own image: `SET` of an empty value under a key of 3000 bytes and
/// `APPEND` of nothing made the value an external object without bytes, which no image may have.
#[test]
fn an_empty_value_under_a_long_key_survives() {
    for (value, tail) in [(&b""[..], &b""[..]), (b"", b"x"), (b"7", b""), (b"v", b"")] {
        let space = space(16);
        let name = vec![b'k'; 3000];
        let key = space.key(0, &name);
        let mut shards = space.lock(ShardSet::ALL, 0);
        shards.set(0, &key, value, Expiry::None).unwrap();
        let old = shards.lookup(0, &key);
        let at = value.len() as u64;
        shards.write_at(0, &key, old.as_ref(), at, tail).unwrap();
        let empty = space.key(0, b"not there before");
        shards.write_at(0, &empty, None, 0, b"").unwrap();
        drop(shards);
        let again = reopen(&space);
        let mut shards = again.lock(ShardSet::ALL, 0);
        let entry = shards.lookup(0, &key).unwrap();
        assert_eq!(shards.string(&entry), Ok(Value::Bytes(&[value, tail].concat())));
        assert_eq!(shards.encoding_name(&entry), "raw");
    }
}

/// The slots in use of a dictionary that has one segment.
pub(super) fn slots_of(
    shards: &mut Shards<'_>,
    shard: ShardIndex,
    root: &DictRoot,
) -> Vec<(u64, u64)> {
    assert_eq!((root.depth, root.segments), (0, 1));
    let mem = shards.mem(shard);
    let words = (1..16).map(|i| root.directory + i * 8);
    let words = words.map(|at| (at, mem.read(Offset::<u64>::new(at))));
    words.filter(|(_, word)| *word != 0).collect()
}

/// `expires` of an image referred to one key twice, and not to another key with an expiry: the
/// numbers agreed. Removing the other key then stopped the server.
#[test]
fn verify_refuses_a_secondary_index_with_a_key_twice() {
    let space = space(16);
    let names: Vec<Vec<u8>> = (0..10_000u32).map(|i| i.to_string().into_bytes()).collect();
    let keys: Vec<Key<'_>> = names.iter().map(|name| space.key(0, name)).collect();
    let one = keys[0];
    // In the same shard and the same bucket.
    let is_near = |key: &&Key<'_>| key.shard == one.shard && (key.hash ^ one.hash) >> 21 & 1 == 0;
    let other = *keys[1..].iter().find(is_near).unwrap();
    let mut shards = space.lock(ShardSet::ALL, 0);
    for key in [one, other] {
        shards.set(0, &key, b"v", Expiry::At(1 << 50)).unwrap();
    }
    let root = shards.mem(one.shard).read(db_root(one.shard, 0)).expires;
    let slots = slots_of(&mut shards, one.shard, &root);
    let ((_, word), (victim, _)) = (slots[0], slots[1]);
    shards.mem(one.shard).write(Offset::new(victim), word);
    drop(shards);
    let broken = verdict(&space).1.unwrap_err();
    assert!(broken.reason.contains("have one key"), "{broken}");
}

/// An image with two entries of one key in one database passed, since each entry was where its hash
/// belongs.
#[test]
fn verify_refuses_a_key_with_two_entries() {
    let space = space(16);
    let key = space.key(0, b"k");
    let mut shards = space.lock(ShardSet::ALL, 0);
    shards.set(0, &key, b"one", Expiry::None).unwrap();
    shards.set(1, &key, b"two", Expiry::None).unwrap();
    let roots = [0, 1].map(|db| shards.mem(key.shard).read(db_root(key.shard, db)).keys);
    let [into, from] = roots.map(|root| slots_of(&mut shards, key.shard, &root)[0]);
    // Moves the entry of the second database into the first.
    let mut mem = shards.mem(key.shard);
    mem.write(Offset::new(into.0 + 8), from.1);
    let head: u64 = mem.read(Offset::new(roots[0].directory));
    mem.write(Offset::new(roots[0].directory), head + (1 << 32));
    mem.write(Offset::new(db_root(key.shard, 0).raw()), DictRoot { len: 2, ..roots[0] });
    mem.release(roots[1].directory, 128);
    mem.write(Offset::new(db_root(key.shard, 1).raw()), DictRoot::EMPTY);
    drop(shards);
    let broken = verdict(&space).1.unwrap_err();
    assert!(broken.reason.contains("have one key"), "{broken}");
}

/// A value that is written over a shorter one of the same size class uses the slack of its object.
#[test]
fn a_refused_set_of_several_keys_leaves_no_byte_of_its_values() {
    let space = space(8);
    let old: [&[u8]; 2] = [b"x", b"five"];
    let (short, full) = (space.key(0, b"short"), space.key(0, b"full"));
    let mut uses_slack = false;
    for (len, old) in (1..=24).flat_map(|len| old.map(|old| (len, old))) {
        let new = vec![b'y'; len];
        let object = |shards: &mut Shards<'_>| {
            let entry = shards.find(0, &short).unwrap();
            let size = allocated_size(entry.head.len());
            (entry.at, shards.mem(short.shard).bytes(entry.at, size).to_vec())
        };
        let mut shards = space.lock(ShardSet::ALL, 0);
        shards.set(0, &short, old, Expiry::None).unwrap();
        let before = object(&mut shards);
        drop(shards);
        let mut scarcity = MemoryExhauster::default();
        ShardIndex::all().for_each(|shard| scarcity.take(&space, shard));
        let mut shards = space.lock(ShardSet::ALL, 0);
        let pairs = [(short, &*new), (short, old), (short, &*new), (full, &*new)];
        assert!(shards.set_all(0, pairs.into_iter(), |_| {}).is_err());
        assert_eq!(object(&mut shards), before, "{len} bytes over {}", old.len());
        drop(shards);
        scarcity.end(&space);
        let mut shards = space.lock(ShardSet::ALL, 0);
        shards.set(0, &short, &new, Expiry::None).unwrap();
        uses_slack |= len > old.len() && object(&mut shards).0 == before.0;
    }
    assert!(uses_slack, "no value was overwritten in its object");
    space.verify(1).unwrap();
}

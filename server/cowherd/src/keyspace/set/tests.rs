//! Sets, compact and large, against plain sets: in an arena that may become full; reopened from its
//! bytes and verified.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::keyspace::tests::{reopen, space};
use crate::keyspace::{Databases, Expiry, Keyspace, ShardIndex, ShardSet};

const KEYS: usize = 3;
const NOW: i64 = 1_000;

type Members = BTreeSet<Vec<u8>>;
type Model = [Members; KEYS];

#[derive(Clone, Debug)]
enum Step {
    Add(usize, Vec<Vec<u8>>),
    AddRange(usize, i64, u16),
    Remove(usize, Vec<Vec<u8>>),
    RemoveRange(usize, i64, u16),
    Pop(usize, u64, u64),
    Store(usize, Vec<Vec<u8>>),
    Delete(usize),
    Rename(usize, usize),
    Copy(usize, usize),
    Limits(SetLimits),
    Clean,
    Reopen,
    /// Frees so many of the keys that fill the arena.
    Give(usize),
}

fn member() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (-20i64..60).prop_map(|n| n.to_string().into_bytes()),
        2 => (0u32..63, -2i64..2).prop_map(|(bits, off)| ((1i64 << bits) + off).to_string().into()),
        4 => (0u8..60).prop_map(|b| vec![b; 1 + usize::from(b % 40)]),
        1 => (0u8..4).prop_map(|b| vec![b; 250 + usize::from(b) * 2]),
        1 => (0u8..3).prop_map(|b| vec![b; 5_000]),
        1 => Just(Vec::new()),
    ]
}

fn members() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(member(), 1..6)
}

fn set_limits() -> impl Strategy<Value = SetLimits> {
    (0u64..40, 0u64..40, 1u64..300).prop_map(|(ints, entries, value)| SetLimits {
        ints,
        run: CompactLimits { entries, value },
    })
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    prop_oneof![
        8 => (key(), members()).prop_map(|(k, m)| Step::Add(k, m)),
        2 => (key(), any::<i64>(), 1u16..600).prop_map(|(k, from, n)| Step::AddRange(k, from, n)),
        2 => (key(), 0i64..100, 1u16..600).prop_map(|(k, from, n)| Step::AddRange(k, from, n)),
        6 => (key(), members()).prop_map(|(k, m)| Step::Remove(k, m)),
        1 => (key(), 0i64..100, 1u16..600).prop_map(|(k, from, n)| Step::RemoveRange(k, from, n)),
        3 => (key(), 1u64..5, any::<u64>()).prop_map(|(k, n, r)| Step::Pop(k, n, r)),
        1 => (key(), 1u64..500, any::<u64>()).prop_map(|(k, n, r)| Step::Pop(k, n, r)),
        2 => (key(), prop::collection::vec(member(), 0..50)).prop_map(|(k, m)| Step::Store(k, m)),
        1 => key().prop_map(Step::Delete),
        1 => (key(), key()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => (key(), key()).prop_map(|(a, b)| Step::Copy(a, b)),
        1 => set_limits().prop_map(Step::Limits),
        1 => Just(Step::Clean),
        1 => Just(Step::Reopen),
        1 => (1usize..20).prop_map(Step::Give),
    ]
}

fn name(key: usize) -> Vec<u8> {
    vec![b'k'; 1 + key * 30]
}

fn range(from: i64, count: u16) -> Vec<Vec<u8>> {
    (0..i64::from(count)).map(|i| from.wrapping_add(i).to_string().into_bytes()).collect()
}

fn listed(shards: &Shards<'_>, entry: &Entry) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    shards.set_each(entry, |member| all.push(member.bytes(&mut itoa::Buffer::new()).to_vec()));
    all
}

fn compare(space: &Keyspace, model: &Model) {
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for (i, expected) in model.iter().enumerate() {
        let name = name(i);
        let entry = shards.set_of(0, &space.key(0, &name)).unwrap();
        assert_eq!(entry.is_some(), !expected.is_empty());
        let Some(entry) = entry else { continue };
        let all = listed(&shards, &entry);
        assert_eq!(shards.set_len(&entry), expected.len() as u64);
        assert_eq!(all.len(), expected.len());
        assert_eq!(&all.iter().cloned().collect::<Members>(), expected);
        for member in expected {
            assert!(shards.set_has(&entry, member));
        }
        assert!(!shards.set_has(&entry, b"nobody"));
        assert!(!shards.set_has(&entry, b"123456"));
        let mut random = fastrand::Rng::with_seed(0);
        let one = shards.set_random(&entry, || random.u64(..));
        assert!(expected.contains(one.bytes(&mut itoa::Buffer::new())));
        if shards.encoding_name(&entry) == "intset" {
            let numbers: Vec<i64> =
                all.iter().map(|m| std::str::from_utf8(m).unwrap().parse().unwrap()).collect();
            assert!(numbers.is_sorted());
        }
    }
}

/// Runs a step on keyspace and model; a step that fails for lack of memory changes neither.
fn run(space: &Keyspace, model: &mut Model, limits: &mut SetLimits, step: Step) {
    let mut shards = space.lock(ShardSet::ALL, NOW);
    let names: Vec<Vec<u8>> = (0..KEYS).map(name).collect();
    let key = |i: usize| space.key(0, &names[i]);
    match step {
        Step::Add(k, members) => add(&mut shards, model, k, &key(k), &members, limits),
        Step::AddRange(k, from, n) => {
            add(&mut shards, model, k, &key(k), &range(from, n), limits);
        }
        Step::Remove(k, members) => remove(&mut shards, model, k, &key(k), &members),
        Step::RemoveRange(k, from, n) => remove(&mut shards, model, k, &key(k), &range(from, n)),
        Step::Pop(k, count, mut random) => {
            let Some(entry) = shards.set_of(0, &key(k)).unwrap() else { return };
            let mut popped = Vec::new();
            let next = || {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                random ^ random >> 32
            };
            let gone = shards.set_pop(0, &key(k), &entry, count, next, |member| {
                popped.push(member.bytes(&mut itoa::Buffer::new()).to_vec());
            });
            if let Ok(gone) = gone {
                assert_eq!(popped.len() as u64, count.min(model[k].len() as u64));
                popped.iter().for_each(|member| assert!(model[k].remove(member)));
                assert_eq!(gone, model[k].is_empty());
            }
        }
        Step::Store(k, members) => {
            let members: Members = members.into_iter().collect();
            let mut list = MemberList::default();
            members.iter().for_each(|member| list.push(Value::Bytes(member)));
            if shards.set_store(0, &key(k), &list, limits).is_ok() {
                model[k] = members;
            }
        }
        Step::Delete(k) => {
            assert_eq!(shards.remove(0, &key(k)), !model[k].is_empty());
            model[k].clear();
        }
        Step::Rename(a, b) if a != b => {
            if let Ok(true) = shards.rename(0, &key(a), &key(b)) {
                model[b] = std::mem::take(&mut model[a]);
            }
        }
        Step::Copy(a, b) if a != b => {
            if let Ok(true) = shards.copy(0, &key(a), 0, &key(b)) {
                model[b] = model[a].clone();
            }
        }
        Step::Limits(new) => *limits = new,
        Step::Clean => {
            for shard in ShardIndex::all() {
                shards.clean(shard, 0, &mut Default::default(), 40);
            }
        }
        Step::Give(count) => {
            for i in 0..count {
                shards.remove(1, &space.key(1, format!("fill{i}").as_bytes()));
            }
        }
        _ => {}
    }
}

fn add(
    shards: &mut Shards<'_>,
    model: &mut Model,
    k: usize,
    key: &Key<'_>,
    members: &[Vec<u8>],
    limits: &SetLimits,
) {
    let entry = shards.set_of(0, key).unwrap();
    let all = members.iter().map(Vec::as_slice);
    if let Ok(added) = shards.set_add(0, key, entry.as_ref(), all, limits) {
        let new = members.iter().filter(|member| model[k].insert((*member).clone())).count();
        assert_eq!(added, new as u64);
    }
}

fn remove(
    shards: &mut Shards<'_>,
    model: &mut Model,
    k: usize,
    key: &Key<'_>,
    members: &[Vec<u8>],
) {
    let Some(entry) = shards.set_of(0, key).unwrap() else { return };
    let all = members.iter().map(Vec::as_slice);
    if let Ok((removed, gone)) = shards.set_remove(0, key, &entry, all) {
        let there = members.iter().filter(|member| model[k].remove(*member)).count();
        assert_eq!((removed, gone), (there as u64, model[k].is_empty()));
    }
}

/// Fills the arena, except for a little, with keys that later steps can remove.
fn fill(space: &Keyspace) {
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for i in 0.. {
        let key = format!("fill{i}");
        let value = vec![b'v'; 60_000 >> (i % 5)];
        if shards.set(1, &space.key(1, key.as_bytes()), &value, Expiry::None).is_err() && i > 100 {
            return;
        }
    }
}

fn free_all(space: &Keyspace) {
    loop {
        let mut shards = space.lock(ShardSet::ALL, NOW);
        let mut more = false;
        shards.flush(Databases::All);
        for shard in ShardIndex::all() {
            more |= shards.clean(shard, 0, &mut Default::default(), 100).more_deferred;
        }
        if !more {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn agrees_with_plain_sets(
        steps in prop::collection::vec(step(), 1..120),
        mut limits in set_limits(),
        full in any::<bool>(),
    ) {
        let mut space = space(if full { 12 } else { 64 });
        if full {
            fill(&space);
        }
        let mut model = Model::default();
        for step in steps {
            if matches!(step, Step::Reopen) {
                space = reopen(&space);
                space.verify(1).unwrap();
            }
            run(&space, &mut model, &mut limits, step);
        }
        compare(&space, &model);
        space.verify(2).unwrap();
        let digest = space.lock(ShardSet::ALL, NOW).digest();
        let again = reopen(&space);
        prop_assert_eq!(again.lock(ShardSet::ALL, NOW).digest(), digest);
        compare(&again, &model);
        free_all(&again);
        prop_assert_eq!(again.arena().used_bytes(), 0);
    }
}

#[test]
fn the_digest_of_a_set_does_not_depend_on_the_encoding() {
    let digest = |limits: SetLimits, more: &[&[u8]]| {
        let space = space(16);
        let mut shards = space.lock(ShardSet::ALL, NOW);
        let key = space.key(0, b"set");
        for member in [&[b"1" as &[u8], b"-70000", b"33"], more].concat() {
            let entry = shards.set_of(0, &key).unwrap();
            let one = std::iter::once(member);
            shards.set_add(0, &key, entry.as_ref(), one, &limits).unwrap();
        }
        let entry = shards.set_of(0, &key).unwrap().unwrap();
        (shards.encoding_name(&entry), shards.digest())
    };
    let few = CompactLimits { entries: 0, value: 64 };
    let many = CompactLimits { entries: 100, value: 64 };
    let (a, ints) = digest(SetLimits { ints: 100, run: few }, &[]);
    let (b, run) = digest(SetLimits { ints: 0, run: many }, &[]);
    let (c, large) = digest(SetLimits { ints: 0, run: few }, &[]);
    assert_eq!([a, b, c], ["intset", "listpack", "hashtable"]);
    assert!(ints == run && run == large);
    let (d, other) = digest(SetLimits { ints: 100, run: many }, &[b"x"]);
    assert_eq!(d, "listpack");
    assert_ne!(other, ints);
}

#[test]
fn verify_finds_a_damaged_set() {
    let check = |encoding: u8, count: u64, bytes: &[u8]| {
        let head = EntryHeader {
            is_wide: false,
            oversized: None,
            kind: ValueType::Set,
            storage: crate::keyspace::entry::ValueStorage::Inline,
            has_expiry: false,
            is_raw: false,
            encoding,
            count,
            key_len: 1,
            value_len: bytes.len() as u64,
        };
        Set::verify_compact(&head, bytes)
    };
    assert_eq!(check(1, 2, &[1, 0, 2, 0]), Ok(()));
    assert!(check(1, 2, &[2, 0, 1, 0]).is_err());
    assert!(check(1, 2, &[1, 0, 1, 0]).is_err());
    assert!(check(2, 2, &[1, 0, 2, 0]).is_err());
    let mut run = Vec::new();
    Encoded::of(b"a").push_to(&mut run);
    assert_eq!(check(RUN, 1, &run), Ok(()));
    assert!(check(RUN, 2, &run).is_err());
    Encoded::of(b"a").push_to(&mut run);
    assert!(check(RUN, 2, &run).is_err());
    assert!(check(RUN, 1, &run[1..]).is_err());
}

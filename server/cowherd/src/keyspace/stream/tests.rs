//! Streams against plain maps: in an arena that may become full; reopened from its bytes and
//! verified.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::keyspace::tests::{reopen, space};
use crate::keyspace::{Databases, Expiry, Keyspace, ShardIndex, ShardSet};

const KEYS: usize = 2;
const NOW: i64 = 1_000;
/// The number of deliveries of a claim that is prepared and then undone.
const UNDONE: u64 = 8;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Clone, Debug, Default, PartialEq)]
struct ModelGroup {
    last: StreamId,
    consumers: BTreeSet<Vec<u8>>,
    /// The consumer, delivery time and number of deliveries of each pending entry.
    pending: BTreeMap<StreamId, (Vec<u8>, i64, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct ModelStream {
    entries: BTreeMap<StreamId, Pairs>,
    last: StreamId,
    deleted: StreamId,
    added: u64,
    groups: BTreeMap<Vec<u8>, ModelGroup>,
}

type Model = [Option<ModelStream>; KEYS];

#[derive(Clone, Debug)]
enum Step {
    Add(usize, u64, u64, Pairs),
    AddMany(usize, u8, Pairs),
    Delete(usize, Vec<prop::sample::Index>),
    TrimLen(usize, u64, bool, u64),
    TrimId(usize, prop::sample::Index, bool),
    SetLast(usize, u64),
    Group(usize, u8),
    Destroy(usize, u8),
    Consumer(usize, u8, u8),
    DeleteConsumer(usize, u8, u8),
    Deliver(usize, u8, u8, u8),
    PendingClaim(usize, u8, u8, Vec<prop::sample::Index>, i64, u64),
    Ack(usize, u8, Vec<prop::sample::Index>),
    Remove(usize),
    Rename(usize, usize),
    Copy(usize, usize),
    Limits(u64, u64),
    Clean,
    Reopen,
    Give(usize),
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (-20i64..60).prop_map(|n| n.to_string().into_bytes()),
        4 => (0u8..6).prop_map(|b| vec![b; 1 + usize::from(b)]),
        1 => (0u8..3).prop_map(|b| vec![b; 600]),
        1 => Just(vec![7; 9_000]),
        1 => Just(Vec::new()),
    ]
}

fn pairs() -> impl Strategy<Value = Pairs> {
    let field = prop_oneof![Just(b"a".to_vec()), Just(b"7".to_vec()), text()];
    prop::collection::vec((field, text()), 1..4)
}

fn indexes() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 1..6)
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    let gap = || prop_oneof![Just(0u64), 0u64..5, any::<u64>().prop_map(|n| n >> 20)];
    prop_oneof![
        8 => (key(), gap(), gap(), pairs()).prop_map(|(k, ms, seq, p)| Step::Add(k, ms, seq, p)),
        4 => (key(), any::<u8>(), pairs()).prop_map(|(k, n, p)| Step::AddMany(k, n, p)),
        4 => (key(), indexes()).prop_map(|(k, i)| Step::Delete(k, i)),
        2 => (key(), 0u64..200, any::<bool>(), 0u64..200)
            .prop_map(|(k, n, exact, limit)| Step::TrimLen(k, n, exact, limit)),
        2 => (key(), any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(k, i, exact)| Step::TrimId(k, i, exact)),
        1 => (key(), 0u64..10).prop_map(|(k, by)| Step::SetLast(k, by)),
        3 => (key(), 0u8..3).prop_map(|(k, g)| Step::Group(k, g)),
        1 => (key(), 0u8..3).prop_map(|(k, g)| Step::Destroy(k, g)),
        2 => (key(), 0u8..3, 0u8..4).prop_map(|(k, g, c)| Step::Consumer(k, g, c)),
        1 => (key(), 0u8..3, 0u8..4).prop_map(|(k, g, c)| Step::DeleteConsumer(k, g, c)),
        5 => (key(), 0u8..3, 0u8..4, any::<u8>())
            .prop_map(|(k, g, c, n)| Step::Deliver(k, g, c, n)),
        3 => (key(), 0u8..3, 0u8..4, indexes(), 0i64..NOW, 0u64..9)
            .prop_map(|(k, g, c, i, t, n)| Step::PendingClaim(k, g, c, i, t, n)),
        3 => (key(), 0u8..3, indexes()).prop_map(|(k, g, i)| Step::Ack(k, g, i)),
        1 => key().prop_map(Step::Remove),
        1 => (key(), key()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => (key(), key()).prop_map(|(a, b)| Step::Copy(a, b)),
        1 => (0u64..3000, 0u64..40).prop_map(|(bytes, entries)| Step::Limits(bytes, entries)),
        1 => Just(Step::Clean),
        1 => Just(Step::Reopen),
        1 => (1usize..20).prop_map(Step::Give),
    ]
}

fn name(key: usize) -> Vec<u8> {
    vec![b'k'; 1 + key * 30]
}

fn named(kind: &str, number: u8) -> Vec<u8> {
    // Some names have the same first 8 bytes, which are the key in the tree.
    let long = if number.is_multiple_of(2) { "" } else { "-that-is-longer" };
    format!("{kind}{long}{}", number.reverse_bits()).into_bytes()
}

fn borrow(pairs: &Pairs) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
    pairs.iter().map(|(field, value)| (field.as_slice(), value.as_slice()))
}

fn owned(fields: StreamFields<'_>) -> Pairs {
    let text = |value: crate::keyspace::Value<'_>| value.bytes(&mut itoa::Buffer::new()).to_vec();
    fields.iter().map(|(field, value)| (text(field), text(value))).collect()
}

fn compare(space: &Keyspace, model: &Model) {
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for (i, expected) in model.iter().enumerate() {
        let name = name(i);
        let entry = shards.stream(0, &space.key(0, &name)).unwrap();
        assert_eq!(entry.is_some(), expected.is_some());
        let (Some(entry), Some(expected)) = (entry, expected) else { continue };
        let info = shards.stream_info(&entry);
        assert_eq!(info.length, expected.entries.len() as u64);
        assert_eq!((info.last, info.deleted), (expected.last, expected.deleted));
        assert_eq!(info.added, expected.added);
        let first = expected.entries.keys().next().copied().unwrap_or_default();
        assert_eq!(info.first, first);
        let list = |start, end, is_reverse, most| {
            let mut all = Vec::new();
            shards.stream_range(&entry, start, end, is_reverse, most, |id, fields| {
                all.push((id, owned(fields)));
            });
            all
        };
        let all: Vec<(StreamId, Pairs)> =
            expected.entries.iter().map(|(id, pairs)| (*id, pairs.clone())).collect();
        assert_eq!(list(StreamId::MIN, StreamId::MAX, false, u64::MAX), all);
        let reversed: Vec<_> = all.iter().rev().cloned().collect();
        assert_eq!(list(StreamId::MIN, StreamId::MAX, true, u64::MAX), reversed);
        for (at, (id, _)) in all.iter().enumerate().step_by(7) {
            assert!(shards.stream_has(&entry, *id));
            let behind = id.next().unwrap();
            assert_eq!(
                list(behind, StreamId::MAX, false, 3),
                all[at + 1..].iter().take(3).cloned().collect::<Vec<_>>()
            );
            assert_eq!(
                list(StreamId::MIN, *id, true, 2),
                reversed[all.len() - 1 - at..].iter().take(2).cloned().collect::<Vec<_>>()
            );
        }
        compare_groups(&shards, &entry, expected);
    }
}

fn compare_groups(shards: &Shards<'_>, entry: &Entry, expected: &ModelStream) {
    let groups = shards.stream_groups(entry);
    let name = |group: &GroupInfo| shards.group_name(entry, group.group, <[u8]>::to_vec);
    let names: Vec<Vec<u8>> = groups.iter().map(name).collect();
    assert_eq!(names, expected.groups.keys().cloned().collect::<Vec<_>>());
    for (group, expected) in groups.iter().zip(expected.groups.values()) {
        assert_eq!(group.last, expected.last);
        assert_eq!(group.pending, expected.pending.len() as u64);
        let consumers = shards.group_consumers(entry, group.group);
        let name = |consumer: Consumer| shards.consumer_name(entry, consumer, <[u8]>::to_vec);
        let names: Vec<Vec<u8>> = consumers.iter().map(|info| name(info.consumer)).collect();
        assert_eq!(names, expected.consumers.iter().cloned().collect::<Vec<_>>());
        assert_eq!(group.consumers, names.len() as u64);
        let mut pending = BTreeMap::new();
        shards.pending_each(entry, group.group, None, StreamId::MIN, |one| {
            pending.insert(one.id, (name(one.consumer), one.delivered_at, one.deliveries));
            true
        });
        assert_eq!(pending, expected.pending);
        for (consumer, name) in consumers.iter().zip(&names) {
            let (mut own, of) = (0, Some(consumer.consumer));
            shards.pending_each(entry, group.group, of, StreamId::MIN, |one| {
                assert_eq!(expected.pending[&one.id].0, *name);
                own += 1;
                true
            });
            assert_eq!(own, consumer.pending);
            let known = expected.pending.values().filter(|(known, ..)| known == name);
            assert_eq!(own, known.count() as u64);
        }
    }
}

fn pick(entries: &BTreeMap<StreamId, Pairs>, indexes: &[prop::sample::Index]) -> Vec<StreamId> {
    let all: Vec<StreamId> = entries.keys().copied().collect();
    indexes.iter().filter(|_| !all.is_empty()).map(|index| all[index.index(all.len())]).collect()
}

/// Runs a step that changes the entries of a stream.
fn change_entries(
    shards: &mut Shards<'_>,
    key: &Key<'_>,
    model: &mut Option<ModelStream>,
    limits: &StreamLimits,
    step: &Step,
) {
    let entry = shards.stream(0, key).unwrap();
    match step {
        Step::Add(_, ms, seq, pairs) => {
            let last = model.as_ref().map_or(StreamId::MIN, |stream| stream.last);
            let id = StreamId { ms: last.ms.saturating_add(*ms), seq: *seq };
            if id <= last {
                return;
            }
            if shards.stream_add(0, key, entry.as_ref(), id, borrow(pairs), limits).is_ok() {
                let stream = model.get_or_insert_default();
                stream.entries.insert(id, pairs.clone());
                (stream.last, stream.added) = (id, stream.added + 1);
            }
        }
        Step::AddMany(_, count, pairs) => {
            for _ in 0..*count {
                let one = Step::Add(0, 1, 0, pairs.clone());
                change_entries(shards, key, model, limits, &one);
            }
        }
        Step::Delete(_, indexes) => {
            let (Some(entry), Some(stream)) = (entry, model) else { return };
            let ids = pick(&stream.entries, indexes);
            let removed = shards.stream_delete(0, key, &entry, ids.iter().copied());
            let there = ids.iter().filter(|id| stream.entries.remove(id).is_some()).count();
            assert_eq!(removed, there as u64);
            stream.deleted = ids.into_iter().max().unwrap_or_default().max(stream.deleted);
        }
        Step::TrimLen(_, most, exactly, limit) => {
            let (Some(entry), Some(stream)) = (entry, model) else { return };
            let limit = if *exactly { 0 } else { *limit };
            let how = StreamTrim::MaxLen(*most);
            let removed = shards.stream_trim(0, key, &entry, how, *exactly, limit);
            let over = (stream.entries.len() as u64).saturating_sub(*most);
            assert!(if *exactly { removed == over } else { removed <= over });
            assert!(limit == 0 || removed <= limit);
            (0..removed).for_each(|_| drop(stream.entries.pop_first()));
        }
        Step::TrimId(_, index, exactly) => {
            let (Some(entry), Some(stream)) = (entry, model) else { return };
            let Some(id) = pick(&stream.entries, &[*index]).pop() else { return };
            let removed = shards.stream_trim(0, key, &entry, StreamTrim::MinId(id), *exactly, 0);
            let over = stream.entries.range(..id).count() as u64;
            assert!(if *exactly { removed == over } else { removed <= over });
            (0..removed).for_each(|_| drop(stream.entries.pop_first()));
        }
        Step::SetLast(_, by) => {
            let (Some(entry), Some(stream)) = (entry, model) else { return };
            stream.last.ms = stream.last.ms.saturating_add(*by);
            shards.stream_set_last(&entry, stream.last, None, None);
        }
        _ => {}
    }
}

/// Runs a step that changes the groups of a stream.
fn change_groups(shards: &mut Shards<'_>, key: &Key<'_>, stream: &mut ModelStream, step: &Step) {
    let entry = shards.stream(0, key).unwrap().unwrap();
    let (Step::Group(_, g)
    | Step::Destroy(_, g)
    | Step::Consumer(_, g, _)
    | Step::DeleteConsumer(_, g, _)
    | Step::Deliver(_, g, ..)
    | Step::PendingClaim(_, g, ..)
    | Step::Ack(_, g, _)) = step
    else {
        return;
    };
    let group_name = named("group", *g);
    let found = shards.stream_group(&entry, &group_name).map(|group| group.group);
    assert_eq!(found.is_some(), stream.groups.contains_key(&group_name));
    let Some(group) = found else {
        if matches!(step, Step::Group(..)) {
            let made = shards.group_create(&entry, &group_name, StreamId::MIN, Some(0));
            if made.is_ok() {
                stream.groups.insert(group_name, ModelGroup::default());
            }
        }
        return;
    };
    if matches!(step, Step::Destroy(..)) {
        assert!(shards.group_destroy(0, key, &entry, &group_name));
        stream.groups.remove(&group_name);
        return;
    }
    let entries = &stream.entries;
    let model = stream.groups.get_mut(&group_name).unwrap();
    if let Step::Ack(_, _, indexes) = step {
        let ids = pick(entries, indexes);
        let acked = shards.pending_remove(&entry, group, ids.iter().copied());
        assert_eq!(
            acked,
            ids.iter().filter(|id| model.pending.remove(id).is_some()).count() as u64
        );
        return;
    }
    let (Step::Consumer(_, _, c)
    | Step::DeleteConsumer(_, _, c)
    | Step::Deliver(_, _, c, _)
    | Step::PendingClaim(_, _, c, ..)) = step
    else {
        return;
    };
    let consumer_name = named("consumer", *c);
    let consumer = match shards.consumer(&entry, group, &consumer_name) {
        Some(consumer) => consumer,
        None => {
            let Ok(made) = shards.consumer_create(&entry, group, &consumer_name) else { return };
            model.consumers.insert(consumer_name.clone());
            made
        }
    };
    let (claims, last) = match step {
        Step::DeleteConsumer(..) => {
            let gone = shards.consumer_delete(&entry, group, consumer);
            let before = model.pending.len();
            model.pending.retain(|_, (name, ..)| *name != consumer_name);
            assert_eq!(gone, (before - model.pending.len()) as u64);
            model.consumers.remove(&consumer_name);
            return;
        }
        Step::Deliver(_, _, _, most) => {
            let behind = model.last.next().unwrap();
            let ids: Vec<StreamId> =
                entries.range(behind..).take(usize::from(*most)).map(|(id, _)| *id).collect();
            let claim = PendingClaim { consumer, delivered_at: NOW, deliveries: 1 };
            let last = ids.last().copied();
            (ids.into_iter().map(|id| (id, claim)).collect::<Vec<_>>(), last)
        }
        Step::PendingClaim(_, _, _, indexes, delivered_at, deliveries) => {
            let claim =
                PendingClaim { consumer, delivered_at: *delivered_at, deliveries: *deliveries };
            let ids = pick(entries, indexes);
            (ids.into_iter().map(|id| (id, claim)).collect(), None)
        }
        _ => return,
    };
    let ids: Vec<StreamId> = claims.iter().map(|(id, _)| *id).collect();
    if let Ok(prepared) = shards.pending_prepare(&entry, group, consumer, &ids) {
        if matches!(step, Step::PendingClaim(.., deliveries) if *deliveries == UNDONE) {
            shards.pending_undo(&entry, group, consumer, &prepared);
            return;
        }
        for (id, claim) in claims {
            shards.pending_set(&entry, group, id, &claim);
            let note = (consumer_name.clone(), claim.delivered_at, claim.deliveries);
            model.pending.insert(id, note);
        }
        if let Some(last) = last {
            shards.group_set(&entry, group, last, None);
            model.last = last;
        }
    }
}

fn run(space: &Keyspace, model: &mut Model, limits: &mut StreamLimits, step: &Step) {
    let mut shards = space.lock(ShardSet::ALL, NOW);
    let names: Vec<Vec<u8>> = (0..KEYS).map(name).collect();
    let key = |i: usize| space.key(0, &names[i]);
    match step {
        Step::Add(k, ..)
        | Step::AddMany(k, ..)
        | Step::Delete(k, _)
        | Step::TrimLen(k, ..)
        | Step::TrimId(k, ..)
        | Step::SetLast(k, _) => {
            change_entries(&mut shards, &key(*k), &mut model[*k], limits, step);
        }
        Step::Group(k, _)
        | Step::Destroy(k, _)
        | Step::Consumer(k, ..)
        | Step::DeleteConsumer(k, ..)
        | Step::Deliver(k, ..)
        | Step::PendingClaim(k, ..)
        | Step::Ack(k, ..) => {
            let (first, none) = (named("group", 0), StreamId::MIN);
            if model[*k].is_none()
                && shards.stream_create(0, &key(*k), &first, none, Some(0)).is_ok()
            {
                let groups = BTreeMap::from([(first, ModelGroup::default())]);
                model[*k] = Some(ModelStream { groups, ..ModelStream::default() });
            }
            if let Some(stream) = &mut model[*k] {
                change_groups(&mut shards, &key(*k), stream, step);
            }
        }
        Step::Remove(k) => {
            assert_eq!(shards.remove(0, &key(*k)), model[*k].take().is_some());
        }
        Step::Rename(a, b) if a != b => {
            if let Ok(true) = shards.rename(0, &key(*a), &key(*b)) {
                model[*b] = model[*a].take();
            }
        }
        Step::Copy(a, b) if a != b => {
            if let Ok(true) = shards.copy(0, &key(*a), 0, &key(*b)) {
                model[*b] = model[*a].clone();
            }
        }
        Step::Limits(bytes, entries) => {
            *limits = StreamLimits { bytes: *bytes, entries: *entries };
        }
        Step::Clean => {
            for shard in ShardIndex::all() {
                shards.clean(shard, 0, &mut Default::default(), 40);
            }
        }
        Step::Give(count) => {
            for i in 0..*count {
                shards.remove(1, &space.key(1, format!("fill{i}").as_bytes()));
            }
        }
        _ => {}
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
            more |= shards.clean(shard, 0, &mut Default::default(), 10).more_deferred;
        }
        drop(shards);
        space.verify(1).unwrap();
        if !more {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn agrees_with_plain_streams(
        steps in prop::collection::vec(step(), 1..100),
        full in any::<bool>(),
    ) {
        let mut space = space(if full { 12 } else { 64 });
        if full {
            fill(&space);
        }
        let mut model = Model::default();
        let mut limits = StreamLimits { bytes: 4096, entries: 100 };
        for step in steps {
            if matches!(step, Step::Reopen) {
                space = reopen(&space);
                space.verify(1).unwrap();
            }
            run(&space, &mut model, &mut limits, &step);
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
fn ids_carry_over_from_number_to_time() {
    let id = |ms, seq| StreamId { ms, seq };
    assert_eq!(id(1, 2).next(), Some(id(1, 3)));
    assert_eq!(id(1, u64::MAX).next(), Some(id(2, 0)));
    assert_eq!(StreamId::MAX.next(), None);
    assert_eq!(id(2, 0).previous(), Some(id(1, u64::MAX)));
    assert_eq!(StreamId::MIN.previous(), None);
    assert_eq!(id(15, 7).to_string(), "15-7");
}

#[test]
fn entries_with_the_same_fields_share_them() {
    let space = space(64);
    let mut shards = space.lock(ShardSet::ALL, NOW);
    let (key, limits) = (space.key(0, b"stream"), StreamLimits { bytes: 4096, entries: 100 });
    let long: Pairs = vec![(vec![b'f'; 30], b"value".to_vec())];
    for seq in 1..=100 {
        let entry = shards.stream(0, &key).unwrap();
        let id = StreamId { ms: 1, seq };
        shards.stream_add(0, &key, entry.as_ref(), id, borrow(&long), &limits).unwrap();
    }
    let entry = shards.stream(0, &key).unwrap().unwrap();
    let info = shards.stream_info(&entry);
    assert_eq!((info.length, info.nodes), (100, 1));
    assert!(shards.memory_usage(&entry, 0) < 100 * 25);
}

/// A keyspace with a stream of two nodes and a group of two consumers.
fn small() -> (Keyspace, StreamRoot) {
    let space = space(16);
    let mut shards = space.lock(ShardSet::ALL, NOW);
    let (key, limits) = (space.key(0, b"stream"), StreamLimits { bytes: 4096, entries: 3 });
    let pairs: Pairs = vec![(b"field".to_vec(), b"value".to_vec())];
    for seq in 1..=5 {
        let (entry, id) = (shards.stream(0, &key).unwrap(), StreamId { ms: 1, seq });
        shards.stream_add(0, &key, entry.as_ref(), id, borrow(&pairs), &limits).unwrap();
    }
    let entry = shards.stream(0, &key).unwrap().unwrap();
    shards.group_create(&entry, b"group", StreamId::MIN, None).unwrap();
    let group = shards.stream_group(&entry, b"group").unwrap().group;
    for (name, seq) in [(b"one", 1), (b"two", 2)] {
        let consumer = shards.consumer_create(&entry, group, name).unwrap();
        let id = StreamId { ms: 1, seq };
        shards.pending_prepare(&entry, group, consumer, &[id]).unwrap();
        let claim = PendingClaim { consumer, delivered_at: NOW, deliveries: 1 };
        shards.pending_set(&entry, group, id, &claim);
    }
    let root = shards.stream_root(&entry);
    drop(shards);
    (space, root)
}

/// The error of `verify` after one byte of an object was changed; `place` finds the object.
fn after(change: u8, at: u64, place: impl Fn(&Mem<'_>, StreamRoot) -> u64) -> String {
    let (space, root) = small();
    let mut shards = space.lock(ShardSet::ALL, NOW);
    let shard = space.key(0, b"stream").shard;
    let mut mem = shards.held.mem(shard);
    let at = place(&mem, root) + at;
    mem.bytes_mut(at, 1)[0] ^= change;
    drop(shards);
    space.verify(1).err().map_or_else(String::new, |broken| broken.to_string())
}

#[test]
fn verify_names_a_damaged_stream() {
    type Locate = fn(&Mem<'_>, StreamRoot) -> u64;
    let header: Locate = |_, root| root.at;
    let node: Locate = |mem, root| mem.read(root.tail());
    let group: Locate = |mem, root| root.groups().first(mem).unwrap().item;
    let pending: Locate = |mem, root| {
        let group = Group(root.groups().first(mem).unwrap().item);
        group.pending().first(mem).unwrap().item
    };
    let consumer: Locate = |mem, root| {
        let group = Group(root.groups().first(mem).unwrap().item);
        PendingEntry::load(mem, group.pending().first(mem).unwrap().item).consumer.0
    };
    assert_eq!(after(0, 0, header), "");
    for (place, at, reason) in [
        (header, offset_of!(StreamHeader, length), "does not agree"),
        (header, offset_of!(StreamHeader, tail), "does not agree"),
        (header, offset_of!(StreamHeader, last) + 8, ""),
        (node, 8, "does not agree"),
        (node, 24, "disagrees with its entries"),
        (node, 26, "disagrees with its entries"),
        (node, 28, "impossible node"),
        (group, 80, "name in the wrong place"),
        (group, 7, "impossible name"),
        (consumer, 48, "name in the wrong place"),
        (pending, 0, "pending entry in the wrong place"),
        (pending, 32, "pending"),
    ] {
        let said = after(1, at as u64, place);
        assert!(said.contains(reason), "byte {at}: {said}");
    }
    // With any other damage, verification ends too.
    for (place, size) in [(header, 120), (node, 96), (group, 88), (consumer, 52), (pending, 40)] {
        for at in 0..size {
            after(0x80, at, place);
            after(0x11, at, place);
        }
    }
}

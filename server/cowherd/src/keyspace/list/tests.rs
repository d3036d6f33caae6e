//! Lists against a `VecDeque`: every operation, compact and large, with all sorts of limits, in an
//! arena that becomes full; reopened from its bytes and verified at the end.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::keyspace::tests::{reopen, space};
use crate::keyspace::{Databases, Keyspace, ShardIndex, ShardSet, Shards, Value};

type Model = BTreeMap<u8, VecDeque<Vec<u8>>>;

#[derive(Clone, Debug)]
enum Step {
    Push(u8, ListEnd, Vec<Vec<u8>>),
    /// So many short elements.
    Fill(u8, ListEnd, u16),
    Pop(u8, ListEnd, u64),
    Trim(u8, u64, u64),
    Set(u8, u64, Vec<u8>),
    Insert(u8, Vec<u8>, bool, Vec<u8>),
    Remove(u8, Vec<u8>, ListEnd, u64),
    Put(u8, Vec<Vec<u8>>),
    Rename(u8, u8),
    Copy(u8, u8),
    Delete(u8),
    Flush,
    Clean,
    Limits(i32),
    Reopen,
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0u8..9).prop_map(|n| n.to_string().into_bytes()),
        2 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        1 => Just(Vec::new()),
        3 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 100usize..9000).prop_map(|(b, n)| vec![b; n]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..6;
    let end = || prop_oneof![Just(ListEnd::Front), Just(ListEnd::Back)];
    let elements = || prop::collection::vec(element(), 1..8);
    let few = || prop_oneof![3 => 0u64..4, 1 => 0u64..400];
    prop_oneof![
        9 => (key.clone(), end(), elements()).prop_map(|(k, e, v)| Step::Push(k, e, v)),
        3 => (key.clone(), end(), 1u16..2000).prop_map(|(k, e, n)| Step::Fill(k, e, n)),
        6 => (key.clone(), end(), few()).prop_map(|(k, e, n)| Step::Pop(k, e, n)),
        2 => (key.clone(), few(), few()).prop_map(|(k, a, b)| Step::Trim(k, a, b)),
        4 => (key.clone(), few(), element()).prop_map(|(k, i, v)| Step::Set(k, i, v)),
        4 => (key.clone(), element(), any::<bool>(), element())
            .prop_map(|(k, p, b, v)| Step::Insert(k, p, b, v)),
        4 => (key.clone(), element(), end(), prop_oneof![1u64..4, Just(u64::MAX)])
            .prop_map(|(k, v, e, n)| Step::Remove(k, v, e, n)),
        1 => (key.clone(), elements()).prop_map(|(k, v)| Step::Put(k, v)),
        2 => (key.clone(), key.clone()).prop_map(|(a, b)| Step::Rename(a, b)),
        2 => (key.clone(), key.clone()).prop_map(|(a, b)| Step::Copy(a, b)),
        1 => key.prop_map(Step::Delete),
        1 => Just(Step::Flush),
        2 => Just(Step::Clean),
        2 => prop_oneof![Just(-2), -6i32..0, 0i32..20].prop_map(Step::Limits),
        1 => Just(Step::Reopen),
    ]
}

fn name(key: u8) -> Vec<u8> {
    format!("list:{key}:{}", "x".repeat(usize::from(key % 3) * 900)).into_bytes()
}

fn text(value: Value<'_>) -> Vec<u8> {
    value.bytes(&mut itoa::Buffer::new()).to_vec()
}

/// Keyspace and model.
struct Pair {
    space: Keyspace,
    model: Model,
    limits: ListLimits,
}

impl Pair {
    /// Runs a step on keyspace and model; a step that fails for lack of memory changes neither.
    fn run(&mut self, step: Step) {
        let space = std::mem::replace(&mut self.space, crate::keyspace::tests::space(4));
        match step {
            Step::Limits(size) => self.limits = ListLimits::new(size),
            Step::Reopen => {
                space.verify(1).unwrap();
                self.space = reopen(&space);
                return;
            }
            Step::Rename(..) | Step::Copy(..) | Step::Delete(_) | Step::Flush | Step::Clean => {
                self.run_on_keys(&mut space.lock(ShardSet::ALL, 0), step);
            }
            Step::Push(..) | Step::Fill(..) | Step::Put(..) => {
                self.add(&mut space.lock(ShardSet::ALL, 0), step);
            }
            step => self.change(&mut space.lock(ShardSet::ALL, 0), step),
        }
        self.space = space;
    }

    fn add(&mut self, shards: &mut Shards<'_>, step: Step) {
        let (k, end, elements) = match step {
            Step::Push(k, end, elements) => (k, end, elements),
            Step::Fill(k, end, count) => {
                (k, end, (0..count).map(|n| (n % 9).to_string().into_bytes()).collect())
            }
            Step::Put(k, elements) => {
                let name = name(k);
                let key = shards.keyspace().key(0, &name);
                if shards.list_put(0, &key, &elements, &self.limits).is_ok() {
                    self.model.insert(k, elements.into());
                }
                return;
            }
            _ => return,
        };
        let name = name(k);
        let key = shards.keyspace().key(0, &name);
        let entry = shards.lookup(0, &key);
        let slices = elements.iter().map(Vec::as_slice);
        let pushed = shards.list_push(0, &key, entry.as_ref(), end, slices, &self.limits);
        let Ok(len) = pushed else { return };
        let list = self.model.entry(k).or_default();
        for element in elements {
            match end {
                ListEnd::Front => list.push_front(element),
                ListEnd::Back => list.push_back(element),
            }
        }
        assert_eq!(len, list.len() as u64);
    }

    fn change(&mut self, shards: &mut Shards<'_>, step: Step) {
        let (Step::Pop(k, ..)
        | Step::Trim(k, ..)
        | Step::Set(k, ..)
        | Step::Insert(k, ..)
        | Step::Remove(k, ..)) = step
        else {
            return;
        };
        let name = name(k);
        let key = shards.keyspace().key(0, &name);
        let (Some(entry), Some(list)) = (shards.lookup(0, &key), self.model.get_mut(&k)) else {
            return;
        };
        let limits = &self.limits;
        match step {
            Step::Pop(_, end, count) => {
                if let Ok(is_gone) = shards.list_pop(0, &key, &entry, end, count, limits) {
                    for _ in 0..count {
                        match end {
                            ListEnd::Front => list.pop_front(),
                            ListEnd::Back => list.pop_back(),
                        };
                    }
                    assert_eq!(is_gone, list.is_empty());
                }
            }
            Step::Trim(_, front, back) => {
                let outcome = shards.list_trim(0, &key, &entry, (front, back), limits);
                if outcome.is_ok() {
                    let len = list.len();
                    list.drain(..short(front).min(len));
                    list.truncate(list.len().saturating_sub(short(back)));
                }
            }
            Step::Set(_, index, element) => {
                if let Ok(is_set) = shards.list_set(0, &key, &entry, index, &element, limits) {
                    let place = list.get_mut(short(index));
                    assert_eq!(is_set, place.is_some());
                    if let Some(place) = place {
                        *place = element;
                    }
                }
            }
            Step::Insert(_, pivot, before, element) => {
                let place = (&pivot[..], before);
                if let Ok(len) = shards.list_insert(0, &key, &entry, place, &element, limits) {
                    let at = list.iter().position(|known| *known == pivot);
                    if let Some(at) = at {
                        list.insert(at + usize::from(!before), element);
                    }
                    assert_eq!(len, at.map(|_| list.len() as u64));
                }
            }
            Step::Remove(_, element, end, most) => {
                let outcome = shards.list_remove(0, &key, &entry, &element, (end, most), limits);
                if let Ok(removed) = outcome {
                    let old = list.len();
                    remove(list, &element, end, most);
                    assert_eq!(removed, (old - list.len()) as u64);
                }
            }
            _ => {}
        }
        self.model.retain(|_, list| !list.is_empty());
    }

    fn run_on_keys(&mut self, shards: &mut Shards<'_>, step: Step) {
        let space = shards.keyspace();
        match step {
            Step::Rename(a, b) if a != b => {
                let renamed = shards.rename(0, &space.key(0, &name(a)), &space.key(0, &name(b)));
                if renamed == Ok(true) {
                    let list = self.model.remove(&a).unwrap();
                    self.model.insert(b, list);
                }
            }
            Step::Copy(a, b) if a != b => {
                let copied = shards.copy(0, &space.key(0, &name(a)), 0, &space.key(0, &name(b)));
                if copied == Ok(true) {
                    let list = self.model[&a].clone();
                    self.model.insert(b, list);
                }
            }
            Step::Delete(k) => {
                let removed = shards.remove(0, &space.key(0, &name(k)));
                assert_eq!(removed, self.model.remove(&k).is_some());
            }
            Step::Flush => {
                shards.flush(Databases::One(0));
                self.model.clear();
            }
            Step::Clean => {
                for shard in ShardIndex::all() {
                    shards.clean(shard, 0, &mut Default::default(), 30);
                }
            }
            _ => {}
        }
    }

    /// Compares all lists, by every way of reading them.
    fn compare(&self) {
        let mut shards = self.space.lock(ShardSet::ALL, 0);
        assert_eq!(self.space.len(0), self.model.len() as u64);
        for (k, list) in &self.model {
            let name = name(*k);
            let entry = shards.lookup(0, &self.space.key(0, &name)).unwrap();
            let len = list.len() as u64;
            assert_eq!(shards.list_len(&entry), len);
            let mut all = Vec::new();
            shards.list_range(&entry, &(0..=len - 1), |element| all.push(text(element)));
            assert!(all.iter().eq(list), "{k}");
            all.clear();
            shards.list_from(&entry, ListEnd::Back, 0, len, |element| all.push(text(element)));
            assert!(all.iter().rev().eq(list), "{k}");
            for index in [0, len / 3, len / 2, len - 1, len] {
                let element = shards.list_get(&entry, index).map(text);
                assert_eq!(element.as_ref(), list.get(short(index)));
            }
            assert_eq!(shards.list_end(&entry, ListEnd::Front).map(text).as_ref(), list.front());
            assert_eq!(shards.list_end(&entry, ListEnd::Back).map(text).as_ref(), list.back());
            let wanted = &list[list.len() / 2];
            for end in [ListEnd::Front, ListEnd::Back] {
                let mut found = Vec::new();
                shards.list_find(&entry, wanted, end, u64::MAX, |index| {
                    found.push(short(index));
                    true
                });
                if end == ListEnd::Back {
                    found.reverse();
                }
                let matches = (0..list.len()).filter(|i| list[*i] == *wanted);
                assert!(found.into_iter().eq(matches));
            }
        }
    }
}

fn short(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn remove(list: &mut VecDeque<Vec<u8>>, element: &[u8], end: ListEnd, most: u64) {
    let mut found: Vec<_> = (0..list.len()).filter(|i| list[*i] == element).collect();
    if end == ListEnd::Back {
        found.reverse();
    }
    found.truncate(short(most));
    found.sort_unstable();
    for at in found.into_iter().rev() {
        list.remove(at);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn agrees_with_a_deque(steps in prop::collection::vec(step(), 1..120), small in any::<bool>()) {
        let limits = ListLimits::new(-2);
        let mut pair =
            Pair { space: space(if small { 4 } else { 64 }), model: Model::new(), limits };
        for step in steps {
            pair.run(step);
        }
        pair.compare();
        pair.space.verify(1).unwrap();
        pair.space = reopen(&pair.space);
        pair.compare();
        let mut shards = pair.space.lock(ShardSet::ALL, 0);
        for k in 0..6 {
            shards.remove(0, &pair.space.key(0, &name(k)));
        }
        drop(shards);
        for _ in 0..100 {
            pair.run(Step::Clean);
        }
        let rest = pair.space.verify(1).unwrap();
        prop_assert_eq!(rest.keys, 0);
    }
}

/// The reply of OBJECT ENCODING after each change.
#[test]
fn a_list_within_the_limits_is_a_listpack() {
    let space = space(64);
    let mut shards = space.lock(ShardSet::ALL, 0);
    let key = space.key(0, b"list");
    let push = |shards: &mut Shards<'_>, count: usize, size: i32, bytes: usize| {
        let element = vec![b'x'; bytes];
        for _ in 0..count {
            let entry = shards.lookup(0, &key);
            let (one, limits) = ([&element[..]], ListLimits::new(size));
            let end = ListEnd::Back;
            shards.list_push(0, &key, entry.as_ref(), end, one.into_iter(), &limits).unwrap();
        }
        let entry = shards.lookup(0, &key).unwrap();
        shards.encoding_name(&entry)
    };
    let pop = |shards: &mut Shards<'_>, end: ListEnd, count: u64, size: i32| {
        let entry = shards.lookup(0, &key).unwrap();
        let limits = ListLimits::new(size);
        shards.list_pop(0, &key, &entry, end, count, &limits).unwrap();
        let entry = shards.lookup(0, &key).unwrap();
        shards.encoding_name(&entry)
    };
    assert_eq!(push(&mut shards, 1, -2, 8000), "listpack");
    assert_eq!(push(&mut shards, 1, -2, 400), "quicklist");
    shards.remove(0, &key);
    assert_eq!(push(&mut shards, 80, -2, 98), "listpack");
    assert_eq!(push(&mut shards, 2, -2, 98), "quicklist");
    assert_eq!(pop(&mut shards, ListEnd::Back, 41, -2), "quicklist");
    assert_eq!(pop(&mut shards, ListEnd::Back, 1, -2), "listpack", "at half of the limit");
    assert_eq!(pop(&mut shards, ListEnd::Front, 39, -2), "listpack");
    shards.remove(0, &key);
    assert_eq!(push(&mut shards, 4, 4, 1), "listpack");
    assert_eq!(push(&mut shards, 1, 4, 1), "quicklist");
    assert_eq!(pop(&mut shards, ListEnd::Front, 2, 4), "quicklist", "in two nodes");
    assert_eq!(pop(&mut shards, ListEnd::Front, 1, 4), "quicklist");
    assert_eq!(pop(&mut shards, ListEnd::Front, 1, 4), "listpack");
}

//! Sorted sets, compact and large, against plain maps: in an arena that may become full; reopened
//! from its bytes and verified.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::keyspace::tests::reopen;
use crate::keyspace::{CompactLimits, Keyspace, ShardSet, Shards};
use cowherd_arena::containers::dict::DictCursor;
use cowherd_arena::{PageKind, ReservedArena};

const KEYS: usize = 3;
const NOW: i64 = 1_000;

type Model = [BTreeMap<Vec<u8>, f64>; KEYS];

#[derive(Clone, Debug)]
enum Step {
    MemberChange(usize, Vec<u8>, f64),
    PutMany(usize, u16, u16),
    Remove(usize, Vec<u8>),
    Ranks(usize, u64, u64),
    Store(usize, Vec<(Vec<u8>, f64)>),
    Delete(usize),
    Rename(usize, usize),
    Copy(usize, usize),
    Limits(CompactLimits),
    Clean,
    Reopen,
    /// Frees so many of the keys that fill the arena.
    Give(usize),
}

fn member() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0u32..60).prop_map(|n| n.to_string().into_bytes()),
        4 => (0u8..60).prop_map(|b| vec![b; 1 + usize::from(b % 40)]),
        1 => (0u8..4).prop_map(|b| vec![b; 250 + usize::from(b) * 2]),
        1 => (0u8..3).prop_map(|b| vec![b; 5_000]),
        1 => Just(Vec::new()),
    ]
}

fn score() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-6i32..6).prop_map(f64::from),
        4 => (-40i32..40).prop_map(|n| f64::from(n) / 8.0),
        1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(5e-324), Just(1e300)],
        1 => any::<i64>().prop_map(|n| n as f64),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    prop_oneof![
        20 => (key.clone(), member(), score()).prop_map(|(k, m, s)| Step::MemberChange(k, m, s)),
        2 => (key.clone(), 0u16..1000, 0u16..300).prop_map(|(k, at, n)| Step::PutMany(k, at, n)),
        8 => (key.clone(), member()).prop_map(|(k, m)| Step::Remove(k, m)),
        2 => (key.clone(), 0u64..50, 0u64..20).prop_map(|(k, at, n)| Step::Ranks(k, at, n)),
        1 => (key.clone(), prop::collection::vec((member(), score()), 0..40))
            .prop_map(|(k, pairs)| Step::Store(k, pairs)),
        1 => key.clone().prop_map(Step::Delete),
        1 => (key.clone(), key.clone()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => (key.clone(), key).prop_map(|(a, b)| Step::Copy(a, b)),
        1 => (0u64..20, 0u64..70)
            .prop_map(|(entries, value)| Step::Limits(CompactLimits { entries, value })),
        1 => Just(Step::Clean),
        1 => Just(Step::Reopen),
        3 => (0usize..6).prop_map(Step::Give),
    ]
}

fn name(key: usize) -> Vec<u8> {
    format!("sorted set {key}").into_bytes()
}

struct Run {
    space: Keyspace,
    model: Model,
    limits: CompactLimits,
    ballast: Vec<Vec<u8>>,
}

impl Run {
    fn new(is_small: bool) -> Self {
        let blank = ReservedArena::reserve(PageKind::Small, 8 << 20).unwrap();
        let space = Keyspace::create(blank, 7).unwrap();
        let mut run = Self {
            space,
            model: Model::default(),
            limits: CompactLimits { entries: 8, value: 64 },
            ballast: Vec::new(),
        };
        let mut len = if is_small { 16_000 } else { 0 };
        while len > 20 {
            let name = format!("ballast {}", run.ballast.len()).into_bytes();
            let mut shards = run.space.lock(ShardSet::ALL, NOW);
            let value = vec![b'x'; len];
            match shards.set(1, &run.space.key(1, &name), &value, crate::keyspace::Expiry::None) {
                Ok(_) => run.ballast.push(name),
                Err(_) => len /= 2,
            }
        }
        run
    }

    fn put(&mut self, key: usize, member: &[u8], score: f64) {
        let Self { space, model, limits, .. } = self;
        let name = name(key);
        let key_name = space.key(0, &name);
        let mut shards = space.lock(ShardSet::ALL, NOW);
        let entry = shards.lookup_kind(0, &key_name, ValueType::SortedSet).unwrap();
        let mut old = None;
        let put = shards.put_member(0, &key_name, entry, member, limits, |score_before| {
            old = score_before;
            Some(score)
        });
        if let Ok((entry, put)) = put {
            assert!(entry.is_some());
            let before = model[key].insert(member.to_vec(), score);
            assert_eq!(old, before);
            let expected = match before {
                None => MemberChange::Added,
                Some(before) if before == score => MemberChange::Nothing,
                Some(_) => MemberChange::Changed,
            };
            assert_eq!(put, expected);
        }
    }

    /// Puts members of which some are named twice, and some have their scores already.
    fn put_many(&mut self, key: usize, from: u16, count: u16) {
        let Self { space, model, limits, .. } = self;
        let name = name(key);
        let key_name = space.key(0, &name);
        let pairs: Vec<(Vec<u8>, f64)> = (from..from + count)
            .map(|n| (format!("m{}", n % 500).into_bytes(), f64::from(n % 97)))
            .collect();
        let members: Vec<&[u8]> = pairs.iter().map(|(member, _)| member.as_slice()).collect();
        let mut shards = space.lock(ShardSet::ALL, NOW);
        let entry = shards.lookup(0, &key_name);
        let put =
            shards.put_members(0, &key_name, entry, &members, limits, |i, _| Some(pairs[i].1));
        if let Ok((added, _)) = put {
            let before = model[key].len();
            model[key].extend(pairs.iter().cloned());
            assert_eq!(added, (model[key].len() - before) as u64);
        }
    }

    fn act(&mut self, step: &Step) {
        match step {
            Step::MemberChange(key, member, score) => return self.put(*key, member, *score),
            Step::PutMany(key, from, count) => return self.put_many(*key, *from, *count),
            Step::Limits(limits) => {
                self.limits = *limits;
                return;
            }
            Step::Reopen => {
                self.space = reopen(&self.space);
                return;
            }
            _ => {}
        }
        let Self { space, model, limits, ballast } = self;
        let mut shards = space.lock(ShardSet::ALL, NOW);
        match step {
            Step::Remove(key, member) => {
                let name = name(*key);
                let key_name = space.key(0, &name);
                let Some(entry) = shards.lookup(0, &key_name) else { return };
                if let Ok((was_there, left)) = shards.remove_member(0, &key_name, entry, member) {
                    assert_eq!(was_there, model[*key].remove(member).is_some());
                    assert_eq!(left.is_some(), !model[*key].is_empty());
                }
            }
            Step::Ranks(key, rank, count) => {
                let name = name(*key);
                let key_name = space.key(0, &name);
                let Some(entry) = shards.lookup(0, &key_name) else { return };
                if shards.remove_ranks(0, &key_name, entry, *rank, *count).is_ok() {
                    let all = sorted(&model[*key]).into_iter();
                    let gone = all.skip(*rank as usize).take(*count as usize);
                    gone.for_each(|(member, _)| {
                        model[*key].remove(&member);
                    });
                }
            }
            Step::Store(key, pairs) => {
                let new: BTreeMap<_, _> = pairs.iter().cloned().collect();
                let mut borrowed: Vec<_> = new.iter().map(|(m, s)| (m.as_slice(), *s)).collect();
                let name = name(*key);
                let to = space.key(0, &name);
                if shards.store_sorted_set(0, &to, &mut borrowed, limits, 1).is_ok() {
                    model[*key] = new;
                }
            }
            Step::Delete(key) => {
                let was = shards.remove(0, &space.key(0, &name(*key)));
                assert_eq!(was, !model[*key].is_empty());
                model[*key].clear();
            }
            Step::Rename(from, to) if from != to => {
                let (a, b) = (name(*from), name(*to));
                if shards.rename(0, &space.key(0, &a), &space.key(0, &b)).is_ok_and(|was| was) {
                    model[*to] = std::mem::take(&mut model[*from]);
                }
            }
            Step::Copy(from, to) if from != to => {
                let (a, b) = (name(*from), name(*to));
                if shards.copy(0, &space.key(0, &a), 0, &space.key(0, &b)).is_ok_and(|was| was) {
                    model[*to] = model[*from].clone();
                }
            }
            Step::Clean => {
                for shard in crate::keyspace::ShardIndex::all() {
                    shards.clean(shard, 0, &mut crate::keyspace::CleanCursors::default(), 100);
                }
            }
            Step::Give(count) => {
                for name in ballast.drain(ballast.len().saturating_sub(*count)..) {
                    shards.remove(1, &space.key(1, &name));
                }
            }
            _ => {}
        }
    }
}

fn sorted(model: &BTreeMap<Vec<u8>, f64>) -> Vec<(Vec<u8>, f64)> {
    let mut all: Vec<_> = model.iter().map(|(member, score)| (member.clone(), *score)).collect();
    all.sort_by(|a, b| a.1.partial_cmp(&b.1).unwrap().then_with(|| a.0.cmp(&b.0)));
    all
}

fn listed(view: &SortedSetView<'_>, rank: u64, count: u64, is_down: bool) -> Vec<(Vec<u8>, f64)> {
    let mut all = Vec::new();
    view.each(rank, count, is_down, |member, score| {
        all.push((member.bytes(&mut itoa::Buffer::new()).to_vec(), score));
    });
    all
}

fn compare(shards: &mut Shards<'_>, space: &Keyspace, model: &Model) {
    for (key, model) in model.iter().enumerate() {
        let name = name(key);
        let Some(entry) = shards.lookup(0, &space.key(0, &name)) else {
            assert!(model.is_empty());
            continue;
        };
        let view = shards.sorted_set(&entry);
        let all = sorted(model);
        let len = all.len() as u64;
        assert_eq!((view.len(), view.is_empty()), (len, false));
        assert_eq!(listed(&view, 0, u64::MAX, false), all);
        let mut down = listed(&view, len - 1, u64::MAX, true);
        down.reverse();
        assert_eq!(down, all);
        assert_eq!(
            listed(&view, len / 2, 3, false),
            all[all.len() / 2..].iter().take(3).cloned().collect::<Vec<_>>()
        );
        for (rank, (member, score)) in all.iter().enumerate() {
            assert_eq!(view.score(member), Some(*score));
            assert_eq!(view.rank(member), Some((rank as u64, *score)));
            let before = all.partition_point(|pair| pair.1 < *score) as u64;
            let behind = all.partition_point(|pair| pair.1 <= *score) as u64;
            let edge = |is_behind| RangeBound::Score { score: *score, is_behind };
            assert_eq!((view.before(&edge(false)), view.before(&edge(true))), (before, behind));
        }
        assert_eq!(view.score(b"nobody"), None);
        let mut scanned = Vec::new();
        let mut cursor = Some(DictCursor::unpack(0));
        while let Some(at) = cursor {
            cursor = view.scan(at, 7, |member, score| {
                scanned.push((member.bytes(&mut itoa::Buffer::new()).to_vec(), score));
            });
        }
        assert_eq!(scanned.into_iter().collect::<BTreeMap<_, _>>(), *model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn agrees_with_maps(
        steps in prop::collection::vec(step(), 1..250),
        is_small in any::<bool>(),
    ) {
        let mut run = Run::new(is_small);
        for step in &steps {
            run.act(step);
        }
        compare(&mut run.space.lock(ShardSet::ALL, NOW), &run.space, &run.model);
        run.space.verify(1).unwrap();
        let again = reopen(&run.space);
        compare(&mut again.lock(ShardSet::ALL, NOW), &again, &run.model);
        let digest = run.space.lock(ShardSet::ALL, NOW).digest();
        prop_assert_eq!(digest, again.lock(ShardSet::ALL, NOW).digest());
    }
}

#[test]
fn the_digest_of_a_sorted_set_does_not_depend_on_the_encoding() {
    let digests: Vec<_> = [4, 100]
        .into_iter()
        .map(|entries| {
            let mut run = Run::new(false);
            run.limits = CompactLimits { entries, value: 64 };
            (0..20).for_each(|n| run.put(0, format!("m{n}").as_bytes(), f64::from(n) / 2.0));
            let shards = run.space.lock(ShardSet::ALL, NOW);
            shards.digest()
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

/// A COPY without memory for the copy put what it had copied into the lazy-free list. The command
/// was run again after lazy freeing, which took that for progress, and never ended.
#[test]
fn a_copy_without_memory_leaves_nothing_to_free() {
    let space = crate::keyspace::tests::space(8);
    let (from, to) = (space.key(0, b"from"), space.key(0, b"to"));
    let limits = CompactLimits { entries: 8, value: 64 };
    let mut shards = space.lock(ShardSet::ALL, NOW);
    for number in 0.. {
        let entry = shards.lookup(0, &from);
        let member = format!("member:{number}").into_bytes();
        let put = shards.put_member(0, &from, entry, &member, &limits, |_| Some(1.0));
        if put.is_err() {
            break;
        }
    }
    let used = space.arena().used_bytes();
    assert!(shards.copy(0, &from, 0, &to).is_err());
    assert!(crate::keyspace::ShardIndex::all().all(|shard| !shards.free_deferred(shard, 1)));
    assert_eq!(space.arena().used_bytes(), used);
}

#[test]
fn bounds_between_members_of_one_score() {
    for entries in [0, 100] {
        let mut run = Run::new(false);
        run.limits = CompactLimits { entries, value: 64 };
        ["a", "b", "bb", "c"].iter().for_each(|m| run.put(0, m.as_bytes(), 1.0));
        let mut shards = run.space.lock(ShardSet::ALL, NOW);
        let name = name(0);
        let entry = shards.lookup(0, &run.space.key(0, &name)).unwrap();
        let view = shards.sorted_set(&entry);
        let before = |member: &'static str, is_behind| {
            view.before(&RangeBound::Member { member: member.as_bytes(), is_behind })
        };
        assert_eq!([before("a", false), before("a", true), before("aa", true)], [0, 1, 1]);
        assert_eq!([before("bb", false), before("c", true), before("", false)], [2, 4, 0]);
        assert_eq!([view.before(&RangeBound::Start), view.before(&RangeBound::End)], [0, 4]);
    }
}

/// A run whose pairs are out of order, or have a member twice, passed as a sorted set.
#[test]
fn verify_refuses_pairs_out_of_order() {
    let head = |count| EntryHeader {
        is_wide: false,
        oversized: None,
        kind: ValueType::SortedSet,
        storage: crate::keyspace::entry::ValueStorage::Inline,
        has_expiry: false,
        is_raw: false,
        encoding: 0,
        count,
        key_len: 1,
        value_len: 0,
    };
    let check = |pairs: &[(&str, f64)]| {
        let mut run = Vec::new();
        pairs.iter().for_each(|(member, score)| push_pair(&mut run, member.as_bytes(), *score));
        SortedSet::verify_compact(&head(pairs.len() as u64), &run).is_ok()
    };
    assert!(check(&[("a", 1.0), ("b", 1.0), ("1", 1.5)]));
    assert!(!check(&[("b", 1.0), ("a", 1.0)]));
    assert!(!check(&[("a", 2.0), ("b", 1.0)]));
    assert!(!check(&[("a", 1.0), ("a", 1.0)]));
    assert!(!check(&[("a", 1.0), ("a", 2.0)]));
    assert!(!check(&[("a", f64::NAN)]));
    let mut run = Vec::new();
    Encoded::of(b"a").push_to(&mut run);
    Encoded::of(b"b").push_to(&mut run);
    assert!(SortedSet::verify_compact(&head(1), &run).is_err());
}

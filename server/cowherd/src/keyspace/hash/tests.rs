//! Hashes against a plain model: every operation, compact and large, with fields that expire, in an
//! arena that becomes full; reopened from its bytes and verified at the end.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::keyspace::tests::{reopen, space};
use crate::keyspace::{
    CompactLimits, Databases, ExpireRule, Expiry, Keyspace, ShardIndex, ShardSet,
};

const LIMITS: CompactLimits = CompactLimits { entries: 12, value: 40 };

type Fields = BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>;
type Model = BTreeMap<(usize, u8), Fields>;

#[derive(Clone, Debug)]
enum Step {
    Set(usize, u8, Vec<(u8, Vec<u8>)>, Expiry),
    Many(usize, u8, u8, u16),
    Remove(usize, u8, Vec<u8>),
    Expire(usize, u8, Vec<u8>, i64, ExpireRule),
    Persist(usize, u8, Vec<u8>),
    Rename(usize, u8, u8),
    Copy(usize, u8, usize, u8),
    Move(usize, u8, usize),
    ExpireKey(usize, u8, i64),
    Delete(usize, u8),
    SetString(usize, u8),
    Flush(usize),
    Clean,
    Later(i64),
    Reopen,
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        1 => Just(Vec::new()),
        4 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 41usize..3000).prop_map(|(b, n)| vec![b; n]),
        1 => (any::<u8>(), 20_000usize..300_000).prop_map(|(b, n)| vec![b; n]),
    ]
}

fn rule() -> impl Strategy<Value = ExpireRule> {
    (0u8..5).prop_map(|i| ExpireRule {
        if_none: i == 1,
        if_some: i == 2,
        if_later: i == 3,
        if_earlier: i == 4,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let (db, key, field) = (0usize..2, 0u8..8, 0u8..30);
    let fields = prop::collection::vec(field.clone(), 1..6);
    let expiry = prop_oneof![
        3 => Just(Expiry::None),
        2 => Just(Expiry::Keep),
        2 => (1i64..2000).prop_map(Expiry::At)
    ];
    let pairs = prop::collection::vec((field, value()), 1..5);
    prop_oneof![
        14 => (db.clone(), key.clone(), pairs, expiry)
            .prop_map(|(d, k, p, e)| Step::Set(d, k, p, e)),
        2 => (db.clone(), key.clone(), any::<u8>(), 1u16..600)
            .prop_map(|(d, k, f, n)| Step::Many(d, k, f, n)),
        6 => (db.clone(), key.clone(), fields.clone()).prop_map(|(d, k, f)| Step::Remove(d, k, f)),
        6 => (db.clone(), key.clone(), fields.clone(), -10i64..2000, rule())
            .prop_map(|(d, k, f, t, r)| Step::Expire(d, k, f, t, r)),
        3 => (db.clone(), key.clone(), fields).prop_map(|(d, k, f)| Step::Persist(d, k, f)),
        3 => (db.clone(), key.clone(), key.clone()).prop_map(|(d, a, b)| Step::Rename(d, a, b)),
        3 => (db.clone(), key.clone(), db.clone(), key.clone())
            .prop_map(|(d, a, e, b)| Step::Copy(d, a, e, b)),
        2 => (db.clone(), key.clone(), db.clone()).prop_map(|(d, k, e)| Step::Move(d, k, e)),
        2 => (db.clone(), key.clone(), 1i64..2000).prop_map(|(d, k, t)| Step::ExpireKey(d, k, t)),
        1 => (db.clone(), key.clone()).prop_map(|(d, k)| Step::Delete(d, k)),
        1 => (db.clone(), key).prop_map(|(d, k)| Step::SetString(d, k)),
        1 => db.prop_map(Step::Flush),
        3 => Just(Step::Clean),
        3 => (1i64..700).prop_map(Step::Later),
        1 => Just(Step::Reopen),
    ]
}

fn name(key: u8) -> Vec<u8> {
    format!("hash:{key}:{}", "x".repeat(usize::from(key % 3) * 900)).into_bytes()
}

/// Fields as numbers, as short text and as long text.
fn field(field: u8) -> Vec<u8> {
    match field % 3 {
        0 => field.to_string().into_bytes(),
        1 => format!("field:{field}").into_bytes(),
        _ => format!("{field}:{}", "f".repeat(usize::from(field))).into_bytes(),
    }
}

/// Keyspace and model.
struct Pair {
    space: Keyspace,
    model: Model,
    /// When keys expire.
    expiries: BTreeMap<(usize, u8), i64>,
    now: i64,
}

impl Pair {
    fn forget_expired(&mut self) {
        let (expiries, now) = (&self.expiries, self.now);
        self.model.retain(|key, fields| {
            fields.retain(|_, (_, expiry)| expiry.is_none_or(|at| at > now));
            expiries.get(key).is_none_or(|at| *at > now) && !fields.is_empty()
        });
        let model = &self.model;
        self.expiries.retain(|key, _| model.contains_key(key));
    }

    fn take(&mut self, at: (usize, u8)) -> Option<(Fields, Option<i64>)> {
        let fields = self.model.remove(&at)?;
        Some((fields, self.expiries.remove(&at)))
    }

    fn put(&mut self, at: (usize, u8), (fields, expiry): (Fields, Option<i64>)) {
        self.model.insert(at, fields);
        self.expiries.remove(&at);
        self.expiries.extend(expiry.map(|expiry| (at, expiry)));
    }

    /// Runs a step on keyspace and model; a step that fails for lack of memory changes neither.
    fn run(&mut self, step: Step) {
        self.forget_expired();
        match step {
            Step::Set(..) | Step::Many(..) => self.set(step),
            Step::Remove(..) | Step::Expire(..) | Step::Persist(..) => self.change(step),
            Step::Later(by) => self.now += by,
            Step::Reopen => {
                self.space.verify(1).unwrap();
                self.space = reopen(&self.space);
            }
            step => self.move_keys(step),
        }
    }

    fn set(&mut self, step: Step) {
        let (db, k, pairs, expiry) = match step {
            Step::Set(db, k, pairs, expiry) => {
                let pairs = pairs.into_iter().map(|(f, v)| (field(f), v)).collect();
                (db, k, pairs, expiry)
            }
            Step::Many(db, k, first, count) => {
                let pair = |i| (format!("{first}:{i}").into_bytes(), vec![first; 20]);
                (db, k, (0..count).map(pair).collect::<Vec<_>>(), Expiry::None)
            }
            _ => return,
        };
        let expiry = match expiry {
            Expiry::At(ttl) => Expiry::At(self.now + ttl),
            other => other,
        };
        let key_name = name(k);
        let key = self.space.key(db, &key_name);
        let mut shards = self.space.lock(ShardSet::ALL, self.now);
        let Ok(old) = shards.hash(db, &key) else { return };
        let slices = pairs.iter().map(|(f, v)| (f.as_slice(), v.as_slice()));
        let Ok(added) = shards.hash_set(db, &key, old.as_ref(), slices, expiry, &LIMITS) else {
            return;
        };
        drop(shards);
        let fields = self.model.entry((db, k)).or_default();
        let mut new = 0;
        for (name, value) in pairs {
            let old = fields.get(&name).map(|(_, expiry)| *expiry);
            let after = match expiry {
                Expiry::Keep => old.flatten(),
                Expiry::None => None,
                Expiry::At(at) => Some(at),
            };
            new += u64::from(old.is_none());
            fields.insert(name, (value, after));
        }
        assert_eq!(added, new);
    }

    fn change(&mut self, step: Step) {
        let (Step::Remove(db, k, _) | Step::Expire(db, k, ..) | Step::Persist(db, k, _)) = step
        else {
            return;
        };
        let key_name = name(k);
        let key = self.space.key(db, &key_name);
        let mut shards = self.space.lock(ShardSet::ALL, self.now);
        let Ok(Some(entry)) = shards.hash(db, &key) else {
            assert!(!self.model.contains_key(&(db, k)));
            return;
        };
        let model = self.model.get_mut(&(db, k)).unwrap();
        let named = |fields: &[u8]| fields.iter().map(|f| field(*f)).collect::<Vec<_>>();
        let outcome = match step {
            Step::Remove(_, _, fields) => {
                let named = named(&fields);
                let names = named.iter().map(Vec::as_slice);
                let removed = shards.hash_remove(db, &key, &entry, names);
                removed.map(|removed| {
                    let there = named.iter().filter(|name| model.remove(*name).is_some());
                    assert_eq!(removed, there.count() as u64);
                })
            }
            Step::Expire(_, _, fields, ttl, rule) => {
                let named = named(&fields);
                let (names, at) = (named.iter().map(Vec::as_slice), self.now + ttl);
                let outcomes = shards.hash_expire(db, &key, &entry, names, at, rule);
                outcomes.map(|outcomes| {
                    for (name, outcome) in named.iter().zip(outcomes) {
                        let expected = match model.get_mut(name) {
                            None => FieldExpiryOutcome::Missing,
                            Some((_, old)) if !rule.allows(*old, at) => FieldExpiryOutcome::Refused,
                            Some(_) if ttl <= 0 => {
                                model.remove(name);
                                FieldExpiryOutcome::Gone
                            }
                            Some((_, old)) => {
                                *old = Some(at);
                                FieldExpiryOutcome::Changed
                            }
                        };
                        assert_eq!(outcome, expected);
                    }
                })
            }
            Step::Persist(_, _, fields) => {
                let named = named(&fields);
                let names = named.iter().map(Vec::as_slice);
                shards.hash_persist(db, &key, &entry, names).map(|outcomes| {
                    for (name, outcome) in named.iter().zip(outcomes) {
                        let expected = match model.get_mut(name) {
                            None => FieldExpiryOutcome::Missing,
                            Some((_, None)) => FieldExpiryOutcome::HadNone,
                            Some((_, old)) => {
                                *old = None;
                                FieldExpiryOutcome::Changed
                            }
                        };
                        assert_eq!(outcome, expected);
                    }
                })
            }
            _ => Ok(()),
        };
        let _ = outcome;
        drop(shards);
        self.forget_expired();
    }

    #[expect(clippy::collapsible_match, reason = "a guard that changes the keyspace would hide it")]
    fn move_keys(&mut self, step: Step) {
        let now = self.now;
        let space = std::mem::replace(&mut self.space, crate::keyspace::tests::space(4));
        let mut shards = space.lock(ShardSet::ALL, now);
        match step {
            Step::Rename(db, a, b) if a != b => {
                if shards.rename(db, &space.key(db, &name(a)), &space.key(db, &name(b))) == Ok(true)
                {
                    // A key that is not in the model is a string.
                    self.take((db, b));
                    if let Some(moved) = self.take((db, a)) {
                        self.put((db, b), moved);
                    }
                }
            }
            Step::Copy(db, a, e, b) if (db, a) != (e, b) => {
                if shards.copy(db, &space.key(db, &name(a)), e, &space.key(e, &name(b))) == Ok(true)
                {
                    let expiry = self.expiries.get(&(db, a)).copied();
                    if let Some(fields) = self.model.get(&(db, a)).cloned() {
                        self.put((e, b), (fields, expiry));
                    } else {
                        self.take((e, b));
                    }
                }
            }
            Step::Move(db, k, e) if db != e => {
                if shards.move_key(db, &space.key(db, &name(k)), e) == Ok(true)
                    && let Some(moved) = self.take((db, k))
                {
                    self.put((e, k), moved);
                }
            }
            Step::ExpireKey(db, k, ttl) => {
                let set = shards.expire_at(db, &space.key(db, &name(k)), now + ttl, rule_of_none());
                if set == Ok(true) && self.model.contains_key(&(db, k)) {
                    self.expiries.insert((db, k), now + ttl);
                }
            }
            Step::Delete(db, k) => {
                shards.remove(db, &space.key(db, &name(k)));
                self.take((db, k));
            }
            Step::SetString(db, k) => {
                if shards.set(db, &space.key(db, &name(k)), b"text", Expiry::At(now + 1)).is_ok() {
                    self.take((db, k));
                }
            }
            Step::Flush(db) => {
                shards.flush(Databases::One(db));
                self.model.retain(|(d, _), _| *d != db);
                self.expiries.retain(|(d, _), _| *d != db);
            }
            Step::Clean => {
                for shard in ShardIndex::all() {
                    for db in 0..2 {
                        shards.clean(shard, db, &mut Default::default(), 30);
                    }
                }
            }
            _ => {}
        }
        drop(shards);
        self.space = space;
    }

    /// Compares all keys, by every way of reading them.
    fn compare(&mut self) {
        self.forget_expired();
        let mut shards = self.space.lock(ShardSet::ALL, self.now);
        for ((db, k), fields) in &self.model {
            let key_name = name(*k);
            let key = self.space.key(*db, &key_name);
            let entry = shards.hash(*db, &key).unwrap().unwrap();
            let text = |value: Value<'_>| value.bytes(&mut itoa::Buffer::new()).to_vec();
            let mut seen = BTreeMap::new();
            shards.hash_each(&entry, |field, value| {
                seen.insert(text(field), text(value));
            });
            let expected: BTreeMap<_, _> =
                fields.iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect();
            assert!(seen == expected, "{k} has {} fields, not {}", seen.len(), expected.len());
            for (name, (value, expiry)) in fields {
                let (found, at) = shards.hash_get(&entry, name).unwrap();
                assert!(text(found) == *value && at == *expiry);
            }
            assert_eq!(shards.hash_get(&entry, b"not there"), None);
            let (mut scanned, mut cursor) = (BTreeMap::new(), Some(DictCursor::default()));
            while let Some(at) = cursor {
                cursor = shards.hash_scan(&entry, at, 5, |field, value| {
                    scanned.insert(text(field), text(value));
                });
            }
            assert!(scanned == expected);
            assert!(shards.hash_len(&entry) >= fields.len() as u64);
            assert!(shards.memory_usage(&entry, 0) > 0);
        }
    }
}

fn rule_of_none() -> ExpireRule {
    ExpireRule::default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn agrees_with_maps(steps in prop::collection::vec(step(), 1..160), small in any::<bool>()) {
        let space = space(if small { 8 } else { 128 });
        let now = 1_000_000;
        let mut pair = Pair { space, model: Model::new(), expiries: BTreeMap::new(), now };
        for step in steps {
            pair.run(step);
        }
        pair.compare();
        pair.space.verify(2).unwrap();
        let digest = pair.space.lock(ShardSet::ALL, pair.now).digest();
        pair.space = reopen(&pair.space);
        prop_assert_eq!(pair.space.lock(ShardSet::ALL, pair.now).digest(), digest);
        pair.compare();
        // All memory can be freed again, in slices.
        loop {
            let mut shards = pair.space.lock(ShardSet::ALL, pair.now);
            let mut more = false;
            shards.flush(Databases::All);
            for shard in ShardIndex::all() {
                more |= shards.clean(shard, 0, &mut Default::default(), 50).more_deferred;
            }
            drop(shards);
            if !more {
                break;
            }
            pair.space.verify(1).unwrap();
        }
        prop_assert_eq!(pair.space.arena().used_bytes(), 0);
    }
}

/// Sets `count` fields of a key and returns the space.
fn filled(count: u32) -> Keyspace {
    let space = space(64);
    let key = space.key(0, b"h");
    let mut shards = space.lock(ShardSet::ALL, 0);
    for i in 0..count {
        let (name, old) = (format!("field {i}"), shards.hash(0, &key).unwrap());
        let pair = std::iter::once((name.as_bytes(), &b"value"[..]));
        shards.hash_set(0, &key, old.as_ref(), pair, Expiry::None, &LIMITS).unwrap();
    }
    drop(shards);
    space
}

#[test]
fn a_large_hash_is_freed_in_slices() {
    let space = filled(5000);
    let key = space.key(0, b"h");
    let full = space.arena().used_bytes();
    let mut shards = space.lock(ShardSet::ALL, 0);
    assert!(shards.remove(0, &key));
    assert!(space.arena().used_bytes() > full / 2, "most of it is freed later");
    let mut slices = 0;
    while shards.free_deferred(key.shard, 100) {
        slices += 1;
    }
    drop(shards);
    assert!(slices > 20, "{slices} slices");
    space.verify(1).unwrap();
    assert_eq!(space.arena().used_bytes(), 0);
}

#[test]
fn the_digest_of_a_hash_does_not_depend_on_the_encoding() {
    let digest = |limits: CompactLimits, order: &[usize]| {
        let space = space(16);
        let mut shards = space.lock(ShardSet::ALL, 0);
        let key = space.key(0, b"h");
        for i in order {
            let old = shards.hash(0, &key).unwrap();
            let (name, value) = (format!("field {i}"), i.to_string());
            let pair = std::iter::once((name.as_bytes(), value.as_bytes()));
            let expiry = if *i == 3 { Expiry::At(99) } else { Expiry::None };
            shards.hash_set(0, &key, old.as_ref(), pair, expiry, &limits).unwrap();
        }
        shards.digest()
    };
    let large = CompactLimits { entries: 0, ..LIMITS };
    let one = digest(LIMITS, &[1, 2, 3, 4]);
    assert_eq!(one, digest(large, &[4, 3, 2, 1]));
    assert_eq!(one, digest(LIMITS, &[3, 4, 1, 2]));
    assert_ne!(one, digest(LIMITS, &[1, 2, 4]));
    assert_ne!(one, digest(LIMITS, &[1, 2, 4, 5]));
}

#[test]
fn cleaning_removes_expired_fields_in_slices() {
    for limits in [CompactLimits { entries: 1000, value: 64 }, LIMITS] {
        let space = space(64);
        let key = space.key(0, b"h");
        let mut shards = space.lock(ShardSet::ALL, 0);
        let names: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
        let pairs = names.iter().map(|name| (name.as_bytes(), &b"v"[..]));
        shards.hash_set(0, &key, None, pairs, Expiry::At(500), &limits).unwrap();
        drop(shards);
        assert_eq!((space.volatile_len(0), space.len(0)), (1, 1));
        let before = space.stats();
        let mut shards = space.lock(ShardSet::ALL, 500);
        let mut cursors = Default::default();
        for _ in 0..100 {
            shards.clean(key.shard, 0, &mut cursors, 50);
        }
        drop(shards);
        assert_eq!((space.volatile_len(0), space.len(0)), (0, 0));
        let stats = space.stats();
        assert_eq!((stats.expired_fields, stats.changes), (1000, before.changes));
        space.verify(1).unwrap();
        assert_eq!(space.arena().used_bytes(), 0);
    }
}

#[test]
fn verify_names_a_damaged_hash() {
    let damage = |count: u32, change: &dyn Fn(&mut [u8])| {
        let space = filled(count);
        let mut shards = space.lock(ShardSet::ALL, 0);
        let key = space.key(0, b"h");
        let entry = shards.hash(0, &key).unwrap().unwrap();
        let mut mem = shards.mem(key.shard);
        let at = match entry.head.is_large() {
            true => entry.head.large_header(&mem, entry.at),
            false => entry.at,
        };
        change(mem.bytes_mut(at, 72));
        drop(shards);
        space.verify(1).err().map(|broken| broken.to_string()).unwrap_or_default()
    };
    assert_eq!(damage(3, &|_| {}), "");
    assert_eq!(damage(30, &|_| {}), "");
    assert!(damage(3, &|bytes| bytes[4] += 1).contains("elements for 4 fields"));
    assert!(damage(3, &|bytes| bytes[7] = 250).contains("damaged elements"));
    assert!(damage(3, &|bytes| bytes[1] |= 3).contains("encoding 3"));
    assert!(damage(3, &|bytes| bytes[0] |= 1 << 6).contains("do not go together"));
    assert!(damage(3, &|bytes| bytes[1] |= 1).contains("damaged"), "of the other encoding");
    assert!(damage(30, &|bytes| bytes[0] = 1).contains("no value's header"));
    assert!(damage(30, &|bytes| bytes[8] = 64).contains("no hash's"));
    assert!(damage(30, &|bytes| bytes[24] = 3).contains("items"));
    assert_ne!(damage(30, &|bytes| bytes[48] = 8), "", "a tree that is none");
}

//! Key watchers and waiters: exactly the operations that change a key notify them.

use super::super::{ChangeObserver, ExpireRule, Expiry, Keyspace, ShardSet};
use super::*;
use cowherd_arena::{PageKind, ReservedArena};
use parking_lot::Mutex;

const NOW: i64 = 1_000;

fn space() -> Keyspace {
    Keyspace::create(ReservedArena::reserve(PageKind::Small, 32 << 20).unwrap(), 7).unwrap()
}

/// Whether `change` notifies a watcher of `watched` in database 0, which has a key `old` and, until
/// 2,000, a key `brief`.
fn notifies(watched: &[u8], now: i64, change: impl FnOnce(&mut Shards<'_>, &Keyspace)) -> bool {
    let space = space();
    let mut shards = space.lock(ShardSet::ALL, NOW);
    shards.set(0, &space.key(0, b"old"), b"value", Expiry::None).unwrap();
    shards.set(0, &space.key(0, b"brief"), b"value", Expiry::At(2_000)).unwrap();
    let watcher = Arc::new(Watcher::default());
    let key = space.key(0, watched);
    shards.watch(0, &key, &watcher);
    shards.watch(0, &key, &watcher);
    drop(shards);
    let mut shards = space.lock(ShardSet::ALL, now);
    change(&mut shards, &space);
    let is_notified = watcher.is_touched();
    shards.keyspace().unwatch(0, &key, &watcher);
    assert!(ShardIndex::all().all(|shard| !shards.has_watchers(shard)));
    watcher.reset();
    shards.set(0, &key, b"later", Expiry::None).unwrap();
    assert!(!watcher.is_touched(), "notified after unwatch");
    is_notified
}

#[test]
fn a_watcher_is_notified_of_changes_of_its_key_only() {
    let set = |key: &'static [u8], db: usize| {
        move |shards: &mut Shards<'_>, space: &Keyspace| {
            shards.set(db, &space.key(db, key), b"new", Expiry::None).unwrap();
        }
    };
    assert!(notifies(b"old", NOW, set(b"old", 0)));
    assert!(notifies(b"new", NOW, set(b"new", 0)));
    assert!(!notifies(b"old", NOW, set(b"other", 0)));
    assert!(!notifies(b"old", NOW, set(b"old", 1)));
    assert!(!notifies(b"old", NOW, |shards, space| {
        shards.lookup_read(0, &space.key(0, b"old"));
        assert!(!shards.remove(0, &space.key(0, b"none")));
    }));
    assert!(notifies(b"old", NOW, |shards, space| assert!(
        shards.remove(0, &space.key(0, b"old"))
    )));
    assert!(!notifies(b"none", NOW, |shards, space| {
        shards.remove(0, &space.key(0, b"none"));
    }));
    for from in [b"old".as_slice(), b"to"] {
        assert!(notifies(from, NOW, |shards, space| {
            shards.rename(0, &space.key(0, b"old"), &space.key(0, b"to")).unwrap();
        }));
    }
    assert!(notifies(b"copy", NOW, |shards, space| {
        shards.copy(0, &space.key(0, b"old"), 0, &space.key(0, b"copy")).unwrap();
    }));
    assert!(!notifies(b"old", NOW, |shards, space| {
        shards.copy(0, &space.key(0, b"old"), 0, &space.key(0, b"copy")).unwrap();
    }));
    assert!(notifies(b"old", NOW, |shards, space| {
        let rule = ExpireRule::default();
        shards.expire_at(0, &space.key(0, b"old"), 9_000, rule).unwrap();
    }));
    assert!(notifies(b"moved", NOW, |shards, space| {
        shards.set(3, &space.key(3, b"moved"), b"x", Expiry::None).unwrap();
        shards.move_key(3, &space.key(3, b"moved"), 0).unwrap();
    }));
}

#[test]
fn expiry_is_a_change_but_the_later_removal_is_none() {
    let ask = |shards: &mut Shards<'_>, space: &Keyspace| {
        assert!(shards.lookup(0, &space.key(0, b"brief")).is_none());
    };
    assert!(notifies(b"brief", 2_000, ask));
    let space = space();
    let mut shards = space.lock(ShardSet::ALL, NOW);
    shards.set(0, &space.key(0, b"brief"), b"value", Expiry::At(2_000)).unwrap();
    drop(shards);
    let mut shards = space.lock(ShardSet::ALL, 2_000);
    let watcher = Arc::new(Watcher::default());
    shards.watch(0, &space.key(0, b"brief"), &watcher);
    ask(&mut shards, &space);
    for shard in ShardIndex::all() {
        shards.clean(shard, 0, &mut super::super::CleanCursors::default(), 100);
    }
    assert!(!watcher.is_touched(), "it had expired when it was watched");
}

#[test]
fn a_flush_or_a_swap_notifies_watchers_of_existing_keys() {
    let flush = |databases| {
        move |shards: &mut Shards<'_>, _: &Keyspace| {
            shards.flush(databases);
        }
    };
    assert!(notifies(b"old", NOW, flush(Databases::All)));
    assert!(notifies(b"old", NOW, flush(Databases::One(0))));
    assert!(!notifies(b"old", NOW, flush(Databases::One(1))));
    assert!(!notifies(b"none", NOW, flush(Databases::All)));
    let swap = |shards: &mut Shards<'_>, space: &Keyspace| {
        shards.set(1, &space.key(1, b"there"), b"x", Expiry::None).unwrap();
        shards.swap_databases(1, 0);
    };
    assert!(notifies(b"old", NOW, swap));
    assert!(notifies(b"there", NOW, swap));
    assert!(!notifies(b"none", NOW, swap));
}

#[test]
fn a_changed_key_with_waiters_is_ready_once() {
    let space = space();
    let mut shards = space.lock(ShardSet::ALL, NOW);
    let (a, b) = (space.key(0, b"a"), space.key(0, b"b"));
    shards.add_waiter(2, &a);
    shards.add_waiter(2, &a);
    shards.add_waiter(2, &b);
    for key in [&b, &a, &b] {
        shards.set(0, key, b"elsewhere", Expiry::None).unwrap();
        shards.set(2, key, b"here", Expiry::None).unwrap();
    }
    assert!(shards.has_ready());
    let ready = |key: &Key<'_>| ReadyKey { db: 2, key: key.bytes.into() };
    assert_eq!(shards.take_ready(), [ready(&b), ready(&a)]);
    assert!(!shards.has_ready());
    shards.remove(2, &a);
    assert_eq!(shards.take_ready(), [ready(&a)]);
    shards.keyspace().remove_waiter(2, &a);
    shards.remove(2, &a);
    shards.set(2, &a, b"again", Expiry::None).unwrap();
    assert_eq!(shards.take_ready(), [ready(&a)], "there is one more waiter");
    shards.keyspace().remove_waiter(2, &a);
    shards.keyspace().remove_waiter(2, &b);
    shards.remove(2, &a);
    shards.remove(2, &b);
    assert!(!shards.has_ready());
    assert!(ShardIndex::all().all(|shard| !shards.has_watchers(shard)));
}

/// A key and the client that has changed it; `None` for all keys.
type Change = Option<(Vec<u8>, Option<ClientId>)>;

/// Keeps what the observer is told.
#[derive(Default)]
struct Changes(Mutex<Vec<Change>>);

impl ChangeObserver for Changes {
    fn key_changed(&self, key: &[u8], _hash: u64, by: Option<ClientId>) {
        self.0.lock().push(Some((key.to_vec(), by)));
    }

    fn all_changed(&self) {
        self.0.lock().push(None);
    }
}

#[test]
fn the_observer_is_told_of_changes_and_of_their_client() {
    let space = space();
    let changes = Arc::new(Changes::default());
    space.set_change_observer(Arc::clone(&changes) as _);
    let set = |shards: &mut Shards<'_>, key: &[u8], expiry| {
        shards.set(0, &space.key(0, key), b"value", expiry).unwrap();
    };
    let told = || std::mem::take(&mut *changes.0.lock());
    let change = |key: &[u8], by| Some((key.to_vec(), by));

    let mut shards = space.lock(ShardSet::ALL, NOW);
    set(&mut shards, b"early", Expiry::None);
    assert_eq!(told(), [], "nothing is observed yet");

    space.observe_changes(true);
    set(&mut shards, b"own", Expiry::None);
    let mut shards = shards.for_client(7);
    set(&mut shards, b"brief", Expiry::At(2_000));
    shards.lookup_read(0, &space.key(0, b"early"));
    assert!(!shards.remove(0, &space.key(0, b"none")));
    assert_eq!(told(), [change(b"own", None), change(b"brief", Some(7))]);
    drop(shards);

    let mut shards = space.lock(ShardSet::ALL, 2_000).for_client(7);
    shards.lookup_read(0, &space.key(0, b"brief"));
    assert_eq!(told(), [change(b"brief", None)], "an expiry is nobody's change");
    shards.rename(0, &space.key(0, b"own"), &space.key(0, b"new")).unwrap();
    assert_eq!(told(), [change(b"own", Some(7)), change(b"new", Some(7))]);
    shards.flush(Databases::One(3));
    shards.swap_databases(0, 1);
    assert_eq!(told(), [None, None]);

    space.observe_changes(false);
    set(&mut shards, b"late", Expiry::None);
    shards.flush(Databases::All);
    assert_eq!(told(), []);
    assert!(ShardIndex::all().all(|shard| !shards.has_watchers(shard)));
}

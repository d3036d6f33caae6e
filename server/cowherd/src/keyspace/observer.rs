//! The observer of changes: one listener that is told of every key that changes, for the caches of
//! clients.
//!
//! While changes are observed, the counters of all watch tables are one higher (see `watch`), so
//! that a change without observer, watchers and waiters costs one load.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Keyspace;

/// The number of a client that changes keys.
pub type ClientId = u64;

/// Receives the changes of keys.
pub trait ChangeObserver: Send + Sync {
    /// A key was changed, has expired or was evicted. `by` is the client that sent the command;
    /// `None` for the server itself. Called while the key's shard is locked, after the change.
    fn key_changed(&self, key: &[u8], hash: u64, by: Option<ClientId>);

    /// Any key may have changed: databases were flushed or swapped. Called while all shards are
    /// locked.
    fn all_changed(&self);
}

impl Keyspace {
    /// Sets the observer; a second call changes nothing. It is told of nothing until
    /// [`Self::observe_changes`].
    pub fn set_change_observer(&self, observer: Arc<dyn ChangeObserver>) {
        let _ = self.change_observer.set(observer);
    }

    /// Sets whether the observer is told of changes.
    pub fn observe_changes(&self, on: bool) {
        self.is_observed.store(on, Ordering::Relaxed);
        self.count_watch_entries();
    }

    /// The observer, while changes are observed.
    #[inline]
    pub(super) fn change_observer(&self) -> Option<&dyn ChangeObserver> {
        let is_observed = self.is_observed.load(Ordering::Relaxed);
        self.change_observer.get().filter(|_| is_observed).map(|observer| &**observer)
    }
}

//! Keyspace events: a key is new, expired, was evicted, or was not found.
//!
//! These are the events that no command can report itself. One listener receives them. While no
//! event is enabled, each place that could emit one costs a load.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use super::DbIndex;

/// What happened to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyspaceEvent {
    /// The key was added.
    New,
    /// The key expired and was removed.
    Expired,
    /// A reading command did not find the key.
    Missed,
    /// The key was removed because memory was short.
    Evicted,
    /// Fields of a hash expired.
    FieldsExpired,
    /// The last fields of a hash expired, and the key was removed.
    HashExpired,
}

impl KeyspaceEvent {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

type Listener = Box<dyn Fn(KeyspaceEvent, DbIndex, &[u8]) + Send + Sync>;

/// Dispatches keyspace events to the listener, if they are enabled.
pub struct EventDispatcher {
    /// A bit for each enabled event.
    enabled: AtomicU8,
    listener: OnceLock<Listener>,
}

impl fmt::Debug for EventDispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventDispatcher").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

impl EventDispatcher {
    pub(super) fn new() -> Self {
        Self { enabled: AtomicU8::new(0), listener: OnceLock::new() }
    }

    /// Sets the listener; a second call changes nothing. The listener runs while the key's shard is
    /// locked, so it must not lock shards.
    pub fn set_listener(
        &self,
        listener: impl Fn(KeyspaceEvent, DbIndex, &[u8]) + Send + Sync + 'static,
    ) {
        let _ = self.listener.set(Box::new(listener));
    }

    /// Enables these events and disables all others.
    pub fn set_enabled(&self, events: &[KeyspaceEvent]) {
        let bits = events.iter().fold(0, |bits, event| bits | event.bit());
        self.enabled.store(bits, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn is_enabled(&self, event: KeyspaceEvent) -> bool {
        self.enabled.load(Ordering::Relaxed) & event.bit() != 0
    }

    /// Calls the listener. The caller has checked that the event is enabled.
    #[cold]
    pub(super) fn emit(&self, event: KeyspaceEvent, db: DbIndex, key: &[u8]) {
        if db < super::DATABASES
            && let Some(listener) = self.listener.get()
        {
            listener(event, db, key);
        }
    }
}

//! What others want to be told about keys: that one is new, has expired, was evicted or was looked
//! for in vain.
//!
//! Nothing here is in the arena. While nobody wants anything, it costs a load where a key is added,
//! expires or is missed.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use super::DbIndex;

/// What happened to a key that no command can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyspaceEvent {
    /// It was added.
    New,
    /// It expired and is gone.
    Expired,
    /// A reading command did not find it.
    Missed,
    /// It was removed because memory was short.
    Evicted,
    /// Fields of a hash expired.
    FieldsExpired,
    /// The last fields of a hash expired, and so it is gone.
    HashExpired,
}

impl KeyspaceEvent {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

type Listener = Box<dyn Fn(KeyspaceEvent, DbIndex, &[u8]) + Send + Sync>;

/// What others want to be told.
pub struct KeyspaceEvents {
    wanted: AtomicU8,
    listener: OnceLock<Listener>,
}

impl fmt::Debug for KeyspaceEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyspaceEvents").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl KeyspaceEvents {
    pub(super) fn new() -> Self {
        Self { wanted: AtomicU8::new(0), listener: OnceLock::new() }
    }

    /// Sets who is told of events, once. It is called while the key's shard is locked.
    pub fn set_listener(
        &self,
        listener: impl Fn(KeyspaceEvent, DbIndex, &[u8]) + Send + Sync + 'static,
    ) {
        // A second one is not heard.
        let _ = self.listener.set(Box::new(listener));
    }

    /// Chooses the events that the listener is told of.
    pub fn set_enabled(&self, events: &[KeyspaceEvent]) {
        let bits = events.iter().fold(0, |bits, event| bits | event.bit());
        self.wanted.store(bits, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn is_enabled(&self, event: KeyspaceEvent) -> bool {
        self.wanted.load(Ordering::Relaxed) & event.bit() != 0
    }

    #[cold]
    pub(super) fn emit(&self, event: KeyspaceEvent, db: DbIndex, key: &[u8]) {
        if let Some(listener) = self.listener.get() {
            listener(event, db, key);
        }
    }
}

//! The registry of connected clients, for CLIENT LIST and CLIENT KILL, CLIENT PAUSE, and monitors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::client::{Client, ConnectionHandle, Origin};
use super::monitors::Monitors;
use super::session::Session;

/// All connected clients.
#[derive(Default)]
pub(crate) struct ClientRegistry {
    by_id: Mutex<BTreeMap<u64, Arc<Client>>>,
    last_id: AtomicU64,
    count: AtomicU64,
    /// Number of clients that CLIENT PAUSE holds.
    held: AtomicU64,
    /// Bytes of pending output and unsent replies of all clients, as last summed.
    output_bytes: AtomicU64,
    pause: Pause,
    /// The clients that are shown the requests of all clients.
    pub(crate) monitors: Monitors,
}

/// Bytes of one idle connection: its state, and its task (`net` has a test of its size).
const IDLE_BYTES: u64 = (size_of::<Client>() + size_of::<Session>() + 2048) as u64;

/// CLIENT PAUSE. Every command reads `until`, so the fields are atomics instead of a lock.
#[derive(Default)]
struct Pause {
    /// End of the pause, wall clock in milliseconds; in the past without a pause.
    until: AtomicI64,
    writes_only: AtomicBool,
}

/// A client with a command that waits for the end of the pause.
pub(crate) struct HeldClient<'c> {
    registry: &'c ClientRegistry,
    client: &'c Client,
}

impl Drop for HeldClient<'_> {
    fn drop(&mut self) {
        self.client.set_held(false);
        self.registry.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ClientRegistry {
    /// Registers a new connection.
    pub(crate) fn connect(
        &self,
        origin: Origin,
        now: i64,
        handle: Arc<dyn ConnectionHandle>,
    ) -> Arc<Client> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client::new(id, &origin, now, handle));
        self.by_id.lock().insert(id, Arc::clone(&client));
        self.count.fetch_add(1, Ordering::Relaxed);
        client
    }

    /// Removes a connection that has ended. After that no thread uses its handle.
    pub(crate) fn disconnect(&self, client: &Client) {
        client.detach_handle();
        if self.by_id.lock().remove(&client.id).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The client with a number.
    pub(crate) fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.by_id.lock().get(&id).cloned()
    }

    /// Number of connected clients.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes of all connections: idle ones have the same size, output was summed a second ago.
    pub(crate) fn memory(&self) -> u64 {
        self.count() * IDLE_BYTES + self.output_bytes.load(Ordering::Relaxed)
    }

    /// Sets the bytes of all clients' output.
    pub(crate) fn set_output_bytes(&self, bytes: u64) {
        self.output_bytes.store(bytes, Ordering::Relaxed);
    }

    /// All clients, in ascending order of their numbers.
    pub(crate) fn list(&self) -> Vec<Arc<Client>> {
        self.by_id.lock().values().cloned().collect()
    }

    /// Pauses all commands, or only those that write, until `until` (wall clock, milliseconds). An
    /// earlier pause that ends later keeps its end.
    pub(crate) fn pause(&self, until: i64, writes_only: bool) {
        self.pause.until.fetch_max(until, Ordering::Relaxed);
        self.pause.writes_only.store(writes_only, Ordering::Relaxed);
    }

    /// Number of clients with a command that waits for the end of the pause.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Counts a client as held by the pause until the result is dropped.
    pub(crate) fn hold<'c>(&'c self, client: &'c Client) -> HeldClient<'c> {
        self.held.fetch_add(1, Ordering::Relaxed);
        client.set_held(true);
        HeldClient { registry: self, client }
    }

    /// Ends the pause.
    pub(crate) fn unpause(&self) {
        self.pause.until.store(0, Ordering::Relaxed);
    }

    /// The end of the pause, if a command has to wait for it; `writes` if the command may change
    /// keys.
    #[inline]
    pub(crate) fn paused_until(&self, now: i64, writes: bool) -> Option<i64> {
        let until = self.pause.until.load(Ordering::Relaxed);
        let waits = until > now && (writes || !self.pause.writes_only.load(Ordering::Relaxed));
        waits.then_some(until)
    }
}

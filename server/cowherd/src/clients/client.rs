//! The connected clients, as other connections see them: CLIENT LIST, CLIENT KILL, CLIENT PAUSE.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::keyspace::Watcher;

use super::blocked::BlockedClient;
use super::output::Outbox;

/// Reaches a connection from another thread.
pub trait ConnectionHandle: Send + Sync {
    /// Ends the connection as soon as it can.
    fn close(&self);

    /// Makes the connection look at its signals.
    fn wake(self: Arc<Self>) {}
}

/// A signal: the connection is to end.
pub const KILLED: u8 = 1;
/// A signal: there is mail in the outbox.
pub const OUTPUT_PENDING: u8 = 1 << 1;

/// What others can see of one connection. Its own thread writes with plain stores.
pub struct Client {
    /// Number, never used twice.
    pub id: u64,
    /// The other end, or the path of a Unix socket and `:0`.
    pub peer: String,
    /// Our end.
    pub local: String,
    /// File descriptor.
    pub fd: i32,
    /// When it connected, wall clock in milliseconds.
    pub connected_at: i64,
    /// Whether it came through a Unix socket.
    pub is_unix: bool,
    /// When it last sent a command, wall clock in milliseconds.
    pub last_active: AtomicI64,
    /// Row of its last command in the command table, plus one; 0 before the first.
    pub last_command: AtomicU64,
    /// Selected database.
    pub db: AtomicU64,
    /// Protocol version, 2 or 3.
    pub protocol: AtomicU64,
    /// Commands run.
    pub commands: AtomicU64,
    /// Bytes received.
    pub bytes_in: AtomicU64,
    /// Bytes sent.
    pub bytes_out: AtomicU64,
    /// Whether CLIENT NO-EVICT is on.
    pub no_evict: AtomicBool,
    /// Whether CLIENT NO-TOUCH is on.
    pub no_touch: AtomicBool,
    /// Commands that it has queued since MULTI, plus one; 0 outside a transaction.
    pub queued: AtomicU64,
    /// Bytes of memory that they take.
    pub queued_memory: AtomicU64,
    /// Keys that it watches.
    pub watched: AtomicU64,
    /// Whether one of them was touched.
    pub watcher: Arc<Watcher>,
    /// Names that the client gave.
    pub names: Mutex<ClientNames>,
    /// Channels it subscribes to.
    pub channels: AtomicU64,
    /// Patterns it subscribes to.
    pub patterns: AtomicU64,
    /// Shard channels it subscribes to.
    pub shard_channels: AtomicU64,
    /// What other threads send to it.
    pub(super) outbox: Outbox,
    /// What it waits for, if a command of its waits.
    pub(crate) waiting: Mutex<Option<Arc<BlockedClient>>>,
    /// What its connection is to look at; a bit each.
    signals: AtomicU8,
    hangup: Mutex<Option<Arc<dyn ConnectionHandle>>>,
}

/// Names that a client gave.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct ClientNames {
    /// CLIENT SETNAME.
    pub name: String,
    /// CLIENT SETINFO LIB-NAME.
    pub library: String,
    /// CLIENT SETINFO LIB-VER.
    pub library_version: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("id", &self.id).field("peer", &self.peer).finish()
    }
}

impl Client {
    /// Ends the connection; a connection that ends itself is told to after its reply.
    pub fn kill(&self) {
        self.signal(KILLED);
        if let Some(hangup) = self.hangup.lock().as_ref() {
            hangup.close();
        }
    }

    /// Whether it was told to end.
    pub fn is_killed(&self) -> bool {
        self.signals() & KILLED != 0
    }

    /// What its connection is to look at.
    #[inline]
    pub fn signals(&self) -> u8 {
        self.signals.load(Ordering::Acquire)
    }

    pub(super) fn signal(&self, signal: u8) {
        self.signals.fetch_or(signal, Ordering::AcqRel);
    }

    pub(super) fn unsignal(&self, signal: u8) {
        self.signals.fetch_and(!signal, Ordering::AcqRel);
    }

    /// Makes its connection look at its signals.
    pub(super) fn wake(&self) {
        let hangup = self.hangup.lock().clone();
        if let Some(hangup) = hangup {
            hangup.wake();
        }
    }

    /// Whether it subscribes to anything.
    pub fn is_subscriber(&self) -> bool {
        [&self.channels, &self.patterns, &self.shard_channels]
            .iter()
            .any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// Whether a command of its waits.
    pub fn is_blocked(&self) -> bool {
        self.waiting.lock().is_some()
    }
}

/// All connected clients.
#[derive(Default)]
pub struct ClientRegistry {
    all: Mutex<BTreeMap<u64, Arc<Client>>>,
    next_id: AtomicU64,
    count: AtomicU64,
    pause: Pause,
}

/// Until when clients have to wait.
#[derive(Default)]
struct Pause {
    /// Wall clock in milliseconds; 0 if they do not.
    until: AtomicI64,
    writes_only: AtomicBool,
}

/// Where a connection comes from.
pub struct Origin {
    /// The other end; none for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Our end; none for a Unix socket.
    pub local: Option<SocketAddr>,
    /// Path of the Unix socket.
    pub path: String,
    /// File descriptor.
    pub fd: i32,
}

impl ClientRegistry {
    /// Registers a new connection.
    pub fn connect(
        &self,
        origin: Origin,
        now: i64,
        hangup: Arc<dyn ConnectionHandle>,
    ) -> Arc<Client> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let name = |address: Option<SocketAddr>| match address {
            Some(address) => address.to_string(),
            None => format!("{}:0", origin.path),
        };
        let client = Arc::new(Client {
            id,
            peer: name(origin.peer),
            local: name(origin.local),
            fd: origin.fd,
            connected_at: now,
            is_unix: origin.peer.is_none(),
            last_active: AtomicI64::new(now),
            last_command: AtomicU64::new(0),
            db: AtomicU64::new(0),
            protocol: AtomicU64::new(2),
            commands: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            no_evict: AtomicBool::new(false),
            no_touch: AtomicBool::new(false),
            queued: AtomicU64::new(0),
            queued_memory: AtomicU64::new(0),
            watched: AtomicU64::new(0),
            watcher: Arc::default(),
            names: Mutex::new(ClientNames::default()),
            channels: AtomicU64::new(0),
            patterns: AtomicU64::new(0),
            shard_channels: AtomicU64::new(0),
            outbox: Outbox::default(),
            waiting: Mutex::new(None),
            signals: AtomicU8::new(0),
            hangup: Mutex::new(Some(hangup)),
        });
        self.all.lock().insert(id, Arc::clone(&client));
        self.count.fetch_add(1, Ordering::Relaxed);
        client
    }

    /// Forgets a connection that has ended.
    pub fn disconnect(&self, client: &Client) {
        *client.hangup.lock() = None;
        if self.all.lock().remove(&client.id).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A connection by its number.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.all.lock().get(&id).cloned()
    }

    /// Number of connections.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// All connections in the order of their numbers.
    pub fn list(&self) -> Vec<Arc<Client>> {
        self.all.lock().values().cloned().collect()
    }

    /// Lets clients wait until `until` (wall clock, milliseconds), or only those that want to
    /// write. A longer pause is not made shorter.
    pub fn pause(&self, until: i64, writes_only: bool) {
        self.pause.until.fetch_max(until, Ordering::Relaxed);
        self.pause.writes_only.store(writes_only, Ordering::Relaxed);
    }

    /// Ends the pause.
    pub fn unpause(&self) {
        self.pause.until.store(0, Ordering::Relaxed);
    }

    /// Until when a command has to wait, if it has to: `writes` if it may change keys.
    #[inline]
    pub fn paused_until(&self, now: i64, writes: bool) -> Option<i64> {
        let until = self.pause.until.load(Ordering::Relaxed);
        let waits = until > now && (writes || !self.pause.writes_only.load(Ordering::Relaxed));
        waits.then_some(until)
    }
}

//! A client as other threads see it: counters, signals, pending output, and the handle by which
//! they wake or close its connection.
//!
//! Only the connection's own thread writes the counters, so it does so with plain loads and stores;
//! readers see each counter whole, but not all of one moment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::config::{OutputLimit, OutputLimits};
use crate::keyspace::Watcher;
use cowherd_resp::{ProtocolVersion, ReplyWriter};

use super::output_buffer::{OutputBuffer, PushOutcome};
use super::signals::{KILLED, Signals};

/// Reaches a connection from another thread.
pub(crate) trait ConnectionHandle: Send + Sync {
    /// Ends the connection as soon as possible.
    fn close(&self);

    /// Makes the connection check its signals and its pending reply.
    fn wake(self: Arc<Self>) {}
}

/// Where a connection comes from.
pub(crate) struct Origin {
    /// Address of the client; `None` for a Unix socket.
    pub(crate) peer: Option<SocketAddr>,
    /// Address of the server; `None` for a Unix socket.
    pub(crate) local: Option<SocketAddr>,
    /// Path of the Unix socket.
    pub(crate) path: String,
    /// File descriptor.
    pub(crate) fd: i32,
}

/// The state of one connection that other threads see.
pub(crate) struct Client {
    /// Unique number, never reused.
    pub(crate) id: u64,
    /// Address of the client, or the path of a Unix socket and `:0`.
    pub(crate) peer: String,
    /// Address of the server, likewise.
    pub(crate) local: String,
    /// File descriptor.
    pub(crate) fd: i32,
    /// Time of the connect, wall clock in milliseconds.
    pub(crate) connected_at: i64,
    /// Whether the connection is a Unix socket.
    pub(crate) is_unix: bool,
    /// Time of the last request, wall clock in milliseconds.
    pub(crate) last_active: AtomicI64,
    /// Row of the last command in the command table, plus one; 0 before the first.
    pub(crate) last_command: AtomicU64,
    /// Selected database.
    pub(crate) db: AtomicU64,
    /// Protocol version, 2 or 3.
    pub(crate) protocol: AtomicU64,
    /// Number of commands run.
    pub(crate) commands: AtomicU64,
    /// Bytes received.
    pub(crate) bytes_in: AtomicU64,
    /// Bytes sent.
    pub(crate) bytes_out: AtomicU64,
    /// CLIENT NO-EVICT.
    pub(crate) no_evict: AtomicBool,
    /// CLIENT NO-TOUCH.
    pub(crate) no_touch: AtomicBool,
    /// Whether the client is a monitor.
    pub(crate) is_monitor: AtomicBool,
    /// Number of commands queued since MULTI, plus one; 0 outside a transaction.
    pub(crate) queued: AtomicU64,
    /// Bytes of memory of the command queue.
    pub(crate) queued_memory: AtomicU64,
    /// Number of watched keys.
    pub(crate) watched: AtomicU64,
    /// Whether one of the watched keys was touched.
    pub(crate) watcher: Arc<Watcher>,
    /// Names that the client has set.
    pub(crate) names: Mutex<ClientNames>,
    /// Number of channels that the client subscribes to.
    pub(crate) channels: AtomicU64,
    /// Number of patterns that the client subscribes to.
    pub(crate) patterns: AtomicU64,
    /// Number of shard channels that the client subscribes to.
    pub(crate) shard_channels: AtomicU64,
    output: OutputBuffer,
    /// Sequence number of the client's entry in `BlockedClients`; 0 if the client is not blocked.
    blocked: AtomicU64,
    /// Whether a command waits for the end of CLIENT PAUSE.
    held: AtomicBool,
    signals: Signals,
    /// `None` once the connection has ended.
    handle: Mutex<Option<Arc<dyn ConnectionHandle>>>,
}

/// Names that a client has set.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(crate) struct ClientNames {
    /// CLIENT SETNAME.
    pub(crate) name: String,
    /// CLIENT SETINFO LIB-NAME.
    pub(crate) library: String,
    /// CLIENT SETINFO LIB-VER.
    pub(crate) library_version: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("id", &self.id).field("peer", &self.peer).finish()
    }
}

impl Client {
    /// A client that has just connected.
    pub(super) fn new(
        id: u64,
        origin: &Origin,
        now: i64,
        handle: Arc<dyn ConnectionHandle>,
    ) -> Self {
        let name = |address: Option<SocketAddr>| match address {
            Some(address) => address.to_string(),
            None => format!("{}:0", origin.path),
        };
        Self {
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
            is_monitor: AtomicBool::new(false),
            queued: AtomicU64::new(0),
            queued_memory: AtomicU64::new(0),
            watched: AtomicU64::new(0),
            watcher: Arc::default(),
            names: Mutex::default(),
            channels: AtomicU64::new(0),
            patterns: AtomicU64::new(0),
            shard_channels: AtomicU64::new(0),
            output: OutputBuffer::default(),
            blocked: AtomicU64::new(0),
            held: AtomicBool::new(false),
            signals: Signals::default(),
            handle: Mutex::new(Some(handle)),
        }
    }

    /// Closes the connection. No further command of the client runs.
    pub(crate) fn kill(&self) {
        self.signals.set(KILLED);
        if let Some(handle) = self.handle.lock().as_ref() {
            handle.close();
        }
    }

    /// Whether the client was killed.
    pub(crate) fn is_killed(&self) -> bool {
        self.signals() & KILLED != 0
    }

    /// The signal bits that are set.
    #[inline]
    pub(crate) fn signals(&self) -> u8 {
        self.signals.get()
    }

    /// Makes the connection check its signals and its pending reply.
    pub(super) fn wake(&self) {
        let handle = self.handle.lock().clone();
        if let Some(handle) = handle {
            handle.wake();
        }
    }

    /// Drops the handle, since the connection has ended.
    pub(super) fn detach_handle(&self) {
        *self.handle.lock() = None;
    }

    /// Whether the client has any subscription.
    pub(crate) fn is_subscriber(&self) -> bool {
        [&self.channels, &self.patterns, &self.shard_channels]
            .iter()
            .any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// Whether a command of the client waits for a key, or for the end of CLIENT PAUSE.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked_sequence().is_some() || self.held.load(Ordering::Relaxed)
    }

    /// Sets whether a command waits for the end of CLIENT PAUSE.
    pub(super) fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// Key of the client's entry in `BlockedClients`.
    pub(crate) fn blocked_sequence(&self) -> Option<u64> {
        let sequence = self.blocked.load(Ordering::Acquire);
        (sequence != 0).then_some(sequence)
    }

    /// Sets or clears the key of the client's entry in `BlockedClients`. All that was pushed before
    /// is visible to a thread that sees the new value.
    pub(super) fn set_blocked_sequence(&self, sequence: Option<u64>) {
        self.blocked.store(sequence.unwrap_or(0), Ordering::Release);
    }

    /// The protocol version that the client has chosen.
    pub(crate) fn version(&self) -> ProtocolVersion {
        match self.protocol.load(Ordering::Relaxed) {
            3 => ProtocolVersion::Resp3,
            _ => ProtocolVersion::Resp2,
        }
    }

    fn limit<'l>(&self, limits: &'l OutputLimits) -> &'l OutputLimit {
        if self.is_subscriber() { &limits.pubsub } else { &limits.normal }
    }

    /// Appends what `write` writes to the pending output, in the client's protocol version, and
    /// wakes the connection. Kills the client instead if the output limit is exceeded.
    pub(crate) fn push_output(&self, limits: &OutputLimits, write: impl FnOnce(&mut ReplyWriter)) {
        let limit = self.limit(limits);
        match self.output.push(&self.signals, limit, self.version(), write) {
            PushOutcome::Done => {}
            PushOutcome::First => self.wake(),
            PushOutcome::Overflow => self.kill(),
        }
    }

    /// Moves the pending output to the end of the replies in `out`.
    #[cold]
    pub(crate) fn drain_output(&self, out: &mut Vec<u8>) {
        self.output.drain(&self.signals, out);
    }

    /// Sets the number of reply bytes that the socket has not taken; false if the output limit is
    /// exceeded, so that the connection has to end.
    pub(crate) fn set_unsent(&self, limits: &OutputLimits, bytes: u64) -> bool {
        self.output.set_unsent(&self.signals, self.limit(limits), bytes)
    }

    /// Kills the client if it has exceeded its soft output limit for too long.
    pub(crate) fn check_output_limit(&self, limits: &OutputLimits) {
        if self.output.check(&self.signals, self.limit(limits)) {
            self.kill();
        }
    }

    /// Bytes that the client has not read yet, as far as the server knows.
    pub(crate) fn backlog(&self) -> u64 {
        self.output.backlog()
    }

    /// Backlog in bytes when the output limit was exceeded; `None` if it never was.
    pub(crate) fn output_overflow(&self) -> Option<u64> {
        self.output.overflow_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::signals::OUTPUT_PENDING;
    use super::*;

    #[derive(Default)]
    struct CountingHandle {
        woken: AtomicU64,
        closed: AtomicU64,
    }

    impl ConnectionHandle for CountingHandle {
        fn close(&self) {
            self.closed.fetch_add(1, Ordering::Relaxed);
        }

        fn wake(self: Arc<Self>) {
            self.woken.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn connect() -> (Client, Arc<CountingHandle>) {
        let handle = Arc::new(CountingHandle::default());
        let origin = Origin { peer: None, local: None, path: "test".into(), fd: 7 };
        (Client::new(1, &origin, 0, Arc::clone(&handle) as _), handle)
    }

    fn hard_limit(hard: u64) -> OutputLimits {
        let normal = OutputLimit { hard, soft: 0, soft_seconds: 0 };
        OutputLimits { normal, ..OutputLimits::default() }
    }

    #[test]
    fn pending_output_keeps_its_order_and_wakes_once() {
        let (client, handle) = connect();
        let limits = hard_limit(0);
        for text in ["a", "b", "c"] {
            client.push_output(&limits, |reply| reply.simple(text));
        }
        assert_eq!(handle.woken.load(Ordering::Relaxed), 1);
        assert_eq!((client.signals(), client.backlog()), (OUTPUT_PENDING, 12));
        let mut out = b"+first\r\n".to_vec();
        client.drain_output(&mut out);
        assert_eq!(out, b"+first\r\n+a\r\n+b\r\n+c\r\n");
        assert_eq!((client.signals(), client.backlog()), (0, 0));
        client.push_output(&limits, |reply| reply.simple("d"));
        assert_eq!(handle.woken.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn pending_output_and_unsent_replies_count_together() {
        let (client, handle) = connect();
        let limits = hard_limit(20);
        assert!(client.set_unsent(&limits, 12));
        client.push_output(&limits, |reply| reply.simple("12345"));
        assert_eq!((client.backlog(), client.is_killed()), (20, false));
        client.push_output(&limits, |reply| reply.simple("x"));
        assert!(client.is_killed());
        assert_eq!(client.output_overflow(), Some(24));
        assert_eq!(handle.closed.load(Ordering::Relaxed), 1);
        let mut out = Vec::new();
        client.push_output(&limits, |reply| reply.simple("y"));
        client.drain_output(&mut out);
        assert_eq!(out, b"", "an overflown buffer keeps nothing");
    }
}

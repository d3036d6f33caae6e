//! What other threads hand to a connection, and how much a client may leave unread.
//!
//! ```text
//! publisher, any thread                     the connection's own thread
//!   deliver: append to the mail               after each command, and when woken:
//!   first bytes? set the signal, wake  --->     drain_output: behind the replies so far
//!   over the limit? cut off                     what the socket does not take is `unsent`
//! ```
//!
//! Invariants:
//! 1. `OUTPUT_PENDING` is among a client's signals exactly if its mail is not empty.
//! 2. Mail is sent in the order in which it was delivered.
//! 3. Mail and unsent replies together stay within the limit of the client's class, or the client
//!    is cut off and its mail forgotten.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::clock;
use crate::config::{OutputLimit, OutputLimits};
use cowherd_resp::{ProtocolVersion, ReplyWriter};

use super::client::{Client, OUTPUT_PENDING};

/// Room that the mail keeps while it is empty.
const KEEP: usize = 16 << 10;

/// A client's mail, and how much of what was sent to it is still unread.
#[derive(Default)]
pub struct Outbox {
    held: Mutex<Held>,
    /// Bytes of mail and of unsent replies, for those who only look.
    backlog: AtomicU64,
}

#[derive(Default)]
struct Held {
    mail: Vec<u8>,
    /// Bytes of replies that the socket did not take.
    unsent: u64,
    /// Since when the soft limit is exceeded, monotonic microseconds.
    over_since: Option<u64>,
    /// How many bytes there were when the client was cut off, if it was.
    cut_off_at: Option<u64>,
}

impl Held {
    fn total(&self) -> u64 {
        self.mail.len() as u64 + self.unsent
    }

    /// Whether the client has to be cut off.
    fn exceeds(&mut self, limit: &OutputLimit) -> bool {
        let total = self.total();
        if limit.hard > 0 && total > limit.hard {
            return true;
        }
        if limit.soft == 0 || total <= limit.soft {
            self.over_since = None;
            return false;
        }
        let now = clock::monotonic_us();
        let since = *self.over_since.get_or_insert(now);
        now.saturating_sub(since) > limit.soft_seconds.saturating_mul(1_000_000)
    }
}

impl Client {
    /// Appends what `write` writes to the client's mail, in the client's protocol version, and
    /// wakes its connection. A client that has left too much unread is cut off instead.
    pub fn push_output(&self, limits: &OutputLimits, write: impl FnOnce(&mut ReplyWriter)) {
        let mut held = self.outbox.held.lock();
        if held.cut_off_at.is_some() {
            return;
        }
        let was_empty = held.mail.is_empty();
        let mut reply = ReplyWriter::new(self.version());
        reply.out = std::mem::take(&mut held.mail);
        write(&mut reply);
        held.mail = reply.out;
        if held.mail.is_empty() {
            return;
        }
        if held.exceeds(self.limit(limits)) {
            self.cut_off(&mut held);
            drop(held);
            return self.kill();
        }
        self.outbox.backlog.store(held.total(), Ordering::Relaxed);
        if was_empty {
            self.signal(OUTPUT_PENDING);
        }
        drop(held);
        if was_empty {
            self.wake();
        }
    }

    /// Moves the mail behind the replies in `out`.
    #[cold]
    pub fn drain_output(&self, out: &mut Vec<u8>) {
        let mut held = self.outbox.held.lock();
        out.extend_from_slice(&held.mail);
        held.mail.clear();
        held.mail.shrink_to(KEEP);
        self.outbox.backlog.store(held.unsent, Ordering::Relaxed);
        self.unsignal(OUTPUT_PENDING);
    }

    /// Notes that `bytes` of replies wait for the socket; false if the client is cut off for that.
    pub fn set_unsent(&self, limits: &OutputLimits, bytes: u64) -> bool {
        let mut held = self.outbox.held.lock();
        held.unsent = bytes;
        if held.exceeds(self.limit(limits)) {
            self.cut_off(&mut held);
        }
        self.outbox.backlog.store(held.total(), Ordering::Relaxed);
        held.cut_off_at.is_none()
    }

    /// Cuts the client off if it has exceeded its soft limit for too long.
    pub fn check_backlog(&self, limits: &OutputLimits) {
        if self.backlog() == 0 {
            return;
        }
        let mut held = self.outbox.held.lock();
        if held.cut_off_at.is_none() && held.exceeds(self.limit(limits)) {
            self.cut_off(&mut held);
            drop(held);
            self.kill();
        }
    }

    /// Bytes that wait to be read by the client.
    pub fn backlog(&self) -> u64 {
        self.outbox.backlog.load(Ordering::Relaxed)
    }

    /// The protocol version that the client speaks.
    pub fn version(&self) -> ProtocolVersion {
        match self.protocol.load(Ordering::Relaxed) {
            3 => ProtocolVersion::Resp3,
            _ => ProtocolVersion::Resp2,
        }
    }

    fn limit<'l>(&self, limits: &'l OutputLimits) -> &'l OutputLimit {
        if self.is_subscriber() { &limits.pubsub } else { &limits.normal }
    }

    /// How many bytes waited to be read when the client was cut off for them, if it was.
    pub fn cut_off_at(&self) -> Option<u64> {
        self.outbox.held.lock().cut_off_at
    }

    #[cold]
    fn cut_off(&self, held: &mut Held) {
        held.cut_off_at = Some(held.total());
        held.mail = Vec::new();
        self.unsignal(OUTPUT_PENDING);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::clients::{ClientRegistry, ConnectionHandle, Origin};

    #[derive(Default)]
    struct Line {
        woken: AtomicU64,
        ended: AtomicU64,
    }

    impl ConnectionHandle for Line {
        fn close(&self) {
            self.ended.fetch_add(1, Ordering::Relaxed);
        }

        fn wake(self: Arc<Self>) {
            self.woken.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn connect() -> (Arc<Client>, Arc<Line>) {
        let line = Arc::new(Line::default());
        let origin = Origin { peer: None, local: None, path: "test".into(), fd: 7 };
        let hangup: Arc<dyn ConnectionHandle> = Arc::clone(&line) as _;
        (ClientRegistry::default().connect(origin, 0, hangup), line)
    }

    fn limits(hard: u64, soft: u64, soft_seconds: u64) -> OutputLimits {
        let normal = OutputLimit { hard, soft, soft_seconds };
        OutputLimits { normal, ..OutputLimits::default() }
    }

    #[test]
    fn mail_is_kept_in_order_and_wakes_once() {
        let (client, line) = connect();
        let limits = limits(0, 0, 0);
        for text in ["a", "b", "c"] {
            client.push_output(&limits, |reply| reply.simple(text));
        }
        assert_eq!(line.woken.load(Ordering::Relaxed), 1);
        assert_eq!((client.signals(), client.backlog()), (OUTPUT_PENDING, 12));
        let mut out = b"+first\r\n".to_vec();
        client.drain_output(&mut out);
        assert_eq!(out, b"+first\r\n+a\r\n+b\r\n+c\r\n");
        assert_eq!((client.signals(), client.backlog()), (0, 0));
        client.push_output(&limits, |reply| reply.simple("d"));
        assert_eq!(line.woken.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn mail_and_unsent_replies_count_together() {
        let (client, line) = connect();
        let limits = limits(20, 0, 0);
        assert!(client.set_unsent(&limits, 12));
        client.push_output(&limits, |reply| reply.simple("12345"));
        assert_eq!((client.backlog(), client.is_killed()), (20, false));
        client.push_output(&limits, |reply| reply.simple("x"));
        assert!(client.is_killed());
        assert_eq!(line.ended.load(Ordering::Relaxed), 1);
        let mut out = Vec::new();
        client.push_output(&limits, |reply| reply.simple("y"));
        client.drain_output(&mut out);
        assert_eq!(out, b"", "nothing is kept for a client that was cut off");
    }

    #[test]
    fn the_soft_limit_counts_from_when_it_was_exceeded() {
        let (client, _line) = connect();
        assert!(client.set_unsent(&limits(0, 10, 3600), 11));
        client.check_backlog(&limits(0, 10, 3600));
        assert!(!client.is_killed());
        // Time enough has passed if none is needed.
        let since = client.outbox.held.lock().over_since;
        client.outbox.held.lock().over_since = since.map(|since| since - 1);
        client.check_backlog(&limits(0, 10, 0));
        assert!(client.is_killed());
    }

    #[test]
    fn falling_below_the_soft_limit_forgives() {
        let (client, _line) = connect();
        let limits = limits(0, 10, 0);
        client.set_unsent(&limits, 11);
        assert!(client.outbox.held.lock().over_since.is_some());
        assert!(client.set_unsent(&limits, 10));
        assert!(client.outbox.held.lock().over_since.is_none());
    }
}

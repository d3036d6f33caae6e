//! Monitors: clients that are shown the requests of all clients (MONITOR).
//!
//! ```text
//! +1700000000.123456 [0 127.0.0.1:5000] "SET" "a" "b"
//!  seconds           |  address, unix:path or lua
//!                    database
//! ```
//!
//! Invariants:
//! 1. All monitors are shown the same lines in the same order, and the times in them do not
//!    decrease while the wall clock does not.
//! 2. Lines that are published in one call follow each other. `engine/monitor` publishes them while
//!    the shards of their commands are locked, so that the order of the lines is one in which the
//!    commands may have run one after the other.
//! 3. Locks are taken in the order monitors, output buffer. They may be taken while shards of the
//!    keyspace are locked.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::config::OutputLimits;
use crate::keyspace::DbIndex;

use super::client::Client;
use super::session::Session;

/// Bytes of lines above which [`MonitorLines::is_full`]: they are published in parts then, so that
/// a script that runs for ever takes no memory but that of the output buffers, which are bounded.
const MANY_BYTES: usize = 64 << 10;

/// The clients that are shown requests.
#[derive(Default)]
pub(crate) struct Monitors {
    clients: Mutex<Vec<Arc<Client>>>,
    /// Whether there are any.
    is_any: AtomicBool,
}

impl Monitors {
    /// Whether there are monitors; changes at any time.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }

    /// Makes the client of a session a monitor, which it was not.
    pub(crate) fn begin(&self, session: &mut Session) {
        session.is_monitor = true;
        session.client.is_monitor.store(true, Ordering::Relaxed);
        self.show_to(&session.client);
    }

    /// Makes the client of a session an ordinary one again.
    pub(crate) fn end(&self, session: &mut Session) {
        if std::mem::take(&mut session.is_monitor) {
            session.client.is_monitor.store(false, Ordering::Relaxed);
            self.hide_from(&session.client);
        }
    }

    /// Shows lines to a monitor from now on.
    pub(crate) fn show_to(&self, client: &Arc<Client>) {
        let mut clients = self.clients.lock();
        clients.retain(|other| other.id != client.id);
        clients.push(Arc::clone(client));
        self.is_any.store(true, Ordering::Relaxed);
    }

    /// Shows no more lines to a monitor, for instance as long as its replies are off.
    pub(crate) fn hide_from(&self, client: &Client) {
        let mut clients = self.clients.lock();
        clients.retain(|other| other.id != client.id);
        self.is_any.store(!clients.is_empty(), Ordering::Relaxed);
    }

    /// Pushes lines to all monitors, and empties `lines`.
    pub(crate) fn publish(&self, limits: &OutputLimits, lines: &mut MonitorLines) {
        let clients = self.clients.lock();
        // Read under the lock: see invariant 1.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut out = Vec::with_capacity(2 * lines.text.len());
        for line in lines.text.split_inclusive(|byte| *byte == b'\n') {
            // Writing to a vector cannot fail.
            let _ = write!(out, "+{}.{:06} ", now.as_secs(), now.subsec_micros());
            out.extend_from_slice(line);
        }
        lines.text.clear();
        for client in clients.iter() {
            client.push_output(limits, |pending| pending.out.extend_from_slice(&out));
        }
    }
}

/// Where a request comes from.
#[derive(Clone, Copy)]
pub(crate) enum RequestSource<'c> {
    /// A connection.
    Connection(&'c Client),
    /// A script.
    Script,
}

/// Lines that are not published yet, without their times.
#[derive(Default)]
pub(crate) struct MonitorLines {
    /// No line contains a line feed: those of the arguments are escaped.
    text: Vec<u8>,
}

impl MonitorLines {
    /// Adds a request that has run in database `db`.
    pub(crate) fn add<'a>(
        &mut self,
        db: DbIndex,
        source: RequestSource<'_>,
        args: impl Iterator<Item = &'a [u8]>,
    ) {
        let text = &mut self.text;
        // Writing to a vector cannot fail.
        let _ = match source {
            RequestSource::Script => write!(text, "[{db} lua]"),
            RequestSource::Connection(client) if client.is_unix => {
                let path = client.peer.strip_suffix(":0").unwrap_or(&client.peer);
                write!(text, "[{db} unix:{path}]")
            }
            RequestSource::Connection(client) => write!(text, "[{db} {}]", client.peer),
        };
        for arg in args {
            text.push(b' ');
            quote(text, arg);
        }
        text.extend_from_slice(b"\r\n");
    }

    /// Whether there are so many lines that they should be published before further ones come.
    pub(crate) fn is_full(&self) -> bool {
        self.text.len() >= MANY_BYTES
    }

    /// Bytes of the lines.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    /// Drops all lines behind the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.text.truncate(len);
    }
}

/// Appends an argument in double quotes. Bytes that are not printable ASCII are escaped.
fn quote(text: &mut Vec<u8>, arg: &[u8]) {
    text.push(b'"');
    for byte in arg {
        match byte {
            b'"' | b'\\' => text.extend_from_slice(&[b'\\', *byte]),
            b'\n' => text.extend_from_slice(b"\\n"),
            b'\r' => text.extend_from_slice(b"\\r"),
            b'\t' => text.extend_from_slice(b"\\t"),
            0x07 => text.extend_from_slice(b"\\a"),
            0x08 => text.extend_from_slice(b"\\b"),
            b' '..=b'~' => text.push(*byte),
            // Writing to a vector cannot fail.
            other => {
                let _ = write!(text, "\\x{other:02x}");
            }
        }
    }
    text.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::client::{ConnectionHandle, Origin};
    use super::super::registry::ClientRegistry;
    use super::*;

    struct NoConnection;

    impl ConnectionHandle for NoConnection {
        fn close(&self) {}
    }

    fn session(clients: &ClientRegistry, peer: Option<&str>) -> Session {
        let peer = peer.map(|address| address.parse::<SocketAddr>().unwrap());
        let origin = Origin { peer, local: None, path: "/run/c.sock".into(), fd: 3 };
        Session::new(clients.connect(origin, 0, Arc::new(NoConnection)), true)
    }

    /// The pending output of a monitor, with T in place of the times.
    fn shown(session: &Session) -> String {
        let mut out = Vec::new();
        session.client.drain_output(&mut out);
        let text = String::from_utf8(out).unwrap();
        let lines = text.split_inclusive("\r\n").map(|line| {
            let (time, rest) = line.strip_prefix('+').unwrap().split_once(' ').unwrap();
            let (seconds, micros) = time.split_once('.').unwrap();
            assert!(seconds.parse::<u64>().unwrap() > 1_700_000_000 && micros.len() == 6, "{time}");
            format!("T {rest}")
        });
        lines.collect()
    }

    fn publish(clients: &ClientRegistry, db: DbIndex, source: RequestSource<'_>, args: &[&[u8]]) {
        let mut lines = MonitorLines::default();
        lines.add(db, source, args.iter().copied());
        clients.monitors.publish(&OutputLimits::default(), &mut lines);
        assert_eq!(lines.len(), 0);
    }

    #[test]
    fn lines_name_database_source_and_arguments() {
        let clients = ClientRegistry::default();
        let mut monitor = session(&clients, None);
        let (four, six) =
            (session(&clients, Some("10.0.0.1:5")), session(&clients, Some("[::1]:6")));
        clients.monitors.begin(&mut monitor);
        publish(&clients, 0, RequestSource::Connection(&four.client), &[b"SET", b"a", b""]);
        publish(&clients, 3, RequestSource::Connection(&six.client), &[b"get", b"\"\\'"]);
        publish(&clients, 0, RequestSource::Connection(&monitor.client), &[b"\n\r\t\x07\x08\0"]);
        publish(&clients, 15, RequestSource::Script, &[b"\x0b\x7f\x80\xff~ "]);
        assert_eq!(
            shown(&monitor),
            "T [0 10.0.0.1:5] \"SET\" \"a\" \"\"\r\n\
             T [3 [::1]:6] \"get\" \"\\\"\\\\'\"\r\n\
             T [0 unix:/run/c.sock] \"\\n\\r\\t\\a\\b\\x00\"\r\n\
             T [15 lua] \"\\x0b\\x7f\\x80\\xff~ \"\r\n"
        );
    }

    #[test]
    fn monitors_come_and_go() {
        let clients = ClientRegistry::default();
        let (mut one, mut two) = (session(&clients, None), session(&clients, None));
        let monitors = &clients.monitors;
        monitors.end(&mut one);
        assert!(!monitors.is_any());
        monitors.begin(&mut one);
        monitors.begin(&mut two);
        publish(&clients, 0, RequestSource::Script, &[b"a"]);
        monitors.hide_from(&one.client);
        publish(&clients, 0, RequestSource::Script, &[b"b"]);
        monitors.show_to(&one.client);
        monitors.show_to(&one.client);
        publish(&clients, 0, RequestSource::Script, &[b"c"]);
        monitors.end(&mut one);
        assert!(monitors.is_any() && !one.is_monitor && two.is_monitor);
        publish(&clients, 0, RequestSource::Script, &[b"d"]);
        let line = |letter: char| format!("T [0 lua] \"{letter}\"\r\n");
        assert_eq!(shown(&one), ['a', 'c'].map(line).concat());
        assert_eq!(shown(&two), ['a', 'b', 'c', 'd'].map(line).concat());
        monitors.end(&mut two);
        assert!(!monitors.is_any());
    }
}

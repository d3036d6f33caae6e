//! A server without sockets and threads, for the unit tests of commands.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::clients::{BlockingMode, ConnectionHandle, Origin, Session};
use crate::config::{Config, LiveConfig};
use crate::keyspace::Keyspace;
use cowherd_arena::{PageKind, ReservedArena};
use cowherd_resp::{Args, Batch, ProtocolVersion, ReplyWriter, RequestLimits, RequestParser};

use super::call::{Call, Effect};
use super::error_reply::ErrorReply;
use super::shared::Shared;
use super::table::Command;

/// A keyspace, one client and a clock that is set by hand.
pub(super) struct TestServer {
    /// The state that all connections share.
    pub shared: Shared,
    session: RefCell<Session>,
    version: Cell<ProtocolVersion>,
    /// The wall clock in milliseconds.
    pub now: Cell<i64>,
    /// The effect of the last command.
    pub effect: RefCell<Effect>,
}

struct NoConnection;

impl ConnectionHandle for NoConnection {
    fn close(&self) {}
}

impl TestServer {
    pub(super) fn new() -> Self {
        Self::with(64 << 20, Config::default())
    }

    pub(super) fn with(capacity: u64, config: Config) -> Self {
        let blank = ReservedArena::reserve(PageKind::Small, capacity).unwrap();
        let keyspace = Keyspace::create(blank, 1).unwrap();
        let now = 1_700_000_000_000;
        let shared =
            Shared::new(keyspace, Arc::new(LiveConfig::new(config, None)), 1, now).unwrap();
        let origin = Origin { peer: None, local: None, path: "test".into(), fd: 7 };
        let client = shared.clients.connect(origin, now, Arc::new(NoConnection));
        Self {
            shared,
            session: RefCell::new(Session::new(client, true)),
            version: Cell::new(ProtocolVersion::Resp2),
            now: Cell::new(now),
            effect: RefCell::default(),
        }
    }

    /// Switches to RESP3.
    pub(super) fn resp3(self) -> Self {
        self.version.set(ProtocolVersion::Resp3);
        self
    }

    /// Ends the session of the client.
    pub(super) fn end_session(&self) {
        self.session.borrow_mut().discard(&self.shared.keyspace);
    }

    /// Runs an inline command, which may have quotes; returns the bytes of the reply as text.
    pub(super) fn run(&self, line: &str) -> String {
        let mut batch = Batch::new();
        let line = format!("{line}\r\n");
        RequestParser::new()
            .parse(line.as_bytes(), &RequestLimits::default(), &mut batch, 1)
            .unwrap();
        self.run_args(batch.request(0, line.as_bytes()))
    }

    /// Runs a command given as arguments.
    pub(super) fn run_args(&self, args: Args<'_>) -> String {
        let mut reply = ReplyWriter::new(self.version.get());
        let mut session = self.session.borrow_mut();
        match self.shared.table.resolve(&args) {
            None => reply.error_bytes(ErrorReply::unknown_command(&args).as_bytes()),
            Some(row) if !row.command.accepts(args.len()) => {
                reply.error_bytes(row.wrong_arity().as_bytes());
            }
            Some(row) => {
                let config = self.shared.config.current();
                let set = row.command.shards(&self.shared.keyspace, &args, None);
                let mut call = Call {
                    args,
                    reply: &mut reply,
                    session: &mut session,
                    shared: &self.shared,
                    config: &config,
                    shards: self.shared.keyspace.lock(set, self.now.get()),
                    blocking_mode: BlockingMode::Allowed,
                    row,
                    first_hash: None,
                    now: self.now.get(),
                    effect: Effect::None,
                };
                let answer = (row.command.handler)(&mut call);
                *self.effect.borrow_mut() = std::mem::take(&mut call.effect);
                drop(call);
                if let Err(error) = answer {
                    reply.out.clear();
                    reply.error_bytes(error.as_bytes());
                }
            }
        }
        self.version.set(reply.version);
        String::from_utf8_lossy(&reply.out).into_owned()
    }
}

/// Runs commands, and compares their replies without the last line end.
pub(super) fn follow(server: &TestServer, lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        assert_eq!(server.run(line), format!("{expected}\r\n"), "{line}");
    }
}

/// Runs a command; returns the bulk strings of its reply as words.
pub(super) fn words(server: &TestServer, line: &str) -> String {
    let reply = server.run(line);
    let words: Vec<&str> =
        reply.split("\r\n").filter(|l| !l.starts_with(['$', '*']) && !l.is_empty()).collect();
    words.join(" ")
}

/// Checks that commands with at least one argument refuse one argument less than they need.
pub(super) fn refuse_too_few(
    server: &TestServer,
    commands: impl IntoIterator<Item = &'static Command>,
) {
    for command in commands {
        let name = command.name;
        let error = format!("-ERR wrong number of arguments for '{name}' command\r\n");
        let few = vec!["1"; command.arity.unsigned_abs() - 2].join(" ");
        assert_eq!(server.run(&format!("{name} {few}")), error);
    }
}

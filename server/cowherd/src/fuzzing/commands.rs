//! Harness of the target `commands`: two clients send the commands that an input encodes, through
//! the request parser to a worker. No command may panic, replies must end with CRLF, and at the end
//! the keyspace must pass verification.
//!
//! An input is a sequence of commands. The first byte of a command selects the client, the next
//! two the row of the command table, the fourth the number of arguments. An argument begins with a
//! byte: an index into the vocabulary or, above its size, the number of input bytes that the
//! argument consists of. Commands that stop or delay the process, or fork, are excluded.

use std::sync::Arc;

use cowherd_arena::{PageKind, ReservedArena};
use cowherd_resp::{Batch, ProtocolVersion, ReplyWriter, RequestLimits, RequestParser};

use crate::clients::{ConnectionHandle, Origin, Session};
use crate::clock;
use crate::config::{Config, LiveConfig};
use crate::engine::{BatchOutcome, CheckpointScheduler, Engine, Shared, Suspender, Worker};
use crate::keyspace::Keyspace;

const EXCLUDED: &[&str] = &["shutdown", "save", "bgsave", "debug", "config|rewrite"];
/// Most arguments of one command.
const MAX_ARGUMENTS: usize = 8;
/// Words that commands understand; some are keys.
#[rustfmt::skip]
const VOCABULARY: &[&str] = &[
    "a", "b", "c", "d", "e", "f", "", "0", "1", "2", "3", "10", "-1", "-2", "100", "1.5", "inf",
    "nan", "(1", "[a", "-", "+", "*", "9223372036854775807", "-9223372036854775808", "4294967296",
    "NX", "XX", "GT", "LT", "CH", "INCR", "EX", "PX", "PERSIST", "KEEPTTL", "GET", "SET", "u8",
    "i64", "OVERFLOW", "SAT", "BYSCORE", "BYLEX", "REV", "LIMIT", "WITHSCORES", "WEIGHTS",
    "AGGREGATE", "COUNT", "MATCH", "FIELDS", "LEFT", "RIGHT", "BEFORE", "AFTER", "STORE", "BY",
    "ALPHA", "REPLACE", "MIN", "MAX", "MAXLEN", "STREAMS", "GROUP", "MKSTREAM", "$", ">", "0-1",
    "1-1", "ASYNC", "LEN", "IDX", "RANK", "FROMMEMBER", "FROMLONLAT", "BYRADIUS", "BYBOX", "m",
    "km", "ASC", "DESC", "ANY", "WITHDIST", "WITHCOORD", "WITHHASH", "STOREDIST", "13.36",
    "85.05112878", "GETREG", "DECODE", "TODENSE", "HYLL\x01\0\0\0\0\0\0\0\0\0\0\0",
];

struct NoConnection;

impl ConnectionHandle for NoConnection {
    fn close(&self) {}
}

struct TestClient {
    session: Session,
    version: ProtocolVersion,
}

impl TestClient {
    fn connect(shared: &Shared) -> Self {
        let origin = Origin { peer: None, local: None, path: "fuzz".into(), fd: 7 };
        let client = shared.clients.connect(origin, clock::wall_ms(), Arc::new(NoConnection));
        Self { session: Session::new(client, true), version: ProtocolVersion::Resp2 }
    }
}

/// Takes up to `len` bytes off the front of an input.
fn take<'i>(input: &mut &'i [u8], len: usize) -> &'i [u8] {
    let (taken, rest) = input.split_at(len.min(input.len()));
    *input = rest;
    taken
}

fn take_byte(input: &mut &[u8]) -> usize {
    take(input, 1).first().copied().map_or(0, usize::from)
}

fn take_argument(input: &mut &[u8]) -> Vec<u8> {
    let choice = take_byte(input);
    match VOCABULARY.get(choice) {
        Some(word) => word.as_bytes().to_vec(),
        None => take(input, choice - VOCABULARY.len()).to_vec(),
    }
}

fn encode(words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Runs the commands that `input` encodes against an empty keyspace.
///
/// # Panics
/// A command breaks an invariant.
pub fn run_commands(mut input: &[u8]) {
    // Small limits, so that collections of few elements change to their large encodings.
    let config = Config {
        save: Vec::new(),
        hash_max_listpack_entries: 2,
        set_max_listpack_entries: 2,
        set_max_intset_entries: 2,
        zset_max_listpack_entries: 2,
        hll_sparse_max_bytes: 32,
        ..Config::default()
    };
    let reserved = ReservedArena::reserve(PageKind::Small, 16 << 20).expect("memory");
    let keyspace = Keyspace::create(reserved, 1).expect("a keyspace");
    let live = Arc::new(LiveConfig::new(config, None));
    let shared = Arc::new(Shared::new(keyspace, live, 1, clock::wall_ms()).expect("a table"));
    let (scheduler, thread) = CheckpointScheduler::start(&shared).expect("a thread");
    let engine = Engine::new(Arc::clone(&shared), scheduler);
    let recorder = shared.telemetry.recorder(0).expect("a recorder");
    let mut worker = Worker::new(Arc::clone(&engine), recorder);
    let mut clients = [TestClient::connect(&shared), TestClient::connect(&shared)];
    while !input.is_empty() {
        let client = take_byte(&mut input) % clients.len();
        let row = take_byte(&mut input) + 256 * take_byte(&mut input);
        let row = &shared.table.rows()[row % shared.table.rows().len()];
        let count = take_byte(&mut input) % (MAX_ARGUMENTS + 1);
        let mut words: Vec<Vec<u8>> = row.name.split('|').map(|name| name.into()).collect();
        words.extend((0..count).map(|_| take_argument(&mut input)));
        if EXCLUDED.contains(&&*row.name) || words.len() > 1 && words[0] == b"config" {
            continue;
        }
        send(&mut worker, &shared, &mut clients[client], &encode(&words));
    }
    for client in &mut clients {
        worker.close_session(&mut client.session);
    }
    shared.keyspace.verify(1).expect("the keyspace passes verification");
    engine.checkpoint_scheduler().close();
    thread.join().expect("the scheduler's thread ends");
}

/// Runs one request. A blocked client times out at once, and a closed one connects again.
fn send(worker: &mut Worker, shared: &Shared, client: &mut TestClient, bytes: &[u8]) {
    let (mut batch, mut reply) = (Batch::new(), ReplyWriter::new(client.version));
    let consumed = RequestParser::new().parse(bytes, &RequestLimits::default(), &mut batch, 1);
    assert_eq!(consumed, Ok(bytes.len()));
    let outcome = loop {
        match worker.run(&mut client.session, &batch, bytes, &mut reply, Some(&Suspender::NEVER)) {
            BatchOutcome::Paused(..) => shared.clients.unpause(),
            outcome => break outcome,
        }
    };
    client.version = reply.version;
    if let Some(pending) = client.session.pending_reply.take() {
        worker.time_out(&pending);
    }
    client.session.client.drain_output(&mut reply.out);
    assert!(reply.out.is_empty() || reply.out.ends_with(b"\r\n"));
    if outcome == BatchOutcome::Close || client.session.client.is_killed() {
        worker.close_session(&mut client.session);
        shared.clients.disconnect(&client.session.client);
        *client = TestClient::connect(shared);
    }
}

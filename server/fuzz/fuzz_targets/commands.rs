//! Commands: two clients send what the input says, through the parser to a worker. Nothing panics,
//! replies are whole, and at the end so is the keyspace.
//!
//! An input is a row of commands. The first byte of each chooses the client, the second the command
//! from the table, the third how many words follow; each word begins with a byte: a number of a
//! word in the vocabulary, or, beyond that, how many bytes of the input are the word. What would
//! end or hold up the process, or forks, is left out.
#![no_main]

use std::sync::Arc;

use cowherd::clock;
use cowherd::config::{Config, LiveConfig};
use cowherd::engine::{Engine, ConnectionHandle, Origin, BatchOutcome, CheckpointScheduler, Session, Shared, Worker};
use cowherd::keyspace::Keyspace;
use cowherd_arena::{ReservedArena, PageKind};
use cowherd_resp::{Batch, ProtocolVersion, ReplyWriter, RequestLimits, RequestParser};
use libfuzzer_sys::fuzz_target;

const LEFT_OUT: &[&str] = &["shutdown", "save", "bgsave", "debug", "config|rewrite"];
/// Words that commands are likely to understand; keys are among them.
const WORDS: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "",
    "0",
    "1",
    "2",
    "3",
    "10",
    "-1",
    "-2",
    "100",
    "1.5",
    "inf",
    "nan",
    "(1",
    "[a",
    "-",
    "+",
    "*",
    "9223372036854775807",
    "-9223372036854775808",
    "4294967296",
    "NX",
    "XX",
    "GT",
    "LT",
    "CH",
    "INCR",
    "EX",
    "PX",
    "PERSIST",
    "KEEPTTL",
    "GET",
    "SET",
    "u8",
    "i64",
    "OVERFLOW",
    "SAT",
    "BYSCORE",
    "BYLEX",
    "REV",
    "LIMIT",
    "WITHSCORES",
    "WEIGHTS",
    "AGGREGATE",
    "COUNT",
    "MATCH",
    "FIELDS",
    "LEFT",
    "RIGHT",
    "BEFORE",
    "AFTER",
    "STORE",
    "BY",
    "ALPHA",
    "REPLACE",
    "MIN",
    "MAX",
    "MAXLEN",
    "STREAMS",
    "GROUP",
    "MKSTREAM",
    "$",
    ">",
    "0-1",
    "1-1",
    "ASYNC",
    "LEN",
    "IDX",
    "RANK",
];

struct Nobody;

impl ConnectionHandle for Nobody {
    fn close(&self) {}
}

struct Client {
    session: Session,
    version: ProtocolVersion,
}

fn connect(shared: &Shared) -> Client {
    let origin = Origin { peer: None, local: None, path: "fuzz".into(), fd: 7 };
    let client = shared.clients.connect(origin, clock::wall_ms(), Arc::new(Nobody));
    Client { session: Session::new(client, true), version: ProtocolVersion::Resp2 }
}

/// Takes bytes off the front of an input.
fn take<'i>(input: &mut &'i [u8], len: usize) -> &'i [u8] {
    let (taken, rest) = input.split_at(len.min(input.len()));
    *input = rest;
    taken
}

fn byte(input: &mut &[u8]) -> usize {
    take(input, 1).first().copied().map_or(0, usize::from)
}

fn word(input: &mut &[u8]) -> Vec<u8> {
    let choice = byte(input);
    match WORDS.get(choice) {
        Some(word) => word.as_bytes().to_vec(),
        None => take(input, choice - WORDS.len()).to_vec(),
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

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    // Values of few elements are large ones already.
    let config = Config {
        save: Vec::new(),
        hash_max_listpack_entries: 2,
        set_max_listpack_entries: 2,
        set_max_intset_entries: 2,
        zset_max_listpack_entries: 2,
        ..Config::default()
    };
    let blank = ReservedArena::reserve(PageKind::Small, 16 << 20).expect("memory");
    let keyspace = Keyspace::create(blank, 1).expect("a keyspace");
    let live = Arc::new(LiveConfig::new(config, None));
    let shared = Arc::new(Shared::new(keyspace, live, 1, clock::wall_ms()).expect("a table"));
    let (saver, thread) = CheckpointScheduler::start(&shared).expect("a thread");
    let engine = Engine::new(Arc::clone(&shared), saver);
    let recorder = shared.telemetry.recorder(0).expect("a recorder");
    let mut worker = Worker::new(Arc::clone(&engine), recorder);
    let mut clients = [connect(&shared), connect(&shared)];
    while !input.is_empty() {
        let client = byte(&mut input) % clients.len();
        let row = &shared.table.rows()[byte(&mut input) % shared.table.rows().len()];
        let count = byte(&mut input) % 9;
        let mut words: Vec<Vec<u8>> = row.name.split('|').map(|name| name.into()).collect();
        words.extend((0..count).map(|_| word(&mut input)));
        if LEFT_OUT.contains(&row.name.as_str()) || words.len() > 1 && words[0] == b"config" {
            continue;
        }
        send(&mut worker, &shared, &mut clients[client], &encode(&words));
    }
    for client in &mut clients {
        worker.close_session(&mut client.session);
    }
    shared.keyspace.verify(1).expect("a whole keyspace");
    engine.checkpoint_scheduler().close();
    thread.join().expect("the saver ends");
});

/// Runs a request; what waits gives up at once, and what is closed is opened again.
fn send(worker: &mut Worker, shared: &Shared, client: &mut Client, bytes: &[u8]) {
    let (mut batch, mut reply) = (Batch::new(), ReplyWriter::new(client.version));
    let consumed = RequestParser::new().parse(bytes, &RequestLimits::default(), &mut batch, 1);
    assert_eq!(consumed, Ok(bytes.len()));
    let outcome = loop {
        match worker.run(&mut client.session, &batch, bytes, &mut reply) {
            BatchOutcome::Paused(..) => shared.clients.unpause(),
            outcome => break outcome,
        }
    };
    client.version = reply.version;
    if let Some(waiter) = client.session.pending_reply.take() {
        worker.time_out(&waiter);
    }
    client.session.client.drain_output(&mut reply.out);
    assert!(reply.out.is_empty() || reply.out.ends_with(b"\r\n"));
    if outcome == BatchOutcome::Close || client.session.client.is_killed() {
        worker.close_session(&mut client.session);
        shared.clients.disconnect(&client.session.client);
        *client = connect(shared);
    }
}

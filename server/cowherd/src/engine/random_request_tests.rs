//! Random requests for every command of the table, through the parser and a worker: no command
//! panics, every reply is well formed, and the keyspace passes verification.
//!
//! Most requests follow the command's syntax with words from a small vocabulary, so that they work
//! on the same keys and values; some have too many or too few words, and some are random words.

use std::sync::Arc;
use std::thread::JoinHandle;

use tempfile::TempDir;

use crate::clients::{ConnectionHandle, KILLED, Origin, ReplyMode, Session};
use crate::clock;
use crate::commands::{ArgumentChooser, generate_request};
use crate::config::{Config, DebugCommand, LiveConfig, MaxmemoryPolicy};
use crate::keyspace::Keyspace;
use cowherd_arena::{PageKind, ReservedArena};
use cowherd_resp::{Batch, ProtocolVersion, ReplyWriter, RequestLimits, RequestParser};

use super::{BatchOutcome, CheckpointScheduler, Engine, Shared, Suspender, Worker};

const CLIENTS: usize = 3;
const REQUESTS: usize = 1500;

/// Commands, or commands with a certain word, that would stop or delay the process, and why.
const EXCLUDED: &[(&str, Option<&str>, &str)] = &[
    ("shutdown", None, "ends the server"),
    ("save", None, "forks, and after a fork only a single-threaded test process may continue"),
    ("bgsave", None, "as SAVE"),
    ("debug", Some("sleep"), "sleeps with all shards locked"),
    ("debug", Some("reload"), "writes an image"),
    ("config", Some("rewrite"), "writes to the folder"),
];

const KEYS: [&str; 14] =
    ["s1", "s2", "h1", "h2", "l1", "l2", "t1", "t2", "z1", "z2", "x1", "x2", "b1", "new"];
const NUMBERS: [&str; 22] = [
    "0",
    "1",
    "2",
    "3",
    "7",
    "10",
    "63",
    "64",
    "100",
    "-1",
    "-2",
    "-7",
    "1000",
    "4294967295",
    "4294967296",
    "2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "-9223372036854775807",
    "18446744073709551615",
    "9223372036854775808",
    "01",
];
const FLOATS: [&str; 16] = [
    "0", "1", "-1", "0.5", "1e3", "-2.75", "3", "10", "inf", "-inf", "+inf", "nan", "1e400",
    "1e-300", "0x10", "(1.5",
];
const TEXTS: [&str; 16] = [
    "",
    "a",
    "b",
    "c",
    "d",
    "field",
    "other",
    "12",
    "-5",
    "007",
    "[a",
    "(c",
    "-",
    "+",
    "*",
    "\0\r\n\x7f\u{fffd}",
];
const PATTERNS: [&str; 8] = ["*", "h*", "?1", "[a-z]1", "[^", "\\", "s\\1", "nothing"];
const DIRECTIVES: [(&str, &str); 8] = [
    ("hash-max-listpack-entries", "3"),
    ("set-max-intset-entries", "2"),
    ("zset-max-listpack-entries", "0"),
    ("list-max-listpack-size", "2"),
    ("list-max-listpack-size", "-2"),
    ("notify-keyspace-events", "KEA"),
    ("maxmemory-policy", "volatile-lru"),
    ("maxmemory-samples", "1"),
];
/// Requests that create values of all types.
const SETUP: [&str; 16] = [
    "SET s1 12",
    "SET s2 value",
    "SETRANGE b1 900 x",
    "HSET h1 field 1 a b",
    "HSET h2 a 1 b 2 c 3 d 4",
    "HEXPIRE h1 1000 FIELDS 1 field",
    "RPUSH l1 a b c",
    "RPUSH l2 1 2 3 a a a",
    "SADD t1 1 2 3",
    "SADD t2 a b c 12",
    "ZADD z1 1 a 2 b 3 c",
    "ZADD z2 0 a 0 b 0 c 0 d",
    "EXPIRE s2 1000",
    "XADD x1 1-1 field a",
    "XADD x2 5-0 a b",
    "XGROUP CREATE x1 a 0",
];

/// A random generator, and the group of the command for which it chooses arguments.
struct RandomChooser {
    random: fastrand::Rng,
    group: &'static str,
}

impl RandomChooser {
    fn one_of(&mut self, words: &[&str]) -> Vec<u8> {
        words[self.below(words.len())].into()
    }

    fn key(&mut self) -> Vec<u8> {
        let initial = match self.group {
            "string" => 's',
            "hash" => 'h',
            "list" => 'l',
            "set" => 't',
            "sorted-set" => 'z',
            "stream" => 'x',
            "bitmap" => 'b',
            _ => '?',
        };
        let fitting: Vec<&str> = KEYS.into_iter().filter(|key| key.starts_with(initial)).collect();
        if fitting.is_empty() || self.below(6) == 0 {
            self.one_of(&KEYS)
        } else {
            self.one_of(&fitting)
        }
    }

    fn text(&mut self) -> Vec<u8> {
        match self.below(12) {
            0 => vec![b'x'; self.below(3000)],
            1 => self.one_of(&NUMBERS),
            _ => self.one_of(&TEXTS),
        }
    }

    fn anything(&mut self) -> Vec<u8> {
        match self.below(5) {
            0 => self.key(),
            1 => self.one_of(&NUMBERS),
            2 => self.one_of(&FLOATS),
            3 => self.one_of(&[
                "MATCH",
                "COUNT",
                "LIMIT",
                "GET",
                "STORE",
                "BY",
                "FIELDS",
                "WITHSCORES",
            ]),
            _ => self.text(),
        }
    }
}

impl ArgumentChooser for RandomChooser {
    fn below(&mut self, bound: usize) -> usize {
        self.random.usize(..bound)
    }

    fn word(&mut self, kind: &str, name: &str) -> Vec<u8> {
        match (self.below(20), kind, name) {
            (0, ..) => self.anything(),
            (_, "key", _) => self.key(),
            (_, _, "numkeys" | "numfields" | "db" | "index") => self.one_of(&NUMBERS[1..4]),
            (_, _, "stop" | "end" | "start") => {
                self.one_of(&["0", "1", "-1", "3", "-3", "(1", "+"])
            }
            (_, _, "timeout") => self.one_of(&["0", "0.01", "5"]),
            (_, _, "min" | "max") if self.below(2) == 0 => self.text(),
            (_, _, "encoding") => self.one_of(&["u8", "i16", "u63", "i64", "u64", "i0"]),
            (_, _, "command" | "arg") => self.one_of(&["get", "zadd", "xread", "s1", "sort"]),
            (_, "integer" | "unix-time", _) => self.one_of(&NUMBERS),
            (_, "double", _) | (_, _, "score" | "min" | "max") => self.one_of(&FLOATS),
            (_, "pattern", _) => self.one_of(&PATTERNS),
            _ => self.text(),
        }
    }
}

struct NoConnection;

impl ConnectionHandle for NoConnection {
    fn close(&self) {}
}

struct TestClient {
    session: Session,
    version: ProtocolVersion,
    parser: RequestParser,
}

struct TestEngine {
    engine: Arc<Engine>,
    worker: Worker,
    clients: Vec<TestClient>,
    checkpoint_thread: Option<JoinHandle<()>>,
    _folder: TempDir,
}

impl TestEngine {
    fn new(config: Config, capacity: u64) -> Self {
        let folder = TempDir::new().unwrap();
        let config = Config { dir: folder.path().to_owned(), save: Vec::new(), ..config };
        let keyspace =
            Keyspace::create(ReservedArena::reserve(PageKind::Small, capacity).unwrap(), 1)
                .unwrap();
        let live = Arc::new(LiveConfig::new(config, None));
        let shared = Arc::new(Shared::new(keyspace, live, 1, clock::wall_ms()).unwrap());
        let (checkpoint_thread, thread) = CheckpointScheduler::start(&shared).unwrap();
        let engine = Engine::new(shared, checkpoint_thread);
        let worker =
            Worker::new(Arc::clone(&engine), engine.shared().telemetry.recorder(0).unwrap());
        let mut engine = Self {
            engine,
            worker,
            clients: Vec::new(),
            checkpoint_thread: Some(thread),
            _folder: folder,
        };
        for _ in 0..CLIENTS {
            let client = engine.connect();
            engine.clients.push(client);
        }
        engine
    }

    fn connect(&self) -> TestClient {
        let origin = Origin { peer: None, local: None, path: "test".into(), fd: 7 };
        let client =
            self.engine.shared().clients.connect(origin, clock::wall_ms(), Arc::new(NoConnection));
        let (session, version) = (Session::new(client, true), ProtocolVersion::Resp2);
        TestClient { session, version, parser: RequestParser::new() }
    }

    fn reconnect(&mut self, number: usize) {
        let new = self.connect();
        let mut old = std::mem::replace(&mut self.clients[number], new);
        self.worker.close_session(&mut old.session);
        self.engine.shared().clients.disconnect(&old.session.client);
    }

    /// Sends a request and checks its replies.
    fn send(&mut self, number: usize, words: &[Vec<u8>]) {
        let shared = Arc::clone(self.engine.shared());
        let client = &mut self.clients[number];
        let bytes = encode(words);
        let (mut batch, mut reply) = (Batch::new(), ReplyWriter::new(client.version));
        let consumed = client.parser.parse(&bytes, &RequestLimits::default(), &mut batch, 1);
        assert_eq!(consumed, Ok(bytes.len()), "{}", show(words));
        let before = (client.version, is_plain(&client.session));
        let outcome = loop {
            let outcome = self.worker.run(
                &mut client.session,
                &batch,
                &bytes,
                &mut reply,
                Some(&Suspender::NEVER),
            );
            match outcome {
                BatchOutcome::Paused(..) => shared.clients.unpause(),
                outcome => break outcome,
            }
        };
        client.version = reply.version;
        let is_resp3 =
            before.0 == ProtocolVersion::Resp3 || client.version == ProtocolVersion::Resp3;
        let replies = count_values(&reply.out, is_resp3).unwrap_or_else(|problem| {
            panic!("{}: {problem}: {:?}", show(words), String::from_utf8_lossy(&reply.out))
        });
        // These commands reply once for each channel, also in a transaction.
        let name = words[0].to_ascii_lowercase();
        let is_subscription = name.ends_with(b"subscribe") || name == b"exec";
        let is_plain = before.1 && is_plain(&client.session) && outcome == BatchOutcome::Done;
        let is_plain = is_plain && !is_subscription;
        assert!(!is_plain || replies == 1, "{}: {replies} replies", show(words));
        self.process_signals();
        if outcome == BatchOutcome::Close {
            self.reconnect(number);
        }
    }

    /// Drains the clients' pending output and reconnects killed clients.
    fn process_signals(&mut self) {
        for number in 0..CLIENTS {
            let client = &mut self.clients[number];
            let mut pushed = Vec::new();
            client.session.client.drain_output(&mut pushed);
            count_values(&pushed, client.version == ProtocolVersion::Resp3).unwrap();
            if client
                .session
                .pending_reply
                .as_ref()
                .is_some_and(|wait| wait.is_over(&client.session.client))
            {
                client.session.pending_reply = None;
            }
            if client.session.client.signals() & KILLED != 0 {
                self.reconnect(number);
            }
        }
    }

    /// Whether a client is not blocked; with `time_out` a blocked client times out first.
    fn is_free(&mut self, number: usize, time_out: bool) -> bool {
        if time_out && let Some(waiter) = self.clients[number].session.pending_reply.clone() {
            self.worker.time_out(&waiter);
            self.process_signals();
        }
        self.clients[number].session.pending_reply.is_none()
    }

    /// Ends a client's transaction, subscriptions or monitoring, in which most commands are
    /// rejected.
    fn leave_mode(&mut self, number: usize) {
        let session = &self.clients[number].session;
        if session.queue.is_some() {
            self.send(number, &[b"EXEC".into()]);
        } else if !is_plain(session) {
            self.reconnect(number);
        }
    }

    fn end(mut self) {
        for number in 0..CLIENTS {
            self.reconnect(number);
        }
        let shared = Arc::clone(self.engine.shared());
        shared.keyspace.verify(1).unwrap();
        self.engine.checkpoint_scheduler().close();
        self.checkpoint_thread.take().unwrap().join().unwrap();
    }
}

/// Whether a client gets exactly one reply for each command.
fn is_plain(session: &Session) -> bool {
    session.subscriptions.is_none()
        && !session.is_monitor
        && session.reply_mode == ReplyMode::On
        && !session.skip_reply
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

fn show(words: &[Vec<u8>]) -> String {
    let shown =
        |word: &Vec<u8>| format!("{:?}", String::from_utf8_lossy(&word[..word.len().min(80)]));
    words.iter().map(shown).collect::<Vec<_>>().join(" ")
}

/// The number of replies in `bytes` without pushed messages; an error unless all bytes are replies.
fn count_values(mut bytes: &[u8], is_resp3: bool) -> Result<usize, String> {
    let mut count = 0;
    while !bytes.is_empty() {
        count += usize::from(bytes[0] != b'>');
        bytes = skip_value(bytes, is_resp3)?;
    }
    Ok(count)
}

/// The bytes behind the first reply.
fn skip_value(bytes: &[u8], is_resp3: bool) -> Result<&[u8], String> {
    let end = bytes.windows(2).position(|two| two == b"\r\n").ok_or("a line does not end")?;
    let (line, mut rest) = (&bytes[..end], &bytes[end + 2..]);
    let kind = *line.first().ok_or("an empty line")?;
    let text = std::str::from_utf8(&line[1..]).unwrap_or_default();
    let number = || text.parse::<i64>().map_err(|_| format!("no number: {text:?}"));
    if !is_resp3 && !b"+-:$*".contains(&kind) {
        return Err(format!("a type of RESP3: {}", char::from(kind)));
    }
    let items = match kind {
        b'+' | b'-' | b'(' => 0,
        b':' => number().map(|_| 0)?,
        b',' => text.parse::<f64>().map(|_| 0).map_err(|_| format!("no double: {text:?}"))?,
        b'#' if text == "t" || text == "f" => 0,
        b'_' if text.is_empty() => 0,
        b'$' | b'*' if text == "-1" => 0,
        b'$' | b'=' => {
            let len = usize::try_from(number()?).map_err(|_| "a length below zero")?;
            if rest.len() < len + 2 || &rest[len..len + 2] != b"\r\n" {
                return Err(format!("a string is not of {len} bytes"));
            }
            rest = &rest[len + 2..];
            0
        }
        b'*' | b'~' | b'>' => usize::try_from(number()?).map_err(|_| "a length below zero")?,
        b'%' => 2 * usize::try_from(number()?).map_err(|_| "a length below zero")?,
        other => return Err(format!("no type: {}", char::from(other))),
    };
    for _ in 0..items {
        // A message that a transaction publishes to its own client is among the replies.
        while is_resp3 && rest.first() == Some(&b'>') && kind != b'>' {
            rest = skip_value(rest, is_resp3)?;
        }
        rest = skip_value(rest, is_resp3)?;
    }
    Ok(rest)
}

/// A request for a random command of the table; `None` if the command is excluded.
fn random_request(shared: &Shared, random: &mut RandomChooser) -> Option<Vec<Vec<u8>>> {
    let rows = shared.table.rows();
    let row = &rows[random.below(rows.len())];
    random.group = row.command.group.name();
    let mut words = generate_request(row, random);
    if row.name == "config|set" {
        let (directive, value) = DIRECTIVES[random.below(DIRECTIVES.len())];
        words = vec![b"config".into(), b"set".into(), directive.into(), value.into()];
    }
    if words.len() == 1 {
        let count = row.command.arity.unsigned_abs() - 1;
        let more = if row.command.arity < 0 { random.below(5) } else { 0 };
        words.extend((0..count + more).map(|_| random.anything()));
        if row.command.keys.first > 0 && row.command.keys.first < words.len() {
            words[row.command.keys.first] = random.key();
        }
    }
    let is_wrong = random.below(12) == 0;
    if is_wrong {
        while random.below(3) > 0 {
            let at = 1 + random.below(words.len());
            let word = random.anything();
            words.insert(at.min(words.len()), word);
        }
        if random.below(2) == 0 && words.len() > 1 {
            words.remove(1 + random.below(words.len() - 1));
        }
    }
    let is_excluded = EXCLUDED.iter().any(|(command, word, _)| {
        words[0].eq_ignore_ascii_case(command.as_bytes())
            && word.is_none_or(|word| words.iter().any(|w| w.eq_ignore_ascii_case(word.as_bytes())))
    });
    (!is_excluded).then_some(words)
}

/// Fills the arena, then deletes some keys so that a little memory is free.
fn fill(engine: &mut TestEngine) {
    let filler = |number: usize| format!("filler:{number}").into_bytes();
    let mut number = 0;
    for (size, count) in [(2600, 1000), (1500, 1000), (700, 2000), (100, 2000), (10, 2000)] {
        for _ in 0..count {
            engine.send(0, &[b"SET".into(), filler(number), vec![b'x'; size]]);
            number += 1;
        }
    }
    for freed in (0..number).step_by(50) {
        engine.send(0, &[b"DEL".into(), filler(freed)]);
    }
}

fn run(seed: u64, policy: Option<MaxmemoryPolicy>) {
    let debug = DebugCommand::Yes;
    let maxmemory_policy = policy.unwrap_or(MaxmemoryPolicy::Noeviction);
    let config = Config { enable_debug_command: debug, maxmemory_policy, ..Config::default() };
    let mut engine = TestEngine::new(config, if policy.is_some() { 8 << 20 } else { 64 << 20 });
    let mut random = RandomChooser { random: fastrand::Rng::with_seed(seed), group: "" };
    let shared = Arc::clone(engine.engine.shared());
    let begin = |engine: &mut TestEngine| {
        for line in SETUP {
            engine.send(0, &line.split(' ').map(|word| word.into()).collect::<Vec<_>>());
        }
    };
    begin(&mut engine);
    if policy.is_some() {
        fill(&mut engine);
    }
    for number in 0..REQUESTS {
        let client = random.below(CLIENTS);
        let time_out = random.below(4) == 0;
        if !engine.is_free(client, time_out) {
            continue;
        }
        if number.is_multiple_of(150) && engine.clients[0].session.pending_reply.is_none() {
            engine.reconnect(0);
            begin(&mut engine);
        }
        if random.below(4) == 0 {
            engine.leave_mode(client);
        }
        let Some(words) = random_request(&shared, &mut random) else { continue };
        // In a transaction CLIENT REPLY truncates the reply of EXEC, as in Redis.
        let is_cutting = words.get(1).is_some_and(|word| word.eq_ignore_ascii_case(b"reply"));
        if !is_cutting || engine.clients[client].session.queue.is_none() {
            engine.send(client, &words);
        }
    }
    engine.end();
}

/// Number of seeds that each test runs with.
fn rounds() -> u64 {
    std::env::var("COWHERD_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

#[test]
fn random_requests_keep_all_invariants() {
    (0..rounds()).for_each(|seed| run(seed, None));
}

#[test]
fn random_requests_keep_all_invariants_when_memory_is_short() {
    let policies =
        [MaxmemoryPolicy::AllkeysLru, MaxmemoryPolicy::Noeviction, MaxmemoryPolicy::VolatileTtl];
    for seed in 0..rounds().div_ceil(5) {
        for policy in policies {
            run(1 << 32 | seed, Some(policy));
        }
    }
}

/// Every excluded name is the name of a command.
#[test]
fn excluded_commands_are_in_the_table() {
    let engine = TestEngine::new(Config::default(), 64 << 20);
    for (command, ..) in EXCLUDED {
        assert!(engine.engine.shared().table.command(command.as_bytes()).is_some(), "{command}");
    }
    engine.end();
}

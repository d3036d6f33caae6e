//! Comparison with Debian's redis-server: for the same commands, the bytes of each reply must be
//! equal, in RESP2 and RESP3, and so must the keyspace after each section.
//!
//! `peer/*.txt` contain the commands, one per line, with the quotes of redis-cli. A line that
//! begins with `##` opens a section on two empty servers. A word before a command relaxes the
//! comparison:
//!
//! | word | meaning |
//! |---|---|
//! | `near N:` | both replies are numbers that differ by at most N |
//! | `times:` | the replies are equal except for times and idle times, which are close |
//! | `unordered:` | the replies have the same elements, in any order |
//! | `shape:` | the replies have the same type |
//! | `doubles:` | the replies are equal, but numbers may have more or fewer digits |
//! | `scan:` | a complete scan with these arguments after the cursor finds the same |
//! | `gone:` | the command is repeated until the reply of each server is null or 0 |
//! | `eachkey:` | the command is sent once for each key, in order of the keys |
//! | `newer:` | the line is sent to a Redis that is newer than Debian's only |
//! | `older:` | the line is sent to Debian's only |
//! | `fill:` | values are set until the server has no memory left |
//!
//! A line that begins with `>` is sent by a client of its own, which then blocks; `<` compares the
//! replies to the client that has been blocked for longest.

use anyhow::{Context, Result, bail, ensure};
use client_tests::peer::Peer;
use client_tests::server::Server;
use client_tests::times::{are_near, same_but_for_times};
use client_tests::wait::{send_blocking, wait_until};
use client_tests::wire::{RawConnection, show};
use client_tests::words::words;
use client_tests::{TestResult, skip};
use redis::Value;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Commands whose replies may differ, with the reason. They are sent nevertheless.
const ALLOWED: &[(&str, &str)] = &[
    ("HELLO", "names the server, its version and the connection"),
    ("HELLO 2", "names the server, its version and the connection"),
    ("HELLO 3 SETNAME greeted", "names the server, its version and the connection"),
    ("CLIENT SETINFO LIB-NAME test", "younger than Redis 7.0"),
    ("CLIENT SETINFO LIB-VER 1.0", "younger than Redis 7.0"),
    ("XREAD STREAMS s 0 1", "Redis 8 names the ID + in the error"),
    ("XREAD STREAMS s t 0", "Redis 8 names the ID + in the error"),
    ("CONFIG SET port x", "the port is fixed at start"),
    ("OBJECT REFCOUNT shared", "Redis shares the objects of small integers"),
];

const MODES: &[&str] = &[
    "near ",
    "unordered",
    "shape",
    "doubles",
    "scan",
    "gone",
    "eachkey",
    "times",
    "newer",
    "older",
    "fill",
];

const KEYS_SCRIPT: &str = include_str!("peer/keys.txt");
const STRINGS_SCRIPT: &str = include_str!("peer/strings.txt");
const BITS_SCRIPT: &str = include_str!("peer/bits.txt");
const LISTS_SCRIPT: &str = include_str!("peer/lists.txt");
const HASHES_SCRIPT: &str = include_str!("peer/hashes.txt");
const SORTED_SETS_SCRIPT: &str = include_str!("peer/sorted_sets.txt");
const SETS_SCRIPT: &str = include_str!("peer/sets.txt");
const HYPERLOGLOG_SCRIPT: &str = include_str!("peer/hyperloglog.txt");
const GEO_SCRIPT: &str = include_str!("peer/geo.txt");
const STREAMS_SCRIPT: &str = include_str!("peer/streams.txt");
const CONNECTION_SCRIPT: &str = include_str!("peer/connection.txt");
const TRANSACTIONS_SCRIPT: &str = include_str!("peer/transactions.txt");
const SCRIPTS_SCRIPT: &str = include_str!("peer/scripts.txt");
const FUNCTIONS_SCRIPT: &str = include_str!("peer/functions.txt");
const COMMAND_SCRIPT: &str = include_str!("peer/command.txt");
const CHANGES_SCRIPT: &str = include_str!("peer/changes.txt");
const ADMIN_SCRIPT: &str = include_str!("peer/admin.txt");
const CLUSTER_SCRIPT: &str = include_str!("peer/cluster.txt");
const DEBUG_SCRIPT: &str = include_str!("peer/debug.txt");

#[test]
fn keys_in_commands_are_found_as_in_newer_redis() -> TestResult {
    compare_with(Peer::start_newer()?, COMMAND_SCRIPT)
}

/// Each line of the script must count as many changes for `save` as in Redis.
#[test]
fn changes_are_counted_as_in_newer_redis() -> TestResult {
    compare_in(Peer::start_newer()?, CHANGES_SCRIPT, true)
}

#[test]
fn the_changes_of_every_writing_command_are_compared() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    let list = raw.call(&["COMMAND", "LIST", "FILTERBY", "ACLCAT", "write"])?;
    let list: Vec<String> = redis::from_redis_value(list)?;
    ensure!(list.len() > 100, "only {list:?} write");
    for command in list {
        let words = command.to_uppercase().replace('|', " ");
        let is_sent = |line: &str| {
            let command = line.trim_start_matches("> ").split("newer: ").last().unwrap_or(line);
            command == words || command.starts_with(&format!("{words} "))
        };
        ensure!(CHANGES_SCRIPT.lines().any(is_sent), "the script has no {words}");
    }
    Ok(())
}

/// Tests of a script, against Debian's Redis and against a newer one.
macro_rules! scripts_behave_as_in_redis {
    ($($script:ident: $name:ident, $newer:ident;)*) => { $(
        #[test]
        fn $name() -> TestResult {
            compare($script)
        }

        #[test]
        fn $newer() -> TestResult {
            compare_with(Peer::start_newer()?, $script)
        }
    )* };
}

scripts_behave_as_in_redis! {
    KEYS_SCRIPT: keys_behave_as_in_redis, keys_behave_as_in_newer_redis;
    STRINGS_SCRIPT: strings_behave_as_in_redis, strings_behave_as_in_newer_redis;
    BITS_SCRIPT: bits_behave_as_in_redis, bits_behave_as_in_newer_redis;
    LISTS_SCRIPT: lists_behave_as_in_redis, lists_behave_as_in_newer_redis;
    HASHES_SCRIPT: hashes_behave_as_in_redis, hashes_behave_as_in_newer_redis;
    SORTED_SETS_SCRIPT: sorted_sets_behave_as_in_redis, sorted_sets_behave_as_in_newer_redis;
    SETS_SCRIPT: sets_behave_as_in_redis, sets_behave_as_in_newer_redis;
    HYPERLOGLOG_SCRIPT: hyperloglogs_behave_as_in_redis, hyperloglogs_behave_as_in_newer_redis;
    GEO_SCRIPT: geo_commands_behave_as_in_redis, geo_commands_behave_as_in_newer_redis;
    CONNECTION_SCRIPT: connections_behave_as_in_redis, connections_behave_as_in_newer_redis;
    TRANSACTIONS_SCRIPT: transactions_behave_as_in_redis, transactions_behave_as_in_newer_redis;
    SCRIPTS_SCRIPT: scripts_behave_as_in_redis, scripts_behave_as_in_newer_redis;
    FUNCTIONS_SCRIPT: functions_behave_as_in_redis, functions_behave_as_in_newer_redis;
    ADMIN_SCRIPT: administration_behaves_as_in_redis, administration_behaves_as_in_newer_redis;
    CLUSTER_SCRIPT: cluster_commands_behave_as_in_redis, cluster_commands_behave_as_in_newer_redis;
    DEBUG_SCRIPT: debug_behaves_as_in_redis, debug_behaves_as_in_newer_redis;
}

/// Consumers and lags are those of later versions than Debian's.
#[test]
fn streams_behave_as_in_newer_redis() -> TestResult {
    compare_with(Peer::start_newer()?, STREAMS_SCRIPT)
}

#[test]
fn every_allowed_difference_occurs_in_a_script() -> TestResult {
    let scripts = [
        KEYS_SCRIPT,
        STRINGS_SCRIPT,
        BITS_SCRIPT,
        LISTS_SCRIPT,
        HASHES_SCRIPT,
        SETS_SCRIPT,
        SORTED_SETS_SCRIPT,
        STREAMS_SCRIPT,
        CONNECTION_SCRIPT,
        SCRIPTS_SCRIPT,
        FUNCTIONS_SCRIPT,
        ADMIN_SCRIPT,
        CLUSTER_SCRIPT,
        DEBUG_SCRIPT,
    ];
    for (line, _) in ALLOWED {
        let used = scripts.iter().any(|script| script.lines().any(|known| known == *line));
        ensure!(used, "no script has the line {line}");
    }
    Ok(())
}

/// One connection to each server.
struct Pair<'s> {
    peer: &'s Peer,
    server: &'s Server,
    protocol: &'s str,
    redis: RawConnection,
    cowherd: RawConnection,
    /// The clients that wait for a reply.
    blocked: VecDeque<[RawConnection; 2]>,
    /// Whether the number of changes is compared after each line.
    compares_changes: bool,
    /// The numbers of changes after the last line.
    changes: [u64; 2],
}

type Arguments = Vec<Vec<u8>>;

fn compare(script: &str) -> TestResult {
    compare_with(Peer::start()?, script)
}

fn compare_with(peer: Option<Peer>, script: &str) -> TestResult {
    compare_in(peer, script, false)
}

fn compare_in(peer: Option<Peer>, script: &str, compares_changes: bool) -> TestResult {
    let Some(peer) = peer else { skip!("the redis-server to compare with is not installed") };
    let server = Server::start()?;
    let mut differences = Vec::new();
    let mut count = 0;
    for protocol in ["2", "3"] {
        let mut pair = Pair::connect(&peer, &server, protocol, compares_changes)?;
        let mut section = String::new();
        let lines = script.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
        for (number, line) in lines.chain([(0, "## end")]) {
            let mut note = |problem: anyhow::Error| {
                let place = format!("RESP{protocol}, line {number} ({section}): {line}");
                differences.push(format!("{place}\n    {problem:#}"));
            };
            if let Some(title) = line.strip_prefix("##") {
                if let Err(problem) = pair.same_state() {
                    note(problem.context("the states differ at the end of the section"));
                }
                pair = Pair::connect(&peer, &server, protocol, compares_changes)?;
                section = title.trim().to_owned();
            } else if !line.is_empty() {
                count += 1;
                if let Err(problem) = pair.same_reply(line) {
                    note(problem);
                }
                if let Err(problem) = pair.same_changes() {
                    note(problem);
                }
            }
        }
    }
    let shown = differences.join("\n");
    ensure!(differences.is_empty(), "{} of {count} replies differ:\n{shown}", differences.len());
    ensure!(count > 50, "the script has only {count} commands");
    Ok(())
}

impl<'s> Pair<'s> {
    /// Opens connections to both servers, and deletes all keys, scripts, functions and counts.
    fn connect(
        peer: &'s Peer,
        server: &'s Server,
        protocol: &'s str,
        compares_changes: bool,
    ) -> Result<Self> {
        let (redis, cowherd) = (peer.raw()?, server.raw()?);
        let (blocked, changes) = (VecDeque::new(), [0; 2]);
        let mut pair =
            Self { peer, server, protocol, redis, cowherd, blocked, compares_changes, changes };
        for raw in [&mut pair.redis, &mut pair.cowherd] {
            raw.call(&["HELLO", protocol])?;
            for line in ["FLUSHALL", "SCRIPT FLUSH", "FUNCTION FLUSH", "CONFIG RESETSTAT"] {
                raw.call(&line.split(' ').collect::<Vec<_>>())?;
            }
        }
        pair.changes = pair.counts_of_changes()?;
        Ok(pair)
    }

    /// Compares how many changes were counted since the last call.
    fn same_changes(&mut self) -> Result<()> {
        if !self.compares_changes {
            return Ok(());
        }
        let now = self.counts_of_changes()?;
        let counted = [0, 1].map(|i| now[i].wrapping_sub(self.changes[i]));
        self.changes = now;
        let [redis, cowherd] = counted;
        ensure!(redis == cowherd, "changes in redis:   {redis}\n    cowherd: {cowherd}");
        Ok(())
    }

    /// The changes that the servers count, asked by clients of their own.
    fn counts_of_changes(&self) -> Result<[u64; 2]> {
        Ok([count_of_changes(&mut self.peer.raw()?)?, count_of_changes(&mut self.server.raw()?)?])
    }

    /// Sends a command by clients of their own, which it blocks.
    fn block(&mut self, line: &str) -> Result<()> {
        let arguments = words(line)?;
        let mut clients = [self.peer.raw()?, self.server.raw()?];
        for (raw, admin) in clients.iter_mut().zip([&mut self.redis, &mut self.cowherd]) {
            raw.call(&["HELLO", self.protocol])?;
            send_blocking(raw, &arguments, admin, Duration::from_secs(20))?;
        }
        self.blocked.push_back(clients);
        Ok(())
    }

    /// Compares the replies to the clients that were blocked first.
    fn same_unblocked(&mut self) -> Result<()> {
        let [mut redis, mut cowherd] = self.blocked.pop_front().context("nothing is blocked")?;
        let redis = show(&redis.read_reply()?);
        same(&redis, || Ok(show(&cowherd.read_reply()?)))
    }

    /// Sets values until there is no memory left.
    fn fill(&mut self) -> Result<()> {
        let value = vec![b'x'; 64 << 10];
        for raw in [&mut self.redis, &mut self.cowherd] {
            let mut count = 0;
            let filled = || {
                count += 1;
                let key = format!("filler:{count}");
                let reply = raw.exchange(&[&b"SET"[..], key.as_bytes(), &value])?;
                Ok(reply.starts_with(b"-OOM "))
            };
            wait_until(filled, Duration::from_secs(20), "no memory left")?;
        }
        Ok(())
    }

    fn both<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<(Vec<u8>, Vec<u8>)> {
        let redis = self.redis.exchange(arguments).context("redis-server")?;
        let cowherd = self.cowherd.exchange(arguments).context("cowherd")?;
        Ok((redis, cowherd))
    }

    fn same_reply(&mut self, line: &str) -> Result<()> {
        if let Some(line) = line.strip_prefix('>') {
            return self.block(line.trim_start());
        }
        if line == "<" {
            return self.same_unblocked();
        }
        let (mode, command) = match line.split_once(": ") {
            Some((mode, command)) if MODES.iter().any(|known| mode.starts_with(known)) => {
                (mode, command)
            }
            _ => ("", line),
        };
        let arguments = words(command)?;
        match mode.split_once(' ').unwrap_or((mode, "")) {
            ("scan", _) => {
                let redis = scan(&mut self.redis, &arguments)?;
                return same(&redis, || scan(&mut self.cowherd, &arguments));
            }
            ("newer", _) if !self.peer.is_newer() => return Ok(()),
            ("older", _) if self.peer.is_newer() => return Ok(()),
            ("fill", _) => return self.fill(),
            ("gone", _) => return self.both_gone(&arguments),
            ("eachkey", _) => return self.same_for_each_key(&arguments),
            ("near", range) => {
                let (redis, cowherd) = self.both(&arguments)?;
                return near(&redis, &cowherd, range.parse().context("no number after near")?);
            }
            _ => {}
        }
        let (redis, cowherd) = self.both(&arguments)?;
        if ALLOWED.iter().any(|(allowed, _)| *allowed == line) {
            return Ok(());
        }
        match mode {
            "shape" => same(&redis.first(), || Ok(cowherd.first())).with_context(|| show(&cowherd)),
            "times" => same_but_for_times(&redis, &cowherd),
            "doubles" => same_numbers(&redis, &cowherd),
            "unordered" => same(&elements(&redis)?, || elements(&cowherd)),
            _ => {
                let (redis, cowherd) = (show(&redis), show(&cowherd));
                ensure!(redis == cowherd, "redis:   {redis}\n    cowherd: {cowherd}");
                Ok(())
            }
        }
    }

    fn both_gone(&mut self, arguments: &Arguments) -> Result<()> {
        for raw in [&mut self.redis, &mut self.cowherd] {
            let gone = || Ok(matches!(raw.call(arguments)?, Value::Nil | Value::Int(0)));
            wait_until(gone, Duration::from_secs(20), "a key to expire")?;
        }
        Ok(())
    }

    /// Keys of the selected database, which must be equal on both servers.
    fn keys(&mut self) -> Result<BTreeSet<Vec<u8>>> {
        let redis: BTreeSet<Vec<u8>> = redis::from_redis_value(self.redis.call(&["KEYS", "*"])?)?;
        let cowherd = redis::from_redis_value(self.cowherd.call(&["KEYS", "*"])?)?;
        let listed =
            |keys: &BTreeSet<Vec<u8>>| keys.iter().map(|key| show(key)).collect::<Vec<_>>();
        same(&listed(&redis), || Ok(listed(&cowherd)))?;
        Ok(redis)
    }

    fn same_for_each_key(&mut self, arguments: &Arguments) -> Result<()> {
        for key in self.keys()? {
            let mut arguments = arguments.clone();
            arguments.push(key);
            let (redis, cowherd) = self.both(&arguments)?;
            let command = arguments.iter().map(|word| show(word)).collect::<Vec<_>>().join(" ");
            same(&show(&redis), || Ok(show(&cowherd))).context(command)?;
        }
        Ok(())
    }

    /// Compares the first two databases: keys, types, values, expiry times.
    fn same_state(&mut self) -> Result<()> {
        for database in ["0", "1"] {
            for raw in [&mut self.redis, &mut self.cowherd] {
                raw.call(&["SELECT", database])?;
            }
            for key in self.keys()? {
                let about = || format!("database {database}, key {}", show(&key));
                let (redis, cowherd) = self.both(&[&b"TYPE"[..], &key])?;
                same(&show(&redis), || Ok(show(&cowherd))).with_context(about)?;
                self.same_value(show(&redis).trim_start_matches('+').trim_end(), &key)
                    .with_context(about)?;
                let (redis, cowherd) = self.both(&[b"PEXPIRETIME".as_slice(), &key])?;
                near(&redis, &cowherd, 3000).with_context(about)?;
            }
        }
        Ok(())
    }

    /// Compares the value of a key of this type, and its encoding.
    fn same_value(&mut self, kind: &str, key: &[u8]) -> Result<()> {
        let command: &[&[u8]] = match kind {
            "list" => &[b"LRANGE", key, b"0", b"-1"],
            "hash" => &[b"HGETALL", key],
            "set" => &[b"SMEMBERS", key],
            "zset" => &[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
            "stream" => &[b"XRANGE", key, b"-", b"+"],
            _ => &[b"GET", key],
        };
        let (redis, cowherd) = self.both(command)?;
        if matches!(kind, "hash" | "set") {
            same(&elements(&redis)?, || elements(&cowherd))?;
        } else {
            same(&show(&redis), || Ok(show(&cowherd)))?;
        }
        if kind == "stream" {
            let (redis, cowherd) = self.both(&[&b"XINFO"[..], b"GROUPS", key])?;
            same(&show(&redis), || Ok(show(&cowherd)))?;
        }
        // Encodings of sets differ in Redis 7.0, and those of strings depend on their history.
        if matches!(kind, "hash" | "zset") {
            let (redis, cowherd) = self.both(&[&b"OBJECT"[..], b"ENCODING", key])?;
            same(&show(&redis), || Ok(show(&cowherd)))?;
        }
        Ok(())
    }
}

/// The number of changes that a server counts towards its save points.
fn count_of_changes(raw: &mut RawConnection) -> Result<u64> {
    let info = raw.text(&["INFO", "persistence"])?;
    let field = info.lines().find_map(|line| line.strip_prefix("rdb_changes_since_last_save:"));
    Ok(field.context("no rdb_changes_since_last_save")?.trim().parse()?)
}

fn same<T: PartialEq + std::fmt::Debug>(
    redis: &T,
    cowherd: impl FnOnce() -> Result<T>,
) -> Result<()> {
    let cowherd = cowherd().context("cowherd")?;
    ensure!(*redis == cowherd, "redis:   {redis:?}\n    cowherd: {cowherd:?}");
    Ok(())
}

fn near(redis: &[u8], cowherd: &[u8], range: u64) -> Result<()> {
    let both = (redis::parse_redis_value(redis)?, redis::parse_redis_value(cowherd)?);
    let (Value::Int(one), Value::Int(other)) = both else {
        bail!("redis:   {}\n    cowherd: {}", show(redis), show(cowherd));
    };
    ensure!(are_near(one, other, range), "redis:   {one}\n    cowherd: {other}");
    Ok(())
}

/// Compares replies; numbers in them may differ by what a lack of digits takes away.
fn same_numbers(redis: &[u8], cowherd: &[u8]) -> Result<()> {
    fn are_same(one: &Value, other: &Value) -> bool {
        let number = |value: &Value| match value {
            Value::Double(number) => Some(*number),
            Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse::<f64>().ok(),
            _ => None,
        };
        match (one, other) {
            (Value::Array(one), Value::Array(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(a, b)| are_same(a, b))
            }
            _ => match (number(one), number(other)) {
                (Some(one), Some(other)) => one == other || (one - other).abs() < 1e-14,
                _ => one == other,
            },
        }
    }
    let same = are_same(&redis::parse_redis_value(redis)?, &redis::parse_redis_value(cowherd)?);
    ensure!(same, "redis:   {}\n    cowherd: {}", show(redis), show(cowherd));
    Ok(())
}

fn elements(reply: &[u8]) -> Result<Vec<String>> {
    let value = redis::parse_redis_value(reply)?;
    if let Some(pairs) = value.as_map_iter()
        && matches!(value, Value::Map(_))
    {
        let mut pairs: Vec<String> = pairs.map(|pair| format!("{pair:?}")).collect();
        pairs.sort();
        return Ok(pairs);
    }
    let elements = value.as_sequence().with_context(|| format!("no array: {}", show(reply)))?;
    let mut elements = elements.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>();
    elements.sort();
    Ok(elements)
}

/// Scans to the end and returns all elements.
fn scan(raw: &mut RawConnection, arguments: &Arguments) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut cursor = b"0".to_vec();
    for _ in 0..10_000 {
        let mut command = vec![b"SCAN".to_vec(), cursor];
        command.extend_from_slice(arguments);
        let reply: (Vec<u8>, Vec<Vec<u8>>) = redis::from_redis_value(raw.call(&command)?)?;
        found.extend(reply.1.iter().map(|key| show(key)));
        cursor = reply.0;
        if cursor == b"0" {
            return Ok(found);
        }
    }
    bail!("the scan has no end")
}

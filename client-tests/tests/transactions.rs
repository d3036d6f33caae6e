//! Transactions on several connections: compared with a model, during checkpoints, and their
//! counters.

use anyhow::{Context, Result, ensure};
use client_tests::TestResult;
use client_tests::random::{self, Random};
use client_tests::server::Server;
use client_tests::wire::{RawConnection, encode, show};
use redis::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

/// Numbers of keys and connections of the model.
const KEYS: u64 = 6;
const CONNECTIONS: u64 = 4;

type Databases = [BTreeMap<String, String>; 2];
type Name = (usize, String);

/// State of a connection in the model.
#[derive(Default)]
struct ModelConnection {
    db: usize,
    watched: BTreeSet<Name>,
    is_dirty: bool,
    queue: Option<Vec<Vec<String>>>,
    is_aborted: bool,
}

impl ModelConnection {
    fn unwatch(&mut self) {
        self.watched.clear();
        self.is_dirty = false;
    }

    fn end(&mut self) {
        self.queue = None;
        self.is_aborted = false;
        self.unwatch();
    }
}

/// Model of Redis.
#[derive(Default)]
struct Model {
    databases: Databases,
    connections: Vec<ModelConnection>,
}

const OK: &str = "+OK\r\n";
const NOT_INTEGER: &str = "-ERR value is not an integer or out of range\r\n";

fn bulk(value: Option<&String>) -> String {
    value.map_or("$-1\r\n".into(), |value| format!("${}\r\n{value}\r\n", value.len()))
}

impl Model {
    fn touch(&mut self, db: usize, key: &str) {
        let name = (db, key.to_owned());
        for connection in &mut self.connections {
            connection.is_dirty |= connection.watched.contains(&name);
        }
    }

    /// Executes a command.
    fn run(&mut self, number: usize, command: &[String]) -> String {
        let db = self.connections[number].db;
        let arg = |i: usize| command[i].as_str();
        match arg(0) {
            "GET" => bulk(self.databases[db].get(arg(1))),
            "DBSIZE" => format!(":{}\r\n", self.databases[db].len()),
            "SELECT" => {
                self.connections[number].db = arg(1).parse().expect("a number");
                OK.into()
            }
            "SET" => {
                self.databases[db].insert(arg(1).into(), arg(2).into());
                self.touch(db, arg(1));
                OK.into()
            }
            "INCR" => {
                let old = self.databases[db].get(arg(1)).map_or("0", String::as_str);
                let Ok(old) = old.parse::<i64>() else { return NOT_INTEGER.into() };
                self.databases[db].insert(arg(1).into(), (old + 1).to_string());
                self.touch(db, arg(1));
                format!(":{}\r\n", old + 1)
            }
            "DEL" | "EXPIRE" => {
                let was_there = self.databases[db].remove(arg(1)).is_some();
                if was_there {
                    self.touch(db, arg(1));
                }
                format!(":{}\r\n", u8::from(was_there))
            }
            "RENAME" => {
                let Some(value) = self.databases[db].get(arg(1)).cloned() else {
                    return "-ERR no such key\r\n".into();
                };
                if arg(1) != arg(2) {
                    self.databases[db].remove(arg(1));
                    self.databases[db].insert(arg(2).into(), value);
                    self.touch(db, arg(1));
                    self.touch(db, arg(2));
                }
                OK.into()
            }
            "FLUSHDB" => {
                self.flush(db);
                OK.into()
            }
            "FLUSHALL" => {
                self.flush(0);
                self.flush(1);
                OK.into()
            }
            "SWAPDB" => {
                let keys: BTreeSet<String> =
                    self.databases.iter().flat_map(|db| db.keys().cloned()).collect();
                for key in &keys {
                    self.touch(0, key);
                    self.touch(1, key);
                }
                self.databases.swap(0, 1);
                OK.into()
            }
            "WATCH" => {
                let connection = &mut self.connections[number];
                if !connection.is_dirty {
                    connection.watched.extend(command[1..].iter().map(|key| (db, key.clone())));
                }
                OK.into()
            }
            "UNWATCH" => {
                self.connections[number].unwatch();
                OK.into()
            }
            other => unreachable!("the model has no {other}"),
        }
    }

    fn flush(&mut self, db: usize) {
        for key in std::mem::take(&mut self.databases[db]).into_keys() {
            self.touch(db, &key);
        }
    }

    /// Reply to a command, which may be queued.
    fn reply(&mut self, number: usize, command: &[String]) -> String {
        let connection = &mut self.connections[number];
        match (command[0].as_str(), connection.queue.is_some()) {
            ("MULTI", false) => {
                connection.queue = Some(Vec::new());
                OK.into()
            }
            ("MULTI", true) => "-ERR MULTI calls can not be nested\r\n".into(),
            ("WATCH", true) => "-ERR WATCH inside MULTI is not allowed\r\n".into(),
            ("DISCARD", false) => "-ERR DISCARD without MULTI\r\n".into(),
            ("EXEC", false) => "-ERR EXEC without MULTI\r\n".into(),
            ("DISCARD", true) => {
                connection.end();
                OK.into()
            }
            ("EXEC", true) => self.exec(number),
            ("GET", is_queued) if command.len() == 1 => {
                connection.is_aborted |= is_queued;
                "-ERR wrong number of arguments for 'get' command\r\n".into()
            }
            (_, true) => {
                connection.queue.get_or_insert_default().push(command.to_vec());
                "+QUEUED\r\n".into()
            }
            (_, false) => self.run(number, command),
        }
    }

    fn exec(&mut self, number: usize) -> String {
        let connection = &mut self.connections[number];
        let (is_aborted, is_dirty) = (connection.is_aborted, connection.is_dirty);
        let queue = connection.queue.take().unwrap_or_default();
        connection.end();
        if is_aborted {
            return "-EXECABORT Transaction discarded because of previous errors.\r\n".into();
        }
        if is_dirty {
            return "*-1\r\n".into();
        }
        let mut reply = format!("*{}\r\n", queue.len());
        for command in queue {
            reply.push_str(&self.run(number, &command));
        }
        reply
    }
}

fn draw(random: &mut Random) -> Vec<String> {
    let mut key = || format!("key:{}", random.below(KEYS));
    let (one, other) = (key(), key());
    let words: Vec<&str> = match random.below(100) {
        0..12 => vec!["MULTI"],
        12..26 => vec!["EXEC"],
        26..29 => vec!["DISCARD"],
        29..44 => vec!["WATCH", &one, &other],
        44..46 => vec!["UNWATCH"],
        46..60 => vec!["GET", &one],
        60..61 => vec!["GET"],
        61..72 => vec!["SET", &one, if one < other { "5" } else { "text" }],
        72..82 => vec!["INCR", &one],
        82..86 => vec!["DEL", &one],
        86..88 => vec!["EXPIRE", &one, "-1"],
        88..91 => vec!["RENAME", &one, &other],
        91..96 => vec!["SELECT", if one < other { "0" } else { "1" }],
        96..97 => vec!["FLUSHDB"],
        97..98 => vec!["FLUSHALL"],
        98..99 => vec!["SWAPDB", "0", "1"],
        _ => vec!["DBSIZE"],
    };
    words.into_iter().map(str::to_owned).collect()
}

#[test]
fn interleaved_transactions_behave_as_a_model() -> TestResult {
    let server = Server::start()?;
    let mut random = Random::new(random::seed());
    let mut model = Model::default();
    let mut raws = Vec::new();
    for _ in 0..CONNECTIONS {
        raws.push(server.raw()?);
        model.connections.push(ModelConnection::default());
    }
    let mut history: Vec<String> = Vec::new();
    let (mut ran, mut failed) = (0, 0);
    for _ in 0..40_000 {
        let number = usize::try_from(random.below(CONNECTIONS))?;
        let command = draw(&mut random);
        let wanted = model.reply(number, &command);
        let got = raws[number].exchange(&command)?;
        history.push(format!("{number}: {}", command.join(" ")));
        let last = history.len().saturating_sub(60);
        ensure!(
            got == wanted.as_bytes(),
            "{}\nwanted {}\n   got {}",
            history[last..].join("\n"),
            show(wanted.as_bytes()),
            show(&got)
        );
        if command[0] == "EXEC" {
            ran += u32::from(wanted.starts_with('*') && wanted != "*-1\r\n" && wanted != "*0\r\n");
            failed += u32::from(wanted == "*-1\r\n");
        }
    }
    ensure!(ran > 300 && failed > 300, "{ran} transactions ran, {failed} failed");
    ensure!(server.text(&["DEBUG", "VERIFY"])? == "OK");
    Ok(())
}

/// Number of accounts, enough for nearly all shards, and the balance at the start.
const ACCOUNTS: u64 = 100;
const START: i64 = 1000;

fn account(number: u64) -> String {
    format!("account:{number}")
}

fn sum(raw: &mut RawConnection) -> Result<i64> {
    let keys = (0..ACCOUNTS).map(account);
    let request: Vec<String> = std::iter::once("MGET".to_owned()).chain(keys).collect();
    let values: Vec<i64> = redis::from_redis_value(raw.call(&request)?)?;
    Ok(values.into_iter().sum())
}

/// Transfers amounts until stopped or until the server ends; every other time by WATCH, only if no
/// other client has changed the accounts since their balances were read.
fn transfer(port: u16, mut random: Random, stop: &AtomicBool, done: &AtomicU64) -> Result<()> {
    let Ok(mut raw) = RawConnection::connect(port) else { return Ok(()) };
    while !stop.load(Relaxed) {
        let (from, to) = (account(random.below(ACCOUNTS)), account(random.below(ACCOUNTS)));
        let amount = (1 + random.below(50)).to_string();
        let mut commands: Vec<Vec<String>> = Vec::new();
        let mut add = |words: &[&str]| {
            commands.push(words.iter().map(|word| (*word).to_owned()).collect());
        };
        if random.below(2) == 0 && from != to {
            let Ok(_) = raw.exchange(&["WATCH", &from, &to]) else { return Ok(()) };
            let Ok(balance) = raw.exchange(&["MGET", &from, &to]) else { return Ok(()) };
            let balance: Vec<i64> = redis::from_redis_value(redis::parse_redis_value(&balance)?)?;
            let amount: i64 = amount.parse()?;
            add(&["MULTI"]);
            add(&["SET", &from, &(balance[0] - amount).to_string()]);
            add(&["SET", &to, &(balance[1] + amount).to_string()]);
        } else {
            add(&["MULTI"]);
            add(&["DECRBY", &from, &amount]);
            add(&["INCRBY", &to, &amount]);
        }
        add(&["EXEC"]);
        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        if raw.send(&bytes).is_err() {
            return Ok(());
        }
        for _ in &commands {
            let Ok(reply) = raw.read_reply() else { return Ok(()) };
            ensure!(!reply.starts_with(b"-"), "{}", show(&reply));
        }
        done.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// Reads all accounts with one command, repeatedly.
fn audit(port: u16, stop: &AtomicBool) -> Result<()> {
    let Ok(mut raw) = RawConnection::connect(port) else { return Ok(()) };
    while !stop.load(Relaxed) {
        let Ok(total) = sum(&mut raw) else { return Ok(()) };
        ensure!(
            total == START * i64::try_from(ACCOUNTS)?,
            "a part of a transfer was seen: {total}"
        );
    }
    Ok(())
}

#[test]
fn a_checkpoint_contains_only_complete_transfers() -> TestResult {
    let mut random = Random::new(random::seed());
    let mut server = Server::builder().arg("--maxmemory", "64mb").start()?;
    for number in 0..ACCOUNTS {
        server.text(&["SET", &account(number), &START.to_string()])?;
    }
    server.text(&["DEBUG", "CHECKPOINT-DIGEST", "yes"])?;
    for _ in 0..5 {
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let port = server.port();
        let digest = thread::scope(|scope| {
            let mut threads = Vec::new();
            for _ in 0..6 {
                let stream = Random::new(random.next());
                let (stop, done) = (&stop, &done);
                threads.push(scope.spawn(move || transfer(port, stream, stop, done)));
            }
            threads.push(scope.spawn(|| audit(port, &stop)));
            let digest = checkpoint_during_transfers(&mut server, &done);
            stop.store(true, Relaxed);
            for thread in threads {
                thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            }
            digest
        })?;
        server.restart()?;
        ensure!(server.digest()? == digest, "the restored digest differs");
        let total = sum(&mut server.raw()?)?;
        ensure!(
            total == START * i64::try_from(ACCOUNTS)?,
            "the image has half a transfer: {total}"
        );
        server.text(&["DEBUG", "CHECKPOINT-DIGEST", "yes"])?;
    }
    Ok(())
}

/// Writes a checkpoint and kills the server, both during transfers; returns the checkpoint's
/// digest.
fn checkpoint_during_transfers(server: &mut Server, done: &AtomicU64) -> Result<String> {
    let wait_for = |transfers: u64| {
        let goal = done.load(Relaxed) + transfers;
        let reached = || Ok(done.load(Relaxed) >= goal);
        client_tests::wait::wait_until(reached, std::time::Duration::from_secs(20), "transfers")
    };
    server.delay_checkpoints(500)?;
    wait_for(200)?;
    server.bgsave_and_wait()?;
    let digest = server.info("cowherd_last_checkpoint_digest")?;
    wait_for(50)?;
    server.kill9()?;
    Ok(digest)
}

/// Sends requests in one write and returns all replies as one text.
fn pipeline(raw: &mut RawConnection, requests: &[&str]) -> Result<String> {
    let words: Vec<Vec<&str>> =
        requests.iter().map(|request| request.split(' ').collect()).collect();
    raw.send(&words.iter().flat_map(|request| encode(request)).collect::<Vec<u8>>())?;
    let mut replies = String::new();
    for _ in requests {
        replies.push_str(&String::from_utf8(raw.read_reply()?)?);
    }
    Ok(replies)
}

#[test]
fn queued_commands_are_counted_on_execution() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    pipeline(&mut raw, &["CONFIG SET slowlog-log-slower-than 0", "CONFIG RESETSTAT"])?;
    raw.call(&["SLOWLOG", "RESET"])?;
    let requests = ["MULTI", "SET a x", "INCR a", "GET", "DISCARD", "MULTI", "SET a x", "INCR a"];
    pipeline(&mut raw, &requests)?;
    let counted = server.text(&["INFO", "commandstats"])?;
    ensure!(!counted.contains("cmdstat_set:"), "counted before it ran: {counted}");
    let replies = pipeline(&mut raw, &["EXEC"])?;
    ensure!(replies == "*2\r\n+OK\r\n-ERR value is not an integer or out of range\r\n");
    raw.call(&["CONFIG", "SET", "slowlog-log-slower-than", "-1"])?;
    let counted = server.text(&["INFO", "commandstats"])?;
    for (command, wanted) in [
        ("multi", "calls=2,"),
        ("set", "calls=1,"),
        ("incr", "calls=1,"),
        ("exec", "calls=1,"),
        ("get", "calls=0,"),
    ] {
        let line = counted.lines().find_map(|line| {
            line.strip_prefix("cmdstat_")?.strip_prefix(command)?.strip_prefix(':')
        });
        let line = line.with_context(|| format!("{command} is not counted: {counted}"))?;
        ensure!(line.starts_with(wanted), "{command}: {line}");
        let failed = line.contains("failed_calls=1");
        ensure!(failed == (command == "incr"), "{command}: {line}");
        let refused = line.contains("rejected_calls=1");
        ensure!(refused == (command == "get"), "{command}: {line}");
    }
    let slow: Vec<Value> = redis::from_redis_value(raw.call(&["SLOWLOG", "GET", "-1"])?)?;
    let names: Vec<String> = slow
        .into_iter()
        .filter_map(|entry| match entry {
            Value::Array(fields) => redis::from_redis_value::<Vec<String>>(fields[3].clone()).ok(),
            _ => None,
        })
        .map(|words| words[0].to_lowercase())
        .filter(|name| ["multi", "set", "incr", "exec", "get"].contains(&name.as_str()))
        .collect();
    ensure!(names == ["incr", "set", "multi", "multi"], "in the slow log: {names:?}");
    Ok(())
}

#[test]
fn a_transaction_is_refused_as_its_commands_are() -> TestResult {
    let server = Server::builder().arg("--maxmemory", "32mb").start()?;
    let mut raw = server.raw()?;
    raw.call(&["SET", "big".to_owned().as_str(), &"x".repeat(100_000)])?;
    pipeline(&mut raw, &["MULTI", "SET a 1"])?;
    server.text(&["CONFIG", "SET", "maxmemory", "1"])?;
    let oom = "OOM command not allowed when used memory > 'maxmemory'.";
    let replies = pipeline(&mut raw, &["EXEC", "EXEC"])?;
    let wanted = format!(
        "-EXECABORT Transaction discarded because of: {oom}\r\n-ERR EXEC without MULTI\r\n"
    );
    ensure!(replies == wanted, "{replies}");
    let replies = pipeline(&mut raw, &["MULTI", "GET big", "DISCARD", "GET none"])?;
    ensure!(replies == format!("+OK\r\n-{oom}\r\n+OK\r\n$-1\r\n"), "{replies}");
    server.text(&["CONFIG", "SET", "maxmemory", "32mb"])?;
    let replies = pipeline(&mut raw, &["MULTI", "SET a 1", "EXEC"])?;
    ensure!(replies == "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n", "{replies}");
    Ok(())
}

#[test]
fn a_checkpoint_requested_in_a_transaction_starts_after_it() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    let replies = pipeline(&mut raw, &["MULTI", "SET a 1", "BGSAVE", "INCR a", "EXEC"])?;
    let wanted = "*3\r\n+OK\r\n+Background saving scheduled\r\n:2\r\n";
    ensure!(replies.ends_with(wanted), "{replies}");
    // The request precedes the reply, but the checkpoint's thread forks later.
    let begun = || Ok(server.info("rdb_saves")? == "1");
    client_tests::wait::wait_until(begun, std::time::Duration::from_secs(20), "the fork")?;
    server.wait_checkpoint()?.map_err(anyhow::Error::msg)?;
    ensure!(
        server.info("rdb_changes_since_last_save")? == "0",
        "the checkpoint precedes the end of the transaction"
    );
    Ok(())
}

#[test]
fn replies_of_a_transaction_can_be_switched_off() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    let silent = ["CLIENT REPLY OFF", "MULTI", "SET a 1", "INCR a", "EXEC", "CLIENT REPLY ON"];
    raw.send(&silent.iter().flat_map(|line| encode(&words(line))).collect::<Vec<u8>>())?;
    ensure!(raw.read_reply()? == b"+OK\r\n");
    ensure!(raw.text(&["GET", "a"])? == "2");
    Ok(())
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[test]
fn a_closed_connection_leaves_no_watches_or_commands() -> TestResult {
    let server = Server::start()?;
    for _ in 0..50 {
        let mut raw = server.raw()?;
        pipeline(&mut raw, &["WATCH a b c", "MULTI", "SET a 1"])?;
    }
    let mut raw = server.raw()?;
    let ended = || Ok(!server.text(&["CLIENT", "LIST"])?.contains("watch=3"));
    client_tests::wait::wait_until(ended, std::time::Duration::from_secs(20), "the clients' end")?;
    ensure!(raw.number(&["EXISTS", "a"])? == 0, "queued commands ran without EXEC");
    Ok(())
}

//! MONITOR: what monitors are shown, compared with Redis; the order of the lines; monitors that do
//! not read.
//!
//! `peer/monitor.txt` contains a conversation with one command per line. After each command the
//! monitor sends a PING with a unique argument: the lines before the answer are those that the
//! command caused.

use anyhow::{Context, Result, bail, ensure};
use client_tests::peer::Peer;
use client_tests::server::Server;
use client_tests::wait::{send_blocking, wait_until};
use client_tests::wire::{RawConnection, encode, show};
use client_tests::words::words;
use client_tests::{TestResult, skip};
use std::thread;
use std::time::Duration;

const CONVERSATION: &str = include_str!("peer/monitor.txt");
const DEADLINE: Duration = Duration::from_secs(20);

type Connect<'c> = &'c dyn Fn() -> Result<RawConnection>;

fn monitor(connect: Connect<'_>, protocol: &str) -> Result<RawConnection> {
    let mut raw = connect()?;
    raw.call(&["HELLO", protocol])?;
    let reply = raw.exchange(&["MONITOR"])?;
    ensure!(reply == b"+OK\r\n", "MONITOR: {}", show(&reply));
    Ok(raw)
}

/// A line without its time, and with A in place of an address; another reply as it is.
fn without_time(reply: &[u8]) -> Result<String> {
    let line = String::from_utf8_lossy(reply);
    let line = line.trim_end();
    let Some((time, rest)) = line.strip_prefix('+').and_then(|line| line.split_once(" [")) else {
        return Ok(line.to_owned());
    };
    let (seconds, micros) = time.split_once('.').with_context(|| format!("no time: {line}"))?;
    ensure!(seconds.parse::<u64>()? > 1_700_000_000 && micros.len() == 6, "{line}");
    let (source, arguments) = rest.split_once(']').with_context(|| format!("no end: {line}"))?;
    let source = match source.split_once(" 127.0.0.1:") {
        Some((database, port)) if port.parse::<u16>().is_ok() => format!("{database} A"),
        _ => source.to_owned(),
    };
    Ok(format!("[{source}]{arguments}"))
}

/// Sends a PING with this argument; returns what the monitor receives before the answer.
fn until_pong(raw: &mut RawConnection, word: &str) -> Result<Vec<String>> {
    raw.send(&encode(&["PING", word]))?;
    let mut received = Vec::new();
    loop {
        let reply = raw.read_reply()?;
        if reply.starts_with(b"$") && reply.ends_with(format!("{word}\r\n").as_bytes()) {
            return Ok(received);
        }
        received.push(without_time(&reply)?);
    }
}

/// Sends the command of a line; returns what the monitor was shown.
fn converse(raws: &mut [RawConnection; 4], line: &str, number: usize) -> Result<Vec<String>> {
    let [a, b, m, admin] = raws;
    let (name, command) = line.split_once(' ').unwrap_or((line, ""));
    let commands = command.split(" ; ").map(words).collect::<Result<Vec<_>>>()?;
    let command = &commands[0];
    let mut shown = Vec::new();
    match name {
        "a" => drop(a.exchange(command)?),
        "b" => drop(b.exchange(command)?),
        "a>" => {
            send_blocking(a, command, admin, DEADLINE)?;
            shown = until_pong(m, "blocked")?;
            // How often the number of blocked clients was asked for is not known.
            shown.retain(|line| !line.contains("INFO"));
        }
        "a<" => drop(a.read_reply()?),
        "m" => m.send(&commands.iter().flat_map(|one| encode(one)).collect::<Vec<u8>>())?,
        _ => bail!("unknown connection {name}"),
    }
    shown.extend(until_pong(m, &format!("pong{number}"))?);
    Ok(shown)
}

/// Runs the conversation; returns each line with what the monitor was shown.
fn run_conversation(connect: Connect<'_>, protocol: &str) -> Result<Vec<String>> {
    let mut admin = connect()?;
    admin.call(&["FLUSHALL"])?;
    let mut raws = [connect()?, connect()?, monitor(connect, protocol)?, admin];
    let mut notes = Vec::new();
    let lines = CONVERSATION.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for (number, line) in lines.enumerate() {
        let shown = converse(&mut raws, line, number).with_context(|| line.to_owned())?;
        notes.push(format!("{line}\n    {}", shown.join("\n    ")));
    }
    Ok(notes)
}

fn compare(peer: Option<Peer>) -> TestResult {
    let Some(peer) = peer else { skip!("the redis-server to compare with is not installed") };
    let server = Server::start()?;
    for protocol in ["2", "3"] {
        let redis = run_conversation(&|| peer.raw(), protocol)?;
        let cowherd = run_conversation(&|| server.raw(), protocol)?;
        ensure!(redis.len() > 150, "only {} notes", redis.len());
        let differences: Vec<String> = redis
            .iter()
            .zip(&cowherd)
            .filter(|(redis, cowherd)| redis != cowherd)
            .map(|(redis, cowherd)| format!("redis:   {redis}\ncowherd: {cowherd}"))
            .collect();
        ensure!(differences.is_empty(), "RESP{protocol}\n{}", differences.join("\n"));
    }
    Ok(())
}

#[test]
fn monitors_are_shown_what_redis_shows() -> TestResult {
    compare(Peer::start()?)
}

#[test]
fn monitors_are_shown_what_newer_redis_shows() -> TestResult {
    compare(Peer::start_newer()?)
}

/// Runs `client` on so many threads, each with a connection of its own; returns all that a monitor
/// was shown meanwhile.
fn shown_meanwhile(
    server: &Server,
    threads: usize,
    client: impl Fn(usize, RawConnection) -> Result<()> + Sync,
) -> Result<Vec<String>> {
    let mut monitor = monitor(&|| server.raw(), "2")?;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..threads)
            .map(|number| {
                let client = &client;
                scope.spawn(move || client(number, server.raw()?))
            })
            .collect();
        // The monitor reads while the clients run.
        let ended = scope.spawn(move || {
            for client in clients {
                client.join().expect("a client panicked")?;
            }
            server.text(&["ECHO", "all clients have ended"])
        });
        let mut shown = Vec::new();
        loop {
            let line = without_time(&monitor.read_reply()?)?;
            if line.contains("\"ECHO\"") {
                break;
            }
            shown.push(line);
        }
        ended.join().expect("a client panicked")?;
        Ok(shown)
    })
}

/// The lines are in an order in which the commands may have run: each GETSET returns the value that
/// the line before has set.
#[test]
fn lines_are_in_the_order_of_execution() -> TestResult {
    const ROUNDS: usize = 300;
    let server = Server::builder().arg("--threads", "4").start()?;
    let replies = std::sync::Mutex::new(std::collections::HashMap::new());
    let shown = shown_meanwhile(&server, 4, |number, mut raw| {
        for round in 0..ROUNDS {
            let value = format!("{number}-{round}");
            let before = raw.bytes(&["GETSET", "key", &value])?;
            replies.lock().expect("no panic").insert(value, before);
        }
        Ok(())
    })?;
    ensure!(shown.len() == 4 * ROUNDS, "{} lines", shown.len());
    let replies = replies.into_inner()?;
    let mut last: Option<Vec<u8>> = None;
    for line in shown {
        let value = line.split('"').nth(5).with_context(|| format!("no value: {line}"))?;
        ensure!(replies[value] == last, "{line}: was {:?}, not {last:?}", replies[value]);
        last = Some(value.as_bytes().to_vec());
    }
    Ok(())
}

/// The lines of a transaction follow each other, and so do those of a script, also if the script
/// has to run again since it finds the shard of an undeclared key locked.
#[test]
fn lines_of_transactions_and_scripts_stand_together() -> TestResult {
    const ROUNDS: usize = 150;
    let server = Server::builder().arg("--threads", "4").start()?;
    let shown = shown_meanwhile(&server, 4, |number, mut raw| {
        for round in 0..ROUNDS {
            if number < 2 {
                for words in [["MULTI", "", ""], ["SET", "a", "1"], ["SET", "b", "2"]] {
                    let words: Vec<&str> = words.into_iter().filter(|w| !w.is_empty()).collect();
                    raw.call(&words)?;
                }
                raw.call(&["EXEC"])?;
            } else {
                // A script of its own in each round: a known one is not run again.
                let script = format!(
                    "local n = '{number}-{round}' redis.call('get', KEYS[1]) \
                     redis.call('get', 'other' .. n) return redis.call('set', 'b', n)"
                );
                raw.call(&["EVAL", &script, "1", "a"])?;
            }
            raw.call(&["PING"])?;
        }
        Ok(())
    })?;
    let count = |word: &str| shown.iter().filter(|line| line.contains(word)).count();
    ensure!(count("\"EXEC\"") == 2 * ROUNDS && count("\"EVAL\"") == 2 * ROUNDS);
    ensure!(count(" lua]") == 6 * ROUNDS, "{} lines of scripts", count(" lua]"));
    for (i, line) in shown.iter().enumerate() {
        let has = |at: usize, word: &str| shown.get(at).is_some_and(|line| line.contains(word));
        if line.contains("\"SET\" \"a\"") {
            ensure!(has(i + 1, "\"SET\" \"b\"") && has(i + 2, "\"EXEC\""), "{i}: {line}");
        } else if line.contains("\"EVAL\"") {
            let is_whole = (1..=3).all(|ahead| has(i + ahead, " lua]"));
            ensure!(is_whole && !has(i + 4, " lua]"), "{i}: {line}");
        }
    }
    Ok(())
}

/// A script that shows more than is kept back is shown in parts, each line once.
#[test]
fn scripts_with_many_commands_are_shown_whole() -> TestResult {
    let server = Server::start()?;
    let shown = shown_meanwhile(&server, 1, |_, mut raw| {
        let script = "for i = 1, 5000 do redis.call('get', 'undeclared' .. i % 7) end";
        raw.call(&["EVAL", script, "0"])?;
        raw.call(&["MULTI"])?;
        for i in 0..5000 {
            raw.call(&["GET", &format!("queued{i}")])?;
        }
        raw.call(&["EXEC"]).map(drop)
    })?;
    let lines = |word: &str| shown.iter().filter(|line| line.contains(word)).count();
    ensure!(lines(" lua]") == 5000 && lines("\"queued") == 5000, "{} lines", shown.len());
    Ok(())
}

/// A monitor has the output limit of normal clients. Nothing else suffers from one that does not
/// read.
#[test]
fn a_monitor_that_does_not_read_is_closed() -> TestResult {
    let server = Server::start()?;
    server.text(&["CONFIG", "SET", "client-output-buffer-limit", "normal 1mb 0 0"])?;
    let _monitor = monitor(&|| server.raw(), "2")?;
    let is_listed = || Ok(server.text(&["CLIENT", "LIST"])?.contains(" flags=O "));
    ensure!(is_listed()?, "no monitor is listed");
    let (mut raw, value) = (server.raw()?, "x".repeat(100_000));
    let closed = || {
        raw.call(&["SET", "key", &value])?;
        is_listed().map(|listed| !listed)
    };
    wait_until(closed, DEADLINE, "the end of the monitor")?;
    ensure!(server.text(&["PING"])? == "PONG");
    let log = server.log();
    ensure!(log.contains("client-output-buffer-limit"), "{log}");
    Ok(())
}

/// CLIENT REPLY OFF hides the lines too.
#[test]
fn a_monitor_without_replies_is_shown_nothing() -> TestResult {
    let server = Server::start()?;
    let mut monitor = monitor(&|| server.raw(), "2")?;
    monitor.send(&encode(&["CLIENT", "REPLY", "OFF"]))?;
    // A request on the same connection has run once the server has counted it.
    let is_off = || Ok(server.text(&["CLIENT", "LIST"])?.contains("cmd=client|reply"));
    wait_until(is_off, DEADLINE, "CLIENT REPLY OFF")?;
    server.text(&["ECHO", "hidden"])?;
    monitor.send(&encode(&["CLIENT", "REPLY", "ON"]))?;
    let reply = monitor.read_reply()?;
    ensure!(reply == b"+OK\r\n", "{}", show(&reply));
    ensure!(without_time(&monitor.read_reply()?)?.contains("\"REPLY\" \"ON\""));
    server.text(&["ECHO", "shown"])?;
    ensure!(without_time(&monitor.read_reply()?)?.contains("\"shown\""));
    Ok(())
}

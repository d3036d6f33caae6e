//! Clients that wait for streams, on Debian's redis-server and on Cowherd: each of them hears the
//! same.
//!
//! The commands stand in `peer/stream_waiters.txt`. A line that begins with `##` opens a section on
//! two empty servers; one that begins with `>` is sent by a client of its own, which then waits. At
//! the end of a section whoever still waits is unblocked: that tells who was served.

use anyhow::{Context, Result, ensure};
use client_tests::peer::Peer;
use client_tests::server::Server;
use client_tests::wait::send_blocking;
use client_tests::wire::{RawConnection, show};
use client_tests::{TestResult, skip};
use std::time::Duration;

const SCRIPT: &str = include_str!("peer/stream_waiters.txt");
const PATIENCE: Duration = Duration::from_secs(20);

struct Waiter {
    raw: RawConnection,
    id: String,
    line: String,
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn wait(connect: &dyn Fn() -> Result<RawConnection>, protocol: &str, line: &str) -> Result<Waiter> {
    let (mut admin, mut raw) = (connect()?, connect()?);
    raw.call(&["HELLO", protocol])?;
    let id = raw.number(&["CLIENT", "ID"])?.to_string();
    send_blocking(&mut raw, &words(line), &mut admin, PATIENCE).context(line.to_owned())?;
    Ok(Waiter { raw, id, line: line.to_owned() })
}

/// All that is said, by line.
fn converse(connect: &dyn Fn() -> Result<RawConnection>, protocol: &str) -> Result<Vec<String>> {
    let mut admin = connect()?;
    let (mut notes, mut waiters, mut section): (_, Vec<Waiter>, _) = (Vec::new(), Vec::new(), "");
    for line in SCRIPT.lines().chain(["## end"]).filter(|line| !line.is_empty()) {
        if let Some(title) = line.strip_prefix("##") {
            for waiter in &mut waiters {
                admin.call(&["CLIENT", "UNBLOCK", &waiter.id, "ERROR"])?;
                let heard = show(&waiter.raw.read_reply()?);
                notes.push(format!("{section}, {}: {heard}", waiter.line));
            }
            waiters.clear();
            section = title;
            admin = connect()?;
            admin.call(&["FLUSHALL"])?;
        } else if let Some(line) = line.strip_prefix("> ") {
            waiters.push(wait(connect, protocol, line)?);
        } else {
            notes.push(format!("{section}, {line}: {}", show(&admin.exchange(&words(line))?)));
        }
    }
    Ok(notes)
}

#[test]
fn who_waits_for_a_stream_hears_what_redis_says() -> TestResult {
    let Some(peer) = Peer::start()? else { skip!("redis-server is not installed") };
    let server = Server::start()?;
    for protocol in ["2", "3"] {
        let redis = converse(&|| peer.raw(), protocol)?;
        let cowherd = converse(&|| server.raw(), protocol)?;
        ensure!(redis.len() > 100, "only {} notes", redis.len());
        for (redis, cowherd) in redis.iter().zip(&cowherd) {
            ensure!(redis == cowherd, "RESP{protocol}\nredis:   {redis}\ncowherd: {cowherd}");
        }
    }
    Ok(())
}

/// What a wait costs must not grow faster than what is waited for: with its square this takes
/// longer than anybody waits.
#[test]
fn who_waits_for_very_many_streams_holds_nobody_up() -> TestResult {
    const STREAMS: usize = 30_000;
    let server = Server::start()?;
    let connect = || server.raw();
    let names: Vec<String> = (0..STREAMS).map(|number| format!("s{number}")).collect();
    let ids = ["$"; STREAMS];
    let line = format!("XREAD BLOCK 0 STREAMS {} {}", names.join(" "), ids.join(" "));
    let mut waiters = [wait(&connect, "2", &line)?, wait(&connect, "2", &line)?];
    let mut raw = server.raw()?;
    for number in 0..1_000 {
        ensure!(raw.text(&["SET", &format!("key:{number}"), "value"])? == "OK");
    }
    raw.call(&["XADD", "s29999", "1-1", "field", "value"])?;
    for waiter in &mut waiters {
        let heard = show(&waiter.raw.read_reply()?);
        ensure!(heard.contains("s29999") && heard.contains("value"), "{heard}");
    }
    Ok(())
}

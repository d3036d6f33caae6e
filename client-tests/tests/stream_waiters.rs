//! Clients blocked on streams, compared with a Redis that is newer than Debian's: each client must
//! receive the same reply.
//!
//! `peer/stream_waiters.txt` contains the commands. A line that begins with `##` opens a section on
//! two empty servers; a line that begins with `>` is sent by a client of its own, which then
//! blocks. At the end of a section the clients that are still blocked are unblocked, which shows
//! those that were served.

use anyhow::{Context, Result, ensure};
use client_tests::peer::Peer;
use client_tests::server::Server;
use client_tests::wait::send_blocking;
use client_tests::wire::{RawConnection, show};
use client_tests::{TestResult, skip};
use std::time::Duration;

const SCRIPT: &str = include_str!("peer/stream_waiters.txt");
const DEADLINE: Duration = Duration::from_secs(20);

struct BlockedConnection {
    raw: RawConnection,
    id: String,
    line: String,
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Sends a blocking command on a new connection.
fn block(
    connect: &dyn Fn() -> Result<RawConnection>,
    protocol: &str,
    line: &str,
) -> Result<BlockedConnection> {
    let (mut admin, mut raw) = (connect()?, connect()?);
    raw.call(&["HELLO", protocol])?;
    let id = raw.number(&["CLIENT", "ID"])?.to_string();
    send_blocking(&mut raw, &words(line), &mut admin, DEADLINE).context(line.to_owned())?;
    Ok(BlockedConnection { raw, id, line: line.to_owned() })
}

/// Runs the script. Returns all replies, with their lines.
fn run_script(connect: &dyn Fn() -> Result<RawConnection>, protocol: &str) -> Result<Vec<String>> {
    let mut admin = connect()?;
    let (mut notes, mut blocked, mut section): (_, Vec<BlockedConnection>, _) =
        (Vec::new(), Vec::new(), "");
    for line in SCRIPT.lines().chain(["## end"]).filter(|line| !line.is_empty()) {
        if let Some(title) = line.strip_prefix("##") {
            for waiter in &mut blocked {
                admin.call(&["CLIENT", "UNBLOCK", &waiter.id, "ERROR"])?;
                let reply = show(&waiter.raw.read_reply()?);
                notes.push(format!("{section}, {}: {reply}", waiter.line));
            }
            blocked.clear();
            section = title;
            admin = connect()?;
            admin.call(&["FLUSHALL"])?;
        } else if let Some(line) = line.strip_prefix("> ") {
            blocked.push(block(connect, protocol, line)?);
        } else {
            notes.push(format!("{section}, {line}: {}", show(&admin.exchange(&words(line))?)));
        }
    }
    Ok(notes)
}

#[test]
fn replies_to_blocked_clients_are_those_of_newer_redis() -> TestResult {
    let Some(peer) = Peer::start_newer()? else { skip!("there is no newer redis-server") };
    let server = Server::start()?;
    for protocol in ["2", "3"] {
        let redis = run_script(&|| peer.raw(), protocol)?;
        let cowherd = run_script(&|| server.raw(), protocol)?;
        ensure!(redis.len() > 100, "only {} notes", redis.len());
        for (redis, cowherd) in redis.iter().zip(&cowherd) {
            ensure!(redis == cowherd, "RESP{protocol}\nredis:   {redis}\ncowherd: {cowherd}");
        }
    }
    Ok(())
}

/// The cost of blocking must be linear in the number of keys: with quadratic cost this test exceeds
/// its deadline.
#[test]
fn clients_blocked_on_very_many_streams_delay_no_other() -> TestResult {
    const STREAMS: usize = 30_000;
    let server = Server::start()?;
    let connect = || server.raw();
    let names: Vec<String> = (0..STREAMS).map(|number| format!("s{number}")).collect();
    let ids = ["$"; STREAMS];
    let line = format!("XREAD BLOCK 0 STREAMS {} {}", names.join(" "), ids.join(" "));
    let mut blocked = [block(&connect, "2", &line)?, block(&connect, "2", &line)?];
    let mut raw = server.raw()?;
    for number in 0..1_000 {
        ensure!(raw.text(&["SET", &format!("key:{number}"), "value"])? == "OK");
    }
    raw.call(&["XADD", "s29999", "1-1", "field", "value"])?;
    for waiter in &mut blocked {
        let reply = show(&waiter.raw.read_reply()?);
        ensure!(reply.contains("s29999") && reply.contains("value"), "{reply}");
    }
    Ok(())
}

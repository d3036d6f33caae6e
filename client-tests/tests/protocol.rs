//! RESP over a socket: divided, malformed, huge, pipelined and inline requests.

use anyhow::{Context, Result, ensure};
use client_tests::server::Server;
use client_tests::wire::{RawConnection, encode, show};
use client_tests::{TestResult, random};
use std::io::Write;

/// Requests and their RESP2 replies on an empty server.
const CONVERSATION: &[(&[u8], &[u8])] = &[
    (b"PING\r\n", b"+PONG\r\n"),
    (b"*2\r\n$4\r\nPING\r\n$2\r\nhi\r\n", b"$2\r\nhi\r\n"),
    (b"*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$4\r\n\x00\r\n\xff\r\n", b"+OK\r\n"),
    (b"*2\r\n$3\r\nGET\r\n$3\r\nk\r\n\r\n", b"$4\r\n\x00\r\n\xff\r\n"),
    (b"SET \"a b\" 'c d'\r\n", b"+OK\r\n"),
    (b"GET \"a\\x20b\"\n", b"$3\r\nc d\r\n"),
    (b"*0\r\n*-1\r\n\r\n*1\r\n$6\r\nDBSIZE\r\n", b":2\r\n"),
    (b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", b"$0\r\n\r\n"),
    (b"*1\r\n$4\r\nnope\r\n", b"-ERR unknown command 'nope', with args beginning with: \r\n"),
    (b"*2\r\n$3\r\nDEL\r\n$3\r\nk\r\n\r\n*2\r\n$3\r\nDEL\r\n$3\r\na b\r\n", b":1\r\n:1\r\n"),
];

fn expect(raw: &mut RawConnection, expected: &[u8]) -> Result<()> {
    let mut got = Vec::new();
    while got.len() < expected.len() {
        got.extend(raw.read_reply().with_context(|| format!("after {:?}", show(&got)))?);
    }
    ensure!(got == expected, "expected {:?}, got {:?}", show(expected), show(&got));
    Ok(())
}

/// Sends a malformed request; the server must answer with this error and close the connection.
fn expect_close(server: &Server, request: &[u8], reply: &[u8]) -> Result<()> {
    let mut raw = server.raw()?;
    raw.send(request)?;
    let got = raw.read_to_end().with_context(|| format!("{:?} stays open", show(request)))?;
    ensure!(got == reply, "{:?}: expected {:?}, got {:?}", show(request), show(reply), show(&got));
    Ok(())
}

#[test]
fn requests_divided_at_every_byte() -> TestResult {
    let server = Server::start()?;
    let requests = CONVERSATION.iter().flat_map(|(request, _)| *request).copied();
    let replies = CONVERSATION.iter().flat_map(|(_, reply)| *reply).copied();
    let (requests, replies) = (requests.collect::<Vec<u8>>(), replies.collect::<Vec<u8>>());
    for cut in 0..=requests.len() {
        let mut raw = server.raw()?;
        raw.send(&requests[..cut])?;
        // After a reply on another connection the server has most likely read the first part.
        server.text(&["PING"])?;
        raw.send(&requests[cut..])?;
        expect(&mut raw, &replies).with_context(|| format!("cut after {cut} bytes"))?;
    }
    Ok(())
}

#[test]
fn requests_byte_by_byte() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    for (request, reply) in CONVERSATION {
        for byte in *request {
            raw.send(&[*byte])?;
        }
        expect(&mut raw, reply)?;
    }
    Ok(())
}

#[test]
fn a_malformed_request_gets_an_error_and_the_connection_closes() -> TestResult {
    let server = Server::start()?;
    let cases: &[(&[u8], &[u8])] = &[
        (b"*abc\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1048577\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*99999999999999999999\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\nPING\r\n", b"-ERR Protocol error: expected '$', got 'P'\r\n"),
        (b"*1\r\n:4\r\n", b"-ERR Protocol error: expected '$', got ':'\r\n"),
        (b"*1\r\n$x\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$-1\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$536870913\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"SET \"k v\r\n", b"-ERR Protocol error: unbalanced quotes in request\r\n"),
        (b"SET 'k'v\r\n", b"-ERR Protocol error: unbalanced quotes in request\r\n"),
        // Requests before the error are answered, those after it are not.
        (b"PING\r\n*x\r\nPING\r\n", b"+PONG\r\n-ERR Protocol error: invalid multibulk length\r\n"),
    ];
    for (request, reply) in cases {
        expect_close(&server, request, reply)?;
    }
    ensure!(server.text(&["PING"])? == "PONG");
    Ok(())
}

#[test]
fn a_line_without_an_end_is_bounded() -> TestResult {
    let server = Server::start()?;
    // One byte more than allowed: the server reads all of it, so that no reset overtakes the error.
    let long = vec![b'a'; (1 << 20) + 1];
    expect_close(&server, &long, b"-ERR Protocol error: too big inline request\r\n")?;
    for (start, what) in [("*", "mbulk count"), ("*1\r\n$", "bulk count")] {
        let digits = "1".repeat(64 << 10);
        let reply = format!("-ERR Protocol error: too big {what} string\r\n");
        expect_close(&server, format!("{start}{digits}1").as_bytes(), reply.as_bytes())?;
    }
    Ok(())
}

#[test]
fn an_announced_array_takes_no_memory() -> TestResult {
    let server = Server::start()?;
    let before = resident_bytes(server.pid())?;
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let mut raw = server.raw()?;
        // A million arguments of up to 512 MB are announced, and never sent.
        raw.send(b"*1048576\r\n$536870912\r\n")?;
        waiting.push(raw);
    }
    // The workers have read those requests before they answer these.
    for _ in 0..10 {
        ensure!(server.raw()?.text(&["PING"])? == "PONG");
    }
    let grown = resident_bytes(server.pid())?.saturating_sub(before);
    ensure!(grown < 256 << 20, "50 announcements took {grown} bytes");
    Ok(())
}

fn resident_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib = line.split_whitespace().nth(1).context("no figure")?.parse::<u64>()?;
    Ok(kib << 10)
}

#[test]
fn a_big_pipeline_is_answered_in_order() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    let mut writer = raw.writer()?;
    let count = 100_000_u32;
    let sender = std::thread::spawn(move || -> Result<()> {
        let mut pipeline = Vec::new();
        for n in 0..count {
            let value = format!("{n}");
            pipeline.extend(encode(&["SET", "pipelined", &value]));
            pipeline.extend(encode(&["GET", "pipelined"]));
        }
        Ok(writer.write_all(&pipeline)?)
    });
    for n in 0..count {
        ensure!(raw.read_reply()? == b"+OK\r\n", "reply to SET {n}");
        let (reply, value) = (raw.read_reply()?, n.to_string());
        let expected = format!("${}\r\n{value}\r\n", value.len());
        ensure!(reply == expected.as_bytes(), "GET {n} replies {:?}", show(&reply));
    }
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?
}

#[test]
fn a_client_that_does_not_read_delays_no_other() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    let value = random::Random::new(7).bytes(1 << 20);
    raw.call(&[b"SET".as_slice(), b"big", &value])?;
    // 64 MB of replies exceed the socket buffer: the server must wait without blocking others.
    raw.send(&encode(&["GET", "big"]).repeat(64))?;
    for _ in 0..10 {
        ensure!(server.raw()?.text(&["PING"])? == "PONG");
    }
    let mut expected = b"$1048576\r\n".to_vec();
    expected.extend(&value);
    expected.extend(b"\r\n");
    for n in 0..64 {
        ensure!(raw.read_reply()? == expected, "reply {n} is damaged");
    }
    Ok(())
}

#[test]
fn values_of_every_size_come_back() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    let mut random = random::Random::new(random::seed());
    let edges = [0, 1, 15, 16, 17, 44, 45, 63, 64, 65, 255, 256, 4095, 4096, 4097, 16_383, 16_384];
    let large = [65_535, 65_536, 65_537, 1 << 20, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, 20 << 20];
    for length in edges.into_iter().chain(large) {
        let value = random.bytes(length);
        raw.call(&[b"SET".as_slice(), b"sized", &value])?;
        let got = raw.bytes(&["GET", "sized"])?;
        ensure!(got.as_deref() == Some(&value), "a value of {length} bytes comes back changed");
        ensure!(raw.number(&["STRLEN", "sized"])? == i64::try_from(length)?);
    }
    Ok(())
}

#[test]
fn hello_switches_the_protocol() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    ensure!(raw.exchange(&["GET", "none"])? == b"$-1\r\n");
    let reply = raw.exchange(&["HELLO", "3"])?;
    ensure!(reply.starts_with(b"%"), "HELLO 3 replies {:?}", show(&reply));
    ensure!(raw.exchange(&["GET", "none"])? == b"_\r\n");
    let reply = raw.exchange(&["HELLO"])?;
    ensure!(reply.starts_with(b"%"), "HELLO replies {:?}", show(&reply));
    let reply = raw.exchange(&["HELLO", "2"])?;
    ensure!(reply.starts_with(b"*"), "HELLO 2 replies {:?}", show(&reply));
    ensure!(raw.exchange(&["GET", "none"])? == b"$-1\r\n");
    for wrong in ["1", "4", "-1"] {
        let reply = raw.exchange(&["HELLO", wrong])?;
        ensure!(reply == b"-NOPROTO unsupported protocol version\r\n", "{:?}", show(&reply));
    }
    // A refused HELLO does not change the connection.
    ensure!(raw.exchange(&["GET", "none"])? == b"$-1\r\n");
    Ok(())
}

#[test]
fn hello_reports_the_fields_that_clients_read() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    let reply = raw.call(&["HELLO", "3", "SETNAME", "me"])?;
    let fields: std::collections::HashMap<String, redis::Value> = redis::from_redis_value(reply)?;
    for field in ["server", "version", "proto", "id", "mode", "role", "modules"] {
        ensure!(fields.contains_key(field), "HELLO lacks {field}: {fields:?}");
    }
    ensure!(fields["proto"] == redis::Value::Int(3), "{fields:?}");
    ensure!(raw.text(&["CLIENT", "GETNAME"])? == "me");
    Ok(())
}

/// A SKIP suppressed the answer of the following CLIENT REPLY ON, and a client that waited for the
/// answer read every later reply too late.
#[test]
fn replies_can_be_switched_off_and_skipped() -> TestResult {
    let server = Server::start()?;
    for (sent, expected) in [
        ("CLIENT REPLY SKIP\r\nCLIENT REPLY ON\r\nPING\r\n", "+OK\r\n+PONG\r\n"),
        ("CLIENT REPLY SKIP\r\nPING a\r\nPING b\r\n", "$1\r\nb\r\n"),
        ("CLIENT REPLY SKIP\r\nNOPE\r\nPING\r\n", "+PONG\r\n"),
        ("CLIENT REPLY OFF\r\nPING\r\nNOPE\r\nCLIENT REPLY ON\r\nPING\r\n", "+OK\r\n+PONG\r\n"),
    ] {
        let mut raw = server.raw()?;
        raw.send(sent.as_bytes())?;
        raw.finish_sending()?;
        let got = raw.read_to_end()?;
        ensure!(got == expected.as_bytes(), "{sent:?}: {:?}", show(&got));
    }
    Ok(())
}

#[test]
fn quit_and_a_half_closed_socket_get_their_replies() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    raw.send(b"PING\r\nQUIT\r\nPING\r\n")?;
    let got = raw.read_to_end()?;
    ensure!(got == b"+PONG\r\n+OK\r\n", "{:?}", show(&got));
    let mut raw = server.raw()?;
    raw.send(b"SET half done\r\nGET half\r\n")?;
    raw.finish_sending()?;
    let got = raw.read_to_end()?;
    ensure!(got == b"+OK\r\n$4\r\ndone\r\n", "{:?}", show(&got));
    Ok(())
}

#[test]
fn a_truncated_command_is_not_executed() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    raw.send(b"*3\r\n$3\r\nSET\r\n$3\r\ncut\r\n$5\r\nhal")?;
    raw.finish_sending()?;
    ensure!(raw.read_to_end()?.is_empty());
    ensure!(server.text(&["DBSIZE"])? == "0");
    Ok(())
}

#[test]
fn clients_beyond_the_limit_are_refused() -> TestResult {
    let server = Server::builder().arg("--maxclients", "10").start()?;
    let mut held = Vec::new();
    let refused = loop {
        let mut raw = server.raw()?;
        let reply = raw.exchange(&["PING"]);
        match reply {
            Ok(reply) if reply == b"+PONG\r\n" => held.push(raw),
            Ok(reply) => break reply,
            // The server closed the socket before it read PING, and the reset may discard the
            // error.
            Err(_) => break Vec::new(),
        }
        ensure!(held.len() <= 10, "{} clients got in", held.len());
    };
    ensure!(
        refused.is_empty() || refused == b"-ERR max number of clients reached\r\n",
        "{:?}",
        show(&refused)
    );
    ensure!(held.len() >= 9, "only {} clients got in", held.len());
    ensure!(held[0].text(&["PING"])? == "PONG");
    Ok(())
}

#[test]
fn random_bytes_never_stop_the_server() -> TestResult {
    let server = Server::start()?;
    let mut random = random::Random::new(random::seed());
    let pieces: [&[u8]; 12] =
        [b"*", b"$", b"\r\n", b"-1", b"3", b"SET", b"GET", b"\"", b"\0", b"4294967296", b" ", b"k"];
    for _ in 0..client_tests::rounds() * 5 {
        let mut raw = server.raw()?;
        let mut bytes = Vec::new();
        for _ in 0..random.below(40) {
            let piece = usize::try_from(random.below(pieces.len() as u64 + 1))?;
            bytes.extend(match pieces.get(piece) {
                Some(piece) => piece.to_vec(),
                None => {
                    let length = random.below(20);
                    random.bytes(length)
                }
            });
        }
        // The server may close while this is being sent.
        drop(raw.send(&bytes).and_then(|()| raw.finish_sending()));
        drop(raw.read_to_end());
        ensure!(server.text(&["PING"])? == "PONG", "after {:?}", show(&bytes));
    }
    Ok(())
}

//! Libraries of functions in payloads, which other servers exchange, and in images.

use anyhow::{Result, ensure};
use client_tests::binaries::run_cowherd;
use client_tests::peer::Peer;
use client_tests::server::Server;
use client_tests::wire::{RawConnection, show};
use client_tests::{TestResult, skip};
use cowherd_rdb::{FormatVersion, seal, write_library};

/// FUNCTION DUMP of redis-server 8.2.3, and of valkey-server 9.1.2.
const OTHER_PAYLOADS: [&[u8]; 2] = [
    b"\xf5@P#!lua name=foo\nredis.register_function('bar', function(keys,args) return '' end)\
      \x0c\x00`\x8a,\xbb/PV\x9f",
    b"\xf5@P#!lua name=foo\nredis.register_function('bar', function(keys,args) return '' end)\
      P\x00d\xd6\xd1\xeaK(\xaf\"",
];

/// The code of a library with one function, which replies `text`.
fn library(name: &str, function: &str, text: &str) -> String {
    format!(
        "#!lua name={name}\nredis.register_function('{function}', function() return '{text}' end)"
    )
}

/// A payload of libraries, as other servers make it.
fn payload(codes: &[String], version: FormatVersion) -> Vec<u8> {
    let mut payload = Vec::new();
    codes.iter().for_each(|code| write_library(&mut payload, code.as_bytes()));
    seal(&mut payload, version);
    payload
}

/// Libraries with short and long code, with code that compresses well and code that does not.
fn libraries() -> Vec<String> {
    let mut many = "#!lua name=many\n".to_owned();
    for i in 0..300_u64 {
        let scattered = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        many +=
            &format!("redis.register_function('f{i}', function() return '{scattered:x}' end)\n");
    }
    vec![library("short", "one", "1"), library("letters", "two", &"a".repeat(30_000)), many]
}

fn load(connection: &mut RawConnection, codes: &[String]) -> Result<()> {
    codes.iter().try_for_each(|code| connection.call(&["FUNCTION", "LOAD", code]).map(drop))
}

fn dump(connection: &mut RawConnection) -> Result<Vec<u8>> {
    Ok(connection.bytes(&["FUNCTION", "DUMP"])?.unwrap_or_default())
}

/// The summary of `cowherd check`, which finds the image of a server whole.
fn summary(server: &Server) -> Result<String> {
    let image = server.image();
    run_cowherd(&["check".as_ref(), image.as_os_str()])?.success()
}

/// Replies that show the libraries of [`libraries`].
fn shown(connection: &mut RawConnection) -> Result<Vec<Vec<u8>>> {
    let listed = |name: &'static str| ["FUNCTION", "LIST", "LIBRARYNAME", name, "WITHCODE"];
    let mut replies = vec![connection.exchange(&["FUNCTION", "STATS"])?];
    for name in ["short", "letters", "many"] {
        // The functions of a library have no order.
        let code = connection.exchange(&listed(name))?;
        let start = code.windows(12).position(|part| part == b"library_code");
        replies.push(code[start.unwrap_or_default()..].to_vec());
    }
    for name in ["one", "two", "f0", "f299"] {
        replies.push(connection.exchange(&["FCALL", name, "0"])?);
    }
    Ok(replies)
}

#[test]
fn payloads_are_exchanged_with_redis() -> TestResult {
    let Some(peer) = Peer::start()? else { skip!("redis-server is not installed") };
    let server = Server::start()?;
    let (mut own, mut redis) = (server.raw()?, peer.raw()?);
    for from_redis in [false, true] {
        let (from, to) = if from_redis { (&mut redis, &mut own) } else { (&mut own, &mut redis) };
        from.call(&["FUNCTION", "FLUSH"])?;
        load(from, &libraries())?;
        to.call(&["FUNCTION", "FLUSH"])?;
        to.call(&["FUNCTION", "LOAD", &library("old", "old", "")])?;
        let payload = dump(from)?;
        ensure!(payload.len() < 30_000, "not compressed: {} bytes", payload.len());
        to.call(&[b"FUNCTION", &b"RESTORE"[..], &payload, b"FLUSH"])?;
        ensure!(shown(from)? == shown(to)?);
    }
    Ok(())
}

#[test]
fn payloads_of_later_servers_are_restored() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    for payload in OTHER_PAYLOADS {
        raw.call(&[b"FUNCTION", &b"RESTORE"[..], payload, b"FLUSH"])?;
        ensure!(raw.exchange(&["FCALL", "bar", "0"])? == b"$0\r\n\r\n");
    }
    Ok(())
}

/// Each policy meets each collision, and both servers have the same libraries afterwards.
#[test]
fn restoring_fails_as_in_redis_and_changes_nothing() -> TestResult {
    let Some(peer) = Peer::start()? else { skip!("redis-server is not installed") };
    let server = Server::start()?;
    let (mut own, mut redis) = (server.raw()?, peer.raw()?);
    let current = FormatVersion::REDIS_7_0;
    let of = |codes: &[String]| payload(codes, current);
    let sealed = |body: &[u8]| {
        let mut payload = body.to_vec();
        seal(&mut payload, current);
        payload
    };
    let good = of(&[library("a", "f", "new")]);
    let mut changed = good.clone();
    changed[5] ^= 1;
    let payloads = [
        b"".to_vec(),
        b"x".to_vec(),
        good[..good.len() - 1].to_vec(),
        changed,
        payload(&[library("a", "f", "")], FormatVersion(13)),
        of(&[]),
        good,
        of(&[library("c", "g", "")]),
        of(&[library("a", "g", "")]),
        of(&[library("c", "h", ""), library("c", "i", "")]),
        of(&[library("c", "h", ""), library("d", "h", "")]),
        of(&[library("c", "h", ""), library("d", "H", "")]),
        of(&[library("c", "h", ""), "#!lua name=d\nreturn 1".to_owned()]),
        of(&[library("c", "h", ""), "#!lua name=d\nreturn (".to_owned()]),
        of(&[library("c", "h", ""), "#!js name=d\nreturn 1".to_owned()]),
        of(&["return 1".to_owned()]),
        of(&["5".to_owned()]),
        sealed(b"\x00\x03abc"),
        sealed(b"\xf5"),
        sealed(b"\xf5\x20abc"),
        sealed(b"\xf5\xc4\x05"),
        sealed(b"\xf5\xc3\x02\x41\x09\x00a"),
    ];
    for policy in [None, Some("APPEND"), Some("replace"), Some("FLUSH"), Some("MERGE")] {
        for payload in &payloads {
            let replies = [&mut own, &mut redis].map(|connection| -> Result<_> {
                connection.call(&["FUNCTION", "FLUSH"])?;
                load(connection, &[library("a", "f", "old"), library("b", "g", "old")])?;
                let mut command = vec![&b"FUNCTION"[..], b"RESTORE", payload];
                command.extend(policy.map(str::as_bytes));
                let mut replies = vec![connection.exchange(&command)?];
                replies.push(connection.exchange(&["FUNCTION", "STATS"])?);
                for name in ["f", "g", "h", "i"] {
                    replies.push(connection.exchange(&["FCALL", name, "0"])?);
                }
                Ok(replies)
            });
            let [own, redis] = replies;
            let (own, redis) = (own?.concat(), redis?.concat());
            let (payload, own, redis) = (show(payload), show(&own), show(&redis));
            ensure!(own == redis, "{policy:?} {payload}\ncowherd: {own}\nredis:   {redis}");
        }
    }
    for command in [&["FUNCTION", "DUMP", "x"][..], &["FUNCTION", "RESTORE", "x", "FLUSH", "x"]] {
        ensure!(own.exchange(command)? == redis.exchange(command)?, "{command:?}");
    }
    Ok(())
}

/// Redis 7.0 tries to read the format from before its release; later servers refuse it so.
#[test]
fn functions_from_before_the_release_are_refused_by_name() -> TestResult {
    let server = Server::start()?;
    let mut payload = b"\xf6\x01x".to_vec();
    seal(&mut payload, FormatVersion::REDIS_7_0);
    let reply = server.raw()?.exchange(&[b"FUNCTION", &b"RESTORE"[..], &payload])?;
    ensure!(reply == b"-ERR Pre-GA function format not supported\r\n", "{}", show(&reply));
    Ok(())
}

#[test]
fn functions_are_dumped_and_restored_in_transactions() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    load(&mut raw, &libraries())?;
    let (payload, before) = (dump(&mut raw)?, shown(&mut raw)?);
    let restore = |policy: &'static [u8]| [b"FUNCTION", &b"RESTORE"[..], &payload, policy];
    raw.call(&["MULTI"])?;
    raw.call(&["FUNCTION", "DUMP"])?;
    raw.call(&restore(b"APPEND"))?;
    raw.call(&["FUNCTION", "FLUSH"])?;
    raw.call(&restore(b"APPEND"))?;
    raw.call(&["FCALL", "one", "0"])?;
    let reply = raw.exchange(&["EXEC"])?;
    let mut expected = format!("*5\r\n${}\r\n", payload.len()).into_bytes();
    expected.extend_from_slice(&payload);
    expected
        .extend_from_slice(b"\r\n-ERR Library letters already exists\r\n+OK\r\n+OK\r\n$1\r\n1\r\n");
    ensure!(reply == expected, "{}", show(&reply[payload.len()..]));
    ensure!(shown(&mut raw)? == before);
    Ok(())
}

/// With the memory full, the second of two libraries does not fit: the first is not kept either.
#[test]
fn libraries_that_do_not_fit_are_restored_not_even_in_part() -> TestResult {
    let mut server = Server::builder().arg("--maxmemory", "64mb").start()?;
    let mut raw = server.raw()?;
    load(&mut raw, &[library("a", "f", "old")])?;
    let huge = |name: &str| library(name, name, &"x".repeat(40 << 20));
    let codes = [library("a", "f", "new"), huge("b"), huge("c")];
    let payload = payload(&codes, FormatVersion::REDIS_7_0);
    let reply = raw.exchange(&[b"FUNCTION", &b"RESTORE"[..], &payload, b"REPLACE"])?;
    ensure!(reply[0] == b'-', "{}", show(&reply));
    let codes = [library("a", "f", "new"), huge("b")];
    let fits = payload_of_keys_and(&mut raw, &codes)?;
    ensure!(fits.starts_with(b"-OOM"), "{}", show(&fits));
    let check = |raw: &mut RawConnection| -> Result<()> {
        ensure!(raw.text(&["FCALL", "f", "0"])? == "old");
        ensure!(raw.exchange(&["FCALL", "b", "0"])? == b"-ERR Function not found\r\n");
        Ok(())
    };
    check(&mut raw)?;
    raw.call(&["FLUSHALL"])?;
    raw.call(&["SAVE"])?;
    server.restart()?;
    check(&mut server.raw()?)
}

/// Fills half of the memory with a key, and restores libraries.
fn payload_of_keys_and(raw: &mut RawConnection, codes: &[String]) -> Result<Vec<u8>> {
    raw.call(&[b"SET", &b"key"[..], &vec![b'x'; 32 << 20]])?;
    let payload = payload(codes, FormatVersion::REDIS_7_0);
    raw.exchange(&[b"FUNCTION", &b"RESTORE"[..], &payload, b"REPLACE"])
}

#[test]
fn functions_survive_flushing_and_restarts() -> TestResult {
    let mut server = Server::start()?;
    let mut raw = server.raw()?;
    let payload = payload(&libraries(), FormatVersion::REDIS_7_4);
    raw.call(&[b"FUNCTION", &b"RESTORE"[..], &payload])?;
    let before = shown(&mut raw)?;
    for flush in ["FLUSHALL", "FLUSHDB"] {
        raw.call(&["SET", "key", "value"])?;
        raw.call(&[flush])?;
        ensure!(shown(&mut raw)? == before, "after {flush}");
    }
    raw.call(&["SAVE"])?;
    raw.call(&["FUNCTION", "FLUSH"])?;
    server.restart()?;
    let mut raw = server.raw()?;
    ensure!(shown(&mut raw)? == before, "after SAVE");
    ensure!(raw.number(&["DBSIZE"])? == 0);
    let summary = summary(&server)?;
    ensure!(summary.contains("libraries      3 (302 functions)\n"), "{summary}");

    raw.call(&["FUNCTION", "DELETE", "letters"])?;
    raw.call(&["FUNCTION", "LOAD", "REPLACE", &library("short", "one", "2")])?;
    server.bgsave_and_wait()?;
    raw.call(&["FUNCTION", "FLUSH"])?;
    server.restart()?;
    let mut raw = server.raw()?;
    ensure!(raw.text(&["FCALL", "one", "0"])? == "2");
    ensure!(raw.exchange(&["FCALL", "two", "0"])? == b"-ERR Function not found\r\n");

    // What replaces the libraries of the image is in the next image alone.
    raw.call(&[b"FUNCTION", &b"RESTORE"[..], OTHER_PAYLOADS[0], b"FLUSH"])?;
    raw.call(&["SAVE"])?;
    server.restart()?;
    let mut raw = server.raw()?;
    ensure!(raw.exchange(&["FCALL", "bar", "0"])? == b"$0\r\n\r\n");
    ensure!(raw.exchange(&["FCALL", "one", "0"])? == b"-ERR Function not found\r\n");
    Ok(())
}

#[test]
fn the_limit_of_scripts_changes_at_once() -> TestResult {
    let server = Server::builder().arg("--threads", "1").start()?;
    let mut raw = server.raw()?;
    let large = ["EVAL", "return #string.rep('x', 20000000)", "0"];
    ensure!(raw.number(&large)? == 20_000_000);
    raw.call(&["CONFIG", "SET", "lua-memory-limit", "10mb"])?;
    let reply = raw.exchange(&large)?;
    ensure!(reply.starts_with(b"-ERR not enough memory"), "{}", show(&reply));
    ensure!(raw.number(&["EVAL", "return 1", "0"])? == 1);
    raw.call(&["CONFIG", "SET", "lua-memory-limit", "0"])?;
    ensure!(raw.number(&large)? == 20_000_000);
    Ok(())
}

#[test]
fn info_has_the_figures_of_scripts() -> TestResult {
    let server = Server::builder().arg("--threads", "1").start()?;
    let mut raw = server.raw()?;
    let field = |name: &str| -> Result<u64> { Ok(server.info(name)?.parse()?) };
    let names = [
        "used_memory_vm_total",
        "used_memory_scripts",
        "number_of_cached_scripts",
        "number_of_functions",
        "evicted_scripts",
    ];
    for name in names {
        ensure!(field(name)? == 0, "{name}");
    }
    let before = field("used_memory")?;
    for i in 0..510 {
        raw.call(&["EVAL", &format!("return {i}"), "0"])?;
    }
    load(&mut raw, &libraries())?;
    ensure!(field("number_of_cached_scripts")? == 500);
    ensure!(field("evicted_scripts")? == 10);
    ensure!(field("number_of_libraries")? == 3 && field("number_of_functions")? == 302);
    ensure!(field("used_memory_functions")? > 30_000);
    let (eval, functions) = (field("used_memory_scripts_eval")?, field("used_memory_functions")?);
    ensure!(field("used_memory_scripts")? == eval + functions);
    let interpreters = field("used_memory_vm_total")?;
    ensure!(interpreters > 10_000 && interpreters == field("used_memory_lua")?);
    ensure!(field("used_memory")? >= before + eval + functions + interpreters);
    ensure!(field("used_memory_overhead")? >= eval + functions + interpreters);
    raw.call(&["SCRIPT", "FLUSH"])?;
    raw.call(&["FUNCTION", "FLUSH"])?;
    raw.call(&["CONFIG", "RESETSTAT"])?;
    for name in &names[1..] {
        ensure!(field(name)? == 0, "{name}");
    }
    Ok(())
}

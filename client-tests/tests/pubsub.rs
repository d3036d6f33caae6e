//! Publish/subscribe and keyspace events: order of messages in both protocols, compared with
//! Debian's redis-server; clients that do not read.
//!
//! `peer/pubsub.txt` contains a conversation; see [`client_tests::conversation`].

use anyhow::{Result, ensure};
use client_tests::conversation::{self, arguments, until_pong};
use client_tests::peer::Peer;
use client_tests::server::Server;
use client_tests::wire::{RawConnection, encode, show};
use client_tests::{TestResult, skip, wait::wait_until};
use std::time::Duration;

const CONVERSATION: &str = include_str!("peer/pubsub.txt");
const EVENTS: &str = include_str!("peer/events.txt");
const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn conversations_are_those_of_redis() -> TestResult {
    let Some(peer) = Peer::start()? else { skip!("redis-server is not installed") };
    let server = Server::start()?;
    for protocol in ["2", "3"] {
        let connections = [("a", protocol), ("b", protocol), ("c", protocol)];
        let redis = conversation::run(CONVERSATION, &connections, &|| peer.raw())?;
        let cowherd = conversation::run(CONVERSATION, &connections, &|| server.raw())?;
        ensure!(redis.len() > 100, "only {} notes", redis.len());
        for (redis, cowherd) in redis.iter().zip(&cowherd) {
            ensure!(redis == cowherd, "RESP{protocol}\nredis:   {redis}\ncowherd: {cowherd}");
        }
    }
    Ok(())
}

/// Events of each command of the script.
fn events(connect: &dyn Fn() -> Result<RawConnection>) -> Result<Vec<String>> {
    let (mut listener, mut raw) = (connect()?, connect()?);
    raw.call(&["CONFIG", "SET", "notify-keyspace-events", "KEAmn"])?;
    listener.exchange(&["PSUBSCRIBE", "__key*__:*"])?;
    let mut notes = Vec::new();
    for (number, line) in EVENTS.lines().filter(|line| !line.starts_with('#')).enumerate() {
        let reply = raw.exchange(&arguments(line))?;
        ensure!(reply.first() != Some(&b'-'), "{line}: {}", show(&reply));
        let events = until_pong(&mut listener, &format!("pong{number}"))?;
        let words = |event: &String| {
            let words: Vec<&str> = event.split("\\r\\n").collect();
            format!("{} {}", words[6], words[8])
        };
        notes.push(format!("{line}: {}", events.iter().map(words).collect::<Vec<_>>().join(", ")));
    }
    Ok(notes)
}

/// Debian's Redis creates consumers in other cases.
#[test]
fn events_are_those_of_newer_redis() -> TestResult {
    let Some(peer) = Peer::start_newer()? else { skip!("there is no newer redis-server") };
    let server = Server::start()?;
    let (redis, cowherd) = (events(&|| peer.raw())?, events(&|| server.raw())?);
    let differing: Vec<String> = redis
        .iter()
        .zip(&cowherd)
        .filter(|(redis, cowherd)| redis != cowherd)
        .map(|(redis, cowherd)| format!("redis:   {redis}\ncowherd: {cowherd}"))
        .collect();
    ensure!(differing.is_empty(), "{}", differing.join("\n"));
    ensure!(redis.len() > 50, "only {} commands", redis.len());
    Ok(())
}

/// In Redis a value that is set with an expiry in the past exists until its next access; Cowherd
/// deletes the value at once. The events must be the same.
#[test]
fn events_of_values_set_as_expired_are_those_of_redis() -> TestResult {
    let Some(peer) = Peer::start()? else { skip!("redis-server is not installed") };
    let server = Server::start()?;
    let events = |(mut listener, mut raw): (RawConnection, RawConnection)| -> Result<String> {
        raw.call(&["CONFIG", "SET", "notify-keyspace-events", "KEAn"])?;
        listener.exchange(&["PSUBSCRIBE", "__key*__:*"])?;
        let mut notes = Vec::new();
        for line in [
            "SET k v PXAT 1",
            "SET k v EXAT 1 NX",
            "SET k v",
            "SET k w GET PXAT 1",
            "RPUSH k a",
            "SET k w PXAT 1",
            "SET k v XX PXAT 1",
        ] {
            notes.push(show(&raw.exchange(&arguments(line))?));
            notes.push(show(&raw.exchange(&["EXISTS", "k"])?));
        }
        notes.extend(until_pong(&mut listener, "end")?);
        Ok(notes.join("\n"))
    };
    let redis = events((peer.raw()?, peer.raw()?))?;
    let cowherd = events((server.raw()?, server.raw()?))?;
    ensure!(redis == cowherd, "redis:\n{redis}\ncowherd:\n{cowherd}");
    Ok(())
}

/// A subscriber that publishes to itself receives the message after the reply, and after the
/// complete reply of EXEC, as since Redis 7.2.
#[test]
fn own_messages_follow_the_reply() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    raw.call(&["HELLO", "3"])?;
    raw.call(&["CONFIG", "SET", "notify-keyspace-events", "Es"])?;
    let message = |parts: [&str; 3]| {
        let parts = parts.map(|part| format!("${}\r\n{part}\r\n", part.len()));
        show(format!(">3\r\n{}", parts.concat()).as_bytes())
    };
    let listens = |word: &str, channel: &str, count: u32| {
        show(
            format!(
                ">3\r\n${}\r\n{word}\r\n${}\r\n{channel}\r\n:{count}\r\n",
                word.len(),
                channel.len()
            )
            .as_bytes(),
        )
    };
    let (ok, queued) = (r"+OK\r\n".to_owned(), r"+QUEUED\r\n".to_owned());
    let (none, one) = (r":0\r\n".to_owned(), r":1\r\n".to_owned());
    let (own, events) = (message(["message", "c", "text"]), "__keyevent@0__:sadd");
    let event = message(["message", events, "set"]);
    let conversation = [
        ("SUBSCRIBE c", vec![listens("subscribe", "c", 1)]),
        ("PUBLISH c text", vec![one.clone(), own.clone()]),
        ("SSUBSCRIBE s", vec![listens("ssubscribe", "s", 1)]),
        ("SPUBLISH s text", vec![one.clone(), message(["smessage", "s", "text"])]),
        ("PUBLISH other text", vec![none]),
        // Without reply, but with the message.
        ("CLIENT REPLY SKIP\nPUBLISH c text", vec![own.clone()]),
        ("SUBSCRIBE __keyevent@0__:sadd", vec![listens("subscribe", events, 2)]),
        ("SADD set member", vec![one, event.clone()]),
        (
            "MULTI\nPUBLISH c text\nSADD set other\nPUBLISH c text\nEXEC",
            vec![
                ok,
                queued.clone(),
                queued.clone(),
                queued,
                r"*3\r\n:1\r\n:1\r\n:1\r\n".to_owned(),
                own.clone(),
                event,
                own,
            ],
        ),
    ];
    for (lines, wanted) in conversation {
        for line in lines.lines() {
            raw.send(&encode(&arguments(line)))?;
        }
        let received = until_pong(&mut raw, "pong")?;
        ensure!(received == wanted, "{lines}: {received:#?}, not {wanted:#?}");
    }
    Ok(())
}

/// Keys that no command accesses expire in the background, which publishes events too.
#[test]
fn background_expiry_publishes_events() -> TestResult {
    let server = Server::start()?;
    let (mut listener, mut raw) = (server.raw()?, server.raw()?);
    raw.call(&["CONFIG", "SET", "notify-keyspace-events", "Ex"])?;
    listener.exchange(&["SUBSCRIBE", "__keyevent@0__:expired"])?;
    for number in 0..20 {
        raw.call(&["SET", &format!("key{number:02}"), "x", "PX", "5"])?;
    }
    let mut keys = Vec::new();
    for _ in 0..20 {
        let message = show(&listener.read_reply()?);
        keys.push(message.trim_end_matches("\\r\\n").rsplit("\\r\\n").next().map(str::to_owned));
    }
    keys.sort();
    let expected = (0..20).map(|number| Some(format!("key{number:02}")));
    ensure!(keys == expected.collect::<Vec<_>>(), "{keys:?}");
    Ok(())
}

#[test]
fn all_subscribers_receive_the_same_order() -> TestResult {
    const SUBSCRIBERS: usize = 200;
    const MESSAGES: usize = 300;
    let server = Server::start()?;
    let mut subscribers = Vec::new();
    for number in 0..SUBSCRIBERS {
        let mut raw = server.raw()?;
        if number % 2 == 1 {
            raw.call(&["HELLO", "3"])?;
        }
        raw.exchange(&["SUBSCRIBE", "news"])?;
        subscribers.push(raw);
    }
    std::thread::scope(|scope| -> TestResult {
        for publisher in 0..3 {
            let mut raw = server.raw()?;
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    let message = format!("{publisher} {number}");
                    let copies = raw.number(&["PUBLISH", "news", &message]);
                    assert_eq!(copies.ok(), Some(SUBSCRIBERS as i64), "{message}");
                }
            });
        }
        Ok(())
    })?;
    let mut first: Option<Vec<String>> = None;
    for (number, raw) in subscribers.iter_mut().enumerate() {
        let mut seen = Vec::new();
        for _ in 0..3 * MESSAGES {
            let message = show(&raw.read_reply()?);
            ensure!(message.starts_with(if number % 2 == 1 { '>' } else { '*' }), "{message}");
            seen.push(message[1..].to_owned());
        }
        for publisher in 0..3 {
            let own = seen.iter().filter(|message| message.contains(&format!("\\n{publisher} ")));
            let ends =
                own.enumerate().all(|(n, message)| message.ends_with(&format!(" {n}\\r\\n")));
            ensure!(ends, "subscriber {number}, publisher {publisher}");
        }
        match &first {
            None => first = Some(seen),
            Some(first) => ensure!(*first == seen, "subscriber {number} saw another order"),
        }
    }
    Ok(())
}

/// Whether the list of clients contains a connection of this name.
fn is_connected(raw: &mut RawConnection, name: &str) -> Result<bool> {
    Ok(raw.text(&["CLIENT", "LIST"])?.contains(&format!(" name={name} ")))
}

/// Reads until the connection ends; returns the number of bytes.
fn read_until_closed(raw: &mut RawConnection) -> Result<usize> {
    Ok(raw.read_to_end()?.len())
}

#[test]
fn a_subscriber_that_does_not_read_is_disconnected_at_its_limit() -> TestResult {
    let server = Server::start()?;
    let (mut slow, mut quick, mut raw) = (server.raw()?, server.raw()?, server.raw()?);
    raw.call(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 4mb 0 0"])?;
    slow.call(&["CLIENT", "SETNAME", "slow"])?;
    for subscriber in [&mut slow, &mut quick] {
        subscriber.exchange(&["SUBSCRIBE", "news"])?;
    }
    let message = "x".repeat(100_000);
    let mut sent = 0;
    while raw.number(&["PUBLISH", "news", &message])? == 2 {
        ensure!(quick.read_reply()?.len() > message.len(), "a short message");
        sent += 1;
        ensure!(sent < 1000, "{sent} messages wait to be read");
    }
    quick.read_reply()?;
    ensure!(sent > 40, "disconnected after {sent} messages");
    let read = read_until_closed(&mut slow)?;
    ensure!(read < sent * message.len(), "nothing was lost");
    ensure!(!is_connected(&mut raw, "slow")?, "the client is still in the list");
    ensure!(raw.number(&["PUBLISH", "news", "last"])? == 1);
    ensure!(show(&quick.read_reply()?).ends_with("last\\r\\n"));
    Ok(())
}

/// Only a client that exceeds its soft limit for the whole time is disconnected, subscriber or not.
#[test]
fn a_soft_limit_disconnects_after_its_time() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    let limits = "normal 0 1mb 5 pubsub 0 1mb 5";
    raw.call(&["CONFIG", "SET", "client-output-buffer-limit", limits])?;
    raw.call(&["SETRANGE", "large", "19999999", "x"])?;
    let (mut subscriber, mut reader) = (server.raw()?, server.raw()?);
    subscriber.call(&["CLIENT", "SETNAME", "subscriber"])?;
    reader.call(&["CLIENT", "SETNAME", "reader"])?;
    subscriber.exchange(&["SUBSCRIBE", "news"])?;
    reader.send(&encode(&["GET", "large"]))?;
    let message = "x".repeat(1_000_000);
    for _ in 0..20 {
        raw.call(&["PUBLISH", "news", &message])?;
    }
    for name in ["subscriber", "reader"] {
        ensure!(is_connected(&mut raw, name)?, "{name} was disconnected at once");
    }
    for name in ["subscriber", "reader"] {
        wait_until(|| Ok(!is_connected(&mut raw, name)?), DEADLINE, "a client to be disconnected")?;
    }
    ensure!(read_until_closed(&mut subscriber)? < 20_000_000);
    ensure!(read_until_closed(&mut reader)? < 20_000_000);
    let disconnections =
        || server.log().matches("more than client-output-buffer-limit allows").count();
    wait_until(|| Ok(disconnections() == 2), DEADLINE, "two lines in the log")?;
    let counted = || Ok(server.info("client_output_buffer_limit_disconnections")? == "2");
    wait_until(counted, DEADLINE, "two disconnections in INFO")?;
    Ok(())
}

#[test]
fn subscribers_can_be_listed_and_closed() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    let mut subscribers = Vec::new();
    for command in [&["SUBSCRIBE", "a"][..], &["PSUBSCRIBE", "b*"], &["SSUBSCRIBE", "c"]] {
        let mut subscriber = server.raw()?;
        subscriber.exchange(command)?;
        subscribers.push(subscriber);
    }
    let list = raw.text(&["CLIENT", "LIST", "TYPE", "pubsub"])?;
    for counts in ["sub=1 psub=0 ssub=0", "sub=0 psub=1 ssub=0", "sub=0 psub=0 ssub=1"] {
        ensure!(list.contains(&format!("flags=P db=0 {counts} ")), "{counts}:\n{list}");
    }
    for (field, value) in [
        ("pubsub_clients", "3"),
        ("pubsub_channels", "1"),
        ("pubsub_patterns", "1"),
        ("pubsubshard_channels", "1"),
    ] {
        ensure!(server.info(field)? == value, "{field}: {}", server.info(field)?);
    }
    ensure!(raw.number(&["CLIENT", "KILL", "TYPE", "pubsub"])? == 3);
    for subscriber in &mut subscribers {
        read_until_closed(subscriber)?;
    }
    wait_until(|| Ok(server.info("pubsub_clients")? == "0"), DEADLINE, "all clients to end")?;
    Ok(())
}

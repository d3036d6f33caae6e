use std::sync::Arc;

use crate::clients::{ConnectionHandle, OUTPUT_PENDING, Origin, PubSub, Session, SubscriptionKind};
use crate::commands::testing::TestServer;
use crate::config::OutputLimits;

struct NoConnection;

impl ConnectionHandle for NoConnection {
    fn close(&self) {}
}

/// Connects another client.
fn connect(bench: &TestServer) -> Session {
    let origin = Origin { peer: None, local: None, path: "test".into(), fd: 8 };
    Session::new(bench.shared.clients.connect(origin, 0, Arc::new(NoConnection)), true)
}

/// Drains the pending output.
fn pending(session: &Session) -> String {
    let mut out = Vec::new();
    session.client.drain_output(&mut out);
    String::from_utf8(out).unwrap()
}

fn check(bench: &TestServer, table: &[(&str, &str)]) {
    for (line, reply) in table {
        assert_eq!(bench.run(line), reply.replace(' ', "\r\n") + "\r\n", "{line}");
    }
}

#[test]
fn subscriptions_are_confirmed_one_by_one() {
    let bench = TestServer::new();
    check(
        &bench,
        &[
            (
                "SUBSCRIBE a b a",
                "*3 $9 subscribe $1 a :1 *3 $9 subscribe $1 b :2 *3 $9 subscribe $1 a :2",
            ),
            ("PSUBSCRIBE x*", "*3 $10 psubscribe $2 x* :3"),
            ("SSUBSCRIBE a", "*3 $10 ssubscribe $1 a :1"),
            ("UNSUBSCRIBE b nosuch", "*3 $11 unsubscribe $1 b :2 *3 $11 unsubscribe $6 nosuch :2"),
            ("UNSUBSCRIBE", "*3 $11 unsubscribe $1 a :1"),
            ("UNSUBSCRIBE", "*3 $11 unsubscribe $-1 :1"),
            ("SUNSUBSCRIBE", "*3 $12 sunsubscribe $1 a :0"),
            ("SUNSUBSCRIBE", "*3 $12 sunsubscribe $-1 :0"),
            ("PUNSUBSCRIBE", "*3 $12 punsubscribe $2 x* :0"),
            ("PUNSUBSCRIBE", "*3 $12 punsubscribe $-1 :0"),
        ],
    );
    let bench = TestServer::new().resp3();
    check(&bench, &[("SUBSCRIBE a", ">3 $9 subscribe $1 a :1")]);
    check(&bench, &[("UNSUBSCRIBE", ">3 $11 unsubscribe $1 a :0")]);
    check(&bench, &[("UNSUBSCRIBE", ">3 $11 unsubscribe _ :0")]);
}

#[test]
fn messages_come_in_the_version_of_each_subscriber() {
    let bench = TestServer::new();
    let (mut old, mut new) = (connect(&bench), connect(&bench));
    new.client.protocol.store(3, std::sync::atomic::Ordering::Relaxed);
    let pubsub = &bench.shared.pubsub;
    for session in [&mut old, &mut new] {
        pubsub.subscribe(session, SubscriptionKind::Channel, b"news");
        pubsub.subscribe(session, SubscriptionKind::Pattern, b"n?ws");
        pubsub.subscribe(session, SubscriptionKind::Shard, b"news");
    }
    assert_eq!(bench.run("PUBLISH news hello"), ":4\r\n");
    assert_eq!(bench.run("SPUBLISH news s"), ":2\r\n");
    assert_eq!(bench.run("PUBLISH nosuch x"), ":0\r\n");
    let expected = "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n\
                    *4\r\n$8\r\npmessage\r\n$4\r\nn?ws\r\n$4\r\nnews\r\n$5\r\nhello\r\n\
                    *3\r\n$8\r\nsmessage\r\n$4\r\nnews\r\n$1\r\ns\r\n";
    assert_eq!(pending(&old), expected);
    assert_eq!(pending(&new), expected.replace('*', ">"));
    pubsub.unsubscribe(&mut old, SubscriptionKind::Channel, b"news");
    pubsub.unsubscribe_all(&mut new);
    assert_eq!(bench.run("PUBLISH news x"), ":1\r\n");
    assert!(pending(&old).starts_with("*4\r\n$8\r\npmessage\r\n"));
    assert_eq!(new.client.signals() & OUTPUT_PENDING, 0);
    pubsub.unsubscribe_all(&mut old);
    let counts = (pubsub.clients(), pubsub.channels(), pubsub.patterns(), pubsub.shard_channels());
    assert_eq!(counts, (0, 0, 0, 0));
}

/// Regression: a message that was published before the unsubscription followed its confirmation.
#[test]
fn no_message_follows_an_unsubscription() {
    let bench = TestServer::new();
    bench.run("SUBSCRIBE a");
    bench.shared.pubsub.publish(&OutputLimits::default(), b"a", b"last");
    check(&bench, &[("UNSUBSCRIBE a", "*3 $7 message $1 a $4 last *3 $11 unsubscribe $1 a :0")]);
    bench.shared.pubsub.publish(&OutputLimits::default(), b"a", b"too late");
    check(&bench, &[("UNSUBSCRIBE", "*3 $11 unsubscribe $-1 :0")]);
}

#[test]
fn pubsub_tells_who_listens() {
    let bench = TestServer::new();
    let mut other = connect(&bench);
    let pubsub: &PubSub = &bench.shared.pubsub;
    pubsub.subscribe(&mut other, SubscriptionKind::Channel, b"b1");
    pubsub.subscribe(&mut other, SubscriptionKind::Shard, b"s1");
    bench.run("SUBSCRIBE b1 c");
    bench.run("PSUBSCRIBE * b*");
    check(
        &bench,
        &[
            ("PUBSUB CHANNELS b*", "*1 $2 b1"),
            ("PUBSUB CHANNELS x", "*0"),
            ("PUBSUB NUMSUB", "*0"),
            ("PUBSUB NUMSUB b1 c d", "*6 $2 b1 :2 $1 c :1 $1 d :0"),
            ("PUBSUB NUMPAT", ":2"),
            ("PUBSUB SHARDCHANNELS", "*1 $2 s1"),
            ("PUBSUB SHARDCHANNELS t*", "*0"),
            ("PUBSUB SHARDNUMSUB s1 b1", "*4 $2 s1 :1 $2 b1 :0"),
        ],
    );
    let mut channels: Vec<String> =
        bench.run("PUBSUB CHANNELS").lines().skip(2).step_by(2).map(str::to_owned).collect();
    channels.sort();
    assert_eq!(channels, ["b1", "c"]);
    assert_eq!(
        bench.run("PUBSUB CHANNELS a b"),
        "-ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. Try PUBSUB HELP.\r\n"
    );
    assert!(bench.run("PUBSUB HELP").starts_with("*13\r\n+PUBSUB <subcommand> "));
    let info = bench.run("INFO");
    for line in
        ["pubsub_channels:2", "pubsub_patterns:2", "pubsubshard_channels:1", "pubsub_clients:2"]
    {
        assert!(info.contains(&format!("{line}\r\n")), "{line}");
    }
    let list = bench.run("CLIENT LIST TYPE pubsub");
    assert!(list.contains(" sub=2 psub=2 ssub=0 ") && list.contains(" sub=1 psub=0 ssub=1 "));
    assert!(list.contains(" flags=PU "), "{list}");
}

#[test]
fn a_subscriber_pings_and_resets() {
    let bench = TestServer::new();
    bench.run("SUBSCRIBE a");
    check(&bench, &[("PING", "*2 $4 pong $0 "), ("PING hi", "*2 $4 pong $2 hi")]);
    check(&bench, &[("RESET", "+RESET"), ("PING", "+PONG"), ("PUBLISH a x", ":0")]);
    assert_eq!(bench.shared.pubsub.clients(), 0);
}

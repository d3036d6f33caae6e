//! Tests of clients blocked on keys, of subscribers and of deferred replies, over real sockets and
//! on two workers.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;

use super::{Named as _, TestClient, TestServer};
use crate::commands::Shared;
use crate::keyspace::ShardSet;

impl TestServer {
    pub(super) fn shared(&self) -> &Shared {
        self.engine.shared()
    }

    /// Sends a blocking command and returns once its client is blocked.
    pub(super) fn block<S: Read + Write>(&self, client: &mut TestClient<S>, line: &str) {
        let before = self.shared().blocked_clients.count();
        client.send(line);
        self.wait_until(|shared| shared.blocked_clients.count() > before);
    }

    pub(super) fn assert_none_blocked(&self) {
        let waits = &self.shared().blocked_clients;
        assert_eq!((waits.count(), waits.keys()), (0, 0));
    }
}

impl<S: Read + Write> TestClient<S> {
    /// The next `count` lines, joined by blanks.
    pub(super) fn lines(&mut self, count: usize) -> String {
        (0..count).map(|_| self.line()).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn clients_are_served_in_the_order_in_which_they_blocked() {
    let server = TestServer::new();
    let (mut admin, mut a, mut b, mut c) =
        (server.tcp(), server.tcp(), server.unix(), server.tcp());
    server.block(&mut a, "TEST.TAKE q other 0");
    server.block(&mut b, "TEST.TAKE q 0");
    server.block(&mut c, "TEST.TAKE other q 0");
    assert_eq!(server.shared().blocked_clients.keys(), 2);
    for value in 1..=3 {
        assert_eq!(admin.ask(&format!("TEST.PUT q {value}")), "+OK");
    }
    assert_eq!(a.lines(5), "*2 $1 q $1 1");
    assert_eq!(b.lines(5), "*2 $1 q $1 2");
    assert_eq!(c.lines(5), "*2 $1 q $1 3");
    server.assert_none_blocked();
    assert_eq!(admin.ask("EXISTS q other"), ":0");
}

/// No other command can take the value before the blocked client, not even a later one of the
/// client that wrote the value.
#[test]
fn a_written_value_goes_to_the_blocked_client_at_once() {
    let server = TestServer::new();
    let (mut admin, mut waits) = (server.tcp(), server.tcp());
    server.block(&mut waits, "TEST.TAKE q 0");
    admin.send("TEST.PUT q x\r\nEXISTS q\r\nTEST.DROP q");
    assert_eq!(admin.lines(3), "+OK :0 :0");
    assert_eq!(waits.lines(5), "*2 $1 q $1 x");
}

#[test]
fn serving_a_client_can_unblock_further_clients() {
    let server = TestServer::new();
    let (mut admin, mut a, mut b, mut c) =
        (server.tcp(), server.tcp(), server.unix(), server.tcp());
    // Three keys, so that several shards are involved.
    server.block(&mut c, "TEST.TAKE k3 0");
    server.block(&mut b, "TEST.MOVE k2 k3 0");
    server.block(&mut a, "TEST.MOVE k1 k2 0");
    admin.send("TEST.PUT k1 v\r\nEXISTS k1 k2 k3");
    assert_eq!(admin.lines(2), "+OK :0");
    assert_eq!((a.lines(2), b.lines(2)), ("$1 v".into(), "$1 v".into()));
    assert_eq!(c.lines(5), "*2 $2 k3 $1 v");
    server.assert_none_blocked();
}

#[test]
fn requests_behind_a_blocked_one_run_after_it() {
    let server = TestServer::new();
    let (mut admin, mut waits) = (server.tcp(), server.tcp());
    server.block(&mut waits, "ECHO before\r\nTEST.TAKE q 0\r\nECHO after");
    assert_eq!(waits.lines(2), "$6 before");
    waits.send("ECHO later");
    assert_eq!(admin.ask("TEST.PUT q x"), "+OK");
    assert_eq!(waits.lines(9), "*2 $1 q $1 x $5 after $5 later");
    assert_eq!(waits.ask("PING"), "+PONG");
}

#[test]
fn a_blocked_client_is_unblocked_at_its_timeout() {
    let server = TestServer::new();
    let mut client = server.tcp();
    assert_eq!(client.ask("TEST.TAKE q 0.001"), "*-1");
    assert_eq!(client.ask("TEST.MOVE q r 0.0001"), "$-1");
    client.send("HELLO 3");
    assert_eq!(client.line(), "%7");
    client.lines(25);
    assert_eq!(client.ask("TEST.TAKE q 0.01"), "_");
    for (timeout, error) in [
        ("x", "-ERR timeout is not a float or out of range"),
        ("-1", "-ERR timeout is negative"),
        ("1e300", "-ERR timeout is out of range"),
        ("9223372036854776", "-ERR timeout is out of range"),
    ] {
        assert_eq!(client.ask(&format!("TEST.TAKE q {timeout}")), error, "{timeout}");
    }
    client.send("SET g 1");
    assert_eq!(client.line(), "+OK");
    assert_eq!(client.ask("TEST.GUARD g 1.5"), "-ERR timeout is not an integer or out of range");
    assert_eq!(client.ask("TEST.GUARD g -1"), "-ERR timeout is negative");
    assert_eq!(client.ask("TEST.GUARD g 9223372036854775807"), "-ERR timeout is out of range");
    server.assert_none_blocked();
}

#[test]
fn client_unblock_ends_the_wait_of_another_client() {
    let server = TestServer::new();
    let mut admin = server.tcp();
    let (mut a, mut b) = (server.tcp(), server.tcp());
    a.named("a");
    b.named("b");
    server.block(&mut a, "TEST.TAKE q 0");
    server.block(&mut b, "TEST.TAKE q 0");
    let id = |name| server.client(name, |_| true).id;
    admin.send("CLIENT LIST");
    let list: String = (0..5).map(|_| admin.line() + "\n").collect();
    let waiting = |line: &str| line.contains(" name=a age=") && line.contains(" flags=b ");
    assert!(list.lines().any(waiting), "{list}");
    assert_eq!(admin.ask(&format!("CLIENT UNBLOCK {}", id("a"))), ":1");
    assert_eq!(a.line(), "*-1");
    assert_eq!(admin.ask(&format!("CLIENT UNBLOCK {} ERROR", id("b"))), ":1");
    assert_eq!(b.line(), "-UNBLOCKED client unblocked via CLIENT UNBLOCK");
    assert_eq!(server.shared().telemetry.errors(), [("UNBLOCKED", 1)]);
    assert_eq!(admin.ask(&format!("CLIENT UNBLOCK {}", id("b"))), ":0");
    assert_eq!((a.ask("PING"), b.ask("PING")), ("+PONG".into(), "+PONG".into()));
    server.assert_none_blocked();
}

#[test]
fn a_disconnected_client_is_not_served() {
    let server = TestServer::new();
    let mut admin = server.tcp();
    let (mut a, mut b, mut c) = (server.tcp(), server.tcp(), server.unix());
    b.named("b");
    server.block(&mut a, "TEST.TAKE q 0");
    server.block(&mut b, "TEST.TAKE q 0");
    server.block(&mut c, "TEST.TAKE q 0");
    drop(a);
    server.wait_until(|shared| shared.blocked_clients.count() == 2);
    let id = server.client("b", |_| true).id;
    assert_eq!(admin.ask(&format!("CLIENT KILL ID {id}")), ":1");
    server.wait_until(|shared| shared.blocked_clients.count() == 1);
    assert_eq!(admin.ask("TEST.PUT q x"), "+OK");
    assert_eq!(c.lines(5), "*2 $1 q $1 x");
    server.assert_none_blocked();
}

#[test]
fn an_error_of_the_retried_command_ends_the_wait() {
    let server = TestServer::new();
    let (mut admin, mut a, mut b) = (server.tcp(), server.tcp(), server.tcp());
    server.block(&mut a, "TEST.TAKE q 0");
    server.block(&mut b, "TEST.TAKE q 0");
    assert_eq!(admin.ask("TEST.PUT q wrong"), "+OK");
    let error = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    assert_eq!((a.line(), b.line()), (error.into(), error.into()));
    server.assert_none_blocked();
}

#[test]
fn deleting_a_key_unblocks_the_clients_that_wait_for_its_deletion() {
    let server = TestServer::new();
    let (mut admin, mut guards, mut takes) = (server.tcp(), server.tcp(), server.tcp());
    assert_eq!(admin.ask("SET g 1"), "+OK");
    server.block(&mut guards, "TEST.GUARD g 0");
    server.block(&mut takes, "TEST.TAKE other 0");
    assert_eq!(admin.ask("TEST.PUT g 2"), "+OK");
    assert_eq!(server.shared().blocked_clients.count(), 2, "it is still there");
    assert_eq!(admin.ask("TEST.DROP g"), ":1");
    assert_eq!(guards.line(), "-UNBLOCKED it is gone");
    assert_eq!(server.shared().blocked_clients.count(), 1);
}

#[test]
fn blocking_commands_in_a_transaction_time_out_and_its_keys_are_served_afterwards() {
    let server = TestServer::new();
    let (mut admin, mut a, mut b) = (server.tcp(), server.tcp(), server.unix());
    admin.send("MULTI\r\nTEST.TAKE q 0\r\nTEST.MOVE q r 0\r\nEXEC");
    assert_eq!(admin.lines(6), "+OK +QUEUED +QUEUED *2 *-1 $-1");
    server.block(&mut a, "TEST.TAKE q 0");
    server.block(&mut b, "TEST.TAKE other q 0");
    // A key that the transaction deletes again wakes no client.
    admin.send("MULTI\r\nTEST.PUT q 1\r\nTEST.DROP q\r\nEXEC");
    assert_eq!(admin.lines(6), "+OK +QUEUED +QUEUED *2 +OK :1");
    assert_eq!(server.shared().blocked_clients.count(), 2);
    admin.send("MULTI\r\nTEST.PUT q 2\r\nTEST.PUT other 3\r\nEXISTS q other\r\nEXEC");
    assert_eq!(admin.lines(8), "+OK +QUEUED +QUEUED +QUEUED *3 +OK +OK :2");
    assert_eq!((a.lines(5), b.lines(5)), ("*2 $1 q $1 2".into(), "*2 $5 other $1 3".into()));
    assert_eq!(admin.ask("EXISTS q other"), ":0");
    server.assert_none_blocked();
}

/// A rename, copy or move to a key that a client waits for counts as a write to that key.
#[test]
fn renamed_copied_and_moved_keys_are_served() {
    let server = TestServer::new();
    let (mut admin, mut client) = (server.tcp(), server.tcp());
    for command in ["RENAME from q", "RENAMENX from q", "COPY from q", "SWAPDB 0 3", "SET q x"] {
        let (db, key) = if command.starts_with("SWAPDB") { (3, "q") } else { (0, "from") };
        admin.send(&format!("FLUSHALL\r\nSELECT {db}\r\nSET {key} x\r\nSELECT 0"));
        assert_eq!(admin.lines(4), "+OK +OK +OK +OK");
        server.block(&mut client, "TEST.TAKE q 0");
        assert!(!admin.ask(command).starts_with('-'), "{command}");
        assert_eq!(client.lines(5), "*2 $1 q $1 x", "{command}");
    }
    admin.send("FLUSHALL\r\nSELECT 3\r\nSET q y");
    assert_eq!(admin.lines(3), "+OK +OK +OK");
    server.block(&mut client, "TEST.TAKE q 0");
    assert_eq!(admin.ask("MOVE q 0"), ":1");
    assert_eq!(client.lines(5), "*2 $1 q $1 y");
    server.assert_none_blocked();
}

#[test]
fn emptied_databases_unblock_the_clients_that_wait_for_deletion() {
    let server = TestServer::new();
    let (mut admin, mut guards, mut takes) = (server.tcp(), server.tcp(), server.tcp());
    for command in ["FLUSHALL", "FLUSHDB", "SWAPDB 0 5", "RENAME g other", "MOVE g 1"] {
        admin.send("FLUSHALL\r\nSET g 1");
        assert_eq!(admin.lines(2), "+OK +OK");
        server.block(&mut guards, "TEST.GUARD g 0");
        admin.ask(command);
        assert_eq!(guards.line(), "-UNBLOCKED it is gone", "{command}");
    }
    // No command deletes the key: a read finds that its time to live is over.
    assert_eq!(admin.ask("SET g 1 PX 200"), "+OK");
    guards.send("TEST.GUARD g 0");
    while admin.ask("EXISTS g") == ":1" {
        std::thread::yield_now();
    }
    assert_eq!(guards.line(), "-UNBLOCKED it is gone");
    server.block(&mut takes, "TEST.TAKE q 0");
    assert_eq!(admin.ask("FLUSHALL"), "+OK");
    assert_eq!(server.shared().blocked_clients.count(), 1);
    assert_eq!(admin.ask("SET q 1"), "+OK");
    assert_eq!(takes.lines(5), "*2 $1 q $1 1");
}

/// The late reply of a blocked command is suppressed like any other.
#[test]
fn client_reply_off_suppresses_the_reply_of_a_blocked_command() {
    let server = TestServer::new();
    let (mut admin, mut silent) = (server.tcp(), server.tcp());
    server.block(&mut silent, "CLIENT REPLY OFF\r\nTEST.TAKE q 0\r\nCLIENT REPLY ON");
    assert_eq!(admin.ask("TEST.PUT q x"), "+OK");
    assert_eq!(silent.line(), "+OK");
    assert_eq!(admin.ask("EXISTS q"), ":0");
}

#[test]
fn concurrent_producers_and_blocked_consumers_lose_no_value() {
    const VALUES: usize = 500;
    let server = TestServer::new();
    std::thread::scope(|scope| {
        let takers: Vec<_> = (0..4)
            .map(|taker| {
                let mut client = server.tcp();
                scope.spawn(move || {
                    let mut taken = Vec::new();
                    loop {
                        client.send(&format!("TEST.TAKE q{} q{} 0", taker % 2, (taker + 1) % 2));
                        let value = client.lines(5).split_off("*2 $2 q0 ".len());
                        if value == "$3 end" {
                            return taken;
                        }
                        taken.push(value);
                    }
                })
            })
            .collect();
        let givers: Vec<_> = (0..2)
            .map(|giver| {
                let (mut client, server) = (server.unix(), &server);
                scope.spawn(move || {
                    for n in 0..VALUES {
                        // With two blocked clients, no producer overwrites its previous value.
                        server.wait_until(|shared| shared.blocked_clients.count() >= 2);
                        assert_eq!(client.ask(&format!("TEST.PUT q{giver} {giver}{n:03}")), "+OK");
                    }
                })
            })
            .collect();
        givers.into_iter().for_each(|giver| giver.join().unwrap());
        let mut client = server.tcp();
        for left in (0..4).rev() {
            server.wait_until(|shared| shared.blocked_clients.count() == left + 1);
            assert_eq!(client.ask("TEST.PUT q0 end"), "+OK");
        }
        let mut taken: Vec<String> =
            takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect();
        taken.sort();
        let given = (0..2).flat_map(|giver| (0..VALUES).map(move |n| format!("$4 {giver}{n:03}")));
        assert_eq!(taken, given.collect::<Vec<_>>());
    });
    server.assert_none_blocked();
}

#[test]
fn messages_reach_subscribers_on_all_workers() {
    let server = TestServer::new();
    let mut publisher = server.tcp();
    let mut subscribers: Vec<_> = (0..10).map(|_| server.tcp()).collect();
    for subscriber in &mut subscribers {
        subscriber.send("SUBSCRIBE a b");
        assert_eq!(subscriber.lines(12), "*3 $9 subscribe $1 a :1 *3 $9 subscribe $1 b :2");
    }
    for n in 0..1000 {
        let channel = if n % 3 == 0 { "b" } else { "a" };
        publisher.send(&format!("PUBLISH {channel} {n:04}"));
    }
    for _ in 0..1000 {
        assert_eq!(publisher.line(), ":10");
    }
    for subscriber in &mut subscribers {
        for n in 0..1000 {
            let channel = if n % 3 == 0 { "b" } else { "a" };
            assert_eq!(subscriber.lines(7), format!("*3 $7 message $1 {channel} $4 {n:04}"));
        }
    }
    drop(subscribers);
    server.wait_until(|shared| shared.pubsub.clients() == 0);
    assert_eq!(publisher.ask("PUBLISH a x"), ":0");
}

#[test]
fn a_resp2_subscriber_may_only_subscribe_and_ping_and_a_resp3_one_may_do_all() {
    let server = TestServer::new();
    let mut client = server.tcp();
    client.send("SSUBSCRIBE s");
    assert_eq!(client.lines(6), "*3 $10 ssubscribe $1 s :1");
    let refused = "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
                   this context";
    for (line, name) in [("GET a", "get"), ("CLIENT ID", "client|id"), ("PUBLISH a b", "publish")] {
        assert_eq!(client.ask(line), format!("-ERR Can't execute '{name}': {refused}"));
    }
    assert_eq!(client.ask("GET"), "-ERR wrong number of arguments for 'get' command");
    assert_eq!(client.ask("RESET"), "+RESET");
    client.send("HELLO 3");
    client.lines(26);
    client.send("SUBSCRIBE s");
    assert_eq!(client.lines(6), ">3 $9 subscribe $1 s :1");
    client.send("PUBLISH s x\r\nPING");
    assert_eq!(client.lines(9), ":1 >3 $7 message $1 s $1 x +PONG");
}

/// Confirmations and messages are not replies.
#[test]
fn client_reply_off_does_not_suppress_messages() {
    let server = TestServer::new();
    let (mut admin, mut client) = (server.tcp(), server.tcp());
    client.send("CLIENT REPLY OFF\r\nSUBSCRIBE a\r\nPING");
    assert_eq!(client.lines(6), "*3 $9 subscribe $1 a :1");
    assert_eq!(admin.ask("PUBLISH a x"), ":1");
    assert_eq!(client.lines(7), "*3 $7 message $1 a $1 x");
}

#[test]
fn a_slow_subscriber_is_disconnected_without_delaying_the_others() {
    let server = TestServer::new();
    let mut admin = server.tcp();
    let config = &server.shared().config;
    config.update(&[("client-output-buffer-limit", "pubsub 1mb 0 0")]).unwrap();
    let (mut slow, mut quick) = (server.unix(), server.unix());
    for client in [&mut slow, &mut quick] {
        client.send("SUBSCRIBE a");
        client.lines(6);
    }
    let message = "x".repeat(10_000);
    let mut sent = 0;
    while server.shared().pubsub.clients() == 2 {
        admin.send(&format!("PUBLISH a {message}"));
        admin.line();
        assert!(quick.lines(7).ends_with(&message));
        sent += 1;
        assert!(sent < 10_000, "the subscriber was not disconnected");
    }
    assert!(sent > 100, "disconnected after {sent} messages");
    let mut rest = Vec::new();
    // A connection reset is an end of file too.
    let _ = slow.0.read_to_end(&mut rest);
    assert!(rest.len() < sent * 10_000);
    assert_eq!(admin.ask("PUBLISH a last"), ":1");
    assert_eq!(quick.lines(7), "*3 $7 message $1 a $4 last");
    assert_eq!(server.shared().clients.count(), 2);
    assert!(server.shared().clients.list().iter().all(|client| client.backlog() == 0));
}

#[test]
fn sorted_set_members_go_to_the_blocked_clients() {
    let server = TestServer::new();
    let (mut admin, mut a, mut b, mut c) =
        (server.tcp(), server.tcp(), server.unix(), server.tcp());
    server.block(&mut a, "BZPOPMIN other z 0");
    server.block(&mut b, "BZPOPMAX z 0");
    server.block(&mut c, "BZMPOP 0 2 z other MIN COUNT 2");
    // A key of another type wakes no client.
    assert_eq!(admin.ask("SET z string"), "+OK");
    assert_eq!(admin.ask("DEL z"), ":1");
    assert_eq!(admin.ask("ZADD z 1 a 2 b 3 c 4 d"), ":4");
    assert_eq!(a.lines(7), "*3 $1 z $1 a $1 1");
    assert_eq!(b.lines(7), "*3 $1 z $1 d $1 4");
    assert_eq!(c.lines(14), "*2 $1 z *2 *2 $1 b $1 2 *2 $1 c $1 3");
    server.assert_none_blocked();
    assert_eq!(admin.ask("EXISTS z"), ":0");
    server.block(&mut a, "BZPOPMIN z 0");
    assert_eq!(admin.ask("ZINCRBY z 2.5 m"), "$3");
    assert_eq!(admin.line(), "2.5");
    assert_eq!(a.lines(7), "*3 $1 z $1 m $3 2.5");
    assert_eq!(admin.ask("ZADD x 1 m"), ":1");
    server.block(&mut a, "BZPOPMIN z 0");
    assert_eq!(admin.ask("ZUNIONSTORE z 1 x"), ":1");
    assert_eq!(a.lines(7), "*3 $1 z $1 m $1 1");
    assert_eq!(a.ask("BZPOPMIN z 0.001"), "*-1");
    assert_eq!(a.ask("BZMPOP 0.001 1 z MAX"), "*-1");
}

/// BGSAVE blocked the worker thread until the fork was done, and with it the worker's other
/// clients.
#[test]
fn a_client_that_waits_for_a_fork_does_not_block_its_worker() {
    let server = TestServer::new();
    let (mut asks, mut others) = (server.tcp(), [(); 4].map(|()| server.tcp()));
    asks.named("asks");
    let shared = server.shared();
    let bgsave = shared.table.rows().iter().position(|row| &*row.name == "bgsave").unwrap() as u64;
    // A held shard keeps the checkpoint from its safepoint, so the fork does not happen.
    let held = shared.keyspace.lock(ShardSet::ALL, 0);
    asks.send("BGSAVE\r\nECHO after");
    server.client("asks", |client| client.last_command.load(Ordering::Relaxed) == bgsave + 1);
    for other in &mut others {
        assert_eq!(other.ask("PING"), "+PONG");
    }
    assert_eq!(others[0].ask("BGSAVE"), "-ERR Background save already in progress");
    let id = server.client("asks", |_| true).id;
    assert_eq!(others[1].ask(&format!("CLIENT UNBLOCK {id}")), ":0", "it waits for no key");
    drop(held);
    assert_eq!(asks.lines(3), "+Background saving started $5 after");
}

#[test]
fn a_failed_fork_is_replied_and_counted() {
    let server = TestServer::new();
    let mut client = server.tcp();
    std::fs::remove_dir_all(&server.shared().config.current().dir).unwrap();
    let refused = client.ask("BGSAVE");
    assert!(refused.starts_with("-ERR cannot checkpoint: cannot create"), "{refused}");
    client.send("CLIENT REPLY OFF\r\nBGSAVE\r\nCLIENT REPLY ON");
    assert_eq!(client.line(), "+OK", "a client that wants no reply gets none");
    client.send("INFO errorstats");
    let stats = client.lines(4);
    assert!(stats.contains("errorstat_ERR:count=2"), "{stats}");
    client.send("INFO commandstats");
    let stats: String =
        std::iter::from_fn(|| Some(client.line())).take_while(|line| !line.is_empty()).collect();
    let bgsave = stats.split("cmdstat_").find(|line| line.starts_with("bgsave:"));
    assert!(
        bgsave.is_some_and(|line| line.contains("calls=2,") && line.contains("failed_calls=2")),
        "{stats}"
    );
}

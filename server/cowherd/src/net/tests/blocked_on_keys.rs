//! Clients that wait for keys, and clients that wait for messages, over real sockets and on two
//! workers.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Named as _, PATIENCE, TestClient, TestServer};
use crate::commands::Shared;
use crate::keyspace::ShardSet;

impl TestServer {
    pub(super) fn shared(&self) -> &Shared {
        self.house.shared()
    }

    fn until(&self, holds: impl Fn(&Shared) -> bool) {
        let since = Instant::now();
        while !holds(self.shared()) {
            assert!(since.elapsed() < PATIENCE, "it did not come to that");
            std::thread::yield_now();
        }
    }

    /// Sends a command that waits, and returns once it does.
    pub(super) fn block<S: Read + Write>(&self, talk: &mut TestClient<S>, line: &str) {
        let before = self.shared().waits.clients();
        talk.send(line);
        self.until(|shared| shared.waits.clients() > before);
    }

    pub(super) fn idle(&self) {
        let waits = &self.shared().waits;
        assert_eq!((waits.clients(), waits.keys()), (0, 0));
    }
}

impl<S: Read + Write> TestClient<S> {
    /// So many lines, with blanks between them.
    pub(super) fn lines(&mut self, count: usize) -> String {
        (0..count).map(|_| self.line()).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn who_came_first_is_served_first() {
    let open = TestServer::new();
    let (mut admin, mut a, mut b, mut c) = (open.tcp(), open.tcp(), open.unix(), open.tcp());
    open.block(&mut a, "TEST.TAKE q other 0");
    open.block(&mut b, "TEST.TAKE q 0");
    open.block(&mut c, "TEST.TAKE other q 0");
    assert_eq!(open.shared().waits.keys(), 2);
    for value in 1..=3 {
        assert_eq!(admin.ask(&format!("TEST.PUT q {value}")), "+OK");
    }
    assert_eq!(a.lines(5), "*2 $1 q $1 1");
    assert_eq!(b.lines(5), "*2 $1 q $1 2");
    assert_eq!(c.lines(5), "*2 $1 q $1 3");
    open.idle();
    assert_eq!(admin.ask("EXISTS q other"), ":0");
}

/// Nobody comes between a key and the one who waits for it, not even the one who set it.
#[test]
fn what_is_put_goes_to_the_waiter_at_once() {
    let open = TestServer::new();
    let (mut admin, mut waits) = (open.tcp(), open.tcp());
    open.block(&mut waits, "TEST.TAKE q 0");
    admin.send("TEST.PUT q x\r\nEXISTS q\r\nTEST.DROP q");
    assert_eq!(admin.lines(3), "+OK :0 :0");
    assert_eq!(waits.lines(5), "*2 $1 q $1 x");
}

#[test]
fn one_who_is_served_may_serve_others() {
    let open = TestServer::new();
    let (mut admin, mut a, mut b, mut c) = (open.tcp(), open.tcp(), open.unix(), open.tcp());
    // Many keys, so that they are in many shards.
    open.block(&mut c, "TEST.TAKE k3 0");
    open.block(&mut b, "TEST.MOVE k2 k3 0");
    open.block(&mut a, "TEST.MOVE k1 k2 0");
    admin.send("TEST.PUT k1 v\r\nEXISTS k1 k2 k3");
    assert_eq!(admin.lines(2), "+OK :0");
    assert_eq!((a.lines(2), b.lines(2)), ("$1 v".into(), "$1 v".into()));
    assert_eq!(c.lines(5), "*2 $2 k3 $1 v");
    open.idle();
}

#[test]
fn requests_behind_one_that_waits_run_afterwards() {
    let open = TestServer::new();
    let (mut admin, mut waits) = (open.tcp(), open.tcp());
    open.block(&mut waits, "ECHO before\r\nTEST.TAKE q 0\r\nECHO after");
    assert_eq!(waits.lines(2), "$6 before");
    waits.send("ECHO later");
    assert_eq!(admin.ask("TEST.PUT q x"), "+OK");
    assert_eq!(waits.lines(9), "*2 $1 q $1 x $5 after $5 later");
    assert_eq!(waits.ask("PING"), "+PONG");
}

#[test]
fn a_wait_ends_with_its_time() {
    let open = TestServer::new();
    let mut talk = open.tcp();
    assert_eq!(talk.ask("TEST.TAKE q 0.001"), "*-1");
    assert_eq!(talk.ask("TEST.MOVE q r 0.0001"), "$-1");
    talk.send("HELLO 3");
    assert_eq!(talk.line(), "%7");
    talk.lines(25);
    assert_eq!(talk.ask("TEST.TAKE q 0.01"), "_");
    for (timeout, error) in [
        ("x", "-ERR timeout is not a float or out of range"),
        ("-1", "-ERR timeout is negative"),
        ("1e300", "-ERR timeout is out of range"),
        ("9223372036854776", "-ERR timeout is out of range"),
    ] {
        assert_eq!(talk.ask(&format!("TEST.TAKE q {timeout}")), error, "{timeout}");
    }
    talk.send("SET g 1");
    assert_eq!(talk.line(), "+OK");
    assert_eq!(talk.ask("TEST.GUARD g 1.5"), "-ERR timeout is not an integer or out of range");
    assert_eq!(talk.ask("TEST.GUARD g -1"), "-ERR timeout is negative");
    assert_eq!(talk.ask("TEST.GUARD g 9223372036854775807"), "-ERR timeout is out of range");
    open.idle();
}

#[test]
fn others_can_end_a_wait() {
    let open = TestServer::new();
    let mut admin = open.tcp();
    let (mut a, mut b) = (open.tcp(), open.tcp());
    a.named("a");
    b.named("b");
    open.block(&mut a, "TEST.TAKE q 0");
    open.block(&mut b, "TEST.TAKE q 0");
    let id = |name| open.client(name, |_| true).id;
    admin.send("CLIENT LIST");
    let list: String = (0..5).map(|_| admin.line() + "\n").collect();
    let waiting = |line: &str| line.contains(" name=a age=") && line.contains(" flags=b ");
    assert!(list.lines().any(waiting), "{list}");
    assert_eq!(admin.ask(&format!("CLIENT UNBLOCK {}", id("a"))), ":1");
    assert_eq!(a.line(), "*-1");
    assert_eq!(admin.ask(&format!("CLIENT UNBLOCK {} ERROR", id("b"))), ":1");
    assert_eq!(b.line(), "-UNBLOCKED client unblocked via CLIENT UNBLOCK");
    assert_eq!(admin.ask(&format!("CLIENT UNBLOCK {}", id("b"))), ":0");
    assert_eq!((a.ask("PING"), b.ask("PING")), ("+PONG".into(), "+PONG".into()));
    open.idle();
}

#[test]
fn who_leaves_is_not_served() {
    let open = TestServer::new();
    let mut admin = open.tcp();
    let (mut a, mut b, mut c) = (open.tcp(), open.tcp(), open.unix());
    b.named("b");
    open.block(&mut a, "TEST.TAKE q 0");
    open.block(&mut b, "TEST.TAKE q 0");
    open.block(&mut c, "TEST.TAKE q 0");
    drop(a);
    open.until(|shared| shared.waits.clients() == 2);
    let id = open.client("b", |_| true).id;
    assert_eq!(admin.ask(&format!("CLIENT KILL ID {id}")), ":1");
    open.until(|shared| shared.waits.clients() == 1);
    assert_eq!(admin.ask("TEST.PUT q x"), "+OK");
    assert_eq!(c.lines(5), "*2 $1 q $1 x");
    open.idle();
}

#[test]
fn a_value_of_another_kind_wakes_nobody_and_an_error_ends_the_wait() {
    let open = TestServer::new();
    let (mut admin, mut a, mut b) = (open.tcp(), open.tcp(), open.tcp());
    open.block(&mut a, "TEST.TAKE q 0");
    open.block(&mut b, "TEST.TAKE q 0");
    assert_eq!(admin.ask("TEST.PUT q wrong"), "+OK");
    let error = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    assert_eq!((a.line(), b.line()), (error.into(), error.into()));
    open.idle();
}

#[test]
fn the_end_of_a_key_is_told_to_those_who_asked() {
    let open = TestServer::new();
    let (mut admin, mut guards, mut takes) = (open.tcp(), open.tcp(), open.tcp());
    assert_eq!(admin.ask("SET g 1"), "+OK");
    open.block(&mut guards, "TEST.GUARD g 0");
    open.block(&mut takes, "TEST.TAKE other 0");
    assert_eq!(admin.ask("TEST.PUT g 2"), "+OK");
    assert_eq!(open.shared().waits.clients(), 2, "it is still there");
    assert_eq!(admin.ask("TEST.DROP g"), ":1");
    assert_eq!(guards.line(), "-UNBLOCKED it is gone");
    assert_eq!(open.shared().waits.clients(), 1);
}

#[test]
fn in_a_transaction_nothing_waits_and_what_it_leaves_is_served_after_it() {
    let open = TestServer::new();
    let (mut admin, mut a, mut b) = (open.tcp(), open.tcp(), open.unix());
    admin.send("MULTI\r\nTEST.TAKE q 0\r\nTEST.MOVE q r 0\r\nEXEC");
    assert_eq!(admin.lines(6), "+OK +QUEUED +QUEUED *2 *-1 $-1");
    open.block(&mut a, "TEST.TAKE q 0");
    open.block(&mut b, "TEST.TAKE other q 0");
    // What is gone again at its end wakes nobody.
    admin.send("MULTI\r\nTEST.PUT q 1\r\nTEST.DROP q\r\nEXEC");
    assert_eq!(admin.lines(6), "+OK +QUEUED +QUEUED *2 +OK :1");
    assert_eq!(open.shared().waits.clients(), 2);
    admin.send("MULTI\r\nTEST.PUT q 2\r\nTEST.PUT other 3\r\nEXISTS q other\r\nEXEC");
    assert_eq!(admin.lines(8), "+OK +QUEUED +QUEUED +QUEUED *3 +OK +OK :2");
    assert_eq!((a.lines(5), b.lines(5)), ("*2 $1 q $1 2".into(), "*2 $5 other $1 3".into()));
    assert_eq!(admin.ask("EXISTS q other"), ":0");
    open.idle();
}

/// A key that is renamed, copied or moved to where somebody waits is one that was put there.
#[test]
fn keys_that_come_from_elsewhere_are_served() {
    let open = TestServer::new();
    let (mut admin, mut talk) = (open.tcp(), open.tcp());
    for command in ["RENAME from q", "RENAMENX from q", "COPY from q", "SWAPDB 0 3", "SET q x"] {
        let (db, key) = if command.starts_with("SWAPDB") { (3, "q") } else { (0, "from") };
        admin.send(&format!("FLUSHALL\r\nSELECT {db}\r\nSET {key} x\r\nSELECT 0"));
        assert_eq!(admin.lines(4), "+OK +OK +OK +OK");
        open.block(&mut talk, "TEST.TAKE q 0");
        assert!(!admin.ask(command).starts_with('-'), "{command}");
        assert_eq!(talk.lines(5), "*2 $1 q $1 x", "{command}");
    }
    admin.send("FLUSHALL\r\nSELECT 3\r\nSET q y");
    assert_eq!(admin.lines(3), "+OK +OK +OK");
    open.block(&mut talk, "TEST.TAKE q 0");
    assert_eq!(admin.ask("MOVE q 0"), ":1");
    assert_eq!(talk.lines(5), "*2 $1 q $1 y");
    open.idle();
}

#[test]
fn emptied_databases_end_the_waits_of_those_who_asked() {
    let open = TestServer::new();
    let (mut admin, mut guards, mut takes) = (open.tcp(), open.tcp(), open.tcp());
    for command in ["FLUSHALL", "FLUSHDB", "SWAPDB 0 5", "RENAME g other", "MOVE g 1"] {
        admin.send("FLUSHALL\r\nSET g 1");
        assert_eq!(admin.lines(2), "+OK +OK");
        open.block(&mut guards, "TEST.GUARD g 0");
        admin.ask(command);
        assert_eq!(guards.line(), "-UNBLOCKED it is gone", "{command}");
    }
    // Nobody deletes it: a reader finds that its time is over.
    assert_eq!(admin.ask("SET g 1 PX 200"), "+OK");
    guards.send("TEST.GUARD g 0");
    while admin.ask("EXISTS g") == ":1" {
        std::thread::yield_now();
    }
    assert_eq!(guards.line(), "-UNBLOCKED it is gone");
    open.block(&mut takes, "TEST.TAKE q 0");
    assert_eq!(admin.ask("FLUSHALL"), "+OK");
    assert_eq!(open.shared().waits.clients(), 1);
    assert_eq!(admin.ask("SET q 1"), "+OK");
    assert_eq!(takes.lines(5), "*2 $1 q $1 1");
}

/// Replies are off: what ends the wait is a reply too.
#[test]
fn a_silent_client_is_served_in_silence() {
    let open = TestServer::new();
    let (mut admin, mut silent) = (open.tcp(), open.tcp());
    open.block(&mut silent, "CLIENT REPLY OFF\r\nTEST.TAKE q 0\r\nCLIENT REPLY ON");
    assert_eq!(admin.ask("TEST.PUT q x"), "+OK");
    assert_eq!(silent.line(), "+OK");
    assert_eq!(admin.ask("EXISTS q"), ":0");
}

#[test]
fn many_takers_and_givers_lose_nothing() {
    const VALUES: usize = 500;
    let open = TestServer::new();
    std::thread::scope(|scope| {
        let takers: Vec<_> = (0..4)
            .map(|taker| {
                let mut talk = open.tcp();
                scope.spawn(move || {
                    let mut taken = Vec::new();
                    loop {
                        talk.send(&format!("TEST.TAKE q{} q{} 0", taker % 2, (taker + 1) % 2));
                        let value = talk.lines(5).split_off("*2 $2 q0 ".len());
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
                let (mut talk, open) = (open.unix(), &open);
                scope.spawn(move || {
                    for n in 0..VALUES {
                        // With two clients waiting, neither giver overwrites what it gave before.
                        open.until(|shared| shared.waits.clients() >= 2);
                        assert_eq!(talk.ask(&format!("TEST.PUT q{giver} {giver}{n:03}")), "+OK");
                    }
                })
            })
            .collect();
        givers.into_iter().for_each(|giver| giver.join().unwrap());
        let mut talk = open.tcp();
        for left in (0..4).rev() {
            open.until(|shared| shared.waits.clients() == left + 1);
            assert_eq!(talk.ask("TEST.PUT q0 end"), "+OK");
        }
        let mut taken: Vec<String> =
            takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect();
        taken.sort();
        let given = (0..2).flat_map(|giver| (0..VALUES).map(move |n| format!("$4 {giver}{n:03}")));
        assert_eq!(taken, given.collect::<Vec<_>>());
    });
    open.idle();
}

#[test]
fn messages_reach_subscribers_on_all_workers() {
    let open = TestServer::new();
    let mut publisher = open.tcp();
    let mut subscribers: Vec<_> = (0..10).map(|_| open.tcp()).collect();
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
    open.until(|shared| shared.pubsub.clients() == 0);
    assert_eq!(publisher.ask("PUBLISH a x"), ":0");
}

#[test]
fn a_subscriber_may_do_little_in_resp2_and_everything_in_resp3() {
    let open = TestServer::new();
    let mut talk = open.tcp();
    talk.send("SSUBSCRIBE s");
    assert_eq!(talk.lines(6), "*3 $10 ssubscribe $1 s :1");
    let refused = "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
                   this context";
    for (line, name) in [("GET a", "get"), ("CLIENT ID", "client|id"), ("PUBLISH a b", "publish")] {
        assert_eq!(talk.ask(line), format!("-ERR Can't execute '{name}': {refused}"));
    }
    assert_eq!(talk.ask("GET"), "-ERR wrong number of arguments for 'get' command");
    assert_eq!(talk.ask("RESET"), "+RESET");
    talk.send("HELLO 3");
    talk.lines(26);
    talk.send("SUBSCRIBE s");
    assert_eq!(talk.lines(6), ">3 $9 subscribe $1 s :1");
    talk.send("PUBLISH s x\r\nPING");
    assert_eq!(talk.lines(9), ":1 >3 $7 message $1 s $1 x +PONG");
}

/// Confirmations and messages are no replies.
#[test]
fn a_silent_client_gets_messages() {
    let open = TestServer::new();
    let (mut admin, mut talk) = (open.tcp(), open.tcp());
    talk.send("CLIENT REPLY OFF\r\nSUBSCRIBE a\r\nPING");
    assert_eq!(talk.lines(6), "*3 $9 subscribe $1 a :1");
    assert_eq!(admin.ask("PUBLISH a x"), ":1");
    assert_eq!(talk.lines(7), "*3 $7 message $1 a $1 x");
}

#[test]
fn a_slow_subscriber_is_cut_off_and_the_others_go_on() {
    let open = TestServer::new();
    let mut admin = open.tcp();
    let config = &open.shared().config;
    config.update(&[("client-output-buffer-limit", "pubsub 1mb 0 0")]).unwrap();
    let (mut slow, mut quick) = (open.unix(), open.unix());
    for talk in [&mut slow, &mut quick] {
        talk.send("SUBSCRIBE a");
        talk.lines(6);
    }
    let message = "x".repeat(10_000);
    let mut sent = 0;
    while open.shared().pubsub.clients() == 2 {
        admin.send(&format!("PUBLISH a {message}"));
        admin.line();
        assert!(quick.lines(7).ends_with(&message));
        sent += 1;
        assert!(sent < 10_000, "it was not cut off");
    }
    assert!(sent > 100, "cut off after {sent} messages");
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = slow.0.read_to_end(&mut rest);
    assert!(rest.len() < sent * 10_000);
    assert_eq!(admin.ask("PUBLISH a last"), ":1");
    assert_eq!(quick.lines(7), "*3 $7 message $1 a $4 last");
    assert_eq!(open.shared().clients.count(), 2);
    assert!(open.shared().clients.list().iter().all(|client| client.backlog() == 0));
}

#[test]
fn members_go_to_who_waits_for_them() {
    let open = TestServer::new();
    let (mut admin, mut a, mut b, mut c) = (open.tcp(), open.tcp(), open.unix(), open.tcp());
    open.block(&mut a, "BZPOPMIN other z 0");
    open.block(&mut b, "BZPOPMAX z 0");
    open.block(&mut c, "BZMPOP 0 2 z other MIN COUNT 2");
    // A key of another type is no reason to wake up.
    assert_eq!(admin.ask("SET z string"), "+OK");
    assert_eq!(admin.ask("DEL z"), ":1");
    assert_eq!(admin.ask("ZADD z 1 a 2 b 3 c 4 d"), ":4");
    assert_eq!(a.lines(7), "*3 $1 z $1 a $1 1");
    assert_eq!(b.lines(7), "*3 $1 z $1 d $1 4");
    assert_eq!(c.lines(14), "*2 $1 z *2 *2 $1 b $1 2 *2 $1 c $1 3");
    open.idle();
    assert_eq!(admin.ask("EXISTS z"), ":0");
    open.block(&mut a, "BZPOPMIN z 0");
    assert_eq!(admin.ask("ZINCRBY z 2.5 m"), "$3");
    assert_eq!(admin.line(), "2.5");
    assert_eq!(a.lines(7), "*3 $1 z $1 m $3 2.5");
    assert_eq!(admin.ask("ZADD x 1 m"), ":1");
    open.block(&mut a, "BZPOPMIN z 0");
    assert_eq!(admin.ask("ZUNIONSTORE z 1 x"), ":1");
    assert_eq!(a.lines(7), "*3 $1 z $1 m $1 1");
    assert_eq!(a.ask("BZPOPMIN z 0.001"), "*-1");
    assert_eq!(a.ask("BZMPOP 0.001 1 z MAX"), "*-1");
}

/// The thread of a client that asked for a save stood still until the fork was done, and with it
/// all its other clients.
#[test]
fn who_waits_for_a_fork_holds_up_nobody_else() {
    let open = TestServer::new();
    let (mut asks, mut others) = (open.tcp(), [(); 4].map(|()| open.tcp()));
    asks.named("asks");
    let shared = open.shared();
    let bgsave = shared.table.rows().iter().position(|row| &*row.name == "bgsave").unwrap() as u64;
    // No safepoint, no fork.
    let held = shared.keyspace.lock(ShardSet::ALL, 0);
    asks.send("BGSAVE\r\nECHO after");
    open.client("asks", |client| client.last_command.load(Ordering::Relaxed) == bgsave + 1);
    for other in &mut others {
        assert_eq!(other.ask("PING"), "+PONG");
    }
    assert_eq!(others[0].ask("BGSAVE"), "-ERR Background save already in progress");
    let id = open.client("asks", |_| true).id;
    assert_eq!(others[1].ask(&format!("CLIENT UNBLOCK {id}")), ":0", "it waits for no key");
    drop(held);
    assert_eq!(asks.lines(3), "+Background saving started $5 after");
}

#[test]
fn a_fork_that_fails_is_told_and_counted() {
    let open = TestServer::new();
    let mut talk = open.tcp();
    std::fs::remove_dir_all(&open.shared().config.current().dir).unwrap();
    let refused = talk.ask("BGSAVE");
    assert!(refused.starts_with("-ERR cannot save: cannot create"), "{refused}");
    talk.send("CLIENT REPLY OFF\r\nBGSAVE\r\nCLIENT REPLY ON");
    assert_eq!(talk.line(), "+OK", "a client that wants no reply gets none");
    talk.send("INFO errorstats");
    let told = talk.lines(4);
    assert!(told.contains("errorstat_ERR:count=2"), "{told}");
    talk.send("INFO commandstats");
    let told: String =
        std::iter::from_fn(|| Some(talk.line())).take_while(|line| !line.is_empty()).collect();
    let bgsave = told.split("cmdstat_").find(|line| line.starts_with("bgsave:"));
    assert!(
        bgsave.is_some_and(|line| line.contains("calls=2,") && line.contains("failed_calls=2")),
        "{told}"
    );
}

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clients::{Client, ConnectionHandle, Origin};
use crate::commands::call::Effect;
use crate::commands::testing::{TestServer, follow};

const SYNTAX: &str = "-ERR syntax error";

/// Counts how often a connection was closed.
#[derive(Default)]
struct CountingHandle(AtomicU64);

impl ConnectionHandle for CountingHandle {
    fn close(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Connects a client from 10.0.0.1 and a port, `age` seconds ago.
fn connect(bench: &TestServer, port: u16, age: i64) -> (Arc<Client>, Arc<CountingHandle>) {
    let ended = Arc::new(CountingHandle::default());
    let origin = Origin {
        peer: Some(([10, 0, 0, 1], port).into()),
        local: Some(([10, 0, 0, 2], 6379).into()),
        path: String::new(),
        fd: i32::from(port),
    };
    let handle: Arc<dyn ConnectionHandle> = Arc::clone(&ended) as _;
    (bench.shared.clients.connect(origin, bench.now.get() - age * 1000, handle), ended)
}

/// The text of a bulk string.
fn text(reply: &str) -> &str {
    let (head, rest) = reply.split_once("\r\n").unwrap();
    assert!(head.starts_with('$'), "{reply}");
    rest.strip_suffix("\r\n").unwrap()
}

/// The numbers of the clients in a list.
fn ids(reply: &str) -> Vec<&str> {
    text(reply).lines().map(|line| line.split([' ', '=']).nth(1).unwrap()).collect()
}

#[test]
fn a_connection_has_number_and_name() {
    let bench = TestServer::new();
    let special = "-ERR Client names cannot contain spaces, newlines or special characters.";
    follow(
        &bench,
        &[
            ("CLIENT ID", ":1"),
            ("CLIENT GETNAME", "$-1"),
            ("CLIENT SETNAME 'a b'", special),
            (r#"CLIENT SETNAME "a\n""#, special),
            (r#"CLIENT SETNAME "\xc3\xa4""#, special),
            ("CLIENT SETNAME me", "+OK"),
            ("client getname", "$2\r\nme"),
            ("CLIENT SETNAME ''", "+OK"),
            ("CLIENT GETNAME", "$-1"),
            ("CLIENT SETINFO LIB-NAME redis-py", "+OK"),
            ("CLIENT SETINFO lib-ver 8.0", "+OK"),
            (
                "CLIENT SETINFO lib-ver '8 0'",
                "-ERR lib-ver cannot contain spaces, newlines or special characters.",
            ),
            ("CLIENT SETINFO Color red", "-ERR Unrecognized option 'Color'"),
            ("CLIENT SETINFO", "-ERR wrong number of arguments for 'client|setinfo' command"),
        ],
    );
    let list = bench.run("CLIENT LIST");
    assert!(list.contains(" lib-name=redis-py lib-ver=8.0 "), "{list}");
}

#[test]
fn the_line_has_the_known_fields_in_order() {
    let bench = TestServer::new();
    let (client, _) = connect(&bench, 4000, 90);
    client.last_active.store(bench.now.get() - 2500, Ordering::Relaxed);
    client.db.store(3, Ordering::Relaxed);
    client.protocol.store(3, Ordering::Relaxed);
    client.bytes_in.store(11, Ordering::Relaxed);
    client.bytes_out.store(22, Ordering::Relaxed);
    client.commands.store(33, Ordering::Relaxed);
    let get = bench.shared.table.by_full_name("get").unwrap().number as u64;
    client.last_command.store(get + 1, Ordering::Relaxed);
    client.names.lock().name = "other".to_owned();
    let reply = bench.run("CLIENT LIST ID 2");
    assert_eq!(
        text(&reply),
        "id=2 addr=10.0.0.1:4000 laddr=10.0.0.2:6379 fd=4000 name=other age=90 idle=2 flags=N db=3 \
         sub=0 psub=0 ssub=0 multi=-1 watch=0 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 \
         rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd=get user=default redir=-1 resp=3 \
         lib-name= lib-ver= tot-net-in=11 tot-net-out=22 tot-cmds=33\n"
    );
}

#[test]
fn a_connection_describes_itself() {
    let bench = TestServer::new();
    let (_other, _) = connect(&bench, 4000, 0);
    let info = bench.run("CLIENT INFO");
    let info = text(&info);
    assert!(info.starts_with("id=1 addr=test:0 laddr=test:0 fd=7 "), "{info}");
    assert!(info.contains(" flags=U db=0 ") && info.contains(" cmd=client|info "), "{info}");
    assert_eq!(info.matches('\n').count(), 1);
    bench.run("CLIENT NO-EVICT ON");
    bench.run("CLIENT NO-TOUCH on");
    let info = bench.run("CLIENT INFO");
    assert!(info.contains(" flags=UeT "), "{info}");
    bench.run("CLIENT NO-EVICT off");
    bench.run("CLIENT NO-TOUCH OFF");
    assert!(bench.run("CLIENT LIST ID 1").contains(" flags=U "), "{info}");
    follow(&bench, &[("CLIENT NO-EVICT x", SYNTAX), ("CLIENT NO-TOUCH x", SYNTAX)]);
    let reply = TestServer::new().resp3().run("CLIENT INFO");
    assert!(reply.starts_with('=') && reply.contains("\r\ntxt:id=1 "), "{reply}");
}

#[test]
fn the_list_can_be_narrowed() {
    let bench = TestServer::new();
    let _clients: Vec<_> = (0..3).map(|i| connect(&bench, 4000 + i, 0)).collect();
    assert_eq!(ids(&bench.run("CLIENT LIST")), ["1", "2", "3", "4"]);
    assert!(bench.run("CLIENT LIST ID 2").contains(" cmd=NULL "), "it ran none yet");
    assert_eq!(ids(&bench.run("CLIENT LIST ID 3 99 -1 1 3")), ["3", "1", "3"]);
    assert_eq!(ids(&bench.run("client list type Normal")), ["1", "2", "3", "4"]);
    for kind in ["master", "replica", "SLAVE", "pubsub"] {
        assert_eq!(bench.run(&format!("CLIENT LIST TYPE {kind}")), "$0\r\n\r\n", "{kind}");
    }
    follow(
        &bench,
        &[
            ("CLIENT LIST TYPE foo", "-ERR Unknown client type 'foo'"),
            ("CLIENT LIST ID 1 a", "-ERR Invalid client ID"),
            ("CLIENT LIST ID", SYNTAX),
            ("CLIENT LIST TYPE", SYNTAX),
            ("CLIENT LIST TYPE normal x", SYNTAX),
            ("CLIENT LIST foo bar", SYNTAX),
        ],
    );
}

#[test]
fn an_address_is_killed() {
    let bench = TestServer::new();
    let (client, ended) = connect(&bench, 4000, 0);
    let missing = "-ERR No such client";
    follow(
        &bench,
        &[
            ("CLIENT KILL 10.0.0.1:4001", missing),
            ("CLIENT KILL id", missing),
            ("CLIENT KILL 10.0.0.1:4000", "+OK"),
            ("CLIENT KILL 10.0.0.1:4000", missing),
        ],
    );
    assert!(client.is_killed());
    assert_eq!((ended.0.load(Ordering::Relaxed), bench.effect.take()), (1, Effect::None));
    assert_eq!(bench.run("CLIENT KILL test:0"), "+OK\r\n", "oneself, after the reply");
    assert_eq!(bench.effect.take(), Effect::Close);
}

#[test]
fn filters_are_joined() {
    let bench = TestServer::new();
    let clients: Vec<_> = (0..4).map(|i| connect(&bench, 4000 + i, 10 * i64::from(i))).collect();
    let killed = || -> Vec<u64> {
        let was_closed =
            |(_, ended): &&(_, Arc<CountingHandle>)| ended.0.load(Ordering::Relaxed) > 0;
        clients.iter().filter(was_closed).map(|(client, _)| client.id).collect()
    };
    follow(
        &bench,
        &[
            ("CLIENT KILL ID 99", ":0"),
            ("CLIENT KILL ADDR 10.0.0.1:4001 ID 2", ":0"),
            ("CLIENT KILL TYPE pubsub", ":0"),
            ("CLIENT KILL LADDR 10.0.0.9:6379", ":0"),
            ("CLIENT KILL ID 1", ":0"),
        ],
    );
    assert!(killed().is_empty());
    assert_eq!(bench.run("CLIENT KILL MAXAGE 30 TYPE normal"), ":1\r\n");
    assert_eq!(killed(), [5]);
    assert_eq!(bench.run("CLIENT KILL ADDR 10.0.0.1:4001 ID 3 USER default"), ":1\r\n");
    assert_eq!(killed(), [3, 5]);
    assert_eq!(bench.run("CLIENT KILL LADDR 10.0.0.2:6379"), ":2\r\n", "the others");
    assert_eq!((killed(), bench.effect.take()), (vec![2, 3, 4, 5], Effect::None));
    assert_eq!(bench.run("CLIENT KILL ID 1 SKIPME no"), ":1\r\n");
    assert_eq!(bench.effect.take(), Effect::Close);
}

#[test]
fn a_wrong_filter_kills_nobody() {
    let bench = TestServer::new();
    let (client, _) = connect(&bench, 4000, 0);
    let bad_id = "-ERR client-id should be greater than 0";
    follow(
        &bench,
        &[
            ("CLIENT KILL", "-ERR wrong number of arguments for 'client|kill' command"),
            ("CLIENT KILL ID a", bad_id),
            ("CLIENT KILL ID 0", bad_id),
            ("CLIENT KILL ID 2 ADDR", SYNTAX),
            ("CLIENT KILL foo bar", SYNTAX),
            ("CLIENT KILL USER default SKIPME foo", SYNTAX),
            ("CLIENT KILL USER nobody", "-ERR No such user 'nobody'"),
            ("CLIENT KILL TYPE foo", "-ERR Unknown client type 'foo'"),
            ("CLIENT KILL MAXAGE 0", "-ERR maxage should be greater than 0"),
            ("CLIENT KILL MAXAGE a", "-ERR maxage is not an integer or out of range"),
        ],
    );
    assert!(!client.is_killed());
}

#[test]
fn a_pause_holds_and_ends() {
    let bench = TestServer::new();
    let now = bench.now.get();
    let until = |writes| bench.shared.clients.paused_until(now, writes);
    follow(
        &bench,
        &[
            ("CLIENT PAUSE a", "-ERR timeout is not an integer or out of range"),
            ("CLIENT PAUSE 9223372036854775807", "-ERR timeout is out of range"),
            ("CLIENT PAUSE a foo", "-ERR CLIENT PAUSE mode must be WRITE or ALL"),
            (
                "CLIENT PAUSE 10 ALL x",
                "-ERR unknown subcommand or wrong number of arguments for 'PAUSE'. Try CLIENT \
                 HELP.",
            ),
            ("CLIENT PAUSE -1", "-ERR timeout is negative"),
        ],
    );
    assert_eq!(until(true), None);
    assert_eq!(bench.run("CLIENT PAUSE 50 WRITE"), "+OK\r\n");
    assert_eq!((until(true), until(false)), (Some(now + 50), None));
    assert_eq!(bench.run("CLIENT PAUSE 100"), "+OK\r\n");
    assert_eq!((until(true), until(false)), (Some(now + 100), Some(now + 100)));
    assert_eq!(bench.run("CLIENT PAUSE 10 write"), "+OK\r\n");
    assert_eq!(until(false), Some(now + 100), "neither shorter nor weaker");
    assert_eq!(bench.run("CLIENT UNPAUSE"), "+OK\r\n");
    assert_eq!((until(true), until(false)), (None, None));
}

#[test]
fn replies_are_turned_off_in_silence() {
    let bench = TestServer::new();
    assert_eq!(bench.run("CLIENT REPLY SKIP"), "");
    assert_eq!(bench.run("client reply off"), "");
    follow(&bench, &[("CLIENT REPLY ON", "+OK"), ("CLIENT REPLY foo", SYNTAX)]);
}

#[test]
fn what_is_not_supported_says_so() {
    let bench = TestServer::new();
    follow(
        &bench,
        &[
            ("CLIENT UNBLOCK 2", ":0"),
            ("CLIENT UNBLOCK 2 ERROR", ":0"),
            ("CLIENT UNBLOCK 2 timeout", ":0"),
            ("CLIENT UNBLOCK a", "-ERR value is not an integer or out of range"),
            ("CLIENT UNBLOCK 2 x", "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
            (
                "CLIENT MAINT_NOTIFICATIONS ON",
                "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.",
            ),
            ("CLIENT", "-ERR wrong number of arguments for 'client' command"),
            ("CLIENT ID x", "-ERR wrong number of arguments for 'client|id' command"),
        ],
    );
    let help = bench.run("CLIENT HELP");
    assert!(help.starts_with("*43\r\n+CLIENT <subcommand> "), "{help}");
    assert_eq!(help.matches("\r\n+").count(), 43);
}

#[test]
fn tracking_is_described() {
    let bench = TestServer::new().resp3();
    let info = |flags: &str, redirect: &str, prefixes: &str| {
        format!("%3 $5 flags {flags} $8 redirect {redirect} $8 prefixes {prefixes}")
            .replace(' ', "\r\n")
    };
    let (off, plain) = (info("~1 $3 off", ":-1", "*0"), info("~1 $2 on", ":0", "*0"));
    let own = bench.run("CLIENT ID").trim().trim_start_matches(':').to_owned();
    let redirected = info("~2 $2 on $6 noloop", &format!(":{own}"), "*0");
    let to_itself = format!("CLIENT TRACKING ON REDIRECT {own} NOLOOP");
    follow(
        &bench,
        &[
            ("CLIENT TRACKINGINFO", &*off),
            ("CLIENT GETREDIR", ":-1"),
            ("CLIENT TRACKING ON", "+OK"),
            ("CLIENT TRACKINGINFO", &plain),
            ("CLIENT GETREDIR", ":0"),
            (&to_itself, "+OK"),
            ("CLIENT TRACKINGINFO", &redirected),
            ("CLIENT GETREDIR", &format!(":{own}")),
            ("CLIENT TRACKING OFF", "+OK"),
            ("CLIENT TRACKINGINFO", &off),
        ],
    );
    assert_eq!(bench.shared.tracking.counts().clients, 0);
}

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::is_local;
use crate::clients::{ClientRegistry, ConnectionHandle, Origin};
use crate::commands::call::Effect;
use crate::commands::call::ReloadOptions;
use crate::commands::testing::{TestServer, follow};
use crate::config::{Config, DebugCommand};

const DIGEST_LINES: &[&str] = &[
    "SET text hello",
    "SET number 12345",
    "SET expires x PX 100000000",
    "SELECT 3",
    "RPUSH list a b 3 a",
    "SELECT 0",
    "RPUSH list a b 3 a",
    "SADD ints 3 1 2",
    "SADD set a b c 7",
    "ZADD zset 1 a -2.5 b 0.1 c 1e300 d",
    "HSET hash f v g 12 h ''",
    "HSET hash2 f v",
    "HSETNX hash2 g w",
    "XADD stream 1-1 f v g 2",
    "XADD stream 5-0 f w",
    "XGROUP CREATE stream g 0",
    "SELECT 15",
    "SET last one",
    "SELECT 0",
];
const VALUE_DIGESTS: &[(&str, &str)] = &[
    ("text", "36b23a1456b2dce2c3ed252c456761301dba8060"),
    ("number", "e1cf90774e995ae03de66e8109dc5cb9d9c2dc83"),
    ("expires", "0745672cb1bf060476eedeb8a28f5ffe1ff5a2be"),
    ("list", "ee0459df5c2bca088b4d9863708e524cbad04efc"),
    ("ints", "2a462a3f51a1db89738ebbeef0c47ce1bbc85246"),
    ("set", "c91787d9d9e54d4537dc9af1186ce3d3608755a8"),
    ("zset", "d08a45dbc24f3297b40a6ffd9bf3a6b58a0b650a"),
    ("hash", "9d23570c91bf28d7e67f663ee21964ce1d956909"),
    ("hash2", "d127864ed50239662bf61bafc9bda63c17da5b37"),
    ("stream", "515729ed9006a38dd1d3cffc411e655ade032ad7"),
    ("none", "0000000000000000000000000000000000000000"),
];
const WHOLE_DIGEST: &str = "0ae331710660e38d80fbd49f6356138cde8aaadc";

fn server(enable_debug_command: DebugCommand) -> TestServer {
    TestServer::with(64 << 20, Config { enable_debug_command, ..Config::default() })
}

struct NoConnection;

impl ConnectionHandle for NoConnection {
    fn close(&self) {}
}

#[test]
fn debug_is_off_by_default() {
    let refused = "-ERR DEBUG command not allowed. If the enable-debug-command option is set to \
        \"local\", you can run it from a local connection, otherwise you need to set this option \
        in the configuration file, and then restart the server.\r\n";
    for line in ["DEBUG DIGEST", "DEBUG HELP", "DEBUG foo"] {
        assert_eq!(server(DebugCommand::No).run(line), refused, "{line}");
    }
    // The client of the test server is connected by a Unix socket.
    assert!(server(DebugCommand::Local).run("DEBUG DIGEST").starts_with("+0000"));
    assert!(server(DebugCommand::Yes).run("DEBUG DIGEST").starts_with("+0000"));
}

#[test]
fn local_means_loopback_or_unix_socket() {
    let clients = ClientRegistry::default();
    for (peer, local) in [
        ("127.0.0.1:80", true),
        ("127.9.9.9:80", true),
        ("[::1]:80", true),
        ("[::ffff:127.0.0.1]:80", true),
        ("10.0.0.1:80", false),
        ("[2001:db8::1]:80", false),
        ("[::ffff:10.0.0.1]:80", false),
    ] {
        let address: SocketAddr = peer.parse().unwrap();
        let origin = Origin { peer: Some(address), local: None, path: String::new(), fd: 3 };
        let client = clients.connect(origin, 0, Arc::new(NoConnection));
        assert_eq!(is_local(&client), local, "{peer}");
    }
}

#[test]
fn the_digest_follows_the_data() {
    let server = server(DebugCommand::Yes);
    for name in ["DEBUG DIGEST", "debug checkpoint-digest"] {
        server.run("FLUSHALL");
        let empty = server.run(name);
        assert_eq!(empty, format!("+{}\r\n", "0".repeat(40)));
        server.run("SET k v");
        let one = server.run(name);
        assert!(one != empty && one.len() == 43, "{one}");
        server.run("SET k w");
        assert_ne!(server.run(name), one);
        server.run("SET k v");
        assert_eq!(server.run(name), one);
    }
}

/// The digests are those of redis-server 8.2.3, and of 7.0.15 except for scores such as 0.1, which
/// that one writes with 17 digits.
#[test]
fn digests_are_those_of_redis() {
    let server = server(DebugCommand::Yes);
    for line in DIGEST_LINES {
        server.run(line);
    }
    for (key, digest) in VALUE_DIGESTS {
        let reply = format!("*1\r\n+{digest}\r\n");
        assert_eq!(server.run(&format!("DEBUG DIGEST-VALUE {key}")), reply, "{key}");
    }
    assert_eq!(server.run("DEBUG DIGEST"), format!("+{WHOLE_DIGEST}\r\n"));
    assert_eq!(server.run("DEBUG DIGEST-VALUE"), "*0\r\n");
}

#[test]
fn an_object_is_described_in_one_line() {
    let server = server(DebugCommand::Yes);
    assert_eq!(server.run("DEBUG OBJECT k"), "-ERR no such key\r\n");
    server.run("SET k 12345");
    server.now.set(server.now.get() + 3000);
    let line = server.run("DEBUG OBJECT k");
    let lru = 1_700_000_000u64 & 0xff_ffff;
    let end =
        format!(" refcount:1 encoding:int serializedlength:5 lru:{lru} lru_seconds_idle:3\r\n");
    assert!(line.starts_with("+Value at:shard-") && line.ends_with(&end), "{line}");
}

#[test]
fn sleep_and_reload_become_effects() {
    let server = server(DebugCommand::Yes);
    let slept = |line: &str| {
        assert_eq!(server.run(line), "+OK\r\n", "{line}");
        server.effect.take()
    };
    let sleep = |millis| Effect::Sleep { time: Duration::from_millis(millis), all: true };
    assert_eq!(slept("DEBUG SLEEP 0"), sleep(0));
    assert_eq!(slept("DEBUG SLEEP 1.5"), sleep(1500));
    assert_eq!(slept("DEBUG SLEEP -1"), sleep(0));
    assert_eq!(slept("DEBUG SLEEP inf"), sleep(86_400_000));
    assert_eq!(slept("DEBUG SLEEP x"), sleep(0));

    for (line, saves, flushes, merges) in [
        ("DEBUG RELOAD", true, true, false),
        ("DEBUG RELOAD noflush Merge", true, false, true),
        ("DEBUG RELOAD NOSAVE", false, true, false),
    ] {
        assert_eq!(server.run(line), "");
        let options = ReloadOptions { saves, flushes, merges };
        assert_eq!(server.effect.take(), Effect::Reload(options), "{line}");
    }
    let error = "-ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.";
    follow(&server, &[("DEBUG RELOAD foo", error)]);
    assert_eq!(server.effect.take(), Effect::None);
}

#[test]
fn switches_are_set() {
    let server = server(DebugCommand::Yes);
    let hooks = &server.shared.hooks;
    let state = || {
        (
            hooks.active_expire.load(Ordering::Relaxed),
            hooks.checkpoint_digest.load(Ordering::Relaxed),
            hooks.checkpoint_delay.load(Ordering::Relaxed),
        )
    };
    assert_eq!(state(), (true, false, 0));
    follow(
        &server,
        &[
            ("DEBUG SET-ACTIVE-EXPIRE 0", "+OK"),
            ("DEBUG CHECKPOINT-DIGEST yes", "+OK"),
            ("DEBUG CHECKPOINT-DELAY 250", "+OK"),
            ("DEBUG CHECKPOINT-WATCH yes", "+OK"),
            ("DEBUG CHECKPOINT-WATCH 1", "-ERR argument must be 'yes' or 'no'"),
            ("DEBUG CHECKPOINT-DIGEST maybe", "-ERR argument must be 'yes' or 'no'"),
            ("DEBUG CHECKPOINT-DELAY -1", "-ERR value is not an integer or out of range"),
        ],
    );
    assert_eq!(state(), (false, true, 250));
    follow(&server, &[("DEBUG SET-ACTIVE-EXPIRE 1", "+OK"), ("DEBUG CHECKPOINT-DIGEST no", "+OK")]);
    assert_eq!(state(), (true, false, 250));
}

#[test]
fn verify_accepts_a_sound_keyspace() {
    let server = server(DebugCommand::Yes);
    server.run("SET k v");
    assert_eq!(server.run("DEBUG VERIFY"), "+OK\r\n");
}

#[test]
fn unknown_subcommands_are_refused() {
    let server = server(DebugCommand::Yes);
    for (line, name) in [
        ("DEBUG jmap", "jmap"),
        ("DEBUG QUICKLIST", "QUICKLIST"),
        ("DEBUG REPLYBUFFER x y", "REPLYBUFFER"),
        ("DEBUG REPLICATE", "REPLICATE"),
        ("DEBUG OBJECT", "OBJECT"),
        ("DEBUG DIGEST x", "DIGEST"),
        ("DEBUG SLEEP", "SLEEP"),
    ] {
        let error = format!(
            "-ERR unknown subcommand or wrong number of arguments for '{name}'. Try DEBUG HELP.\r\n"
        );
        assert_eq!(server.run(line), error, "{line}");
    }
    assert!(server.run("DEBUG HELP").starts_with("*47\r\n+DEBUG <subcommand> "));
}

#[test]
fn populate_adds_keys() {
    let server = server(DebugCommand::Yes);
    server.run("SET p:1 here");
    for line in ["DEBUG POPULATE 2", "DEBUG POPULATE 3 p 10", "DEBUG POPULATE 1 short 3"] {
        assert_eq!(server.run(line), "+OK\r\n", "{line}");
    }
    follow(
        &server,
        &[
            ("DBSIZE", ":6"),
            ("GET key:1", "$7\r\nvalue:1"),
            ("GET p:1", "$4\r\nhere"),
            ("GET p:2", "$10\r\nvalue:2\0\0\0"),
            ("GET short:0", "$3\r\nval"),
            ("DEBUG POPULATE -1", "-ERR value is out of range, must be positive"),
            ("DEBUG POPULATE 1 k x", "-ERR value is out of range, must be positive"),
            (
                "DEBUG POPULATE 1 k 9999999999",
                "-ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            ),
        ],
    );
}

#[test]
fn tables_and_values_are_described() {
    let server = server(DebugCommand::Yes);
    server.run("CONFIG SET set-max-listpack-entries 2 list-max-listpack-size 2");
    for line in ["SADD s a b c", "SADD few a", "RPUSH l 1 2 3 4", "SET k text EX 100"] {
        server.run(line);
    }
    let text = server.run("DEBUG HTSTATS 0");
    assert!(
        text.contains("[Dictionary HT]\nHash table stats:\n number of elements: 4\n"),
        "{text}"
    );
    assert!(text.contains("[Expires HT]\nHash table stats:\n number of elements: 1\n"), "{text}");
    assert!(server.run("DEBUG HTSTATS 1").ends_with("[Dictionary HT]\n[Expires HT]\n\r\n"));
    assert!(server.run("DEBUG HTSTATS-KEY s full").contains(" number of elements: 3\n"));
    let no_table = "-ERR The value stored at the specified key is not represented using an hash \
                    table";
    follow(
        &server,
        &[
            ("DEBUG HTSTATS-KEY few", no_table),
            ("DEBUG HTSTATS-KEY none", "-ERR no such key"),
            ("DEBUG HTSTATS 16", "-ERR Out of range database"),
            ("DEBUG LISTPACK few", "+Written to the log"),
            ("DEBUG LISTPACK s", "-ERR Not a listpack encoded object."),
            ("DEBUG QUICKLIST l 1", "+Written to the log"),
            ("DEBUG SDSLEN l", "-ERR Not an sds encoded string."),
            ("DEBUG CLIENT-EVICTION", "-ERR maxmemory-clients is disabled."),
            ("DEBUG ERROR 'MY error'", "-MY error"),
            ("DEBUG LOADAOF", "-ERR append-only files are not supported"),
        ],
    );
    let sdslen = server.run("DEBUG SDSLEN k");
    assert!(sdslen.starts_with("+key_sds_len:1, key_sds_avail:0, key_zmalloc: "), "{sdslen}");
    assert!(sdslen.contains(", val_sds_len:4, val_sds_avail:0, "), "{sdslen}");
    let object = server.run("DEBUG OBJECT l");
    assert!(object.contains(" ql_nodes:2 ql_avg_node:2.00 ql_listpack_max:2 "), "{object}");
    assert!(server.run("DEBUG STRUCTSIZE").contains("bits:64 client:"));
}

#[test]
fn what_means_nothing_here_is_accepted() {
    let server = server(DebugCommand::Yes);
    for line in [
        "DEBUG CHANGE-REPL-ID",
        "DEBUG DICT-RESIZING 0",
        "DEBUG REPLICATE x",
        "DEBUG REPLYBUFFER PEAK-RESET-TIME never",
        "DEBUG REPLYBUFFER resizing 1",
        "DEBUG QUICKLIST-PACKED-THRESHOLD 3gb",
        "DEBUG LEAK x",
        "DEBUG LOG x",
    ] {
        assert_eq!(server.run(line), "+OK\r\n", "{line}");
    }
    let error = "-ERR argument must be a memory value bigger than 1 and smaller than 4gb";
    follow(&server, &[("DEBUG QUICKLIST-PACKED-THRESHOLD 4gb", error)]);
    let error = "-ERR value is not an integer or out of range";
    follow(&server, &[("DEBUG REPLYBUFFER PEAK-RESET-TIME x", error)]);
}

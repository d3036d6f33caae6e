use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::is_local;
use crate::clients::{ClientRegistry, ConnectionHandle, Origin};
use crate::commands::call::Effect;
use crate::commands::testing::TestServer;
use crate::config::{Config, DebugCommand};

fn server(enable_debug_command: DebugCommand) -> TestServer {
    TestServer::with(64 << 20, Config { enable_debug_command, ..Config::default() })
}

fn check(server: &TestServer, table: &[(&str, &str)]) {
    for (line, reply) in table {
        assert_eq!(server.run(line), format!("{reply}\r\n"), "{line}");
    }
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
    let empty = server.run("DEBUG DIGEST");
    assert_eq!(empty, format!("+{}\r\n", "0".repeat(40)));
    server.run("SET k v");
    let one = server.run("debug digest");
    assert!(one != empty && one.len() == 43, "{one}");
    server.run("SET k w");
    assert_ne!(server.run("DEBUG DIGEST"), one);
    server.run("SET k v");
    assert_eq!(server.run("DEBUG DIGEST"), one);
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
    assert_eq!(server.run("DEBUG SLEEP x"), "-ERR value is not a valid float\r\n");
    assert_eq!(server.effect.take(), Effect::None);

    assert_eq!(server.run("DEBUG RELOAD"), "");
    assert_eq!(server.effect.take(), Effect::Reload);
    check(
        &server,
        &[
            (
                "DEBUG RELOAD foo",
                "-ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
            ),
            (
                "DEBUG RELOAD NOSAVE",
                "-ERR DEBUG RELOAD takes no options here: it always saves, empties and loads",
            ),
        ],
    );
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
    check(
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
    check(&server, &[("DEBUG SET-ACTIVE-EXPIRE 1", "+OK"), ("DEBUG CHECKPOINT-DIGEST no", "+OK")]);
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
        ("DEBUG QUICKLIST k", "QUICKLIST"),
        ("DEBUG OBJECT", "OBJECT"),
        ("DEBUG DIGEST x", "DIGEST"),
        ("DEBUG SLEEP", "SLEEP"),
    ] {
        let error = format!(
            "-ERR unknown subcommand or wrong number of arguments for '{name}'. Try DEBUG HELP.\r\n"
        );
        assert_eq!(server.run(line), error, "{line}");
    }
    assert!(server.run("DEBUG HELP").starts_with("*21\r\n+DEBUG <subcommand> "));
}

use crate::commands::testing::{TestServer, follow};

const MIB: u64 = 1 << 20;

#[test]
fn get_takes_patterns() {
    let server = TestServer::new();
    follow(
        &server,
        &[
            ("CONFIG GET appendonly", "*2\r\n$10\r\nappendonly\r\n$2\r\nno"),
            ("CONFIG GET none", "*0"),
            ("CONFIG GET HZ TIMEOUT hz", "*4\r\n$7\r\nTIMEOUT\r\n$1\r\n0\r\n$2\r\nHZ\r\n$2\r\n10"),
            ("CONFIG GET", "-ERR wrong number of arguments for 'config|get' command"),
        ],
    );
    let found = server.run("CONFIG GET maxmemory*");
    assert!(found.starts_with("*6\r\n") && found.contains("maxmemory-policy"), "{found}");
    assert!(server.run("CONFIG GET *").contains("\r\n$4\r\nsave\r\n"));
    assert!(TestServer::new().resp3().run("config get hz").starts_with("%1\r\n$2\r\nhz\r\n"));
}

#[test]
fn set_changes_all_or_nothing() {
    let server = TestServer::new();
    follow(
        &server,
        &[
            ("CONFIG SET timeout 5 HZ 20", "+OK"),
            ("CONFIG GET timeout", "*2\r\n$7\r\ntimeout\r\n$1\r\n5"),
            ("CONFIG GET hz", "*2\r\n$2\r\nhz\r\n$2\r\n20"),
            ("CONFIG SET hz 0", "+OK"),
            ("CONFIG GET hz", "*2\r\n$2\r\nhz\r\n$1\r\n1"),
            ("CONFIG SET hz 501", "+OK"),
            ("CONFIG GET hz", "*2\r\n$2\r\nhz\r\n$3\r\n500"),
            (
                "CONFIG SET HZ -1",
                "-ERR CONFIG SET failed (possibly related to argument 'hz') - argument must be \
                 between 0 and 2147483647 inclusive",
            ),
            (
                "CONFIG SET lua-time-limit -1",
                "-ERR CONFIG SET failed (possibly related to argument 'lua-time-limit') - argument \
                 must be between 0 and 9223372036854775807 inclusive",
            ),
            (
                r#"CONFIG SET "a\r\n+OK" 1"#,
                "-ERR Unknown option or number of arguments for CONFIG SET - 'a  +OK'",
            ),
            ("CONFIG SET hz 20", "+OK"),
            ("CONFIG SET", "-ERR wrong number of arguments for 'config|set' command"),
            ("CONFIG SET hz", "-ERR wrong number of arguments for 'config|set' command"),
            ("CONFIG SET hz 1 timeout", "-ERR syntax error"),
            (
                "CONFIG SET hz 30 foo bar",
                "-ERR Unknown option or number of arguments for CONFIG SET - 'foo'",
            ),
            (
                "CONFIG SET hz 30 hz 31",
                "-ERR CONFIG SET failed (possibly related to argument 'hz') - duplicate parameter",
            ),
            (
                "CONFIG SET hz 30 port 1",
                "-ERR CONFIG SET failed (possibly related to argument 'port') - can't set \
                 immutable config",
            ),
            (
                "CONFIG SET maxmemory abc",
                "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument \
                 must be a memory value",
            ),
            (
                r#"CONFIG SET hz 30 requirepass "\xff""#,
                "-ERR CONFIG SET failed (possibly related to argument 'requirepass') - the value \
                 must be UTF-8 text",
            ),
            ("CONFIG GET hz", "*2\r\n$2\r\nhz\r\n$2\r\n20"),
        ],
    );
    assert!(server.run(r#"CONFIG SET "\xff" x"#).starts_with("-ERR Unknown option "));
}

#[test]
fn requirepass_takes_effect() {
    let server = TestServer::new();
    follow(
        &server,
        &[
            ("CONFIG SET requirepass new", "+OK"),
            ("AUTH old", "-WRONGPASS invalid username-password pair or user is disabled."),
            ("AUTH new", "+OK"),
            ("CONFIG SET requirepass ''", "+OK"),
            ("AUTH default x", "+OK"),
        ],
    );
}

#[test]
fn maxmemory_shrinks_and_grows_within_the_arena() {
    let server = TestServer::with(64 * MIB, crate::config::Config::default());
    let limit = || server.shared.keyspace.memory_limit().maxmemory();
    assert_eq!(limit(), 64 * MIB);
    assert_eq!(server.run("CONFIG SET maxmemory 10mb"), "+OK\r\n");
    assert_eq!(limit(), 10 * MIB);
    let refused = server.run("CONFIG SET hz 77 maxmemory 65mb");
    assert_eq!(
        refused,
        "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - the arena of 67108864 \
         bytes was reserved at start and cannot grow; set maxmemory to 68157440 in the \
         configuration file and restart the server\r\n"
    );
    assert_eq!(limit(), 10 * MIB);
    assert!(server.run("CONFIG GET hz").ends_with("\r\n10\r\n"), "the others are refused too");
    assert_eq!(server.run("CONFIG SET maxmemory 64mb"), "+OK\r\n");
    assert_eq!(limit(), 64 * MIB);
    assert_eq!(server.run("CONFIG SET maxmemory 1mb"), "+OK\r\n");
    assert_eq!(server.run("CONFIG SET maxmemory 0"), "+OK\r\n");
    assert_eq!(limit(), 64 * MIB, "0 is the whole arena");
}

#[test]
fn lfu_policies_switch_the_access_clocks() {
    let server = TestServer::new();
    let counts = || server.shared.keyspace.clocks().is_lfu();
    for (policy, expected) in [
        ("allkeys-lfu", true),
        ("allkeys-lru", false),
        ("volatile-lfu", true),
        ("noeviction", false),
    ] {
        assert_eq!(server.run(&format!("CONFIG SET maxmemory-policy {policy}")), "+OK\r\n");
        assert_eq!(counts(), expected, "{policy}");
    }
    let config = crate::config::Config {
        maxmemory: 8 * MIB,
        maxmemory_policy: crate::config::MaxmemoryPolicy::AllkeysLfu,
        ..Default::default()
    };
    let server = TestServer::with(64 * MIB, config);
    assert!(server.shared.keyspace.clocks().is_lfu(), "from the start, too");
    assert_eq!(server.shared.keyspace.memory_limit().maxmemory(), 8 * MIB);
}

#[test]
fn resetstat_zeroes_statistics() {
    let server = TestServer::new();
    server.run("SET k v");
    server.run("GET k");
    server.run("GET none");
    let counted = |name: &str| server.run("INFO stats").contains(name);
    assert!(counted("keyspace_hits:1\r\n") && counted("keyspace_misses:1\r\n"));
    assert_eq!(server.run("CONFIG RESETSTAT"), "+OK\r\n");
    assert!(counted("keyspace_hits:0\r\n") && counted("keyspace_misses:0\r\n"));
    assert_eq!(server.shared.changes_since_checkpoint(), 1, "that is no statistic");
}

#[test]
fn other_subcommands_are_refused_and_help_replies() {
    let server = TestServer::new();
    follow(
        &server,
        &[
            ("CONFIG REWRITE", "-ERR The server is running without a config file"),
            ("CONFIG RESETSTAT x", "-ERR wrong number of arguments for 'config|resetstat' command"),
            ("CONFIG foo bar", "-ERR unknown subcommand 'foo'. Try CONFIG HELP."),
            ("CONFIG", "-ERR wrong number of arguments for 'config' command"),
        ],
    );
    let help = server.run("config help");
    let head = "*11\r\n+CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n+GET ";
    assert!(help.starts_with(head) && help.ends_with("+HELP\r\n+    Prints this help.\r\n"));
    assert_eq!(help.matches("\r\n+").count(), 11);
}

use crate::commands::testing::TestServer;

/// A test server whose client subscribes to all events.
struct Subscriber(TestServer);

impl Subscriber {
    fn to(classes: &str) -> Self {
        let bench = TestServer::new();
        assert_eq!(bench.run(&format!("CONFIG SET notify-keyspace-events {classes}")), "+OK\r\n");
        bench.run("PSUBSCRIBE __key*");
        Self(bench)
    }

    /// The events of a command, such as `0 set k`.
    fn events(&self, line: &str) -> Vec<String> {
        let reply = self.0.run(line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
        let client = self.0.shared.clients.list().remove(0);
        let mut pending = Vec::new();
        client.drain_output(&mut pending);
        let pending = String::from_utf8(pending).unwrap();
        let words: Vec<&str> = pending.split("\r\n").collect();
        let messages = words.chunks(9).filter(|message| message.len() == 9);
        messages.map(|message| format!("{} {}", &message[6][5..], message[8])).collect()
    }
}

fn check(classes: &str, table: &[(&str, &[&str])]) {
    let subscriber = Subscriber::to(classes);
    for (line, events) in table {
        assert_eq!(subscriber.events(line), *events, "{line}");
    }
}

#[test]
fn string_commands_publish_events() {
    check(
        "E$g",
        &[
            ("SET a 1", &["event@0__:set a"]),
            ("SET a 1 EX 10", &["event@0__:set a", "event@0__:expire a"]),
            ("SET a 1 NX", &[]),
            ("SETEX a 10 1", &["event@0__:set a", "event@0__:expire a"]),
            ("SETNX b 1", &["event@0__:set b"]),
            ("SETNX b 1", &[]),
            ("GETSET b 2", &["event@0__:set b"]),
            ("MSET c 1 d 2", &["event@0__:set c", "event@0__:set d"]),
            ("MSETNX c 1 e 2", &[]),
            ("INCR c", &["event@0__:incrby c"]),
            ("DECRBY c 3", &["event@0__:incrby c"]),
            ("INCRBYFLOAT c 1.5", &["event@0__:incrbyfloat c"]),
            ("APPEND c x", &["event@0__:append c"]),
            ("SETRANGE c 0 y", &["event@0__:setrange c"]),
            ("SETRANGE c 0 ''", &[]),
            ("SETBIT f 0 1", &["event@0__:setbit f"]),
            ("BITFIELD f SET u8 8 7", &["event@0__:setbit f"]),
            ("BITFIELD f GET u8 8", &[]),
            ("BITOP NOT g f", &["event@0__:set g"]),
            ("BITOP AND g nosuch", &["event@0__:del g"]),
            ("GETEX f EX 10", &["event@0__:expire f"]),
            ("GETEX f PERSIST", &["event@0__:persist f"]),
            ("GETEX f PERSIST", &[]),
            ("GETDEL f", &["event@0__:del f"]),
            ("GET a", &[]),
        ],
    );
}

#[test]
fn key_commands_publish_events() {
    check(
        "KEA",
        &[
            ("SET a 1", &["space@0__:a set", "event@0__:set a"]),
            (
                "RENAME a b",
                &[
                    "space@0__:a rename_from",
                    "event@0__:rename_from a",
                    "space@0__:b rename_to",
                    "event@0__:rename_to b",
                ],
            ),
            ("COPY b c DB 3", &["space@3__:c copy_to", "event@3__:copy_to c"]),
            (
                "MOVE b 2",
                &[
                    "space@0__:b move_from",
                    "event@0__:move_from b",
                    "space@2__:b move_to",
                    "event@2__:move_to b",
                ],
            ),
            ("SELECT 2", &[]),
            ("EXPIRE b 100", &["space@2__:b expire", "event@2__:expire b"]),
            ("EXPIRE b 100 NX", &[]),
            ("PERSIST b", &["space@2__:b persist", "event@2__:persist b"]),
            ("PERSIST b", &[]),
            ("DEL nosuch b", &["space@2__:b del", "event@2__:del b"]),
            ("SET b 1", &["space@2__:b set", "event@2__:set b"]),
            ("EXPIRE b -1", &["space@2__:b del", "event@2__:del b"]),
            ("FLUSHALL", &[]),
        ],
    );
}

#[test]
fn the_keyspace_publishes_expiry_misses_and_new_keys() {
    let subscriber = Subscriber::to("Exmn");
    for (line, events) in [
        ("SET a 1 PX 10", &["event@0__:new a"][..]),
        ("SET a 2 PX 10", &[]),
        ("GET nosuch", &["event@0__:keymiss nosuch"]),
        ("MGET a x", &["event@0__:keymiss x"]),
        ("INCR n", &["event@0__:new n"]),
        ("RENAME n m", &["event@0__:new m"]),
        ("COPY m a REPLACE", &["event@0__:new a"]),
        ("EXPIRE a 1", &[]),
    ] {
        assert_eq!(subscriber.events(line), events, "{line}");
    }
    subscriber.0.now.set(subscriber.0.now.get() + 1000);
    assert_eq!(subscriber.events("SET a 3"), ["event@0__:expired a", "event@0__:new a"]);
}

#[test]
fn events_need_a_channel_and_a_class() {
    for classes in ["''", "A", "KE", "Kl"] {
        check(classes, &[("SET a 1", &[]), ("DEL a", &[])]);
    }
    check("K$", &[("SET a 1", &["space@0__:a set"]), ("DEL a", &[])]);
}

use crate::commands::call::Effect;
use crate::commands::testing::TestServer;
use crate::config::Config;

fn check(server: &TestServer, line: &str, expected: &str) {
    let reply = server.run(line).replace("\r\n", " ");
    assert_eq!(reply.trim_end(), expected, "{line}");
}

#[test]
fn elements_are_pushed_and_popped_at_both_ends() {
    let server = TestServer::new();
    check(&server, "LPUSHX list a", ":0");
    check(&server, "RPUSH list b c", ":2");
    check(&server, "LPUSH list a z", ":4");
    check(&server, "LRANGE list 0 -1", "*4 $1 z $1 a $1 b $1 c");
    check(&server, "LPOP list", "$1 z");
    check(&server, "RPOP list 2", "*2 $1 c $1 b");
    check(&server, "LPOP list 0", "*0");
    check(&server, "RPOP list 9", "*1 $1 a");
    check(&server, "EXISTS list", ":0");
    check(&server, "LPOP list", "$-1");
    check(&server, "LPOP list 1", "*-1");
    check(&server, "LPOP list -1", "-ERR value is out of range, must be positive");
    check(&server, "LPOP list 1 2", "-ERR wrong number of arguments for 'lpop' command");
}

#[test]
fn large_lists_report_the_quicklist_encoding() {
    let server = TestServer::new();
    for _ in 0..200 {
        server.run("RPUSH list 0123456789 0123456789 0123456789 0123456789 0123456789");
    }
    check(&server, "OBJECT ENCODING list", "$9 quicklist");
    check(&server, "LTRIM list 0 99", "+OK");
    check(&server, "OBJECT ENCODING list", "$8 listpack");
    check(&server, "LLEN list", ":100");
    check(&server, "LTRIM list 5 1", "+OK");
    check(&server, "EXISTS list", ":0");
}

#[test]
fn elements_are_found_and_changed_by_index() {
    let server = TestServer::new();
    server.run("RPUSH list a b c 1 2 3 c c");
    check(&server, "LINDEX list -1", "$1 c");
    check(&server, "LINDEX list 99", "$-1");
    check(&server, "LSET list 1 B", "+OK");
    check(&server, "LSET list 8 x", "-ERR index out of range");
    check(&server, "LSET none 0 x", "-ERR no such key");
    check(&server, "LINSERT list BEFORE B x", ":9");
    check(&server, "LINSERT list AFTER nothing x", ":-1");
    check(&server, "LINSERT list NEAR B x", "-ERR syntax error");
    check(&server, "LPOS list c", ":3");
    check(&server, "LPOS list c RANK -1", ":8");
    check(&server, "LPOS list c RANK 2 COUNT 0", "*2 :7 :8");
    check(&server, "LPOS list c COUNT 0 MAXLEN 4", "*1 :3");
    check(&server, "LPOS list nothing", "$-1");
    check(&server, "LREM list -1 c", ":1");
    check(&server, "LREM list 0 c", ":2");
    check(&server, "LRANGE list 0 -1", "*6 $1 a $1 x $1 B $1 1 $1 2 $1 3");
}

#[test]
fn elements_move_to_other_lists_and_within_one() {
    let server = TestServer::new();
    server.run("RPUSH one a b c");
    check(&server, "LMOVE one two LEFT RIGHT", "$1 a");
    check(&server, "RPOPLPUSH one two", "$1 c");
    check(&server, "LRANGE two 0 -1", "*2 $1 c $1 a");
    check(&server, "LMOVE two two LEFT RIGHT", "$1 c");
    check(&server, "LMOVE two two RIGHT RIGHT", "$1 c");
    check(&server, "LMOVE two two LEFT LEFT", "$1 a");
    check(&server, "LRANGE two 0 -1", "*2 $1 a $1 c");
    check(&server, "RPOPLPUSH one one", "$1 b");
    check(&server, "RPOPLPUSH one two", "$1 b");
    check(&server, "EXISTS one", ":0");
    check(&server, "LMOVE one two LEFT LEFT", "$-1");
    check(&server, "LMPOP 2 one two RIGHT COUNT 2", "*2 $3 two *2 $1 c $1 a");
    check(&server, "LMPOP 1 one LEFT", "*-1");
    check(&server, "LMPOP 0 one LEFT", "-ERR numkeys should be greater than 0");
    check(&server, "LMPOP 3 one LEFT", "-ERR syntax error");
    check(&server, "LMPOP 1 one LEFT COUNT 0", "-ERR count should be greater than 0");
}

#[test]
fn blocking_commands_wait_for_elements() {
    let server = TestServer::new();
    check(&server, "BLPOP one two 0", "");
    assert_eq!(*server.effect.borrow(), Effect::Block);
    check(&server, "BLMOVE one two LEFT LEFT -1", "-ERR timeout is negative");
    check(&server, "BLPOP one x", "-ERR timeout is not a float or out of range");
}

/// A move that fails for lack of memory leaves both lists unchanged.
#[test]
fn without_memory_nothing_is_lost() {
    let server = TestServer::with(4 << 20, Config::default());
    let element = "x".repeat(10_000);
    server.run("RPUSH one first");
    let mut pushed = 0;
    while server.run(&format!("RPUSH many {element}")).starts_with(':') {
        pushed += 1;
    }
    assert!(server.run("RPUSH many x").starts_with([':', '-']));
    let before = server.run("LLEN many");
    assert!(server.run(&format!("RPUSH many 1 2 {element} {element}")).starts_with("-OOM"));
    assert_eq!(server.run("LLEN many"), before);
    assert!(pushed > 100);
    server.shared.keyspace.verify(1).unwrap();
}

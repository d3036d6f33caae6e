use crate::commands::call::Effect;
use crate::commands::testing::TestServer;
use crate::config::Config;

fn check(bench: &TestServer, line: &str, expected: &str) {
    let reply = bench.run(line).replace("\r\n", " ");
    assert_eq!(reply.trim_end(), expected, "{line}");
}

#[test]
fn elements_are_pushed_and_popped_at_both_ends() {
    let bench = TestServer::new();
    check(&bench, "LPUSHX list a", ":0");
    check(&bench, "RPUSH list b c", ":2");
    check(&bench, "LPUSH list a z", ":4");
    check(&bench, "LRANGE list 0 -1", "*4 $1 z $1 a $1 b $1 c");
    check(&bench, "LPOP list", "$1 z");
    check(&bench, "RPOP list 2", "*2 $1 c $1 b");
    check(&bench, "LPOP list 0", "*0");
    check(&bench, "RPOP list 9", "*1 $1 a");
    check(&bench, "EXISTS list", ":0");
    check(&bench, "LPOP list", "$-1");
    check(&bench, "LPOP list 1", "*-1");
    check(&bench, "LPOP list -1", "-ERR value is out of range, must be positive");
    check(&bench, "LPOP list 1 2", "-ERR wrong number of arguments for 'lpop' command");
}

#[test]
fn large_lists_are_told_to_be_quicklists() {
    let bench = TestServer::new();
    for _ in 0..200 {
        bench.run("RPUSH list 0123456789 0123456789 0123456789 0123456789 0123456789");
    }
    check(&bench, "OBJECT ENCODING list", "$9 quicklist");
    check(&bench, "LTRIM list 0 99", "+OK");
    check(&bench, "OBJECT ENCODING list", "$8 listpack");
    check(&bench, "LLEN list", ":100");
    check(&bench, "LTRIM list 5 1", "+OK");
    check(&bench, "EXISTS list", ":0");
}

#[test]
fn elements_within_are_found_and_changed() {
    let bench = TestServer::new();
    bench.run("RPUSH list a b c 1 2 3 c c");
    check(&bench, "LINDEX list -1", "$1 c");
    check(&bench, "LINDEX list 99", "$-1");
    check(&bench, "LSET list 1 B", "+OK");
    check(&bench, "LSET list 8 x", "-ERR index out of range");
    check(&bench, "LSET none 0 x", "-ERR no such key");
    check(&bench, "LINSERT list BEFORE B x", ":9");
    check(&bench, "LINSERT list AFTER nothing x", ":-1");
    check(&bench, "LINSERT list NEAR B x", "-ERR syntax error");
    check(&bench, "LPOS list c", ":3");
    check(&bench, "LPOS list c RANK -1", ":8");
    check(&bench, "LPOS list c RANK 2 COUNT 0", "*2 :7 :8");
    check(&bench, "LPOS list c COUNT 0 MAXLEN 4", "*1 :3");
    check(&bench, "LPOS list nothing", "$-1");
    check(&bench, "LREM list -1 c", ":1");
    check(&bench, "LREM list 0 c", ":2");
    check(&bench, "LRANGE list 0 -1", "*6 $1 a $1 x $1 B $1 1 $1 2 $1 3");
}

#[test]
fn elements_move_to_other_lists_and_within_one() {
    let bench = TestServer::new();
    bench.run("RPUSH one a b c");
    check(&bench, "LMOVE one two LEFT RIGHT", "$1 a");
    check(&bench, "RPOPLPUSH one two", "$1 c");
    check(&bench, "LRANGE two 0 -1", "*2 $1 c $1 a");
    check(&bench, "LMOVE two two LEFT RIGHT", "$1 c");
    check(&bench, "LMOVE two two RIGHT RIGHT", "$1 c");
    check(&bench, "LMOVE two two LEFT LEFT", "$1 a");
    check(&bench, "LRANGE two 0 -1", "*2 $1 a $1 c");
    check(&bench, "RPOPLPUSH one one", "$1 b");
    check(&bench, "RPOPLPUSH one two", "$1 b");
    check(&bench, "EXISTS one", ":0");
    check(&bench, "LMOVE one two LEFT LEFT", "$-1");
    check(&bench, "LMPOP 2 one two RIGHT COUNT 2", "*2 $3 two *2 $1 c $1 a");
    check(&bench, "LMPOP 1 one LEFT", "*-1");
    check(&bench, "LMPOP 0 one LEFT", "-ERR numkeys should be greater than 0");
    check(&bench, "LMPOP 3 one LEFT", "-ERR syntax error");
    check(&bench, "LMPOP 1 one LEFT COUNT 0", "-ERR count should be greater than 0");
}

#[test]
fn who_finds_nothing_waits() {
    let bench = TestServer::new();
    check(&bench, "BLPOP one two 0", "");
    assert_eq!(*bench.effect.borrow(), Effect::Block);
    check(&bench, "BLMOVE one two LEFT LEFT -1", "-ERR timeout is negative");
    check(&bench, "BLPOP one x", "-ERR timeout is not a float or out of range");
}

/// A move that finds no room for what it moves leaves both lists alone.
#[test]
fn without_room_nothing_is_lost() {
    let bench = TestServer::with(4 << 20, Config::default());
    let element = "x".repeat(10_000);
    bench.run("RPUSH one first");
    let mut pushed = 0;
    while bench.run(&format!("RPUSH many {element}")).starts_with(':') {
        pushed += 1;
    }
    assert!(bench.run("RPUSH many x").starts_with([':', '-']));
    let before = bench.run("LLEN many");
    assert!(bench.run(&format!("RPUSH many 1 2 {element} {element}")).starts_with("-OOM"));
    assert_eq!(bench.run("LLEN many"), before);
    assert!(pushed > 100);
    bench.shared.keyspace.verify(1).unwrap();
}

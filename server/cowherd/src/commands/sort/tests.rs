use crate::commands::testing::TestServer;

fn check(server: &TestServer, line: &str, expected: &str) {
    let reply = server.run(line).replace("\r\n", " ");
    assert_eq!(reply.trim_end(), expected, "{line}");
}

/// The elements of a reply, without their lengths.
fn elements(server: &TestServer, line: &str) -> Vec<String> {
    let reply = server.run(line);
    let lines = reply.split("\r\n").filter(|line| !line.starts_with('*') && !line.is_empty());
    lines.filter(|line| *line == "$-1" || !line.starts_with('$')).map(str::to_owned).collect()
}

#[test]
fn elements_are_sorted_by_themselves() {
    let server = TestServer::new();
    server.run("RPUSH list 3 10 -1 2.5 10");
    assert_eq!(elements(&server, "SORT list"), ["-1", "2.5", "3", "10", "10"]);
    assert_eq!(elements(&server, "SORT_RO list DESC"), ["10", "10", "3", "2.5", "-1"]);
    assert_eq!(elements(&server, "SORT list ALPHA"), ["-1", "10", "10", "2.5", "3"]);
    assert_eq!(elements(&server, "SORT list LIMIT 1 2"), ["2.5", "3"]);
    assert_eq!(elements(&server, "SORT list BY none LIMIT 0 2"), ["3", "10"]);
    assert_eq!(elements(&server, "SORT list BY none DESC LIMIT 0 2"), ["10", "2.5"]);
    check(&server, "SORT list LIMIT 9 1", "*0");
    check(&server, "SORT missing", "*0");
    server.run("RPUSH list word");
    check(&server, "SORT list", "-ERR One or more scores can't be converted into double");
    server.run("SET string 1");
    check(
        &server,
        "SORT string",
        "-WRONGTYPE Operation against a key holding the wrong kind of value",
    );
    check(&server, "SORT list LIMIT 1", "-ERR syntax error");
    check(&server, "SORT_RO list STORE other", "-ERR syntax error");
    check(&server, "SORT list LIMIT a b", "-ERR value is not an integer or out of range");
}

#[test]
fn elements_are_sorted_by_other_keys_and_replaced_by_others() {
    let server = TestServer::new();
    server.run("RPUSH list a b c d");
    server.run("MSET w_a 3 w_b 1 w_c 2 name_a Anna name_c Carl");
    server.run("HSET h_a f 1");
    server.run("HSET h_b f 9");
    assert_eq!(elements(&server, "SORT list BY w_*"), ["d", "b", "c", "a"]);
    assert_eq!(elements(&server, "SORT list BY w_* DESC"), ["a", "c", "b", "d"]);
    assert_eq!(elements(&server, "SORT list BY name_* ALPHA"), ["b", "d", "a", "c"]);
    assert_eq!(elements(&server, "SORT list BY h_*->f DESC LIMIT 0 2"), ["b", "a"]);
    assert_eq!(
        elements(&server, "SORT list BY w_* GET # GET name_* LIMIT 2 2"),
        ["c", "Carl", "a", "Anna"]
    );
    assert_eq!(elements(&server, "SORT list BY nosort GET h_*->f"), ["1", "9", "$-1", "$-1"]);
    assert_eq!(elements(&server, "SORT list BY nosort GET nothing LIMIT 0 1"), ["$-1"]);
    check(&server, "SORT list BY w_* GET name_* STORE list", ":4");
    assert_eq!(elements(&server, "LRANGE list 0 -1"), ["Carl", "Anna"], "two are empty");
    check(&server, "SORT missing STORE list", ":0");
    check(&server, "EXISTS list", ":0");
}

use super::secrets_equal;
use crate::commands::call::Effect;
use crate::commands::testing::{TestServer, follow};
use crate::config::Config;

fn with_password() -> TestServer {
    let config = Config { requirepass: Some("secret".to_owned()), ..Config::default() };
    let bench = TestServer::with(64 << 20, config);
    // The client of a test server is authenticated at first.
    assert_eq!(bench.run("RESET"), "+RESET\r\n");
    bench
}

#[test]
fn ping_and_echo_answer() {
    follow(
        &TestServer::new(),
        &[
            ("PING", "+PONG"),
            ("ping hello", "$5\r\nhello"),
            ("PING a b", "-ERR wrong number of arguments for 'ping' command"),
            ("ECHO x", "$1\r\nx"),
            ("ECHO", "-ERR wrong number of arguments for 'echo' command"),
            ("ECHO a b", "-ERR wrong number of arguments for 'echo' command"),
        ],
    );
}

#[test]
fn quit_closes() {
    let bench = TestServer::new();
    assert_eq!(bench.run("QUIT"), "+OK\r\n");
    assert_eq!(bench.effect.take(), Effect::Close);
    assert_eq!(bench.run("PING"), "+PONG\r\n");
    assert_eq!(bench.effect.take(), Effect::None);
}

const GREETING: &str = "$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.4.0\r\n$5\r\nproto\
    \r\n:P\r\n$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n\
    $7\r\nmodules\r\n*0\r\n";

#[test]
fn hello_switches_the_protocol() {
    let bench = TestServer::new();
    let resp2 = format!("*14\r\n{}", GREETING.replace(":P", ":2"));
    let resp3 = format!("%7\r\n{}", GREETING.replace(":P", ":3"));
    assert_eq!(bench.run("HELLO"), resp2);
    assert_eq!(bench.run("HELLO 3"), resp3);
    assert_eq!(bench.run("HELLO"), resp3, "it stays");
    assert_eq!(bench.run("GET none"), "_\r\n");
    assert_eq!(bench.run("HELLO 2 SETNAME me"), resp2);
    assert_eq!(bench.run("CLIENT GETNAME"), "$2\r\nme\r\n");
    assert_eq!(bench.run("hello 3 auth default anything setname you"), resp3);
    assert_eq!(bench.run("CLIENT GETNAME"), "$3\r\nyou\r\n");
    assert_eq!(bench.run("RESET"), "+RESET\r\n");
    assert_eq!(bench.run("CLIENT GETNAME"), "$-1\r\n", "name and protocol are gone");
}

#[test]
fn a_bad_hello_changes_nothing() {
    let bench = TestServer::new();
    let out_of_range = "-ERR Protocol version is not an integer or out of range";
    follow(
        &bench,
        &[
            ("HELLO a", out_of_range),
            ("HELLO 9223372036854775808", out_of_range),
            ("HELLO 1", "-NOPROTO unsupported protocol version"),
            ("HELLO 4", "-NOPROTO unsupported protocol version"),
            ("HELLO 3 Auth a", "-ERR Syntax error in HELLO option 'Auth'"),
            ("HELLO 3 SETNAME", "-ERR Syntax error in HELLO option 'SETNAME'"),
            ("HELLO 3 foo bar", "-ERR Syntax error in HELLO option 'foo'"),
            (
                "HELLO 3 SETNAME 'a b'",
                "-ERR Client names cannot contain spaces, newlines or special characters.",
            ),
            (
                "HELLO 3 SETNAME x AUTH nobody x",
                "-WRONGPASS invalid username-password pair or user is disabled.",
            ),
            ("GET none", "$-1"),
            ("CLIENT GETNAME", "$-1"),
        ],
    );
}

#[test]
fn passwords_are_checked() {
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.";
    let server = with_password();
    follow(
        &server,
        &[
            ("AUTH", "-ERR wrong number of arguments for 'auth' command"),
            ("AUTH a b c", "-ERR syntax error"),
            ("AUTH wrong", wrong),
            ("AUTH ''", wrong),
            ("AUTH secret1", wrong),
            ("AUTH default wrong", wrong),
            ("AUTH nobody secret", wrong),
            ("AUTH secret", "+OK"),
            ("AUTH default secret", "+OK"),
        ],
    );
    let info = server.run("INFO stats");
    assert!(info.contains("acl_access_denied_auth:5\r\n"), "{info}");
    follow(
        &TestServer::new(),
        &[
            (
                "AUTH x",
                "-ERR AUTH <password> called without any password configured for the default \
                 user. Are you sure your configuration is correct?",
            ),
            ("AUTH default x", "+OK"),
            ("AUTH nobody x", wrong),
        ],
    );
}

#[test]
fn hello_wants_the_password() {
    let bench = with_password();
    let refused = "-NOAUTH HELLO must be called with the client already authenticated, otherwise \
        the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
        select the RESP protocol version at the same time\r\n";
    assert_eq!(bench.run("HELLO 3"), refused);
    assert_eq!(bench.run("HELLO"), refused);
    assert!(bench.run("HELLO 3 AUTH default wrong").starts_with("-WRONGPASS "));
    assert!(bench.run("HELLO 3 AUTH default secret").starts_with("%7\r\n"));
    assert!(bench.run("HELLO 2").starts_with("*14\r\n"), "the password is remembered");
    bench.run("RESET");
    assert_eq!(bench.run("HELLO 3"), refused, "until RESET");
}

#[test]
fn secrets_are_compared_as_a_whole() {
    assert!(secrets_equal(b"abc", b"abc"));
    assert!(secrets_equal(b"", b""));
    for (secret, given) in [("abc", "abd"), ("abc", "ab"), ("ab", "abab"), ("a", ""), ("", "a")] {
        assert!(!secrets_equal(secret.as_bytes(), given.as_bytes()), "{secret} {given}");
    }
}

use super::syntax::{Argument, parse};
use crate::commands::table::CommandTable;
use crate::commands::testing::TestServer;

/// A parsed reply.
#[derive(Clone, PartialEq, Debug)]
enum Value {
    Null,
    Int(i64),
    Simple(String),
    Error(String),
    Bulk(String),
    Array(Vec<Value>),
    Set(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

impl Value {
    fn read(text: &str) -> Self {
        let (value, rest) = Self::take(text);
        assert_eq!(rest, "", "one reply and no more");
        value
    }

    fn take(text: &str) -> (Self, &str) {
        let (line, mut rest) = text.split_once("\r\n").unwrap();
        let (mark, line) = line.split_at(1);
        let many = |mut rest, len: usize| {
            let mut items = Vec::new();
            for _ in 0..len {
                let (item, after) = Self::take(rest);
                items.push(item);
                rest = after;
            }
            (items, rest)
        };
        let value = match mark {
            "_" => Self::Null,
            ":" => Self::Int(line.parse().unwrap()),
            "+" => Self::Simple(line.to_owned()),
            "-" => Self::Error(line.to_owned()),
            "$" | "*" if line == "-1" => Self::Null,
            "$" => {
                let (bulk, after) = rest.split_at(line.parse().unwrap());
                rest = after.strip_prefix("\r\n").unwrap();
                Self::Bulk(bulk.to_owned())
            }
            "*" | "~" => {
                let (items, after) = many(rest, line.parse().unwrap());
                rest = after;
                if mark == "*" { Self::Array(items) } else { Self::Set(items) }
            }
            "%" => {
                let (items, after) = many(rest, 2 * line.parse::<usize>().unwrap());
                rest = after;
                Self::Map(items.chunks(2).map(|p| (p[0].clone(), p[1].clone())).collect())
            }
            other => panic!("unknown type {other}"),
        };
        (value, rest)
    }

    fn items(&self) -> &[Value] {
        match self {
            Self::Array(items) | Self::Set(items) => items,
            other => panic!("{other:?} has no items"),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Bulk(text) | Self::Simple(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    fn texts(&self) -> Vec<&str> {
        self.items().iter().map(Self::text).collect()
    }

    fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            other => panic!("{other:?} is no number"),
        }
    }

    /// A map's value, in RESP3 or as RESP2 sends maps.
    fn find(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Map(pairs) => pairs.iter().find(|(k, _)| k.text() == key).map(|(_, v)| v),
            _ => self.items().chunks(2).find(|pair| pair[0].text() == key).map(|pair| &pair[1]),
        }
    }

    fn get(&self, key: &str) -> &Value {
        self.find(key).unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }
}

fn ask(server: &TestServer, line: &str) -> Value {
    Value::read(&server.run(line))
}

const GET: &str = "*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*3\r\n\
    +@read\r\n+@string\r\n+@fast\r\n*0\r\n*1\r\n*6\r\n$5\r\nflags\r\n*2\r\n+RO\r\n+access\r\n\
    $12\r\nbegin_search\r\n*4\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n*2\r\n$5\r\nindex\r\n\
    :1\r\n$9\r\nfind_keys\r\n*4\r\n$4\r\ntype\r\n$5\r\nrange\r\n$4\r\nspec\r\n*6\r\n$7\r\nlastkey\
    \r\n:0\r\n$7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n*0\r\n";

#[test]
fn get_is_described_as_redis_does() {
    assert_eq!(TestServer::new().run("COMMAND INFO GET"), format!("*1\r\n{GET}"));
    let sets = GET
        .replace("*2\r\n+", "~2\r\n+")
        .replace("*3\r\n+", "~3\r\n+")
        .replace("*0\r\n", "~0\r\n")
        .replace("*1\r\n", "~1\r\n")
        .replace("*6\r\n", "%3\r\n")
        .replace("*4\r\n", "%2\r\n")
        .replace("*2\r\n$", "%1\r\n$");
    assert_eq!(TestServer::new().resp3().run("COMMAND INFO get"), format!("*1\r\n{sets}"));
}

#[test]
fn subcommands_are_described_within_and_alone() {
    let server = TestServer::new();
    let reply = ask(&server, "COMMAND INFO config nosuch Config|Get");
    let [config, missing, get] = reply.items() else { panic!("{reply:?}") };
    assert_eq!(*missing, Value::Null);
    assert_eq!(config.items()[1].int(), -2);
    assert_eq!(config.items()[2].texts(), <[&str; 0]>::default());
    assert_eq!(config.items()[6].texts(), ["@slow"]);
    assert!(config.items()[9].items().contains(get));
    assert_eq!(get.items()[0].text(), "config|get");
    assert_eq!(get.items()[2].texts(), ["admin", "noscript", "loading", "stale"]);
    assert_eq!(get.items()[6].texts(), ["@admin", "@slow", "@dangerous"]);
    assert!(server.run("COMMAND INFO nosuch").ends_with("$-1\r\n"));
    assert_eq!(TestServer::new().resp3().run("COMMAND INFO nosuch"), "*1\r\n_\r\n");
}

#[test]
fn every_command_is_described() {
    for server in [TestServer::new(), TestServer::new().resp3()] {
        let count = ask(&server, "COMMAND COUNT").int();
        let all = ask(&server, "COMMAND");
        assert_eq!(i64::try_from(all.items().len()), Ok(count));
        assert_eq!(all, ask(&server, "command info"));
        let mut names = Vec::new();
        for entry in all.items() {
            names.push(entry.items()[0].text());
            for entry in entry.items()[9].items().iter().chain([entry]) {
                let fields = entry.items();
                assert_eq!(fields.len(), 10);
                assert_ne!(fields[1].int(), 0, "an arity");
                let speed: Vec<_> = fields[6].texts();
                assert!(speed.contains(&"@fast") != speed.contains(&"@slow"), "{speed:?}");
                let moves = fields[2].texts().contains(&"movablekeys");
                let has_keys = fields[3].int() > 0 || moves;
                assert_eq!(has_keys, !fields[8].items().is_empty(), "{entry:?}");
            }
        }
        assert!(names.contains(&"get") && !names.iter().any(|name| name.contains('|')));
        let list = ask(&server, "COMMAND LIST");
        assert!(names.iter().all(|name| list.texts().contains(name)));
        assert!(list.texts().contains(&"command|list"));
    }
}

#[test]
fn the_list_can_be_filtered() {
    let server = TestServer::new();
    let list = |filter: &str| {
        let reply = ask(&server, &format!("COMMAND LIST FILTERBY {filter}"));
        let mut names: Vec<String> = reply.texts().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(
        list("PATTERN CONFIG*"),
        ["config", "config|get", "config|help", "config|resetstat", "config|rewrite", "config|set"]
    );
    assert!(list("ACLCAT Read").contains(&"get".to_owned()));
    assert!(!list("ACLCAT read").contains(&"set".to_owned()));
    assert!(list("ACLCAT connection").contains(&"client|list".to_owned()));
    assert!(list("ACLCAT nosuch").is_empty() && list("MODULE x").is_empty());
    for line in ["LIST foo", "LIST FILTERBY", "LIST FILTERBY foo bar", "LIST FILTERBY PATTERN a b"]
    {
        assert_eq!(server.run(&format!("COMMAND {line}")), "-ERR syntax error\r\n", "{line}");
    }
}

#[test]
fn docs_have_texts_and_arguments() {
    let server = TestServer::new();
    let docs = ask(&server, "COMMAND DOCS GET nosuch config|get");
    assert_eq!(docs.items().len(), 4, "the unknown is left out");
    let get = docs.get("get");
    assert_eq!((get.get("since").text(), get.get("group").text()), ("1.0.0", "string"));
    let key = &get.get("arguments").items()[0];
    let fields = (key.get("name").text(), key.get("type").text(), key.get("key_spec_index").int());
    assert_eq!(fields, ("key", "key", 0));
    assert!(docs.get("config|get").find("subcommands").is_none());
    assert_eq!(server.run("COMMAND DOCS nosuch"), "*0\r\n");
    assert_eq!(TestServer::new().resp3().run("COMMAND DOCS nosuch"), "%0\r\n");
}

#[test]
fn every_command_has_docs() {
    let server = TestServer::new().resp3();
    let Value::Map(all) = ask(&server, "COMMAND DOCS") else { panic!("no map") };
    assert_eq!(i64::try_from(all.len()), Ok(ask(&server, "COMMAND COUNT").int()));
    for (name, docs) in all {
        let name = name.text();
        for text in ["summary", "since", "group"] {
            assert_ne!(docs.get(text).text(), "", "{name}: {text}");
        }
        if let Some(Value::Map(subcommands)) = docs.find("subcommands") {
            assert!(docs.find("arguments").is_none(), "{name}");
            assert!(subcommands.iter().all(|(sub, _)| sub.text().starts_with(&format!("{name}|"))));
        }
    }
    let Value::Map(set) = ask(&server, "COMMAND DOCS set") else { panic!("no map") };
    let options = set[0].1.get("arguments").items();
    let condition = &options[2];
    assert_eq!(condition.get("type").text(), "oneof");
    assert_eq!(condition.get("flags"), &Value::Set(vec![Value::Simple("optional".to_owned())]));
    let seconds = &options[4].get("arguments").items()[0];
    assert_eq!((seconds.get("token").text(), seconds.get("type").text()), ("EX", "integer"));
}

#[test]
fn keys_are_found() {
    let server = TestServer::new();
    let arity = "-ERR wrong number of arguments for 'command|getkeys' command\r\n";
    for (line, reply) in [
        ("GET a", "*1\r\n$1\r\na\r\n"),
        ("set a b ex 1", "*1\r\n$1\r\na\r\n"),
        ("", arity),
        ("foo bar", "-ERR Invalid command specified\r\n"),
        ("PING x", "-ERR The command has no key arguments\r\n"),
        ("config get a", "-ERR The command has no key arguments\r\n"),
        ("GET a b", "-ERR Invalid number of arguments specified for command\r\n"),
        ("GET", "-ERR Invalid number of arguments specified for command\r\n"),
        ("SORT a STORE b", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        ("OBJECT", "-ERR The command has no key arguments\r\n"),
        ("OBJECT NOPE a", "-ERR Invalid command specified\r\n"),
        ("ZUNION 0 a", "-ERR Invalid arguments specified for command\r\n"),
        ("ZUNION x a", "-ERR Invalid arguments specified for command\r\n"),
        ("ZUNIONSTORE d 2 a", "-ERR Invalid arguments specified for command\r\n"),
        ("XREAD a b c", "-ERR Invalid arguments specified for command\r\n"),
        ("EVAL x 0", "*0\r\n"),
    ] {
        assert_eq!(server.run(&format!("COMMAND GETKEYS {line}")), reply, "{line}");
    }
    let flags = |line: &str| {
        let keys = ask(&server, &format!("COMMAND GETKEYSANDFLAGS {line}"));
        keys.items()[0].items()[1].texts().join(" ")
    };
    for (line, expected) in [
        ("SET a b", "OW update"),
        ("SET a b EX 1 get", "RW access update"),
        ("SET get get", "OW update"),
        ("BITFIELD a", "RO access"),
        ("BITFIELD a GET u8 0 OVERFLOW SAT GET u8 8", "RO access"),
        ("BITFIELD a GET u8 0 INCRBY u8 0 1", "RW access update"),
        ("BITFIELD a GET u8", "RW access update"),
    ] {
        assert_eq!(flags(line), expected, "{line}");
    }
    let sets = TestServer::new().resp3().run("COMMAND GETKEYSANDFLAGS GET a");
    assert_eq!(sets, "*1\r\n*2\r\n$1\r\na\r\n~2\r\n+RO\r\n+access\r\n");
}

#[test]
fn unknown_subcommands_are_refused() {
    let server = TestServer::new();
    let error = ask(&server, "COMMAND foo bar");
    assert_eq!(error, Value::Error("ERR unknown subcommand 'foo'. Try COMMAND HELP.".to_owned()));
    let error = "-ERR wrong number of arguments for 'command|count' command\r\n";
    assert_eq!(server.run("COMMAND COUNT x"), error);
    assert!(ask(&server, "command HELP").texts()[0].starts_with("COMMAND <subcommand> "));
}

/// Writes arguments in the notation, with brackets around every group.
fn written(arguments: &[Argument]) -> String {
    arguments.iter().map(written_one).collect::<Vec<_>>().join(" ")
}

fn written_one(argument: &Argument) -> String {
    let parts: Vec<String> = argument.parts.iter().map(written_one).collect();
    let body = match argument.kind() {
        "pure-token" => String::new(),
        "block" if argument.name == argument.token.as_deref().unwrap_or("").to_lowercase() => {
            parts.join(" ")
        }
        "oneof" => format!("({})", parts.join("|")),
        "block" if argument.token.is_some() => parts.join(" "),
        "block" => format!("({})", parts.join(" ")),
        _ => argument.name.clone(),
    };
    let words: Vec<&str> = [argument.token.as_deref().unwrap_or(""), &body]
        .into_iter()
        .filter(|w| !w.is_empty())
        .collect();
    let body = words.join(" ");
    let flags = argument.flags();
    let dots = if flags.contains(&"multiple") { "..." } else { "" };
    if flags.contains(&"optional") { format!("[{body}{dots}]") } else { format!("{body}{dots}") }
}

#[test]
fn syntax_lines_parse_to_arguments() {
    for (line, meaning) in [
        ("key", "key"),
        ("(key value)...", "(key value)..."),
        ("[key...]", "[key...]"),
        ("[NX|XX]", "[(NX|XX)]"),
        ("[EX seconds|KEEPTTL]", "[(EX seconds|KEEPTTL)]"),
        ("[start end [BYTE|BIT]]", "[(start end [(BYTE|BIT)])]"),
        ("[(GET encoding offset)...]", "[GET encoding offset...]"),
        ("OVERFLOW (WRAP|FAIL)", "OVERFLOW (WRAP|FAIL)"),
        ("[LIMIT offset count]", "[LIMIT offset count]"),
        ("range:[start end unit:[BYTE|BIT]@7.0.0]", "[(start end [(BYTE|BIT)])]"),
        ("id-selector:(id|new-id:$)", "(id|$)"),
    ] {
        assert_eq!(written(&parse(line)), meaning, "{line}");
    }
    assert_eq!(parse("value:integer")[0].kind(), "integer");
    assert_eq!(parse("unix-time-seconds")[0].kind(), "unix-time");
    assert_eq!(parse("[(GET pattern)...]")[0].flags(), ["optional", "multiple", "multiple_token"]);
    assert_eq!(parse("WEIGHTS weight...")[0].flags(), ["multiple"]);
    let names = |line: &str| {
        parse(line).into_iter().map(|argument| argument.name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("range:[start end] [LIMIT offset count]"), "range limit");
    assert_eq!(names("(GROUP group-block:(group consumer)) new-id:$"), "group-block new-id");
    let versions = |line: &str| {
        let argument = parse(line).remove(0);
        (argument.since.unwrap_or_default(), argument.deprecated_since.unwrap_or_default())
    };
    for line in ["[GET@6.2.0]", "unit:[BYTE|BIT]@6.2.0", "LIMIT@6.2.0 offset count"] {
        assert_eq!(versions(line), ("6.2.0".to_owned(), String::new()), "{line}");
    }
    assert_eq!(versions("old@-2.8.12").1, "2.8.12");
    let by = parse("[BY by-pattern=pattern#1]").remove(0);
    assert_eq!((by.display_text(), by.key_spec), (Some("pattern"), Some(1)));
}

#[test]
fn every_syntax_line_is_parsed_completely() {
    let table = CommandTable::new(crate::commands::all(), &[]).unwrap();
    for row in table.rows() {
        let (name, line) = (&row.name, row.command.syntax);
        let opens = line.matches(['[', '(']).count();
        assert_eq!(opens, line.matches([']', ')']).count(), "{name}: {line}");
        // A token, or the name of an argument.
        let bare = |word: &str| {
            let (name, rest) = word.split_once(':').unwrap_or((word, ""));
            let is_token = rest.starts_with(|c: char| c.is_ascii_uppercase() || "=~*$".contains(c));
            let name = if is_token { rest } else { name };
            name.split(if name.len() > 1 { ['=', '#'] } else { ['#', '#'] })
                .next()
                .unwrap()
                .to_owned()
        };
        let words = |text: &str| {
            let marks = ['[', ']', '(', ')', '|', ' '];
            let mut words: Vec<String> = text
                .replace("...", "")
                .replace('@', " @")
                .split(marks)
                .filter(|word| !word.is_empty() && !word.ends_with(':') && !word.starts_with('@'))
                .map(bare)
                .collect();
            words.sort();
            words
        };
        assert_eq!(words(&written(&parse(line))), words(line), "{name}: no word is lost");
    }
}

//! The arguments of commands as COMMAND DOCS describes them, and random requests that follow the
//! description, or nearly.

use anyhow::{Context, Result, bail};
use client_tests::random::Random;
use redis::Value;
use std::collections::HashMap;

/// The words of one request.
pub type Request = Vec<Vec<u8>>;

/// A command or subcommand.
#[derive(Debug)]
pub struct Syntax {
    /// The words of its name.
    pub name: Vec<String>,
    /// The group of the documentation.
    pub group: String,
    arguments: Vec<Argument>,
}

#[derive(Debug)]
struct Argument {
    name: String,
    kind: Kind,
    /// The word before the value.
    token: Option<String>,
    is_optional: bool,
    is_multiple: bool,
    /// Whether each value has the word before it.
    repeats_token: bool,
}

#[derive(Debug)]
enum Kind {
    Key,
    Integer,
    Double,
    UnixTime,
    Pattern,
    Text,
    Token,
    OneOf(Vec<Argument>),
    Block(Vec<Argument>),
}

fn text(value: &Value) -> Result<String> {
    Ok(redis::from_redis_value(value.clone())?)
}

fn fields(value: &Value) -> Result<HashMap<String, Value>> {
    let Value::Map(pairs) = value else { bail!("not a map: {value:?}") };
    pairs.iter().map(|(name, value)| Ok((text(name)?, value.clone()))).collect()
}

fn items(value: Option<&Value>) -> &[Value] {
    match value {
        Some(Value::Array(items) | Value::Set(items)) => items,
        _ => &[],
    }
}

/// Parses the reply of COMMAND DOCS in RESP3.
///
/// # Errors
/// The reply has another form.
pub fn parse_docs(reply: &Value) -> Result<Vec<Syntax>> {
    let mut all = Vec::new();
    for (name, docs) in fields(reply)? {
        parse_command(&name, &docs, &mut all)?;
    }
    // The order of a map is random, and the requests are to be repeatable.
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

fn parse_command(name: &str, docs: &Value, all: &mut Vec<Syntax>) -> Result<()> {
    let docs = fields(docs)?;
    if let Some(subcommands) = docs.get("subcommands") {
        for (name, docs) in fields(subcommands)? {
            parse_command(&name, &docs, all)?;
        }
    }
    let arguments = items(docs.get("arguments")).iter().map(parse_argument).collect::<Result<_>>();
    all.push(Syntax {
        name: name.split('|').map(str::to_uppercase).collect(),
        group: text(docs.get("group").context("no group")?)?,
        arguments: arguments.with_context(|| name.to_owned())?,
    });
    Ok(())
}

fn parse_argument(value: &Value) -> Result<Argument> {
    let value = fields(value)?;
    let inner = || items(value.get("arguments")).iter().map(parse_argument).collect::<Result<_>>();
    let flags = items(value.get("flags")).iter().map(text).collect::<Result<Vec<_>>>()?;
    let has = |flag: &str| flags.iter().any(|known| known == flag);
    Ok(Argument {
        name: text(value.get("name").context("no name")?)?,
        kind: match &*text(value.get("type").context("no type")?)? {
            "key" => Kind::Key,
            "integer" => Kind::Integer,
            "double" => Kind::Double,
            "unix-time" => Kind::UnixTime,
            "pattern" => Kind::Pattern,
            "string" => Kind::Text,
            "pure-token" => Kind::Token,
            "oneof" => Kind::OneOf(inner()?),
            "block" => Kind::Block(inner()?),
            other => bail!("an argument of type {other}"),
        },
        token: value.get("token").map(text).transpose()?,
        is_optional: has("optional"),
        is_multiple: has("multiple"),
        repeats_token: has("multiple_token"),
    })
}

/// Makes requests of random arguments.
pub struct Generator {
    pub random: Random,
}

/// Words that are wrong, or extreme, nearly everywhere.
const ODD: [&[u8]; 18] = [
    b"",
    b"x",
    b"-1",
    b"0",
    b"1.5",
    b" 1",
    b"+1",
    b"01",
    b"-0",
    b"nan",
    b"inf",
    b"-inf",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"18446744073709551616",
    b"\xff\xfe",
    b"a\r\nb",
];

impl Generator {
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.random.below(limit as u64)).unwrap_or_default()
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    fn one<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[self.below(words.len())]
    }

    /// A request for a command.
    pub fn request(&mut self, syntax: &Syntax) -> Request {
        let mut request: Request =
            syntax.name.iter().map(|word| word.clone().into_bytes()).collect();
        let start = request.len();
        self.arguments(syntax, &syntax.arguments, &mut request);
        if self.chance(15) {
            self.damage(&mut request, start);
        }
        request
    }

    fn arguments(&mut self, syntax: &Syntax, arguments: &[Argument], request: &mut Request) {
        // A number of keys or fields is known once they are there.
        let mut counted = None;
        for argument in arguments {
            let before = request.len();
            self.argument(syntax, argument, request);
            if argument.name.starts_with("num") {
                counted = Some(request.len() - 1);
            } else if let Some(at) = counted.filter(|_| argument.is_multiple) {
                let count = request.len() - before;
                if self.chance(95) && at >= syntax.name.len() {
                    request[at] = count.to_string().into_bytes();
                }
                counted = None;
            }
        }
    }

    fn argument(&mut self, syntax: &Syntax, argument: &Argument, request: &mut Request) {
        if !argument.is_optional || self.chance(35) {
            self.given_argument(syntax, argument, request);
        }
    }

    fn given_argument(&mut self, syntax: &Syntax, argument: &Argument, request: &mut Request) {
        let times = if argument.is_multiple { 1 + self.below(3) } else { 1 };
        for time in 0..times {
            if let Some(token) = &argument.token
                && (time == 0 || argument.repeats_token)
            {
                let token = if self.chance(10) { token.to_lowercase() } else { token.clone() };
                request.push(token.into_bytes());
            }
            match &argument.kind {
                Kind::Token => {}
                Kind::OneOf(choices) => {
                    let choice = &choices[self.below(choices.len())];
                    self.given_argument(syntax, choice, request);
                }
                Kind::Block(inner) => self.arguments(syntax, inner, request),
                _ => {
                    let value = self.value(syntax, argument);
                    request.push(value);
                }
            }
        }
    }

    fn value(&mut self, syntax: &Syntax, argument: &Argument) -> Vec<u8> {
        if self.chance(3) {
            return ODD[self.below(ODD.len())].to_vec();
        }
        let name = argument.name.as_str();
        let is_stream = syntax.group == "stream";
        let word = match argument.kind {
            Kind::Key => return self.key(syntax).into_bytes(),
            Kind::Integer if name.contains("second") => {
                self.one(&["100000", "500000000", "0", "-5"]).to_owned()
            }
            Kind::Integer if name.contains("idle") || name == "ms" => {
                self.one(&["0", "1000000", "1"]).to_owned()
            }
            Kind::Integer => match self.below(4) {
                0 => self.one(&["0", "1", "-1"]).to_owned(),
                1 => self.one(&["4294967296", "100", "-100", "7", "8", "64"]).to_owned(),
                _ => (self.random.below(14).cast_signed() - 4).to_string(),
            },
            Kind::UnixTime => {
                self.one(&["32503680000", "32503680000000", "1", "0", "40000000000"]).to_owned()
            }
            Kind::Double => self.score(),
            Kind::Pattern => self.one(&["*", "s*", "[a-m]*", "?", "*1", "x"]).to_owned(),
            _ if is_stream && (name == "group" || name == "consumer") => {
                self.one(&["g", "h", "bob", "alice"]).to_owned()
            }
            _ if is_stream && (name.contains("id") || ["start", "end"].contains(&name)) => {
                self.stream_id()
            }
            _ if is_stream && name == "threshold" => self.stream_id(),
            _ if name == "encoding" => self.one(&["u8", "i5", "u1", "i64", "u64"]).to_owned(),
            _ if name == "offset" => self.one(&["0", "#1", "7", "100", "#3"]).to_owned(),
            _ if name == "score" || name == "increment" => self.score(),
            _ if ["min", "max", "start", "stop"].contains(&name) => self.bound(),
            _ => return self.member(),
        };
        word.into_bytes()
    }

    fn key(&mut self, syntax: &Syntax) -> String {
        let own = match &*syntax.group {
            "string" | "hyperloglog" => "str",
            "bitmap" => "bits",
            "list" => "list",
            "hash" => "hash",
            "set" => "set",
            "sorted-set" => "zset",
            "geo" => "geo",
            "stream" => "stream",
            _ => "",
        };
        if !own.is_empty() && self.chance(92) {
            return format!("{own}{}", self.below(3));
        }
        let any = ["str", "bits", "list", "hash", "set", "zset", "stream", "geo", "none"];
        format!("{}{}", self.one(&any), self.below(3))
    }

    fn member(&mut self) -> Vec<u8> {
        match self.below(12) {
            0..=3 => (self.random.below(20).cast_signed() - 5).to_string().into_bytes(),
            4..=8 => self.one(&["a", "b", "c", "ab", "aa", "ba", "x", "B"]).into(),
            9 => "y".repeat(self.below(90)).into_bytes(),
            10 => self.one(&["foobar", "3.5", "hello world", "str0", "list1"]).into(),
            _ => ODD[self.below(ODD.len())].to_vec(),
        }
    }

    fn score(&mut self) -> String {
        match self.below(6) {
            0..=3 => (self.random.below(12).cast_signed() - 4).to_string(),
            4 => self.one(&["1.5", "-2.25", "3.75", "0.5"]).to_owned(),
            _ => self.one(&["inf", "-inf", "1e3", "+5", "-0"]).to_owned(),
        }
    }

    fn bound(&mut self) -> String {
        match self.below(5) {
            0 => self.one(&["-", "+", "-inf", "+inf"]).to_owned(),
            1 => self.one(&["[a", "(a", "[b", "(c", "[", "(1", "(3"]).to_owned(),
            _ => (self.random.below(14).cast_signed() - 4).to_string(),
        }
    }

    fn stream_id(&mut self) -> String {
        match self.below(8) {
            0 => self.one(&["-", "+", "$", ">"]).to_owned(),
            1 => self.one(&["0", "0-0", "5", "(3-0", "18446744073709551615-5"]).to_owned(),
            2 => format!("{}-*", self.below(40)),
            _ => format!("{}-{}", self.below(40), self.below(3)),
        }
    }

    /// Makes a request that is probably wrong.
    fn damage(&mut self, request: &mut Request, start: usize) {
        if request.len() == start {
            return request.push(ODD[self.below(ODD.len())].to_vec());
        }
        let at = start + self.below(request.len() - start);
        match self.below(5) {
            0 => {
                request.remove(at);
            }
            1 => {
                let word = request[at].clone();
                request.insert(at, word);
            }
            2 => {
                let other = start + self.below(request.len() - start);
                request.swap(at, other);
            }
            3 => request[at] = ODD[self.below(ODD.len())].to_vec(),
            _ => {
                // An option once more, at the end.
                let rest = request[at..].to_vec();
                request.extend(rest.into_iter().take(2));
            }
        }
    }
}

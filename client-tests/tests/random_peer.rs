//! Random commands, sound and unsound, to Debian's redis-server and to Cowherd: every reply must be
//! the same, whichever way values are kept. Scores are such that Redis 7.0 writes them as later
//! versions do.

use anyhow::{Context, Result};
use client_tests::peer::Peer;
use client_tests::random::{Random, seed};
use client_tests::server::Server;
use client_tests::times::same_but_for_times;
use client_tests::wire::{Raw, show};
use client_tests::{TestResult, skip};

const COMMANDS: usize = 6_000;

/// Chooses words by chance.
struct Words {
    random: Random,
}

type Arguments = Vec<Vec<u8>>;

impl Words {
    fn chance(&mut self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    fn number(&mut self, low: i64, high: i64) -> i64 {
        low + i64::try_from(self.random.below(high.abs_diff(low) + 1)).unwrap_or_default()
    }

    fn one<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[usize::try_from(self.random.below(words.len() as u64)).unwrap_or_default()]
    }

    fn key(&mut self) -> String {
        self.one(&["a", "b", "c", "d", "missing", "string"]).to_owned()
    }

    fn member(&mut self) -> String {
        match self.random.below(10) {
            0..=2 => self.number(-5, 60).to_string(),
            3..=7 => {
                let (first, second) = (self.one(&["a", "b", "c"]), self.one(&["", "a", "x"]));
                format!("{first}{second}")
            }
            8 => self.one(&["x", "yz"]).repeat(63),
            _ => self.one(&["", "0", "-0", "007"]).to_owned(),
        }
    }

    fn score(&mut self) -> String {
        match self.random.below(20) {
            0..=12 => self.number(-4, 4).to_string(),
            13..=17 => (self.number(-40, 40) as f64 / 4.0).to_string(),
            18 => self.one(&["inf", "-inf", "+inf", "0x10", "1e3"]).to_owned(),
            _ => self.one(&["nan", "abc", "", " 1", "1e400", "1.5.5"]).to_owned(),
        }
    }

    fn score_bound(&mut self) -> String {
        let open = if self.chance(30) { "(" } else { "" };
        format!("{open}{}", self.score())
    }

    fn member_bound(&mut self) -> String {
        match self.random.below(20) {
            0..=3 => self.one(&["-", "+"]).to_owned(),
            4..=18 => format!("{}{}", self.one(&["[", "("]), self.member()),
            _ => self.one(&["", "abc", "--", "+x"]).to_owned(),
        }
    }

    fn id(&mut self) -> String {
        match self.random.below(40) {
            0 => {
                self.one(&["x", "", "1-", "-1", "18446744073709551615-18446744073709551615"]).into()
            }
            1..=4 => self.number(0, 40).to_string(),
            _ => format!("{}-{}", self.number(0, 40), self.number(0, 3)),
        }
    }

    /// The id of a new entry: mostly above those that are there.
    fn new_id(&mut self) -> String {
        match self.random.below(20) {
            0..=2 => self.id(),
            3..=8 => format!("{}-*", self.number(30, 45)),
            9 => format!("{}-*", self.number(0, 99)),
            _ => format!("{}-{}", self.number(20, 45), self.number(0, 50)),
        }
    }

    fn id_bound(&mut self) -> String {
        match self.random.below(10) {
            0..=3 => self.one(&["-", "+"]).to_owned(),
            4..=5 => format!("({}", self.id()),
            _ => self.id(),
        }
    }

    fn stream(&mut self) -> String {
        self.one(&["a", "a", "a", "a", "b", "b", "missing", "string"]).to_owned()
    }

    fn group(&mut self) -> String {
        self.one(&["g", "g", "g", "h", "h", "nogroup"]).to_owned()
    }

    fn consumer(&mut self) -> String {
        self.one(&["bob", "alice", "carol", "longer-than-8", "longer-than-9"]).to_owned()
    }

    fn rank(&mut self) -> String {
        match self.random.below(30) {
            0 => self.one(&["x", "1.5", ""]).to_owned(),
            1..=9 => self.one(&["0", "-1"]).to_owned(),
            _ => self.number(-12, 12).to_string(),
        }
    }
}

/// A command put together word by word.
struct Line<'w> {
    words: &'w mut Words,
    line: Arguments,
}

impl Line<'_> {
    fn add(mut self, word: impl AsRef<[u8]>) -> Self {
        self.line.push(word.as_ref().to_vec());
        self
    }

    fn key(self) -> Self {
        let key = self.words.key();
        self.add(key)
    }

    fn chosen(self, words: &[&str]) -> Self {
        let word = self.words.one(words);
        self.add(word)
    }

    fn perhaps(self, percent: u64, word: &str) -> Self {
        if self.words.chance(percent) { self.add(word) } else { self }
    }

    fn several(mut self, most: i64, word: impl Fn(&mut Words) -> String) -> Self {
        for _ in 0..self.words.number(1, most) {
            let word = word(self.words);
            self = self.add(word);
        }
        self
    }

    fn twice(self, word: impl Fn(&mut Words) -> String) -> Self {
        let (one, other) = (word(self.words), word(self.words));
        self.add(one).add(other)
    }

    fn limit(self, percent: u64) -> Self {
        match self.words.chance(percent) {
            true => self.add("LIMIT").twice(Words::rank),
            false => self,
        }
    }

    /// A stream and a group of it.
    fn grouped(self) -> Self {
        let (stream, group) = (self.words.stream(), self.words.group());
        self.add(stream).add(group)
    }

    fn consumer(self) -> Self {
        let consumer = self.words.consumer();
        self.add(consumer)
    }

    fn count(self, percent: u64) -> Self {
        match self.words.chance(percent) {
            true => self.add("COUNT").chosen(&["1", "2", "3", "7", "0", "-1", "x"]),
            false => self,
        }
    }

    fn trimmed(self) -> Self {
        let line = match self.words.chance(60) {
            true => self.add("MAXLEN").perhaps(30, "~").several(1, Words::rank),
            false => self.add("MINID").perhaps(30, "~").several(1, Words::id),
        };
        match line.words.chance(10) {
            true => line.add("LIMIT").several(1, Words::rank),
            false => line,
        }
    }

    fn claim_options(self) -> Self {
        let line = match self.words.random.below(8) {
            0 => self.add("IDLE").chosen(&["0", "500000", "x"]),
            1 => self.add("TIME").chosen(&["1000", "1", "x"]),
            2 => self.add("RETRYCOUNT").chosen(&["0", "5", "-1"]),
            3 => self.add("LASTID").several(1, Words::id),
            _ => self,
        };
        line.perhaps(20, "FORCE").perhaps(20, "JUSTID")
    }

    /// One or two streams, and from where each is read.
    fn streams(self, new: &str) -> Self {
        let mut line = self.add("STREAMS");
        let count = line.words.number(1, 2);
        for _ in 0..count {
            let stream = line.words.stream();
            line = line.add(stream);
        }
        for _ in 0..count {
            let id = if line.words.chance(60) { new.to_owned() } else { line.words.id() };
            line = line.add(id);
        }
        line
    }

    fn pairs(mut self) -> Self {
        for _ in 0..self.words.number(1, 3) {
            let (score, member) = (self.words.score(), self.words.member());
            self = self.add(score).add(member);
        }
        self
    }

    /// A number of keys and keys, mostly as many.
    fn counted_keys(mut self, weights: bool) -> Self {
        let count = self.words.number(1, 3);
        let said = match self.words.chance(94) {
            true => count.to_string(),
            false => self.words.one(&["0", "-1", "x", "9", ""]).to_owned(),
        };
        self = self.add(said);
        for _ in 0..count {
            self = self.key();
        }
        if weights && self.words.chance(30) {
            self = self.add("WEIGHTS");
            for _ in 0..count {
                self = self.chosen(&["1", "2", "-1", "0", "0.5", "inf"]);
            }
        }
        if weights && self.words.chance(30) {
            self = self.add("AGGREGATE").chosen(&["SUM", "MIN", "max", "AVG"]);
        }
        self
    }

    fn range(self, is_store: bool) -> Self {
        let line = match self.words.random.below(3) {
            0 => self.key().twice(Words::rank),
            1 => self.key().twice(Words::score_bound).add("BYSCORE"),
            _ => self.add("lex").twice(Words::member_bound).add("BYLEX"),
        };
        line.perhaps(30, "REV").limit(25).perhaps(if is_store { 3 } else { 30 }, "WITHSCORES")
    }
}

fn sorted_set_command(words: &mut Words) -> Arguments {
    let choice = words.random.below(36);
    let line = Line { words, line: Vec::new() };
    let line = match choice {
        0..=7 => line
            .add("ZADD")
            .key()
            .perhaps(10, "NX")
            .perhaps(15, "XX")
            .perhaps(10, "GT")
            .perhaps(10, "lt")
            .perhaps(30, "CH")
            .perhaps(7, "INCR")
            .pairs(),
        8 => line.add("ZINCRBY").key().pairs(),
        9..=10 => line.add("ZREM").key().several(3, Words::member),
        11 => line.chosen(&["ZSCORE", "ZRANK", "ZREVRANK"]).key().several(1, Words::member),
        12 => line.add("ZMSCORE").key().several(3, Words::member),
        13 => line.chosen(&["ZCARD", "TYPE", "TTL", "EXISTS", "GET"]).key(),
        14 => line.add("ZCOUNT").key().twice(Words::score_bound),
        15 => line.add("ZLEXCOUNT").add("lex").twice(Words::member_bound),
        16..=18 => line.add("ZRANGE").range(false),
        19 => line.add("ZREVRANGE").key().twice(Words::rank).perhaps(30, "WITHSCORES"),
        20 => line
            .chosen(&["ZRANGEBYSCORE", "ZREVRANGEBYSCORE"])
            .key()
            .twice(Words::score_bound)
            .limit(40)
            .perhaps(30, "WITHSCORES"),
        21 => line
            .chosen(&["ZRANGEBYLEX", "ZREVRANGEBYLEX"])
            .add("lex")
            .twice(Words::member_bound)
            .limit(40),
        22..=23 => line.add("ZRANGESTORE").chosen(&["a", "b", "c"]).range(true),
        24 => line.add("ZREMRANGEBYRANK").key().twice(Words::rank),
        25 => line.add("ZREMRANGEBYSCORE").key().twice(Words::score_bound),
        26 => line.add("ZREMRANGEBYLEX").add("lex").twice(Words::member_bound),
        27 => line.chosen(&["ZPOPMIN", "ZPOPMAX"]).key(),
        28 => line.chosen(&["ZPOPMIN", "ZPOPMAX"]).key().several(1, Words::rank),
        29 => line.add("ZMPOP").counted_keys(false).chosen(&["MIN", "MAX"]).perhaps(3, "COUNT"),
        30 => line.chosen(&["ZUNION", "ZINTER"]).counted_keys(true).perhaps(50, "WITHSCORES"),
        31 => line.add("ZDIFF").counted_keys(false).perhaps(50, "WITHSCORES"),
        32..=33 => line
            .chosen(&["ZUNIONSTORE", "ZINTERSTORE"])
            .chosen(&["a", "b", "c", "d"])
            .counted_keys(true),
        34 => line.add("ZDIFFSTORE").chosen(&["a", "b", "c", "d"]).counted_keys(false),
        _ => line.add("ZINTERCARD").counted_keys(false).limit(0).perhaps(10, "LIMIT"),
    };
    line.line
}

fn stream_command(words: &mut Words) -> Arguments {
    const IDLE: &[&str] = &["0", "0", "0", "100000", "-1", "x"];
    let choice = words.random.below(64);
    let line = Line { words, line: Vec::new() };
    let line = match choice {
        0..=13 => {
            let line = line.add("XADD").several(1, Words::stream).perhaps(10, "NOMKSTREAM");
            let line = if line.words.chance(15) { line.trimmed() } else { line };
            line.several(1, Words::new_id).twice(Words::member).several(2, Words::member)
        }
        14..=15 => line.add("XTRIM").several(1, Words::stream).trimmed(),
        16..=18 => line.add("XDEL").several(1, Words::stream).several(3, Words::id),
        19 => line.chosen(&["XLEN", "TYPE", "EXISTS"]).several(1, Words::stream),
        20..=22 => line
            .chosen(&["XRANGE", "XREVRANGE"])
            .several(1, Words::stream)
            .twice(Words::id_bound)
            .count(30),
        23..=25 => line.add("XREAD").count(40).streams("0"),
        26 => {
            line.add("XGROUP").add("CREATE").grouped().several(1, Words::id).perhaps(9, "MKSTREAM")
        }
        27 => line.add("XGROUP").add("CREATE").grouped().add("$").perhaps(30, "MKSTREAM"),
        28 => line.add("XGROUP").add("SETID").grouped().several(1, Words::id),
        29 => line.add("XGROUP").add("DELCONSUMER").grouped().consumer(),
        30 => line.add("XGROUP").add("CREATECONSUMER").grouped().consumer(),
        31..=42 => {
            let line = line.add("XREADGROUP").add("GROUP").several(1, Words::group).consumer();
            line.count(70).perhaps(10, "NOACK").streams(">")
        }
        43..=46 => line.add("XACK").grouped().several(3, Words::id),
        47..=48 => line.add("XPENDING").grouped(),
        49..=50 => {
            let line = line.add("XPENDING").grouped();
            let line = if line.words.chance(30) { line.add("IDLE").chosen(IDLE) } else { line };
            let line = line.twice(Words::id_bound).chosen(&["1", "5", "100"]);
            if line.words.chance(30) { line.consumer() } else { line }
        }
        51..=54 => line
            .add("XCLAIM")
            .grouped()
            .consumer()
            .chosen(IDLE)
            .several(4, Words::id)
            .claim_options(),
        55..=57 => line
            .add("XAUTOCLAIM")
            .grouped()
            .consumer()
            .chosen(IDLE)
            .several(1, Words::id_bound)
            .count(40)
            .perhaps(30, "JUSTID"),
        58..=59 => line.add("XINFO").add("GROUPS").several(1, Words::stream),
        60 => line.add("XINFO").add("CONSUMERS").grouped(),
        61 => line.add("XSETID").several(1, Words::stream).several(1, Words::id),
        62 => match line.words.random.below(30) {
            0 => line.add("XGROUP").add("DESTROY").grouped(),
            1 => line.add("DEL").several(1, Words::stream),
            2 => line.add("COPY").chosen(&["a", "b"]).chosen(&["a", "b"]).add("REPLACE"),
            3 => line.add("RENAME").chosen(&["a", "b"]).chosen(&["a", "b"]),
            _ => line.add("XRANGE").several(1, Words::stream).add("-").add("+"),
        },
        _ => line.add("XREADGROUP").add("GROUP").several(1, Words::group).consumer().streams("0"),
    };
    line.line
}

/// Sends the same to both, and compares. `directive` takes several values one after the other.
fn compare(next: fn(&mut Words) -> Arguments, directive: &str, before: &[&[&str]]) -> TestResult {
    let Some(peer) = Peer::start()? else { skip!("redis-server is not installed") };
    let server = Server::start()?;
    let seed = seed();
    for (protocol, limit) in [("2", "8"), ("3", "8"), ("2", "128"), ("3", "0")] {
        let mut both = [peer.raw()?, server.raw()?];
        for raw in &mut both {
            raw.call(&["HELLO", protocol])?;
            raw.call(&["FLUSHALL"])?;
            raw.call(&["CONFIG", "SET", directive, limit])?;
            for line in before {
                raw.call(line)?;
            }
        }
        let mut words = Words { random: Random::new(seed ^ limit.len() as u64) };
        for number in 0..COMMANDS {
            let arguments = next(&mut words);
            same(&mut both, &arguments).map_err(|problem| {
                problem.context(format!("RESP{protocol}, limit {limit}, command {number}"))
            })?;
        }
        both[1].call(&["DEBUG", "VERIFY"])?;
    }
    Ok(())
}

fn same(both: &mut [Raw; 2], arguments: &Arguments) -> Result<()> {
    let redis = both[0].exchange(arguments)?;
    let cowherd = both[1].exchange(arguments)?;
    let line = || arguments.iter().map(|word| show(word)).collect::<Vec<_>>().join(" ");
    if redis != cowherd {
        same_but_for_times(&redis, &cowherd).with_context(line)?;
    }
    Ok(())
}

#[test]
fn sorted_sets_are_those_of_redis() -> TestResult {
    let lex =
        ["ZADD", "lex", "0", "a", "0", "b", "0", "ca", "0", "ax", "0", "c", "0", "5", "0", "12"];
    let before: [&[&str]; 2] = [&["SET", "string", "x"], &lex];
    compare(sorted_set_command, "zset-max-listpack-entries", &before)
}

#[test]
fn streams_are_those_of_redis() -> TestResult {
    compare(stream_command, "stream-node-max-entries", &[&["SET", "string", "x"]])
}

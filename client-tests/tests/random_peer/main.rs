//! Comparison with Debian's redis-server by random commands, valid and invalid: each reply must be
//! equal, for every encoding of values. Streams, and scripts that call their commands, are compared
//! with a newer Redis. Scores are such that Redis 7.0 formats them as later versions do. Replies
//! without a defined order are sorted before the comparison; commands with random replies are not
//! sent.

use anyhow::{Context as _, Result, ensure};
use client_tests::peer::Peer;
use client_tests::random::{Random, seed};
use client_tests::server::Server;
use client_tests::times::same_but_for_times;
use client_tests::wire::{RawConnection, show};
use client_tests::{TestResult, rounds, skip};

mod geo;
mod hyperloglog;
mod scripts;
mod streams;
mod words;

use geo::geo_command;
use hyperloglog::hyperloglog_command;
use scripts::Scripts;
use streams::stream_command;
use words::{Arguments, Line, Words};

/// Number of commands per type, setting and round.
const COMMANDS: u64 = 60;

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

fn list_command(words: &mut Words) -> Arguments {
    let choice = words.random.below(28);
    let line = Line { words, line: Vec::new() };
    let line = match choice {
        0..=3 => line.chosen(&["LPUSH", "RPUSH"]).key().several(5, Words::member),
        4 => line.chosen(&["LPUSHX", "RPUSHX"]).key().several(2, Words::member),
        5..=6 => line.chosen(&["LPOP", "RPOP"]).key(),
        7 => line.chosen(&["LPOP", "RPOP"]).key().several(1, Words::rank),
        8 => line.chosen(&["LLEN", "TYPE", "TTL", "EXISTS", "GET", "OBJECT"]).key(),
        9..=11 => line.add("LRANGE").key().twice(Words::rank),
        12..=13 => line.add("LINDEX").key().several(1, Words::rank),
        14..=15 => line.add("LSET").key().several(1, Words::rank).several(1, Words::member),
        16..=17 => line
            .add("LINSERT")
            .key()
            .chosen(&["BEFORE", "after", "AFTER", "BESIDE"])
            .twice(Words::member),
        18..=19 => line.add("LREM").key().several(1, Words::rank).several(1, Words::member),
        20 => line.add("LTRIM").key().twice(Words::rank),
        21..=22 => line
            .add("LPOS")
            .key()
            .several(1, Words::member)
            .option(40, "RANK", Words::rank)
            .option(40, "COUNT", Words::rank)
            .option(20, "MAXLEN", Words::rank),
        23..=24 => line
            .add("LMOVE")
            .key()
            .key()
            .chosen(&["LEFT", "RIGHT"])
            .chosen(&["LEFT", "right", "MIDDLE"]),
        25 => line.add("RPOPLPUSH").key().key(),
        26 => line.add("LMPOP").counted_keys(false).chosen(&["LEFT", "RIGHT", "UP"]).option(
            40,
            "COUNT",
            Words::rank,
        ),
        _ => line.add("SORT").key().limit(30).perhaps(50, "ALPHA").perhaps(30, "DESC"),
    };
    line.line
}

fn hash_command(words: &mut Words) -> Arguments {
    let choice = words.random.below(24);
    let line = Line { words, line: Vec::new() };
    let line = match choice {
        0..=5 => line.chosen(&["HSET", "HSET", "HMSET"]).key().fields(),
        6 => line.add("HSETNX").key().twice(Words::member),
        7..=9 => line.add("HGET").key().several(1, Words::member),
        10..=11 => line.add("HMGET").key().several(4, Words::member),
        12..=14 => line.add("HDEL").key().several(4, Words::member),
        15 => line.chosen(&["HLEN", "TYPE", "TTL", "EXISTS", "GET"]).key(),
        16 => line.chosen(&["HEXISTS", "HSTRLEN"]).key().several(1, Words::member),
        17..=18 => line.add("HINCRBY").key().several(1, Words::member).several(1, Words::rank),
        // Sums that Redis 7.0 formats as later versions do.
        19 => line.add("HINCRBYFLOAT").key().add("float").chosen(&["0.5", "-0.25", "1", "x", ""]),
        20 => line.add("HGETALL").key(),
        21 => line.chosen(&["HKEYS", "HVALS"]).key(),
        22 => line.chosen(&["HGET", "HSETNX", "HINCRBY", "HDEL", "HSET", "HMSET"]).key(),
        _ => line.add("COPY").key().chosen(&["a", "b"]).perhaps(60, "REPLACE"),
    };
    line.line
}

fn set_command(words: &mut Words) -> Arguments {
    let choice = words.random.below(24);
    let line = Line { words, line: Vec::new() };
    let line = match choice {
        0..=6 => line.add("SADD").key().several(5, Words::member),
        7..=9 => line.add("SREM").key().several(4, Words::member),
        10 => line.add("SISMEMBER").key().several(1, Words::member),
        11 => line.add("SMISMEMBER").key().several(4, Words::member),
        12 => line.chosen(&["SCARD", "TYPE", "TTL", "EXISTS", "GET"]).key(),
        13..=14 => line.add("SMEMBERS").key(),
        15..=16 => line.add("SMOVE").key().key().several(1, Words::member),
        17..=18 => line.chosen(&["SUNION", "SINTER", "SDIFF"]).several(3, Words::key),
        19..=20 => line
            .chosen(&["SUNIONSTORE", "SINTERSTORE", "SDIFFSTORE"])
            .chosen(&["a", "b", "c", "d"])
            .several(3, Words::key),
        21 => line.add("SINTERCARD").counted_keys(false).option(30, "LIMIT", Words::rank),
        22 => line.add("SORT").key().limit(30).add("ALPHA").perhaps(30, "DESC"),
        _ => line.add("RENAME").key().chosen(&["a", "b", "c", "d"]),
    };
    line.line
}

/// Protocol and limit of the compact encoding, from none to the default.
const LIMITS: [(&str, &str); 4] = [("2", "8"), ("3", "8"), ("2", "128"), ("3", "0")];

/// Sends the same commands to both servers, and compares the replies.
fn compare(
    peer: Option<Peer>,
    next: fn(&mut Words) -> Arguments,
    limits: &[&str],
    before: &[&[&str]],
) -> TestResult {
    let Some(peer) = peer else { skip!("the redis-server to compare with is not installed") };
    let server = Server::start()?;
    let seed = seed();
    for (protocol, limit) in LIMITS {
        let mut both = [peer.raw()?, server.raw()?];
        for raw in &mut both {
            raw.call(&["HELLO", protocol])?;
            raw.call(&["FLUSHALL"])?;
            for directive in limits {
                raw.call(&["CONFIG", "SET", directive, limit])?;
            }
            for line in before {
                raw.call(line)?;
            }
        }
        let mut words = Words { random: Random::new(seed ^ limit.len() as u64) };
        for number in 0..COMMANDS * rounds() {
            let arguments = next(&mut words);
            same(&mut both, &arguments).map_err(|problem| {
                problem.context(format!("RESP{protocol}, limit {limit}, command {number}"))
            })?;
        }
        both[1].call(&["DEBUG", "VERIFY"])?;
    }
    Ok(())
}

/// Commands whose replies have no defined order, with the number of elements per group.
const UNORDERED: [(&str, usize); 7] = [
    ("SMEMBERS", 1),
    ("SUNION", 1),
    ("SINTER", 1),
    ("SDIFF", 1),
    ("HKEYS", 1),
    ("HVALS", 1),
    ("HGETALL", 2),
];

fn same(both: &mut [RawConnection; 2], arguments: &Arguments) -> Result<()> {
    let mut replies = Vec::new();
    for raw in both {
        let reply = raw.exchange(arguments)?;
        let unordered = UNORDERED.iter().find(|(name, _)| arguments[0] == name.as_bytes());
        replies.push(match unordered {
            Some((_, group)) => sorted(&reply, *group),
            None => reply,
        });
    }
    let line = || arguments.iter().map(|word| show(word)).collect::<Vec<_>>().join(" ");
    // Only replies about streams contain times.
    if replies[0] != replies[1] && arguments[0].starts_with(b"X") {
        return same_but_for_times(&replies[0], &replies[1]).with_context(line);
    }
    ensure!(
        replies[0] == replies[1],
        "{}\n    redis:   {}\n    cowherd: {}",
        line(),
        show(&replies[0]),
        show(&replies[1])
    );
    Ok(())
}

/// Sorts the groups of elements of a flat reply of bulk strings; returns other replies unchanged.
fn sorted(reply: &[u8], group: usize) -> Vec<u8> {
    let mut lines = reply.split_inclusive(|byte| *byte == b'\n');
    let head = lines.next().unwrap_or_default();
    // No argument of these tests contains a line end.
    let lines: Vec<&[u8]> = lines.collect();
    let mut groups: Vec<Vec<u8>> = lines.chunks(2 * group).map(<[&[u8]]>::concat).collect();
    groups.sort_unstable();
    [head, &groups.concat()].concat()
}

#[test]
fn sorted_sets_are_those_of_redis() -> TestResult {
    let lex =
        ["ZADD", "lex", "0", "a", "0", "b", "0", "ca", "0", "ax", "0", "c", "0", "5", "0", "12"];
    let limits = ["zset-max-listpack-entries"];
    compare(Peer::start()?, sorted_set_command, &limits, &[&["SET", "string", "x"], &lex])
}

#[test]
fn lists_are_those_of_redis() -> TestResult {
    compare(Peer::start()?, list_command, &["list-max-listpack-size"], &[&["SET", "string", "x"]])
}

#[test]
fn hashes_are_those_of_redis() -> TestResult {
    compare(
        Peer::start()?,
        hash_command,
        &["hash-max-listpack-entries"],
        &[&["SET", "string", "x"]],
    )
}

#[test]
fn sets_are_those_of_redis() -> TestResult {
    // Redis 7.0 has no set-max-listpack-entries.
    compare(Peer::start()?, set_command, &["set-max-intset-entries"], &[&["SET", "string", "x"]])
}

#[test]
fn hyperloglogs_are_those_of_redis() -> TestResult {
    let before: [&[&str]; 1] = [&["HSET", "string", "x", "y"]];
    compare(Peer::start()?, hyperloglog_command, &["hll-sparse-max-bytes"], &before)
}

#[test]
fn geo_commands_are_those_of_redis() -> TestResult {
    let before: [&[&str]; 1] = [&["SET", "string", "x"]];
    compare(Peer::start()?, geo_command, &["zset-max-listpack-entries"], &before)
}

#[test]
fn streams_are_those_of_newer_redis() -> TestResult {
    compare(
        Peer::start_newer()?,
        stream_command,
        &["stream-node-max-entries"],
        &[&["SET", "string", "x"]],
    )
}

/// Compares the values of all keys that scripts use.
fn same_values(both: &mut [RawConnection; 2]) -> Result<()> {
    let words = |line: &[&str]| line.iter().map(|word| word.as_bytes().to_vec()).collect();
    for key in ["a", "b", "c", "d", "lex", "float", "missing", "string"] {
        let kind = both[0].text(&["TYPE", key])?;
        same(both, &words(&["TYPE", key]))?;
        same(
            both,
            &match kind.as_str() {
                "list" => words(&["LRANGE", key, "0", "-1"]),
                "hash" => words(&["HGETALL", key]),
                "set" => words(&["SMEMBERS", key]),
                "zset" => words(&["ZRANGE", key, "0", "-1", "WITHSCORES"]),
                "stream" => words(&["XRANGE", key, "-", "+"]),
                _ => words(&["GET", key]),
            },
        )?;
    }
    Ok(())
}

#[test]
fn scripts_are_those_of_newer_redis() -> TestResult {
    /// Number of scripts of a family before the next one.
    const SCRIPTS: u64 = 10;
    let Some(peer) = Peer::start_newer()? else { skip!("there is no newer redis-server") };
    let server = Server::start()?;
    let seed = seed();
    for (number, protocol) in [(0, "2"), (1, "3")] {
        let mut both = [peer.raw()?, server.raw()?];
        for raw in &mut both {
            raw.call(&["HELLO", protocol])?;
            raw.call(&["FLUSHALL"])?;
        }
        let words = Words { random: Random::new(seed ^ number) };
        let mut scripts = Scripts { words, family: 0 };
        for round in 0..SCRIPTS * rounds() {
            scripts.family = round / SCRIPTS % 6;
            let lines = scripts.next();
            let shown = |arguments: &Arguments| arguments.join(&b' ').escape_ascii().to_string();
            for arguments in &lines {
                let about = || {
                    let all = lines.iter().map(shown).collect::<Vec<_>>().join("\n");
                    format!("RESP{protocol}, script {round} in\n{all}")
                };
                same(&mut both, arguments).with_context(about)?;
            }
            if round % SCRIPTS == 0 {
                same_values(&mut both).with_context(|| format!("after script {round}"))?;
            }
        }
        both[1].call(&["DEBUG", "VERIFY"])?;
    }
    Ok(())
}

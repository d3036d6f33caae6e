//! Comparison with other servers by random requests for every command about data, made from the
//! argument syntax that COMMAND DOCS gives: options in any combination, repeated, misplaced and
//! left out, in both protocols, with small and large encodings.
//!
//! A reply is right if it is that of one of the newer servers (Redis 8.2, Valkey 9.1); that of
//! Redis 7.0 is shown beside them. A server with a reply that differs from ours is left out until
//! next section, which begins with an empty keyspace, since its keys may differ from then on.
//!
//! A difference is reported with the least number of requests that show it.

use anyhow::{Context, Result, bail, ensure};
use client_tests::peer::Peer;
use client_tests::random::Random;
use client_tests::server::Server;
use client_tests::times::are_near;
use client_tests::wire::{RawConnection, encode, show};
use client_tests::{TestResult, rounds, skip};
use redis::Value;

mod allowed;
mod syntax;

use allowed::is_allowed;
use syntax::{Generator, Request, Syntax};

/// Requests of a section.
const SECTION: usize = 400;
/// Sections of one round of the tests.
const SECTIONS: u64 = 1;
/// Seed of the first section, unless `COWHERD_TEST_SEED` gives another one.
const SEED: u64 = 1;
/// Differences after which a run ends.
const MOST_REPORTS: usize = 30;
/// Requests that are sent before their replies are read.
const PIPELINE: usize = 40;

/// Commands about connections and the server that are compared too, beside all those about data.
const OTHER_COMMANDS: [&str; 7] =
    ["DBSIZE", "FLUSHALL", "FLUSHDB", "SWAPDB", "SELECT", "ECHO", "PING"];

/// Groups of commands about data.
const GROUPS: [&str; 10] = [
    "string",
    "bitmap",
    "list",
    "hash",
    "set",
    "sorted-set",
    "stream",
    "generic",
    "hyperloglog",
    "geo",
];

/// Commands that are not compared: their replies and effects are random, they wait for others, or
/// they take long.
const EXCLUDED: [&str; 6] = ["SPOP", "RANDOMKEY", "MIGRATE", "WAIT", "WAITAOF", "PFSELFTEST"];

/// How two replies of a command are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// They are equal.
    Bytes,
    /// The elements are equal, in any order.
    Unordered,
    /// They are both errors, and equal, or neither is.
    Outcome,
    /// Integers in them may differ as times do that pass between the servers.
    Times,
    /// Numbers in them may be written with other digits: coordinates have 17 decimals in Redis 7.4
    /// and as many as needed in later versions.
    Digits,
}

fn comparison(request: &Request) -> Comparison {
    match &*word(request, 0) {
        name if name.starts_with("GEO") => Comparison::Digits,
        "OBJECT" if word(request, 1) == "ENCODING" => Comparison::Bytes,
        "SMEMBERS" | "SUNION" | "SINTER" | "SDIFF" | "HKEYS" | "HVALS" | "HGETALL" | "KEYS"
        | "SORT" | "SORT_RO" => Comparison::Unordered,
        "SCAN" | "SSCAN" | "HSCAN" | "ZSCAN" | "SRANDMEMBER" | "HRANDFIELD" | "ZRANDMEMBER"
        | "OBJECT" | "DUMP" => Comparison::Outcome,
        "TTL" | "PTTL" | "HTTL" | "HPTTL" | "EXPIRETIME" | "PEXPIRETIME" | "HEXPIRETIME"
        | "HPEXPIRETIME" | "XINFO" | "XPENDING" => Comparison::Times,
        _ => Comparison::Bytes,
    }
}

/// A server with one connection.
struct Side {
    name: &'static str,
    raw: RawConnection,
    /// Whether its keys are those of Cowherd, as far as known.
    is_live: bool,
}

fn word(request: &Request, i: usize) -> String {
    request.get(i).map_or(String::new(), |word| String::from_utf8_lossy(word).to_uppercase())
}

fn are_equal(request: &Request, one: &[u8], other: &[u8]) -> bool {
    if one == other {
        return true;
    }
    let is_error = |reply: &[u8]| reply.starts_with(b"-");
    if is_error(one) || is_error(other) {
        return false;
    }
    let parse = |reply| redis::parse_redis_value(reply);
    match (comparison(request), parse(one), parse(other)) {
        (Comparison::Outcome, Ok(_), Ok(_)) => true,
        (Comparison::Unordered, Ok(one), Ok(other)) => sorted(&one) == sorted(&other),
        (Comparison::Times, Ok(one), Ok(other)) => are_near_in_time(&one, &other),
        (Comparison::Digits, Ok(one), Ok(other)) => are_near_numbers(&one, &other),
        _ => false,
    }
}

/// The elements of a reply, in an order that depends on nothing else.
fn sorted(reply: &Value) -> Vec<String> {
    let mut elements: Vec<String> = match reply {
        Value::Array(items) | Value::Set(items) => items.iter().map(|v| format!("{v:?}")).collect(),
        Value::Map(pairs) => pairs.iter().map(|pair| format!("{pair:?}")).collect(),
        other => vec![format!("{other:?}")],
    };
    elements.sort_unstable();
    elements
}

fn are_near_numbers(one: &Value, other: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Double(number) => Some(*number),
        Value::BulkString(text) => {
            std::str::from_utf8(text).ok().and_then(|text| text.parse().ok())
        }
        _ => None,
    };
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| are_near_numbers(one, other))
        }
        _ => match (number(one), number(other)) {
            (Some(one), Some(other)) => (one - other).abs() <= 1e-9 || one == other,
            _ => one == other,
        },
    }
}

fn are_near_in_time(one: &Value, other: &Value) -> bool {
    /// Seconds or milliseconds.
    const RANGE: u64 = 20_000;
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => are_near(*one, *other, RANGE),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| are_near_in_time(one, other))
        }
        (Value::Map(one), Value::Map(other)) => {
            let mut pairs = one.iter().zip(other);
            one.len() == other.len()
                && pairs.all(|(one, other)| one.0 == other.0 && are_near_in_time(&one.1, &other.1))
        }
        _ => one == other,
    }
}

/// What one section is run with.
struct Setting {
    protocol: &'static str,
    /// Entries up to which values have the small encoding; `None` for the default.
    entries: Option<&'static str>,
}

const SETTINGS: [Setting; 4] = [
    Setting { protocol: "2", entries: None },
    Setting { protocol: "3", entries: Some("3") },
    Setting { protocol: "3", entries: None },
    Setting { protocol: "2", entries: Some("3") },
];

const LIMITS: [(&str, &str); 7] = [
    ("hash-max-listpack-entries", "128"),
    ("zset-max-listpack-entries", "128"),
    ("list-max-listpack-size", "-2"),
    ("set-max-intset-entries", "512"),
    ("set-max-listpack-entries", "128"),
    ("stream-node-max-entries", "100"),
    ("hll-sparse-max-bytes", "3000"),
];

/// Requests that belong together: one, or a transaction of one. A blocking command runs in a
/// transaction, where it does not block.
type Step = Vec<Request>;

/// The first step to which no server replies as Cowherd does.
struct Difference {
    number: usize,
    report: String,
}

/// Runs steps on all sides from an empty keyspace.
fn run(sides: &mut [Side], setting: &Setting, steps: &[Step]) -> Result<Option<Difference>> {
    for side in &mut *sides {
        side.is_live = true;
        side.raw.exchange(&["RESET"])?;
        side.raw.exchange(&["HELLO", setting.protocol])?;
        side.raw.exchange(&["FLUSHALL"])?;
        for (directive, default) in LIMITS {
            // Older servers do not have all of them.
            side.raw.exchange(&["CONFIG", "SET", directive, setting.entries.unwrap_or(default)])?;
        }
    }
    for (first, part) in steps.chunks(PIPELINE).enumerate() {
        let bytes: Vec<u8> = part.iter().flatten().flat_map(|request| encode(request)).collect();
        for side in &mut *sides {
            side.raw.send(&bytes)?;
        }
        let mut found = None;
        let numbered = part.iter().enumerate();
        for (i, request) in numbered.flat_map(|(i, step)| step.iter().map(move |one| (i, one))) {
            let replies = sides.iter_mut().map(|side| side.raw.read_reply());
            let replies = replies.collect::<Result<Vec<_>>>().with_context(|| line(request))?;
            if found.is_none()
                && let Some(report) = compare(sides, request, &replies)
            {
                found = Some(Difference { number: first * PIPELINE + i, report });
            }
        }
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Compares the replies to one request; the first side is Cowherd. Returns a report if no server
/// replies alike.
fn compare(sides: &mut [Side], request: &Request, replies: &[Vec<u8>]) -> Option<String> {
    let own = &replies[0];
    let is_right: Vec<bool> = replies.iter().map(|reply| are_equal(request, own, reply)).collect();
    let live = |i: &usize| sides[*i].is_live;
    let is_error = |reply: &[u8]| reply.starts_with(b"-") || reply.starts_with(b"*1\r\n-");
    // An error tells little of the keys, so that any newer server is a judge of it.
    let is_judge = |i: &usize| live(i) || is_error(own);
    // The oldest server is the last, and only shown.
    let mut newer = 1..sides.len() - 1;
    let report = if newer.clone().filter(is_judge).any(|i| is_right[i])
        || !newer.any(|i| sides[i].is_live)
        || is_allowed(request, own)
    {
        None
    } else {
        let replies = sides.iter().zip(replies).filter(|(side, _)| side.is_live);
        let lines = replies.map(|(side, reply)| format!("    {:8} {}", side.name, show(reply)));
        Some(lines.collect::<Vec<_>>().join("\n"))
    };
    // After errors, whatever their texts, the keys are still the same.
    for (side, (is_right, reply)) in sides.iter_mut().zip(is_right.into_iter().zip(replies)) {
        side.is_live &= is_right || is_error(own) && is_error(reply);
    }
    report
}

fn line(request: &Request) -> String {
    let quoted = |word: &Vec<u8>| match word.escape_ascii().to_string() {
        word if word.is_empty() || word.contains([' ', '\\']) => format!("\"{word}\""),
        word => word,
    };
    request.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Drops steps as long as the rest still shows a difference.
fn shrink(
    sides: &mut [Side],
    setting: &Setting,
    mut steps: Vec<Step>,
    mut found: Difference,
) -> Result<(Vec<Step>, Difference)> {
    steps.truncate(found.number + 1);
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let mut start = 0;
        while start < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(start..(start + size).min(fewer.len()));
            match run(sides, setting, &fewer)? {
                Some(difference) => {
                    steps = fewer;
                    steps.truncate(difference.number + 1);
                    found = difference;
                }
                None => start += size,
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    Ok((steps, found))
}

/// The commands that are compared.
fn compared(docs: Vec<Syntax>) -> Vec<Syntax> {
    let is_compared = |syntax: &Syntax| {
        let name = syntax.name[0].as_str();
        // The texts of HELP are our own.
        let is_help = syntax.name.last().is_some_and(|name| name == "HELP");
        let is_data = GROUPS.contains(&&*syntax.group) && !EXCLUDED.contains(&name);
        !is_help && (is_data || OTHER_COMMANDS.contains(&name))
    };
    docs.into_iter().filter(is_compared).collect()
}

/// Replaces expiries that would come while the test runs, at another time on each server.
fn keep_alive(request: &mut Request) {
    let name = word(request, 0);
    let is_expiry =
        ["SETEX", "PSETEX", "EXPIRE", "PEXPIRE", "HEXPIRE", "HPEXPIRE"].contains(&name.as_str());
    for i in 1..request.len() {
        let number = std::str::from_utf8(&request[i]).ok().and_then(|text| text.parse().ok());
        let is_time = is_expiry && i == 2 || ["EX", "PX"].contains(&&*word(request, i - 1));
        if is_time && number.is_some_and(|number| (1..100_000).contains(&number)) {
            request[i] = b"100000".to_vec();
        }
    }
}

/// The step of a request. Ids that would be made from the time are replaced.
fn step(mut request: Request) -> Step {
    let name = word(&request, 0);
    keep_alive(&mut request);
    if name == "XADD" {
        request.iter_mut().filter(|word| *word == b"*").for_each(|word| *word = b"41-*".to_vec());
    }
    let blocks = ["BL", "BR", "BZ", "XREAD"].iter().any(|start| name.starts_with(start));
    let alone = |name: &str| vec![name.as_bytes().to_vec()];
    if blocks { vec![alone("MULTI"), request, alone("EXEC")] } else { vec![request] }
}

/// Whether the effect of a request depends on an order that each server has of its own.
fn has_own_order(request: &Request) -> bool {
    let has = |name: &str| (1..request.len()).any(|i| word(request, i) == name);
    word(request, 0) == "SORT" && has("STORE") && has("BY")
}

#[test]
fn commands_of_any_syntax_are_those_of_other_servers() -> TestResult {
    let peers = [
        ("redis-8", Peer::start_newer()?),
        ("valkey-9", Peer::start_valkey()?),
        ("redis-7", Peer::start()?),
    ];
    if peers.iter().any(|(_, peer)| peer.is_none()) {
        skip!("redis-server and the servers of server/benches/peers.sh are not all installed");
    }
    let server = Server::start()?;
    let mut sides = vec![Side { name: "cowherd", raw: server.raw()?, is_live: true }];
    for (name, peer) in &peers {
        let peer = peer.as_ref().context("no peer")?;
        sides.push(Side { name, raw: peer.raw()?, is_live: true });
    }
    let mut raw = server.raw()?;
    raw.call(&["HELLO", "3"])?;
    let commands = compared(syntax::parse_docs(&raw.call(&["COMMAND", "DOCS"])?)?);
    ensure!(commands.len() > 150, "only {} commands", commands.len());
    let given = std::env::var("COWHERD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let (seed, mut reports) = (given.unwrap_or(SEED), Vec::new());
    let sections = SECTIONS * rounds();
    for section in 0..sections {
        let setting = &SETTINGS[usize::try_from(section % 4)?];
        let mut generator = Generator { random: Random::new(seed.wrapping_add(section)) };
        let requests = (0..SECTION).map(|_| {
            let chosen = generator.random.below(commands.len() as u64);
            generator.request(&commands[usize::try_from(chosen).unwrap_or_default()])
        });
        let steps: Vec<Step> =
            requests.filter(|request| !has_own_order(request)).map(step).collect();
        if let Some(found) = run(&mut sides, setting, &steps)? {
            let (steps, found) = shrink(&mut sides, setting, steps, found)?;
            let lines = steps.iter().flatten().map(line).collect::<Vec<_>>().join("\n");
            let report = format!("RESP{}\n{lines}\n{}", setting.protocol, found.report);
            // Many sections may show the same fault.
            let (last, names) = (&steps[steps.len() - 1], reports.iter().map(|(name, _)| name));
            let name = word(&last[last.len() / 2], 0);
            if names.filter(|known| **known == name).count() < 2 {
                // Shown at once: shrinking takes a while.
                eprintln!("{report}\n");
                reports.push((name, report));
            }
            if reports.len() == MOST_REPORTS {
                break;
            }
        }
        if section % 100 == 99 {
            sides[0].raw.exchange(&["RESET"])?;
            sides[0].raw.call(&["DEBUG", "VERIFY"])?;
        }
    }
    if !reports.is_empty() {
        let reports: Vec<String> = reports.into_iter().map(|(_, report)| report).collect();
        bail!("{} differences:\n\n{}", reports.len(), reports.join("\n\n"));
    }
    Ok(())
}

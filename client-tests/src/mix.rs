//! A mix of commands that change keys of every type in every way: values grow and shrink, change
//! between their compact and their large forms, expire, move, go one by one and all at once.
//!
//! No command of it fails, whatever came before: a key's name tells its type. And no key or field
//! expires while a test runs, so that two digests stay comparable: what is given an expiry has a
//! long one, one in the past, or, within a transaction, a short one that is taken away again.

use crate::random::Random;

/// The words of a command.
pub type Command = Vec<Vec<u8>>;

/// Keys of each kind per writer.
const KEYS: u64 = 40;
/// The largest string that `SET` writes.
const LARGEST: u64 = 20 << 10;
const FAR_SECONDS: u64 = 1_000_000;

/// One way to keep data: its name, and a command that changes a key of it.
type Kind = (&'static str, fn(&mut Random, &[u8]) -> Command);

const KINDS: [Kind; 7] = [
    ("text", text),
    ("counter", counter),
    ("hash", hash),
    ("list", list),
    ("set", set),
    ("zset", sorted_set),
    ("stream", stream),
];
/// Kinds of servers that know no streams.
const WITHOUT_STREAMS: usize = KINDS.len() - 1;

/// What one writer writes.
#[derive(Debug)]
pub struct Mix {
    writer: u64,
    random: Random,
    kinds: usize,
}

impl Mix {
    /// The mix of one of several writers, none of which uses the keys of another. `streams`:
    /// whether the server has them.
    #[must_use]
    pub const fn new(writer: u64, random: Random, streams: bool) -> Self {
        Self { writer, random, kinds: if streams { KINDS.len() } else { WITHOUT_STREAMS } }
    }

    /// Adds a command to a batch, or a whole transaction.
    pub fn add_to(&mut self, batch: &mut Vec<Command>) {
        let kind = self.random.below(self.kinds as u64);
        let number = self.random.below(KEYS);
        let another = (number + 1 + self.random.below(KEYS - 1)) % KEYS;
        let (key, other) = (self.key(kind, number), self.key(kind, another));
        let far = (FAR_SECONDS + self.random.below(1000)).to_string();
        let far = far.as_bytes();
        match self.random.below(3000) {
            0 => batch.push(words(&[b"FLUSHDB"])),
            1 => batch.push(words(&[b"FLUSHALL"])),
            2..110 => batch.push(words(&[b"DEL", &key])),
            110..180 => batch.push(words(&[b"UNLINK", &key, &other])),
            180..330 => batch.push(words(&[b"EXPIRE", &key, far])),
            330..360 => batch.push(words(&[b"PEXPIRE", &key, b"-1"])),
            360..450 => batch.push(words(&[b"PERSIST", &key])),
            450..570 => batch.push(words(&[b"COPY", &key, &other, b"REPLACE"])),
            570..660 => {
                let change = change(&mut self.random, kind, &key);
                let created = create(kind, &key);
                let rename = words(&[b"RENAME", &key, &other]);
                transaction(batch, [change, created, rename]);
            }
            660..720 => {
                // Nobody sees the short life of the key: a save holds all of this or nothing.
                let create = create(kind, &key);
                let (soon, forever) =
                    (words(&[b"PEXPIRE", &key, b"1"]), words(&[b"PERSIST", &key]));
                transaction(batch, [create, soon, forever]);
            }
            720..810 => {
                let changes = [0, 1, 2].map(|_| {
                    let kind = self.random.below(self.kinds as u64);
                    let number = self.random.below(KEYS);
                    let key = self.key(kind, number);
                    change(&mut self.random, kind, &key)
                });
                transaction(batch, changes);
            }
            _ => batch.push(change(&mut self.random, kind, &key)),
        }
    }

    fn key(&self, kind: u64, number: u64) -> Vec<u8> {
        let name = KINDS[usize::try_from(kind).unwrap_or_default()].0;
        format!("{name}:{}:{number}", self.writer).into_bytes()
    }
}

fn words(words: &[&[u8]]) -> Command {
    words.iter().map(|word| word.to_vec()).collect()
}

fn transaction<const N: usize>(batch: &mut Vec<Command>, commands: [Command; N]) {
    batch.push(words(&[b"MULTI"]));
    batch.extend(commands);
    batch.push(words(&[b"EXEC"]));
}

fn change(random: &mut Random, kind: u64, key: &[u8]) -> Command {
    KINDS[usize::try_from(kind).unwrap_or_default()].1(random, key)
}

/// A command after which there is a key of a kind.
fn create(kind: u64, key: &[u8]) -> Command {
    match KINDS[usize::try_from(kind).unwrap_or_default()].0 {
        "hash" => words(&[b"HSET", key, b"created", b"yes"]),
        "list" => words(&[b"RPUSH", key, b"created"]),
        "set" => words(&[b"SADD", key, b"created"]),
        "zset" => words(&[b"ZADD", key, b"0", b"created"]),
        "stream" => words(&[b"XADD", key, b"*", b"created", b"yes"]),
        _ => words(&[b"SET", key, b"1"]),
    }
}

/// An element of a value of several: a number, a word, or something long.
fn element(random: &mut Random) -> Vec<u8> {
    match random.below(20) {
        0..8 => random.below(60).to_string().into_bytes(),
        8..19 => format!("element:{}", random.below(60)).into_bytes(),
        _ => {
            let length = 70 + random.below(500);
            random.bytes(length)
        }
    }
}

/// A command with some elements behind its words; rarely with so many that a compact value becomes
/// a large one at once.
fn with_elements(random: &mut Random, start: &[&[u8]]) -> Command {
    let mut command = words(start);
    let count = if random.below(40) == 0 { 200 } else { 1 + random.below(4) };
    command.extend((0..count).map(|_| element(random)));
    command
}

fn number(random: &mut Random, below: u64) -> Vec<u8> {
    random.below(below).to_string().into_bytes()
}

/// All ways to change a string, with values of 0 to 20 KB.
fn text(random: &mut Random, key: &[u8]) -> Command {
    let length = if random.below(2) == 0 { random.below(100) } else { random.below(LARGEST) };
    match random.below(10) {
        0..6 => words(&[b"SET", key, &random.bytes(length)]),
        6 => words(&[b"SET", key, &random.bytes(length), b"EX", b"1000000"]),
        7 => {
            let more = random.below(300);
            words(&[b"APPEND", key, &random.bytes(more)])
        }
        8 => words(&[b"SETRANGE", key, &number(random, LARGEST), b"range"]),
        _ => words(&[b"MSET", key, b"together", &[key, b":too"].concat(), b"together"]),
    }
}

fn counter(random: &mut Random, key: &[u8]) -> Command {
    words(&[b"INCRBY", key, &number(random, 1000)])
}

/// Fields come, change, go and get expiries; what is removed may be most of them.
fn hash(random: &mut Random, key: &[u8]) -> Command {
    let field = element(random);
    let far = (FAR_SECONDS + random.below(1000)).to_string();
    match random.below(10) {
        0..4 => {
            let mut command = with_elements(random, &[b"HSET", key]);
            if command.len() % 2 == 1 {
                command.push(b"value".to_vec());
            }
            command
        }
        4 => words(&[b"HINCRBY", key, b"number", b"7"]),
        5 | 6 => with_elements(random, &[b"HDEL", key]),
        7 => words(&[b"HEXPIRE", key, far.as_bytes(), b"FIELDS", b"2", &field, b"number"]),
        8 => words(&[b"HPEXPIREAT", key, b"1", b"FIELDS", b"1", &field]),
        _ => words(&[b"HPERSIST", key, b"FIELDS", b"2", &field, b"number"]),
    }
}

fn list(random: &mut Random, key: &[u8]) -> Command {
    match random.below(12) {
        0..3 => with_elements(random, &[b"RPUSH", key]),
        3..5 => with_elements(random, &[b"LPUSH", key]),
        5 => words(&[b"LPOP", key, &number(random, 6)]),
        6 => words(&[b"RPOP", key, &number(random, 6)]),
        7 => words(&[b"LREM", key, b"1", &element(random)]),
        8 => words(&[b"LINSERT", key, b"BEFORE", &element(random), &element(random)]),
        9 => words(&[b"LMOVE", key, key, b"LEFT", b"RIGHT"]),
        // Long ones become short at once.
        10 => words(&[b"LTRIM", key, b"0", &number(random, 300)]),
        _ => words(&[b"LTRIM", key, &number(random, 20), b"-1"]),
    }
}

fn set(random: &mut Random, key: &[u8]) -> Command {
    let other = [key, b":other"].concat();
    match random.below(10) {
        0..4 => with_elements(random, &[b"SADD", key]),
        4 => words(&[b"SADD", key, b"1", b"70000", b"5000000000"]),
        5 | 6 => with_elements(random, &[b"SREM", key]),
        7 => words(&[b"SPOP", key, &number(random, 30)]),
        8 => words(&[b"SMOVE", key, &other, &element(random)]),
        _ => words(&[b"SDIFFSTORE", key, key, &other]),
    }
}

fn sorted_set(random: &mut Random, key: &[u8]) -> Command {
    match random.below(10) {
        0..4 => {
            let members = with_elements(random, &[]);
            let mut command = words(&[b"ZADD", key]);
            for member in members {
                command.extend([number(random, 50), member]);
            }
            command
        }
        4 => words(&[b"ZINCRBY", key, b"0.5", &element(random)]),
        5 | 6 => with_elements(random, &[b"ZREM", key]),
        7 => words(&[b"ZPOPMIN", key, &number(random, 10)]),
        8 => words(&[b"ZREMRANGEBYSCORE", key, &number(random, 50), b"30"]),
        _ => words(&[b"ZRANGESTORE", key, key, b"0", &number(random, 40)]),
    }
}

fn stream(random: &mut Random, key: &[u8]) -> Command {
    match random.below(6) {
        0..4 => words(&[b"XADD", key, b"*", b"field", &element(random)]),
        4 => words(&[b"XADD", key, b"MAXLEN", b"30", b"*", &element(random), b"value"]),
        _ => words(&[b"XTRIM", key, b"MAXLEN", &number(random, 20)]),
    }
}

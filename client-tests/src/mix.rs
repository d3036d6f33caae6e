//! Random commands that change keys of all types: values grow and shrink, change between compact
//! and large encodings, expire, move, and are deleted one by one and all at once.
//!
//! No command fails, whatever precedes it, because the name of a key determines its type. No key or
//! field expires while a test runs, so that digests stay comparable: expiry times are far in the
//! future, in the past, or, within a transaction, near and removed again.

use crate::random::Random;

/// Arguments of a command.
pub type Command = Vec<Vec<u8>>;

/// Number of keys per kind and writer.
const KEYS: u64 = 40;
/// Length limit of the strings that `SET` writes.
const MAX_STRING: u64 = 20 << 10;
/// Time to live in seconds that outlasts every test.
const FAR_SECONDS: u64 = 1_000_000;

/// Kind of value: name, and generator of a command that changes a key of this kind.
type ValueKind = (&'static str, fn(&mut Random, &[u8]) -> Command);

const KINDS: [ValueKind; 7] = [
    ("text", text),
    ("counter", counter),
    ("hash", hash),
    ("list", list),
    ("set", set),
    ("zset", sorted_set),
    ("stream", stream),
];
/// Number of kinds on a server without streams.
const WITHOUT_STREAMS: usize = KINDS.len() - 1;

/// Generator of the commands of one writer.
#[derive(Debug)]
pub struct CommandMix {
    writer: u64,
    random: Random,
    kinds: usize,
}

impl CommandMix {
    /// Creates the generator of a writer. Writers use separate keys. `streams` states whether the
    /// server supports streams.
    #[must_use]
    pub const fn new(writer: u64, random: Random, streams: bool) -> Self {
        Self { writer, random, kinds: if streams { KINDS.len() } else { WITHOUT_STREAMS } }
    }

    /// Appends a command or a transaction to a batch.
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
                // A checkpoint contains all of the transaction or nothing, so never the short
                // expiry.
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

/// Command after which a key of a kind exists.
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

/// Element of a collection: a number, a word, or a long string.
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

/// Command with elements after its first words; rarely with so many that a compact value becomes a
/// large one at once.
fn with_elements(random: &mut Random, start: &[&[u8]]) -> Command {
    let mut command = words(start);
    let count = if random.below(40) == 0 { 200 } else { 1 + random.below(4) };
    command.extend((0..count).map(|_| element(random)));
    command
}

fn number(random: &mut Random, below: u64) -> Vec<u8> {
    random.below(below).to_string().into_bytes()
}

/// Changes of a string, with values of 0 to 20 KiB.
fn text(random: &mut Random, key: &[u8]) -> Command {
    let length = if random.below(2) == 0 { random.below(100) } else { random.below(MAX_STRING) };
    match random.below(10) {
        0..6 => words(&[b"SET", key, &random.bytes(length)]),
        6 => words(&[b"SET", key, &random.bytes(length), b"EX", b"1000000"]),
        7 => {
            let more = random.below(300);
            words(&[b"APPEND", key, &random.bytes(more)])
        }
        8 => words(&[b"SETRANGE", key, &number(random, MAX_STRING), b"range"]),
        _ => words(&[b"MSET", key, b"together", &[key, b":too"].concat(), b"together"]),
    }
}

fn counter(random: &mut Random, key: &[u8]) -> Command {
    words(&[b"INCRBY", key, &number(random, 1000)])
}

/// Changes of fields and of their expiry times; a removal may cover most fields.
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
        // A long list becomes short at once.
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

//! Removal needs no memory. HDEL, LPOP, SREM and ZREM failed with `OOM` in an arena without any
//! free object, because a compact value that had become shorter had to move to a smaller object.
//!
//! Two keyspaces run the same commands. In one of them no object of any size is free when a command
//! removes; the replies must be the same.

use std::fmt::Write as _;

use crate::config::Config;
use crate::keyspace::MemoryExhauster;

use super::testing::TestServer;

struct Random(fastrand::Rng);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.u64(..bound)
    }

    fn one_of<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[usize::try_from(self.below(words.len() as u64)).unwrap()]
    }

    /// The name of one of a few elements, some of which are numbers and some long.
    fn element(&mut self) -> String {
        match self.below(60) {
            number @ 0..20 => format!("{}", number * 1000),
            number @ 20..40 => format!("element:{number}"),
            number => format!("{number}{}", "x".repeat(usize::try_from(number * 4).unwrap())),
        }
    }
}

const KEYS: [&str; 5] = ["first", "second", "third", "fourth", "a-key-of-another-length"];

fn grow(random: &mut Random) -> String {
    let (key, number) = (random.one_of(&KEYS), random.below(9));
    let (one, other) = (random.element(), random.element());
    match random.below(12) {
        0 | 1 => format!("HSET h:{key} {one} {other} {other} {number}"),
        2 => format!("HPEXPIRE h:{key} {} FIELDS 1 {one}", 1000 + number * 1000),
        3 | 4 => format!("RPUSH l:{key} {one} {other} {one}"),
        5 => format!("LPUSH l:{key} {one}"),
        6 | 7 => format!("SADD s:{key} {one} {other}"),
        8 => format!("SADD s:{key} {number} {}", number * 70_000),
        9 | 10 => format!("ZADD z:{key} {number} {one} {} {other}", number * 3),
        _ => format!("PEXPIRE {}:{key} 100000", random.one_of(&["h", "l", "s", "z"])),
    }
}

fn shrink(random: &mut Random) -> String {
    let (key, number) = (random.one_of(&KEYS), random.below(4));
    let (one, other) = (random.element(), random.element());
    match random.below(18) {
        0 => format!("HDEL h:{key} {one}"),
        1 => format!("HDEL h:{key} {one} {other} {other}"),
        2 => format!("HPEXPIREAT h:{key} 1 FIELDS 2 {one} {other}"),
        3 => format!("HLEN h:{key}"),
        4 => format!("LPOP l:{key} {number}"),
        5 => format!("RPOP l:{key}"),
        6 => format!("LREM l:{key} {number} {one}"),
        7 => format!("LTRIM l:{key} {} -{}", number % 2, 1 + number / 2),
        8 | 9 => format!("SREM s:{key} {one}"),
        10 => format!("SREM s:{key} {one} {other} 5 140000"),
        11 => format!("ZREM z:{key} {one}"),
        12 => format!("ZREM z:{key} {one} {other}"),
        13 => format!("ZPOPMIN z:{key} {number}"),
        14 => format!("ZREMRANGEBYSCORE z:{key} {number} {}", number + 1),
        15 => format!("ZREMRANGEBYRANK z:{key} 0 {number}"),
        16 => format!("PERSIST {}:{key}", random.one_of(&["h", "l", "s", "z"])),
        _ => format!("DEL {}:{key}", random.one_of(&["h", "l", "s", "z"])),
    }
}

/// All data of the keyspace, with unordered elements sorted.
fn contents(server: &TestServer) -> String {
    let mut all = String::new();
    for key in KEYS {
        let list = server.run(&format!("LRANGE l:{key} 0 -1"));
        let sorted_set = server.run(&format!("ZRANGE z:{key} 0 -1 WITHSCORES"));
        let set = server.run(&format!("SORT s:{key} ALPHA"));
        let names = server.run(&format!("HKEYS h:{key}"));
        let mut names: Vec<&str> = names.lines().filter(|line| !line.starts_with('$')).collect();
        names.sort_unstable();
        write!(all, "{list}{sorted_set}{set}{names:?}").unwrap();
        for name in names.iter().filter(|name| !name.starts_with('*')) {
            all += &server.run(&format!("HGET h:{key} {name}"));
            all += &server.run(&format!("HPTTL h:{key} FIELDS 1 {name}"));
        }
        for kind in ["h", "l", "s", "z"] {
            all += &server.run(&format!("PTTL {kind}:{key}"));
        }
    }
    all
}

fn configs() -> [Config; 2] {
    let small = Config {
        hash_max_listpack_entries: 8,
        set_max_listpack_entries: 8,
        set_max_intset_entries: 8,
        zset_max_listpack_entries: 8,
        list_max_listpack_size: 8,
        ..Config::default()
    };
    [Config::default(), small]
}

#[test]
fn removal_needs_no_memory() {
    for (number, config) in configs().into_iter().enumerate() {
        let rich = TestServer::with(16 << 20, config.clone());
        let poor = TestServer::with(16 << 20, config);
        let mut random = Random(fastrand::Rng::with_seed(number as u64));
        let mut scarcity = MemoryExhauster::default();
        for round in 0..60 {
            for _ in 0..random.below(200) {
                let line = grow(&mut random);
                assert_eq!(poor.run(&line), rich.run(&line), "{line}");
            }
            for _ in 0..random.below(150) {
                let line = shrink(&mut random);
                let key = line.split(' ').nth(1).unwrap();
                let is_scarce = random.below(3) > 0;
                if is_scarce {
                    scarcity.take(
                        &poor.shared.keyspace,
                        poor.shared.keyspace.key(0, key.as_bytes()).shard,
                    );
                }
                assert_eq!(poor.run(&line), rich.run(&line), "{line} in round {round}");
                if !is_scarce {
                    scarcity.end(&poor.shared.keyspace);
                }
            }
            scarcity.end(&poor.shared.keyspace);
            assert_eq!(contents(&poor), contents(&rich), "round {round}");
            poor.shared.keyspace.verify(1).unwrap();
            for server in [&rich, &poor] {
                server.now.set(server.now.get() + 700);
            }
        }
    }
}

/// Elements of many sizes in each type of value, then values that fill the remaining memory.
fn fill(server: &TestServer) -> Vec<String> {
    let mut keys = Vec::new();
    for size in [1usize, 10, 40, 63, 100, 700] {
        for count in [2, 9, 60, 300] {
            let name = format!("{size}:{count}");
            for number in 0..count {
                let element = format!("{number:0size$}");
                server.run(&format!("HSET h:{name} {element} {element}"));
                server.run(&format!("RPUSH l:{name} {element}"));
                server.run(&format!("SADD s:{name} {element}"));
                server.run(&format!("ZADD z:{name} {number} {element}"));
            }
            keys.extend(["h", "l", "s", "z"].map(|kind| format!("{kind}:{name}")));
        }
    }
    for size in [15_000, 6000, 1500, 300, 60, 10, 1] {
        let mut refused = 0;
        for number in 0.. {
            let reply = server.run(&format!("SET filler:{size}:{number} {}", "x".repeat(size)));
            refused = if reply.starts_with("-OOM") { refused + 1 } else { 0 };
            if refused > 1000 {
                break;
            }
        }
    }
    keys
}

#[test]
fn a_full_arena_can_be_emptied_element_by_element() {
    let server = TestServer::with(16 << 20, Config::default());
    let keys = fill(&server);
    for key in &keys {
        let (kind, shard) = (&key[..1], server.shared.keyspace.key(0, key.as_bytes()).shard);
        let mut left = u64::MAX;
        while left > 0 {
            let element = match kind {
                "h" => server.run(&format!("HRANDFIELD {key}")),
                "s" => server.run(&format!("SRANDMEMBER {key}")),
                _ => String::new(),
            };
            let element = element.lines().nth(1).unwrap_or_default();
            let mut scarcity = MemoryExhauster::default();
            scarcity.take(&server.shared.keyspace, shard);
            let (removal, len) = match kind {
                "h" => (format!("HDEL {key} {element}"), "HLEN"),
                "l" => (
                    format!("{} {key}", if left.is_multiple_of(2) { "LPOP" } else { "RPOP" }),
                    "LLEN",
                ),
                "s" => (format!("SREM {key} {element}"), "SCARD"),
                _ => (format!("ZPOPMAX {key}"), "ZCARD"),
            };
            let reply = server.run(&removal);
            assert!(!reply.starts_with('-'), "{removal}: {reply}");
            left = server.run(&format!("{len} {key}"))[1..].trim().parse().unwrap();
            scarcity.end(&server.shared.keyspace);
        }
        assert_eq!(server.run(&format!("EXISTS {key}")), ":0\r\n");
    }
    server.shared.keyspace.verify(1).unwrap();
}

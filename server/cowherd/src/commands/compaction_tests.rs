//! Compaction between and among random commands on values of all types and encodings, against a
//! twin: a server of the same seed that runs the same commands and never compacts. Both give the
//! same replies, and have the same digest; the compacted keyspace passes verification.

use super::testing::TestServer;
use crate::keyspace::{CompactionGoal, ShardSet};

/// Keys of each type: enough for several keys in each shard.
const KEYS: usize = 300;
/// Elements of the few large values.
const ELEMENTS: usize = 2000;

struct Twins {
    compacted: TestServer,
    plain: TestServer,
    random: fastrand::Rng,
    id: u64,
}

impl Twins {
    fn new(seed: u64) -> Self {
        let twins = Self {
            compacted: TestServer::new(),
            plain: TestServer::new(),
            random: fastrand::Rng::with_seed(seed),
            id: 0,
        };
        for server in [&twins.compacted, &twins.plain] {
            server.run("CONFIG SET hash-max-listpack-entries 4 zset-max-listpack-entries 4");
            server.run("CONFIG SET set-max-intset-entries 4 set-max-listpack-entries 4");
            server.run("CONFIG SET list-max-listpack-size 8 stream-node-max-entries 6");
        }
        twins
    }

    fn run(&self, line: &str) -> String {
        let reply = self.compacted.run(line);
        let shown = &line[..line.len().min(200)];
        assert_eq!(reply, self.plain.run(line), "{shown}");
        let is_no_error = !reply.starts_with('-')
            || ["-WRONGTYPE", "-BUSYGROUP", "-ERR no such key", "-ERR source and destination"]
                .iter()
                .any(|e| reply.starts_with(e));
        assert!(is_no_error, "{shown}: {reply}");
        reply
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.usize(..bound)
    }

    fn text(&mut self, most: usize) -> String {
        let len = self.below(most) + 1;
        (0..len).map(|_| self.random.alphanumeric()).collect()
    }

    /// An element's name: few of a small value, many of the few large ones.
    fn element(&mut self, key: usize) -> String {
        let number = if key < 2 { self.below(ELEMENTS) } else { self.below(12) };
        if number.is_multiple_of(3) { number.to_string() } else { format!("element:{number}") }
    }

    fn add(&mut self) {
        let key = if self.below(4) == 0 { self.below(2) } else { self.below(KEYS) };
        let element = self.element(key);
        let line = match self.below(22) {
            0..=3 => format!("SET s{key} {}", self.text(900)),
            4 => format!("SET s{key} {} EX {}", self.text(300), 1000 + self.below(1000)),
            5 => format!("SET s{key} {}", self.random.i32(..)),
            6 => format!("SETRANGE s{key} {} x", 3000 + self.below(60_000)),
            7 => format!("APPEND s{key} {}", self.text(600)),
            8..=10 => format!("HSET h{key} {element} {}", self.text(120)),
            11 => format!("HEXPIRE h{key} {} FIELDS 1 {element}", 1000 + self.below(3) * 100),
            12 => format!("RPUSH l{key} {} {element}", self.text(90)),
            13 => format!("LPUSH l{key} {}", self.text(300)),
            14 | 15 => format!("SADD t{key} {element} {}", self.text(8)),
            16 | 17 => format!("ZADD z{key} {} {element}", self.below(50)),
            18 => {
                self.id += 1;
                let (id, text) = (self.id, self.text(100));
                format!("XADD x{key} {id}-1 {element} {text}")
            }
            19 => format!("XGROUP CREATE x{key} {} 0 MKSTREAM", ["a", "b"][self.below(2)]),
            20 => format!("EXPIRE {}{key} 5000", ["s", "h", "l", "t", "z", "x"][self.below(6)]),
            _ => {
                let consumer = self.below(4);
                // Without the group this is an error of both.
                let line =
                    format!("XREADGROUP GROUP a consumer{consumer} COUNT 40 STREAMS x{key} >");
                assert_eq!(self.compacted.run(&line), self.plain.run(&line));
                return;
            }
        };
        self.run(&line);
    }

    fn remove(&mut self) {
        let key = if self.below(3) == 0 { self.below(2) } else { self.below(KEYS) };
        let (element, other) = (self.element(key), self.below(KEYS));
        let kind = ["s", "h", "l", "t", "z", "x"][self.below(6)];
        let line = match self.below(16) {
            0..=3 => format!("HDEL h{key} {element}"),
            4 => format!("LPOP l{key} 3"),
            5 => format!("LREM l{key} 1 {element}"),
            6..=8 => format!("SREM t{key} {element}"),
            9 | 10 => format!("ZREM z{key} {element}"),
            11 => format!("XDEL x{key} {}-1", self.below(1 + self.id as usize)),
            12 => {
                let line = format!("XACK x{key} a {}-1", self.below(1 + self.id as usize));
                format!("{line} {}-1", self.below(1 + self.id as usize))
            }
            13 => format!("RENAME {kind}{key} {kind}{other}"),
            14 => format!("COPY {kind}{key} {kind}{other} REPLACE"),
            _ => format!("UNLINK {kind}{key}"),
        };
        self.run(&line);
    }

    /// Deletes most keys, and most elements of the large values.
    fn thin_out(&mut self) {
        for key in 2..KEYS {
            for kind in ["s", "h", "l", "t", "z", "x"] {
                if self.below(10) != 0 {
                    self.run(&format!("DEL {kind}{key}"));
                }
            }
        }
        for number in 0..ELEMENTS {
            let key = self.below(2);
            let name = format!("element:{number}");
            self.run(&format!("HDEL h{key} {name} {number}"));
            self.run(&format!("SREM t{key} {name} {number}"));
            self.run(&format!("ZREM z{key} {name} {number}"));
        }
        for key in 0..2 {
            self.run(&format!("LTRIM l{key} 3 -20"));
        }
    }

    fn verify(&self) {
        let space = &self.compacted.shared.keyspace;
        let contents = space.verify(1).unwrap();
        assert_eq!(contents.arena.bytes, space.arena().used_bytes());
        let digest = |server: &TestServer| {
            server.shared.keyspace.lock(ShardSet::ALL, server.now.get()).digest()
        };
        assert_eq!(digest(&self.compacted), digest(&self.plain));
    }

    /// Runs a whole pass; between slices `act` runs.
    fn pass(&mut self, goal: CompactionGoal, mut act: impl FnMut(&mut Self)) {
        while self.compacted.shared.keyspace.compact_slices(goal, 3) {
            act(self);
        }
        self.compacted.shared.keyspace.end_compaction();
    }
}

#[test]
fn compaction_changes_no_reply_and_no_value() {
    for seed in 0..6 {
        let mut twins = Twins::new(seed);
        for round in 0..3 {
            for _ in 0..6000 {
                twins.add();
            }
            twins.thin_out();
            twins.pass(CompactionGoal::FewerChunks, |_| {});
            twins.verify();
            let goal = match round {
                0 => CompactionGoal::FewerChunks,
                count => CompactionGoal::Contiguous(count),
            };
            twins.pass(goal, |twins| {
                for _ in 0..twins.below(6) {
                    match twins.below(3) {
                        0 => twins.add(),
                        _ => twins.remove(),
                    }
                }
            });
            twins.verify();
        }
        let figures = twins.compacted.shared.keyspace.compaction_figures();
        assert!(figures.hits > 500 && figures.key_hits > 100, "{figures:?}");
        for line in ["FLUSHALL ASYNC", "SET a b"] {
            twins.run(line);
        }
        twins.pass(CompactionGoal::Contiguous(8), |_| {});
        twins.verify();
    }
}

//! Random commands of each family.

use super::{BLOCK_SECONDS, Family, Generator};
use crate::reply::{Word, Words, word};

/// Puts a command together.
macro_rules! command {
    ($($word:expr),+ $(,)?) => { vec![$(word($word)),+] };
}

/// Adds words to a command.
fn with(mut command: Words, more: impl IntoIterator<Item = Word>) -> Words {
    command.extend(more);
    command
}

impl Generator<'_> {
    /// A command on keys of a group.
    pub(super) fn command(&mut self, group: usize) -> Words {
        self.serial += 1;
        if self.chance(20) {
            return self.general(group);
        }
        let mut family = self.groups[group].family;
        if family == Family::Mixed || self.chance(3) {
            family = match self.random.below(6) {
                0 => Family::Strings,
                1 => Family::Lists,
                2 => Family::Hashes,
                3 => Family::Sets,
                4 => Family::SortedSets,
                _ => Family::Streams,
            };
        }
        match family {
            Family::Lists => self.list(group),
            Family::Hashes => self.hash(group),
            Family::Sets => self.set(group),
            Family::SortedSets => self.sorted_set(group),
            Family::Streams => self.stream(group),
            Family::Strings | Family::Mixed | Family::Bank => self.string(group),
        }
    }

    /// Commands for keys of any type.
    fn general(&mut self, group: usize) -> Words {
        let (one, other) = self.two_keys(group);
        match self.random.below(22) {
            0..6 => command!["RENAME", one, other],
            6..8 => command!["RENAMENX", one, other],
            8..10 => command!["COPY", one, other, "REPLACE"],
            10 => command!["COPY", one, other],
            11 => command!["DEL", one, other],
            12 => command!["DEL", one],
            13 => command!["UNLINK", one],
            14..16 => command!["EXPIREAT", one, self.far_future()],
            16 => command!["PEXPIREAT", one, "1"],
            17 => command!["PERSIST", one],
            18 => command!["EXISTS", one, other],
            19 => command!["TYPE", one],
            _ => command!["EXPIRETIME", one],
        }
    }

    fn string(&mut self, group: usize) -> Words {
        let (one, other) = self.two_keys(group);
        let (text, next) = (self.element(), self.serial_text(".next"));
        match self.random.below(24) {
            0..2 => command!["SET", one, text],
            2 => command!["SET", one, self.number(100)],
            3 => command!["SET", one, text, self.one(&["NX", "XX", "GET", "KEEPTTL"])],
            4 => command!["SET", one, text, "EXAT", self.far_future()],
            5 => command!["SET", one, text.repeat(200)],
            6 => command!["SETNX", one, text],
            7 => command!["GETSET", one, text],
            8 => command!["GETDEL", one],
            9 => command!["MSET", one, text, other, next],
            10 => command!["MSETNX", one, text, other, next],
            11 => command!["MGET", one, other],
            12..15 => command!["APPEND", one, text],
            15 => command!["SETRANGE", one, self.number(30), text],
            16 => command!["STRLEN", one],
            17 => command!["GETRANGE", one, self.number(20), "-3"],
            18 => command!["INCR", one],
            19 => command!["INCRBY", one, self.number(100)],
            20 => command!["DECRBY", one, self.number(100)],
            _ => command!["GET", one],
        }
    }

    fn list(&mut self, group: usize) -> Words {
        let (one, other) = self.two_keys(group);
        let end = self.one(&["LEFT", "RIGHT"]);
        match self.random.below(28) {
            0..4 => with(command!["RPUSH", one], self.elements()),
            4..7 => with(command!["LPUSH", one], self.elements()),
            7 => with(command![self.one(&["RPUSHX", "LPUSHX"]), one], self.elements()),
            8..10 => command![self.one(&["LPOP", "RPOP"]), one],
            10 => command![self.one(&["LPOP", "RPOP"]), one, self.number(20)],
            11..14 => command!["LMOVE", one, other, end, self.one(&["LEFT", "RIGHT"])],
            14 => command!["LMPOP", "2", one, other, end, "COUNT", "3"],
            15 => command!["LSET", one, self.number(4), self.element()],
            16 => command!["LREM", one, "0", self.element()],
            17 => command!["LTRIM", one, self.number(4), self.one(&["-1", "-2", "70"])],
            18 => command!["LTRIM", one, "0", self.number(20)],
            19..21 => command!["LLEN", one],
            21..23 => command!["LINDEX", one, self.one(&["0", "-1", "3", "66"])],
            23 => command!["LRANGE", one, "0", "4"],
            _ => command!["LRANGE", one, "0", "-1"],
        }
    }

    fn hash(&mut self, group: usize) -> Words {
        let key = self.key(group);
        let (field, value) = (self.member(), self.element());
        match self.random.below(16) {
            0..4 => {
                let pairs = self.members().into_iter().flat_map(|field| [field, value.clone()]);
                with(command!["HSET", key], pairs)
            }
            4 => command!["HSETNX", key, field, value],
            5..7 => with(command!["HDEL", key], self.members()),
            7 => command!["HGET", key, field],
            8 => with(command!["HMGET", key], self.members()),
            9 => command![self.one(&["HLEN", "HKEYS"]), key],
            10 => command!["HEXISTS", key, field],
            11..13 => command!["HINCRBY", key, self.one(&["n1", "n2", "m1"]), self.number(50)],
            _ => command!["HGETALL", key],
        }
    }

    fn set(&mut self, group: usize) -> Words {
        let (one, other) = self.two_keys(group);
        let third = self.key(group);
        match self.random.below(22) {
            0..4 => with(command!["SADD", one], self.members()),
            4..6 => with(command!["SREM", one], self.members()),
            6..9 => command!["SMOVE", one, other, self.member()],
            9..11 => command!["SPOP", one],
            11 => command!["SPOP", one, self.number(8)],
            12 => command!["SRANDMEMBER", one],
            13 => command!["SRANDMEMBER", one, self.one(&["3", "-5", "200"])],
            14 => command!["SISMEMBER", one, self.member()],
            15 => command!["SCARD", one],
            16 => command![self.one(&["SINTER", "SUNION", "SDIFF"]), one, other],
            17 => {
                let name = self.one(&["SINTERSTORE", "SUNIONSTORE", "SDIFFSTORE"]);
                command![name, third, one, other]
            }
            _ => command!["SMEMBERS", one],
        }
    }

    fn sorted_set(&mut self, group: usize) -> Words {
        let (one, other) = self.two_keys(group);
        let third = self.key(group);
        match self.random.below(22) {
            0..5 => {
                let mut command = command!["ZADD", one];
                if self.chance(25) {
                    command.push(word(self.one(&["NX", "XX", "GT", "LT", "CH"])));
                }
                for member in self.members() {
                    command.extend([self.number(40), member]);
                }
                command
            }
            5..7 => command!["ZINCRBY", one, self.number(9), self.member()],
            7 => with(command!["ZREM", one], self.members()),
            8..10 => command![self.one(&["ZPOPMIN", "ZPOPMAX"]), one],
            10 => command![self.one(&["ZPOPMIN", "ZPOPMAX"]), one, self.number(9)],
            11 => command!["ZREMRANGEBYRANK", one, "0", self.number(3)],
            12 => command!["ZRANGESTORE", other, one, "0", self.number(90)],
            13 => command!["ZUNIONSTORE", third, "2", one, other],
            14 => command!["ZSCORE", one, self.member()],
            15 => command!["ZRANK", one, self.member()],
            16 => command!["ZCOUNT", one, "10", "30"],
            17 => command!["ZCARD", one],
            18 => command!["ZRANGE", one, "0", self.number(9)],
            _ => command!["ZRANGE", one, "0", "-1", "WITHSCORES"],
        }
    }

    /// An explicit id near to what other clients add at about the same time.
    fn id(&mut self) -> String {
        let time = self.round * 1_000_000 + self.serial + 10;
        let time = time - self.random.below(6);
        format!("{time}-{}", self.random.below(4))
    }

    fn stream(&mut self, group: usize) -> Words {
        let key = self.key(group);
        // An id by the clock is far above all explicit ones.
        let by_clock = self.groups[group].family != Family::Streams;
        let id = match self.random.below(4) {
            _ if by_clock => "*".to_owned(),
            0 => self.id().split('-').next().unwrap_or_default().to_owned() + "-*",
            _ => self.id(),
        };
        let element = self.element();
        match self.random.below(16) {
            0..5 => command!["XADD", key, id, "field", element],
            5 => command!["XADD", key, "MAXLEN", "70", id, "field", element, "other", "value"],
            6..9 => command!["XDEL", key, self.id(), self.id(), self.id()],
            9 => command!["XTRIM", key, "MAXLEN", self.number(90)],
            10 => command!["XLEN", key],
            11 => command!["XRANGE", key, self.id(), "+"],
            12 => command!["XREVRANGE", key, "+", self.id()],
            13 => command!["XREAD", "COUNT", "3", "STREAMS", key, self.id()],
            _ => command!["XRANGE", key, "-", "+"],
        }
    }

    /// Enough entries to make a stream a large value.
    pub(super) fn many_entries(&mut self, group: usize) -> Vec<Words> {
        let (key, time, element) =
            (self.key(group), self.round * 1_000_000 + self.serial + 15, self.element());
        let add = |_| command!["XADD", key.clone(), format!("{time}-*"), "field", element.clone()];
        (0..70).map(add).collect()
    }

    /// A command that blocks on keys of a group.
    pub(super) fn blocking(&mut self, group: usize) -> Words {
        let (one, other) = self.two_keys(group);
        let end = self.one(&["LEFT", "RIGHT"]);
        let family = match self.groups[group].family {
            Family::Mixed => self.one_of(&[Family::SortedSets, Family::Lists]),
            family => family,
        };
        match (family, self.random.below(8)) {
            (Family::SortedSets, 0..4) => command!["BZPOPMIN", one, other, BLOCK_SECONDS],
            (Family::SortedSets, _) => {
                command![self.one(&["BZPOPMIN", "BZPOPMAX"]), one, BLOCK_SECONDS]
            }
            (Family::Streams, _) => {
                let id = self.id();
                command!["XREAD", "COUNT", "2", "BLOCK", "600000", "STREAMS", one, id]
            }
            (_, 0) => command!["BLPOP", one, BLOCK_SECONDS],
            (_, 1..3) => command!["BLPOP", one, other, BLOCK_SECONDS],
            (_, 3) => command!["BRPOP", one, other, BLOCK_SECONDS],
            (_, 4) => command!["BLMPOP", BLOCK_SECONDS, "2", one, other, end, "COUNT", "3"],
            _ => command!["BLMOVE", one, other, end, self.one(&["LEFT", "RIGHT"]), BLOCK_SECONDS],
        }
    }
}

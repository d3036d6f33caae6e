//! Random arguments, and commands built from them.

use client_tests::random::Random;

/// Generator of random arguments.
pub struct Words {
    pub random: Random,
}

pub type Arguments = Vec<Vec<u8>>;

impl Words {
    pub fn chance(&mut self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    pub fn number(&mut self, low: i64, high: i64) -> i64 {
        low + i64::try_from(self.random.below(high.abs_diff(low) + 1)).unwrap_or_default()
    }

    pub fn one<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[usize::try_from(self.random.below(words.len() as u64)).unwrap_or_default()]
    }

    pub fn key(&mut self) -> String {
        self.one(&["a", "b", "c", "d", "missing", "string"]).to_owned()
    }

    pub fn member(&mut self) -> String {
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

    pub fn score(&mut self) -> String {
        match self.random.below(20) {
            0..=12 => self.number(-4, 4).to_string(),
            13..=17 => (self.number(-40, 40) as f64 / 4.0).to_string(),
            18 => self.one(&["inf", "-inf", "+inf", "1e2", "1e3"]).to_owned(),
            _ => self.one(&["nan", "abc", "", "1 ", "1e400", "1.5.5"]).to_owned(),
        }
    }

    pub fn score_bound(&mut self) -> String {
        let open = if self.chance(30) { "(" } else { "" };
        format!("{open}{}", self.score())
    }

    pub fn member_bound(&mut self) -> String {
        match self.random.below(20) {
            0..=3 => self.one(&["-", "+"]).to_owned(),
            4..=18 => format!("{}{}", self.one(&["[", "("]), self.member()),
            _ => self.one(&["", "abc", "--", "+x"]).to_owned(),
        }
    }

    pub fn id(&mut self) -> String {
        match self.random.below(40) {
            0 => {
                self.one(&["x", "", "1-", "-1", "18446744073709551615-18446744073709551615"]).into()
            }
            1..=4 => self.number(0, 40).to_string(),
            _ => format!("{}-{}", self.number(0, 40), self.number(0, 3)),
        }
    }

    /// Id of a new entry, usually above the existing ones.
    pub fn new_id(&mut self) -> String {
        match self.random.below(20) {
            0..=2 => self.id(),
            3..=8 => format!("{}-*", self.number(30, 45)),
            9 => format!("{}-*", self.number(0, 99)),
            _ => format!("{}-{}", self.number(20, 45), self.number(0, 50)),
        }
    }

    pub fn id_bound(&mut self) -> String {
        match self.random.below(10) {
            0..=3 => self.one(&["-", "+"]).to_owned(),
            4..=5 => format!("({}", self.id()),
            _ => self.id(),
        }
    }

    pub fn stream(&mut self) -> String {
        self.one(&["a", "a", "a", "a", "b", "b", "missing", "string"]).to_owned()
    }

    pub fn group(&mut self) -> String {
        self.one(&["g", "g", "g", "h", "h", "nogroup"]).to_owned()
    }

    pub fn consumer(&mut self) -> String {
        self.one(&["bob", "alice", "carol", "longer-than-8", "longer-than-9"]).to_owned()
    }

    pub fn rank(&mut self) -> String {
        match self.random.below(30) {
            0 => self.one(&["x", "1.5", ""]).to_owned(),
            1..=9 => self.one(&["0", "-1"]).to_owned(),
            _ => self.number(-12, 12).to_string(),
        }
    }
}

/// Builder of a command.
pub struct Line<'w> {
    pub words: &'w mut Words,
    pub line: Arguments,
}

impl Line<'_> {
    pub fn add(mut self, word: impl AsRef<[u8]>) -> Self {
        self.line.push(word.as_ref().to_vec());
        self
    }

    pub fn key(self) -> Self {
        let key = self.words.key();
        self.add(key)
    }

    pub fn chosen(self, words: &[&str]) -> Self {
        let word = self.words.one(words);
        self.add(word)
    }

    pub fn perhaps(self, percent: u64, word: &str) -> Self {
        if self.words.chance(percent) { self.add(word) } else { self }
    }

    pub fn several(mut self, most: i64, word: impl Fn(&mut Words) -> String) -> Self {
        for _ in 0..self.words.number(1, most) {
            let word = word(self.words);
            self = self.add(word);
        }
        self
    }

    pub fn twice(self, word: impl Fn(&mut Words) -> String) -> Self {
        let (one, other) = (word(self.words), word(self.words));
        self.add(one).add(other)
    }

    pub fn limit(self, percent: u64) -> Self {
        match self.words.chance(percent) {
            true => self.add("LIMIT").twice(Words::rank),
            false => self,
        }
    }

    pub fn option(self, percent: u64, name: &str, word: impl Fn(&mut Words) -> String) -> Self {
        if !self.words.chance(percent) {
            return self;
        }
        let value = word(self.words);
        self.add(name).add(value)
    }

    /// Appends a stream and a group.
    pub fn grouped(self) -> Self {
        let (stream, group) = (self.words.stream(), self.words.group());
        self.add(stream).add(group)
    }

    pub fn consumer(self) -> Self {
        let consumer = self.words.consumer();
        self.add(consumer)
    }

    pub fn count(self, percent: u64) -> Self {
        match self.words.chance(percent) {
            true => self.add("COUNT").chosen(&["1", "2", "3", "7", "0", "-1", "x"]),
            false => self,
        }
    }

    pub fn trimmed(self) -> Self {
        let line = match self.words.chance(60) {
            true => self.add("MAXLEN").perhaps(30, "~").several(1, Words::rank),
            false => self.add("MINID").perhaps(30, "~").several(1, Words::id),
        };
        match line.words.chance(10) {
            true => line.add("LIMIT").several(1, Words::rank),
            false => line,
        }
    }

    pub fn claim_options(self) -> Self {
        let line = match self.words.random.below(8) {
            0 => self.add("IDLE").chosen(&["0", "500000", "x"]),
            1 => self.add("TIME").chosen(&["1000", "1", "x"]),
            2 => self.add("RETRYCOUNT").chosen(&["0", "5", "-1"]),
            3 => self.add("LASTID").several(1, Words::id),
            _ => self,
        };
        line.perhaps(20, "FORCE").perhaps(20, "JUSTID")
    }

    /// Appends one or two streams, and the id after which each is read.
    pub fn streams(self, new: &str) -> Self {
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

    /// Appends names and values, rarely with one argument too many.
    pub fn fields(mut self) -> Self {
        for _ in 0..self.words.number(1, 4) {
            self = self.twice(Words::member);
        }
        self.perhaps(4, "alone")
    }

    pub fn pairs(mut self) -> Self {
        for _ in 0..self.words.number(1, 3) {
            let (score, member) = (self.words.score(), self.words.member());
            self = self.add(score).add(member);
        }
        self
    }

    /// Appends a number of keys and keys, usually as many.
    pub fn counted_keys(mut self, weights: bool) -> Self {
        let count = self.words.number(1, 3);
        let stated = match self.words.chance(94) {
            true => count.to_string(),
            false => self.words.one(&["0", "-1", "x", "9", ""]).to_owned(),
        };
        self = self.add(stated);
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

    pub fn range(self, is_store: bool) -> Self {
        let line = match self.words.random.below(3) {
            0 => self.key().twice(Words::rank),
            1 => self.key().twice(Words::score_bound).add("BYSCORE"),
            _ => self.add("lex").twice(Words::member_bound).add("BYLEX"),
        };
        line.perhaps(30, "REV").limit(25).perhaps(if is_store { 3 } else { 30 }, "WITHSCORES")
    }
}

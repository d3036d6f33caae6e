//! Random requests on small groups of keys.
//!
//! Seed, round and client determine the requests of a client; replies do not. A request names keys
//! of one group only. Elements are unique, so that a wrong one is noticed; fields and members come
//! from a small pool, so that commands meet. Some commands add a hundred elements: a value of more
//! than 64 keeps its shard when its key is renamed, and has another encoding.

mod families;

use crate::history::{Request, Script};
use crate::reply::{Word, Words, word, words};
use client_tests::random::Random;

/// The type that most values of a group have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Strings,
    Lists,
    Hashes,
    Sets,
    SortedSets,
    Streams,
    Mixed,
    /// Counters whose sum is zero at every instant.
    Bank,
}

/// Keys that one request may combine.
#[derive(Clone, Debug)]
pub struct Group {
    pub family: Family,
    pub keys: Vec<Word>,
}

const FAMILIES: [(Family, &str, usize); 8] = [
    (Family::Strings, "string", 3),
    (Family::Lists, "list", 4),
    (Family::Hashes, "hash", 3),
    (Family::Sets, "set", 3),
    (Family::SortedSets, "zset", 3),
    (Family::Streams, "stream", 3),
    (Family::Mixed, "mixed", 4),
    (Family::Bank, "bank", 6),
];

/// One group of each family.
pub fn groups() -> Vec<Group> {
    let group = |(family, name, keys): (Family, &str, usize)| Group {
        family,
        keys: (0..keys).map(|number| word(format!("{name}:{number}"))).collect(),
    };
    FAMILIES.map(group).into()
}

impl Group {
    pub fn name(&self) -> &'static str {
        FAMILIES
            .iter()
            .find(|(family, _, _)| *family == self.family)
            .map_or("", |(_, name, _)| name)
    }
}

/// Requests that a client sends one after the other.
#[derive(Debug)]
pub struct Batch {
    /// Each with its group.
    pub requests: Vec<(usize, Request)>,
    /// All are sent before the first reply is read.
    pub is_pipelined: bool,
}

/// The requests of one client in one round.
#[derive(Debug)]
pub struct Generator<'g> {
    groups: &'g [Group],
    random: Random,
    client: usize,
    round: u64,
    serial: u64,
}

/// Most clients use the same group for so many requests, then the next one.
const STRETCH: u64 = 50;
/// See the model of expiry.
const FAR_FUTURE: u64 = 4_000_000_000;
/// Exists within transactions only.
const SPARE_ACCOUNT: &str = "bank:spare";
/// The timeout of a blocking command: longer than a test waits until the command is served.
const BLOCK_SECONDS: &str = "600";

impl<'g> Generator<'g> {
    pub fn new(groups: &'g [Group], seed: u64, round: u64, client: usize) -> Self {
        let mut mixed = Random::new(seed ^ round.rotate_left(20) ^ (client as u64).rotate_left(40));
        Self { groups, random: Random::new(mixed.next()), client, round, serial: 0 }
    }

    /// The next requests of a client that never blocks.
    pub fn next(&mut self) -> Batch {
        let group = self.choose_group();
        match self.random.below(20) {
            0 => self.watched(group),
            1..=3 => {
                let requests = (0..2 + self.random.below(4)).map(|_| (group, self.request(group)));
                Batch { requests: requests.collect(), is_pipelined: true }
            }
            _ => {
                let requests = vec![(group, self.request(group))];
                Batch { requests, is_pipelined: false }
            }
        }
    }

    /// The next request of a blocking client, and its group.
    pub fn next_blocking(&mut self) -> (usize, Request) {
        self.serial += 1;
        let group = self.blocking_group();
        (group, Request::Command(self.blocking(group)))
    }

    /// A request on keys on which commands may be blocked.
    pub fn next_waking(&mut self) -> Batch {
        self.serial += 1;
        let group = self.blocking_group();
        Batch { requests: vec![(group, self.request(group))], is_pipelined: false }
    }

    fn blocking_group(&mut self) -> usize {
        const FAMILIES: [Family; 4] =
            [Family::Lists, Family::SortedSets, Family::Streams, Family::Mixed];
        let family = self.one_of(&FAMILIES);
        let position = self.groups.iter().position(|group| group.family == family);
        position.expect("the workload has a group of each family")
    }

    /// Mostly the group that the other clients use too.
    fn choose_group(&mut self) -> usize {
        self.serial += 1;
        match self.random.below(10) {
            0..7 => {
                let turn = (self.round + self.serial / STRETCH) % self.groups.len() as u64;
                usize::try_from(turn).unwrap_or_default()
            }
            _ => self.below(self.groups.len()),
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.random.below(limit as u64)).unwrap_or_default()
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn one<'w>(&mut self, texts: &[&'w str]) -> &'w str {
        self.one_of(texts)
    }

    fn key(&mut self, group: usize) -> Word {
        let at = self.below(self.groups[group].keys.len());
        self.groups[group].keys[at].clone()
    }

    /// Two keys of a group, rarely the same.
    fn two_keys(&mut self, group: usize) -> (Word, Word) {
        let one = self.key(group);
        let other = self.key(group);
        if one == other && self.chance(90) { self.two_keys(group) } else { (one, other) }
    }

    /// A text that no other request contains. Some are longer than a compact encoding allows.
    fn element(&mut self) -> Word {
        self.serial_text("")
    }

    fn serial_text(&mut self, more: &str) -> Word {
        let mut text = format!("{}.{}.{}{more}", self.round, self.client, self.serial);
        if self.chance(4) {
            text.push_str(&"x".repeat(80));
        }
        word(text)
    }

    /// Some elements: mostly a few, sometimes a hundred.
    fn elements(&mut self) -> Vec<Word> {
        let count = if self.chance(8) { 100 } else { 1 + self.random.below(3) };
        (0..count).map(|i| self.serial_text(&format!(".{i}"))).collect()
    }

    /// A field or a member of a pool.
    fn member(&mut self) -> Word {
        const POOL: u64 = 24;
        word(format!("m{}", self.random.below(POOL)))
    }

    /// Some members: mostly a few, sometimes a hundred of a wider pool.
    fn members(&mut self) -> Vec<Word> {
        if self.chance(8) {
            let first = self.random.below(60);
            return (first..first + 100).map(|i| word(format!("m{i}"))).collect();
        }
        (0..1 + self.random.below(3)).map(|_| self.member()).collect()
    }

    fn number(&mut self, below: u64) -> Word {
        word(self.random.below(below).to_string())
    }

    fn far_future(&mut self) -> Word {
        word((FAR_FUTURE + self.random.below(1_000_000)).to_string())
    }

    /// A command, or some in a transaction or a script.
    fn request(&mut self, group: usize) -> Request {
        let request = match self.groups[group].family == Family::Bank {
            true => self.bank(group),
            false if self.chance(8) => self.transaction(group),
            false => Request::Command(self.command(group)),
        };
        match request {
            Request::Transaction(commands) if self.chance(2) => self.script(group, commands),
            request => request,
        }
    }

    /// A script whose declared keys may be all, some or none of those that its commands name.
    fn script(&mut self, group: usize, commands: Vec<Words>) -> Request {
        let mut declared = self.groups[group].keys.clone();
        match self.random.below(4) {
            0 => declared.clear(),
            1 => declared.truncate(1),
            _ => {}
        }
        // Most texts are new, so that the server learns of undeclared keys while the script runs.
        let number = match self.chance(4) {
            true => self.random.below(4),
            false => self.random.next(),
        };
        Request::Script(Script { declared, number, commands })
    }

    fn transaction(&mut self, group: usize) -> Request {
        if self.chance(20) {
            return Request::Transaction(self.swap(group));
        }
        if self.groups[group].family == Family::Streams && self.chance(20) {
            return Request::Transaction(self.many_entries(group));
        }
        let count = 1 + self.random.below(4);
        Request::Transaction((0..count).map(|_| self.command(group)).collect())
    }

    /// Exchanges the values of two keys by way of a third; each of the three may be missing.
    fn swap(&mut self, group: usize) -> Vec<Words> {
        let keys = self.groups[group].keys.clone();
        let first = self.below(keys.len());
        let [one, other, spare] = [0, 1, 2].map(|i| keys[(first + i) % keys.len()].clone());
        let rename = |from: &Word, to: &Word| vec![word("RENAME"), from.clone(), to.clone()];
        vec![rename(&one, &spare), rename(&other, &one), rename(&spare, &other)]
    }

    /// WATCH, a command, and a transaction that fails if the key has changed meanwhile.
    fn watched(&mut self, group: usize) -> Batch {
        let (one, other) = self.two_keys(group);
        let mut watch = vec![word("WATCH"), one];
        if self.chance(30) {
            watch.push(other);
        }
        let look = match self.groups[group].family {
            Family::Bank => self.balances(group),
            _ => self.command(group),
        };
        let (is_bank, ends) = (self.groups[group].family == Family::Bank, self.chance(10));
        let last = match () {
            () if ends => Request::Command(words(["UNWATCH"])),
            () if is_bank => self.bank_transfer(group),
            () => self.transaction(group),
        };
        let requests = [Request::Command(watch), Request::Command(look), last];
        Batch { requests: requests.map(|request| (group, request)).into(), is_pipelined: false }
    }

    /// Moves an amount between accounts, reads all of them, or exchanges two.
    fn bank(&mut self, group: usize) -> Request {
        match self.random.below(10) {
            0..6 => self.bank_transfer(group),
            6..9 => Request::Command(self.balances(group)),
            _ => Request::Transaction(self.exchange_accounts(group)),
        }
    }

    /// Renames two accounts by way of a name that is no account.
    fn exchange_accounts(&mut self, group: usize) -> Vec<Words> {
        let mut renames = self.swap(group);
        renames[0][2] = word(SPARE_ACCOUNT);
        renames[2][1] = word(SPARE_ACCOUNT);
        // A missing account would let one of them fail, and then a balance is lost.
        let create = |key: &Word| vec![word("INCRBY"), key.clone(), word("0")];
        self.groups[group].keys.iter().map(create).chain(renames).collect()
    }

    fn bank_transfer(&mut self, group: usize) -> Request {
        let (one, other) = self.two_keys(group);
        let amount = self.number(1000);
        let (give, take) =
            (vec![word("DECRBY"), one, amount.clone()], vec![word("INCRBY"), other, amount]);
        Request::Transaction(vec![give, take])
    }

    fn balances(&mut self, group: usize) -> Words {
        let keys = self.groups[group].keys.iter().cloned();
        std::iter::once(word("MGET")).chain(keys).collect()
    }
}

//! SCAN, SSCAN, HSCAN and ZSCAN amid changes.
//!
//! A scan must return an element that exists from its first call to its last, and must not return
//! one that exists at no time meanwhile. Each element that comes and goes belongs to one client,
//! which changes it in one request after the other. So at some times the element certainly exists,
//! at some it certainly does not, and of the others nothing is claimed.
//!
//! ```text
//!   client       |- SADD m -|      exists       |- SREM m -|     does not exist
//!   scans                       |----------|                         must return m
//!                    |-----------|                                   may return m or not
//!                                                              |---| must not return m
//! ```
//!
//! Resident elements always exist. RENAME of a large value, which keeps its shard, replaces
//! resident keys: so these change their shard while they exist.
//!
//! The elements in an image obey the same rule, as a scan of one instant during BGSAVE.

use crate::client::Shared;
use crate::contents::pipeline;
use crate::history::Tick;
use crate::reply::{Reply, Word, Words, word};
use anyhow::{Context, Result, bail, ensure};
use client_tests::random::Random;
use client_tests::wire::RawConnection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::SeqCst;

/// The keyspace, or one collection in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Container {
    Keyspace,
    Set,
    Hash,
    SortedSet,
}

pub const CONTAINERS: [Container; 4] =
    [Container::Keyspace, Container::Set, Container::Hash, Container::SortedSet];

/// Elements of each container that always exist.
const RESIDENTS: u64 = 120;
/// Elements of each client and container that come and go.
const OWNED: u64 = 200;
/// All keys of this file begin so.
const PREFIX: &str = "scan:";

impl Container {
    const fn key(self) -> &'static str {
        match self {
            Self::Keyspace => "",
            Self::Set => "scan:set",
            Self::Hash => "scan:hash",
            Self::SortedSet => "scan:zset",
        }
    }

    fn scan(self, cursor: &str, count: &str) -> Words {
        let (name, key) = match self {
            Self::Keyspace => {
                let words = ["SCAN", cursor, "MATCH", "scan:*", "COUNT", count];
                return words.map(word).into();
            }
            Self::Set => ("SSCAN", self.key()),
            Self::Hash => ("HSCAN", self.key()),
            Self::SortedSet => ("ZSCAN", self.key()),
        };
        [name, key, cursor, "COUNT", count].map(word).into()
    }

    /// Adds elements to a collection.
    fn add(self, elements: &[Word]) -> Words {
        let mut words = vec![word("SADD"), word(self.key())];
        for element in elements {
            match self {
                Self::Hash => words.extend([element.clone(), word("value")]),
                Self::SortedSet => words.extend([word("1"), element.clone()]),
                _ => words.push(element.clone()),
            }
        }
        words[0] = word(match self {
            Self::Hash => "HSET",
            Self::SortedSet => "ZADD",
            _ => "SADD",
        });
        words
    }

    fn remove(self, elements: &[Word]) -> Words {
        let name = match self {
            Self::Keyspace => return [&[word("DEL")], elements].concat(),
            Self::Set => "SREM",
            Self::Hash => "HDEL",
            Self::SortedSet => "ZREM",
        };
        [&[word(name), word(self.key())], elements].concat()
    }
}

fn resident(number: u64) -> Word {
    word(format!("scan:resident:{number}"))
}

fn owned(client: usize, number: u64) -> Word {
    word(format!("scan:{client}:{number}"))
}

/// An element comes or goes within an interval.
#[derive(Clone, Debug)]
pub struct Change {
    pub container: Container,
    pub element: Word,
    pub is_there: bool,
    pub from: Tick,
    /// `Tick::MAX`: no reply.
    pub to: Tick,
}

/// The result of a scan from the first cursor to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    pub container: Container,
    pub from: Tick,
    pub to: Tick,
    pub found: BTreeSet<Word>,
}

/// All changes of all elements, by time.
#[derive(Clone, Debug, Default)]
pub struct Timeline(BTreeMap<(Container, Word), Vec<Change>>);

impl Timeline {
    pub fn add(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            let element = (change.container, change.element.clone());
            self.0.entry(element).or_default().push(change);
        }
    }

    /// Whether an element certainly exists, or certainly does not, from one tick to another.
    fn certain(changes: &[Change], from: Tick, to: Tick) -> Option<bool> {
        let known = changes.iter().take_while(|change| change.from < to).last();
        let known = known.map_or((false, 0), |change| (change.is_there, change.to));
        (known.1 <= from).then_some(known.0)
    }

    /// Checks a scan.
    pub fn check(&self, scan: &Scan) -> Result<()> {
        let Scan { container, from, to, found } = scan;
        let what = || format!("a scan of {container:?} from {from} to {to}");
        for ((_, element), changes) in self.0.iter().filter(|((of, _), _)| of == container) {
            let certain = Self::certain(changes, *from, *to);
            let is_right = certain.is_none_or(|is_there| is_there == found.contains(element));
            let last = changes.iter().rev().take(4).map(|change| {
                let Change { is_there, from, to, .. } = change;
                format!("{from} .. {to}: {}", if *is_there { "comes" } else { "goes" })
            });
            let last = last.collect::<Vec<_>>();
            let (name, found) = (Reply::Bulk(element.clone()), found.contains(element));
            ensure!(is_right, "{}: {name} found: {found}; its last changes: {last:?}", what());
        }
        let known = |element: &&Word| self.0.contains_key(&(*container, (*element).clone()));
        let stranger = found.iter().find(|element| !known(element));
        let stranger = stranger.map(|element| Reply::Bulk(element.clone()));
        ensure!(stranger.is_none(), "{}: {stranger:?} never existed", what());
        Ok(())
    }

    /// Drops changes that no later scan needs.
    pub fn forget_before_now(&mut self) {
        for changes in self.0.values_mut() {
            let last = changes.len() - 1;
            changes.drain(..last);
        }
    }

    /// Starts anew with the content of a restarted server.
    pub fn restart(&mut self, listings: &[Scan]) {
        for listing in listings {
            let Scan { container, from, to, found } = listing;
            for ((of, element), changes) in &mut self.0 {
                if of == container {
                    let is_there = found.contains(element);
                    let (container, element, from, to) = (*of, element.clone(), *from, *to);
                    *changes = vec![Change { container, element, is_there, from, to }];
                }
            }
        }
    }

    fn owned_by(&self, client: usize) -> BTreeSet<(Container, Word)> {
        let prefix = format!("{PREFIX}{client}:");
        let there = self.0.iter().filter(|((_, element), changes)| {
            element.starts_with(prefix.as_bytes())
                && changes.last().is_some_and(|change| change.is_there)
        });
        there.map(|(element, _)| element.clone()).collect()
    }
}

/// Creates the resident elements.
pub fn fill(raw: &mut RawConnection, shared: &Shared) -> Result<Timeline> {
    let residents = (0..RESIDENTS).map(resident).collect::<Vec<_>>();
    let collections = [Container::Set, Container::Hash, Container::SortedSet];
    let mut commands: Vec<Words> =
        residents.iter().map(|key| vec![word("SET"), key.clone(), word("value")]).collect();
    commands.extend(collections.iter().map(|container| container.add(&residents)));
    let from = shared.clock.tick();
    pipeline(raw, &commands)?;
    let to = shared.clock.tick();
    let mut timeline = Timeline::default();
    for container in CONTAINERS {
        let keys = collections.iter().map(|collection| word(collection.key()));
        let keys = keys.filter(|_| container == Container::Keyspace);
        let elements = residents.iter().cloned().chain(keys);
        let change = |element| Change { container, element, is_there: true, from, to };
        timeline.add(elements.map(change));
    }
    Ok(timeline)
}

/// Scans a container from the first cursor to the last.
fn scan(raw: &mut RawConnection, container: Container, count: &str) -> Result<BTreeSet<Word>> {
    let (mut found, mut cursor) = (BTreeSet::new(), "0".to_owned());
    loop {
        let replies = pipeline(raw, &[container.scan(&cursor, count)])?;
        let Some(Reply::Array(parts)) = replies.first() else { bail!("{replies:?}") };
        let [Reply::Bulk(next), page] = &parts[..] else { bail!("{replies:?}") };
        let step = match container {
            Container::Keyspace | Container::Set => 1,
            Container::Hash | Container::SortedSet => 2,
        };
        found.extend(page.list().into_iter().step_by(step));
        cursor = std::str::from_utf8(next)?.to_owned();
        if cursor == "0" {
            return Ok(found);
        }
    }
}

/// The content of an idle server, as scans of an instant between two ticks.
pub fn list(raw: &mut RawConnection, from: Tick, to: Tick) -> Result<Vec<Scan>> {
    let list = |container| {
        let found = scan(raw, container, "1000")?;
        Ok(Scan { container, from, to, found })
    };
    CONTAINERS.map(list).into_iter().collect()
}

/// The changes and scans of scanning clients.
#[derive(Debug, Default)]
pub struct ScanLog {
    pub changes: Vec<Change>,
    pub scans: Vec<Scan>,
}

impl ScanLog {
    pub fn add(&mut self, more: Self) {
        self.changes.extend(more.changes);
        self.scans.extend(more.scans);
    }
}

/// A client that scans all elements and changes its own.
pub struct Scanner<'s> {
    shared: &'s Shared,
    raw: RawConnection,
    random: Random,
    client: usize,
    there: BTreeSet<(Container, Word)>,
    seen: ScanLog,
}

impl<'s> Scanner<'s> {
    pub fn connect(
        shared: &'s Shared,
        port: u16,
        client: usize,
        random: Random,
        timeline: &Timeline,
    ) -> Result<Self> {
        let (there, seen) = (timeline.owned_by(client), ScanLog::default());
        Ok(Self { shared, raw: RawConnection::connect(port)?, random, client, there, seen })
    }

    /// Changes and scans until the round ends or the server is killed.
    pub fn run(mut self) -> Result<ScanLog> {
        while !self.shared.is_stopped() {
            let result = match self.random.below(8) {
                0 => self.scan(),
                1..4 => self.change_keys(),
                4 => self.replace_resident(),
                _ => self.change_elements(),
            };
            if result.is_err() && self.shared.killed.load(SeqCst) {
                break;
            }
            result.with_context(|| format!("scanning client {}", self.client))?;
        }
        Ok(self.seen)
    }

    fn scan(&mut self) -> Result<()> {
        let choice = usize::try_from(self.random.below(4))?;
        let container = CONTAINERS[choice];
        let count = ["1", "10", "40", "500"][usize::try_from(self.random.below(4))?];
        let from = self.shared.clock.tick();
        let found = scan(&mut self.raw, container, count)?;
        let to = self.shared.clock.tick();
        self.seen.scans.push(Scan { container, from, to, found });
        Ok(())
    }

    /// Sends commands that let elements come and go.
    fn change(&mut self, commands: &[Words], changes: &[(Container, Word, bool)]) -> Result<()> {
        let (first, from) = (self.seen.changes.len(), self.shared.clock.tick());
        for (container, element, is_there) in changes {
            let (container, element, is_there) = (*container, element.clone(), *is_there);
            let place = (container, element.clone());
            if is_there {
                self.there.insert(place)
            } else {
                self.there.remove(&place)
            };
            self.seen.changes.push(Change { container, element, is_there, from, to: Tick::MAX });
        }
        let replies = pipeline(&mut self.raw, commands)?;
        let to = self.shared.clock.tick();
        ensure!(!replies.iter().any(Reply::is_error), "{replies:?}");
        for change in &mut self.seen.changes[first..] {
            change.to = to;
        }
        Ok(())
    }

    fn owned(&mut self) -> Word {
        owned(self.client, self.random.below(OWNED))
    }

    /// Creates, deletes and renames keys of this client.
    fn change_keys(&mut self) -> Result<()> {
        let (one, other) = (self.owned(), self.owned());
        let at = |key: &Word| (Container::Keyspace, key.clone());
        let command = |name: &str, words: &[&Word]| {
            let words = words.iter().map(|word| (*word).clone());
            std::iter::once(word(name)).chain(words).collect::<Words>()
        };
        let change = |key: &Word, is_there| (Container::Keyspace, key.clone(), is_there);
        match self.random.below(4) {
            _ if one == other => Ok(()),
            0 | 1 if self.there.contains(&at(&one)) => {
                let rename = command("RENAME", &[&one, &other]);
                self.change(&[rename], &[change(&one, false), change(&other, true)])
            }
            0 => {
                let large = [&[word("RPUSH"), one.clone()][..], &large()].concat();
                self.change(&[command("DEL", &[&one]), large], &[change(&one, true)])
            }
            1 | 2 => {
                let set = [command("SET", &[&one, &other]), command("SET", &[&other, &one])];
                self.change(&set, &[change(&one, true), change(&other, true)])
            }
            _ => {
                let keys = (0..20).map(|_| self.owned()).collect::<BTreeSet<_>>();
                let keys = keys.into_iter().collect::<Vec<_>>();
                let gone = keys.iter().map(|key| change(key, false)).collect::<Vec<_>>();
                self.change(&[Container::Keyspace.remove(&keys)], &gone)
            }
        }
    }

    /// Renames a large value to a resident key, which exists before and after.
    fn replace_resident(&mut self) -> Result<()> {
        let temporary = word(format!("scan:{}:temporary", self.client));
        let kept = resident(self.random.below(RESIDENTS));
        let commands = [
            [&[word("RPUSH"), temporary.clone()][..], &large()].concat(),
            vec![word("RENAME"), temporary.clone(), kept],
        ];
        let at = |is_there| (Container::Keyspace, temporary.clone(), is_there);
        self.change(&commands[..1], &[at(true)])?;
        self.change(&commands[1..], &[at(false)])
    }

    fn change_elements(&mut self) -> Result<()> {
        let container = CONTAINERS[1 + usize::try_from(self.random.below(3))?];
        let count = if self.random.below(5) == 0 { 90 } else { 1 + self.random.below(3) };
        let elements = (0..count).map(|_| self.owned()).collect::<BTreeSet<_>>();
        let elements = elements.into_iter().collect::<Vec<_>>();
        let is_there = self.random.below(2) == 0;
        let command = match is_there {
            true => container.add(&elements),
            false => container.remove(&elements),
        };
        let changes = elements.into_iter().map(|element| (container, element, is_there));
        self.change(&[command], &changes.collect::<Vec<_>>())
    }
}

/// Elements of a list that RENAME leaves in its shard.
fn large() -> Vec<Word> {
    (0..80).map(|number| word(number.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: Container = Container::Set;

    fn change(is_there: bool, from: Tick, to: Tick) -> Change {
        Change { container: SET, element: word("m"), is_there, from, to }
    }

    fn is_right(timeline: &Timeline, from: Tick, to: Tick, found: &[&str]) -> bool {
        let found = found.iter().map(word).collect();
        timeline.check(&Scan { container: SET, from, to, found }).is_ok()
    }

    #[test]
    fn only_what_is_certain_is_claimed_of_a_scan() {
        let mut timeline = Timeline::default();
        timeline.add([change(true, 10, 20), change(false, 30, 40), change(true, 50, Tick::MAX)]);
        // Never there, there, gone.
        assert!(is_right(&timeline, 1, 9, &[]) && !is_right(&timeline, 1, 9, &["m"]));
        assert!(is_right(&timeline, 21, 29, &["m"]) && !is_right(&timeline, 21, 29, &[]));
        assert!(is_right(&timeline, 41, 49, &[]) && !is_right(&timeline, 41, 49, &["m"]));
        // A change overlaps.
        for (from, to) in [(5, 11), (15, 25), (25, 35), (45, 60), (60, 70)] {
            assert!(is_right(&timeline, from, to, &[]) && is_right(&timeline, from, to, &["m"]));
        }
        assert!(!is_right(&timeline, 25, 35, &["stranger"]));
        // After a restart only what was restored counts.
        let found = BTreeSet::from([word("m")]);
        timeline.restart(&[Scan { container: SET, from: 80, to: 81, found }]);
        assert!(is_right(&timeline, 90, 99, &["m"]) && !is_right(&timeline, 90, 99, &[]));
    }
}

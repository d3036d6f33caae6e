//! The checks at the end of a round.

use crate::checker::{Checker, Placed, Rules};
use crate::cuts::{self, Allowed};
use crate::history::{Cut, History, Operation};
use crate::images::Image;
use crate::load::{Load, Operations};
use crate::model::{Keys, State, Value};
use crate::reply::{Reply, word};
use crate::report;
use crate::round::Plan;
use crate::scans::Timeline;
use crate::workload::{Family, Group};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::thread;

/// What was checked.
#[derive(Clone, Debug, Default)]
pub struct RunCounts {
    pub operations: usize,
    /// Those whose reply came while another of their group was pending.
    pub overlaps: usize,
    /// The most explanations of a history at once.
    pub explanations: usize,
    pub images: usize,
    pub scans: usize,
    pub restarts: usize,
    /// A history that only eviction explains.
    pub evicted: bool,
    pub checking: std::time::Duration,
    /// Waits that ended with an element, and transactions that a watched key refused.
    pub served: usize,
    pub refused: usize,
    /// Commands refused for want of memory.
    pub out_of_memory: usize,
    /// Replies that were neither nil nor errors, by command.
    pub commands: BTreeMap<String, usize>,
}

/// All that is known of a server's contents from the rounds so far.
pub struct Verifier {
    plan: Plan,
    seed: u64,
    round: u64,
    checkers: Vec<Checker>,
    pub timeline: Timeline,
    pub counts: RunCounts,
}

impl Verifier {
    pub fn new(plan: Plan, seed: u64, timeline: Timeline) -> Self {
        let checkers = plan.groups.iter().map(|_| Checker::new(plan.rules)).collect();
        Self { plan, seed, round: 0, checkers, timeline, counts: RunCounts::default() }
    }

    /// Checks what a round has seen. `end` is what the server holds after it, and after a restart
    /// if it was killed.
    pub fn check(&mut self, load: Load, end: Image, killed: bool) -> Result<()> {
        let Load { operations, seen, images } = load;
        self.round += 1;
        self.counts.add(&operations, images.len(), seen.scans.len());
        let cuts = images.iter().chain((!killed).then_some(&end));
        let histories = histories(self.plan.groups.len(), operations, cuts);
        let start = std::time::Instant::now();
        let before = self.checkers.clone();
        let placed = self.linearize(&histories)?;
        self.counts.checking += start.elapsed();
        if self.plan.rules.may_evict {
            let exact = before.into_iter().map(|checker| checker.with_rules(Rules::default()));
            let mut pairs = exact.zip(&histories);
            let shows = |(checker, history): (Checker, &History)| {
                let mut checker = checker;
                checker.check(history).is_err()
            };
            self.counts.evicted |= pairs.any(shows);
        }
        for (number, image) in images.iter().enumerate() {
            self.is_one_instant(&histories, &placed, number)
                .with_context(|| format!("{}, seed {}", image.name, self.seed))?;
        }
        for image in images.iter().chain([&end]) {
            is_balanced(&self.plan.groups, image)?;
        }
        self.timeline.add(seen.changes);
        let listings = images.iter().flat_map(|image| &image.contents.listings);
        for scan in seen.scans.iter().chain(listings) {
            if !self.plan.rules.may_evict {
                self.timeline.check(scan)?;
            }
        }
        self.timeline.forget_before_now();
        for checker in &mut self.checkers {
            self.counts.overlaps += std::mem::take(&mut checker.overlaps);
            self.counts.explanations = self.counts.explanations.max(checker.most);
        }
        if killed {
            self.timeline.restart(&end.contents.listings);
            for (checker, keys) in self.checkers.iter_mut().zip(end.contents.groups) {
                *checker = Checker::starting_with(self.plan.rules, [State::new(keys)]);
            }
        }
        Ok(())
    }

    /// Checks each group's history; returns where its cuts can lie.
    fn linearize(&mut self, histories: &[History]) -> Result<Vec<Vec<Placed>>> {
        let results = thread::scope(|scope| {
            let pairs = self.checkers.iter_mut().zip(histories);
            let threads = pairs.map(|(checker, history)| scope.spawn(|| checker.check(history)));
            let threads = threads.collect::<Vec<_>>();
            threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        let mut placed = Vec::new();
        for (number, result) in results.into_iter().enumerate() {
            let Ok(result) = result else { bail!("a checker panicked") };
            let (group, history) = (&self.plan.groups[number], &histories[number]);
            match result {
                Ok(cuts) => placed.push(cuts),
                Err(violation) => {
                    let text = report::describe(group.name(), history, &violation);
                    let path = self.keep(&history.to_text());
                    bail!("round {}, seed {}: {text}all of it: {path}", self.round, self.seed);
                }
            }
        }
        Ok(placed)
    }

    fn keep(&self, text: &str) -> String {
        let name = format!("{}-{}-{}", self.plan.name, self.seed, self.round);
        report::keep(&name, text).display().to_string()
    }

    /// Whether image `number` is one cut of all groups.
    fn is_one_instant(
        &self,
        histories: &[History],
        placed: &[Vec<Placed>],
        number: usize,
    ) -> Result<()> {
        let mut allowed = Vec::new();
        for (group, cuts) in self.plan.groups.iter().zip(placed) {
            // A history that ends before the image says nothing about it.
            if let Some(placed) = cuts.iter().find(|placed| placed.cut == number) {
                let stretches = placed.stretches.clone();
                allowed.push(Allowed { group: group.name(), stretches });
            }
        }
        if let Err(text) = cuts::one_instant(&allowed) {
            let all = histories.iter().map(History::to_text).collect::<Vec<_>>().join("\n");
            bail!("{text}all of it: {}", self.keep(&all));
        }
        Ok(())
    }
}

/// The history of each group, as far as it can be explained.
pub fn histories<'i>(
    groups: usize,
    operations: Operations,
    images: impl IntoIterator<Item = &'i Image>,
) -> Vec<History> {
    let mut histories = vec![History::default(); groups];
    for (group, operation) in operations {
        histories[group].operations.push(operation);
    }
    for image in images {
        for (history, keys) in histories.iter_mut().zip(&image.contents.groups) {
            let Image { name, from, to, .. } = image;
            let (name, from, to, keys) = (name.clone(), *from, *to, keys.clone());
            history.cuts.push(Cut { name, from, to, keys });
        }
    }
    histories.iter_mut().for_each(History::up_to_what_is_known);
    histories
}

/// Transfers conserve the sum of all accounts.
fn is_balanced(groups: &[Group], image: &Image) -> Result<()> {
    for (group, keys) in groups.iter().zip(&image.contents.groups) {
        if group.family == Family::Bank {
            let sum = balance(keys)?;
            ensure!(sum == 0, "{}: the accounts sum up to {sum}", image.name);
        }
    }
    Ok(())
}

fn balance(keys: &Keys) -> Result<i64> {
    let amount = |entry: &Value| match entry {
        Value::String(bytes) => Ok(std::str::from_utf8(bytes)?.parse::<i64>()?),
        other => bail!("an account is a {}", other.type_name()),
    };
    keys.values().map(|entry| amount(&entry.value)).sum()
}

impl std::ops::AddAssign for RunCounts {
    fn add_assign(&mut self, more: Self) {
        self.operations += more.operations;
        self.overlaps += more.overlaps;
        self.explanations = self.explanations.max(more.explanations);
        self.images += more.images;
        self.scans += more.scans;
        self.restarts += more.restarts;
        self.evicted |= more.evicted;
        self.checking += more.checking;
        self.served += more.served;
        self.refused += more.refused;
        self.out_of_memory += more.out_of_memory;
        for (name, count) in more.commands {
            *self.commands.entry(name).or_default() += count;
        }
    }
}

impl RunCounts {
    fn add(&mut self, operations: &[(usize, Operation)], images: usize, scans: usize) {
        self.operations += operations.len();
        self.images += images;
        self.scans += scans;
        for (_, operation) in operations {
            let Some((_, reply)) = &operation.answer else { continue };
            let commands = operation.request.commands();
            let replies = match (reply, commands.len()) {
                (Reply::Array(replies), n) if replies.len() == n && n > 1 => &replies[..],
                (reply, _) => std::slice::from_ref(reply),
            };
            for (words, reply) in commands.iter().zip(replies) {
                let name = String::from_utf8_lossy(&words[0]).into_owned();
                let waits = name.starts_with('B') || words.contains(&word("BLOCK"));
                self.served +=
                    usize::from(waits && matches!(reply, Reply::Array(_) | Reply::Bulk(_)));
                self.out_of_memory += usize::from(reply.is_out_of_memory());
                if !reply.is_error() && *reply != Reply::Nil {
                    *self.commands.entry(name).or_default() += 1;
                }
            }
            let is_transaction =
                matches!(operation.request, crate::history::Request::Transaction(_));
            self.refused += usize::from(is_transaction && *reply == Reply::Nil);
        }
    }
}

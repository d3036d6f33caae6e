//! The checks at the end of a round.

use crate::checker::{Checker, CutPlacement, Rules};
use crate::cuts::{self, Allowed};
use crate::history::{Cut, History};
use crate::images::Image;
use crate::load::{Load, Operations};
use crate::model::{Keys, State, Value};
use crate::report;
use crate::round::Plan;
use crate::run_counts::RunCounts;
use crate::scans::{ScanLog, Timeline};
use crate::workload::{Family, Group};
use anyhow::{Context, Result, bail, ensure};
use std::thread;
use std::time::Instant;

/// The known contents of a server, round after round.
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

    /// Checks what a round has recorded. `end` is the content of the server after the round, or
    /// after a restart if it was `killed`.
    pub fn check(&mut self, load: Load, end: &Image, killed: bool) -> Result<()> {
        let Load { operations, scans, images } = load;
        self.round += 1;
        operations.iter().for_each(|(_, operation)| self.counts.add(operation));
        self.counts.images += images.len();
        self.counts.scans += scans.scans.len();
        let cuts = images.iter().chain((!killed).then_some(end));
        let histories = histories(self.plan.groups.len(), operations, cuts);
        let placements = self.linearize(&histories)?;
        for (number, image) in images.iter().enumerate() {
            self.is_one_instant(&histories, &placements, number)
                .with_context(|| image.name.clone())?;
        }
        for image in images.iter().chain([end]) {
            is_balanced(&self.plan.groups, image)?;
        }
        if !self.plan.rules.may_evict {
            self.check_scans(scans, &images)?;
        }
        if killed {
            self.timeline.restart(&end.contents.listings);
            for (checker, keys) in self.checkers.iter_mut().zip(&end.contents.groups) {
                *checker = Checker::starting_with(self.plan.rules, [State::new(keys.clone())]);
            }
        }
        Ok(())
    }

    /// Checks the history of each group; returns where its cuts can lie.
    fn linearize(&mut self, histories: &[History]) -> Result<Vec<Vec<CutPlacement>>> {
        let (start, before) = (Instant::now(), self.checkers.clone());
        let results = thread::scope(|scope| {
            let pairs = self.checkers.iter_mut().zip(histories);
            let threads = pairs.map(|(checker, history)| scope.spawn(|| checker.check(history)));
            let threads = threads.collect::<Vec<_>>();
            threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        self.counts.checking += start.elapsed();
        let mut placements = Vec::new();
        for (number, result) in results.into_iter().enumerate() {
            let Ok(result) = result else { bail!("a checker panicked") };
            let (group, history) = (&self.plan.groups[number], &histories[number]);
            match result {
                Ok(cuts) => placements.push(cuts),
                Err(violation) => {
                    let text = report::describe(group.name(), history, &violation);
                    let path = self.keep(&history.to_text());
                    bail!("round {}: {text}the whole history: {path}", self.round);
                }
            }
        }
        for checker in &mut self.checkers {
            self.counts.overlaps += std::mem::take(&mut checker.overlaps);
            self.counts.configurations = self.counts.configurations.max(checker.most);
        }
        if self.plan.rules.may_evict {
            let without = |checker: Checker| checker.with_rules(Rules::default());
            let mut pairs = before.into_iter().map(without).zip(histories);
            self.counts.evicted |= pairs.any(|(mut exact, history)| exact.check(history).is_err());
        }
        Ok(placements)
    }

    fn check_scans(&mut self, log: ScanLog, images: &[Image]) -> Result<()> {
        self.timeline.add(log.changes);
        let listings = images.iter().flat_map(|image| &image.contents.listings);
        for scan in log.scans.iter().chain(listings) {
            self.timeline.check(scan)?;
        }
        self.timeline.forget_before_now();
        Ok(())
    }

    /// Writes a history to a file; returns the path.
    fn keep(&self, text: &str) -> String {
        let name = format!("{}-{}-{}", self.plan.name, self.seed, self.round);
        report::keep(&name, text).display().to_string()
    }

    /// Checks that image `number` is one cut of all groups.
    fn is_one_instant(
        &self,
        histories: &[History],
        placements: &[Vec<CutPlacement>],
        number: usize,
    ) -> Result<()> {
        let mut allowed = Vec::new();
        for (group, cuts) in self.plan.groups.iter().zip(placements) {
            // A history that ends before the image says nothing about it.
            if let Some(placement) = cuts.iter().find(|placement| placement.cut == number) {
                let stretches = placement.stretches.clone();
                allowed.push(Allowed { group: group.name(), stretches });
            }
        }
        if let Err(text) = cuts::one_instant(&allowed) {
            let all = histories.iter().map(History::to_text).collect::<Vec<_>>().join("\n");
            bail!("{text}all histories: {}", self.keep(&all));
        }
        Ok(())
    }
}

/// The history of each group, as far as its outcomes are known.
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
    histories.iter_mut().for_each(History::end_at_unknown_outcome);
    histories
}

/// Checks that transfers have conserved the sum of all accounts.
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
    let amount = |value: &Value| match value {
        Value::String(bytes) => Ok(std::str::from_utf8(bytes)?.parse::<i64>()?),
        other => bail!("an account is a {}", other.type_name()),
    };
    keys.values().map(|entry| amount(&entry.value)).sum()
}

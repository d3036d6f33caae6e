//! Writers that change the keyspace as fast as they can, until they are told to stop or the server
//! dies under them.
//!
//! Database 0 belongs to the [`mixed`] writers, database 1 to the [`staircase`] writer.

use crate::mix::Mix;
use crate::random::Random;
use crate::wire::{Raw, encode, show};
use anyhow::{Context, Result, ensure};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many commands are sent before their replies are read.
const PIPELINE: usize = 32;
/// Steps of the staircase: with 64 shards, most of them hold some.
pub const STEPS: usize = 128;

/// What the writers and their test share.
#[derive(Debug, Default)]
pub struct Signals {
    /// Tells the writers to end.
    pub stop: AtomicBool,
    /// Batches written so far, by all writers.
    pub batches: AtomicU64,
}

impl Signals {
    /// Waits until the writers have written `batches` more, so that a test acts amid writes.
    ///
    /// # Errors
    /// When they do not get there within 20 s.
    pub fn wait_for(&self, batches: u64) -> Result<()> {
        let goal = self.batches.load(Relaxed) + batches;
        let written = || Ok(self.batches.load(Relaxed) >= goal);
        crate::wait::wait_until(written, Duration::from_secs(20), "the writers to write")
    }
}

/// Sends batches until told to stop, or until the connection ends.
///
/// # Errors
/// When the server answers with an error.
fn write(port: u16, signals: &Signals, mut batch: impl FnMut() -> Vec<Vec<Vec<u8>>>) -> Result<()> {
    // The server may be killed at any moment: then there is nothing more to do.
    let Ok(mut raw) = Raw::connect(port) else { return Ok(()) };
    while !signals.stop.load(Relaxed) {
        let commands = batch();
        let bytes = commands.iter().flat_map(|command| encode(command)).collect::<Vec<u8>>();
        if raw.send(&bytes).is_err() {
            return Ok(());
        }
        for command in &commands {
            let Ok(reply) = raw.read_reply() else { return Ok(()) };
            let what = || command.iter().map(|word| show(word)).collect::<Vec<_>>().join(" ");
            ensure!(!is_error(&reply), "{}: {}", what(), show(&reply));
        }
        signals.batches.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// Whether a command failed, or one of a transaction.
fn is_error(reply: &[u8]) -> bool {
    let has = |error: &[u8]| reply.windows(error.len()).any(|part| part == error);
    reply.starts_with(b"-") || reply.starts_with(b"*") && (has(b"\r\n-ERR ") || has(b"\r\n-OOM "))
}

fn command(words: &[&[u8]]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

/// Changes keys of all types in all ways, in database 0: see [`Mix`].
///
/// # Errors
/// When the server answers with an error.
pub fn mixed(port: u16, writer: u64, random: Random, signals: &Signals) -> Result<()> {
    let Ok(mut raw) = Raw::connect(port) else { return Ok(()) };
    let Ok(known) = raw.exchange(&["COMMAND", "INFO", "XADD"]) else { return Ok(()) };
    let has_streams = known.windows(4).any(|word| word == b"xadd");
    let mut mix = Mix::new(writer, random, has_streams);
    write(port, signals, || {
        let mut batch = Vec::with_capacity(PIPELINE);
        while batch.len() < PIPELINE {
            mix.add_to(&mut batch);
        }
        batch
    })
}

/// Writes 1 to every step in turn, then 2 to every step, and so on, in database 1.
///
/// At any one instant the first steps hold n and the others n - 1: see [`check_staircase`].
///
/// # Errors
/// When the server answers with an error.
pub fn staircase(port: u16, first: u64, signals: &Signals) -> Result<()> {
    let mut height = first;
    write(port, signals, || {
        let value = height.to_string().into_bytes();
        height += 1;
        let select = command(&[b"SELECT", b"1"]);
        let steps = (0..STEPS).map(|step| command(&[b"SET", step_key(step).as_bytes(), &value]));
        std::iter::once(select).chain(steps).collect()
    })
}

fn step_key(step: usize) -> String {
    format!("step:{step}")
}

/// Checks that the staircase shows one instant, and returns its height.
///
/// This proof of a snapshot's consistency leans on no digest: a step that is higher than the one
/// before it was written later than something that is missing. After a `FLUSHALL` those steps are
/// missing that were not written since: the oldest.
///
/// # Errors
/// When it shows two instants, naming the steps.
pub fn check_staircase(raw: &mut Raw) -> Result<u64> {
    raw.call(&["SELECT", "1"])?;
    let mut heights = Vec::new();
    for step in 0..STEPS {
        let value = raw.bytes(&["GET".to_owned(), step_key(step)])?.unwrap_or_default();
        let text = String::from_utf8(value)?;
        heights.push(if text.is_empty() { 0 } else { text.parse::<u64>().context(text)? });
    }
    raw.call(&["SELECT", "0"])?;
    let is_one_instant = (0..STEPS).any(|last| is_instant(&heights, last));
    ensure!(is_one_instant, "the steps show two instants: {heights:?}");
    Ok(heights.iter().copied().max().unwrap_or_default())
}

/// Whether the steps are what they are when step `last` was the last that was written; 0 is one
/// that is missing.
fn is_instant(heights: &[u64], last: usize) -> bool {
    let top = heights[last];
    let by_age = (last + 1..STEPS).map(|step| (step, top.saturating_sub(1)));
    let by_age = by_age.chain((0..=last).map(|step| (step, top)));
    let mut since = by_age.skip_while(|(step, _)| heights[*step] == 0);
    since.all(|(step, height)| heights[step] == height)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_told_from_two() {
        let stairs = |last: usize, missing: std::ops::Range<usize>| {
            let mut heights: Vec<u64> = (0..STEPS).map(|step| 6 - u64::from(step > last)).collect();
            heights[missing].fill(0);
            heights
        };
        let is_one = |heights: &[u64]| (0..STEPS).any(|last| is_instant(heights, last));
        assert!(is_one(&stairs(40, 0..0)) && is_one(&stairs(STEPS - 1, 0..0)));
        assert!(is_one(&stairs(40, 41..STEPS)) && is_one(&stairs(40, 41..60)));
        assert!(is_one(&vec![0; STEPS]));
        // Something older than what is missing.
        assert!(!is_one(&stairs(40, 0..20)) && !is_one(&stairs(40, 60..70)));
        let mut higher = stairs(40, 0..0);
        higher[50] = 6;
        assert!(!is_one(&higher));
    }
}

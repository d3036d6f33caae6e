//! Writers that change the keyspace as fast as they can, until a test stops them or the server
//! ends.
//!
//! The [`mixed`] writers use database 0, the [`staircase`] writer uses database 1.

use crate::mix::CommandMix;
use crate::random::Random;
use crate::wire::{RawConnection, encode, show};
use anyhow::{Context, Result, ensure};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Number of commands that are sent before their replies are read.
const PIPELINE: usize = 32;
/// Number of steps of the staircase, enough for most of the 64 shards to hold some.
pub const STEPS: usize = 128;

/// State shared by the writers and their test.
#[derive(Debug, Default)]
pub struct WriterControl {
    /// Set to stop the writers.
    pub stop: AtomicBool,
    /// Number of batches written by all writers.
    pub batches: AtomicU64,
}

impl WriterControl {
    /// Waits until the writers have written `batches` more, so that a test acts during writes.
    ///
    /// # Errors
    /// Returns an error after 20 s.
    pub fn wait_for(&self, batches: u64) -> Result<()> {
        let goal = self.batches.load(Relaxed) + batches;
        let written = || Ok(self.batches.load(Relaxed) >= goal);
        crate::wait::wait_until(written, Duration::from_secs(20), "the writers to write")
    }
}

/// Sends batches until the test stops the writer or the connection ends.
///
/// # Errors
/// Returns an error if a reply is an error.
fn write(
    port: u16,
    signals: &WriterControl,
    mut batch: impl FnMut() -> Vec<Vec<Vec<u8>>>,
) -> Result<()> {
    // The test may kill the server at any time, which ends the writer.
    let Ok(mut raw) = RawConnection::connect(port) else { return Ok(()) };
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

/// Whether a reply is an error, or contains an error of a transaction's command.
fn is_error(reply: &[u8]) -> bool {
    let has = |error: &[u8]| reply.windows(error.len()).any(|part| part == error);
    reply.starts_with(b"-") || reply.starts_with(b"*") && (has(b"\r\n-ERR ") || has(b"\r\n-OOM "))
}

fn command(words: &[&[u8]]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

/// Writes random commands of [`CommandMix`] to database 0.
///
/// # Errors
/// Returns an error if a reply is an error.
pub fn mixed(port: u16, writer: u64, random: Random, signals: &WriterControl) -> Result<()> {
    let Ok(mut raw) = RawConnection::connect(port) else { return Ok(()) };
    let Ok(known) = raw.exchange(&["COMMAND", "INFO", "XADD"]) else { return Ok(()) };
    let has_streams = known.windows(4).any(|word| word == b"xadd");
    let mut mix = CommandMix::new(writer, random, has_streams);
    write(port, signals, || {
        let mut batch = Vec::with_capacity(PIPELINE);
        while batch.len() < PIPELINE {
            mix.add_to(&mut batch);
        }
        batch
    })
}

/// Writes `first` to each step in turn, then `first + 1`, and so on, in database 1.
///
/// At any instant the first steps hold n and the others n - 1; see [`check_staircase`].
///
/// # Errors
/// Returns an error if a reply is an error.
pub fn staircase(port: u16, first: u64, signals: &WriterControl) -> Result<()> {
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
/// This check of snapshot isolation does not depend on the server's digest: a step that is higher
/// than the step before it was written later than a write that is missing. After `FLUSHALL` the
/// oldest steps are missing, those not written since.
///
/// # Errors
/// Returns an error with the steps if they show two instants.
pub fn check_staircase(raw: &mut RawConnection) -> Result<u64> {
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

/// Whether the heights are those of an instant at which step `last` was written last; 0 stands for
/// a missing step.
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
    fn one_instant_is_distinguished_from_two() {
        let stairs = |last: usize, missing: std::ops::Range<usize>| {
            let mut heights: Vec<u64> = (0..STEPS).map(|step| 6 - u64::from(step > last)).collect();
            heights[missing].fill(0);
            heights
        };
        let is_one = |heights: &[u64]| (0..STEPS).any(|last| is_instant(heights, last));
        assert!(is_one(&stairs(40, 0..0)) && is_one(&stairs(STEPS - 1, 0..0)));
        assert!(is_one(&stairs(40, 41..STEPS)) && is_one(&stairs(40, 41..60)));
        assert!(is_one(&vec![0; STEPS]));
        // Steps that are older than a missing step.
        assert!(!is_one(&stairs(40, 0..20)) && !is_one(&stairs(40, 60..70)));
        let mut higher = stairs(40, 0..0);
        higher[50] = 6;
        assert!(!is_one(&higher));
    }
}

//! Writers that change the keyspace as fast as they can, until they are told to stop or the server
//! dies under them.
//!
//! Database 0 belongs to the [`mixed`] writers, database 1 to the [`staircase`] writer.

use crate::random::Random;
use crate::wire::{Raw, encode, show};
use anyhow::{Context, Result, ensure};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Keys of each kind per mixed writer.
const KEYS: u64 = 60;
/// The largest value that `SET` writes.
const LARGEST: u64 = 20 << 10;
/// How many commands are sent before their replies are read.
const PIPELINE: usize = 32;
/// Steps of the staircase: with 64 shards, most of them hold some.
pub const STEPS: usize = 128;
/// No key of a writer expires while a test runs, so that two digests stay comparable.
const FAR_SECONDS: u64 = 1_000_000;

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
            ensure!(!reply.starts_with(b"-"), "{}: {}", what(), show(&reply));
        }
        signals.batches.fetch_add(1, Relaxed);
    }
    Ok(())
}

fn command(words: &[&[u8]]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

/// One of all the ways to change a string, with values of 0 to 20 KB.
fn change(writer: u64, random: &mut Random) -> Vec<Vec<u8>> {
    let number = random.below(KEYS);
    let text = format!("text:{writer}:{number}").into_bytes();
    let counter = format!("counter:{writer}:{number}").into_bytes();
    let length = if random.below(2) == 0 { random.below(100) } else { random.below(LARGEST) };
    let far = (FAR_SECONDS + random.below(1000)).to_string().into_bytes();
    match random.below(1000) {
        0 => command(&[b"FLUSHDB"]),
        1..300 => command(&[b"SET", &text, &random.bytes(length)]),
        300..350 => command(&[b"SET", &text, &random.bytes(length), b"EX", &far]),
        350..600 => command(&[b"INCR", &counter]),
        600..680 => {
            let more = random.below(300);
            command(&[b"APPEND", &text, &random.bytes(more)])
        }
        680..760 => command(&[b"DEL", &text]),
        760..800 => command(&[b"DEL", &counter]),
        800..860 => command(&[b"EXPIRE", &text, &far]),
        860..900 => command(&[b"PERSIST", &text]),
        900..960 => {
            let offset = random.below(LARGEST).to_string().into_bytes();
            command(&[b"SETRANGE", &text, &offset, b"range"])
        }
        _ => {
            let other = format!("text:{writer}:{}", random.below(KEYS)).into_bytes();
            command(&[b"MSET", &text, b"together", &other, b"together"])
        }
    }
}

/// Changes keys in all ways, in database 0.
///
/// # Errors
/// When the server answers with an error.
pub fn mixed(port: u16, writer: u64, mut random: Random, signals: &Signals) -> Result<()> {
    write(port, signals, || (0..PIPELINE).map(|_| change(writer, &mut random)).collect())
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
/// before it was written later than something that is missing.
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
    let (top, bottom) = (heights[0], heights[STEPS - 1]);
    let falls = heights.windows(2).all(|pair| pair[0] >= pair[1]);
    ensure!(falls && top - bottom <= 1, "the steps show two instants: {heights:?}");
    Ok(top)
}

//! Waiting for something to become true, with a deadline instead of a guess.

use crate::wire::{Raw, encode};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);

/// Asks `condition` every few milliseconds until it is true.
///
/// # Errors
/// The condition's own, or, once `deadline` has passed, one that names `what` was waited for.
pub fn wait_until(
    mut condition: impl FnMut() -> Result<bool>,
    deadline: Duration,
    what: &str,
) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > deadline {
            bail!("waited {deadline:?} in vain for {what}");
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Clients that wait for keys, as the server counts them.
///
/// # Errors
/// The server does not tell.
pub fn waiting(raw: &mut Raw) -> Result<usize> {
    let info = raw.text(&["INFO", "clients"])?;
    let line = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
    Ok(line.context("no number of blocked clients")?.parse()?)
}

/// Sends a command that waits for a key, and returns once the server has counted it. No other
/// client may begin or end to wait meanwhile.
///
/// # Errors
/// The connection is lost, or `deadline` has passed.
pub fn send_and_wait<A: AsRef<[u8]>>(
    raw: &mut Raw,
    words: &[A],
    admin: &mut Raw,
    deadline: Duration,
) -> Result<()> {
    let before = waiting(admin)?;
    raw.send(&encode(words))?;
    wait_until(|| Ok(waiting(admin)? > before), deadline, "a client that waits")
}

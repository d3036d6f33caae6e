//! Waiting for a condition, with a deadline instead of a fixed sleep.

use crate::wire::{RawConnection, encode};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);

/// Evaluates `condition` every few milliseconds until it is true.
///
/// # Errors
/// Returns the condition's error, or, after `deadline`, an error that contains `what`.
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

/// Number of blocked clients, as counted by the server.
///
/// # Errors
/// Returns an error if INFO lacks the number.
pub fn blocked_clients(raw: &mut RawConnection) -> Result<usize> {
    let info = raw.text(&["INFO", "clients"])?;
    let line = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
    Ok(line.context("no number of blocked clients")?.parse()?)
}

/// Sends a blocking command, and returns once the server counts its client as blocked. The number
/// of blocked clients must not change otherwise meanwhile.
///
/// # Errors
/// Returns an error if the connection is lost or `deadline` has passed.
pub fn send_blocking<A: AsRef<[u8]>>(
    raw: &mut RawConnection,
    words: &[A],
    admin: &mut RawConnection,
    deadline: Duration,
) -> Result<()> {
    let before = blocked_clients(admin)?;
    raw.send(&encode(words))?;
    wait_until(|| Ok(blocked_clients(admin)? > before), deadline, "a blocked client")
}

//! Waiting for something to become true, with a deadline instead of a guess.

use anyhow::{Result, bail};
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

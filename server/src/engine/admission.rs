//! What is asked of a request before it runs, and the words in which it is turned away.

use std::sync::atomic::Ordering;

use crate::commands::{Failure, Flags, Row, Session, Shared};
use crate::config::Config;
use crate::protocol::Args;

const NO_AUTH: Failure = Failure::new("NOAUTH Authentication required.");
const MISCONF: Failure = Failure::new(
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to \
     disk. Commands that may modify the data set are disabled, because this instance is configured \
     to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error \
     option). Please check the Redis logs for details about the RDB error.",
);

/// Whether a request may run.
///
/// # Errors
/// The reply that turns it away.
#[inline]
pub(super) fn admit(
    shared: &Shared,
    config: &Config,
    session: &Session,
    row: &Row,
    args: &Args<'_>,
) -> Result<(), Failure> {
    let command = row.command;
    if !command.accepts(args.len()) {
        return Err(crate::commands::wrong_arity(row));
    }
    let flags = command.flags;
    if !session.authenticated && !flags.has(Flags::NO_AUTH) {
        return Err(NO_AUTH);
    }
    if flags.has(Flags::WRITE) {
        if config.stop_writes_on_bgsave_error
            && !config.save.is_empty()
            && shared.telemetry.persistence().last_save_failed()
        {
            return Err(MISCONF);
        }
        if flags.has(Flags::DENYOOM) && is_full(shared) {
            return Err(Failure::OUT_OF_MEMORY);
        }
    }
    Ok(())
}

/// Whether more is used than `maxmemory` allows. The arena itself cannot grow beyond its
/// reservation, so that only a limit below that has to be asked about.
fn is_full(shared: &Shared) -> bool {
    let limit = shared.maxmemory.load(Ordering::Relaxed);
    limit < shared.keyspace.arena().capacity() && shared.keyspace.arena().used_bytes() > limit
}

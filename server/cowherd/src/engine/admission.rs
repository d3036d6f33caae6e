//! What is asked of a request before it runs, and the words in which it is turned away.

use crate::clients::Session;
use crate::commands::{CommandFlags, CommandRow, ErrorReply, Shared};
use crate::config::Config;
use cowherd_resp::{Args, ProtocolVersion};

const NO_AUTH: ErrorReply = ErrorReply::new("NOAUTH Authentication required.");
/// What has no place in a transaction.
pub(super) const NOT_INSIDE: &str = "ERR Command not allowed inside a transaction";
const MISCONF: ErrorReply = ErrorReply::new(
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to \
     disk. Commands that may modify the data set are disabled, because this instance is configured \
     to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error \
     option). Please check the Redis logs for details about the RDB error.",
);

/// Whether a request may run, or, in a transaction, be queued. `flags` are those of the command, or
/// of all that it runs; `has_room` is asked if it may need memory.
///
/// # Errors
/// The reply that turns it away.
#[inline]
pub(super) fn admit(
    shared: &Shared,
    config: &Config,
    session: &Session,
    row: &CommandRow,
    flags: CommandFlags,
    args: &Args<'_>,
    has_room: impl FnOnce() -> bool,
) -> Result<(), ErrorReply> {
    let command = row.command;
    if !command.accepts(args.len()) {
        return Err(row.wrong_arity());
    }
    if !session.authenticated && !command.flags.contains(CommandFlags::NO_AUTH) {
        return Err(NO_AUTH);
    }
    let queues = session.queue.is_some() && !command.flags.contains(CommandFlags::UNQUEUED);
    if queues {
        may_be_queued(row, args)?;
    }
    if (flags.contains(CommandFlags::DENYOOM) || queues) && !has_room() {
        return Err(ErrorReply::OUT_OF_MEMORY);
    }
    if flags.contains(CommandFlags::WRITE)
        && config.stop_writes_on_bgsave_error
        && !config.save.is_empty()
        && shared.telemetry.persistence().writes_are_unsafe()
    {
        return Err(MISCONF);
    }
    if session.subscriptions.is_some() {
        return admit_subscriber(session, row);
    }
    Ok(())
}

#[cold]
fn may_be_queued(row: &CommandRow, args: &Args<'_>) -> Result<(), ErrorReply> {
    if row.command.flags.contains(CommandFlags::NO_MULTI) {
        return Err(ErrorReply::new(NOT_INSIDE));
    }
    // A request that names no subcommand is for the command above.
    if !row.subcommands.is_empty() {
        return Err(crate::commands::ErrorReply::unknown_subcommand(args));
    }
    Ok(())
}

/// A subscriber that speaks RESP2 cannot tell replies from messages: few commands are left to it.
#[cold]
fn admit_subscriber(session: &Session, row: &CommandRow) -> Result<(), ErrorReply> {
    let name = row.command.name;
    let may = name.ends_with("subscribe") || matches!(name, "ping" | "quit" | "reset");
    if may || session.client.version() == ProtocolVersion::Resp3 {
        return Ok(());
    }
    Err(ErrorReply::text(format!(
        "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
         allowed in this context",
        row.name
    )))
}

//! Admission control: the checks that a request passes before it runs or is queued, and their error
//! replies.

use crate::clients::Session;
use crate::commands::{Command, CommandFlags, CommandRow, ErrorReply, Shared};
use crate::config::Config;
use cowherd_resp::{Args, ProtocolVersion};

const NO_AUTH: ErrorReply = ErrorReply::new("NOAUTH Authentication required.");
/// The error reply for a command that a transaction cannot contain.
pub(super) const NOT_IN_TRANSACTION: &str = "ERR Command not allowed inside a transaction";
/// The error reply for a command that needs the keyspace while the image is being read.
pub(super) const LOADING: ErrorReply =
    ErrorReply::new("LOADING Redis is loading the dataset in memory");
pub(super) const MISCONF: ErrorReply = ErrorReply::new(
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to \
     disk. Commands that may modify the data set are disabled, because this instance is configured \
     to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error \
     option). Please check the Redis logs for details about the RDB error.",
);

/// Checks whether a request may run or, in a transaction, be queued. `flags` are those of the
/// command, for EXEC those of all queued commands. `has_capacity` is called only for a request that
/// may need memory, because the call may evict.
///
/// # Errors
/// The error reply that rejects the request.
#[inline]
pub(super) fn admit(
    shared: &Shared,
    config: &Config,
    session: &Session,
    row: &CommandRow,
    flags: CommandFlags,
    args: &Args<'_>,
    has_capacity: impl FnOnce() -> bool,
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
        check_queueable(row, args)?;
    }
    if (flags.contains(CommandFlags::DENYOOM) || queues) && !has_capacity() {
        return Err(ErrorReply::OUT_OF_MEMORY);
    }
    if flags.contains(CommandFlags::WRITE) && writes_are_refused(shared, config) {
        return Err(MISCONF);
    }
    if session.subscriptions.is_some() {
        check_subscriber(session, row)?;
    }
    if session.is_monitor {
        return check_monitor(flags);
    }
    Ok(())
}

/// Whether commands that write are refused, because saving has failed.
#[inline]
pub(super) fn writes_are_refused(shared: &Shared, config: &Config) -> bool {
    config.stop_writes_on_bgsave_error
        && !config.save.is_empty()
        && shared.telemetry.persistence().writes_are_unsafe()
}

/// Whether a command runs while the image is being read: it has the flag, and nothing that it does
/// or leaves behind depends on the keys. WATCH remembers keys, and DEBUG looks at them, so that
/// neither runs, although both have the flag, as in Redis.
pub(super) fn runs_while_loading(command: &Command) -> bool {
    let needs_keys = matches!(command.name, "watch" | "debug");
    command.flags.contains(CommandFlags::LOADING) && !needs_keys
}

#[cold]
fn check_queueable(row: &CommandRow, args: &Args<'_>) -> Result<(), ErrorReply> {
    if row.command.flags.contains(CommandFlags::NO_MULTI) {
        return Err(ErrorReply::new(NOT_IN_TRANSACTION));
    }
    // `row` is a container command: the request names none of its subcommands.
    if !row.subcommands.is_empty() {
        return Err(ErrorReply::unknown_subcommand(args));
    }
    Ok(())
}

/// Rejects all but a few commands from a RESP2 subscriber, since RESP2 does not distinguish replies
/// from messages.
#[cold]
fn check_subscriber(session: &Session, row: &CommandRow) -> Result<(), ErrorReply> {
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

/// Rejects commands that use keys, run scripts or publish from a monitor: the reply could not be
/// told from the lines that monitors are shown.
#[cold]
fn check_monitor(flags: CommandFlags) -> Result<(), ErrorReply> {
    use CommandFlags as Flags;
    let refused = [Flags::WRITE, Flags::READONLY, Flags::RUNS_SCRIPT, Flags::HAS_EFFECTS];
    if refused.iter().any(|flag| flags.contains(*flag)) {
        return Err(ErrorReply::new("ERR Replica can't interact with the keyspace"));
    }
    Ok(())
}

//! What monitors are shown of the requests that run (MONITOR).
//!
//! A command is shown after it has run, with the database that it leaves selected, and before its
//! shards are unlocked. A transaction shows its commands, then EXEC; a script shows itself, then
//! the commands that it calls. These lines are collected in a [`MonitorFeed`] and published
//! together. Requests that are refused before they run are not shown, except EXEC, which ends the
//! transaction that MULTI has begun.

use crate::clients::{MonitorLines, RequestSource, Session};
use crate::commands::{
    Call, CommandFlags, CommandResult, CommandRow, Effect, ErrorReply, Shared, is_secret,
};
use crate::config::Config;
use cowherd_resp::Args;

/// The lines of one command, transaction or script that are not published yet.
pub(super) struct MonitorFeed {
    /// `None` if there were no monitors when it began.
    lines: Option<MonitorLines>,
}

impl MonitorFeed {
    pub(super) fn new(is_monitored: bool) -> Self {
        Self { lines: is_monitored.then(MonitorLines::default) }
    }

    /// Adds a request of a session's client.
    #[inline]
    pub(super) fn add(&mut self, session: &Session, row: &CommandRow, args: &Args<'_>) {
        if let Some(lines) = &mut self.lines {
            let source = RequestSource::Connection(&session.client);
            add(lines, session, source, row, args);
        }
    }

    /// Adds a command that a script has called; `session` is that of the script.
    #[inline]
    pub(super) fn add_call(&mut self, session: &Session, row: &CommandRow, args: &Args<'_>) {
        if let Some(lines) = &mut self.lines {
            add(lines, session, RequestSource::Script, row, args);
        }
    }

    /// Publishes what was added.
    #[inline]
    pub(super) fn publish(&mut self, shared: &Shared, config: &Config) {
        if let Some(lines) = self.lines.as_mut().filter(|lines| lines.len() > 0) {
            shared.clients.monitors.publish(&config.client_output_buffer_limit, lines);
        }
    }

    /// Whether there are so many lines that they should be published.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.lines.as_ref().is_some_and(MonitorLines::is_full)
    }

    /// Bytes of the lines.
    pub(super) fn len(&self) -> usize {
        self.lines.as_ref().map_or(0, MonitorLines::len)
    }

    /// Drops all lines behind the first `len` bytes.
    pub(super) fn truncate(&mut self, len: usize) {
        if let Some(lines) = &mut self.lines {
            lines.truncate(len);
        }
    }
}

/// Shows a command that has run for its own. A transaction or a script that is about to run shows
/// itself, and a command without memory has not run.
#[cold]
pub(super) fn show(call: &Call<'_>, answer: &CommandResult) {
    let runs_others = matches!(call.effect, Effect::RunScript(_) | Effect::RunQueue);
    if (answer.is_ok() && runs_others) || *answer == Err(ErrorReply::OUT_OF_MEMORY) {
        return;
    }
    show_request(call.shared, call.config, call.session, call.row, &call.args);
}

/// Shows a request, whatever became of it.
#[cold]
pub(super) fn show_request(
    shared: &Shared,
    config: &Config,
    session: &Session,
    row: &CommandRow,
    args: &Args<'_>,
) {
    let mut feed = MonitorFeed::new(true);
    feed.add(session, row, args);
    feed.publish(shared, config);
}

/// Adds a request with its passwords redacted. Administrative commands are not shown, nor is a
/// container command without one of its subcommands.
#[cold]
fn add(
    lines: &mut MonitorLines,
    session: &Session,
    source: RequestSource<'_>,
    row: &CommandRow,
    args: &Args<'_>,
) {
    let names_no_subcommand = !row.subcommands.is_empty() && args.len() > 1;
    if row.command.flags.contains(CommandFlags::ADMIN) || names_no_subcommand {
        return;
    }
    let shown = (0..args.len()).map(|i| match is_secret(row, args, i) {
        true => b"(redacted)".as_slice(),
        false => args.at(i),
    });
    lines.add(session.db, source, shown);
}

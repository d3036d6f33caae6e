//! Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! ```text
//! MULTI --> a queue in the session --> requests are checked and queued --> EXEC
//!                                                                           |
//!   the engine: locks the shards of all queued and all watched keys, checks |
//!   whether a watched key was touched, runs the queue, unlocks  <-----------+
//! ```
//!
//! The queue itself ([`CommandQueue`]) holds rows by number and flags as bits; this file maps them
//! to the command table.
//!
//! Invariant: [`queue_shards`] covers all shards that the queued commands touch. A command that
//! locks shards itself ([`LockScope::Handler`]) counts with all shards, since its handler finds
//! them locked in a transaction.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clients::{CommandQueue, QueuedCommand, Session};
use crate::keyspace::{Keyspace, ShardSet};
use cowherd_resp::Args;

use super::call::{Call, Effect};
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{
    Command, CommandFlags, CommandGroup, CommandRow, KeyPositions, KeyUse, LockScope,
};

const PLAIN: CommandFlags = CommandFlags::NOSCRIPT
    .with(CommandFlags::LOADING)
    .with(CommandFlags::STALE)
    .with(CommandFlags::UNQUEUED);
const FAST: CommandFlags = PLAIN.with(CommandFlags::FAST).with(CommandFlags::ALLOW_BUSY);
/// Queued, unlike the rest of the family: EXEC unwatches all keys before it runs the queue.
const UNWATCH: CommandFlags = CommandFlags::NOSCRIPT
    .with(CommandFlags::LOADING)
    .with(CommandFlags::STALE)
    .with(CommandFlags::FAST)
    .with(CommandFlags::ALLOW_BUSY);
const EXEC: CommandFlags = PLAIN.with(CommandFlags::RUNS_QUEUE);

const GROUP: CommandGroup = CommandGroup::Transactions;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("multi", 1, FAST, multi)
        .doc(GROUP, "1.2.0", "Begins a transaction.")
        .locking(LockScope::Handler),
    Command::new("exec", 1, EXEC, exec)
        .doc(GROUP, "1.2.0", "Runs a transaction.")
        .locking(LockScope::Handler),
    Command::new("discard", 1, FAST, discard)
        .doc(GROUP, "2.0.0", "Drops a transaction.")
        .locking(LockScope::Handler),
    Command::new("watch", -2, FAST, watch)
        .doc(GROUP, "2.2.0", "Lets EXEC fail if a key changes before.")
        .keys(KeyPositions::ALL, KeyUse::INSPECT)
        .syntax("key..."),
    Command::new("unwatch", 1, UNWATCH, unwatch)
        .doc(GROUP, "2.2.0", "Forgets all watched keys.")
        .locking(LockScope::Handler),
];

const NESTED: ErrorReply = ErrorReply::new("ERR MULTI calls can not be nested");
const WATCH_INSIDE: ErrorReply = ErrorReply::new("ERR WATCH inside MULTI is not allowed");
const EXEC_OUTSIDE: ErrorReply = ErrorReply::new("ERR EXEC without MULTI");
const DISCARD_OUTSIDE: ErrorReply = ErrorReply::new("ERR DISCARD without MULTI");
const ABORTED: ErrorReply =
    ErrorReply::new("EXECABORT Transaction discarded because of previous errors.");

impl Session {
    /// The flags by which a command is admitted. Those of EXEC include the flags of the queue.
    #[inline]
    pub fn flags_of(&self, command: &Command) -> CommandFlags {
        match &self.queue {
            Some(queue) if command.flags.contains(CommandFlags::RUNS_QUEUE) => {
                command.flags | queue_flags(queue)
            }
            _ => command.flags,
        }
    }

    /// Queues an admitted command, which would lock `shards`, as computed when the keyspace had
    /// counted `relocations`.
    pub fn enqueue(
        &mut self,
        row: &CommandRow,
        args: Args<'_>,
        first_hash: Option<u64>,
        shards: ShardSet,
        relocations: u64,
    ) {
        let command = QueuedCommand { row: row.number, args, first_hash };
        self.push_queued(
            command,
            row.command.flags.bits(),
            shards_in_queue(row, shards),
            relocations,
        );
    }
}

/// Union of the flags of all commands in a queue.
pub fn queue_flags(queue: &CommandQueue) -> CommandFlags {
    CommandFlags::from_bits(queue.flag_bits())
}

/// The shards that EXEC locks for the commands in a queue.
pub fn queue_shards(queue: &CommandQueue, rows: &[CommandRow], keyspace: &Keyspace) -> ShardSet {
    queue.shards(keyspace, |queued| {
        let row = &rows[queued.row];
        shards_in_queue(row, row.command.shards(keyspace, &queued.args, queued.first_hash))
    })
}

/// The shards that EXEC locks for a command which alone would lock `shards`.
const fn shards_in_queue(row: &CommandRow, shards: ShardSet) -> ShardSet {
    match row.command.locks {
        LockScope::Handler => ShardSet::ALL,
        LockScope::Keys | LockScope::All => shards,
    }
}

/// The reply to an EXEC that is not admitted because of `error`.
pub fn exec_refused(error: &ErrorReply) -> ErrorReply {
    let reason = error.as_bytes();
    let reason = reason.strip_prefix(b"ERR ").unwrap_or(reason);
    ErrorReply::quoting(&[b"EXECABORT Transaction discarded because of: ", reason])
}

fn multi(call: &mut Call<'_>) -> CommandResult {
    if call.session.queue.is_some() {
        return Err(NESTED);
    }
    call.session.queue = Some(Box::default());
    call.session.client.queued.store(1, Ordering::Relaxed);
    call.reply.ok();
    Ok(())
}

/// The engine runs the queue and writes the reply.
fn exec(call: &mut Call<'_>) -> CommandResult {
    match &call.session.queue {
        None => Err(EXEC_OUTSIDE),
        Some(queue) if queue.is_aborted() => {
            call.session.discard(&call.shared.keyspace);
            Err(ABORTED)
        }
        Some(_) => {
            call.effect = Effect::RunQueue;
            Ok(())
        }
    }
}

fn discard(call: &mut Call<'_>) -> CommandResult {
    if call.session.queue.is_none() {
        return Err(DISCARD_OUTSIDE);
    }
    call.session.discard(&call.shared.keyspace);
    call.reply.ok();
    Ok(())
}

fn watch(call: &mut Call<'_>) -> CommandResult {
    let session = &mut *call.session;
    if session.queue.is_some() {
        return Err(WATCH_INSIDE);
    }
    let watcher = Arc::clone(&session.client.watcher);
    for i in call.row.command.keys.positions(&call.args) {
        // EXEC will fail anyway: no further key needs to be watched.
        if watcher.is_touched() {
            break;
        }
        let key = call.shared.keyspace.key(session.db, call.args.at(i));
        if session.watched.insert((session.db, key.bytes.into())) {
            call.shards.watch(session.db, &key, &watcher);
        }
    }
    session.client.watched.store(session.watched.len() as u64, Ordering::Relaxed);
    call.reply.ok();
    Ok(())
}

/// Without effect in a transaction: EXEC has unwatched all keys.
fn unwatch(call: &mut Call<'_>) -> CommandResult {
    call.session.unwatch(&call.shared.keyspace);
    call.reply.ok();
    Ok(())
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;

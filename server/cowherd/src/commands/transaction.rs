//! Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! ```text
//! MULTI --> a queue in the session --> requests are checked and queued --> EXEC
//!                                                                           |
//!   the engine: locks the shards of all queued and all watched keys, looks  |
//!   whether a watched key was touched, runs the queue, unlocks  <-----------+
//! ```
//!
//! Invariants:
//! 1. `Queue::shards` are the shards of all queued commands' keys; all of them, if one of the
//!    commands chooses its shards itself. They are found again if keys have moved meanwhile.
//! 2. What `Session::watched` lists is exactly what the session's watcher is registered for, but
//!    for keys that were touched.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::keyspace::{DbIndex, Keyspace, ShardSet, Shards};
use cowherd_resp::{ArgSpan, Args};

use super::call::{Call, Effect};
use super::error_reply::{CommandResult, ErrorReply};
use super::session::Session;
use super::table::{Command, CommandFlags, CommandRow, KeyPositions, LockScope};

const PLAIN: CommandFlags = CommandFlags::NOSCRIPT
    .and(CommandFlags::LOADING)
    .and(CommandFlags::STALE)
    .and(CommandFlags::UNQUEUED);
const FAST: CommandFlags = PLAIN.and(CommandFlags::FAST);
/// Queued: what is watched is forgotten before the queue runs.
const UNWATCH: CommandFlags = CommandFlags::NOSCRIPT
    .and(CommandFlags::LOADING)
    .and(CommandFlags::STALE)
    .and(CommandFlags::FAST);
const EXEC: CommandFlags = PLAIN.and(CommandFlags::RUNS_QUEUE);

/// The family's rows.
pub(super) const COMMANDS: &[Command] = &[
    row("multi", 1, FAST, KeyPositions::NONE, multi, "1.2.0", "Begins a transaction.")
        .locking(LockScope::Handler),
    row("exec", 1, EXEC, KeyPositions::NONE, exec, "1.2.0", "Runs a transaction.")
        .locking(LockScope::Handler),
    row("discard", 1, FAST, KeyPositions::NONE, discard, "2.0.0", "Drops a transaction.")
        .locking(LockScope::Handler),
    row(
        "watch",
        -2,
        FAST,
        KeyPositions::ALL,
        watch,
        "2.2.0",
        "Lets EXEC fail if a key changes before.",
    ),
    row("unwatch", 1, UNWATCH, KeyPositions::NONE, unwatch, "2.2.0", "Forgets all watched keys.")
        .locking(LockScope::Handler),
];

const fn row(
    name: &'static str,
    arity: isize,
    flags: CommandFlags,
    keys: KeyPositions,
    handler: super::table::Handler,
    since: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, flags, keys, handler).doc("transactions", since, summary)
}

const NESTED: ErrorReply = ErrorReply::new("ERR MULTI calls can not be nested");
const WATCH_INSIDE: ErrorReply = ErrorReply::new("ERR WATCH inside MULTI is not allowed");
const EXEC_OUTSIDE: ErrorReply = ErrorReply::new("ERR EXEC without MULTI");
const DISCARD_OUTSIDE: ErrorReply = ErrorReply::new("ERR DISCARD without MULTI");
const ABORTED: ErrorReply =
    ErrorReply::new("EXECABORT Transaction discarded because of previous errors.");

/// The commands that a connection has queued since MULTI.
#[derive(Debug, Default)]
pub struct Queue {
    bytes: Vec<u8>,
    spans: Vec<ArgSpan>,
    commands: Vec<Queued>,
    flags: CommandFlags,
    shards: ShardSet,
    /// How often keys had moved when the shards of the first command were found.
    moves: u64,
    /// A command was refused: EXEC will be too.
    aborted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Queued {
    row: usize,
    /// Where its spans end; they begin where those of the one before end.
    end: usize,
    /// Hash of its first key.
    first_hash: Option<u64>,
}

/// A queued command.
#[derive(Clone, Copy, Debug)]
pub struct QueuedCommand<'q> {
    /// Number of its row in the table.
    pub row: usize,
    /// Its arguments.
    pub args: Args<'q>,
    /// Hash of its first key.
    pub first_hash: Option<u64>,
}

impl Queue {
    /// Adds a command that locks `shards`, as was planned after `moves` moves of keys.
    pub fn push(
        &mut self,
        row: &CommandRow,
        args: Args<'_>,
        first_hash: Option<u64>,
        shards: ShardSet,
        moves: u64,
    ) {
        // What was planned first counts: it may be out of date first.
        if self.commands.is_empty() {
            self.moves = moves;
        }
        for arg in args {
            self.spans.push(ArgSpan { start: self.bytes.len(), len: arg.len() });
            self.bytes.extend_from_slice(arg);
        }
        self.flags = self.flags | row.command.flags;
        self.shards = self.shards | in_queue(row, shards);
        self.commands.push(Queued { row: row.number, end: self.spans.len(), first_hash });
    }

    /// Notes that a command was refused.
    pub const fn abort(&mut self) {
        self.aborted = true;
    }

    /// Number of commands.
    pub const fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether there is no command.
    pub const fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Bytes of all arguments.
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of memory that the queue takes.
    pub const fn memory(&self) -> usize {
        self.bytes.capacity()
            + self.spans.capacity() * size_of::<ArgSpan>()
            + self.commands.capacity() * size_of::<Queued>()
    }

    /// All flags that any of the commands has.
    pub const fn flags(&self) -> CommandFlags {
        self.flags
    }

    /// The shards of all commands, as keys live now.
    pub fn shards(&self, rows: &[CommandRow], keyspace: &Keyspace) -> ShardSet {
        if keyspace.relocations() == self.moves {
            return self.shards;
        }
        let shards = self.iter().map(|queued| {
            let row = &rows[queued.row];
            in_queue(row, row.command.shards(keyspace, &queued.args, queued.first_hash))
        });
        shards.collect()
    }

    /// The commands in order.
    pub fn iter(&self) -> impl Iterator<Item = QueuedCommand<'_>> {
        let mut begin = 0;
        self.commands.iter().map(move |queued| {
            let spans = &self.spans[begin..queued.end];
            begin = queued.end;
            let args = Args::new(&self.bytes, spans);
            QueuedCommand { row: queued.row, args, first_hash: queued.first_hash }
        })
    }
}

impl Session {
    /// The flags that decide whether a command may run: those of EXEC include those of the queue.
    #[inline]
    pub fn flags_of(&self, command: &Command) -> CommandFlags {
        match &self.queue {
            Some(queue) if command.flags.has(CommandFlags::RUNS_QUEUE) => {
                command.flags | queue.flags
            }
            _ => command.flags,
        }
    }

    /// Bytes of the requests that are queued.
    pub fn queued_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes())
    }

    /// Ends queueing; no lock is held. Watched keys are forgotten too.
    pub fn discard(&mut self, keyspace: &Keyspace) {
        self.take_queue();
        self.unwatch(keyspace);
    }

    /// Takes the queue.
    pub fn take_queue(&mut self) -> Option<Box<Queue>> {
        self.client.queued.store(0, Ordering::Relaxed);
        self.client.queued_memory.store(0, Ordering::Relaxed);
        self.queue.take()
    }

    /// The shards of all watched keys.
    pub fn watched_shards(&self, keyspace: &Keyspace) -> ShardSet {
        self.watched.iter().map(|(_, key)| keyspace.shards_of(keyspace.hash(key))).collect()
    }

    /// Forgets all watched keys; no lock is held.
    pub fn unwatch(&mut self, keyspace: &Keyspace) {
        if self.watched.is_empty() {
            return;
        }
        for (db, key) in std::mem::take(&mut self.watched) {
            let hash = keyspace.hash(&key);
            // Whether it has expired meanwhile is of no interest any more.
            let mut shards = keyspace.lock_named(i64::MIN, || keyspace.shards_of(hash));
            shards.unwatch(db, &keyspace.key_of(db, &key, hash), &self.client.watcher);
        }
        self.forget_touches();
    }

    /// Forgets all watched keys; their shards are locked. Tells whether any was touched, or has
    /// expired, since it was watched.
    pub fn end_watch(&mut self, shards: &mut Shards<'_>) -> bool {
        for (db, key) in std::mem::take(&mut self.watched) {
            let key = shards.keyspace().key(db, &key);
            // Finds that it has expired, if it has, and that is a touch.
            shards.peek(db, &key);
            shards.unwatch(db, &key, &self.client.watcher);
        }
        let touched = self.client.watcher.is_touched();
        self.forget_touches();
        touched
    }

    fn forget_touches(&self) {
        self.client.watcher.reset();
        self.client.watched.store(0, Ordering::Relaxed);
    }

    /// Queues a command that may run.
    pub fn enqueue(
        &mut self,
        row: &CommandRow,
        args: Args<'_>,
        first_hash: Option<u64>,
        shards: ShardSet,
        moves: u64,
    ) {
        if let Some(queue) = &mut self.queue {
            queue.push(row, args, first_hash, shards, moves);
            self.client.queued.store(queue.len() as u64 + 1, Ordering::Relaxed);
            self.client.queued_memory.store(queue.memory() as u64, Ordering::Relaxed);
        }
    }
}

/// What a queued command locks that would lock `shards`.
const fn in_queue(row: &CommandRow, shards: ShardSet) -> ShardSet {
    match row.command.locks {
        LockScope::Handler => ShardSet::ALL,
        LockScope::KeyPositions | LockScope::All => shards,
    }
}

/// The reply to an EXEC that may not run: the transaction is dropped.
pub fn exec_refused(failure: &ErrorReply) -> ErrorReply {
    let reason = failure.as_str();
    let reason = reason.strip_prefix("ERR ").unwrap_or(reason);
    ErrorReply::text(format!("EXECABORT Transaction discarded because of: {reason}"))
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
        Some(queue) if queue.aborted => {
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
        // EXEC fails already: there is nothing more to look out for.
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

/// In a transaction there is nothing to forget any more.
fn unwatch(call: &mut Call<'_>) -> CommandResult {
    call.session.unwatch(&call.shared.keyspace);
    call.reply.ok();
    Ok(())
}

/// Keys that a connection watches.
pub(super) type Watched = BTreeSet<(DbIndex, Box<[u8]>)>;

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;

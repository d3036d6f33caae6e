//! Runs what a connection has queued since MULTI: under the locks of all its shards, taken in one
//! call, so that nobody sees a part of it, the safepoint included.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clients::{BlockingMode, CommandQueue, QueuedCommand, Session};
use crate::clock;
use crate::commands::{
    Call, CommandFlags, CommandResult, CommandRow, Effect, ErrorReply, LockScope, SaveKind, Shared,
    queue_flags, queue_shards,
};
use crate::config::Config;
use crate::telemetry;
use cowherd_arena::StallTimes;
use cowherd_resp::{Args, ReplyWriter};

use super::Engine;
use super::admission::NOT_INSIDE;
use super::checkpoint_scheduler::BUSY;
use super::retry::retry_under_locks;
use super::serve_blocked;
use super::worker::{BatchOutcome, Worker, sum, time, with_waiting};

/// How a transaction went.
pub(super) struct ExecOutcome {
    /// What follows.
    pub outcome: BatchOutcome,
    /// What was copied on write meanwhile, already charged to its commands.
    pub stalls: StallTimes,
}

impl Worker {
    /// Runs the queue of a session and writes the reply of EXEC.
    #[cold]
    pub(super) fn run_queue(
        &mut self,
        engine: &Engine,
        session: &mut Session,
        row_of_exec: &CommandRow,
        now: i64,
        reply: &mut ReplyWriter,
    ) -> ExecOutcome {
        let shared = &*engine.shared;
        let mut ran = ExecOutcome { outcome: BatchOutcome::Done, stalls: StallTimes::default() };
        let Some(queue) = session.take_queue() else { return ran };
        let named = || {
            let own = queue_shards(&queue, shared.table.rows(), &shared.keyspace);
            own | session.watched_shards(&shared.keyspace)
        };
        let widen = |set| with_waiting(shared, queue_flags(&queue), set);
        let mut shards = shared.keyspace.lock_with_retry(now, named, widen);
        // Looked at under the locks: whoever sets it holds them all.
        if shared.closing.load(Ordering::Relaxed) {
            ran.outcome = BatchOutcome::Close;
            return ran;
        }
        if session.end_watch(&mut shards) {
            reply.null_array();
            return ran;
        }
        let config = self.config.get();
        self.reclaimer.reset_locked_budget();
        session.in_exec = true;
        let mut save_wanted = false;
        let later = later_configs(shared, &queue);
        let mut later = later.iter();
        let mut begun = clock::monotonic_ns();
        reply.array(queue.len());
        let mut call = Call {
            args: Args::new(&[], &[]),
            reply,
            session,
            shared,
            config,
            shards,
            blocking_mode: BlockingMode::Denied,
            row: row_of_exec,
            first_hash: None,
            now,
            effect: Effect::None,
        };
        let spared = OnceCell::new();
        for queued in queue.iter() {
            let start = call.reply.len();
            let mut failed = run_queued(&mut call, &queued, |call| {
                retry_under_locks(
                    call,
                    &mut self.reclaimer,
                    spared.get_or_init(|| names(shared, &queue)),
                )
            });
            let effect = std::mem::take(&mut call.effect);
            if effect != Effect::None
                && let Err(text) = settle(&mut call, effect, &mut ran, &mut save_wanted)
            {
                call.reply.out.truncate(start);
                call.reply.error(text);
                failed = true;
            }
            if telemetry::ENABLED {
                let none = StallTimes::default();
                let stalls = time(
                    &self.recorder,
                    call.session,
                    call.row,
                    &call.args,
                    &mut begun,
                    failed,
                    none,
                );
                ran.stalls = sum(ran.stalls, stalls);
            }
            if failed {
                self.recorder.error(&call.reply.out[start.min(call.reply.len())..]);
            }
            if call.row.command.flags.contains(CommandFlags::ADMIN)
                && let Some(config) = later.next()
            {
                call.config = config.get_or_init(|| shared.config.current());
            }
        }
        call.session.in_exec = false;
        if call.shards.has_ready() {
            serve_blocked::serve_all(shared, call.config, &mut self.reclaimer, call.shards);
        } else {
            drop(call);
        }
        serve_blocked::serve_evicted(shared, config, &mut self.reclaimer, now);
        if save_wanted {
            // The client was told that it is scheduled; why it does not start is in the log.
            let _ = engine.saver.start_background(true, drop);
        }
        ran
    }
}

/// Room for the configurations that commands of a queue may leave behind.
fn later_configs(shared: &Shared, queue: &CommandQueue) -> Vec<OnceCell<Arc<Config>>> {
    let rows = shared.table.rows();
    let changing =
        queue.iter().filter(|one| rows[one.row].command.flags.contains(CommandFlags::ADMIN));
    changing.map(|_| OnceCell::new()).collect()
}

/// Hashes of all keys that a queue names, in ascending order. What locks all shards may name keys
/// anywhere among its arguments.
fn names(shared: &Shared, queue: &CommandQueue) -> Vec<u64> {
    let mut names = Vec::new();
    for queued in queue.iter() {
        let command = shared.table.rows()[queued.row].command;
        let hash = |bytes: &[u8]| shared.keyspace.hash(bytes);
        if command.locks == LockScope::All {
            names.extend(queued.args.iter().map(hash));
        } else {
            let keys = command.keys.positions(&queued.args);
            names.extend(keys.filter_map(|i| queued.args.get(i)).map(hash));
        }
    }
    names.sort_unstable();
    names
}

/// Runs one command of a queue, `again` if the arena had no memory for it; tells whether it failed.
fn run_queued<'c>(
    call: &mut Call<'c>,
    queued: &QueuedCommand<'c>,
    again: impl FnOnce(&mut Call<'c>) -> CommandResult,
) -> bool {
    call.row = &call.shared.table.rows()[queued.row];
    call.args = queued.args;
    call.first_hash = queued.first_hash;
    call.shards.set_touch(!call.session.no_touch);
    call.session.client.last_command.store(call.row.number as u64 + 1, Ordering::Relaxed);
    let start = call.reply.len();
    let mut answer = (call.row.command.handler)(call);
    if answer == Err(ErrorReply::OUT_OF_MEMORY) {
        call.reply.out.truncate(start);
        answer = again(call);
    }
    if let Err(failure) = &answer {
        call.effect = Effect::None;
        call.reply.out.truncate(start);
        call.reply.error(failure.as_str());
    }
    answer.is_err()
}

/// Does what can be done of an effect while locks are held, and answers if that is due.
#[cold]
fn settle(
    call: &mut Call<'_>,
    effect: Effect,
    ran: &mut ExecOutcome,
    save_wanted: &mut bool,
) -> Result<(), &'static str> {
    match effect {
        // Nothing waits in a transaction.
        Effect::None | Effect::RunQueue | Effect::Block => {}
        Effect::Close => ran.outcome = BatchOutcome::Close,
        Effect::Save(SaveKind::Background { schedule }) => {
            if !schedule && call.shared.telemetry.persistence().checkpoint_pid().is_some() {
                return Err(BUSY);
            }
            *save_wanted = true;
            call.reply.simple("Background saving scheduled");
        }
        Effect::Sleep { time, .. } => std::thread::sleep(time),
        Effect::Save(SaveKind::Foreground | SaveKind::Cancel)
        | Effect::Shutdown(_)
        | Effect::Reload => return Err(NOT_INSIDE),
    }
    Ok(())
}

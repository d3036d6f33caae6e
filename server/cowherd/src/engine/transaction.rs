//! EXEC: runs the commands that a client has queued since MULTI.
//!
//! A transaction locks the shards of all its commands in one call and unlocks them after the last,
//! so that neither other clients nor a checkpoint's safepoint see an intermediate state.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clients::{BlockingMode, CommandQueue, QueuedCommand, Session};
use crate::clock;
use crate::commands::{
    Call, CheckpointAction, CommandFlags, CommandResult, CommandRow, Effect, ErrorReply, LockScope,
    Shared, exec_refused, queue_flags, queue_shards,
};
use crate::config::{CachedConfig, Config};
use crate::keyspace::Reclaimer;
use crate::scripting::ScriptRuntime;
use crate::telemetry::{self, Recorder};
use cowherd_arena::StallTimes;
use cowherd_resp::{Args, ReplyWriter};

use super::admission::NOT_IN_TRANSACTION;
use super::checkpoint_scheduler::BUSY;
use super::effects::BatchOutcome;
use super::monitor::MonitorFeed;
use super::retry::retry_under_locks;
use super::script::{self, ScriptContext};
use super::serve_blocked;
use super::timing::{record_command, sum_stalls};
use super::{Engine, Suspender};

/// What EXEC uses of its worker.
pub(super) struct ExecContext<'w> {
    pub engine: &'w Engine,
    pub config: &'w mut CachedConfig,
    pub recorder: &'w Recorder,
    pub reclaimer: &'w mut Reclaimer,
    pub scripts: &'w mut Option<ScriptRuntime>,
    pub suspender: &'w Suspender<'w>,
    pub feed: MonitorFeed,
}

/// What the commands of a queue use of their worker.
struct QueueWorker<'w> {
    recorder: &'w Recorder,
    reclaimer: &'w mut Reclaimer,
    scripts: &'w mut Option<ScriptRuntime>,
    suspender: &'w Suspender<'w>,
    feed: &'w mut MonitorFeed,
}

/// How a transaction ended.
pub(super) struct ExecOutcome {
    /// What the connection does next.
    pub outcome: BatchOutcome,
    /// Write-barrier stalls of the transaction, already attributed to its commands.
    pub stalls: StallTimes,
}

/// Runs the queue of `session` and writes the reply of EXEC.
#[cold]
pub(super) fn exec(
    context: &mut ExecContext<'_>,
    session: &mut Session,
    (row_of_exec, args_of_exec): (&CommandRow, Args<'_>),
    now: i64,
    reply: &mut ReplyWriter,
) -> ExecOutcome {
    let shared = &*context.engine.shared;
    let mut exec = ExecOutcome { outcome: BatchOutcome::Done, stalls: StallTimes::default() };
    let Some(queue) = session.take_queue() else { return exec };
    let named = || {
        let own = queue_shards(&queue, shared.table.rows(), &shared.keyspace);
        own | session.watched_shards(&shared.keyspace)
    };
    let widen = |set| serve_blocked::shards_to_lock(shared, queue_flags(&queue), set);
    let is_busy = || shared.scripting.running.is_any_busy();
    let locked = shared.keyspace.lock_with_retry(now, named, widen, is_busy);
    let config = context.config.get();
    let Some(mut shards) = locked.map(|shards| shards.for_client(session.client.id)) else {
        context.feed.add(session, row_of_exec, &args_of_exec);
        context.feed.publish(shared, config);
        let busy = ErrorReply::new(shared.scripting.running.busy_reply());
        reply.error_bytes(exec_refused(&busy).as_bytes());
        return exec;
    };
    // Read under the locks: `closing` is set with all shards locked.
    if shared.closing.load(Ordering::Relaxed) {
        exec.outcome = BatchOutcome::Close;
        return exec;
    }
    if session.end_watch(&mut shards) {
        context.feed.add(session, row_of_exec, &args_of_exec);
        context.feed.publish(shared, config);
        reply.null_array();
        return exec;
    }
    context.reclaimer.reset_locked_budget();
    session.in_exec = true;
    let later = later_configs(shared, &queue);
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
    let worker = QueueWorker {
        recorder: context.recorder,
        reclaimer: context.reclaimer,
        scripts: context.scripts,
        suspender: context.suspender,
        feed: &mut context.feed,
    };
    let wants_checkpoint = run_commands(&mut call, &queue, &later, worker, &mut exec);
    call.session.in_exec = false;
    context.feed.add(call.session, row_of_exec, &args_of_exec);
    context.feed.publish(shared, call.config);
    if call.shards.has_ready() {
        serve_blocked::serve_and_unlock(shared, call.config, context.reclaimer, call.shards);
    } else {
        drop(call);
    }
    serve_blocked::serve_evicted(shared, config, context.reclaimer, now);
    if wants_checkpoint {
        // The reply said that the checkpoint is scheduled; the log says why one does not start.
        let _ = context.engine.checkpoint_scheduler.start_background(true, drop);
    }
    exec
}

/// Runs the commands of `queue`; returns whether one of them asked for a background checkpoint.
fn run_commands<'c>(
    call: &mut Call<'c>,
    queue: &'c CommandQueue,
    later: &'c [OnceCell<Arc<Config>>],
    worker: QueueWorker<'_>,
    exec: &mut ExecOutcome,
) -> bool {
    let QueueWorker { recorder, reclaimer, scripts, suspender, feed } = worker;
    let shared = call.shared;
    let mut wants_checkpoint = false;
    let mut later = later.iter();
    let mut begun = clock::monotonic_ns();
    let spared = OnceCell::new();
    for queued in queue.iter() {
        let start = call.reply.len();
        let mut failed = run_queued(call, &queued, |call| {
            retry_under_locks(call, reclaimer, spared.get_or_init(|| named_hashes(shared, queue)))
        });
        let effect = std::mem::take(&mut call.effect);
        // A script shows itself.
        if !matches!(effect, Effect::RunScript(_)) {
            feed.add(call.session, call.row, &call.args);
        }
        if effect.needs_interpreter() {
            let (config, runtime, feed) = (call.config, &mut *scripts, &mut *feed);
            let context =
                ScriptContext { shared, config, recorder, reclaimer, runtime, suspender, feed };
            failed = run_script(call, context, effect);
        } else if effect != Effect::None
            && let Err(text) =
                apply_effect_in_transaction(call, effect, exec, &mut wants_checkpoint)
        {
            call.reply.out.truncate(start);
            call.reply.error(text);
            failed = true;
        }
        if telemetry::ENABLED {
            let none = StallTimes::default();
            let (session, row) = (&*call.session, call.row);
            let stalls =
                record_command(recorder, session, row, &call.args, &mut begun, failed, none);
            exec.stalls = sum_stalls(exec.stalls, stalls);
        }
        if failed {
            recorder.error(&call.reply.out[start.min(call.reply.len())..]);
        }
        if feed.is_full() {
            feed.publish(shared, call.config);
        }
        if call.row.command.flags.contains(CommandFlags::ADMIN)
            && let Some(config) = later.next()
        {
            call.config = config.get_or_init(|| shared.config.current());
        }
    }
    wants_checkpoint
}

/// Runs or loads a script under the locks of the transaction; tells whether that failed.
#[cold]
fn run_script(call: &mut Call<'_>, context: ScriptContext<'_>, effect: Effect) -> bool {
    let start = call.reply.len();
    let Call { session, args, now, shards, reply, row, .. } = call;
    let ended = script::apply(context, session, (effect, row, *args), *now, Some(shards), reply);
    if let Err(text) = &ended {
        reply.out.truncate(start);
        reply.error_bytes(text);
    }
    ended.is_err()
}

/// One empty cell for each command of the queue that may change the configuration. The commands
/// behind it borrow the new configuration from the cell.
fn later_configs(shared: &Shared, queue: &CommandQueue) -> Vec<OnceCell<Arc<Config>>> {
    let rows = shared.table.rows();
    let changing =
        queue.iter().filter(|one| rows[one.row].command.flags.contains(CommandFlags::ADMIN));
    changing.map(|_| OnceCell::new()).collect()
}

/// Hashes of all keys that the queue names, in ascending order. For a command that locks all
/// shards, every argument counts as a key, since its keys may stand anywhere.
fn named_hashes(shared: &Shared, queue: &CommandQueue) -> Vec<u64> {
    let mut hashes = Vec::new();
    for queued in queue.iter() {
        let command = shared.table.rows()[queued.row].command;
        let hash = |bytes: &[u8]| shared.keyspace.hash(bytes);
        if command.locks == LockScope::All {
            hashes.extend(queued.args.iter().map(hash));
        } else {
            let keys = command.keys.positions(&queued.args);
            hashes.extend(keys.filter_map(|i| queued.args.get(i)).map(hash));
        }
    }
    hashes.sort_unstable();
    hashes
}

/// Runs one command of a queue, and `retry` if the arena had no memory for the command; returns
/// whether it failed.
fn run_queued<'c>(
    call: &mut Call<'c>,
    queued: &QueuedCommand<'c>,
    retry: impl FnOnce(&mut Call<'c>) -> CommandResult,
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
        answer = retry(call);
    }
    call.remember_reads();
    if let Err(failure) = &answer {
        call.effect = Effect::None;
        call.reply.out.truncate(start);
        call.reply.error_bytes(failure.as_bytes());
    }
    answer.is_err()
}

/// Applies an effect while locks are held, or postpones it to the end of the transaction.
///
/// # Errors
/// The error reply for an effect that a transaction cannot have.
#[cold]
fn apply_effect_in_transaction(
    call: &mut Call<'_>,
    effect: Effect,
    exec: &mut ExecOutcome,
    wants_checkpoint: &mut bool,
) -> Result<(), &'static str> {
    match effect {
        // A blocking command in a transaction times out at once.
        Effect::None | Effect::RunQueue | Effect::Block => {}
        Effect::Close => exec.outcome = BatchOutcome::Close,
        Effect::Checkpoint(CheckpointAction::Background { schedule }) => {
            if !schedule && call.shared.telemetry.persistence().checkpoint_pid().is_some() {
                return Err(BUSY);
            }
            *wants_checkpoint = true;
            call.reply.simple("Background saving scheduled");
        }
        Effect::Sleep { time, .. } => std::thread::sleep(time),
        Effect::Checkpoint(CheckpointAction::Foreground | CheckpointAction::Cancel)
        | Effect::Shutdown(_)
        | Effect::Reload(_) => return Err(NOT_IN_TRANSACTION),
        Effect::RunScript(_)
        | Effect::LoadScript
        | Effect::LoadLibrary { .. }
        | Effect::RestoreLibraries(_) => {
            unreachable!("run_script applies it")
        }
    }
    Ok(())
}

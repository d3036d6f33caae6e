//! A worker runs the requests that connections of its thread have received, a batch at a time.
//!
//! A batch goes through two passes. The first looks every request up in the command table, hashes
//! its first key and asks the processor to fetch what the second pass will touch: three dependent
//! memory accesses for each key, all batches' keys at once instead of one after the other. The
//! second pass locks, runs and replies.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clients::{
    BlockingMode, DeferredReply, KILLED, OUTPUT_PENDING, PendingReply, ReplyMode, Session,
};
use crate::clock;
use crate::commands::{
    Call, CommandFlags, CommandResult, CommandRow, Effect, ErrorReply, SaveKind, Shared,
    exec_refused,
};
use crate::config::{CachedConfig, Config};
use crate::keyspace::{EvictionScope, Reclaimer, Shards};
use crate::telemetry::{self, LatencyEvent, LongestCommand, Recorder};
use cowherd_arena::{ShardSet, StallTimes, take_stall_times};
use cowherd_resp::{Args, Batch, ReplyWriter};

use super::checkpoint_scheduler::CheckpointRequest;
use super::{Engine, admission, serve_blocked, slow_commands};

/// Requests that are looked up and fetched together.
const GROUP: usize = 16;
/// Replies are sent when they have grown to this many bytes, before the next request runs.
const FLUSH_AT: usize = 1 << 20;

/// How a batch went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchOutcome {
    /// Every request has run.
    Done,
    /// Requests from this one on have not run: send the replies first.
    Flush(usize),
    /// Requests from this one on have to wait until a wall clock time in milliseconds.
    Paused(usize, i64),
    /// Requests from this one on have to wait until the one before it has its reply: see
    /// [`Session::pending_reply`].
    Blocked(usize),
    /// Send the replies and close the connection.
    Close,
}

/// Runs requests on one thread.
pub struct Worker {
    engine: Arc<Engine>,
    pub(super) config: CachedConfig,
    pub(super) recorder: Recorder,
    pub(super) reclaimer: Reclaimer,
}

/// A request that was looked up.
#[derive(Clone, Copy)]
struct ResolvedRequest<'a> {
    args: Args<'a>,
    row: Option<&'a CommandRow>,
    /// Hash of its first key.
    hash: Option<u64>,
}

/// A command that is about to run.
struct CommandExecution<'t, 'a> {
    shared: &'t Shared,
    config: &'t Config,
    row: &'t CommandRow,
    planned: &'t ResolvedRequest<'a>,
    /// The shards that it locks, if keys still live where they did after so many `moves`.
    set: ShardSet,
    moves: u64,
    flags: CommandFlags,
    now: i64,
}

impl<'t> CommandExecution<'t, '_> {
    /// Locks what the command needs.
    #[inline]
    fn lock(&self) -> Shards<'t> {
        let Self { shared, set, moves, flags, now, .. } = *self;
        let shards = shared.keyspace.lock(with_waiting(shared, flags, set), now);
        if shared.keyspace.relocations() == moves {
            return shards;
        }
        self.lock_again(shards)
    }

    /// Keys have moved since it was found out where those of the command live.
    #[cold]
    fn lock_again(&self, shards: Shards<'t>) -> Shards<'t> {
        let Self { shared, flags, now, .. } = *self;
        if shards.locked().covers(self.named()) {
            return shards;
        }
        drop(shards);
        let widen = |set| with_waiting(shared, flags, set);
        shared.keyspace.lock_with_retry(now, || self.named(), widen)
    }

    /// The shards of the command's keys.
    fn named(&self) -> ShardSet {
        let ResolvedRequest { args, hash, .. } = self.planned;
        self.row.command.shards(&self.shared.keyspace, args, *hash)
    }

    /// Locks, runs the handler, serves those who waited for what it touched, unlocks. `None` if the
    /// server closes.
    #[inline]
    fn run(
        &self,
        reclaimer: &mut Reclaimer,
        session: &mut Session,
        reply: &mut ReplyWriter,
    ) -> Option<(CommandResult, Effect)> {
        let Self { shared, config, row, planned, now, .. } = *self;
        let shards = self.lock();
        // Looked at under the locks: whoever sets it holds them all.
        if shared.closing.load(Ordering::Relaxed) {
            return None;
        }
        let shards = if session.no_touch { shards.without_touch() } else { shards };
        let mut call = Call {
            args: planned.args,
            reply,
            session,
            shared,
            config,
            shards,
            blocking_mode: BlockingMode::Allowed,
            row,
            first_hash: planned.hash,
            now,
            effect: Effect::None,
        };
        let answer = (row.command.handler)(&mut call);
        let effect = std::mem::take(&mut call.effect);
        if call.shards.has_ready() {
            serve_blocked::serve_all(shared, config, reclaimer, call.shards);
        }
        Some((answer, effect))
    }

    /// The arena had no memory for the command, which has changed nothing: evicts, and runs it
    /// again, until there is room or nothing is left that may go.
    #[cold]
    fn try_again(
        &self,
        reclaimer: &mut Reclaimer,
        session: &mut Session,
        reply: &mut ReplyWriter,
        start: usize,
    ) -> Option<(CommandResult, Effect)> {
        let Self { shared, config, planned, now, .. } = *self;
        let args: usize = planned.args.iter().map(<[u8]>::len).sum();
        let mut attempt = 0;
        let mut scope = EvictionScope::Unlocked { space: &shared.keyspace, now };
        while reclaimer.reclaim_for(config, &mut scope, self.named(), args, &mut attempt) {
            serve_blocked::serve_evicted(shared, config, reclaimer, now);
            reply.out.truncate(start);
            let ran = self.run(reclaimer, session, reply)?;
            if ran.0 != Err(ErrorReply::OUT_OF_MEMORY) {
                return Some(ran);
            }
        }
        Some((Err(ErrorReply::OUT_OF_MEMORY), Effect::None))
    }
}

impl Worker {
    /// The worker of one thread.
    pub fn new(engine: Arc<Engine>, recorder: Recorder) -> Self {
        let config = CachedConfig::new(Arc::clone(&engine.shared.config));
        let reclaimer = Reclaimer::new(clock::monotonic_ns());
        Self { engine, config, recorder, reclaimer }
    }

    /// The engine.
    pub const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The counters of this thread.
    pub const fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The configuration as it is now.
    pub fn config(&mut self) -> &crate::config::Config {
        self.config.get()
    }

    /// Runs the requests of a batch from number `first` on.
    pub fn run(
        &mut self,
        session: &mut Session,
        batch: &Batch,
        buffer: &[u8],
        first: usize,
        reply: &mut ReplyWriter,
    ) -> BatchOutcome {
        let engine = Arc::clone(&self.engine);
        let now = clock::wall_ms();
        session.client.last_active.store(now, Ordering::Relaxed);
        let mut begun = clock::monotonic_ns();
        let mut next = first;
        while next < batch.len() {
            let count = (batch.len() - next).min(GROUP);
            let mut group = [const { None }; GROUP];
            for (i, slot) in group[..count].iter_mut().enumerate() {
                *slot = Some(plan(&engine, batch.request(next + i, buffer)));
            }
            if count > 1 {
                fetch(&engine, session, &group[..count]);
            }
            for planned in group[..count].iter().flatten() {
                let outcome = self.run_one(&engine, session, planned, now, &mut begun, reply);
                match outcome {
                    BatchOutcome::Done => next += 1,
                    BatchOutcome::Paused(_, until) => return BatchOutcome::Paused(next, until),
                    BatchOutcome::Blocked(_) => return BatchOutcome::Blocked(next + 1),
                    outcome => return outcome,
                }
                if reply.len() >= FLUSH_AT && next < batch.len() {
                    return BatchOutcome::Flush(next);
                }
            }
        }
        BatchOutcome::Done
    }

    #[inline]
    fn run_one(
        &mut self,
        engine: &Engine,
        session: &mut Session,
        planned: &ResolvedRequest<'_>,
        now: i64,
        begun: &mut u64,
        reply: &mut ReplyWriter,
    ) -> BatchOutcome {
        let shared = &*engine.shared;
        let start = reply.len();
        let Some(row) = planned.row else {
            let failure = crate::commands::ErrorReply::unknown_command(&planned.args);
            return self.refuse(session, None, &failure, reply, start);
        };
        let flags = session.flags_of(row.command);
        let config = self.config.get();
        if let Some(until) = shared.clients.paused_until(now, flags.contains(CommandFlags::WRITE))
            && !row.command.flags.contains(CommandFlags::UNPAUSED)
        {
            return BatchOutcome::Paused(0, until);
        }
        let queued = session.queued_bytes();
        let bytes = || planned.args.iter().map(<[u8]>::len).sum::<usize>() + queued;
        let has_capacity = || self.reclaimer.has_capacity(&shared.keyspace, config, bytes, now);
        let admitted =
            admission::admit(shared, config, session, row, flags, &planned.args, has_capacity);
        if self.reclaimer.has_ready() {
            serve_blocked::serve_evicted(shared, config, &mut self.reclaimer, now);
        }
        if let Err(failure) = admitted {
            return self.refuse(session, Some(row), &failure, reply, start);
        }
        take_skip(session);
        session.client.last_command.store(row.number as u64 + 1, Ordering::Relaxed);
        let moves = shared.keyspace.relocations();
        let set = row.command.shards(&shared.keyspace, &planned.args, planned.hash);
        if session.queue.is_some() && !row.command.flags.contains(CommandFlags::UNQUEUED) {
            session.enqueue(row, planned.args, planned.hash, set, moves);
            *begun = clock::monotonic_ns();
            reply.simple("QUEUED");
            suppress_reply(session, reply, start);
            return BatchOutcome::Done;
        }
        let turn = CommandExecution { shared, config, row, planned, set, moves, flags, now };
        let Some((mut answer, mut effect)) = turn.run(&mut self.reclaimer, session, reply) else {
            return BatchOutcome::Close;
        };
        if answer == Err(ErrorReply::OUT_OF_MEMORY) {
            let again = turn.try_again(&mut self.reclaimer, session, reply, start);
            let Some(again) = again else { return BatchOutcome::Close };
            (answer, effect) = again;
        }
        let mut failed = answer.is_err();
        if let Err(failure) = &answer {
            reply.out.truncate(start);
            reply.error(failure.as_str());
        }
        let mut outcome = BatchOutcome::Done;
        let mut charged = StallTimes::default();
        if effect == Effect::RunQueue {
            let ran = self.run_queue(engine, session, row, now, reply);
            (outcome, charged) = (ran.outcome, ran.stalls);
        } else if effect != Effect::None {
            let answered = engine.carry_out(effect, session, reply);
            outcome = answered.0;
            failed |= answered.1;
        }
        if let Some(took) = self.reclaimer.take_time() {
            self.recorder.latency_event(LatencyEvent::EvictionCycle, now, took.cycle);
            self.recorder.latency_event(LatencyEvent::EvictionDel, now, took.longest);
        }
        if telemetry::ENABLED {
            time(&self.recorder, session, row, &planned.args, begun, failed, charged);
        }
        if failed {
            self.recorder.error(&reply.out[start.min(reply.len())..]);
        }
        suppress_reply(session, reply, start);
        match session.client.signals() {
            0 => outcome,
            signals => apply_signals(session, signals, reply).unwrap_or(outcome),
        }
    }

    /// Ends what others keep of a connection that has ended.
    pub fn close_session(&self, session: &mut Session) {
        let shared = &*self.engine.shared;
        session.discard(&shared.keyspace);
        shared.pubsub.leave(session);
        if let Some(PendingReply::Blocked(waiter)) = session.pending_reply.take() {
            waiter.forget(&shared.blocked_clients, &shared.keyspace);
        }
    }

    /// Ends a wait whose time is over, unless it has ended already.
    pub fn time_out(&mut self, wait: &PendingReply) {
        let limits = self.config.get().client_output_buffer_limit;
        let shared = &*self.engine.shared;
        if let PendingReply::Blocked(waiter) = wait {
            waiter.time_out(&shared.blocked_clients, &shared.keyspace, &limits);
        }
    }

    /// Writes the reply of the last command, for which the session had to wait.
    pub fn write_deferred_reply(
        &self,
        session: &mut Session,
        promise: &DeferredReply,
        reply: &mut ReplyWriter,
    ) {
        let start = reply.len();
        match promise.outcome() {
            Some(Ok(text)) => reply.simple(text),
            Some(Err(text)) => {
                reply.error(text);
                self.recorder.error(text.as_bytes());
                // 0 is none, and nothing waits that was no command.
                let command = session.client.last_command.load(Ordering::Relaxed);
                if let Some(number) = usize::try_from(command).ok().and_then(|n| n.checked_sub(1)) {
                    self.recorder.failed_late(number);
                }
            }
            None => {}
        }
        suppress_reply(session, reply, start);
    }

    #[cold]
    fn refuse(
        &mut self,
        session: &mut Session,
        row: Option<&CommandRow>,
        failure: &ErrorReply,
        reply: &mut ReplyWriter,
        start: usize,
    ) -> BatchOutcome {
        let failure = match row {
            Some(row) if row.command.flags.contains(CommandFlags::RUNS_QUEUE) => {
                session.discard(&self.engine.shared.keyspace);
                &exec_refused(failure)
            }
            _ => failure,
        };
        if let Some(queue) = &mut session.queue {
            queue.abort();
        }
        reply.error(failure.as_str());
        self.recorder.error(failure.as_str().as_bytes());
        if let Some(row) = row {
            self.recorder.rejected(row.number);
        }
        take_skip(session);
        suppress_reply(session, reply, start);
        BatchOutcome::Done
    }
}

/// Counts a command that ran from `begun` to now, which is when the next begins. `charged` was
/// copied on write meanwhile and is known already.
#[inline]
pub(super) fn time(
    recorder: &Recorder,
    session: &Session,
    row: &CommandRow,
    args: &Args<'_>,
    begun: &mut u64,
    failed: bool,
    charged: StallTimes,
) -> StallTimes {
    let ended = clock::monotonic_ns();
    let begun_ns = std::mem::replace(begun, ended);
    let nanos = ended.saturating_sub(begun_ns);
    let phase = recorder.command(row.number, nanos, failed);
    let mut stalls = charged;
    if phase.is_checkpoint() {
        stalls = sum(stalls, take_stall_times());
        // Whoever asks for the save waits for it, and knows.
        if !row.command.flags.contains(CommandFlags::ADMIN) {
            let stall_nanos = stalls.nanoseconds;
            let worst = LongestCommand { nanos, begun_ns, stall_nanos, command: row.number };
            recorder.command_in_checkpoint(phase, worst);
        }
    }
    if nanos > recorder.telemetry().slow_limit() {
        slow_commands::report(recorder, session, row, args, nanos, stalls);
    }
    stalls
}

/// Both together.
pub(super) fn sum(a: StallTimes, b: StallTimes) -> StallTimes {
    StallTimes {
        faults: a.faults + b.faults,
        nanoseconds: a.nanoseconds + b.nanoseconds,
        longest: a.longest.max(b.longest),
        captured: a.captured || b.captured,
    }
}

/// Takes back the reply of a client that wants none: it had switched replies off, or had asked to
/// skip this one.
#[inline]
fn suppress_reply(session: &mut Session, reply: &mut ReplyWriter, start: usize) {
    let silent = session.skip_reply || session.reply_mode == ReplyMode::Off;
    if silent && !std::mem::take(&mut session.bypass_reply_off) {
        reply.out.truncate(start);
    }
}

/// Does what others ask of a connection between two of its commands.
#[cold]
fn apply_signals(session: &Session, signals: u8, reply: &mut ReplyWriter) -> Option<BatchOutcome> {
    if signals & OUTPUT_PENDING != 0 {
        session.client.drain_output(&mut reply.out);
    }
    (signals & KILLED != 0).then_some(BatchOutcome::Close)
}

/// Notes whether the reply of the command that runs now is to be skipped; it is the only one.
#[inline]
fn take_skip(session: &mut Session) {
    session.skip_reply = session.reply_mode == ReplyMode::SkipNext;
    if session.skip_reply {
        session.reply_mode = ReplyMode::On;
    }
}

#[inline]
fn plan<'a>(engine: &'a Engine, args: Args<'a>) -> ResolvedRequest<'a> {
    let row = engine.shared.table.resolve(&args);
    let hash = row
        .map(|row| row.command.keys.first)
        .filter(|first| *first > 0)
        .and_then(|first| args.get(first))
        .map(|bytes| engine.shared.keyspace.hash(bytes));
    ResolvedRequest { args, row, hash }
}

/// Fetches what a group of requests will touch.
fn fetch(engine: &Engine, session: &Session, group: &[Option<ResolvedRequest<'_>>]) {
    let space = &engine.shared.keyspace;
    let hash = |planned: &Option<ResolvedRequest<'_>>| planned.and_then(|planned| planned.hash);
    let mut places = [None; GROUP];
    for (place, planned) in places.iter_mut().zip(group) {
        *place = hash(planned).and_then(|hash| space.hint_segment(session.db, hash));
    }
    for (place, planned) in places.iter_mut().zip(group) {
        *place = hash(planned).zip(*place).and_then(|(hash, at)| space.hint_bucket(at, hash));
    }
    for (place, planned) in places.iter_mut().zip(group) {
        *place = hash(planned).zip(*place).and_then(|(hash, at)| space.hint_entry(at, hash));
    }
}

/// The shards to lock for a command: its own, and those in which it may serve clients that wait.
#[inline]
pub(super) fn with_waiting(
    shared: &crate::commands::Shared,
    flags: CommandFlags,
    set: ShardSet,
) -> ShardSet {
    if flags.contains(CommandFlags::WRITE) && shared.blocked_clients.count() > 0 {
        shared.blocked_clients.reach(set)
    } else {
        set
    }
}

impl Engine {
    /// Carries out what a handler passed up; tells what follows and whether it failed.
    #[cold]
    fn carry_out(
        &self,
        effect: Effect,
        session: &mut Session,
        reply: &mut ReplyWriter,
    ) -> (BatchOutcome, bool) {
        let answer = match effect {
            // A queue is run by a worker.
            Effect::None | Effect::RunQueue => return (BatchOutcome::Done, false),
            Effect::Close => return (BatchOutcome::Close, false),
            Effect::Block => return (BatchOutcome::Blocked(0), false),
            Effect::Save(SaveKind::Background { schedule }) => {
                let promise = DeferredReply::new(&session.client);
                let answer = Arc::clone(&promise);
                match self.saver.start_background(schedule, move |came| answer.complete(came)) {
                    Ok(CheckpointRequest::Scheduled) => {
                        Ok("Background saving scheduled".to_owned())
                    }
                    // This thread serves others until the fork is done.
                    Ok(CheckpointRequest::Asked) => {
                        session.pending_reply = Some(PendingReply::Deferred(promise));
                        return (BatchOutcome::Blocked(0), false);
                    }
                    Err(error) => Err(error),
                }
            }
            Effect::Save(SaveKind::Foreground) => {
                self.saver.run_foreground(&self.shared).map(|()| "OK".to_owned())
            }
            Effect::Save(SaveKind::Cancel) => self.saver.cancel(&self.shared),
            Effect::Shutdown(how) => match self.shut_down(how) {
                Ok(()) => return (BatchOutcome::Close, false),
                Err(_) => Err("ERR Errors trying to SHUTDOWN. Check logs.".to_owned()),
            },
            Effect::Sleep { time, all } => {
                let set = if all { ShardSet::ALL } else { ShardSet::NONE };
                let _held = self.shared.keyspace.lock(set, 0);
                std::thread::sleep(time);
                return (BatchOutcome::Done, false);
            }
            Effect::Reload => self.saver.reload(&self.shared).map(|()| "OK".to_owned()),
        };
        match &answer {
            Ok(text) => reply.simple(text),
            Err(text) => reply.error(text),
        }
        (BatchOutcome::Done, answer.is_err())
    }
}

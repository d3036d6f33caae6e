//! The worker: runs the requests of one thread's connections, a batch at a time.
//!
//! A batch is processed in groups of [`PREFETCH_GROUP`], each in two passes. The first pass
//! resolves every request in the command table, hashes its first key and prefetches the key's
//! dictionary segment, bucket and entry: three dependent cache misses, which overlap between the
//! keys of a group. The second pass locks, runs and replies, one request after the other.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clients::{
    BlockingMode, DeferredReply, KILLED, OUTPUT_PENDING, PendingReply, ReplyMode, Session,
};
use crate::clock;
use crate::commands::{
    Call, Command, CommandFlags, CommandResult, CommandRow, Effect, ErrorReply, Shared,
    exec_refused,
};
use crate::config::{CachedConfig, Config};
use crate::keyspace::{EvictionScope, PREFETCH_GROUP, Reclaimer, Shards};
use crate::scripting::ScriptRuntime;
use crate::telemetry::{self, LatencyEvent, Recorder};
use cowherd_arena::{ShardSet, StallTimes};
use cowherd_resp::{Args, Batch, ReplyWriter};

use super::effects::BatchOutcome;
use super::loading::Phase;
use super::monitor::{self, MonitorFeed};
use super::script::{self, ScriptContext};
use super::timing::record_command;
use super::transaction::{self, ExecContext, ExecOutcome};
use super::{Engine, LoadingPhase, Suspender, admission, serve_blocked};

/// Size of the reply buffer at which the replies are sent before the next request runs.
const FLUSH_AT: usize = 1 << 20;

/// Runs the requests of one thread.
pub(crate) struct Worker {
    /// While `loading` is set, the engine that has no keys.
    engine: Arc<Engine>,
    /// Set until the worker has seen that the keyspace is published.
    loading: Option<Arc<LoadingPhase>>,
    config: CachedConfig,
    /// Shared with the stand-in of the same thread.
    recorder: Rc<Recorder>,
    reclaimer: Reclaimer,
    /// The interpreter of scripts, once one was run.
    scripts: Option<ScriptRuntime>,
    /// Whether it serves the thread's clients while a suspended script keeps another worker.
    is_stand_in: bool,
    /// Whether there were monitors at the begin of the batch.
    is_monitored: bool,
}

/// A request with its row of the command table.
#[derive(Clone, Copy)]
struct ResolvedRequest<'a> {
    args: Args<'a>,
    row: Option<&'a CommandRow>,
    /// Hash of the first key.
    hash: Option<u64>,
}

/// The execution of one command outside of a transaction.
struct CommandExecution<'t, 'a> {
    shared: &'t Shared,
    config: &'t Config,
    row: &'t CommandRow,
    request: &'t ResolvedRequest<'a>,
    /// The shards of the command's keys, valid while `Keyspace::relocations` equals `relocations`.
    set: ShardSet,
    relocations: u64,
    flags: CommandFlags,
    now: i64,
    is_monitored: bool,
}

impl<'t> CommandExecution<'t, '_> {
    /// `None` if a script holds the shards for too long.
    #[inline]
    fn lock(&self) -> Option<Shards<'t>> {
        let Self { shared, set, relocations, flags, now, .. } = *self;
        let set = serve_blocked::shards_to_lock(shared, flags, set);
        let is_busy = || shared.scripting.running.is_any_busy();
        let shards = shared.keyspace.lock_unless(set, now, is_busy)?;
        if shared.keyspace.relocations() == relocations {
            return Some(shards);
        }
        self.lock_relocated(shards)
    }

    /// Locks again if `shards` no longer cover the command's keys, because a key was relocated to
    /// another shard between the lookup of its shard and the lock.
    #[cold]
    fn lock_relocated(&self, shards: Shards<'t>) -> Option<Shards<'t>> {
        let Self { shared, flags, now, .. } = *self;
        if shards.locked().covers(self.named()) {
            return Some(shards);
        }
        drop(shards);
        let widen = |set| serve_blocked::shards_to_lock(shared, flags, set);
        let is_busy = || shared.scripting.running.is_any_busy();
        shared.keyspace.lock_with_retry(now, || self.named(), widen, is_busy)
    }

    /// The shards in which the command's keys are now.
    fn named(&self) -> ShardSet {
        let ResolvedRequest { args, hash, .. } = self.request;
        self.row.command.shards(&self.shared.keyspace, args, *hash)
    }

    /// Locks, runs the handler, serves clients blocked on the keys that it wrote, unlocks. `None`
    /// if the server is shutting down.
    #[inline]
    fn run(
        &self,
        reclaimer: &mut Reclaimer,
        session: &mut Session,
        reply: &mut ReplyWriter,
    ) -> Option<(CommandResult, Effect)> {
        let Self { shared, config, row, request, now, .. } = *self;
        let Some(shards) = self.lock() else {
            return Some((
                Err(ErrorReply::new(shared.scripting.running.busy_reply())),
                Effect::None,
            ));
        };
        // Read under the locks: `closing` is set with all shards locked.
        if shared.closing.load(Ordering::Relaxed) {
            return None;
        }
        let shards = shards.for_client(session.client.id);
        let shards = if session.no_touch { shards.without_touch() } else { shards };
        let mut call = Call {
            args: request.args,
            reply,
            session,
            shared,
            config,
            shards,
            blocking_mode: BlockingMode::Allowed,
            row,
            first_hash: request.hash,
            now,
            effect: Effect::None,
        };
        let answer = (row.command.handler)(&mut call);
        if self.is_monitored {
            monitor::show(&call, &answer);
        }
        let effect = std::mem::take(&mut call.effect);
        call.remember_reads();
        if call.shards.has_ready() {
            serve_blocked::serve_and_unlock(shared, config, reclaimer, call.shards);
        }
        Some((answer, effect))
    }

    /// Retries a command that failed for want of memory and has changed nothing: evicts and runs
    /// the command until it succeeds or nothing is left to evict.
    #[cold]
    fn evict_and_retry(
        &self,
        reclaimer: &mut Reclaimer,
        session: &mut Session,
        reply: &mut ReplyWriter,
        start: usize,
    ) -> Option<(CommandResult, Effect)> {
        let Self { shared, config, request, now, .. } = *self;
        let args: usize = request.args.iter().map(<[u8]>::len).sum();
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
    pub(crate) fn new(engine: Arc<Engine>, recorder: Recorder) -> Self {
        let config = CachedConfig::new(Arc::clone(&engine.shared.config));
        let reclaimer = Reclaimer::new(clock::monotonic_ns());
        Self {
            engine,
            loading: None,
            config,
            recorder: Rc::new(recorder),
            reclaimer,
            scripts: None,
            is_stand_in: false,
            is_monitored: false,
        }
    }

    /// The worker that serves the thread's other clients while a script is suspended on this one.
    /// It locks no shard for which it would have to wait, since the script's are locked by its
    /// thread.
    pub(crate) fn stand_in(&self) -> Self {
        let engine = Arc::clone(&self.engine);
        Self {
            loading: None,
            config: CachedConfig::new(Arc::clone(&engine.shared.config)),
            recorder: Rc::clone(&self.recorder),
            reclaimer: Reclaimer::new(clock::monotonic_ns()),
            scripts: None,
            is_stand_in: true,
            is_monitored: false,
            engine,
        }
    }

    /// Whether a script is suspended on this thread.
    pub(crate) const fn is_stand_in(&self) -> bool {
        self.is_stand_in
    }

    /// A worker that starts before the keyspace is published.
    pub(crate) fn with_loading(loading: &Arc<LoadingPhase>, recorder: Recorder) -> Self {
        match &*loading.phase() {
            Phase::Serving(engine) => Self::new(Arc::clone(engine), recorder),
            Phase::Loading(interim) => {
                let worker = Self::new(Arc::clone(interim), recorder);
                Self { loading: Some(Arc::clone(loading)), ..worker }
            }
        }
    }

    pub(crate) const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The telemetry counters of this thread.
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The current configuration.
    pub(crate) fn config(&mut self) -> &Config {
        self.config.get()
    }

    /// Runs the requests of `batch`, whose arguments stand in `buffer`, and appends their replies
    /// to `reply`. Without `suspender` no scripts run: [`BatchOutcome::RunsScript`].
    pub(crate) fn run(
        &mut self,
        session: &mut Session,
        batch: &Batch,
        buffer: &[u8],
        reply: &mut ReplyWriter,
        suspender: Option<&Suspender<'_>>,
    ) -> BatchOutcome {
        if self.loading.is_some()
            && let Some(outcome) = self.run_while_loading(session, batch, buffer, reply)
        {
            return outcome;
        }
        if self.is_stand_in {
            return self.run_beside_script(session, batch, buffer, reply);
        }
        let engine = Arc::clone(&self.engine);
        self.is_monitored = engine.shared.clients.monitors.is_any();
        let now = clock::wall_ms();
        session.client.last_active.store(now, Ordering::Relaxed);
        let mut begun = clock::monotonic_ns();
        let mut next = 0;
        while next < batch.len() {
            let count = (batch.len() - next).min(PREFETCH_GROUP);
            let mut group = [const { None }; PREFETCH_GROUP];
            for (i, slot) in group[..count].iter_mut().enumerate() {
                *slot = Some(resolve(&engine, batch.request(next + i, buffer)));
            }
            if count > 1 {
                let hashes = group[..count].iter().flatten().filter_map(|request| request.hash);
                engine.shared.keyspace.prefetch(session.db, hashes);
            }
            for request in group[..count].iter().flatten() {
                let context = (&*engine, suspender, now, &mut begun);
                match self.run_one(context, session, request, reply) {
                    BatchOutcome::Done => next += 1,
                    outcome => return outcome.at(next),
                }
                if reply.len() >= FLUSH_AT && next < batch.len() {
                    return BatchOutcome::Flush(next);
                }
            }
        }
        BatchOutcome::Done
    }

    /// Runs a batch while the image is being read, or returns `None` and lets the worker serve the
    /// keyspace from now on.
    #[cold]
    fn run_while_loading(
        &mut self,
        session: &mut Session,
        batch: &Batch,
        buffer: &[u8],
        reply: &mut ReplyWriter,
    ) -> Option<BatchOutcome> {
        let loading = self.loading.take()?;
        // Held until the replies are made: the keyspace is published before or after the batch.
        let phase = loading.phase();
        let engine = match &*phase {
            Phase::Serving(engine) => {
                self.engine = Arc::clone(engine);
                return None;
            }
            Phase::Loading(interim) => interim,
        };
        self.loading = Some(Arc::clone(&loading));
        let refusal = |command: &Command| {
            (!admission::runs_while_loading(command)).then_some(admission::LOADING)
        };
        Some(self.run_restricted(engine, session, (batch, buffer), reply, refusal))
    }

    /// Runs a batch while a script is suspended on this thread: the few commands that may run get
    /// their replies, the others BUSY.
    #[cold]
    fn run_beside_script(
        &mut self,
        session: &mut Session,
        batch: &Batch,
        buffer: &[u8],
        reply: &mut ReplyWriter,
    ) -> BatchOutcome {
        let engine = Arc::clone(&self.engine);
        let running = &engine.shared.scripting.running;
        let refusal = |command: &Command| {
            let runs = command.flags.contains(CommandFlags::ALLOW_BUSY);
            (!runs).then(|| ErrorReply::new(running.busy_reply()))
        };
        self.run_restricted(&engine, session, (batch, buffer), reply, refusal)
    }

    /// Runs a batch of which `refusal` refuses some commands.
    fn run_restricted(
        &mut self,
        engine: &Engine,
        session: &mut Session,
        (batch, buffer): (&Batch, &[u8]),
        reply: &mut ReplyWriter,
        refusal: impl Fn(&Command) -> Option<ErrorReply>,
    ) -> BatchOutcome {
        self.is_monitored = engine.shared.clients.monitors.is_any();
        let now = clock::wall_ms();
        session.client.last_active.store(now, Ordering::Relaxed);
        let mut begun = clock::monotonic_ns();
        for next in 0..batch.len() {
            let request = resolve(engine, batch.request(next, buffer));
            let refused =
                request.row.and_then(|row| refusal(row.command).map(|refusal| (row, refusal)));
            let outcome = match refused {
                Some((row, refusal)) => {
                    let refusal = self.first_refusal(session, row, &request.args, refusal);
                    let start = reply.len();
                    self.reject(session, (Some(row), &request.args), &refusal, reply, start)
                }
                None => {
                    let context = (engine, None, now, &mut begun);
                    self.run_one(context, session, &request, reply)
                }
            };
            if outcome != BatchOutcome::Done {
                return outcome.at(next);
            }
            if reply.len() >= FLUSH_AT && next + 1 < batch.len() {
                return BatchOutcome::Flush(next + 1);
            }
        }
        BatchOutcome::Done
    }

    /// The error reply to a request that is refused now: another error comes first, as it would at
    /// any other time.
    fn first_refusal(
        &mut self,
        session: &Session,
        row: &CommandRow,
        args: &Args<'_>,
        refusal: ErrorReply,
    ) -> ErrorReply {
        let flags = session.flags_of(row.command);
        let (config, shared) = (self.config.get(), &self.engine.shared);
        let admitted = admission::admit(shared, config, session, row, flags, args, || true);
        admitted.err().unwrap_or(refusal)
    }

    #[inline]
    fn run_one(
        &mut self,
        (engine, suspender, now, begun): (&Engine, Option<&Suspender<'_>>, i64, &mut u64),
        session: &mut Session,
        request: &ResolvedRequest<'_>,
        reply: &mut ReplyWriter,
    ) -> BatchOutcome {
        let shared = &*engine.shared;
        let start = reply.len();
        let Some(row) = request.row else {
            let failure = ErrorReply::unknown_command(&request.args);
            return self.reject(session, (None, &request.args), &failure, reply, start);
        };
        let flags = session.flags_of(row.command);
        let config = self.config.get();
        if let Some(until) = shared.clients.paused_until(now, flags.contains(CommandFlags::WRITE))
            && !row.command.flags.contains(CommandFlags::UNPAUSED)
        {
            session.client.last_command.store(row.number as u64 + 1, Ordering::Relaxed);
            return BatchOutcome::Paused(0, until);
        }
        let queued = session.queued_bytes();
        let bytes = || request.args.iter().map(<[u8]>::len).sum::<usize>() + queued;
        // The stand-in runs no command that needs memory, and eviction takes locks.
        let has_capacity = || {
            self.is_stand_in || self.reclaimer.has_capacity(&shared.keyspace, config, bytes, now)
        };
        let admitted =
            admission::admit(shared, config, session, row, flags, &request.args, has_capacity);
        if self.reclaimer.has_ready() {
            serve_blocked::serve_evicted(shared, config, &mut self.reclaimer, now);
        }
        if let Err(failure) = admitted {
            return self.reject(session, (Some(row), &request.args), &failure, reply, start);
        }
        if flags.contains(CommandFlags::RUNS_SCRIPT) && suspender.is_none() {
            return BatchOutcome::RunsScript(0);
        }
        consume_skip_next(session);
        session.client.last_command.store(row.number as u64 + 1, Ordering::Relaxed);
        let relocations = shared.keyspace.relocations();
        let set = row.command.shards(&shared.keyspace, &request.args, request.hash);
        if session.queue.is_some() && !row.command.flags.contains(CommandFlags::UNQUEUED) {
            session.enqueue(row, request.args, request.hash, set, relocations);
            *begun = clock::monotonic_ns();
            reply.simple("QUEUED");
            suppress_reply(session, reply, start);
            return BatchOutcome::Done;
        }
        // A client that has just become a monitor is shown its own requests.
        let is_monitored = self.is_monitored | session.is_monitor;
        let execution = CommandExecution {
            shared,
            config,
            row,
            request,
            set,
            relocations,
            flags,
            now,
            is_monitored,
        };
        let Some((mut answer, mut effect)) = execution.run(&mut self.reclaimer, session, reply)
        else {
            return BatchOutcome::Close;
        };
        if answer == Err(ErrorReply::OUT_OF_MEMORY) {
            let retried = execution.evict_and_retry(&mut self.reclaimer, session, reply, start);
            let Some(retried) = retried else { return BatchOutcome::Close };
            (answer, effect) = retried;
        }
        let mut failed = answer.is_err();
        if let Err(failure) = &answer {
            reply.out.truncate(start);
            reply.error_bytes(failure.as_bytes());
        }
        let mut outcome = BatchOutcome::Done;
        let mut attributed = StallTimes::default();
        if effect == Effect::RunQueue {
            let exec = self.exec((engine, suspender), session, (row, request.args), now, reply);
            (outcome, attributed) = (exec.outcome, exec.stalls);
        } else if effect.needs_interpreter() {
            let request = (effect, row, request.args);
            failed = self.run_script((engine, suspender), session, request, now, reply);
        } else if effect.waits_for_locks() && shared.scripting.running.is_any_busy() {
            if matches!(effect, Effect::Shutdown(options) if options.save == Some(false)) {
                // The scripts end first, one of them perhaps on this thread.
                shared.scripting.running.end_all(true);
                return BatchOutcome::AwaitsScript(0);
            }
            reply.error(shared.scripting.running.busy_reply());
            failed = true;
        } else if effect != Effect::None {
            let effect_failed;
            (outcome, effect_failed) = engine.apply_effect(effect, session, reply);
            failed |= effect_failed;
        }
        if let Some(took) = self.reclaimer.take_time() {
            self.recorder.latency_event(LatencyEvent::EvictionCycle, now, took.cycle);
            self.recorder.latency_event(LatencyEvent::EvictionDel, now, took.longest);
        }
        if telemetry::ENABLED {
            let args = &request.args;
            record_command(&self.recorder, session, row, args, begun, failed, attributed);
        }
        if failed {
            self.recorder.error(&reply.out[start.min(reply.len())..]);
        }
        suppress_reply(session, reply, start);
        session.end_caching(|| is_client_command(row));
        match session.client.signals() {
            0 => outcome,
            signals => apply_signals(session, signals, reply).unwrap_or(outcome),
        }
    }

    /// Runs or loads a script or a library; tells whether that failed.
    fn run_script(
        &mut self,
        (engine, suspender): (&Engine, Option<&Suspender<'_>>),
        session: &Session,
        request: (Effect, &CommandRow, Args<'_>),
        now: i64,
        reply: &mut ReplyWriter,
    ) -> bool {
        let mut feed = MonitorFeed::new(self.is_monitored);
        let context = ScriptContext {
            shared: &engine.shared,
            config: self.config.get(),
            recorder: &self.recorder,
            reclaimer: &mut self.reclaimer,
            runtime: &mut self.scripts,
            suspender: suspender.unwrap_or(&Suspender::NEVER),
            feed: &mut feed,
        };
        let start = reply.out.len();
        let ended = script::apply(context, session, request, now, None, reply);
        if let Err(text) = &ended {
            reply.out.truncate(start);
            reply.error_bytes(text);
        }
        ended.is_err()
    }

    #[cold]
    fn exec(
        &mut self,
        (engine, suspender): (&Engine, Option<&Suspender<'_>>),
        session: &mut Session,
        exec: (&CommandRow, Args<'_>),
        now: i64,
        reply: &mut ReplyWriter,
    ) -> ExecOutcome {
        let mut context = ExecContext {
            engine,
            config: &mut self.config,
            recorder: &self.recorder,
            reclaimer: &mut self.reclaimer,
            scripts: &mut self.scripts,
            suspender: suspender.unwrap_or(&Suspender::NEVER),
            feed: MonitorFeed::new(self.is_monitored | session.is_monitor),
        };
        transaction::exec(&mut context, session, exec, now, reply)
    }

    /// Removes a closed connection's session from the registries: its transaction, subscriptions,
    /// monitoring and wait for keys.
    pub(crate) fn close_session(&self, session: &mut Session) {
        let shared = &*self.engine.shared;
        session.discard(&shared.keyspace);
        shared.pubsub.unsubscribe_all(session);
        shared.tracking.disable(session, &shared.keyspace);
        shared.clients.monitors.end(session);
        if let Some(PendingReply::Blocked { sequence, .. }) = session.pending_reply.take() {
            shared.blocked_clients.cancel(sequence, &shared.keyspace);
        }
    }

    /// Ends a wait at its timeout, unless the client has been served meanwhile.
    pub(crate) fn time_out(&mut self, wait: &PendingReply) {
        let limits = self.config.get().client_output_buffer_limit;
        let shared = &*self.engine.shared;
        if let PendingReply::Blocked { sequence, .. } = wait {
            shared.blocked_clients.time_out(*sequence, &shared.keyspace, &limits);
        }
    }

    /// Writes the deferred reply of the session's last command.
    pub(crate) fn write_deferred_reply(
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
                // `last_command` is a row number plus one; zero means that no command has run.
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
    fn reject(
        &mut self,
        session: &mut Session,
        (row, args): (Option<&CommandRow>, &Args<'_>),
        failure: &ErrorReply,
        reply: &mut ReplyWriter,
        start: usize,
    ) -> BatchOutcome {
        let failure = match row {
            Some(row) if row.command.flags.contains(CommandFlags::RUNS_QUEUE) => {
                if self.is_monitored {
                    let (shared, config) = (&self.engine.shared, self.config.get());
                    monitor::show_request(shared, config, session, row, args);
                }
                session.discard(&self.engine.shared.keyspace);
                &exec_refused(failure)
            }
            _ => failure,
        };
        if let Some(queue) = &mut session.queue {
            queue.abort();
        }
        reply.error_bytes(failure.as_bytes());
        self.recorder.error(failure.as_bytes());
        if let Some(row) = row {
            self.recorder.rejected(row.number);
        }
        consume_skip_next(session);
        suppress_reply(session, reply, start);
        session.end_caching(|| row.is_some_and(is_client_command));
        BatchOutcome::Done
    }
}

/// Whether a command is CLIENT with a subcommand.
fn is_client_command(row: &CommandRow) -> bool {
    row.name.starts_with("client|")
}

/// Removes the reply behind `start` if CLIENT REPLY OFF or SKIP applies to the command.
#[inline]
fn suppress_reply(session: &mut Session, reply: &mut ReplyWriter, start: usize) {
    let silent = session.skip_reply || session.reply_mode == ReplyMode::Off;
    if silent && !std::mem::take(&mut session.bypass_reply_off) {
        reply.out.truncate(start);
    }
}

/// Applies the signals that other threads have set on the client: pending output is appended to
/// `reply`, and a killed client closes.
#[cold]
fn apply_signals(session: &Session, signals: u8, reply: &mut ReplyWriter) -> Option<BatchOutcome> {
    if signals & OUTPUT_PENDING != 0 {
        session.client.drain_output(&mut reply.out);
    }
    (signals & KILLED != 0).then_some(BatchOutcome::Close)
}

/// Makes CLIENT REPLY SKIP apply to the command that runs now and to no later one.
#[inline]
fn consume_skip_next(session: &mut Session) {
    session.skip_reply = session.reply_mode == ReplyMode::SkipNext;
    if session.skip_reply {
        session.reply_mode = ReplyMode::On;
    }
}

#[inline]
fn resolve<'a>(engine: &'a Engine, args: Args<'a>) -> ResolvedRequest<'a> {
    let row = engine.shared.table.resolve(&args);
    let hash = row
        .map(|row| row.command.keys.first)
        .filter(|first| *first > 0)
        .and_then(|first| args.get(first))
        .map(|bytes| engine.shared.keyspace.hash(bytes));
    ResolvedRequest { args, row, hash }
}

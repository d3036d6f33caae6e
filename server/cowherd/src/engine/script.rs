//! Runs scripts and functions: their locks, the commands that they call, and their errors.
//!
//! ```text
//! EVAL k1 k2 --> lock the shards of k1 and k2 --> interpreter --> redis.call --> handler
//!                                                                    |
//!                  the command needs another shard: try to lock it --'
//!                  it is locked, nothing is done yet: unlock all, run again under all locks
//!                  it is locked, something is done: wait for it
//! ```
//!
//! A script holds its locks until it ends, so that no client and no checkpoint sees a part of it.
//!
//! Invariants:
//! 1. Only the owner of the arena's out-of-order permit writes while it holds some shards only, so
//!    that only one script at a time may have to wait for a further shard
//!    (see [`OutOfOrderPermit`]). A script that wants to write and does not get the permit runs
//!    again under all locks.
//! 2. A script that runs again has changed nothing and sent nothing, not even to monitors, except
//!    that it may have removed keys that had expired. Its reply is dropped.
//! 3. A script that has touched a shard which its keys do not name runs under all locks from then
//!    on ([`Runnable::has_undeclared_keys`]).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use cowherd_arena::{OutOfOrderPermit, StallTimes};
use cowherd_lua::fiber::Resumption;
use cowherd_lua::interpreter::{
    CodeKind, Host, Input, Interpreter, LogLevel, ScriptError, Versions,
};
use cowherd_resp::{Args, ReplyWriter};

use crate::clients::{BlockingMode, Session};
use crate::clock;
use crate::commands::{
    Call, CommandFlags, CommandGroup, CommandRow, Effect, ErrorReply, LockScope, REDIS_VERSION,
    ScriptCall, Shared,
};
use crate::config::Config;
use crate::keyspace::{Reclaimer, ShardSet, Shards};
use crate::scripting::{
    Library, Runnable, RunningScript, ScriptRuntime, Scripting, write_script_log,
};
use crate::telemetry::{self, Recorder};

use super::libraries;
use super::monitor::MonitorFeed;
use super::retry::retry_under_locks;
use super::serve_blocked;
use super::timing::record_command;
use super::{Suspender, admission};

/// What scripts see as the version of the server.
pub(super) const VERSIONS: Versions = Versions { text: REDIS_VERSION, number: 0x0007_0400 };

const NO_SCRIPT: &[u8] = b"NOSCRIPT No matching script. Please use EVAL.";
const NO_FUNCTION: &[u8] = b"ERR Function not found";
const UNKNOWN_COMMAND: &str = "ERR Unknown Redis command called from script";
const WRONG_ARITY: &str = "ERR Wrong number of args calling Redis command from script";
const NOT_ALLOWED: &str = "ERR This Redis command is not allowed from script";
const READ_ONLY: &str = "ERR Write commands are not allowed from read-only scripts.";
const RUNS_AGAIN: &str = "ERR The script runs again under all locks";
const KILLED_SCRIPT: &str = "ERR Script killed by user with SCRIPT KILL...";
const KILLED_FUNCTION: &str = "ERR Script killed by user with FUNCTION KILL...";
const READ_ONLY_CALL: &[u8] = b"ERR Can not execute a script with write flag using *_ro command.";

/// What scripts use of their worker.
pub(super) struct ScriptContext<'w> {
    pub shared: &'w Shared,
    pub config: &'w Config,
    pub recorder: &'w Recorder,
    pub reclaimer: &'w mut Reclaimer,
    pub runtime: &'w mut Option<ScriptRuntime>,
    pub suspender: &'w Suspender<'w>,
    pub feed: &'w mut MonitorFeed,
}

/// Runs the script of a request, and writes its reply. `held`: the shards that a transaction holds,
/// which are all.
///
/// # Errors
/// The error reply.
fn run(
    context: ScriptContext<'_>,
    session: &Session,
    request: (ScriptCall, Args<'_>),
    now: i64,
    held: Option<&mut Shards<'_>>,
    reply: &mut ReplyWriter,
) -> Result<(), Vec<u8>> {
    let ScriptContext { shared, config, recorder, reclaimer, runtime, suspender, feed } = context;
    let runtime = runtime_of(runtime, config, &shared.scripting)?;
    let ((call, args), code) = (request, request.1.at(1));
    let scripting = &shared.scripting;
    let runnable = match call {
        ScriptCall::Eval { .. } => runtime.script_of(&scripting.cache, code)?,
        ScriptCall::EvalSha { .. } => {
            runtime.script_by_sha(&scripting.cache, code)?.ok_or(NO_SCRIPT)?
        }
        ScriptCall::Function { .. } => {
            runtime.function(&scripting.functions, code)?.ok_or(NO_FUNCTION)?
        }
    };
    if call.is_read_only() && runnable.flags.is_some_and(|flags| !flags.no_writes) {
        return Err(READ_ONLY_CALL.to_vec());
    }
    let flags = runnable.flags.unwrap_or_default();
    let is_read_only = call.is_read_only() || flags.no_writes;
    let bytes = || args.iter().map(<[u8]>::len).sum();
    let has_memory = is_read_only
        || match &held {
            Some(_) => !shared.keyspace.memory_limit().is_exceeded(shared.keyspace.arena()),
            None => reclaimer.has_capacity(&shared.keyspace, config, bytes, now),
        };
    if held.is_none() && reclaimer.has_ready() {
        serve_blocked::serve_evicted(shared, config, reclaimer, now);
    }
    if !has_memory && runnable.flags.is_some() && !flags.allow_oom {
        return Err(ErrorReply::OUT_OF_MEMORY.as_bytes().to_vec());
    }
    let keys = args.slice(3, call.key_count());
    let argv = args.from(3 + call.key_count());
    let mut run = ScriptRun {
        shared,
        config,
        recorder,
        reclaimer,
        suspender,
        feed,
        session: Session::for_script(session),
        runnable: &runnable,
        request: args,
        keys,
        begun: clock::monotonic_ns(),
        busy: None,
        now,
        is_read_only,
        may_grow: has_memory || flags.allow_oom,
        has_failed: false,
    };
    let input = Input { kind: runnable.kind, keys, argv };
    let ended = run.run(runtime.interpreter(), input, held, reply);
    runtime.publish_memory();
    if let Some(busy) = &run.busy {
        shared.scripting.running.remove(busy);
        shared.keyspace.end_long_hold();
    }
    let has_failed = run.has_failed || ended.is_err();
    let Err(error) = ended else {
        count_failure(shared, recorder, &args, has_failed);
        return Ok(());
    };
    let (is_counted, text) = (error.is_counted, error_text(error, &runnable.name));
    if !is_counted {
        return Err(text);
    }
    count_failure(shared, recorder, &args, has_failed);
    reply.error_bytes(&text);
    Ok(())
}

/// Counts a failed call of a script whose errors are counted already.
fn count_failure(shared: &Shared, recorder: &Recorder, args: &Args<'_>, has_failed: bool) {
    if has_failed && let Some(row) = shared.table.resolve(args) {
        recorder.failed_late(row.number);
    }
}

/// Applies an effect that needs an interpreter.
///
/// # Errors
/// The error reply.
#[cold]
#[inline(never)]
pub(super) fn apply(
    context: ScriptContext<'_>,
    session: &Session,
    (effect, row, args): (Effect, &CommandRow, Args<'_>),
    now: i64,
    held: Option<&mut Shards<'_>>,
    reply: &mut ReplyWriter,
) -> Result<(), Vec<u8>> {
    match effect {
        Effect::RunScript(call) => {
            let ScriptContext { shared, config, feed, .. } = context;
            feed.add(session, row, &args);
            let is_own = held.is_none();
            let context = ScriptContext { feed: &mut *feed, ..context };
            let ended = run(context, session, (call, args), now, held, reply);
            // Left only by a script that has not run.
            if is_own {
                feed.publish(shared, config);
            }
            ended
        }
        Effect::LoadScript => {
            let runtime = runtime_of(context.runtime, context.config, &context.shared.scripting)?;
            let sha = runtime.load(&context.shared.scripting.cache, args.at(2));
            runtime.publish_memory();
            reply.bulk(&sha?);
            Ok(())
        }
        Effect::LoadLibrary { replaces } => {
            load_library(context, args.at(args.len() - 1), replaces, now, held, reply)
        }
        Effect::RestoreLibraries(policy) => {
            let runtime = runtime_of(context.runtime, context.config, &context.shared.scripting)?;
            libraries::restore(context.shared, runtime, args.at(2), policy, (now, held))?;
            reply.ok();
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Registers the libraries that are in the keyspace. One that cannot be loaded any more is logged;
/// it stays in the keyspace.
pub(crate) fn load_libraries(shared: &Shared) {
    let libraries = shared.keyspace.libraries();
    if libraries.is_empty() {
        return;
    }
    let (mut runtime, config) = (None, shared.config.current());
    let runtime = match runtime_of(&mut runtime, &config, &shared.scripting) {
        Ok(runtime) => runtime,
        Err(text) => {
            return tracing::error!("No functions: {}", String::from_utf8_lossy(&text));
        }
    };
    for (name, code) in libraries {
        let loaded = Library::load(runtime.interpreter(), &code);
        match loaded {
            Ok(library) => shared.scripting.functions.add(library),
            Err(text) => tracing::error!(
                "The library '{}' cannot be loaded: {}",
                String::from_utf8_lossy(&name),
                String::from_utf8_lossy(&text)
            ),
        }
    }
}

/// FUNCTION LOAD: runs the code of a library and stores it in the keyspace.
fn load_library(
    context: ScriptContext<'_>,
    code: &[u8],
    replaces: bool,
    now: i64,
    held: Option<&mut Shards<'_>>,
    reply: &mut ReplyWriter,
) -> Result<(), Vec<u8>> {
    let shared = context.shared;
    let runtime = runtime_of(context.runtime, context.config, &shared.scripting)?;
    let functions = &shared.scripting.functions;
    functions.check_name(&Library::name_of(code)?, replaces).map_err(String::into_bytes)?;
    let library = Library::load(runtime.interpreter(), code);
    runtime.publish_memory();
    let library = library?;
    // Under all locks, so that two clients do not add the same.
    let name = library.name.clone();
    let store = |shards: &mut Shards<'_>| {
        functions.check(&library, replaces).map_err(String::into_bytes)?;
        let stored = shards.store_library(library.name.as_bytes(), code);
        stored.map_err(|_| ErrorReply::OUT_OF_MEMORY.as_bytes().to_vec())?;
        functions.add(library);
        shards.libraries_changed();
        Ok::<(), Vec<u8>>(())
    };
    match held {
        Some(held) => store(held)?,
        None => store(&mut lock_all(shared, now)?)?,
    }
    reply.bulk_str(&name);
    Ok(())
}

/// Locks all shards, unless a script holds some for too long.
///
/// # Errors
/// The error reply.
pub(super) fn lock_all(shared: &Shared, now: i64) -> Result<Shards<'_>, Vec<u8>> {
    let running = &shared.scripting.running;
    let locked = shared.keyspace.lock_unless(ShardSet::ALL, now, || running.is_any_busy());
    locked.ok_or_else(|| running.busy_reply().into())
}

/// The interpreter of a worker, which is made when it is first needed.
///
/// # Errors
/// The error reply.
pub(super) fn runtime_of<'r>(
    runtime: &'r mut Option<ScriptRuntime>,
    config: &Config,
    scripting: &Scripting,
) -> Result<&'r mut ScriptRuntime, Vec<u8>> {
    let limit = config.lua_memory_limit;
    if runtime.is_none() {
        let new = ScriptRuntime::new(limit, VERSIONS).map_err(String::into_bytes)?;
        new.publish_to(&scripting.interpreters);
        *runtime = Some(new);
    }
    let runtime = runtime.as_mut().expect("invariant: it was made above");
    runtime.set_memory_limit(limit);
    Ok(runtime)
}

/// The error reply of a script that has failed.
fn error_text(error: ScriptError, name: &str) -> Vec<u8> {
    let mut text = error.text;
    if error.is_reply {
        return text;
    }
    text.extend_from_slice(format!(" script: {name}").as_bytes());
    if let Some((source, line)) = error.position {
        text.extend_from_slice(format!(", on {source}:{line}").as_bytes());
    }
    text.push(b'.');
    text
}

fn key_hashes(shared: &Shared, keys: &Args<'_>) -> Vec<u64> {
    let mut hashes: Vec<u64> = keys.iter().map(|key| shared.keyspace.hash(key)).collect();
    hashes.sort_unstable();
    hashes
}

/// A script that runs.
struct ScriptRun<'w> {
    shared: &'w Shared,
    config: &'w Config,
    recorder: &'w Recorder,
    reclaimer: &'w mut Reclaimer,
    suspender: &'w Suspender<'w>,
    feed: &'w mut MonitorFeed,
    /// What the commands of the script see as their session.
    session: Session,
    runnable: &'w Runnable,
    request: Args<'w>,
    /// The declared keys.
    keys: Args<'w>,
    /// Monotonic time of the start in nanoseconds.
    begun: u64,
    /// Set once it has run for `busy-reply-threshold`.
    busy: Option<Arc<RunningScript>>,
    now: i64,
    is_read_only: bool,
    /// Whether commands may take memory.
    may_grow: bool,
    /// Whether its reply contains an error.
    has_failed: bool,
}

impl ScriptRun<'_> {
    fn run(
        &mut self,
        interpreter: &Interpreter,
        input: Input<'_>,
        held: Option<&mut Shards<'_>>,
        reply: &mut ReplyWriter,
    ) -> Result<(), ScriptError> {
        if let Some(held) = held {
            let (ended, _) = self.run_under(interpreter, input, held, reply);
            return ended;
        }
        self.reclaimer.reset_locked_budget();
        let keyspace = &self.shared.keyspace;
        let keys = self.keys;
        let declared = || keys.iter().map(|key| keyspace.shards_of(keyspace.hash(key)));
        let mut needs_all = self.runnable.has_undeclared_keys.load(Relaxed);
        let shown_before = self.feed.len();
        loop {
            let start = reply.out.len();
            let running = &self.shared.scripting.running;
            let own = u64::from(self.busy.is_some());
            let named = || if needs_all { ShardSet::ALL } else { declared().collect() };
            let locked = keyspace.lock_with_retry(
                self.now,
                named,
                |set| set,
                // Another one than this, which may be busy already when it runs again.
                || running.busy_count() > own,
            );
            let client = self.session.client.id;
            let Some(mut shards) = locked.map(|shards| shards.for_client(client)) else {
                let text = running.busy_reply().as_bytes().to_vec();
                return Err(ScriptError { text, is_reply: true, ..ScriptError::default() });
            };
            if self.shared.closing.load(Relaxed) {
                return Err(ScriptError {
                    text: b"ERR closing".to_vec(),
                    ..ScriptError::default()
                });
            }
            let (ended, runs_again) = self.run_under(interpreter, input, &mut shards, reply);
            let (shared, config) = (self.shared, self.config);
            if runs_again {
                self.feed.truncate(shown_before);
            } else {
                self.feed.publish(shared, config);
            }
            // A run that is dropped may have removed keys that had expired.
            if shards.has_ready() {
                serve_blocked::serve_and_unlock(shared, config, self.reclaimer, shards);
            } else {
                drop(shards);
            }
            if runs_again {
                reply.out.truncate(start);
                needs_all = true;
                continue;
            }
            serve_blocked::serve_evicted(shared, config, self.reclaimer, self.now);
            return ended;
        }
    }

    /// Once the script has run for `busy-reply-threshold`: lets the event loop serve other clients,
    /// which get BUSY.
    fn suspend_if_busy(&mut self, has_written: bool) {
        let busy = match &self.busy {
            Some(busy) => busy,
            None if self.milliseconds() < self.config.busy_reply_threshold => return,
            None => self.busy.insert(self.become_busy(has_written)),
        };
        if self.suspender.suspend() == Resumption::Cancel {
            busy.force();
        }
    }

    fn milliseconds(&self) -> u64 {
        clock::monotonic_ns().saturating_sub(self.begun) / 1_000_000
    }

    #[cold]
    fn become_busy(&self, has_written: bool) -> Arc<RunningScript> {
        let name = self.runnable.name.clone();
        tracing::warn!(
            name,
            "A script runs for longer than busy-reply-threshold. SCRIPT KILL or FUNCTION KILL ends \
             it unless it has written"
        );
        let command = self.request.iter().map(<[u8]>::to_vec).collect();
        let is_eval = self.runnable.kind == CodeKind::Script;
        let running = Arc::new(RunningScript::new(name, command, is_eval, self.begun));
        if has_written {
            running.set_written();
        }
        self.shared.scripting.running.add(&running);
        self.shared.keyspace.begin_long_hold();
        running
    }

    /// Runs once; tells whether the script has to run again under all locks.
    fn run_under(
        &mut self,
        interpreter: &Interpreter,
        input: Input<'_>,
        shards: &mut Shards<'_>,
        reply: &mut ReplyWriter,
    ) -> (Result<(), ScriptError>, bool) {
        let db = self.session.db;
        let function = &self.runnable.function;
        let mut host = ScriptHost {
            run: self,
            shards,
            permit: None,
            has_written: false,
            has_effects: false,
            runs_again: false,
        };
        let ended = interpreter.run(function, input, &mut host, reply);
        let runs_again = host.runs_again;
        self.session.db = db;
        (ended, runs_again)
    }
}

/// Serves the commands of a script under the shards that it holds.
struct ScriptHost<'h, 'w, 's, 'k> {
    run: &'h mut ScriptRun<'w>,
    shards: &'s mut Shards<'k>,
    permit: Option<OutOfOrderPermit<'w>>,
    /// Whether a command has changed a key: the script cannot be killed.
    has_written: bool,
    /// Whether a command has changed a key or sent a message, or monitors are to be shown commands:
    /// the script cannot run again.
    has_effects: bool,
    runs_again: bool,
}

impl ScriptHost<'_, '_, '_, '_> {
    /// The row of a command that the script may call, with the error if it may not.
    fn check<'r>(&self, args: &Args<'_>, rows: &'r Shared) -> Result<&'r CommandRow, ErrorReply> {
        let row = rows.table.resolve(args).ok_or(ErrorReply::new(UNKNOWN_COMMAND))?;
        self.check_row(row, args, rows).map(|()| row).inspect_err(|_| {
            self.run.recorder.rejected(row.number);
        })
    }

    fn check_row(
        &self,
        row: &CommandRow,
        args: &Args<'_>,
        rows: &Shared,
    ) -> Result<(), ErrorReply> {
        if !row.command.accepts(args.len()) {
            return Err(ErrorReply::new(WRONG_ARITY));
        }
        if !row.subcommands.is_empty() && args.len() > 1 {
            return Err(ErrorReply::new(UNKNOWN_COMMAND));
        }
        let flags = row.command.flags;
        if flags.contains(CommandFlags::NOSCRIPT) {
            return Err(ErrorReply::new(NOT_ALLOWED));
        }
        let is_write = flags.contains(CommandFlags::WRITE);
        if !is_write && !flags.contains(CommandFlags::HAS_EFFECTS) {
            return Ok(());
        }
        if self.run.is_read_only {
            return Err(ErrorReply::new(READ_ONLY));
        }
        if !is_write {
            return Ok(());
        }
        if admission::writes_are_refused(rows, self.run.config) {
            return Err(admission::MISCONF);
        }
        // In the middle of its changes a script cannot be stopped.
        let is_first = !self.has_written;
        if flags.contains(CommandFlags::DENYOOM) && is_first && !self.run.may_grow {
            return Err(ErrorReply::OUT_OF_MEMORY);
        }
        Ok(())
    }

    /// Makes sure that the shards of a command are locked, and that the script may write.
    ///
    /// # Errors
    /// The script has to run again under all locks.
    fn prepare(&mut self, row: &CommandRow, args: &Args<'_>) -> Result<(), ErrorReply> {
        let keyspace = &self.run.shared.keyspace;
        let set = match row.command.locks {
            // They touch no keys.
            LockScope::Handler if row.command.group == CommandGroup::PubSub => ShardSet::NONE,
            LockScope::Handler => ShardSet::ALL,
            LockScope::Keys | LockScope::All => row.command.shards(keyspace, args, None),
        };
        let is_write = row.command.flags.contains(CommandFlags::WRITE);
        let has_effects = is_write
            || row.command.flags.contains(CommandFlags::HAS_EFFECTS)
            || self.run.feed.is_full();
        if self.shards.locked() == ShardSet::ALL {
            self.has_written |= is_write;
            return Ok(());
        }
        if !self.shards.locked().covers(set) {
            self.run.runnable.has_undeclared_keys.store(true, Relaxed);
            if !self.shards.held().try_extend(set) {
                let Some(permit) = self.permit.as_ref().filter(|_| self.has_effects) else {
                    return self.run_again();
                };
                // The lock may be held by a script that is suspended for as long.
                let (run, has_written) = (&mut *self.run, self.has_written);
                self.shards.held().extend(permit, set, || run.suspend_if_busy(has_written));
            }
            // A relocation may have come before the lock.
            let moved = row.command.shards(keyspace, args, None);
            if row.command.locks == LockScope::Keys && !self.shards.locked().covers(moved) {
                return self.prepare(row, args);
            }
        }
        if has_effects && self.permit.is_none() {
            self.permit = keyspace.arena().try_out_of_order_permit();
            if self.permit.is_none() {
                return self.run_again();
            }
        }
        self.has_effects |= has_effects;
        self.has_written |= is_write;
        Ok(())
    }

    /// Publishes the lines for monitors, unless the script may have to run again.
    fn publish_lines(&mut self) {
        if self.has_effects || self.shards.locked() == ShardSet::ALL {
            let ScriptRun { shared, config, feed, .. } = &mut *self.run;
            feed.publish(shared, config);
        }
    }

    fn run_again(&mut self) -> Result<(), ErrorReply> {
        self.runs_again = true;
        Err(ErrorReply::new(RUNS_AGAIN))
    }

    fn call_handler(&mut self, row: &CommandRow, args: &Args<'_>, reply: &mut ReplyWriter) {
        let ScriptRun { shared, config, recorder, reclaimer, feed, session, keys, now, .. } =
            &mut *self.run;
        let mut begun = clock::monotonic_ns();
        let start = reply.out.len();
        let lent = self.shards.reborrow();
        let mut call = Call {
            args: *args,
            reply,
            session,
            shared,
            config,
            shards: lent,
            blocking_mode: BlockingMode::Denied,
            row,
            first_hash: None,
            now: *now,
            effect: Effect::None,
        };
        let mut answer = (row.command.handler)(&mut call);
        if answer == Err(ErrorReply::OUT_OF_MEMORY) {
            call.reply.out.truncate(start);
            // The declared keys are not evicted.
            answer = retry_under_locks(&mut call, reclaimer, &key_hashes(shared, keys));
        }
        call.remember_reads();
        let ready = call.shards.take_ready();
        drop(call);
        self.shards.add_ready(ready);
        if answer != Err(ErrorReply::OUT_OF_MEMORY) {
            feed.add_call(session, row, args);
        }
        let failed = answer.is_err();
        if let Err(failure) = answer {
            reply.out.truncate(start);
            reply.error_bytes(failure.as_bytes());
        }
        if telemetry::ENABLED {
            let none = StallTimes::default();
            record_command(recorder, session, row, args, &mut begun, failed, none);
        }
        if failed {
            recorder.error(&reply.out[start..]);
        }
        if self.run.feed.is_full() {
            self.publish_lines();
        }
    }
}

impl Host for ScriptHost<'_, '_, '_, '_> {
    fn call(&mut self, args: &Args<'_>, reply: &mut ReplyWriter) {
        let shared = self.run.shared;
        if self.runs_again {
            return reply.error(RUNS_AGAIN);
        }
        let checked = self.check(args, shared);
        match checked.and_then(|row| self.prepare(row, args).map(|()| row)) {
            Ok(row) => {
                if self.has_written
                    && let Some(busy) = &self.run.busy
                {
                    busy.set_written();
                }
                self.call_handler(row, args, reply);
            }
            Err(failure) => {
                reply.error_bytes(failure.as_bytes());
                if !self.runs_again {
                    self.run.recorder.error(&reply.out);
                }
            }
        }
    }

    fn replied_error(&mut self, text: &[u8], is_counted: bool) {
        if self.runs_again {
            return;
        }
        self.run.has_failed = true;
        if !is_counted {
            self.run.recorder.error(text);
        }
    }

    fn may_call(&mut self, args: &Args<'_>) -> Option<bool> {
        let row = self.run.shared.table.resolve(args)?;
        // A container is no command together with a subcommand that it does not have.
        (row.subcommands.is_empty() || args.len() == 1).then_some(true)
    }

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        write_script_log(level, text);
    }

    fn poll(&mut self) -> Result<(), &'static str> {
        if self.runs_again {
            return Err(RUNS_AGAIN);
        }
        if self.run.busy.is_some() {
            self.publish_lines();
        }
        self.run.suspend_if_busy(self.has_written);
        match &self.run.busy {
            Some(busy) if busy.is_killed() && busy.is_eval => Err(KILLED_SCRIPT),
            Some(busy) if busy.is_killed() => Err(KILLED_FUNCTION),
            _ => Ok(()),
        }
    }
}

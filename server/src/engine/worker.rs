//! A worker runs the requests that connections of its thread have received, a batch at a time.
//!
//! A batch goes through two passes. The first looks every request up in the command table, hashes
//! its first key and asks the processor to fetch what the second pass will touch: three dependent
//! memory accesses for each key, all batches' keys at once instead of one after the other. The
//! second pass locks, runs and replies.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::arena::{ShardSet, Stalls, take_stalls};
use crate::clock;
use crate::commands::{Call, Command, Effect, Failure, Flags, Locks, ReplyMode, Row, Session};
use crate::config::View;
use crate::keyspace::Key;
use crate::protocol::{Args, Batch, Reply};
use crate::telemetry::{self, Recorder, Worst};

use super::{Engine, admission, slow};

/// Requests that are looked up and fetched together.
const GROUP: usize = 16;
/// Replies are sent when they have grown to this many bytes, before the next request runs.
const FLUSH_AT: usize = 1 << 20;

/// How a batch went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Every request has run.
    Done,
    /// Requests from this one on have not run: send the replies first.
    Flush(usize),
    /// Requests from this one on have to wait until a wall clock time in milliseconds.
    Wait(usize, i64),
    /// Send the replies and close the connection.
    Close,
}

/// Runs requests on one thread.
pub struct Worker {
    engine: Arc<Engine>,
    config: View,
    recorder: Recorder,
}

/// A request that was looked up.
#[derive(Clone, Copy)]
struct Planned<'a> {
    args: Args<'a>,
    row: Option<&'a Row>,
    key: Option<Key<'a>>,
}

impl Worker {
    /// The worker of one thread.
    pub fn new(engine: Arc<Engine>, recorder: Recorder) -> Self {
        let config = View::new(Arc::clone(&engine.shared.config));
        Self { engine, config, recorder }
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
        reply: &mut Reply,
    ) -> Outcome {
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
                    Outcome::Done => next += 1,
                    Outcome::Wait(_, until) => return Outcome::Wait(next, until),
                    outcome => return outcome,
                }
                if reply.len() >= FLUSH_AT && next < batch.len() {
                    return Outcome::Flush(next);
                }
            }
        }
        Outcome::Done
    }

    #[inline]
    fn run_one(
        &mut self,
        engine: &Engine,
        session: &mut Session,
        planned: &Planned<'_>,
        now: i64,
        begun: &mut u64,
        reply: &mut Reply,
    ) -> Outcome {
        let shared = &*engine.shared;
        let start = reply.len();
        let Some(row) = planned.row else {
            let failure = crate::commands::unknown_command(&planned.args);
            return self.refuse(session, None, &failure, reply, start);
        };
        let flags = row.command.flags;
        let config = self.config.get();
        if let Some(until) = shared.clients.paused_until(now, flags.has(Flags::WRITE))
            && !flags.has(Flags::UNPAUSED)
        {
            return Outcome::Wait(0, until);
        }
        if let Err(failure) = admission::admit(shared, config, session, row, &planned.args) {
            return self.refuse(session, Some(row), &failure, reply, start);
        }
        take_skip(session);
        session.client.last_command.store(row.number as u64 + 1, Ordering::Relaxed);
        let set = shards_of(shared, row.command, planned);
        let shards = shared.keyspace.lock(set, now);
        // Looked at under the locks: whoever sets it holds them all.
        if shared.closing.load(Ordering::Relaxed) {
            return Outcome::Close;
        }
        let shards = if session.no_touch { shards.without_touch() } else { shards };
        let mut call = Call {
            args: planned.args,
            reply,
            session,
            shared,
            config,
            shards,
            row,
            first_key: planned.key,
            now,
            effect: Effect::None,
        };
        let answer = (row.command.handler)(&mut call);
        let effect = std::mem::take(&mut call.effect);
        drop(call);
        let mut failed = answer.is_err();
        if let Err(failure) = &answer {
            reply.out.truncate(start);
            reply.error(failure.as_str());
        }
        let mut outcome = Outcome::Done;
        if effect != Effect::None {
            let answered = engine.carry_out(effect, reply);
            outcome = answered.0;
            failed |= answered.1;
        }
        if telemetry::ON {
            self.time(session, row, &planned.args, begun, failed);
        }
        if failed {
            self.recorder.error(&reply.out[start.min(reply.len())..]);
        }
        silence(session, reply, start);
        if session.client.is_killed() {
            return Outcome::Close;
        }
        outcome
    }

    /// Counts a command that ran from `begun` to now, which is when the next begins.
    #[inline]
    fn time(&self, session: &Session, row: &Row, args: &Args<'_>, begun: &mut u64, failed: bool) {
        let ended = clock::monotonic_ns();
        let begun_ns = std::mem::replace(begun, ended);
        let nanos = ended.saturating_sub(begun_ns);
        let phase = self.recorder.command(row.number, nanos, failed);
        let mut stalls = Stalls::default();
        if phase.is_snapshot() {
            stalls = take_stalls();
            // Whoever asks for the save waits for it, and knows.
            if !row.command.flags.has(Flags::ADMIN) {
                let stall_nanos = stalls.nanoseconds;
                let worst = Worst { nanos, begun_ns, stall_nanos, command: row.number };
                self.recorder.command_in_save(phase, worst);
            }
        }
        if nanos > self.recorder.telemetry().slow_limit() {
            let barrier = self.engine.shared.keyspace.arena().barrier();
            let undo_log = barrier.undo_log().is_some();
            slow::note(&self.recorder, session, row, args, nanos, stalls, undo_log);
        }
    }

    #[cold]
    fn refuse(
        &mut self,
        session: &mut Session,
        row: Option<&Row>,
        failure: &Failure,
        reply: &mut Reply,
        start: usize,
    ) -> Outcome {
        reply.error(failure.as_str());
        self.recorder.error(failure.as_str().as_bytes());
        if let Some(row) = row {
            self.recorder.rejected(row.number);
        }
        take_skip(session);
        silence(session, reply, start);
        Outcome::Done
    }
}

/// Takes back the reply of a client that wants none: it had switched replies off, or had asked to
/// skip this one.
#[inline]
fn silence(session: &Session, reply: &mut Reply, start: usize) {
    if session.skipping || session.reply_mode == ReplyMode::Off {
        reply.out.truncate(start);
    }
}

/// Notes whether the reply of the command that runs now is to be skipped; it is the only one.
#[inline]
fn take_skip(session: &mut Session) {
    session.skipping = session.reply_mode == ReplyMode::SkipNext;
    if session.skipping {
        session.reply_mode = ReplyMode::On;
    }
}

#[inline]
fn plan<'a>(engine: &'a Engine, args: Args<'a>) -> Planned<'a> {
    let row = engine.shared.table.resolve(&args);
    let key = row
        .map(|row| row.command.keys.first)
        .filter(|first| *first > 0)
        .and_then(|first| args.get(first))
        .map(|bytes| engine.shared.keyspace.key(bytes));
    Planned { args, row, key }
}

/// Fetches what a group of requests will touch.
fn fetch(engine: &Engine, session: &Session, group: &[Option<Planned<'_>>]) {
    let space = &engine.shared.keyspace;
    let hash = |planned: &Option<Planned<'_>>| planned.and_then(|p| p.key).map(|key| key.hash);
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

#[inline]
fn shards_of(
    shared: &crate::commands::Shared,
    command: &Command,
    planned: &Planned<'_>,
) -> ShardSet {
    match command.locks {
        Locks::Own => ShardSet::NONE,
        Locks::All => ShardSet::ALL,
        Locks::Keys => {
            let first = planned.key.map_or(ShardSet::NONE, |key| ShardSet::one(key.shard));
            if command.keys.first == 0 || command.keys.last == command.keys.first.cast_signed() {
                return first;
            }
            let others = command.keys.positions(planned.args.len()).skip(1);
            others.fold(first, |set, i| {
                set | ShardSet::one(shared.keyspace.key(planned.args.at(i)).shard)
            })
        }
    }
}

impl Engine {
    /// Carries out what a handler passed up; tells what follows and whether it failed.
    #[cold]
    fn carry_out(&self, effect: Effect, reply: &mut Reply) -> (Outcome, bool) {
        let answer = match effect {
            Effect::None => return (Outcome::Done, false),
            Effect::Close => return (Outcome::Close, false),
            Effect::Save(kind) => self.saver.answer(&self.shared, kind),
            Effect::Shutdown(how) => match self.shut_down(how) {
                Ok(()) => return (Outcome::Close, false),
                Err(_) => Err("ERR Errors trying to SHUTDOWN. Check logs.".to_owned()),
            },
            Effect::Sleep { time, all } => {
                let set = if all { ShardSet::ALL } else { ShardSet::NONE };
                let _held = self.shared.keyspace.lock(set, 0);
                std::thread::sleep(time);
                return (Outcome::Done, false);
            }
            Effect::Reload => self.saver.reload(&self.shared).map(|()| "OK".to_owned()),
        };
        match &answer {
            Ok(text) => reply.simple(text),
            Err(text) => reply.error(text),
        }
        (Outcome::Done, answer.is_err())
    }
}

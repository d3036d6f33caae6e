//! The open-loop load, and the save in its midst: one thread that sends, receives and keeps time.
//!
//! ```text
//!   warm-up | before              | during            | after
//!   --------+---------------------+-------------------+-----------------> requests, at one rate
//!                             BGSAVE sent         INFO says: done
//! ```
//!
//! A request is due at a moment that the rate alone sets, whatever the server does, and its latency
//! counts from that moment: a stall delays every request that falls due in it, and each of them
//! says so. (Gil Tene calls the mistake of a load generator that waits "coordinated omission".)
//!
//! Invariants:
//! 1. Each request that falls due is sent, however late, and ends as exactly one of: a sample, an
//!    error, or unanswered.
//! 2. While requests are due within a millisecond, nothing here sleeps: the thread keeps its core
//!    busy. How late it was itself stands in each sample as `lag`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::connection::{Connection, Lost};
use super::memory::{Memory, Sampler};
use super::resp::Reply;
use super::schedule::{Pace, Requests};
use cowherd_arena::clock::monotonic_ns;

const MILLISECOND: u64 = 1_000_000;
/// How often the server is asked whether the save has ended.
const ASK_EVERY: u64 = 20 * MILLISECOND;
/// How often memory is looked at.
const MEMORY_EVERY: u64 = 100 * MILLISECOND;
/// How often late requests are looked for, and lost connections made anew.
const HOUSEKEEPING_EVERY: u64 = 10 * MILLISECOND;
/// Requests that are sent before replies are looked for again.
const BURST: usize = 512;
/// Samples that are made room for beyond those that are sure to come: of a save of so many seconds.
const EXPECTED_SAVE: u64 = 60;

/// What load, for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the server listens.
    pub address: SocketAddr,
    /// Its password.
    pub password: Option<String>,
    /// Its process, when it runs on this machine.
    pub process: Option<i32>,
    /// How many connections carry the requests.
    pub connections: usize,
    /// Requests a second.
    pub rate: u64,
    /// Time before anything counts.
    pub warm_up: Duration,
    /// Time measured before the save, and again after it.
    pub duration: Duration,
    /// When a request is late enough to be called timed out.
    pub timeout: Duration,
    /// When a save is given up.
    pub longest_save: Duration,
}

/// One request that was answered. All times in nanoseconds of one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When it was due.
    pub due: u64,
    /// How long after that its reply was there.
    pub latency: u64,
    /// Of it, how long the load generator itself was late.
    pub lag: u64,
}

/// When what happened, by the same clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// The warm-up was over.
    pub measured_from: u64,
    /// BGSAVE was sent.
    pub save_sent: u64,
    /// Its reply was there.
    pub save_replied: u64,
    /// The server said that no save runs any more.
    pub save_ended: u64,
    /// No more requests were due.
    pub ended: u64,
}

/// What was measured.
#[derive(Debug, Default)]
pub struct Record {
    /// The requests that were answered, in the order of their replies.
    pub samples: Vec<Sample>,
    /// The moments between the phases.
    pub marks: Marks,
    /// Requests that fell due.
    pub requests: u64,
    /// Requests that failed, by what the server or the kernel said.
    pub errors: BTreeMap<String, u64>,
    /// Answers that came later than the timeout; they are among the samples too.
    pub late: u64,
    /// Requests that were never answered.
    pub unanswered: u64,
    /// Memory over time.
    pub memory: Vec<Memory>,
}

/// A request under way.
#[derive(Debug)]
struct Waiting {
    due: u64,
    lag: u64,
    late: bool,
}

/// What the control connection waits for.
#[derive(Debug, PartialEq)]
enum Asked {
    Save,
    Progress,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Before,
    Saving,
    After,
    Draining,
    Done,
}

/// Runs the plan to its end.
///
/// # Errors
/// When the server cannot be reached, refuses BGSAVE, does not end it in time, or goes away.
pub fn run(plan: &Plan, requests: &mut Requests, told: impl Fn(&str)) -> Result<Record> {
    let mut load = Load::open(plan, requests)?;
    told("before the save");
    let mut stage = load.stage;
    while stage != Stage::Done {
        load.turn()?;
        if load.stage != stage {
            stage = load.stage;
            match stage {
                Stage::Saving => told("during the save"),
                Stage::After => told("after the save"),
                _ => {}
            }
        }
    }
    Ok(load.record)
}

struct Load<'a> {
    plan: &'a Plan,
    requests: &'a mut Requests,
    epoll: Epoll,
    connections: Vec<Option<Connection<Waiting>>>,
    control: Connection<Asked>,
    pace: Pace,
    next: usize,
    stage: Stage,
    record: Record,
    sampler: Sampler,
    ask_at: u64,
    memory_at: u64,
    housekeeping_at: u64,
    events: Vec<EpollEvent>,
}

impl<'a> Load<'a> {
    fn open(plan: &'a Plan, requests: &'a mut Requests) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let cannot = || format!("cannot connect to {}", plan.address);
        let password = plan.password.as_deref();
        let control = Connection::open(plan.address, password).with_context(cannot)?;
        watch(&epoll, &control, plan.connections)?;
        let mut connections = Vec::new();
        for index in 0..plan.connections {
            let connection = Connection::open(plan.address, password).with_context(cannot)?;
            watch(&epoll, &connection, index)?;
            connections.push(Some(connection));
        }
        let sure = (plan.warm_up + 2 * plan.duration).as_secs() + EXPECTED_SAVE;
        let mut samples = Vec::new();
        // Written once, so that no page of it is missing later.
        samples.resize(usize::try_from(sure * plan.rate)?, Sample { due: 1, latency: 1, lag: 1 });
        samples.clear();
        let begin = monotonic_ns();
        let marks = Marks { measured_from: begin + nanoseconds(plan.warm_up), ..Marks::default() };
        Ok(Self {
            plan,
            requests,
            epoll,
            connections,
            control,
            pace: Pace::new(begin, plan.rate),
            next: 0,
            stage: Stage::Before,
            record: Record { samples, marks, ..Record::default() },
            sampler: Sampler::new(plan.process),
            ask_at: 0,
            memory_at: begin,
            housekeeping_at: begin,
            events: vec![EpollEvent::empty(); 256],
        })
    }

    /// Sends what is due, does what the time asks for, takes in what has arrived.
    fn turn(&mut self) -> Result<()> {
        let now = monotonic_ns();
        if self.sending() {
            self.send(now);
        }
        self.advance(now)?;
        self.receive()
    }

    fn sending(&self) -> bool {
        !matches!(self.stage, Stage::Draining | Stage::Done)
    }

    /// When the last request is due, as far as that is known.
    fn end(&self) -> u64 {
        match self.stage {
            Stage::Before | Stage::Saving => u64::MAX,
            _ => self.record.marks.save_ended + nanoseconds(self.plan.duration),
        }
    }

    fn send(&mut self, now: u64) {
        let first = self.next;
        let mut sent = 0;
        let end = self.end();
        while sent < BURST && self.pace.next_due() <= now && self.pace.next_due() < end {
            let due = self.pace.next_due();
            self.pace.advance();
            self.record.requests += 1;
            let waiting = Waiting { due, lag: now - due, late: false };
            let index = self.next;
            self.next = (self.next + 1) % self.connections.len();
            sent += 1;
            match &mut self.connections[index] {
                Some(connection) => self.requests.next(|words| connection.queue(words, waiting)),
                None => count(&mut self.record.errors, "not sent: the connection is lost", 1),
            }
        }
        for step in 0..sent.min(self.connections.len()) {
            self.flush((first + step) % self.connections.len());
        }
    }

    fn flush(&mut self, index: usize) {
        let flushed = self.connections[index].as_mut().map(Connection::flush);
        if let Some(Err(error)) = flushed {
            self.lose(index, &error);
        }
    }

    /// What a lost connection had under way are errors.
    fn lose(&mut self, index: usize, why: &Lost) {
        if let Some(connection) = self.connections[index].take() {
            let waiting = connection.waiting().len() as u64;
            count(&mut self.record.errors, &why.to_string(), waiting);
        }
    }

    fn advance(&mut self, now: u64) -> Result<()> {
        if now >= self.memory_at {
            self.memory_at = now + MEMORY_EVERY;
            // Times of the clock fit: it counts from the start of this process.
            let at_us = i64::try_from(now / 1000)?;
            self.record.memory.push(self.sampler.sample(at_us));
        }
        if now >= self.housekeeping_at {
            self.housekeeping_at = now + HOUSEKEEPING_EVERY;
            self.keep_house(now);
        }
        let (duration, end) = (nanoseconds(self.plan.duration), self.end());
        let marks = &mut self.record.marks;
        match self.stage {
            Stage::Before if now >= marks.measured_from + duration => {
                marks.save_sent = now;
                self.stage = Stage::Saving;
                self.ask(&[b"BGSAVE"], Asked::Save)?;
            }
            Stage::Saving if now >= marks.save_sent + nanoseconds(self.plan.longest_save) => bail!(
                "the save has not ended after {:?}; give it longer with --longest-save",
                self.plan.longest_save
            ),
            Stage::Saving if marks.save_replied != 0 && now >= self.ask_at => {
                self.ask_at = now + ASK_EVERY;
                if self.control.waiting().is_empty() {
                    self.ask(&[b"INFO", b"persistence"], Asked::Progress)?;
                }
            }
            // Not by the clock alone: what was due before the end is sent, however late it is.
            Stage::After if now >= end && self.pace.next_due() >= end => {
                marks.ended = end;
                self.stage = Stage::Draining;
            }
            Stage::Draining => self.drain(now),
            _ => {}
        }
        Ok(())
    }

    fn ask(&mut self, words: &[&[u8]], asked: Asked) -> Result<()> {
        self.control.queue(words, asked);
        self.control.flush().context("lost the connection that asks the server to save")
    }

    fn drain(&mut self, now: u64) {
        let waiting = self.connections.iter().flatten().map(|c| c.waiting().len()).sum::<usize>();
        if waiting == 0 || now >= self.record.marks.ended + nanoseconds(self.plan.timeout) {
            self.record.unanswered = waiting as u64;
            self.stage = Stage::Done;
        }
    }

    fn keep_house(&mut self, now: u64) {
        let timeout = nanoseconds(self.plan.timeout);
        for connection in self.connections.iter_mut().flatten() {
            let overdue = connection.waiting_mut().take_while(|w| w.due + timeout <= now);
            for waiting in overdue.filter(|waiting| !waiting.late) {
                waiting.late = true;
                self.record.late += 1;
            }
        }
        for index in 0..self.connections.len() {
            if self.connections[index].is_none() && self.sending() {
                let opened = Connection::open(self.plan.address, self.plan.password.as_deref());
                self.connections[index] =
                    opened.ok().filter(|c| watch(&self.epoll, c, index).is_ok());
            }
        }
    }

    fn receive(&mut self) -> Result<()> {
        let now = monotonic_ns();
        let idle =
            if self.sending() { self.pace.next_due().saturating_sub(now) } else { MILLISECOND };
        let wait = u16::try_from((idle / MILLISECOND).min(10)).unwrap_or(0);
        let ready = match self.epoll.wait(&mut self.events, EpollTimeout::from(wait)) {
            Ok(ready) => ready,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error).context("cannot wait for the server"),
        };
        for event in 0..ready {
            let (index, flags) = (self.events[event].data(), self.events[event].events());
            let index = usize::try_from(index)?;
            if index == self.connections.len() {
                self.hear_control()?;
                continue;
            }
            if flags.contains(EpollFlags::EPOLLOUT) {
                self.flush(index);
            }
            let Some(connection) = &mut self.connections[index] else { continue };
            let record = &mut self.record;
            let received = connection.receive(|waiting, reply| {
                if let Reply::Error(text) = reply {
                    count(&mut record.errors, &String::from_utf8_lossy(text), 1);
                    return;
                }
                let latency = monotonic_ns() - waiting.due;
                record.samples.push(Sample { due: waiting.due, latency, lag: waiting.lag });
            });
            if let Err(error) = received {
                self.lose(index, &error);
            }
        }
        Ok(())
    }

    fn hear_control(&mut self) -> Result<()> {
        let (marks, stage) = (&mut self.record.marks, &mut self.stage);
        let mut refused = None;
        let heard = self.control.receive(|asked, reply| {
            let now = monotonic_ns();
            match (asked, reply) {
                (_, Reply::Error(text)) => {
                    refused = Some(String::from_utf8_lossy(text).into_owned())
                }
                (Asked::Save, _) => marks.save_replied = now,
                (Asked::Progress, Reply::Bulk(Some(text))) if ended(text) => {
                    marks.save_ended = now;
                    *stage = Stage::After;
                }
                (Asked::Progress, _) => {}
            }
        });
        heard.context("the server went away while it saved")?;
        match refused {
            Some(text) => bail!("the server refused to save: {text}"),
            None => Ok(()),
        }
    }
}

/// Whether INFO says that no save runs.
fn ended(info: &[u8]) -> bool {
    memchr::memmem::find(info, b"rdb_bgsave_in_progress:0").is_some()
}

fn watch<T>(epoll: &Epoll, connection: &Connection<T>, index: usize) -> Result<()> {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    epoll.add(connection.stream(), EpollEvent::new(flags, index as u64))?;
    Ok(())
}

fn count(errors: &mut BTreeMap<String, u64>, what: &str, times: u64) {
    if times > 0 {
        *errors.entry(what.to_owned()).or_insert(0) += times;
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

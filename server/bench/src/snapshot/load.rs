//! Open-loop load generator that triggers a checkpoint: one thread sends, receives and keeps time.
//!
//! ```text
//!   warm-up | before              | during            | after: 30 s
//!   --------+---------------------+-------------------+-----------------> requests, constant rate
//!                             BGSAVE sent         INFO reports the end
//! ```
//!
//! The rate alone determines the due time of a request, and latency counts from the due time. A
//! stall therefore shows in every request that was due during the stall; a load generator that
//! waits for replies before it sends would hide most of it ("coordinated omission", Gil Tene).
//!
//! Invariants:
//! 1. Each due request is sent, however late, and ends as exactly one of: a sample, an error, or
//!    unanswered.
//! 2. The thread does not sleep while a request is due within a millisecond. The field `lag` of a
//!    sample is the delay between due time and sending.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::connection::{Connection, ConnectionError};
use super::memory::{MemorySample, MemorySampler};
use super::workload::{RateSchedule, RequestGenerator};
use cowherd_arena::clock::monotonic_ns;
use cowherd_resp::Reply;

const MILLISECOND: u64 = 1_000_000;
/// Interval of the queries for the end of the checkpoint.
const POLL_INTERVAL: u64 = 20 * MILLISECOND;
/// Interval of memory samples.
const MEMORY_INTERVAL: u64 = 100 * MILLISECOND;
/// Interval at which late requests are counted and lost connections reopened.
const HOUSEKEEPING_INTERVAL: u64 = 10 * MILLISECOND;
/// Maximum number of requests that are sent between two receptions.
const MAX_BURST: usize = 512;
/// Assumed duration of a checkpoint in seconds, for which sample memory is allocated in advance.
const EXPECTED_CHECKPOINT_SECONDS: u64 = 60;

/// Parameters of a load.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Address of the server.
    pub address: SocketAddr,
    /// Password of the server.
    pub password: Option<String>,
    /// Process id of the server, if it runs on this machine.
    pub process: Option<i32>,
    /// Number of connections.
    pub connections: usize,
    /// Requests per second.
    pub rate: u64,
    /// Duration of the load before the measurement.
    pub warm_up: Duration,
    /// Duration of the measurement before the checkpoint.
    pub duration: Duration,
    /// Duration of the measurement after it.
    pub after: Duration,
    /// Latency from which a request counts as late.
    pub timeout: Duration,
    /// Maximum duration of the checkpoint.
    pub longest_save: Duration,
}

/// Answered request. Times are nanoseconds of one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencySample {
    /// Due time.
    pub due: u64,
    /// Time from due time to reply.
    pub latency: u64,
    /// Time from due time to sending, a part of `latency`.
    pub lag: u64,
}

/// Times between the phases, of the same clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PhaseTimes {
    /// End of the warm-up.
    pub measured_from: u64,
    /// Sending of BGSAVE.
    pub save_sent: u64,
    /// Reply to BGSAVE.
    pub save_replied: u64,
    /// INFO reported the end of the checkpoint.
    pub save_ended: u64,
    /// Due time of the last request.
    pub ended: u64,
}

/// Measurements of a load.
#[derive(Debug, Default)]
pub struct LoadRecord {
    /// Answered requests, in the order of their replies.
    pub samples: Vec<LatencySample>,
    /// Times between the phases.
    pub marks: PhaseTimes,
    /// Number of due requests.
    pub requests: u64,
    /// Number of failed requests by error text.
    pub errors: BTreeMap<String, u64>,
    /// Number of requests not answered within the timeout; an answer still becomes a sample.
    pub late: u64,
    /// Number of requests without reply.
    pub unanswered: u64,
    /// Memory use over time.
    pub memory: Vec<MemorySample>,
}

/// Request that awaits its reply.
#[derive(Debug)]
struct PendingRequest {
    due: u64,
    lag: u64,
    late: bool,
}

/// Pending request of the control connection.
#[derive(Debug, PartialEq)]
enum ControlRequest {
    Bgsave,
    Info,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum LoadStage {
    Before,
    Checkpoint,
    After,
    Draining,
    Done,
}

/// Executes a plan. Calls `progress` with the name of each phase.
///
/// # Errors Returns an error if the server cannot be reached, refuses BGSAVE, exceeds the time
/// limit, or closes the control connection.
pub fn run(
    plan: &LoadPlan,
    requests: &mut RequestGenerator,
    progress: impl Fn(&str),
) -> Result<LoadRecord> {
    let mut load = LoadGenerator::open(plan, requests)?;
    progress("before the checkpoint");
    let mut stage = load.stage;
    while stage != LoadStage::Done {
        load.step()?;
        if load.stage != stage {
            stage = load.stage;
            match stage {
                LoadStage::Checkpoint => progress("during the checkpoint"),
                LoadStage::After => progress("after the checkpoint"),
                _ => {}
            }
        }
    }
    Ok(load.record)
}

struct LoadGenerator<'a> {
    plan: &'a LoadPlan,
    requests: &'a mut RequestGenerator,
    epoll: Epoll,
    connections: Vec<Option<Connection<PendingRequest>>>,
    control: Connection<ControlRequest>,
    schedule: RateSchedule,
    /// Index of the connection for the next request.
    next: usize,
    stage: LoadStage,
    record: LoadRecord,
    sampler: MemorySampler,
    poll_at: u64,
    memory_at: u64,
    housekeeping_at: u64,
    events: Vec<EpollEvent>,
}

impl<'a> LoadGenerator<'a> {
    fn open(plan: &'a LoadPlan, requests: &'a mut RequestGenerator) -> Result<Self> {
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
        let seconds =
            (plan.warm_up + plan.duration + plan.after).as_secs() + EXPECTED_CHECKPOINT_SECONDS;
        let mut samples = Vec::new();
        // Written in advance, so that recording a sample causes no page fault.
        samples.resize(
            usize::try_from(seconds * plan.rate)?,
            LatencySample { due: 1, latency: 1, lag: 1 },
        );
        samples.clear();
        let begin = monotonic_ns();
        let marks = PhaseTimes {
            measured_from: begin + nanoseconds(plan.warm_up),
            ..PhaseTimes::default()
        };
        Ok(Self {
            plan,
            requests,
            epoll,
            connections,
            control,
            schedule: RateSchedule::new(begin, plan.rate),
            next: 0,
            stage: LoadStage::Before,
            record: LoadRecord { samples, marks, ..LoadRecord::default() },
            sampler: MemorySampler::new(plan.process),
            poll_at: 0,
            memory_at: begin,
            housekeeping_at: begin,
            events: vec![EpollEvent::empty(); 256],
        })
    }

    /// Sends due requests, executes due periodic work, and receives replies.
    fn step(&mut self) -> Result<()> {
        let now = monotonic_ns();
        if self.is_sending() {
            self.send(now);
        }
        self.advance(now)?;
        self.receive()
    }

    fn is_sending(&self) -> bool {
        !matches!(self.stage, LoadStage::Draining | LoadStage::Done)
    }

    /// Due time of the last request; `u64::MAX` while unknown.
    fn end(&self) -> u64 {
        match self.stage {
            LoadStage::Before | LoadStage::Checkpoint => u64::MAX,
            _ => self.record.marks.save_ended + nanoseconds(self.plan.after),
        }
    }

    fn send(&mut self, now: u64) {
        let first = self.next;
        let mut sent = 0;
        let end = self.end();
        while sent < MAX_BURST && self.schedule.next_due() <= now && self.schedule.next_due() < end
        {
            let due = self.schedule.next_due();
            self.schedule.advance();
            self.record.requests += 1;
            let request = PendingRequest { due, lag: now - due, late: false };
            let index = self.next;
            self.next = (self.next + 1) % self.connections.len();
            sent += 1;
            match &mut self.connections[index] {
                Some(connection) => self.requests.next(|words| connection.queue(words, request)),
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

    /// Drops a connection and counts its pending requests as errors.
    fn lose(&mut self, index: usize, error: &ConnectionError) {
        if let Some(connection) = self.connections[index].take() {
            let pending = connection.pending().len() as u64;
            count(&mut self.record.errors, &error.to_string(), pending);
        }
    }

    fn advance(&mut self, now: u64) -> Result<()> {
        if now >= self.memory_at {
            self.memory_at = now + MEMORY_INTERVAL;
            // Times count from the start of this process, so they fit.
            let at_us = i64::try_from(now / 1000)?;
            self.record.memory.push(self.sampler.sample(at_us));
        }
        if now >= self.housekeeping_at {
            self.housekeeping_at = now + HOUSEKEEPING_INTERVAL;
            self.housekeeping(now);
        }
        let (duration, end) = (nanoseconds(self.plan.duration), self.end());
        let marks = &mut self.record.marks;
        match self.stage {
            LoadStage::Before if now >= marks.measured_from + duration => {
                marks.save_sent = now;
                self.stage = LoadStage::Checkpoint;
                self.send_control(&[b"BGSAVE"], ControlRequest::Bgsave)?;
            }
            LoadStage::Checkpoint
                if now >= marks.save_sent + nanoseconds(self.plan.longest_save) =>
            {
                bail!(
                    "the checkpoint has not ended after {:?}; give it longer with --longest-save",
                    self.plan.longest_save
                )
            }
            LoadStage::Checkpoint if marks.save_replied != 0 && now >= self.poll_at => {
                self.poll_at = now + POLL_INTERVAL;
                if self.control.pending().is_empty() {
                    self.send_control(&[b"INFO", b"persistence"], ControlRequest::Info)?;
                }
            }
            // Time alone is not enough: invariant 1 requires that all due requests are sent.
            LoadStage::After if now >= end && self.schedule.next_due() >= end => {
                marks.ended = end;
                self.stage = LoadStage::Draining;
            }
            LoadStage::Draining => self.drain(now),
            _ => {}
        }
        Ok(())
    }

    fn send_control(&mut self, words: &[&[u8]], request: ControlRequest) -> Result<()> {
        self.control.queue(words, request);
        self.control.flush().context("lost the control connection")
    }

    fn drain(&mut self, now: u64) {
        let pending = self.connections.iter().flatten().map(|c| c.pending().len()).sum::<usize>();
        if pending == 0 || now >= self.record.marks.ended + nanoseconds(self.plan.timeout) {
            self.record.unanswered = pending as u64;
            self.stage = LoadStage::Done;
        }
    }

    /// Counts late requests and reopens lost connections.
    fn housekeeping(&mut self, now: u64) {
        let timeout = nanoseconds(self.plan.timeout);
        for connection in self.connections.iter_mut().flatten() {
            let overdue =
                connection.pending_mut().take_while(|request| request.due + timeout <= now);
            for request in overdue.filter(|request| !request.late) {
                request.late = true;
                self.record.late += 1;
            }
        }
        for index in 0..self.connections.len() {
            if self.connections[index].is_none() && self.is_sending() {
                let opened = Connection::open(self.plan.address, self.plan.password.as_deref());
                self.connections[index] =
                    opened.ok().filter(|c| watch(&self.epoll, c, index).is_ok());
            }
        }
    }

    fn receive(&mut self) -> Result<()> {
        let now = monotonic_ns();
        let idle = if self.is_sending() {
            self.schedule.next_due().saturating_sub(now)
        } else {
            MILLISECOND
        };
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
                self.receive_control()?;
                continue;
            }
            if flags.contains(EpollFlags::EPOLLOUT) {
                self.flush(index);
            }
            let Some(connection) = &mut self.connections[index] else { continue };
            let record = &mut self.record;
            let received = connection.receive(|request, reply| {
                if let Reply::Error(text) = reply {
                    count(&mut record.errors, &String::from_utf8_lossy(text), 1);
                    return;
                }
                let latency = monotonic_ns() - request.due;
                record.samples.push(LatencySample { due: request.due, latency, lag: request.lag });
            });
            if let Err(error) = received {
                self.lose(index, &error);
            }
        }
        Ok(())
    }

    fn receive_control(&mut self) -> Result<()> {
        let (marks, stage) = (&mut self.record.marks, &mut self.stage);
        let mut refused = None;
        let received = self.control.receive(|request, reply| {
            let now = monotonic_ns();
            match (request, reply) {
                (_, Reply::Error(text)) => {
                    refused = Some(String::from_utf8_lossy(text).into_owned())
                }
                (ControlRequest::Bgsave, _) => marks.save_replied = now,
                (ControlRequest::Info, Reply::Bulk(text)) if reports_no_checkpoint(text) => {
                    marks.save_ended = now;
                    *stage = LoadStage::After;
                }
                (ControlRequest::Info, _) => {}
            }
        });
        received.context("lost the control connection during the checkpoint")?;
        match refused {
            Some(text) => bail!("the server refused BGSAVE: {text}"),
            None => Ok(()),
        }
    }
}

/// Whether INFO reports that no checkpoint runs.
fn reports_no_checkpoint(info: &[u8]) -> bool {
    memchr::memmem::find(info, b"rdb_bgsave_in_progress:0").is_some()
}

/// Registers a connection for edge-triggered events that carry its index.
fn watch<T>(epoll: &Epoll, connection: &Connection<T>, index: usize) -> Result<()> {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    epoll.add(connection.stream(), EpollEvent::new(flags, index as u64))?;
    Ok(())
}

fn count(errors: &mut BTreeMap<String, u64>, error: &str, times: u64) {
    if times > 0 {
        *errors.entry(error.to_owned()).or_insert(0) += times;
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

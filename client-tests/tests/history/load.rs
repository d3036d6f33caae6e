//! The threads of a round and what they record.
//!
//! ```text
//!   clients    |-- random commands on all groups --|- meet -|-- ... --|
//!   blocking   |-- BLPOP, BZPOPMIN, XREAD BLOCK ----------------------|- CLIENT UNBLOCK -|
//!   scanners   |-- SCAN, elements come and go ------------------------|
//!   main       | BGSAVE, restore, BGSAVE, ...                         | or SIGKILL
//! ```
//!
//! At each meeting the clients pause and one of them sends commands alone. A blocked command must
//! then be served as soon as its key has elements: a lost wakeup cannot hide behind the next push.

use crate::client::{BlockedCommand, Client, Shared};
use crate::contents::pipeline;
use crate::history::Operation;
use crate::images::{self, Image};
use crate::model::can_serve;
use crate::rendezvous::Rendezvous;
use crate::reply::{Reply, Words, line, word};
use crate::round::Session;
use crate::scans::{ScanLog, Scanner};
use crate::workload::{Batch, Generator};
use anyhow::{Context, Result, bail};
use client_tests::random::Random;
use client_tests::tools;
use client_tests::wait::wait_until;
use client_tests::wire::RawConnection;
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

const CLIENTS: usize = 4;
const SCANNERS: usize = 2;
/// Batches between two meetings.
const MEET_EVERY: u64 = 50;
/// Commands that one client sends at a meeting.
const ALONE: u64 = 10;
/// Images before SIGKILL.
const BEFORE_A_KILL: usize = 2;
/// Reached only by a test that fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// Operations, each with the number of its group.
pub type Operations = Vec<(usize, Operation)>;

/// What the threads have recorded.
#[derive(Default)]
pub struct Load {
    pub operations: Operations,
    pub scans: ScanLog,
    pub images: Vec<Image>,
}

/// What the threads share.
pub struct Threads<'s> {
    session: &'s Session,
    shared: &'s Shared,
    /// The round ends with SIGKILL.
    kills: bool,
    /// Of each blocking client.
    blocked: Vec<BlockedCommand>,
    rendezvous: Rendezvous,
    /// Clients that have sent all their requests.
    finished: AtomicUsize,
}

impl<'s> Threads<'s> {
    pub fn new(session: &'s Session, kills: bool) -> Self {
        let blocked = (0..session.plan.blocking_clients).map(|_| BlockedCommand::default());
        Self {
            session,
            shared: &session.shared,
            kills,
            blocked: blocked.collect(),
            rendezvous: Rendezvous::new(CLIENTS),
            finished: AtomicUsize::new(0),
        }
    }

    /// Runs all threads. The images are taken on the calling one.
    pub fn run(&self, mut random: Random) -> Result<Load> {
        thread::scope(|scope| {
            let clients = (0..CLIENTS).map(|number| scope.spawn(move || self.client(number)));
            let clients = clients.collect::<Vec<_>>();
            let blocking = (0..self.blocked.len()).map(|number| {
                scope.spawn(move || self.shared.unless_killed(self.blocking_client(number)))
            });
            let blocking = blocking.collect::<Vec<_>>();
            let scanners = self.start_scanners(scope, &mut random);
            let mut load = Load::default();
            let mut results = vec![self.take_images(random).map(|images| load.images = images)];
            if self.kills {
                self.shared.killed.store(true, SeqCst);
                results.push(tools::signal(self.session.server.pid(), Signal::SIGKILL));
            }
            let clients = clients.into_iter();
            results.extend(clients.map(|one| join(one).map(|seen| load.operations.extend(seen))));
            self.shared.stop.store(true, SeqCst);
            if !self.kills {
                let is_over = || blocking.iter().all(ScopedJoinHandle::is_finished);
                results.push(self.unblock_all(is_over));
            }
            let blocking = blocking.into_iter();
            results.extend(blocking.map(|one| join(one).map(|seen| load.operations.extend(seen))));
            let scanners = scanners.into_iter();
            results.extend(scanners.map(|one| join(one).map(|seen| load.scans.add(seen))));
            results.into_iter().collect::<Result<()>>().map(|()| load)
        })
    }

    fn start_scanners<'t>(
        &'t self,
        scope: &'t Scope<'t, '_>,
        random: &mut Random,
    ) -> Vec<ScopedJoinHandle<'t, Result<ScanLog>>> {
        let start = |number| {
            let random = Random::new(random.next());
            scope.spawn(move || self.shared.unless_killed(self.scanner(number, random)))
        };
        (0..SCANNERS).map(start).collect()
    }

    fn generator(&self, number: usize) -> Generator<'s> {
        let session = self.session;
        Generator::new(&session.plan.groups, session.seed, session.round, number)
    }

    fn connect(&self, number: usize) -> Result<Client<'s>> {
        Ok(Client::new(self.shared, self.session.server.raw()?, number))
    }

    /// Runs a client that sends no blocking commands.
    fn client(&self, number: usize) -> Result<Operations> {
        let result = self.shared.unless_killed(self.send(number));
        if self.kills || result.is_err() {
            self.rendezvous.release();
        }
        self.finished.fetch_add(1, SeqCst);
        result
    }

    fn send(&self, number: usize) -> Result<Operations> {
        let (mut client, mut requests) = (self.connect(number)?, self.generator(number));
        let mut control = self.session.server.raw()?;
        // SIGKILL ends the connections of a round that kills the server.
        let most = if self.kills { u64::MAX } else { self.session.plan.batches };
        for batch in 1..=most {
            if !client.run(requests.next())? {
                break;
            }
            if !self.kills && batch % MEET_EVERY == 0 {
                self.rendezvous.meet();
                if number == 0 {
                    self.send_alone(&mut client, &mut requests, &mut control)?;
                }
                self.rendezvous.meet();
            }
        }
        Ok(client.operations)
    }

    /// Sends commands while the other clients pause, and checks after each that it wakes blocked
    /// ones.
    fn send_alone(
        &self,
        client: &mut Client<'_>,
        requests: &mut Generator<'_>,
        control: &mut RawConnection,
    ) -> Result<()> {
        self.all_are_served(control)?;
        for _ in 0..ALONE {
            client.run(requests.next_waking())?;
            let last = || client.operations.last().map(|(_, last)| format!("after {last}"));
            self.all_are_served(control).with_context(|| last().unwrap_or_default())?;
        }
        Ok(())
    }

    /// Checks that a command does not stay blocked when its key has elements. Nothing else changes
    /// the keys.
    fn all_are_served(&self, control: &mut RawConnection) -> Result<()> {
        let mut forgotten = None;
        let none = || {
            forgotten = None;
            for blocked in &self.blocked {
                let Some(command) = blocked.get() else { continue };
                if is_servable(control, &command)? {
                    forgotten = Some((blocked, command));
                }
            }
            Ok(forgotten.is_none())
        };
        let served = wait_until(none, DEADLINE, "blocked commands to be served");
        let Some((blocked, command)) = forgotten else { return served };
        let id = blocked.id.get().copied().unwrap_or_default().to_string();
        let client = control.text(&["CLIENT", "LIST", "ID", &id])?;
        bail!("blocked although its key has elements: {}; client: {client}", line(&command))
    }

    /// Runs a client that sends only blocking commands.
    fn blocking_client(&self, number: usize) -> Result<Operations> {
        let blocked = &self.blocked[number];
        let mut client = self.connect(CLIENTS + number)?;
        let mut requests = self.generator(CLIENTS + number);
        blocked.id.set(client.expect_to_block()?).ok();
        while !self.shared.is_stopped() {
            let (group, request) = requests.next_blocking();
            blocked.set(request.commands().first().cloned());
            let batch = Batch { requests: vec![(group, request)], is_pipelined: false };
            let goes_on = client.run(batch)?;
            blocked.set(None);
            if !goes_on {
                break;
            }
        }
        Ok(client.operations)
    }

    fn scanner(&self, number: usize, random: Random) -> Result<ScanLog> {
        let (shared, port) = (self.shared, self.session.server.port());
        if self.session.plan.rules.may_evict {
            return fill_memory(shared, port, random).map(|()| ScanLog::default());
        }
        let timeline = &self.session.verifier.timeline;
        Scanner::connect(shared, port, number, random, timeline)?.run()
    }

    /// Takes images until the clients are finished, or as many as precede SIGKILL.
    fn take_images(&self, mut random: Random) -> Result<Vec<Image>> {
        let Session { server, plan, round, .. } = self.session;
        let mut images = Vec::new();
        loop {
            let name = format!("image {} of round {round}", images.len() + 1);
            let (shared, groups) = (self.shared, &plan.groups);
            images.push(images::save_and_restore(server, shared, groups, name, &mut random)?);
            let is_over = match self.kills {
                true => images.len() >= BEFORE_A_KILL,
                false => self.finished.load(SeqCst) == CLIENTS,
            };
            if is_over {
                return Ok(images);
            }
        }
    }

    /// Ends the commands that are still blocked, none of which may have a key with elements.
    fn unblock_all(&self, is_over: impl Fn() -> bool) -> Result<()> {
        let mut control = self.session.server.raw()?;
        let served = self.all_are_served(&mut control);
        let unblocked = || {
            for id in self.blocked.iter().filter_map(|blocked| blocked.id.get()) {
                control.exchange(&["CLIENT", "UNBLOCK", &id.to_string()])?;
            }
            Ok(is_over())
        };
        wait_until(unblocked, DEADLINE, "unblocked clients to end")?;
        served
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| bail!("a thread of the load panicked"))
}

/// Whether a blocked command would have a reply now.
fn is_servable(raw: &mut RawConnection, command: &Words) -> Result<bool> {
    if let Some(block) = command.iter().position(|one| one[..] == *b"BLOCK") {
        let mut plain = command.clone();
        plain.drain(block..block + 2);
        // A value of another type does not end the wait.
        return Ok(matches!(pipeline(raw, &[plain])?[..], [Reply::Array(_)]));
    }
    // BLMOVE blocks on its source only.
    let most = if command[0][..] == *b"BLMOVE" { 1 } else { usize::MAX };
    let keys = command[1..].iter().filter(|word| word.contains(&b':')).take(most);
    for key in keys {
        let kind = pipeline(raw, &[vec![word("TYPE"), key.clone()]])?;
        if let [Reply::Simple(kind)] = &kind[..]
            && can_serve(&command[0], kind)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes large strings under new names until the round ends, so that other keys are evicted.
fn fill_memory(shared: &Shared, port: u16, mut random: Random) -> Result<()> {
    let mut raw = RawConnection::connect(port)?;
    let value = "x".repeat(400_000);
    while !shared.is_stopped() {
        let key = format!("ballast {}", random.below(1_000_000));
        let length = usize::try_from(random.below(value.len() as u64))?;
        raw.exchange(&["SET", &key, &value[..length]])?;
    }
    Ok(())
}

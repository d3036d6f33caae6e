//! The threads of a round, and what they see.
//!
//! ```text
//!   clients    |-- random commands on all groups --|- meet -|-- ... --|            |
//!   waiters    |-- BLPOP and its kin ----------------------------------|- unblock -|
//!   scanners   |-- SCAN, elements come and go --------------------------------|    |
//!   main       | BGSAVE, restore beside, BGSAVE, ...                          |    | or SIGKILL
//! ```
//!
//! Where the clients meet, one of them goes on alone: a command that waits must then have been
//! served as soon as its key has elements.

use crate::client::{Client, Shared, Waiting};
use crate::contents::pipeline;
use crate::gate::Gate;
use crate::history::Operation;
use crate::images::{self, Image};
use crate::model::waits_for;
use crate::reply::{Reply, Words, word};
use crate::round::Session;
use crate::scans::{Scanner, Seen};
use crate::workload::{Batch, Generator};
use anyhow::{Result, bail};
use client_tests::random::Random;
use client_tests::tools;
use client_tests::wait::wait_until;
use client_tests::wire::RawConnection;
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

const CLIENTS: usize = 4;
const WAITERS: usize = 3;
const SCANNERS: usize = 2;
/// Batches after which the clients meet.
const MEET_EVERY: u64 = 50;
/// Commands that one client sends while the others stand still.
const ALONE: u64 = 10;
/// Images of a round that kills the server.
const BEFORE_A_KILL: usize = 2;
/// A failure of a test, not its usual course.
const DEADLINE: Duration = Duration::from_secs(20);

/// Each with its group.
pub type Operations = Vec<(usize, Operation)>;

/// What the threads have seen.
#[derive(Default)]
pub struct Load {
    pub operations: Operations,
    pub seen: Seen,
    pub images: Vec<Image>,
}

/// What the threads share.
pub struct Threads<'s> {
    session: &'s Session,
    shared: &'s Shared,
    kills: bool,
    waiting: [Waiting; WAITERS],
    gate: Gate,
    /// Clients that have sent all their requests.
    finished: AtomicUsize,
}

impl<'s> Threads<'s> {
    pub fn new(session: &'s Session, kills: bool) -> Self {
        Self {
            session,
            shared: &session.shared,
            kills,
            waiting: Default::default(),
            gate: Gate::new(CLIENTS),
            finished: AtomicUsize::new(0),
        }
    }

    /// Runs all threads; the images are taken on this one.
    pub fn run(&self, mut random: Random) -> Result<Load> {
        thread::scope(|scope| {
            let clients = (0..CLIENTS).map(|number| scope.spawn(move || self.client(number)));
            let clients = clients.collect::<Vec<_>>();
            let waiters = (0..WAITERS)
                .map(|number| scope.spawn(move || self.shared.unless_killed(self.waiter(number))));
            let waiters = waiters.collect::<Vec<_>>();
            let scanners = self.start_scanners(scope, &mut random);
            let mut load = Load::default();
            let mut results = vec![self.take_images(random).map(|images| load.images = images)];
            if self.kills {
                self.shared.killed.store(true, SeqCst);
                results.push(tools::signal(self.session.server.pid(), Signal::SIGKILL));
            }
            results.extend(
                clients.into_iter().map(|one| join(one).map(|seen| load.operations.extend(seen))),
            );
            self.shared.stop.store(true, SeqCst);
            if !self.kills {
                results.push(self.end_waits(|| waiters.iter().all(ScopedJoinHandle::is_finished)));
            }
            results.extend(
                waiters.into_iter().map(|one| join(one).map(|seen| load.operations.extend(seen))),
            );
            results
                .extend(scanners.into_iter().map(|one| join(one).map(|seen| load.seen.add(seen))));
            results.into_iter().collect::<Result<()>>().map(|()| load)
        })
    }

    fn start_scanners<'t>(
        &'t self,
        scope: &'t Scope<'t, '_>,
        random: &mut Random,
    ) -> Vec<ScopedJoinHandle<'t, Result<Seen>>> {
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

    /// A client that never waits.
    fn client(&self, number: usize) -> Result<Operations> {
        let result = self.shared.unless_killed(self.send(number));
        // Others may be at the gate, where one is missing now.
        if self.kills || result.is_err() {
            self.gate.open();
        }
        self.finished.fetch_add(1, SeqCst);
        result
    }

    fn send(&self, number: usize) -> Result<Operations> {
        let (mut client, mut requests) = (self.connect(number)?, self.generator(number));
        let mut control = self.session.server.raw()?;
        // The end of a round that kills the server is the end of its connections.
        let most = if self.kills { u64::MAX } else { self.session.plan.batches };
        for batch in 1..=most {
            if !client.run(requests.next())? {
                break;
            }
            if !self.kills && batch % MEET_EVERY == 0 {
                self.gate.meet();
                if number == 0 {
                    self.go_on_alone(&mut client, &mut requests, &mut control)?;
                }
                self.gate.meet();
            }
        }
        Ok(client.operations)
    }

    /// Sends commands while no other client does; each serves those that wait.
    fn go_on_alone(
        &self,
        client: &mut Client<'_>,
        requests: &mut Generator<'_>,
        control: &mut RawConnection,
    ) -> Result<()> {
        self.all_are_served(control)?;
        for _ in 0..ALONE {
            client.run(requests.next_of_waiting())?;
            self.all_are_served(control)?;
        }
        Ok(())
    }

    /// No command may wait for what is there.
    fn all_are_served(&self, control: &mut RawConnection) -> Result<()> {
        let mut forgotten = None;
        let none = || {
            forgotten = None;
            for command in self.waiting.iter().filter_map(Waiting::get) {
                if is_servable(control, &command)? {
                    forgotten = Some(command);
                }
            }
            Ok(forgotten.is_none())
        };
        let served = wait_until(none, DEADLINE, "commands that wait to be served");
        let Some(command) = forgotten else { return served };
        bail!("what it waits for is there, yet this waits: {}", crate::reply::line(&command))
    }

    /// A client whose commands wait for keys.
    fn waiter(&self, number: usize) -> Result<Operations> {
        let waiting = &self.waiting[number];
        let (mut client, mut requests) =
            (self.connect(CLIENTS + number)?, self.generator(CLIENTS + number));
        waiting.id.set(client.expect_to_wait()?).ok();
        while !self.shared.is_stopped() {
            let (group, request) = requests.next_wait();
            waiting.set(request.commands().first().cloned());
            let batch = Batch { requests: vec![(group, request)], is_pipelined: false };
            let goes_on = client.run(batch)?;
            waiting.set(None);
            if !goes_on {
                break;
            }
        }
        Ok(client.operations)
    }

    fn scanner(&self, number: usize, random: Random) -> Result<Seen> {
        let (shared, port) = (self.shared, self.session.server.port());
        if self.session.plan.rules.may_evict {
            return fill_memory(shared, port, random).map(|()| Seen::default());
        }
        let timeline = &self.session.verifier.timeline;
        Scanner::connect(shared, port, number, random, timeline)?.run()
    }

    /// Takes images until the load is over, or as many as a round has that kills the server.
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

    /// Ends the commands that still wait, none of which may have anything to wait for.
    fn end_waits(&self, is_over: impl Fn() -> bool) -> Result<()> {
        let mut control = self.session.server.raw()?;
        let served = self.all_are_served(&mut control);
        let unblocked = || {
            for id in self.waiting.iter().filter_map(|waiting| waiting.id.get()) {
                control.exchange(&["CLIENT", "UNBLOCK", &id.to_string()])?;
            }
            Ok(is_over())
        };
        wait_until(unblocked, DEADLINE, "clients that were unblocked")?;
        served
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| bail!("a thread of the load panicked"))
}

/// Whether a command that waits would find something now.
fn is_servable(raw: &mut RawConnection, command: &Words) -> Result<bool> {
    if let Some(block) = command.iter().position(|one| one[..] == *b"BLOCK") {
        let mut plain = command.clone();
        plain.drain(block..block + 2);
        return Ok(pipeline(raw, &[plain])? != [Reply::Nil]);
    }
    // BLMOVE waits for the first of its keys only.
    let most = if command[0][..] == *b"BLMOVE" { 1 } else { usize::MAX };
    let keys = command[1..].iter().filter(|word| word.contains(&b':')).take(most);
    for key in keys {
        let kind = pipeline(raw, &[vec![word("TYPE"), key.clone()]])?;
        if let [Reply::Simple(kind)] = &kind[..]
            && waits_for(&command[0], kind)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes large strings under new names until told to stop, so that other keys have to go.
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

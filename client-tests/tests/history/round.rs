//! One session with a server: rounds of load, each checked before the next begins.

use crate::checker::Rules;
use crate::client::Shared;
use crate::history::History;
use crate::images::{Contents, Image};
use crate::load::{Load, Threads};
use crate::scans;
use crate::verifier::{Verifier, histories};
use crate::workload::Group;
use anyhow::{Context, Result, ensure};
use client_tests::random::Random;
use client_tests::server::{Server, ServerBuilder};
use std::sync::atomic::Ordering::SeqCst;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: &'static str,
    pub rules: Rules,
    /// Batches of requests of each client in each round.
    pub batches: u64,
    /// Number of clients that send blocking commands.
    pub blocking_clients: usize,
    pub groups: Vec<Group>,
}

/// A server and all that is known of its contents.
pub struct Session {
    pub plan: Plan,
    pub seed: u64,
    pub server: Server,
    pub shared: Shared,
    pub round: u64,
    pub verifier: Verifier,
    random: Random,
}

impl Session {
    pub fn start(plan: Plan, builder: ServerBuilder, seed: u64) -> Result<Self> {
        let server = builder.start()?;
        let shared = Shared::default();
        let timeline = match plan.rules.may_evict {
            // Nothing is certainly there.
            true => scans::Timeline::default(),
            false => scans::fill(&mut server.raw()?, &shared)?,
        };
        let verifier = Verifier::new(plan.clone(), seed, timeline);
        let random = Random::new(seed);
        Ok(Self { plan, seed, server, shared, round: 0, verifier, random })
    }

    /// One round. `kills`: it ends with SIGKILL amid the load, and a restart.
    pub fn round(&mut self, kills: bool) -> Result<()> {
        let load = self.load(kills)?;
        let end = if kills {
            let last = load.images.last().context("no image before the restart")?;
            self.restart(last)?
        } else {
            self.read()?
        };
        self.server.text(&["DEBUG", "VERIFY"])?;
        self.verifier.check(load, &end, kills)
    }

    /// One round, not checked: what each group has seen.
    pub fn record(&mut self) -> Result<Vec<History>> {
        let load = self.load(false)?;
        let end = self.read()?;
        let images = load.images.iter().chain([&end]);
        Ok(histories(self.plan.groups.len(), load.operations, images))
    }

    fn load(&mut self, kills: bool) -> Result<Load> {
        self.round += 1;
        self.shared.stop.store(false, SeqCst);
        self.shared.killed.store(false, SeqCst);
        let random = Random::new(self.random.next());
        Threads::new(self, kills).run(random)
    }

    /// The content of the server while nothing changes it.
    fn read(&self) -> Result<Image> {
        let (from, mut raw) = (self.shared.clock.tick(), self.server.raw()?);
        let to = self.shared.clock.tick();
        let contents = Contents::read(&mut raw, &self.plan.groups, from, to)?;
        Ok(Image { name: "the idle server".into(), from, to, digest: String::new(), contents })
    }

    /// Starts the server again, and checks that it has loaded its last image.
    fn restart(&mut self, last: &Image) -> Result<Image> {
        self.server.restart()?;
        self.verifier.counts.restarts += 1;
        let digest = self.server.digest()?;
        ensure!(digest == last.digest, "{}: saved {}, but loaded {digest}", last.name, last.digest);
        let mut raw = self.server.raw()?;
        let contents = Contents::read(&mut raw, &self.plan.groups, last.from, last.to)?;
        ensure!(contents == last.contents, "{}: the restarted server has other keys", last.name);
        let (from, to) = (self.shared.clock.tick(), self.shared.clock.tick());
        Ok(Image { name: "the restart".into(), from, to, digest, contents })
    }
}

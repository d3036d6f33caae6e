//! What all connections share: the keyspace, the configuration, the clients, the figures.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use crate::clients::{BlockedClients, ClientRegistry, Notifications, PubSub};
use crate::clock::Timestamp;
use crate::config::{Config, LiveConfig, MaxmemoryPolicy};
use crate::keyspace::{DATABASES, Keyspace};
use crate::telemetry::Telemetry;
use crate::telemetry::logging::Logging;

use super::sampled_stats::SampledStats;
use super::table::CommandTable;

/// The version of Redis whose behaviour clients find here.
pub const REDIS_VERSION: &str = "7.4.0";

/// Switches that tests set through DEBUG.
#[derive(Debug)]
pub struct Hooks {
    /// Whether expired keys are looked for (DEBUG SET-ACTIVE-EXPIRE).
    pub active_expire: AtomicBool,
    /// Whether each save computes the digest of the keyspace inside its safepoint (DEBUG
    /// CHECKPOINT-DIGEST).
    pub checkpoint_digest: AtomicBool,
    /// Microseconds that a checkpoint's child sleeps after each chunk (DEBUG CHECKPOINT-DELAY).
    pub checkpoint_delay: AtomicU64,
}

/// What all connections share.
pub struct Shared {
    /// All keys and values.
    pub keyspace: Keyspace,
    /// The configuration.
    pub config: Arc<LiveConfig>,
    /// The command table.
    pub table: CommandTable,
    /// The connected clients.
    pub clients: ClientRegistry,
    /// Who subscribes to what.
    pub pubsub: Arc<PubSub>,
    /// Which keyspace events are published.
    pub notifications: Arc<Notifications>,
    /// The clients whose command waits for a key.
    pub blocked_clients: BlockedClients,
    /// What the server counts.
    pub telemetry: Arc<Telemetry>,
    /// Mean time to live of each database's keys, in milliseconds, as last sampled.
    pub ttl_samples: [AtomicU64; DATABASES],
    /// What is sampled of huge pages.
    pub sampled: SampledStats,
    /// The log, so that its level can be changed.
    pub logging: OnceLock<Logging>,
    /// Switches for tests.
    pub hooks: Hooks,
    /// Set when the final image is taken: from then on no command runs, so that nothing is
    /// acknowledged that is not in it.
    pub closing: AtomicBool,
    /// Forty random hexadecimal digits that name this run of the server.
    pub run_id: String,
    /// When the server started, wall clock in milliseconds.
    pub started_at: i64,
}

impl Shared {
    /// What a server that starts at `now` shares; `threads` of it count.
    ///
    /// # Errors
    /// The configuration renames a command that does not exist.
    pub fn new(
        keyspace: Keyspace,
        config: Arc<LiveConfig>,
        threads: usize,
        now: i64,
    ) -> Result<Self, String> {
        let current = config.current();
        let renames: Vec<(String, String)> =
            current.rename_command.iter().map(|r| (r.from.clone(), r.to.clone())).collect();
        let table = CommandTable::new(super::all(), &renames)?;
        let names = table.rows().iter().map(|row| row.name.clone()).collect();
        let families = table.rows().iter().map(|row| row.command.group.name()).collect();
        let shared = Self {
            keyspace,
            config,
            table,
            telemetry: Telemetry::new(threads, names, families),
            ttl_samples: [const { AtomicU64::new(0) }; DATABASES],
            sampled: SampledStats::default(),
            logging: OnceLock::new(),
            clients: ClientRegistry::default(),
            pubsub: Arc::default(),
            notifications: Arc::default(),
            blocked_clients: BlockedClients::default(),
            hooks: Hooks {
                active_expire: AtomicBool::new(true),
                checkpoint_digest: AtomicBool::new(false),
                checkpoint_delay: AtomicU64::new(0),
            },
            closing: AtomicBool::new(false),
            run_id: run_id(now),
            started_at: now,
        };
        shared.notifications.attach(&shared.keyspace, &shared.pubsub);
        shared.apply(&current);
        Ok(shared)
    }

    /// Brings what follows from the configuration in line with it.
    pub fn apply(&self, config: &Config) {
        let capacity = self.keyspace.arena().capacity();
        let maxmemory = match config.maxmemory {
            0 => capacity,
            bytes => bytes.min(capacity),
        };
        self.keyspace.memory_limit().set_maxmemory(maxmemory);
        let policy = config.maxmemory_policy;
        let lfu = matches!(policy, MaxmemoryPolicy::AllkeysLfu | MaxmemoryPolicy::VolatileLfu);
        self.keyspace.clocks().set_lfu_parameters(config.lfu_log_factor, config.lfu_decay_time);
        if lfu != self.keyspace.clocks().is_lfu() {
            self.keyspace.clocks().set_lfu(lfu);
        }
        self.notifications.apply(config, &self.keyspace);
        self.telemetry.set_latency_tracking(config.latency_tracking);
        self.telemetry.set_slow(
            config.slowlog_log_slower_than,
            config.slowlog_max_len,
            config.latency_monitor_threshold,
        );
        if let Some(logging) = self.logging.get() {
            logging.set_level(config.loglevel);
        }
    }
}

impl Shared {
    /// Changes that the last save does not hold.
    pub fn changes_since_checkpoint(&self) -> u64 {
        let changes = self.keyspace.stats().changes;
        self.telemetry.persistence().status(Timestamp::now(), changes).changes_since_checkpoint
    }
}

/// Forty hexadecimal digits from the kernel's random numbers.
fn run_id(now: i64) -> String {
    let mut bytes = [0u8; 20];
    let random = std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    if random.is_err() {
        bytes[..8].copy_from_slice(&now.to_le_bytes());
        bytes[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! The state that all connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::clients::{BlockedClients, ClientRegistry, ClientTracking, Notifications, PubSub};
use crate::clock::Timestamp;
use crate::config::{Config, LiveConfig, MaxmemoryPolicy};
use crate::keyspace::{DATABASES, Keyspace};
use crate::scripting::Scripting;
use crate::telemetry::logging::Logging;
use crate::telemetry::{Telemetry, private_bytes};

use super::huge_page_samples::HugePageSamples;
use super::table::CommandTable;

/// The Redis version that the server is compatible with, and reports.
pub const REDIS_VERSION: &str = "7.4.0";

/// Switches of DEBUG, for tests.
#[derive(Debug)]
pub struct DebugHooks {
    /// Whether the background thread removes expired keys (DEBUG SET-ACTIVE-EXPIRE).
    pub active_expire: AtomicBool,
    /// Whether the background thread does nothing (DEBUG PAUSE-CRON).
    pub pause_cron: AtomicBool,
    /// Whether each checkpoint computes the digest of the keyspace inside its safepoint (DEBUG
    /// CHECKPOINT-DIGEST).
    pub checkpoint_digest: AtomicBool,
    /// Microseconds that the child of a checkpoint sleeps after each chunk (DEBUG
    /// CHECKPOINT-DELAY).
    pub checkpoint_delay: AtomicU64,
}

/// The part of the state that does not depend on the keyspace: it is there before the image is
/// read, and what clients have set up in it meanwhile stays. Clones share it.
#[derive(Clone)]
pub struct KeylessState {
    /// The running configuration.
    pub config: Arc<LiveConfig>,
    /// The command table.
    pub table: Arc<CommandTable>,
    /// The connected clients.
    pub clients: Arc<ClientRegistry>,
    /// Channels, patterns and their subscribers.
    pub pubsub: Arc<PubSub>,
    /// The clients that track keys, and these keys.
    pub tracking: Arc<ClientTracking>,
    /// Counters and histograms.
    pub telemetry: Arc<Telemetry>,
    /// The log, whose level the configuration sets; `None` for that of a test.
    pub logging: Option<Logging>,
    /// Forty random hexadecimal digits that identify this process, for INFO.
    pub run_id: Arc<str>,
    /// Private memory of the process before the arena is reserved.
    pub startup_bytes: u64,
}

impl KeylessState {
    /// The state of a server that starts at `now` with a command table. The telemetry counts
    /// `threads` threads apart.
    pub(super) fn with_table(
        config: Arc<LiveConfig>,
        table: CommandTable,
        threads: usize,
        now: i64,
    ) -> Self {
        let names = table.rows().iter().map(|row| row.name.clone()).collect();
        let families = table.rows().iter().map(|row| row.command.group.name()).collect();
        let clients = Arc::<ClientRegistry>::default();
        Self {
            config,
            table: Arc::new(table),
            tracking: Arc::new(ClientTracking::new(Arc::clone(&clients))),
            clients,
            pubsub: Arc::default(),
            telemetry: Telemetry::new(threads, names, families),
            logging: None,
            run_id: run_id(now).into(),
            startup_bytes: private_bytes(),
        }
    }
}

/// The state that all connections share.
pub struct Shared {
    /// The keys and values.
    pub keyspace: Keyspace,
    /// While the image is being read, the bytes of the arena that it is read into. `keyspace` is
    /// another one then, which is empty and stays so: only commands that name no key run.
    pub loading_capacity: Option<u64>,
    /// The running configuration.
    pub config: Arc<LiveConfig>,
    /// The command table.
    pub table: Arc<CommandTable>,
    /// The connected clients.
    pub clients: Arc<ClientRegistry>,
    /// Channels, patterns and their subscribers.
    pub pubsub: Arc<PubSub>,
    /// The clients that track keys, and these keys.
    pub tracking: Arc<ClientTracking>,
    /// The configuration of keyspace notifications.
    pub notifications: Arc<Notifications>,
    /// The clients that are blocked on keys.
    pub blocked_clients: BlockedClients,
    /// Scripts and functions.
    pub scripting: Scripting,
    /// Counters and histograms.
    pub telemetry: Arc<Telemetry>,
    /// Mean time to live of the keys of each database, in milliseconds, as last sampled.
    pub ttl_samples: [AtomicU64; DATABASES],
    /// Samples of the huge page pool and of the arena.
    pub sampled: HugePageSamples,
    /// The log, whose level the configuration sets; `None` for that of a test.
    pub logging: Option<Logging>,
    /// Switches of DEBUG, for tests.
    pub hooks: DebugHooks,
    /// Set under all locks before the final checkpoint: from then on no command runs, so that every
    /// acknowledged write is in the image.
    pub closing: AtomicBool,
    /// Forty random hexadecimal digits that identify this process, for INFO.
    pub run_id: Arc<str>,
    /// Private memory of the process before the arena was reserved.
    pub startup_bytes: u64,
}

impl Shared {
    /// The state of a server that serves `keyspace`.
    pub fn serving(state: &KeylessState, keyspace: Keyspace) -> Self {
        Self::with_keyspace(state, keyspace, None)
    }

    /// The state of a server that reads its image into an arena of `capacity` bytes. `empty` stands
    /// in for the keyspace.
    pub fn loading(state: &KeylessState, empty: Keyspace, capacity: u64) -> Self {
        Self::with_keyspace(state, empty, Some(capacity))
    }

    fn with_keyspace(
        state: &KeylessState,
        keyspace: Keyspace,
        loading_capacity: Option<u64>,
    ) -> Self {
        let state = state.clone();
        let KeylessState { config, table, clients, pubsub, tracking, telemetry, logging, .. } =
            state;
        let current = config.current();
        let shared = Self {
            keyspace,
            loading_capacity,
            config,
            table,
            telemetry,
            ttl_samples: [const { AtomicU64::new(0) }; DATABASES],
            sampled: HugePageSamples::default(),
            logging,
            clients,
            pubsub,
            tracking,
            notifications: Arc::default(),
            blocked_clients: BlockedClients::default(),
            scripting: Scripting::default(),
            hooks: DebugHooks {
                active_expire: AtomicBool::new(true),
                pause_cron: AtomicBool::new(false),
                checkpoint_digest: AtomicBool::new(false),
                checkpoint_delay: AtomicU64::new(0),
            },
            closing: AtomicBool::new(false),
            run_id: state.run_id,
            startup_bytes: state.startup_bytes,
        };
        shared.notifications.attach(&shared.keyspace, &shared.pubsub);
        shared.tracking.attach(&shared.keyspace);
        shared.apply(&current);
        shared
    }

    /// Applies a configuration to the parts of the state that depend on it.
    pub fn apply(&self, config: &Config) {
        let capacity = self.capacity();
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
        self.tracking.apply(config);
        self.telemetry.set_latency_tracking(config.latency_tracking);
        self.telemetry.set_slow(
            config.slowlog_log_slower_than,
            config.slowlog_max_len,
            config.latency_monitor_threshold,
        );
        if let Some(logging) = &self.logging {
            logging.set_level(config.loglevel);
        }
    }

    /// Bytes of the arena for the keys.
    pub fn capacity(&self) -> u64 {
        self.loading_capacity.unwrap_or_else(|| self.keyspace.arena().capacity())
    }

    /// Number of changes since the last checkpoint.
    pub fn changes_since_checkpoint(&self) -> u64 {
        let changes = self.keyspace.stats().changes;
        self.telemetry.persistence().status(Timestamp::now(), changes).changes_since_checkpoint
    }
}

/// Forty hexadecimal digits from the kernel's random numbers, or from the start time and the
/// process number where /dev/urandom cannot be read.
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

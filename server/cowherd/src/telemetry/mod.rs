//! Telemetry: counters, INFO, Prometheus metrics, the live page and the log.
//!
//! ```text
//!   worker 0 -- Recorder --> ThreadCounters 0 --.
//!   worker 1 -- Recorder --> ThreadCounters 1 --+-- summed on reading --> info     INFO
//!   engine --- events -----> Persistence -------'                    '--> metrics  /metrics
//!   engine --- StatsSource (on reading) ---------------------------------> live     /, /events
//! ```
//!
//! | file | content |
//! |---|---|
//! | `registry` | `Telemetry`, the object that holds all counters and reads their sums |
//! | `recorder` | `Recorder`, one per thread, the only writer of that thread's counters |
//! | `thread_counters` | the counters of one thread, and their sums |
//! | `blocked_failures` | counters of commands that fail while their client is blocked |
//! | `error_prefixes` | the first words of error replies, by which errors are counted |
//! | `checkpoint_epoch` | whether a checkpoint runs, and which one |
//! | `longest_command` | the longest command of a thread during a checkpoint |
//! | `persistence` | state of checkpoints and of the restore at the start |
//! | `checkpoint_record` | what one checkpoint did and cost, sums, and the history |
//! | `checkpoint_figures` | the table of those figures with their names in every output |
//! | `stats_source` | statistics that the engine supplies for each reading |
//! | `ring_buffer` | records from a thread that must not wait to a reader |
//! | `slowlog`, `latency_monitor` | SLOWLOG and LATENCY |
//! | `advice` | LATENCY DOCTOR and MEMORY DOCTOR |
//! | `rates`, `seconds` | commands and bytes per second; the last 600 seconds |
//! | `process` | figures of this process from the kernel |
//! | `logging` | the log |
//! | `info/` | INFO |
//! | `metrics/` | `/metrics`: families, text and protobuf formats, HTTP server |
//! | `live/` | the live page: JSON, event stream, scripts |
//!
//! Invariants:
//! 1. Recording takes a few plain loads and stores into memory of the thread's own: no lock, no
//!    system call, and no allocation except for the first use of a command or error word.
//! 2. Readers disturb no writer. CONFIG RESETSTAT stores a [`registry`] baseline that INFO
//!    subtracts; the counters themselves, which Prometheus reads, only grow.
//!
//! To add a figure:
//! 1. of a checkpoint, or of the costs of copy-on-write or undo log: see `checkpoint_figures`;
//! 2. counted per thread: a counter in `thread_counters`, its method in `recorder`, a line in
//!    `metrics/server_metrics` (and `info/redis_sections`), a row in docs/metrics.md;
//! 3. of the engine: a field in `stats_source` and its value in the engine's `StatsSource`, a line
//!    in `metrics/server_metrics` (or `info/redis_sections`), a row in docs/metrics.md.
//!
//! The module is a leaf: it imports only configuration and clock from this crate.

pub(crate) mod advice;
mod blocked_failures;
mod checkpoint_epoch;
mod checkpoint_figures;
mod checkpoint_record;
mod error_prefixes;
pub(crate) mod info;
mod latency_monitor;
mod live;
pub(crate) mod logging;
mod longest_command;
pub(crate) mod metrics;
mod persistence;
mod process;
mod rates;
mod recorder;
mod registry;
mod ring_buffer;
mod seconds;
mod slowlog;
mod stats_source;
mod thread_counters;

pub(crate) use checkpoint_figures::log_checkpoint;
pub(crate) use checkpoint_record::{CheckpointRecord, CheckpointStatus, LongestStall, StallCause};
pub(crate) use latency_monitor::{LatencyEvent, LatencyEventHistory, LatencySample};
pub(crate) use longest_command::LongestCommand;
pub(crate) use persistence::{CheckpointStart, ForkTimes, RestoreReport};
pub(crate) use process::{minor_faults_of_other_threads, private_bytes, resident_bytes};
pub(crate) use recorder::Recorder;
pub(crate) use registry::Telemetry;
pub(crate) use slowlog::{SlowCommand, SlowlogEntry};
pub(crate) use stats_source::{
    ArenaStats, ClientStats, CompactionState, DatabaseStats, EngineCounters, MemoryStats,
    ScriptStats, ServerInfo, StatsSnapshot, StatsSource, UndoLogLimits,
};
pub(crate) use stats_source::{HugePoolStats, ThpStats};

/// Whether commands are counted and timed at all. Off only to measure the cost of that.
pub(crate) const ENABLED: bool = cfg!(feature = "telemetry");

#[cfg(test)]
mod tests;

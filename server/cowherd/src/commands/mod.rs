//! The commands: a table with one row per command, and the handlers, one file or folder per family.
//!
//! A handler gets the arguments and the locked shards of its keys, and writes a reply. A handler
//! uses neither sockets nor checkpoints: actions of the engine or the connection (save, shut down,
//! close) are returned as an [`Effect`].
//!
//! Invariants:
//! 1. A handler that fails has changed nothing, and the engine replaces its reply by the error.
//! 2. A handler touches only the shards that its table row lets the engine lock, or, with
//!    [`LockScope::Handler`], those that it locks itself, one set at a time.
//!
//! Imports between the files have one cycle: `table` holds the handlers, a handler takes a
//! [`Call`], a `Call` lends [`Shared`], and `Shared` holds the `table`. To cut the cycle the table
//! would have to store handlers of an erased type, at the cost of an indirection per command and
//! without a check by the compiler. All other files are in layers above these three, and only this
//! file names all families.
//!
//! To add a command:
//! 1. Add a row to the `COMMANDS` of its family. [`Command`] lists the parts of a row.
//! 2. Write the handler, in the same file or beside it.
//! 3. Generate docs/commands.md anew (`page_tests`), and note there what differs from Redis.
//! 4. Test it in the family's `tests`: replies, errors, key types, events.
//!
//! A new family is also chained in [`all`].

mod bits;
mod blocking;
mod call;
mod client;
mod cluster;
mod command;
#[cfg(test)]
mod compaction_tests;
mod configuration;
mod connection;
mod databases;
mod debug;
mod element_scan;
mod error_reply;
mod expiry;
mod geo;
mod hashes;
mod huge_page_samples;
mod hyperloglog;
mod index_range;
mod info;
mod keys;
mod latency;
mod lists;
mod memory;
mod modules;
mod monitor;
mod multi_pop;
mod notifications;
mod object;
#[cfg(test)]
mod page_tests;
mod pubsub;
mod random;
#[cfg(test)]
mod removal_tests;
mod replication;
#[cfg(test)]
mod rollback_tests;
mod save;
mod scan;
mod scripting;
mod server;
mod sets;
mod shared;
mod slowlog;
mod sort;
mod sorted_sets;
mod stats_source;
mod streams;
mod strings;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod testing_blocking;
mod transaction;
mod value_reply;

use std::sync::Arc;

use crate::config::LiveConfig;
#[cfg(any(test, feature = "fuzzing"))]
use crate::keyspace::Keyspace;

pub use call::{Call, CheckpointAction, Effect, ReloadOptions, ShutdownOptions};
#[cfg(test)]
pub use command::{ArgumentChooser, generate_request};
pub use debug::import_keys;
pub use error_reply::{CommandResult, ErrorReply};
pub use scripting::ScriptCall;
pub use shared::REDIS_VERSION;
pub use shared::{KeylessState, Shared};
pub use slowlog::is_secret;
pub use table::CommandGroup;
pub use table::{Command, CommandFlags, CommandRow, CommandTable, LockScope};
pub use transaction::{exec_refused, queue_flags, queue_shards};

impl KeylessState {
    /// The state of a server that starts at `now`. The telemetry counts `threads` threads apart.
    ///
    /// # Errors
    /// `rename-command` names an unknown command, or a name in use.
    pub fn new(config: Arc<LiveConfig>, threads: usize, now: i64) -> Result<Self, String> {
        let current = config.current();
        let renames: Vec<(String, String)> =
            current.rename_command.iter().map(|r| (r.from.clone(), r.to.clone())).collect();
        let table = CommandTable::new(all(), &renames)?;
        Ok(Self::with_table(config, table, threads, now))
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Shared {
    /// The state of a server that starts with a keyspace.
    ///
    /// # Errors
    /// As [`KeylessState::new`].
    pub fn new(
        keyspace: Keyspace,
        config: Arc<LiveConfig>,
        threads: usize,
        now: i64,
    ) -> Result<Self, String> {
        Ok(Self::serving(&KeylessState::new(config, threads, now)?, keyspace))
    }
}

/// The rows of all commands.
pub fn all() -> impl Iterator<Item = &'static Command> {
    strings::COMMANDS
        .iter()
        .chain(bits::COMMANDS)
        .chain(hyperloglog::COMMANDS)
        .chain(lists::COMMANDS)
        .chain(hashes::COMMANDS)
        .chain(sorted_sets::COMMANDS)
        .chain(geo::COMMANDS)
        .chain(sets::COMMANDS)
        .chain(streams::COMMANDS)
        .chain(keys::COMMANDS)
        .chain(sort::COMMANDS)
        .chain(expiry::COMMANDS)
        .chain(databases::COMMANDS)
        .chain(scan::COMMANDS)
        .chain(object::COMMANDS)
        .chain(transaction::COMMANDS)
        .chain(memory::COMMANDS)
        .chain(latency::COMMANDS)
        .chain(slowlog::COMMANDS)
        .chain(info::COMMANDS)
        .chain(connection::COMMANDS)
        .chain(pubsub::COMMANDS)
        .chain(client::COMMANDS)
        .chain(command::COMMANDS)
        .chain(configuration::COMMANDS)
        .chain(server::COMMANDS)
        .chain(monitor::COMMANDS)
        .chain(replication::COMMANDS)
        .chain(cluster::COMMANDS)
        .chain(modules::COMMANDS)
        .chain(scripting::COMMANDS)
        .chain(debug::COMMANDS)
        .chain(save::COMMANDS)
        .chain(TEST_COMMANDS)
}

#[cfg(not(test))]
const TEST_COMMANDS: &[Command] = &[];
#[cfg(test)]
const TEST_COMMANDS: &[Command] = testing_blocking::COMMANDS;

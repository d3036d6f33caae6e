//! Configuration: redis.conf syntax, the command line, CONFIG GET, SET and REWRITE.
//!
//! One table (`table`) names every directive once, with its field, default, kind of value and
//! summary. Parsing, CONFIG GET and SET, the help text and the documentation tests all read it.
//!
//! ```text
//!   file, stdin, --options          CONFIG SET            CONFIG REWRITE
//!        |  words, load, args           |                      |
//!        v                              v                      v
//!     Loader ---> table: Directive { read, show, lines } <--- rewrite
//!                     |   one ValueKind per sort of value (values, choices, lists)
//!                     v
//!                  Config  --shared as--> LiveConfig --cached per worker--> CachedConfig
//! ```
//!
//! Invariants:
//! 1. What a directive shows, it reads back to the same value.
//! 2. A [`LiveConfig`] changes all the pairs of one CONFIG SET or none.
//! 3. No input text makes this module panic; every file, nesting and name is bounded.
//!
//! The module is a leaf: it imports no other room.

mod args;
mod choices;
mod error;
mod lists;
mod live;
mod load;
mod machine;
mod nearest;
mod rewrite;
mod table;
mod units;
mod unsupported;
mod values;
mod words;

#[cfg(test)]
mod tests;

pub(crate) use args::Startup;
pub(crate) use choices::{
    ArenaPages, CheckpointIsolation, DebugCommand, LogFormat, LogLevel, MaxmemoryPolicy,
    OomScoreAdj, Supervised,
};
pub(crate) use error::SetError;
pub(crate) use lists::{OutputLimit, OutputLimits};
pub(crate) use live::{CachedConfig, LiveConfig};
pub(crate) use machine::machine_memory;
pub(crate) use table::Config;
#[cfg(test)]
pub(crate) use table::{Directive, directives};
#[cfg(test)]
pub(crate) use unsupported::unsupported;

use unsupported::KnownDirective;

/// What `checkpoint-undo-limit 0` takes of `maxmemory`, in percent.
pub(crate) const AUTOMATIC_UNDO_PERCENT: u64 = 25;

/// What `maxmemory 0` takes of the memory that the machine or its cgroup grants, in percent.
pub(crate) const AUTOMATIC_MEMORY_PERCENT: u64 = 60;

impl Config {
    #[cfg(test)]
    /// A directive's value in the textual form of CONFIG GET: sizes in plain bytes, lists as one
    /// line. The name may be an alias and is matched without regard to case. None: unknown.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        match KnownDirective::find(name)? {
            KnownDirective::Own(directive) => Some(directive.show(self)),
            KnownDirective::Foreign(foreign) => foreign.reported.map(str::to_owned),
        }
    }

    #[cfg(test)]
    /// Sets one directive under the rules of CONFIG SET: only what may change at run time.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), SetError> {
        self.set_all(&[(name, value)])
    }

    /// Sets several directives, or none of them when one is refused.
    pub(crate) fn set_all(&mut self, pairs: &[(&str, &str)]) -> Result<(), SetError> {
        let mut targets: Vec<KnownDirective> = Vec::with_capacity(pairs.len());
        for (name, _) in pairs {
            let Some(target) = KnownDirective::find(name) else {
                return Err(SetError::Unknown { name: error::shorten(name) });
            };
            let name = || error::shorten(name);
            if let KnownDirective::Own(directive) = &target {
                if directive.protected {
                    return Err(SetError::Protected { name: name() });
                }
                if !directive.changeable {
                    return Err(SetError::Immutable { name: name() });
                }
            }
            if targets.contains(&target) {
                return Err(SetError::Duplicate { name: name() });
            }
            targets.push(target);
        }
        let mut changed = self.clone();
        for (target, (_, value)) in targets.iter().zip(pairs) {
            target.apply(&mut changed, &[(*value).to_owned()], true).map_err(|reason| {
                SetError::Value { name: target.name(), reason: reason.into_owned() }
            })?;
        }
        *self = changed;
        Ok(())
    }

    /// The size of the arena in bytes: `maxmemory`, or a share of the memory that this machine
    /// or cgroup grants. Reads /proc, so ask once at start.
    pub(crate) fn effective_maxmemory(&self) -> u64 {
        match self.maxmemory {
            0 => machine_memory().effective / 100 * AUTOMATIC_MEMORY_PERCENT,
            bytes => bytes,
        }
    }

    /// Bytes that the undo log may take beside data of `capacity` bytes.
    pub(crate) const fn effective_undo_limit(&self, capacity: u64) -> u64 {
        match self.checkpoint_undo_limit {
            0 => capacity / 100 * AUTOMATIC_UNDO_PERCENT,
            bytes => bytes,
        }
    }

    /// Remarks on accepted settings that do not do what they say, for the log at start.
    pub(crate) fn notes(&self) -> Vec<&'static str> {
        let mut notes = Vec::new();
        if !self.rdbchecksum {
            notes.push(
                "rdbchecksum no has no effect: every image carries checksums and they are checked",
            );
        }
        notes
    }
}

//! Configuration: redis.conf syntax, the command line, CONFIG GET, SET and REWRITE.
//!
//! One table (`directives`) describes every directive once: field, default, kind of value and
//! summary. Parsing, CONFIG GET and SET, the help text and the documentation tests all read it.
//!
//! ```text
//!   file, stdin, --options                CONFIG SET            CONFIG REWRITE
//!        |  quoting, loader, command_line      |                      |
//!        v                                     v                      v
//!     ConfigLoader ---> directives: Directive { read, show, lines } <--- rewrite
//!                     |   one ValueKind per kind of value (values, list_values, choices)
//!                     v
//!                  Config  --shared as--> LiveConfig --cached per worker--> CachedConfig
//! ```
//!
//! | file | content |
//! |---|---|
//! | `directives` | the table of directives, `Config` and its defaults |
//! | `values`, `list_values`, `choices` | kinds of values: one word, several words, one of a few |
//! | `units` | sizes with units |
//! | `quoting` | splitting a line into words, and quoting a word |
//! | `loader` | files, standard input, includes |
//! | `command_line` | the command line and the help text |
//! | `unsupported` | directives of Redis for features that Cowherd lacks |
//! | `suggestion` | the known name nearest to a misspelt one |
//! | `live_config` | the configuration of the running server |
//! | `rewrite` | CONFIG REWRITE |
//! | `machine_memory` | memory of the machine and limits of its cgroups |
//! | `errors` | error types and their messages |
//!
//! Invariants:
//! 1. The text that a directive shows reads back to the same value.
//! 2. A [`LiveConfig`] changes all the pairs of one CONFIG SET or none.
//! 3. No input text makes this module panic; every file, nesting and name is bounded.
//!
//! To add a directive:
//! 1. a row in `directives` (and a [`values::ValueKind`], if no existing kind fits);
//! 2. its line with a comment in cowherd.conf;
//! 3. examples in `tests`: `EXAMPLES`;
//! 4. the code that reads the new field of [`Config`].
//!
//! The module is a leaf: it imports nothing else from this crate.

mod choices;
mod command_line;
mod directives;
mod errors;
mod list_values;
mod live_config;
mod loader;
mod machine_memory;
mod quoting;
mod rewrite;
mod suggestion;
mod units;
mod unsupported;
mod values;

#[cfg(test)]
mod tests;

pub(crate) use choices::{
    ArenaPages, CheckpointIsolation, DebugCommand, LogFormat, LogLevel, MaxmemoryPolicy,
    OomScoreAdj, Supervised,
};
pub(crate) use command_line::Startup;
pub(crate) use directives::Config;
#[cfg(test)]
pub(crate) use directives::{Directive, directives};
pub(crate) use errors::SetError;
pub(crate) use list_values::{OutputLimit, OutputLimits, six_digits};
pub(crate) use live_config::{CachedConfig, LiveConfig};
pub(crate) use machine_memory::machine_memory;
pub(crate) use quoting::split_bytes as split_words;
pub(crate) use units::parse as parse_size;
#[cfg(test)]
pub(crate) use unsupported::unsupported;

use unsupported::KnownDirective;

/// Share of `maxmemory` that `checkpoint-undo-limit 0` stands for, in percent.
pub(crate) const AUTOMATIC_UNDO_PERCENT: u64 = 25;

/// Share of the memory of the machine or its cgroup that `maxmemory 0` stands for, in percent. The
/// rest is for the undo log, page tables, buffers and the kernel.
pub(crate) const AUTOMATIC_MEMORY_PERCENT: u64 = 60;

impl Config {
    /// A directive's value in the textual form of CONFIG GET: sizes in plain bytes, lists as one
    /// line. The name may be an alias, in any case. None: unknown.
    #[cfg(test)]
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        match KnownDirective::find(name)? {
            KnownDirective::Own(directive) => Some(directive.show(self)),
            KnownDirective::Foreign(foreign) => foreign.reported.map(str::to_owned),
        }
    }

    /// Sets one directive under the rules of CONFIG SET: only those that may change at run time.
    #[cfg(test)]
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), SetError> {
        self.set_all(&[(name, value)])
    }

    /// Sets several directives, or none of them if one is refused.
    pub(crate) fn set_all(&mut self, pairs: &[(&str, &str)]) -> Result<(), SetError> {
        let mut targets: Vec<KnownDirective> = Vec::with_capacity(pairs.len());
        for (name, _) in pairs {
            let Some(target) = KnownDirective::find(name) else {
                return Err(SetError::Unknown { name: (*name).to_owned() });
            };
            let name = || errors::shorten(name);
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
        for (target, (name, value)) in targets.iter().zip(pairs) {
            target.apply(&mut changed, &[(*value).to_owned()], true).map_err(|reason| {
                SetError::Value { name: name.to_ascii_lowercase(), reason: reason.into_owned() }
            })?;
        }
        *self = changed;
        Ok(())
    }

    /// The size of the arena in bytes: `maxmemory`, or a share of the memory of the machine or its
    /// cgroup. Reads /proc: for use at start only.
    pub(crate) fn effective_maxmemory(&self) -> u64 {
        match self.maxmemory {
            0 => machine_memory().effective / 100 * AUTOMATIC_MEMORY_PERCENT,
            bytes => bytes,
        }
    }

    /// The limit of the undo log in bytes, for an arena of `capacity` bytes.
    pub(crate) const fn effective_undo_limit(&self, capacity: u64) -> u64 {
        match self.checkpoint_undo_limit {
            0 => capacity / 100 * AUTOMATIC_UNDO_PERCENT,
            bytes => bytes,
        }
    }

    /// Warnings about accepted settings that have no effect, for the log at start.
    pub(crate) fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if !self.rdbchecksum {
            warnings.push(
                "rdbchecksum no has no effect: every image carries checksums and they are checked",
            );
        }
        warnings
    }
}

//! The configuration of the running server, shared by its threads.
//!
//! A writer replaces the whole [`Config`] and then increments the generation. A [`CachedConfig`]
//! compares one atomic number on each access and takes the lock only after a change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::directives::{Config, directives};
use super::errors::{RewriteError, SetError};
use super::rewrite;
use super::unsupported::unsupported;

/// The shared configuration, which CONFIG SET changes.
#[derive(Debug)]
pub(crate) struct LiveConfig {
    /// Incremented under the lock of `config`, after each change.
    generation: AtomicU64,
    config: Mutex<Arc<Config>>,
    /// The file to rewrite, as an absolute path.
    file: Option<PathBuf>,
    /// The working directory at start, against which relative includes of the file resolve.
    base: PathBuf,
    /// Held while the file is rewritten.
    rewriting: Mutex<()>,
}

impl LiveConfig {
    /// Shares a configuration. `file` is the target of CONFIG REWRITE.
    pub(crate) fn new(config: Config, file: Option<PathBuf>) -> Self {
        let base = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Self {
            generation: AtomicU64::new(0),
            config: Mutex::new(Arc::new(config)),
            file: file.map(|file| base.join(file)),
            base,
            rewriting: Mutex::new(()),
        }
    }

    /// The configuration of this moment.
    pub(crate) fn current(&self) -> Arc<Config> {
        Arc::clone(&self.config.lock())
    }

    /// A number that grows with every change.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The file that CONFIG REWRITE writes to.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// CONFIG SET: changes all the pairs, or none.
    #[cfg(test)]
    pub(crate) fn update(&self, pairs: &[(&str, &str)]) -> Result<(), SetError> {
        self.update_if(pairs, |_, _| Ok(()))
    }

    /// CONFIG SET with a check: `accept` gets the old and the new configuration, and an error
    /// changes nothing. `accept` runs under the lock, so it must be quick.
    pub(crate) fn update_if<E: From<SetError>>(
        &self,
        pairs: &[(&str, &str)],
        accept: impl FnOnce(&Config, &Config) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut current = self.config.lock();
        let mut changed = Config::clone(&current);
        changed.set_all(pairs)?;
        accept(&current, &changed)?;
        *current = Arc::new(changed);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// CONFIG REWRITE: updates the file, keeping its comments and order. Waits for the disk.
    pub(crate) fn rewrite(&self) -> Result<(), RewriteError> {
        let file = self.file.as_deref().ok_or(RewriteError::NoFile)?;
        let _alone = self.rewriting.lock();
        rewrite::rewrite(file, &self.base, &self.current())
    }

    /// CONFIG GET: names and values of the directives whose name matches, aliases included.
    /// `matches` gets names in lower case.
    pub(crate) fn matching(&self, matches: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let config = self.current();
        let mut found = Vec::new();
        for directive in directives().iter().filter(|directive| !directive.hidden) {
            for name in directive.names().filter(|name| matches(name)) {
                found.push((name.to_owned(), directive.show(&config)));
            }
        }
        for foreign in unsupported() {
            if let Some(value) = foreign.reported.filter(|_| matches(foreign.name)) {
                found.push((foreign.name.to_owned(), value.to_owned()));
            }
        }
        found
    }

    /// The configuration with its generation, read under one lock.
    fn current_with_generation(&self) -> (u64, Arc<Config>) {
        let config = self.config.lock();
        (self.generation(), Arc::clone(&config))
    }
}

/// One worker's cached copy of a [`LiveConfig`].
#[derive(Debug)]
pub(crate) struct CachedConfig {
    live: Arc<LiveConfig>,
    seen: u64,
    config: Arc<Config>,
}

impl CachedConfig {
    pub(crate) fn new(live: Arc<LiveConfig>) -> Self {
        let (seen, config) = live.current_with_generation();
        Self { live, seen, config }
    }

    /// The configuration of this moment; one atomic load unless it has changed.
    pub(crate) fn get(&mut self) -> &Config {
        if self.live.generation() != self.seen {
            (self.seen, self.config) = self.live.current_with_generation();
        }
        &self.config
    }
}

#[cfg(test)]
#[path = "live_config_tests.rs"]
mod tests;

//! The engine: runs requests against the keyspace, takes checkpoints and restores them.
//!
//! ```text
//! connection -- batch --> Worker -- locks, calls --> commands --> keyspace
//!                           |
//!                           '- Effect::Checkpoint -> CheckpointScheduler -safepoint-> checkpoint
//! background thread: expiry, eviction, freeing of memory, save points, samples
//! ```
//!
//! Invariants:
//! 1. A worker locks the shards that a command's row and keys name in one call, and holds them for
//!    that command or transaction only, never while it waits for a client.
//! 2. Only the checkpoint scheduler forks, and only at a safepoint, with all shards locked.

mod admission;
mod background;
mod checkpoint_run;
mod checkpoint_scheduler;
mod effects;
mod libraries;
mod loading;
#[cfg(test)]
mod loading_tests;
mod monitor;
mod open;
#[cfg(test)]
mod random_request_tests;
mod reload;
mod retry;
mod script;
mod serve_blocked;
mod stock_keeper;
mod thp_collapser;
mod timing;
mod transaction;
mod worker;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

pub(crate) use crate::commands::{KeylessState, Shared, ShutdownOptions};
pub(crate) use background::BackgroundThread;
pub(crate) use checkpoint_scheduler::CheckpointScheduler;
pub(crate) use cowherd_arena::checkpoint::DirLock;
pub(crate) use cowherd_lua::fiber::{Call as SuspendableCall, CallStack, Suspender};
pub(crate) use effects::BatchOutcome;
pub(crate) use loading::LoadingPhase;
pub(crate) use open::{OpenedKeyspace, RestoredImage, check_image, lock_directory, open};
pub(crate) use script::load_libraries;
pub(crate) use stock_keeper::StockKeeper;
pub(crate) use worker::Worker;

/// The engine of one server.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    checkpoint_scheduler: Arc<CheckpointScheduler>,
    on_stop: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Engine {
    pub(crate) fn new(
        shared: Arc<Shared>,
        checkpoint_scheduler: Arc<CheckpointScheduler>,
    ) -> Arc<Self> {
        Arc::new(Self { shared, checkpoint_scheduler, on_stop: Mutex::new(None) })
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) const fn checkpoint_scheduler(&self) -> &Arc<CheckpointScheduler> {
        &self.checkpoint_scheduler
    }

    /// Sets the callback that stops the server at the end of [`Self::shut_down`].
    pub(crate) fn on_stop(&self, stop: impl Fn() + Send + 'static) {
        *self.on_stop.lock() = Some(Box::new(stop));
    }

    /// Takes the last checkpoint, if `options` or the save points ask for one, and stops the
    /// server. The image holds every acknowledged write, and no command is acknowledged afterwards.
    /// A concurrent call waits for the first.
    ///
    /// While the image is being read there is nothing to save, whatever `options` say.
    ///
    /// # Errors
    /// The checkpoint failed and the shutdown was not forced: the server continues.
    pub(crate) fn shut_down(&self, options: ShutdownOptions) -> Result<(), String> {
        let on_stop = self.on_stop.lock();
        if self.shared.closing.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.shared.loading_capacity.is_some() {
            tracing::info!("The image is not read to its end and stays as it is. Bye");
            if let Some(stop) = on_stop.as_ref() {
                stop();
            }
            return Ok(());
        }
        let save = options.save.unwrap_or(!self.shared.config.current().save.is_empty());
        // The checkpoint, or the end without one, waits for the scripts that run.
        self.shared.scripting.running.end_all(options.save == Some(false));
        self.checkpoint_scheduler.close_for_shutdown();
        if save {
            tracing::info!("Saving the final checkpoint before exiting");
        }
        if let Err(error) = self.checkpoint_scheduler.checkpoint_on_shutdown(&self.shared, save) {
            if !options.force {
                self.checkpoint_scheduler.reopen();
                self.shared.scripting.running.end_none();
                return Err(error.to_string());
            }
            CheckpointScheduler::force_close(&self.shared);
        }
        tracing::info!("Bye");
        if let Some(stop) = on_stop.as_ref() {
            stop();
        }
        Ok(())
    }
}

//! The engine: runs commands against the keyspace, keeps the safepoint, saves and restores.
//!
//! ```text
//! connection --batch--> Worker --locks, calls--> commands --> keyspace
//!                          |
//!                          +-- Effect::Save --> CheckpointScheduler --safepoint--> checkpoint
//! background thread: expiry, flushed databases, free memory, save points, samples
//! ```
//!
//! Invariants:
//! 1. A worker locks the shards that a command's row and keys name, in one call, and holds them
//!    for that command only; never while it waits for anything.
//! 2. Only the saver forks, and only at the safepoint: all shards locked.

mod admission;
mod background;
mod checkpoint_run;
mod checkpoint_scheduler;
mod open;
#[cfg(test)]
mod random_request_tests;
mod retry;
mod serve_blocked;
mod slow_commands;
mod thp_collapser;
mod transaction;
mod worker;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

pub use crate::clients::{
    Client, ClientRegistry, ConnectionHandle, DeferredReply, KILLED, OUTPUT_PENDING, Origin,
    PendingReply, Session,
};
pub use crate::commands::{Effect, Shared, Shutdown};
pub use background::BackgroundThread;
pub use checkpoint_scheduler::{CheckpointRequest, CheckpointScheduler};
pub use open::{OpenedKeyspace, RestoredImage, StartError, check_image, open};
pub use worker::{BatchOutcome, Worker};

/// One server's engine.
pub struct Engine {
    shared: Arc<Shared>,
    saver: Arc<CheckpointScheduler>,
    stop: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Engine {
    /// The engine for what was opened.
    pub fn new(shared: Arc<Shared>, saver: Arc<CheckpointScheduler>) -> Arc<Self> {
        Arc::new(Self { shared, saver, stop: Mutex::new(None) })
    }

    /// What all connections share.
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What saves.
    pub const fn checkpoint_scheduler(&self) -> &Arc<CheckpointScheduler> {
        &self.saver
    }

    /// Sets what ends the server once a shutdown was decided.
    pub fn on_stop(&self, stop: impl Fn() + Send + 'static) {
        *self.stop.lock() = Some(Box::new(stop));
    }

    /// Saves as asked for, and then ends the server. Nothing that was acknowledged before is
    /// missing in the image, and nothing is acknowledged after it. A second caller waits for the
    /// first.
    ///
    /// # Errors
    /// The save failed and the shutdown was not forced: the server goes on.
    pub fn shut_down(&self, how: Shutdown) -> Result<(), String> {
        let stop = self.stop.lock();
        if self.shared.closing.load(Ordering::Relaxed) {
            return Ok(());
        }
        let save = how.save.unwrap_or(!self.shared.config.current().save.is_empty());
        self.saver.close_for_shutdown();
        if save {
            tracing::info!("Saving the final checkpoint before exiting");
        }
        if let Err(error) = self.saver.checkpoint_on_shutdown(&self.shared, save) {
            if !how.force {
                self.saver.reopen();
                return Err(error.to_string());
            }
            CheckpointScheduler::force_close(&self.shared);
        }
        tracing::info!("Bye");
        if let Some(stop) = stop.as_ref() {
            stop();
        }
        Ok(())
    }
}

//! The time before the keyspace is published: the image is being read, and clients are connected.
//!
//! ```text
//! restoring thread:  open -> Keyspace ------------------------.
//! worker:            Loading: interim engine, no keys         | publish
//!                    Serving: Engine of the keyspace   <------'
//! ```
//!
//! The restored keyspace belongs to the thread that restores it until [`LoadingPhase::publish`]
//! moves it into an [`Engine`]; no worker can name it before. Meanwhile the workers run commands
//! that need no key on an *interim engine*, with a keyspace of its own that is empty and the same
//! [`KeylessState`]: clients, subscriptions, configuration and counters are those that remain.
//!
//! Invariants:
//! 1. A batch runs as a whole before the publication or after it: a worker holds
//!    [`LoadingPhase::published`] while it runs one on the interim engine. So no CONFIG SET is
//!    applied to the interim engine only, and INFO says `loading:0` with the first key at the
//!    earliest.
//! 2. Nothing that a session keeps depends on the interim keyspace: commands that name keys do not
//!    run.

use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};

use super::{CheckpointScheduler, Engine, KeylessState, Shared};
use crate::keyspace::{Keyspace, OccupancyMap};
use crate::telemetry::{StatsSnapshot, StatsSource};
use cowherd_arena::{OpenError, PageKind, ReservedArena};

/// The keyspace that workers serve: none yet, or the published one.
pub(crate) struct LoadingPhase {
    published: RwLock<Option<Arc<Engine>>>,
    interim: Arc<Engine>,
    state: KeylessState,
}

impl LoadingPhase {
    /// Begins the phase of a server that restores an arena of `capacity` bytes. `end` ends the
    /// process; SHUTDOWN calls it.
    ///
    /// # Errors
    /// There is no memory for an empty keyspace.
    pub(crate) fn begin(
        state: &KeylessState,
        capacity: u64,
        end: impl Fn() + Send + 'static,
    ) -> Result<Arc<Self>, OpenError> {
        let empty = Keyspace::create(ReservedArena::reserve(PageKind::Small, 0)?, 0)?;
        let shared = Arc::new(Shared::loading(state, empty, capacity));
        let interim = Engine::new(shared, CheckpointScheduler::closed());
        interim.on_stop(end);
        let state = state.clone();
        Ok(Arc::new(Self { published: RwLock::new(None), interim, state }))
    }

    /// What exists before the keyspace and stays.
    pub(crate) const fn state(&self) -> &KeylessState {
        &self.state
    }

    /// The engine that has no keys.
    pub(super) const fn interim(&self) -> &Arc<Engine> {
        &self.interim
    }

    /// The engine of the published keyspace, if there is one; none is published while the guard
    /// lives.
    pub(super) fn published(&self) -> RwLockReadGuard<'_, Option<Arc<Engine>>> {
        self.published.read()
    }

    /// Publishes the engine that `make` returns, which holds the restored keyspace.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn publish<E>(
        &self,
        make: impl FnOnce() -> Result<Arc<Engine>, E>,
    ) -> Result<Arc<Engine>, E> {
        let mut published = self.published.write();
        let engine = make()?;
        *published = Some(Arc::clone(&engine));
        Ok(engine)
    }

    /// Shuts down like SHUTDOWN.
    ///
    /// # Errors
    /// As [`Engine::shut_down`].
    pub(crate) fn shut_down(&self, options: super::ShutdownOptions) -> Result<(), String> {
        let published = self.published();
        let Some(engine) = published.as_ref().map(Arc::clone) else {
            // Under the guard: the process ends before the keyspace can be published.
            return self.interim.shut_down(options);
        };
        drop(published);
        engine.shut_down(options)
    }
}

impl StatsSource for LoadingPhase {
    fn stats_snapshot(&self) -> StatsSnapshot {
        let published = self.published();
        published.as_ref().unwrap_or(&self.interim).shared().stats_snapshot()
    }

    fn occupancy_map(&self, max_cells: usize) -> OccupancyMap {
        let published = self.published();
        published.as_ref().unwrap_or(&self.interim).shared().occupancy_map(max_cells)
    }
}

//! The time before the keyspace is published: the image is being read, and clients are connected.
//!
//! ```text
//! restoring thread:  open -> Keyspace ------------------------.
//! worker:            Phase::Loading: interim engine, no keys  | publish
//!                    Phase::Serving: engine of the keyspace <-'
//! ```
//!
//! The restored keyspace belongs to the thread that restores it until [`LoadingPhase::publish`]
//! moves it into an [`Engine`]; no worker can name it before. Meanwhile the workers run commands
//! that need no key on an *interim engine*, with a keyspace of its own that is empty and the same
//! [`KeylessState`]: clients, subscriptions, configuration and counters are those that remain.
//!
//! Invariants:
//! 1. A batch runs as a whole before the publication or after it: a worker holds
//!    [`LoadingPhase::phase`] while it runs one on the interim engine. So no CONFIG SET is
//!    applied to the interim engine only, and INFO says `loading:0` with the first key at the
//!    earliest.
//! 2. Nothing that a session keeps depends on the interim keyspace: WATCH does not run, and what a
//!    transaction has queued uses no key.

use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};

use super::{CheckpointScheduler, Engine, KeylessState, Shared};
use crate::keyspace::{Keyspace, OccupancyMap};
use crate::telemetry::{StatsSnapshot, StatsSource};
use cowherd_arena::{OpenError, PageKind, ReservedArena};

/// What the workers run requests on.
pub(super) enum Phase {
    /// The interim engine, which has no keys.
    Loading(Arc<Engine>),
    /// The engine of the published keyspace.
    Serving(Arc<Engine>),
}

impl Phase {
    const fn engine(&self) -> &Arc<Engine> {
        match self {
            Self::Loading(engine) | Self::Serving(engine) => engine,
        }
    }
}

/// The keyspace that workers serve: none yet, or the published one.
pub(crate) struct LoadingPhase {
    phase: RwLock<Phase>,
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
        Ok(Arc::new(Self { phase: RwLock::new(Phase::Loading(interim)), state: state.clone() }))
    }

    /// What exists before the keyspace and stays.
    pub(crate) const fn state(&self) -> &KeylessState {
        &self.state
    }

    /// The phase, which lasts while the guard lives.
    pub(super) fn phase(&self) -> RwLockReadGuard<'_, Phase> {
        self.phase.read()
    }

    /// Publishes the engine that `make` returns, which holds the restored keyspace. The interim
    /// engine goes with the last worker that uses it.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn publish<E>(
        &self,
        make: impl FnOnce() -> Result<Arc<Engine>, E>,
    ) -> Result<Arc<Engine>, E> {
        let mut phase = self.phase.write();
        let engine = make()?;
        // Clients may have begun to track keys since the keyspace was made.
        let shared = engine.shared();
        shared.tracking.attach(&shared.keyspace);
        *phase = Phase::Serving(Arc::clone(&engine));
        Ok(engine)
    }

    /// Shuts down like SHUTDOWN.
    ///
    /// # Errors
    /// As [`Engine::shut_down`].
    pub(crate) fn shut_down(&self, options: super::ShutdownOptions) -> Result<(), String> {
        let engine = match &*self.phase() {
            // Under the guard: the process ends before the keyspace can be published.
            Phase::Loading(interim) => return interim.shut_down(options),
            Phase::Serving(engine) => Arc::clone(engine),
        };
        engine.shut_down(options)
    }
}

impl StatsSource for LoadingPhase {
    fn stats_snapshot(&self) -> StatsSnapshot {
        self.phase().engine().shared().stats_snapshot()
    }

    fn occupancy_map(&self, max_cells: usize) -> OccupancyMap {
        self.phase().engine().shared().occupancy_map(max_cells)
    }
}

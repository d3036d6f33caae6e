//! A cyclic barrier for the clients of a round, which a client that fails can release.
//!
//! `std::sync::Barrier` would leave the others waiting for the one that is missing.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub struct Rendezvous {
    clients: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    arrived: usize,
    /// Meetings so far.
    meetings: u64,
    is_released: bool,
}

impl Rendezvous {
    pub fn new(clients: usize) -> Self {
        Self { clients, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Blocks until all clients have called this, or until the rendezvous is released.
    pub fn meet(&self) {
        let mut state = self.lock();
        let meeting = state.meetings;
        state.arrived += 1;
        if state.arrived == self.clients {
            state.arrived = 0;
            state.meetings += 1;
            self.changed.notify_all();
        }
        while state.meetings == meeting && !state.is_released {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets every call of [`Self::meet`] return at once from now on.
    pub fn release(&self) {
        self.lock().is_released = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

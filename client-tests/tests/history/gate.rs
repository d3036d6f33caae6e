//! A place where all clients of a round meet, so that nothing is sent for a moment.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Meets again and again; a client that fails opens it for good.
#[derive(Debug)]
pub struct Gate {
    clients: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    arrived: usize,
    meetings: u64,
    is_open: bool,
}

impl Gate {
    pub fn new(clients: usize) -> Self {
        Self { clients, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits until all clients are here, or the gate is open.
    pub fn meet(&self) {
        let mut state = self.lock();
        let meeting = state.meetings;
        state.arrived += 1;
        if state.arrived == self.clients {
            state.arrived = 0;
            state.meetings += 1;
            self.changed.notify_all();
        }
        while state.meetings == meeting && !state.is_open {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets everyone pass from now on.
    pub fn open(&self) {
        self.lock().is_open = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

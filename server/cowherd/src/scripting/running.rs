//! The scripts that run: which have run for too long, and which may be ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::clock;

/// A script that runs.
#[derive(Debug)]
pub struct RunningScript {
    /// The name of the function, or the SHA-1 of the script.
    pub name: String,
    /// The words of the request, for FUNCTION STATS.
    pub command: Vec<Vec<u8>>,
    /// Whether it is a script of EVAL, not a function.
    pub is_eval: bool,
    /// Monotonic time of the start in nanoseconds.
    begun: u64,
    has_written: AtomicBool,
    is_killed: AtomicBool,
    /// Whether it ends even though it has written, since the server ends without saving.
    is_forced: AtomicBool,
}

/// The scripts that have run for longer than `busy-reply-threshold`.
#[derive(Debug, Default)]
pub struct RunningScripts {
    busy: Mutex<Vec<Arc<RunningScript>>>,
    count: AtomicU64,
    /// Whether scripts that run for too long and have not written are ended at once.
    is_ending: AtomicBool,
    /// Whether those that have written are ended too.
    is_forced: AtomicBool,
}

/// Why a script cannot be killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KillError {
    /// None has run for so long.
    NotBusy,
    /// It is a script, not a function, or the other way round.
    OtherKind,
    /// It has written.
    HasWritten,
}

impl RunningScript {
    /// A script that has begun at a monotonic time in nanoseconds.
    pub fn new(name: String, command: Vec<Vec<u8>>, is_eval: bool, begun: u64) -> Self {
        Self {
            name,
            command,
            is_eval,
            begun,
            has_written: AtomicBool::new(false),
            is_killed: AtomicBool::new(false),
            is_forced: AtomicBool::new(false),
        }
    }

    /// Milliseconds since it began.
    pub fn milliseconds(&self) -> u64 {
        clock::monotonic_ns().saturating_sub(self.begun) / 1_000_000
    }

    /// Notes that it has changed a key: it cannot be killed any more.
    pub fn set_written(&self) {
        self.has_written.store(true, Relaxed);
    }

    /// Ends it even if it has written: the server ends without saving.
    pub fn force(&self) {
        self.is_forced.store(true, Relaxed);
    }

    /// Whether it is to end.
    pub fn is_killed(&self) -> bool {
        self.is_killed.load(Relaxed) && !self.has_written.load(Relaxed)
            || self.is_forced.load(Relaxed)
    }
}

impl RunningScripts {
    /// Whether any script has run for too long.
    #[inline]
    pub fn is_any_busy(&self) -> bool {
        self.count.load(Relaxed) > 0
    }

    /// Number of scripts that have run for too long.
    pub fn busy_count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Adds a script that has run for too long.
    pub fn add(&self, script: &Arc<RunningScript>) {
        let mut busy = self.busy.lock();
        if self.is_ending.load(Relaxed) {
            script.is_killed.store(true, Relaxed);
        }
        if self.is_forced.load(Relaxed) {
            script.force();
        }
        busy.push(Arc::clone(script));
        self.count.store(busy.len() as u64, Relaxed);
    }

    /// Removes a script that has ended.
    pub fn remove(&self, script: &Arc<RunningScript>) {
        let mut busy = self.busy.lock();
        busy.retain(|other| !Arc::ptr_eq(other, script));
        self.count.store(busy.len() as u64, Relaxed);
    }

    /// The error reply to other commands while a script runs for too long.
    pub fn busy_reply(&self) -> &'static str {
        match self.first().is_none_or(|script| script.is_eval) {
            true => {
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN \
                 NOSAVE."
            }
            false => {
                "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN \
                 NOSAVE."
            }
        }
    }

    /// The script that has run for too long, the first if there are several.
    pub fn first(&self) -> Option<Arc<RunningScript>> {
        self.busy.lock().first().cloned()
    }

    /// Ends the scripts, or functions, that run for too long.
    ///
    /// # Errors
    /// Why none was ended.
    pub fn kill(&self, is_eval: bool) -> Result<(), KillError> {
        let busy = self.busy.lock();
        if busy.is_empty() {
            return Err(KillError::NotBusy);
        }
        let mut of_kind = busy.iter().filter(|script| script.is_eval == is_eval).peekable();
        if of_kind.peek().is_none() {
            return Err(KillError::OtherKind);
        }
        let mut result = Err(KillError::HasWritten);
        for script in of_kind {
            if !script.has_written.load(Relaxed) {
                script.is_killed.store(true, Relaxed);
                result = Ok(());
            }
        }
        result
    }

    /// Ends all scripts that run for too long, now or later, because the server ends: those that
    /// have not written, or, without saving, all.
    pub fn end_all(&self, is_forced: bool) {
        let busy = self.busy.lock();
        self.is_ending.store(true, Relaxed);
        self.is_forced.store(is_forced, Relaxed);
        for script in busy.iter() {
            script.is_killed.store(true, Relaxed);
            if is_forced {
                script.force();
            }
        }
    }

    /// The server does not end after all.
    pub fn end_none(&self) {
        self.is_ending.store(false, Relaxed);
        self.is_forced.store(false, Relaxed);
    }
}

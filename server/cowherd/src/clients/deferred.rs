//! Replies that arrive after the command has run, while the connection's thread serves other
//! clients.
//!
//! A [`DeferredReply`] is a one-shot cell: the thread that does the work completes the cell and
//! wakes the connection, which writes the reply itself. The reply of a command that waits for a key
//! takes another way: the thread that changes the key pushes the reply to the client's output
//! buffer (`blocked`).

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::client::Client;

/// A reply that another thread owes a client: a status, or an error with its code.
pub(crate) struct DeferredReply {
    client: Arc<Client>,
    outcome: OnceLock<Result<String, String>>,
}

impl fmt::Debug for DeferredReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredReply").field("client", &self.client.id).finish_non_exhaustive()
    }
}

impl DeferredReply {
    /// A reply to `client` that is not complete yet.
    pub(crate) fn new(client: &Arc<Client>) -> Arc<Self> {
        Arc::new(Self { client: Arc::clone(client), outcome: OnceLock::new() })
    }

    /// Sets the outcome and wakes the connection. Later calls have no effect.
    pub(crate) fn complete(&self, outcome: Result<String, String>) {
        // Harmless if the connection has ended: its handle is detached.
        if self.outcome.set(outcome).is_ok() {
            self.client.wake();
        }
    }

    /// The outcome, once complete.
    pub(crate) fn outcome(&self) -> Option<&Result<String, String>> {
        self.outcome.get()
    }
}

/// A reply that a connection waits for before it runs the requests behind.
#[derive(Clone, Debug)]
pub(crate) enum PendingReply {
    /// The reply of a blocked command, which arrives in the client's output buffer.
    Blocked {
        /// Key of the entry in `BlockedClients`.
        sequence: u64,
        /// When the command times out, monotonic microseconds; `None` for never.
        deadline: Option<u64>,
    },
    /// A reply that the connection writes itself.
    Deferred(Arc<DeferredReply>),
}

impl PendingReply {
    /// Whether the wait is over. `client` is the client of the session that waits.
    pub(crate) fn is_over(&self, client: &Client) -> bool {
        match self {
            Self::Blocked { sequence, .. } => client.blocked_sequence() != Some(*sequence),
            Self::Deferred(reply) => reply.outcome().is_some(),
        }
    }

    /// When the wait times out, monotonic microseconds; `None` for never.
    pub(crate) const fn deadline(&self) -> Option<u64> {
        match self {
            Self::Blocked { deadline, .. } => *deadline,
            Self::Deferred(_) => None,
        }
    }
}

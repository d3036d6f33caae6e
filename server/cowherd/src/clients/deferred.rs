//! Replies that come later: what a connection waits for while its thread serves others.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::blocked::BlockedClient;
use super::client::Client;

/// A reply that another thread owes a client: a status, or an error with its code.
pub struct DeferredReply {
    client: Arc<Client>,
    outcome: OnceLock<Result<String, String>>,
}

impl fmt::Debug for DeferredReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredReply").field("client", &self.client.id).finish_non_exhaustive()
    }
}

impl DeferredReply {
    /// A promise to `client`.
    pub fn new(client: &Arc<Client>) -> Arc<Self> {
        Arc::new(Self { client: Arc::clone(client), outcome: OnceLock::new() })
    }

    /// Keeps it: only the first outcome counts.
    pub fn complete(&self, outcome: Result<String, String>) {
        // The client may have gone; then nobody looks.
        if self.outcome.set(outcome).is_ok() {
            self.client.wake();
        }
    }

    /// What came of it, once it is kept.
    pub fn outcome(&self) -> Option<&Result<String, String>> {
        self.outcome.get()
    }
}

/// What a connection waits for before it goes on with the requests behind.
#[derive(Clone, Debug)]
pub enum PendingReply {
    /// A key; whoever serves it delivers the reply.
    Blocked(Arc<BlockedClient>),
    /// A reply that the connection writes itself.
    Deferred(Arc<DeferredReply>),
}

impl PendingReply {
    /// Whether the wait is over.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Blocked(waiter) => waiter.is_done(),
            Self::Deferred(promise) => promise.outcome().is_some(),
        }
    }

    /// When it has waited long enough, monotonic microseconds; never, if there is none.
    pub fn until(&self) -> Option<u64> {
        match self {
            Self::Blocked(waiter) => waiter.until,
            Self::Deferred(_) => None,
        }
    }
}

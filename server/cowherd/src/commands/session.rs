//! What a connection remembers between commands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::keyspace::DbIndex;

use super::clients::Client;
use super::promise::Wait;
use super::pubsub::Subscriptions;
use super::transaction::{Queue, Watched};

/// Whether replies are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReplyMode {
    /// They are.
    #[default]
    On,
    /// They are not.
    Off,
    /// CLIENT REPLY SKIP was just run: the next one is not.
    SkipNext,
}

/// What a connection remembers.
#[derive(Debug)]
pub struct Session {
    /// The selected database.
    pub db: DbIndex,
    /// Whether commands are allowed: a password was given or is not needed.
    pub authenticated: bool,
    /// Whether replies are sent.
    pub reply_mode: ReplyMode,
    /// Whether the reply of the command that runs now is not sent; CLIENT REPLY ON ends that too.
    pub skipping: bool,
    /// Whether its reads leave the access clocks alone.
    pub no_touch: bool,
    /// What was queued since MULTI; none outside a transaction.
    pub queue: Option<Box<Queue>>,
    /// The keys that it watches.
    pub watched: Watched,
    /// Whether EXEC runs: then nothing may wait.
    pub in_exec: bool,
    /// Whether what the command that runs now writes is sent even so: it is no reply.
    pub insists: bool,
    /// What it subscribes to; none if it is no subscriber.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// What its last command waits for.
    pub waiting: Option<Wait>,
    /// What others can see of it.
    pub client: Arc<Client>,
}

impl Session {
    /// A new connection's.
    pub const fn new(client: Arc<Client>, authenticated: bool) -> Self {
        Self {
            db: 0,
            authenticated,
            reply_mode: ReplyMode::On,
            skipping: false,
            no_touch: false,
            queue: None,
            watched: Watched::new(),
            in_exec: false,
            insists: false,
            subscriptions: None,
            waiting: None,
            client,
        }
    }

    /// Everything as a new connection has it; its number and library names stay. It must not
    /// subscribe to anything any more, nor queue or watch: see [`Self::discard`].
    pub fn reset(&mut self, authenticated: bool) {
        let client = Arc::clone(&self.client);
        client.db.store(0, Ordering::Relaxed);
        client.protocol.store(2, Ordering::Relaxed);
        client.no_evict.store(false, Ordering::Relaxed);
        client.no_touch.store(false, Ordering::Relaxed);
        client.names.lock().name.clear();
        *self = Self::new(client, authenticated);
    }
}

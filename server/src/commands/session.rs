//! What a connection remembers between commands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::keyspace::DbIndex;

use super::clients::Client;

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
            client,
        }
    }

    /// Everything as a new connection has it; its number and library names stay.
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

//! What a connection remembers between commands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::keyspace::{DbIndex, Keyspace, ShardSet, Shards};

use super::client::Client;
use super::command_queue::{CommandQueue, QueuedCommand, WatchedKeys};
use super::deferred::PendingReply;
use super::pubsub::Subscriptions;

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
    pub skip_reply: bool,
    /// Whether its reads leave the access clocks alone.
    pub no_touch: bool,
    /// What was queued since MULTI; none outside a transaction.
    pub queue: Option<Box<CommandQueue>>,
    /// The keys that it watches.
    pub watched: WatchedKeys,
    /// Whether EXEC runs: then nothing may wait.
    pub in_exec: bool,
    /// Whether what the command that runs now writes is sent even so: it is no reply.
    pub bypass_reply_off: bool,
    /// What it subscribes to; none if it is no subscriber.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// What its last command waits for.
    pub pending_reply: Option<PendingReply>,
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
            skip_reply: false,
            no_touch: false,
            queue: None,
            watched: WatchedKeys::new(),
            in_exec: false,
            bypass_reply_off: false,
            subscriptions: None,
            pending_reply: None,
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

    /// Bytes of the requests that are queued.
    pub fn queued_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes())
    }

    /// Ends queueing; no lock is held. Watched keys are forgotten too.
    pub fn discard(&mut self, keyspace: &Keyspace) {
        self.take_queue();
        self.unwatch(keyspace);
    }

    /// Takes the queue.
    pub fn take_queue(&mut self) -> Option<Box<CommandQueue>> {
        self.client.queued.store(0, Ordering::Relaxed);
        self.client.queued_memory.store(0, Ordering::Relaxed);
        self.queue.take()
    }

    /// The shards of all watched keys.
    pub fn watched_shards(&self, keyspace: &Keyspace) -> ShardSet {
        self.watched.iter().map(|(_, key)| keyspace.shards_of(keyspace.hash(key))).collect()
    }

    /// Forgets all watched keys; no lock is held.
    pub fn unwatch(&mut self, keyspace: &Keyspace) {
        if self.watched.is_empty() {
            return;
        }
        for (db, key) in std::mem::take(&mut self.watched) {
            let hash = keyspace.hash(&key);
            // Whether it has expired meanwhile is of no interest any more.
            let mut shards = keyspace.lock_named(i64::MIN, || keyspace.shards_of(hash));
            shards.unwatch(db, &keyspace.key_of(db, &key, hash), &self.client.watcher);
        }
        self.forget_touches();
    }

    /// Forgets all watched keys; their shards are locked. Tells whether any was touched, or has
    /// expired, since it was watched.
    pub fn end_watch(&mut self, shards: &mut Shards<'_>) -> bool {
        for (db, key) in std::mem::take(&mut self.watched) {
            let key = shards.keyspace().key(db, &key);
            // Finds that it has expired, if it has, and that is a touch.
            shards.peek(db, &key);
            shards.unwatch(db, &key, &self.client.watcher);
        }
        let touched = self.client.watcher.is_touched();
        self.forget_touches();
        touched
    }

    fn forget_touches(&self) {
        self.client.watcher.reset();
        self.client.watched.store(0, Ordering::Relaxed);
    }

    /// Adds a command to the queue, if there is one; see [`CommandQueue::push`].
    pub fn push_queued(
        &mut self,
        command: QueuedCommand<'_>,
        flags: u32,
        shards: ShardSet,
        moves: u64,
    ) {
        if let Some(queue) = &mut self.queue {
            queue.push(command, flags, shards, moves);
            self.client.queued.store(queue.len() as u64 + 1, Ordering::Relaxed);
            self.client.queued_memory.store(queue.memory() as u64, Ordering::Relaxed);
        }
    }
}

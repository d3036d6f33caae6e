//! The state of a connection between two commands, which only the connection's own thread uses.
//!
//! Invariant: `Session::watched` lists exactly the keys for which the client's watcher is
//! registered in the keyspace, except those that were touched.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::keyspace::{DbIndex, Keyspace, ShardSet, Shards};

use super::client::Client;
use super::command_queue::{CommandQueue, QueuedCommand, WatchedKeys};
use super::deferred::PendingReply;
use super::subscriptions::{SubscriptionKind, Subscriptions};
use super::tracking::ReadTracking;

/// CLIENT REPLY: whether replies are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum ReplyMode {
    /// Every reply is sent.
    #[default]
    On,
    /// No reply is sent.
    Off,
    /// The reply of the next command is not sent: CLIENT REPLY SKIP has just run.
    SkipNext,
}

/// The state of a connection between two commands.
#[derive(Debug)]
pub(crate) struct Session {
    /// The selected database.
    pub(crate) db: DbIndex,
    /// Whether the client has given the password, or none is needed.
    pub(crate) authenticated: bool,
    /// Whether replies are sent.
    pub(crate) reply_mode: ReplyMode,
    /// Whether the reply of the running command is skipped. CLIENT REPLY ON clears the flag.
    pub(crate) skip_reply: bool,
    /// Whether the running command's output is sent in spite of `reply_mode` and `skip_reply`:
    /// confirmations of subscriptions are messages, not replies.
    pub(crate) bypass_reply_off: bool,
    /// CLIENT NO-TOUCH: whether reads leave the access clocks unchanged.
    pub(crate) no_touch: bool,
    /// CLIENT TRACKING: which reads the server remembers.
    pub(crate) read_tracking: ReadTracking,
    /// Whether the client is a monitor, which must not use keys.
    pub(crate) is_monitor: bool,
    /// The commands queued since MULTI; `None` outside a transaction.
    pub(crate) queue: Option<Box<CommandQueue>>,
    /// The keys that the connection watches.
    pub(crate) watched: WatchedKeys,
    /// Whether EXEC runs, so that no command may block or lock shards of its own.
    pub(crate) in_exec: bool,
    /// Time since 1970 at the start of the script whose commands run: it stands still for them.
    pub(crate) script_start: Option<Duration>,
    /// `None` without any subscription.
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    /// The reply that the requests behind have to wait for.
    pub(crate) pending_reply: Option<PendingReply>,
    /// The state that other threads see.
    pub(crate) client: Arc<Client>,
}

impl Session {
    /// The session of a new connection.
    pub(crate) const fn new(client: Arc<Client>, authenticated: bool) -> Self {
        Self {
            db: 0,
            authenticated,
            reply_mode: ReplyMode::On,
            skip_reply: false,
            bypass_reply_off: false,
            no_touch: false,
            read_tracking: ReadTracking::Off,
            is_monitor: false,
            queue: None,
            watched: WatchedKeys::new(),
            in_exec: false,
            script_start: None,
            subscriptions: None,
            pending_reply: None,
            client,
        }
    }

    /// The session of the commands that a script calls for a client.
    pub(crate) fn for_script(caller: &Self) -> Self {
        let session = Self::new(Arc::clone(&caller.client), true);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            db: caller.db,
            no_touch: caller.no_touch,
            read_tracking: caller.read_tracking,
            in_exec: true,
            script_start: Some(now),
            ..session
        }
    }

    /// RESET: back to the state of a new connection, except for the client's number and library
    /// names. The caller ends subscriptions, tracking, monitoring and the transaction first; see
    /// [`Self::discard`].
    pub(crate) fn reset(&mut self, authenticated: bool) {
        let client = Arc::clone(&self.client);
        client.db.store(0, Ordering::Relaxed);
        client.protocol.store(2, Ordering::Relaxed);
        client.no_evict.store(false, Ordering::Relaxed);
        client.no_touch.store(false, Ordering::Relaxed);
        client.names.lock().name.clear();
        *self = Self::new(client, authenticated);
    }

    /// Whether the reply of the running command is not sent.
    #[inline]
    pub(crate) fn is_reply_off(&self) -> bool {
        self.skip_reply || self.reply_mode == ReplyMode::Off
    }

    /// Ends what CLIENT CACHING has set for the command that has just run, unless that was a
    /// subcommand of CLIENT (`is_client`). A transaction counts as one command.
    #[inline]
    pub(crate) fn end_caching(&mut self, is_client: impl FnOnce() -> bool) {
        if self.read_tracking != ReadTracking::Off && self.queue.is_none() && !is_client() {
            self.read_tracking = self.read_tracking.after_command();
        }
    }

    /// Total size of the queued requests in bytes.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes())
    }

    /// Appends a command to the queue, if there is one; see [`CommandQueue::push`].
    pub(crate) fn push_queued(
        &mut self,
        command: QueuedCommand<'_>,
        flags: u32,
        shards: ShardSet,
        relocations: u64,
    ) {
        if let Some(queue) = &mut self.queue {
            queue.push(command, flags, shards, relocations);
            self.client.queued.store(queue.len() as u64 + 1, Ordering::Relaxed);
            self.client.queued_memory.store(queue.memory() as u64, Ordering::Relaxed);
        }
    }

    /// Takes the queue, which ends the transaction.
    pub(crate) fn take_queue(&mut self) -> Option<Box<CommandQueue>> {
        self.client.queued.store(0, Ordering::Relaxed);
        self.client.queued_memory.store(0, Ordering::Relaxed);
        self.queue.take()
    }

    /// Drops the queue and unwatches all keys. The caller holds no shard.
    pub(crate) fn discard(&mut self, keyspace: &Keyspace) {
        self.take_queue();
        self.unwatch(keyspace);
    }

    /// The shards of all watched keys.
    pub(crate) fn watched_shards(&self, keyspace: &Keyspace) -> ShardSet {
        self.watched.iter().map(|(_, key)| keyspace.shards_of(keyspace.hash(key))).collect()
    }

    /// Unwatches all keys.
    pub(crate) fn unwatch(&mut self, keyspace: &Keyspace) {
        if self.watched.is_empty() {
            return;
        }
        for (db, key) in std::mem::take(&mut self.watched) {
            let hash = keyspace.hash(&key);
            keyspace.unwatch(db, &keyspace.key_of(db, &key, hash), &self.client.watcher);
        }
        self.reset_watcher();
    }

    /// Unwatches all keys, whose shards are locked. Returns whether any of them was touched or has
    /// expired since it was watched.
    pub(crate) fn end_watch(&mut self, shards: &mut Shards<'_>) -> bool {
        for (db, key) in std::mem::take(&mut self.watched) {
            let key = shards.keyspace().key(db, &key);
            // Removes the key if it has expired, which touches the watcher.
            shards.peek(db, &key);
            shards.keyspace().unwatch(db, &key, &self.client.watcher);
        }
        let touched = self.client.watcher.is_touched();
        self.reset_watcher();
        touched
    }

    fn reset_watcher(&self) {
        self.client.watcher.reset();
        self.client.watched.store(0, Ordering::Relaxed);
    }

    /// The names of all subscriptions of a kind.
    pub(crate) fn subscription_names(&self, kind: SubscriptionKind) -> Vec<Box<[u8]>> {
        let subscriptions = self.subscriptions.as_ref();
        subscriptions.map_or(Vec::new(), |all| all.of(kind).iter().cloned().collect())
    }
}

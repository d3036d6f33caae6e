//! Clients whose command waits for a key (BLPOP, XREAD BLOCK and their kin).
//!
//! A blocked client holds no thread and no lock. It has an entry in the table, under a sequence
//! number, and that number in the queue of each of its keys:
//!
//! ```text
//! table:  sequence -> BlockedClient { client, request, keys, deadline }       owns the entry
//! home shard of a key:  { (db, key) -> 7, 12, 31 }        sequence numbers, served in this order
//!
//! Client.blocked, Session.pending_reply: the sequence number                  refer to the entry
//! ```
//!
//! The thread that changes a key runs the commands of the clients in the key's queue again, in
//! order, before it unlocks the key's shard (`engine/serve_blocked`): no other command comes
//! between. `commands/blocking` tells how a handler blocks.
//!
//! An entry ends once, under the lock of its [`WaitState`], whichever comes first: its command
//! replies, the deadline passes, CLIENT UNBLOCK, or the client disconnects. All but the first find
//! the entry by sequence number, and do nothing if it has ended.
//!
//! Invariants:
//! 1. An entry is added while the shards of all its keys are locked.
//! 2. A sequence number in a queue has an entry in the table: the entry is added to the table first
//!    and removed from there last.
//! 3. `Client::blocked_sequence` is the number of the client's entry until the entry ends. A client
//!    has one entry at most, since it runs no further command while it has one.
//! 4. The reply is in the client's output buffer before `Client::blocked_sequence` changes, so the
//!    reply precedes those of the requests behind.
//! 5. Locks are taken in the order shards, wait state, queues of a home shard, part of the table.
//!    The output buffer is locked under the wait state only.

use std::array;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::config::OutputLimits;
use crate::keyspace::{
    DbIndex, Key, Keyspace, ReadyKey, SHARDS, ShardIndex, ShardSet, Shards, ValueType,
};
use cowherd_resp::{ArgSpan, Args, ProtocolVersion};

use super::client::Client;
use super::deferred::PendingReply;
use super::tracking::ReadTracking;

/// Number of locks over the table, so that clients that block at once on different keys seldom
/// contend: each holds its lock for one operation of a hash map.
const PARTS: usize = 16;

/// Whether a command may block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum BlockingMode {
    /// The command may block.
    #[default]
    Allowed,
    /// The command is part of a transaction: it replies as if its timeout had passed.
    Denied,
    /// The client is blocked, and its command runs again.
    Retrying,
}

/// The reply of a command whose timeout has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TimeoutReply {
    /// The null bulk string of RESP2, null in RESP3.
    #[cfg_attr(not(test), expect(dead_code, reason = "no blocking command replies so yet"))]
    Null,
    /// The null array of RESP2, null in RESP3.
    NullArray,
    /// The number 0, of replicas.
    Zero,
    /// An array of two times 0: of this server's file, and of replicas.
    TwoZeros,
}

impl TimeoutReply {
    /// The bytes of the reply.
    pub(crate) const fn encode(self, version: ProtocolVersion) -> &'static [u8] {
        match (self, version) {
            (Self::Zero, _) => b":0\r\n",
            (Self::TwoZeros, _) => b"*2\r\n:0\r\n:0\r\n",
            (Self::Null | Self::NullArray, ProtocolVersion::Resp3) => b"_\r\n",
            (Self::Null, ProtocolVersion::Resp2) => b"$-1\r\n",
            (Self::NullArray, ProtocolVersion::Resp2) => b"*-1\r\n",
        }
    }
}

/// The change of a key after which a blocked command runs again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WakeCondition {
    /// The type that the key's value has to have.
    pub(crate) kind: ValueType,
    /// Whether the command runs as well when the key is deleted or has another type: the command
    /// fails then.
    pub(crate) wake_on_delete: bool,
}

impl WakeCondition {
    /// Whether the command runs again for a key with a value of type `kind`, or without a value.
    fn is_met_by(self, kind: Option<ValueType>) -> bool {
        self.wake_on_delete || kind == Some(self.kind)
    }
}

/// A copy of a request, which outlives the read buffer that the request came in.
#[derive(Debug)]
pub(crate) struct OwnedRequest {
    bytes: Vec<u8>,
    spans: Vec<ArgSpan>,
}

impl OwnedRequest {
    /// Copies a request. Arguments at the ascending positions in `replaced` are replaced.
    pub(crate) fn new(args: &Args<'_>, replaced: &[(usize, Vec<u8>)]) -> Self {
        let mut request = Self { bytes: Vec::new(), spans: Vec::with_capacity(args.len()) };
        let mut replaced = replaced.iter().peekable();
        for (i, arg) in args.iter().enumerate() {
            let arg = replaced.next_if(|(at, _)| *at == i).map_or(arg, |(_, other)| other);
            request.spans.push(ArgSpan { start: request.bytes.len(), len: arg.len() });
            request.bytes.extend_from_slice(arg);
        }
        request
    }

    /// The arguments; the name is argument 0.
    pub(crate) fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.spans)
    }
}

/// The entry of a blocked client: what is needed to run its command again.
pub(crate) struct BlockedClient {
    /// The client.
    pub(crate) client: Arc<Client>,
    /// Row of the command in the command table.
    pub(crate) row: usize,
    /// The command.
    pub(crate) request: OwnedRequest,
    /// The database that was selected.
    pub(crate) db: DbIndex,
    /// Whether reads leave the access clocks unchanged.
    pub(crate) no_touch: bool,
    /// Whether the server remembers the command's reads.
    pub(crate) read_tracking: ReadTracking,
    /// Hashes of all keys that the command names.
    pub(crate) hashes: Vec<u64>,
    /// Order among all blocked clients: of two that wait for a key, the lower is served first.
    pub(crate) sequence: u64,
    /// When the command times out, monotonic microseconds; `None` for never.
    pub(crate) deadline: Option<u64>,
    /// The shards of all keys that the command names, as they were when it blocked.
    pub(crate) needed: ShardSet,
    /// Positions of the keys whose change can wake the client.
    pub(crate) keys: Vec<usize>,
    pub(crate) condition: WakeCondition,
    pub(crate) timeout_reply: TimeoutReply,
    /// CLIENT REPLY: whether the reply is not sent.
    pub(crate) is_reply_off: bool,
    pub(crate) state: WaitState,
}

/// Whether a wait has ended. Locked while a thread ends the wait or runs the command again.
#[derive(Default)]
pub(crate) struct WaitState {
    ended: Mutex<bool>,
}

impl fmt::Debug for BlockedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockedClient").field("client", &self.client.id).finish_non_exhaustive()
    }
}

impl BlockedClient {
    /// The shards of all keys that the command names, as the keys live now.
    pub(crate) fn shards(&self, keyspace: &Keyspace) -> ShardSet {
        self.hashes.iter().map(|hash| keyspace.shards_of(*hash)).collect()
    }

    /// Locks the wait, so that no other thread can end it; `None` if it has ended.
    pub(crate) fn lock(&self) -> Option<BlockedClientGuard<'_>> {
        let ended = self.state.ended.lock();
        (!*ended).then_some(BlockedClientGuard { blocked: self, ended })
    }
}

/// A blocked client whose wait is locked.
pub(crate) struct BlockedClientGuard<'b> {
    blocked: &'b BlockedClient,
    ended: MutexGuard<'b, bool>,
}

impl BlockedClientGuard<'_> {
    /// Ends the wait with a reply.
    pub(crate) fn reply(
        self,
        table: &BlockedClients,
        keyspace: &Keyspace,
        limits: &OutputLimits,
        reply: &[u8],
    ) {
        let blocked = self.blocked;
        if !blocked.is_reply_off {
            blocked.client.push_output(limits, |pending| pending.out.extend_from_slice(reply));
        }
        self.end(table, keyspace);
        // The push has woken the connection before the wait was over; and without a reply there was
        // no push.
        blocked.client.wake();
    }

    /// Ends the wait without a reply.
    fn end(mut self, table: &BlockedClients, keyspace: &Keyspace) {
        *self.ended = true;
        // The connection may run the next requests from here on, and block again: the entry that is
        // removed below is found by its own sequence number.
        self.blocked.client.set_blocked_sequence(None);
        table.remove(keyspace, self.blocked);
    }
}

/// A database and a key.
type QueueName = Vec<u8>;

fn queue_name(db: DbIndex, key: &[u8]) -> QueueName {
    let mut name = Vec::with_capacity(key.len() + 1);
    name.push(db.to_le_bytes()[0]);
    name.extend_from_slice(key);
    name
}

/// The clients that wait for one key, in the order of their sequence numbers.
#[derive(Default)]
struct KeyQueue {
    waiting: BTreeMap<u64, WakeCondition>,
    /// Number of conditions with `wake_on_delete`.
    wake_on_delete: usize,
}

/// The queues of the keys of one home shard.
struct ShardQueues {
    by_key: HashMap<QueueName, KeyQueue>,
    /// For each shard, the number of commands in these queues that need the shard.
    needed: [u64; SHARDS],
}

impl Default for ShardQueues {
    fn default() -> Self {
        Self { by_key: HashMap::new(), needed: [0; SHARDS] }
    }
}

/// All blocked clients.
pub(crate) struct BlockedClients {
    table: [Mutex<HashMap<u64, Arc<BlockedClient>>>; PARTS],
    /// By home shard.
    queues: Vec<Mutex<ShardQueues>>,
    last_sequence: AtomicU64,
    count: AtomicU64,
    keys: AtomicU64,
    /// Ready keys that the background thread is to serve.
    deferred: Mutex<Vec<ReadyKey>>,
}

impl Default for BlockedClients {
    fn default() -> Self {
        Self {
            table: array::from_fn(|_| Mutex::default()),
            queues: ShardIndex::all().map(|_| Mutex::default()).collect(),
            last_sequence: AtomicU64::new(0),
            deferred: Mutex::default(),
            count: AtomicU64::new(0),
            keys: AtomicU64::new(0),
        }
    }
}

impl BlockedClients {
    /// Number of blocked clients.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Number of keys that clients wait for.
    pub(crate) fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// The sequence number of the next entry.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.last_sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn part(&self, sequence: u64) -> &Mutex<HashMap<u64, Arc<BlockedClient>>> {
        // The lowest byte is enough: `PARTS` is a power of two below 256.
        &self.table[usize::from(sequence.to_le_bytes()[0]) % PARTS]
    }

    fn get(&self, sequence: u64) -> Option<Arc<BlockedClient>> {
        self.part(sequence).lock().get(&sequence).cloned()
    }

    /// Adds a client to the ends of the queues of its keys, whose shards are all locked. Returns
    /// what the client's session waits for.
    pub(crate) fn add(&self, shards: &mut Shards<'_>, blocked: BlockedClient) -> PendingReply {
        let keyspace = shards.keyspace();
        let BlockedClient { sequence, deadline, .. } = blocked;
        let blocked = Arc::new(blocked);
        // The wait must not end before it is in all queues.
        let _ended = blocked.state.ended.lock();
        self.count.fetch_add(1, Ordering::Relaxed);
        self.part(sequence).lock().insert(sequence, Arc::clone(&blocked));
        blocked.client.set_blocked_sequence(Some(sequence));
        let args = blocked.request.args();
        let mut homes = ShardSet::NONE;
        for i in &blocked.keys {
            let key = keyspace.key(blocked.db, args.at(*i));
            let home = key.home_shard();
            homes = homes | ShardSet::one(home);
            let mut queues = self.queues[home.get()].lock();
            let queue = queues.by_key.entry(queue_name(blocked.db, key.bytes)).or_default();
            if queue.waiting.is_empty() {
                self.keys.fetch_add(1, Ordering::Relaxed);
            }
            // A command may name a key twice.
            if queue.waiting.insert(sequence, blocked.condition).is_some() {
                continue;
            }
            queue.wake_on_delete += usize::from(blocked.condition.wake_on_delete);
            drop(queues);
            shards.add_waiter(blocked.db, &key);
        }
        self.adjust_needed(homes, &blocked, |count| *count += 1);
        PendingReply::Blocked { sequence, deadline }
    }

    /// Changes the counts of the shards that a command needs, in the queues of `homes`.
    fn adjust_needed(&self, homes: ShardSet, blocked: &BlockedClient, change: impl Fn(&mut u64)) {
        for home in homes.iter() {
            let mut queues = self.queues[home.get()].lock();
            for needed in blocked.needed.iter() {
                change(&mut queues.needed[needed.get()]);
            }
        }
    }

    fn remove(&self, keyspace: &Keyspace, blocked: &BlockedClient) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        let args = blocked.request.args();
        let mut homes = ShardSet::NONE;
        for i in &blocked.keys {
            let key = keyspace.key(blocked.db, args.at(*i));
            let home = key.home_shard();
            homes = homes | ShardSet::one(home);
            let mut queues = self.queues[home.get()].lock();
            let name = queue_name(blocked.db, key.bytes);
            let Some(queue) = queues.by_key.get_mut(&name) else { continue };
            if queue.waiting.remove(&blocked.sequence).is_none() {
                continue;
            }
            queue.wake_on_delete -= usize::from(blocked.condition.wake_on_delete);
            if queue.waiting.is_empty() {
                queues.by_key.remove(&name);
                self.keys.fetch_sub(1, Ordering::Relaxed);
            }
            drop(queues);
            keyspace.remove_waiter(blocked.db, &key);
        }
        self.adjust_needed(homes, blocked, |count| *count -= 1);
        self.part(blocked.sequence).lock().remove(&blocked.sequence);
    }

    /// Replies as if the deadline had passed; false if the wait has ended already.
    pub(crate) fn time_out(
        &self,
        sequence: u64,
        keyspace: &Keyspace,
        limits: &OutputLimits,
    ) -> bool {
        let reply =
            |blocked: &BlockedClient| blocked.timeout_reply.encode(blocked.client.version());
        self.end_with(sequence, keyspace, limits, reply)
    }

    /// CLIENT UNBLOCK with ERROR; false if the wait has ended already. Calls `failed` with the row
    /// of the command and the error reply.
    pub(crate) fn unblock(
        &self,
        sequence: u64,
        keyspace: &Keyspace,
        limits: &OutputLimits,
        failed: impl FnOnce(usize, &[u8]),
    ) -> bool {
        const UNBLOCKED: &[u8] = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
        self.end_with(sequence, keyspace, limits, |blocked| {
            failed(blocked.row, UNBLOCKED);
            UNBLOCKED
        })
    }

    fn end_with(
        &self,
        sequence: u64,
        keyspace: &Keyspace,
        limits: &OutputLimits,
        reply: impl FnOnce(&BlockedClient) -> &'static [u8],
    ) -> bool {
        let Some(blocked) = self.get(sequence) else { return false };
        let Some(guard) = blocked.lock() else { return false };
        guard.reply(self, keyspace, limits, reply(&blocked));
        true
    }

    /// Keeps ready keys for the background thread: their shards may stay locked for long.
    pub(crate) fn defer(&self, ready: Vec<ReadyKey>) {
        self.deferred.lock().extend(ready);
    }

    /// Takes the keys that were deferred.
    pub(crate) fn take_deferred(&self) -> Vec<ReadyKey> {
        std::mem::take(&mut *self.deferred.lock())
    }

    /// Ends the wait of a client that has disconnected, unless it has ended already.
    pub(crate) fn cancel(&self, sequence: u64, keyspace: &Keyspace) {
        if let Some(blocked) = self.get(sequence)
            && let Some(guard) = blocked.lock()
        {
            guard.end(self, keyspace);
        }
    }

    /// The first client after the sequence number `after` that waits for a key and whose condition
    /// is met by a value of type `kind`, or by no value.
    pub(crate) fn next_ready(
        &self,
        db: DbIndex,
        key: &Key<'_>,
        kind: Option<ValueType>,
        after: u64,
    ) -> Option<Arc<BlockedClient>> {
        let queues = self.queues[key.home_shard().get()].lock();
        let queue = queues.by_key.get(&queue_name(db, key.bytes))?;
        if kind.is_none() && queue.wake_on_delete == 0 {
            return None;
        }
        let mut waiting = queue.waiting.range((Bound::Excluded(after), Bound::Unbounded));
        let ready = waiting.find(|(_, condition)| condition.is_met_by(kind));
        ready.and_then(|(sequence, _)| self.get(*sequence))
    }

    /// The transitive closure of `set` under "a command that waits for a key of this home shard
    /// needs that shard": with these shards locked, all commands that a change in `set` can wake
    /// are served at once, except those with a key that was relocated since they blocked.
    pub(crate) fn lock_closure(&self, set: ShardSet) -> ShardSet {
        let (mut closure, mut visited) = (set, ShardSet::NONE);
        while closure != visited {
            let new = closure.iter().filter(|shard| !visited.has(*shard));
            let needed: ShardSet = new.map(|shard| self.needed(shard)).collect();
            visited = closure;
            closure = closure | needed;
        }
        closure
    }

    fn needed(&self, home: ShardIndex) -> ShardSet {
        let queues = self.queues[home.get()].lock();
        let needed = ShardIndex::all().filter(|shard| queues.needed[shard.get()] > 0);
        needed.map(ShardSet::one).collect()
    }
}

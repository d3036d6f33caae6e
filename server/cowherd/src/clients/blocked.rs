//! Clients whose command waits for a key.
//!
//! A waiting client holds no thread and no lock. What it has are places in the queues of its keys:
//!
//! ```text
//! home of the key: { (db, key) -> waiter, waiter, ... }      first come, first served
//!
//!           BlockedClient { request, keys, until, end }  <---- Client.waiting, Session.waiting
//! ```
//!
//! Whoever touches a key runs the waiters' commands again, in the order of the queue, before the
//! key's shard is unlocked (`engine/serving`): nobody can come between. See `blocking` for how a
//! handler waits.
//!
//! Invariants:
//! 1. A waiter is queued while the shards of all its keys are locked.
//! 2. It ends once, in its `turn`: served, out of time, unblocked or gone.
//! 3. Locks are taken in the order shards, turn, queue, mail.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::config::OutputLimits;
use crate::keyspace::{DbIndex, Key, Keyspace, SHARDS, ShardIndex, ShardSet, Shards, ValueKind};
use cowherd_resp::{ArgSpan, Args, ProtocolVersion};

use super::client::Client;

/// Whether a command may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BlockingMode {
    /// It may.
    #[default]
    Allowed,
    /// It may not: it stands in a transaction.
    Denied,
    /// It waits already, and is tried once more.
    Retrying,
}

/// What a command answers that has waited in vain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeoutReply {
    /// No value.
    Null,
    /// No array.
    NullArray,
}

/// Which change of a key can end a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WakeCondition {
    /// The type that it has to have.
    pub kind: ValueKind,
    /// Whether its end, or another type, matters too: the command then fails.
    pub wake_on_delete: bool,
}

impl WakeCondition {
    /// Whether a key with a value of type `kind`, or without one, is worth trying again.
    fn is_met_by(self, kind: Option<ValueKind>) -> bool {
        self.wake_on_delete || kind == Some(self.kind)
    }
}

/// A request that outlives the buffer it came in.
#[derive(Debug)]
pub struct OwnedRequest {
    bytes: Vec<u8>,
    spans: Vec<ArgSpan>,
}

impl OwnedRequest {
    /// A copy of a request, some of its arguments replaced: those at these positions, which
    /// ascend.
    pub fn new(args: &Args<'_>, replaced: &[(usize, Vec<u8>)]) -> Self {
        let mut request = Self { bytes: Vec::new(), spans: Vec::with_capacity(args.len()) };
        let mut replaced = replaced.iter().peekable();
        for (i, arg) in args.iter().enumerate() {
            let arg = replaced.next_if(|(at, _)| *at == i).map_or(arg, |(_, other)| other);
            request.spans.push(ArgSpan { start: request.bytes.len(), len: arg.len() });
            request.bytes.extend_from_slice(arg);
        }
        request
    }

    /// Its arguments.
    pub fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.spans)
    }
}

/// One waiting client.
pub struct BlockedClient {
    /// Who waits.
    pub client: Arc<Client>,
    /// Row of its command in the table.
    pub row: usize,
    /// The command.
    pub request: OwnedRequest,
    /// The selected database.
    pub db: DbIndex,
    /// Whether its reads leave the access clocks alone.
    pub no_touch: bool,
    /// Hashes of all keys that the command names.
    pub(crate) hashes: Vec<u64>,
    /// The shards that they were in when it began to wait.
    pub(crate) needed: ShardSet,
    /// Its place among all who wait: the lower is served first.
    pub ticket: u64,
    /// When it has waited long enough, monotonic microseconds; never, if there is none.
    pub until: Option<u64>,
    /// Positions of the keys that it waits for.
    pub(crate) keys: Vec<usize>,
    pub(crate) condition: WakeCondition,
    pub(crate) timeout_reply: TimeoutReply,
    /// Whether it wants no reply.
    pub(crate) silent: bool,
    pub(crate) end: End,
}

/// How a wait ends: once.
#[derive(Default)]
pub(crate) struct End {
    turn: Mutex<()>,
    /// Changes under `turn`.
    done: AtomicBool,
}

impl fmt::Debug for BlockedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockedClient").field("client", &self.client.id).finish_non_exhaustive()
    }
}

impl BlockedClient {
    /// The shards of all keys that its command names.
    pub fn shards(&self, keyspace: &Keyspace) -> ShardSet {
        self.hashes.iter().map(|hash| keyspace.shards_of(*hash)).collect()
    }

    /// Hashes of all keys that its command names.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// Whether its wait has ended.
    pub fn is_done(&self) -> bool {
        self.end.done.load(Ordering::Acquire)
    }

    /// The waiter for as long as it waits: nobody else can end its wait meanwhile.
    pub fn hold(&self) -> Option<BlockedClientGuard<'_>> {
        let turn = self.end.turn.lock();
        (!self.is_done()).then_some(BlockedClientGuard { waiter: self, _turn: turn })
    }

    /// Ends the wait as if the time were over; false if it has ended already.
    pub fn time_out(
        &self,
        waits: &BlockedClients,
        keyspace: &Keyspace,
        limits: &OutputLimits,
    ) -> bool {
        let Some(held) = self.hold() else { return false };
        let timeout_reply = match (self.timeout_reply, self.client.version()) {
            (_, ProtocolVersion::Resp3) => &b"_\r\n"[..],
            (TimeoutReply::Null, ProtocolVersion::Resp2) => b"$-1\r\n",
            (TimeoutReply::NullArray, ProtocolVersion::Resp2) => b"*-1\r\n",
        };
        held.end(waits, keyspace, limits, timeout_reply);
        true
    }

    /// Ends the wait with an error; false if it has ended already.
    pub fn unblock(
        &self,
        waits: &BlockedClients,
        keyspace: &Keyspace,
        limits: &OutputLimits,
    ) -> bool {
        const UNBLOCKED: &[u8] = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
        let Some(held) = self.hold() else { return false };
        held.end(waits, keyspace, limits, UNBLOCKED);
        true
    }

    /// Ends the wait of a client that has gone.
    pub fn forget(&self, waits: &BlockedClients, keyspace: &Keyspace) {
        if let Some(held) = self.hold() {
            held.leave(waits, keyspace);
        }
    }
}

/// A waiter that still waits, held so that its wait can be ended.
pub struct BlockedClientGuard<'w> {
    waiter: &'w BlockedClient,
    _turn: MutexGuard<'w, ()>,
}

impl BlockedClientGuard<'_> {
    /// Ends the wait with a reply.
    pub fn end(
        self,
        waits: &BlockedClients,
        keyspace: &Keyspace,
        limits: &OutputLimits,
        reply: &[u8],
    ) {
        let waiter = self.waiter;
        // The mail comes first: whoever sees that the wait is over finds it.
        if !waiter.silent {
            waiter.client.push_output(limits, |mail| mail.out.extend_from_slice(reply));
        }
        self.leave(waits, keyspace);
        waiter.client.wake();
    }

    fn leave(self, waits: &BlockedClients, keyspace: &Keyspace) {
        self.waiter.end.done.store(true, Ordering::Release);
        waits.remove(keyspace, self.waiter);
        *self.waiter.client.waiting.lock() = None;
    }
}

/// A key in a database.
type Name = Vec<u8>;

fn name(db: DbIndex, key: &[u8]) -> Name {
    let mut name = Vec::with_capacity(key.len() + 1);
    name.push(db.to_le_bytes()[0]);
    name.extend_from_slice(key);
    name
}

/// Who waits for one key, in the order of their tickets.
#[derive(Default)]
struct Queue {
    waiters: BTreeMap<u64, Arc<BlockedClient>>,
    /// How many of them condition to know when the key is gone.
    wake_on_delete: usize,
}

/// Who waits for keys of one home.
struct Queues {
    by_key: HashMap<Name, Queue>,
    /// For each shard, how many commands wait here that need it too.
    needed: [u64; SHARDS],
}

impl Default for Queues {
    fn default() -> Self {
        Self { by_key: HashMap::new(), needed: [0; SHARDS] }
    }
}

/// Everybody who waits.
pub struct BlockedClients {
    /// One a shard.
    queues: Vec<Mutex<Queues>>,
    tickets: AtomicU64,
    clients: AtomicU64,
    keys: AtomicU64,
}

impl Default for BlockedClients {
    fn default() -> Self {
        Self {
            queues: ShardIndex::all().map(|_| Mutex::default()).collect(),
            tickets: AtomicU64::new(0),
            clients: AtomicU64::new(0),
            keys: AtomicU64::new(0),
        }
    }
}

impl BlockedClients {
    /// Clients that wait.
    #[inline]
    pub fn count(&self) -> u64 {
        self.clients.load(Ordering::Relaxed)
    }

    /// Keys that are waited for.
    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// The place of the next one who waits.
    pub(crate) fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Queues a waiter for its keys, behind those that wait already; all their shards are locked.
    pub fn add(&self, shards: &mut Shards<'_>, waiter: &Arc<BlockedClient>) {
        let keyspace = shards.keyspace();
        // Nobody may end the wait before it is queued everywhere.
        let _turn = waiter.end.turn.lock();
        *waiter.client.waiting.lock() = Some(Arc::clone(waiter));
        self.clients.fetch_add(1, Ordering::Relaxed);
        let args = waiter.request.args();
        let mut homes = ShardSet::NONE;
        for i in &waiter.keys {
            let key = keyspace.key(waiter.db, args.at(*i));
            homes = homes | ShardSet::one(key.home_shard());
            let mut queues = self.queues[key.home_shard().get()].lock();
            let queue = queues.by_key.entry(name(waiter.db, key.bytes)).or_default();
            if queue.waiters.is_empty() {
                self.keys.fetch_add(1, Ordering::Relaxed);
            }
            // The same key may be named twice.
            if queue.waiters.insert(waiter.ticket, Arc::clone(waiter)).is_some() {
                continue;
            }
            queue.wake_on_delete += usize::from(waiter.condition.wake_on_delete);
            drop(queues);
            shards.add_waiter(waiter.db, &key);
        }
        self.each_needed(homes, waiter, |count| *count += 1);
    }

    /// In the queues of some homes, changes the counts of all shards that a waiter needs.
    fn each_needed(&self, homes: ShardSet, waiter: &BlockedClient, change: impl Fn(&mut u64)) {
        for home in homes.iter() {
            let mut queues = self.queues[home.get()].lock();
            for needed in waiter.needed.iter() {
                change(&mut queues.needed[needed.get()]);
            }
        }
    }

    fn remove(&self, keyspace: &Keyspace, waiter: &BlockedClient) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
        let args = waiter.request.args();
        let mut homes = ShardSet::NONE;
        for i in &waiter.keys {
            let key = keyspace.key(waiter.db, args.at(*i));
            homes = homes | ShardSet::one(key.home_shard());
            let mut queues = self.queues[key.home_shard().get()].lock();
            let name = name(waiter.db, key.bytes);
            let Some(queue) = queues.by_key.get_mut(&name) else { continue };
            if queue.waiters.remove(&waiter.ticket).is_none() {
                continue;
            }
            queue.wake_on_delete -= usize::from(waiter.condition.wake_on_delete);
            if queue.waiters.is_empty() {
                queues.by_key.remove(&name);
                self.keys.fetch_sub(1, Ordering::Relaxed);
            }
            drop(queues);
            keyspace.remove_waiter(waiter.db, &key);
        }
        self.each_needed(homes, waiter, |count| *count -= 1);
    }

    /// Of those who wait for a key, the first behind `ticket` who could be served when its value
    /// has type `kind`, or when it has none.
    pub fn next(
        &self,
        db: DbIndex,
        key: &Key<'_>,
        kind: Option<ValueKind>,
        ticket: u64,
    ) -> Option<Arc<BlockedClient>> {
        let queues = self.queues[key.home_shard().get()].lock();
        let queue = queues.by_key.get(&name(db, key.bytes))?;
        if kind.is_none() && queue.wake_on_delete == 0 {
            return None;
        }
        let mut behind = queue.waiters.range(ticket + 1..).map(|(_, waiter)| waiter);
        behind.find(|waiter| waiter.condition.is_met_by(kind)).cloned()
    }

    /// `set`, and the shards that the commands need which wait for keys of it, and so on: with
    /// these locked, all that a change in `set` can set off can be served at once, but for what
    /// needs a key that has gone to another shard since.
    pub fn reach(&self, set: ShardSet) -> ShardSet {
        let (mut reached, mut looked_at) = (set, ShardSet::NONE);
        while reached != looked_at {
            let new = reached.iter().filter(|shard| !looked_at.has(*shard));
            let needed: ShardSet = new.map(|shard| self.needed(shard)).collect();
            looked_at = reached;
            reached = reached | needed;
        }
        reached
    }

    fn needed(&self, home: ShardIndex) -> ShardSet {
        let queues = self.queues[home.get()].lock();
        let needed = ShardIndex::all().filter(|shard| queues.needed[shard.get()] > 0);
        needed.map(ShardSet::one).collect()
    }
}

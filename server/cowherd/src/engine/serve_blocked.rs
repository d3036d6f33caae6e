//! Serves clients that are blocked on keys, after a command has written such keys.
//!
//! ```text
//! worker A: lock | run LPUSH k | ready: k | retry BLPOP of client 1 -> pending output | unlock
//! worker B:                                 client 1's connection wakes and sends its output
//! ```
//!
//! A blocked command is retried under the locks of the command that wrote the key, so that no third
//! command can take the value before the first client in the key's queue. A writing command
//! therefore locks, besides its own shards, the shards that blocked commands on them need
//! ([`shards_to_lock`]). A key that becomes ready without such locks (a client blocked meanwhile,
//! a key expired in the background) is served directly afterwards, under locks of its own.
//!
//! Invariants:
//! 1. A blocked command is retried only while all shards that it names are locked.
//! 2. Clients blocked on the same key are retried in the order in which they blocked.

use std::sync::Arc;

use crate::clients::{BlockedClient, BlockingMode, Session};
use crate::commands::{Call, CommandFlags, Effect, ErrorReply, Shared};
use crate::config::Config;
use crate::keyspace::{ReadyKey, Reclaimer, ShardSet, Shards};
use cowherd_resp::ReplyWriter;

use super::retry::retry_under_locks;

/// The shards to lock for a command that names `set`: a writing command also locks the shards that
/// the clients blocked on `set` need.
#[inline]
pub(super) fn shards_to_lock(shared: &Shared, flags: CommandFlags, set: ShardSet) -> ShardSet {
    if flags.contains(CommandFlags::WRITE) && shared.blocked_clients.count() > 0 {
        shared.blocked_clients.lock_closure(set)
    } else {
        set
    }
}

/// Serves the clients blocked on keys that became ready under `shards`, and unlocks the shards.
#[cold]
pub(super) fn serve_and_unlock(
    shared: &Shared,
    config: &Config,
    reclaimer: &mut Reclaimer,
    shards: Shards<'_>,
) {
    let now = shards.now();
    let (remaining, needed) = serve_locked(shared, config, reclaimer, shards);
    lock_and_serve(shared, config, reclaimer, remaining, needed, now);
}

/// Serves the clients blocked on the ready keys of `shards`. Returns the keys that need further
/// shards, and these shards.
fn serve_locked(
    shared: &Shared,
    config: &Config,
    reclaimer: &mut Reclaimer,
    mut shards: Shards<'_>,
) -> (Vec<ReadyKey>, ShardSet) {
    reclaimer.reset_locked_budget();
    let (mut remaining, mut needed) = (Vec::new(), ShardSet::NONE);
    while shards.has_ready() {
        for key in shards.take_ready() {
            if let Err(missing) = serve_key(shared, config, reclaimer, &mut shards, &key) {
                remaining.push(key);
                needed = needed | missing;
            }
        }
    }
    (remaining, needed)
}

/// Serves the clients blocked on the `ready` keys. Requires that the calling thread holds no shard
/// lock.
#[cold]
pub(super) fn serve_ready(
    shared: &Shared,
    config: &Config,
    reclaimer: &mut Reclaimer,
    ready: Vec<ReadyKey>,
    now: i64,
) {
    lock_and_serve(shared, config, reclaimer, ready, ShardSet::NONE, now);
}

/// Serves the clients blocked on keys that `reclaimer` has evicted. Requires that the calling
/// thread holds no shard lock.
#[cold]
pub(super) fn serve_evicted(shared: &Shared, config: &Config, reclaimer: &mut Reclaimer, now: i64) {
    let evicted = reclaimer.take_ready();
    serve_ready(shared, config, reclaimer, evicted, now);
}

/// Locks the shards of the `ready` keys and `needed`, and serves, until no key remains.
fn lock_and_serve(
    shared: &Shared,
    config: &Config,
    reclaimer: &mut Reclaimer,
    mut ready: Vec<ReadyKey>,
    mut needed: ShardSet,
    now: i64,
) {
    let keyspace = &shared.keyspace;
    loop {
        while !ready.is_empty() {
            let own = || {
                let hashes = ready.iter().map(|ready| keyspace.hash(&ready.key));
                hashes.map(|hash| keyspace.shards_of(hash)).collect()
            };
            let widen = |set| shared.blocked_clients.lock_closure(set | needed);
            let is_busy = || shared.scripting.running.is_any_busy();
            let locked = keyspace.lock_with_retry(now, own, widen, is_busy);
            let Some(mut shards) = locked else {
                // A script holds the shards for long, perhaps on this thread.
                return shared.blocked_clients.defer(ready);
            };
            shards.add_ready(ready);
            let missing;
            (ready, missing) = serve_locked(shared, config, reclaimer, shards);
            // The set only grows, which bounds the number of rounds: the shards that one key needs
            // stay locked while another is served.
            needed = needed | missing;
        }
        // The retried commands may have evicted keys on which clients are blocked.
        ready = reclaimer.take_ready();
        if ready.is_empty() {
            return;
        }
        needed = ShardSet::NONE;
    }
}

/// Serves the clients blocked on one ready key.
///
/// # Errors
/// The shards that must be locked, if `shards` do not cover them.
fn serve_key(
    shared: &Shared,
    config: &Config,
    reclaimer: &mut Reclaimer,
    shards: &mut Shards<'_>,
    ready: &ReadyKey,
) -> Result<(), ShardSet> {
    let keyspace = &shared.keyspace;
    let hash = keyspace.hash(&ready.key);
    require_locked(shards, keyspace.shards_of(hash))?;
    let key = keyspace.key_of(ready.db, &ready.key, hash);
    let mut last = 0;
    loop {
        let kind = shards.peek(ready.db, &key).map(|entry| entry.kind());
        let next = shared.blocked_clients.next_ready(ready.db, &key, kind, last);
        let Some(blocked) = next else { return Ok(()) };
        require_locked(shards, blocked.shards(keyspace))?;
        last = blocked.sequence;
        retry(shared, config, reclaimer, shards, &blocked);
    }
}

/// Returns `needed` as the error unless `shards` cover it.
fn require_locked(shards: &Shards<'_>, needed: ShardSet) -> Result<(), ShardSet> {
    if shards.locked().covers(needed) { Ok(()) } else { Err(needed) }
}

/// Runs a blocked command once more and unblocks its client if the command replies.
fn retry(
    shared: &Shared,
    config: &Config,
    reclaimer: &mut Reclaimer,
    shards: &mut Shards<'_>,
    blocked: &BlockedClient,
) {
    let Some(held) = blocked.lock() else { return };
    let now = shards.now();
    let row = &shared.table.rows()[blocked.row];
    let mut session = Session::new(Arc::clone(&blocked.client), true);
    session.db = blocked.db;
    session.read_tracking = blocked.read_tracking;
    let mut reply = ReplyWriter::new(blocked.client.version());
    let (lent, client) = (shards.reborrow(), blocked.client.id);
    let mut call = Call {
        args: blocked.request.args(),
        reply: &mut reply,
        session: &mut session,
        shared,
        config,
        shards: if blocked.no_touch { lent.without_touch() } else { lent }.for_client(client),
        blocking_mode: BlockingMode::Retrying,
        row,
        first_hash: None,
        now,
        effect: Effect::None,
    };
    let mut answer = (row.command.handler)(&mut call);
    if answer == Err(ErrorReply::OUT_OF_MEMORY) {
        let mut spared = blocked.hashes.clone();
        spared.sort_unstable();
        answer = retry_under_locks(&mut call, reclaimer, &spared);
    }
    call.remember_reads();
    let still_blocked = answer.is_ok() && call.effect == Effect::Block;
    let ready = call.shards.take_ready();
    drop(call);
    shards.add_ready(ready);
    if still_blocked {
        return;
    }
    if let Err(failure) = answer {
        shared.telemetry.failed_after_wait(blocked.row, failure.as_bytes());
        reply.out.clear();
        reply.error_bytes(failure.as_bytes());
    }
    let limits = &config.client_output_buffer_limit;
    held.reply(&shared.blocked_clients, &shared.keyspace, limits, &reply.out);
}

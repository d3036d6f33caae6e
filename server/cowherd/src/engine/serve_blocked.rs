//! Serving clients that wait for keys, when a command has touched such keys.
//!
//! ```text
//! worker A: lock | run LPUSH k | touched: k | run BLPOP of client 1, reply to its mail | unlock
//! worker B:                                    client 1's connection wakes, sends its mail
//! ```
//!
//! The waiters' commands run under the locks of the command that touched the key, so that nobody
//! takes away what was meant for the first in the queue. For that a writing command locks, besides
//! its own shards, those that the waiting commands in them need (`BlockedClients::reach`). What
//! shows up only afterwards (a client that began to wait meanwhile, a key that expired in the
//! background) is served under locks of its own, right behind.
//!
//! Invariants:
//! 1. A waiter's command runs only while all shards that it names are locked.
//! 2. Of those who wait for a key, one is never tried before another that came earlier.

use std::sync::Arc;

use crate::clients::{BlockedClient, BlockingMode, Session};
use crate::commands::{Call, Effect, ErrorReply, Shared};
use crate::config::Config;
use crate::keyspace::{ReadyKey, Reclaimer, ShardSet, Shards};
use cowherd_resp::ReplyWriter;

use super::retry::retry_under_locks;

/// Serves those who wait for keys that were touched under `shards`, and unlocks these.
#[cold]
pub(super) fn serve_all(
    shared: &Shared,
    config: &Config,
    reclaimer: &mut Reclaimer,
    shards: Shards<'_>,
) {
    let now = shards.now();
    let (left, needed) = serve(shared, config, reclaimer, shards);
    serve_with(shared, config, reclaimer, left, needed, now);
}

/// Serves those who wait for keys that were touched under `shards`. Returns the keys for which
/// other shards have to be locked, and these.
fn serve(
    shared: &Shared,
    config: &Config,
    reclaimer: &mut Reclaimer,
    mut shards: Shards<'_>,
) -> (Vec<ReadyKey>, ShardSet) {
    reclaimer.reset_locked_budget();
    let (mut left, mut needed) = (Vec::new(), ShardSet::NONE);
    while shards.has_ready() {
        let touched = shards.take_ready();
        for key in touched {
            if let Err(missing) = serve_key(shared, config, reclaimer, &mut shards, &key) {
                left.push(key);
                needed = needed | missing;
            }
        }
    }
    (left, needed)
}

/// Serves those who wait for keys under locks of their own.
#[cold]
pub(super) fn serve_later(
    shared: &Shared,
    config: &Config,
    reclaimer: &mut Reclaimer,
    touched: Vec<ReadyKey>,
    now: i64,
) {
    serve_with(shared, config, reclaimer, touched, ShardSet::NONE, now);
}

/// Serves the clients that wait for keys which eviction has removed. No lock is held.
#[cold]
pub(super) fn serve_evicted(shared: &Shared, config: &Config, reclaimer: &mut Reclaimer, now: i64) {
    let evicted = reclaimer.take_ready();
    serve_later(shared, config, reclaimer, evicted, now);
}

/// Serves those who wait for keys, under the locks of `needed` too.
fn serve_with(
    shared: &Shared,
    config: &Config,
    reclaimer: &mut Reclaimer,
    mut touched: Vec<ReadyKey>,
    mut needed: ShardSet,
    now: i64,
) {
    let keyspace = &shared.keyspace;
    loop {
        while !touched.is_empty() {
            let own = || {
                let hashes = touched.iter().map(|touched| keyspace.hash(&touched.key));
                hashes.map(|hash| keyspace.shards_of(hash)).collect()
            };
            let widen = |set| shared.blocked_clients.reach(set | needed);
            let mut shards = keyspace.lock_with_retry(now, own, widen);
            shards.add_ready(touched);
            let (left, missing) = serve(shared, config, reclaimer, shards);
            touched = left;
            // The set only grows, so that the loop ends: what one key needs stays locked while
            // another is served.
            needed = needed | missing;
        }
        // Eviction under these locks may have removed keys for which clients wait.
        touched = reclaimer.take_ready();
        if touched.is_empty() {
            return;
        }
        needed = ShardSet::NONE;
    }
}

/// Serves those who wait for one key. If the locked shards are not enough for that, the error says
/// which have to be.
fn serve_key(
    shared: &Shared,
    config: &Config,
    reclaimer: &mut Reclaimer,
    shards: &mut Shards<'_>,
    touched: &ReadyKey,
) -> Result<(), ShardSet> {
    let keyspace = &shared.keyspace;
    let hash = keyspace.hash(&touched.key);
    enough(shards, keyspace.shards_of(hash))?;
    let key = keyspace.key_of(touched.db, &touched.key, hash);
    let mut ticket = 0;
    loop {
        let kind = shards.peek(touched.db, &key).map(|entry| entry.kind());
        let next = shared.blocked_clients.next(touched.db, &key, kind, ticket);
        let Some(waiter) = next else { return Ok(()) };
        enough(shards, waiter.shards(keyspace))?;
        ticket = waiter.ticket;
        try_again(shared, config, reclaimer, shards, &waiter);
    }
}

/// Whether some shards are locked; if not, the error says which have to be.
fn enough(shards: &Shards<'_>, needed: ShardSet) -> Result<(), ShardSet> {
    if shards.locked().covers(needed) { Ok(()) } else { Err(needed) }
}

/// Runs a waiter's command once more. If it answers, the wait is over.
fn try_again(
    shared: &Shared,
    config: &Config,
    reclaimer: &mut Reclaimer,
    shards: &mut Shards<'_>,
    waiter: &BlockedClient,
) {
    let Some(held) = waiter.hold() else { return };
    let now = shards.now();
    let row = &shared.table.rows()[waiter.row];
    let mut session = Session::new(Arc::clone(&waiter.client), true);
    session.db = waiter.db;
    let mut reply = ReplyWriter::new(waiter.client.version());
    let lent = shards.reborrow();
    let mut call = Call {
        args: waiter.request.args(),
        reply: &mut reply,
        session: &mut session,
        shared,
        config,
        shards: if waiter.no_touch { lent.without_touch() } else { lent },
        blocking_mode: BlockingMode::Retrying,
        row,
        first_hash: None,
        now,
        effect: Effect::None,
    };
    let mut answer = (row.command.handler)(&mut call);
    if answer == Err(ErrorReply::OUT_OF_MEMORY) {
        let mut spared = waiter.hashes().to_vec();
        spared.sort_unstable();
        answer = retry_under_locks(&mut call, reclaimer, &spared);
    }
    let waits_on = answer.is_ok() && call.effect == Effect::Block;
    let touched = call.shards.take_ready();
    drop(call);
    shards.add_ready(touched);
    if waits_on {
        return;
    }
    if let Err(failure) = answer {
        reply.out.clear();
        reply.error(failure.as_str());
    }
    let limits = &config.client_output_buffer_limit;
    held.end(&shared.blocked_clients, &shared.keyspace, limits, &reply.out);
}

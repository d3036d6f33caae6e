//! Serving clients that wait for keys, when a command has touched such keys.
//!
//! ```text
//! worker A: lock | run LPUSH k | touched: k | run BLPOP of client 1, reply to its mail | unlock
//! worker B:                                    client 1's connection wakes, sends its mail
//! ```
//!
//! The waiters' commands run under the locks of the command that touched the key, so that nobody
//! takes away what was meant for the first in the queue. For that a writing command locks, besides
//! its own shards, those that the waiting commands in them need (`Waits::reach`). What shows up
//! only afterwards (a client that began to wait meanwhile, a key that expired in the background) is
//! served under locks of its own, right behind.
//!
//! Invariants:
//! 1. A waiter's command runs only while all shards that it names are locked.
//! 2. Of those who wait for a key, one is never tried before another that came earlier.

use std::sync::Arc;

use crate::commands::{Call, Effect, Patience, Session, Shared, Waiter};
use crate::config::Config;
use crate::keyspace::{ReadyKey, ShardSet, Shards};
use crate::protocol::Reply;

/// Serves those who wait for keys that were touched under `shards`, and unlocks these.
#[cold]
pub(super) fn serve_all(shared: &Shared, config: &Config, shards: Shards<'_>) {
    let now = shards.now();
    let left = serve(shared, config, shards);
    serve_later(shared, config, left, now);
}

/// Serves those who wait for keys that were touched under `shards`. Returns the keys for which
/// other shards have to be locked.
fn serve(shared: &Shared, config: &Config, mut shards: Shards<'_>) -> Vec<ReadyKey> {
    let mut left = Vec::new();
    while shards.has_ready() {
        let touched = shards.take_ready();
        for key in touched {
            if !serve_key(shared, config, &mut shards, &key) {
                left.push(key);
            }
        }
    }
    left
}

/// Serves those who wait for keys under locks of their own.
#[cold]
pub(super) fn serve_later(shared: &Shared, config: &Config, mut touched: Vec<ReadyKey>, now: i64) {
    while !touched.is_empty() {
        let keyspace = &shared.keyspace;
        let own = touched.iter().map(|touched| ShardSet::one(keyspace.key(&touched.key).shard));
        let own = own.fold(ShardSet::NONE, |set, shard| set | shard);
        let mut shards = keyspace.lock(shared.waits.reach(own), now);
        shards.add_ready(touched);
        touched = serve(shared, config, shards);
    }
}

/// Serves those who wait for one key; tells whether the locked shards were enough for that.
fn serve_key(
    shared: &Shared,
    config: &Config,
    shards: &mut Shards<'_>,
    touched: &ReadyKey,
) -> bool {
    let key = shared.keyspace.key(&touched.key);
    if !shards.locked().has(key.shard) {
        return false;
    }
    let mut ticket = 0;
    loop {
        let kind = shards.peek(touched.db, &key).map(|entry| entry.kind());
        let next = shared.waits.next(key.shard, touched.db, key.bytes, kind, ticket);
        let Some(waiter) = next else { return true };
        if shards.locked() | waiter.shards != shards.locked() {
            return false;
        }
        ticket = waiter.ticket;
        try_again(shared, config, shards, &waiter);
    }
}

/// Runs a waiter's command once more. If it answers, the wait is over.
fn try_again(shared: &Shared, config: &Config, shards: &mut Shards<'_>, waiter: &Waiter) {
    let Some(held) = waiter.hold() else { return };
    let now = shards.now();
    let row = &shared.table.rows()[waiter.row];
    let mut session = Session::new(Arc::clone(&waiter.client), true);
    session.db = waiter.db;
    let mut reply = Reply::new(waiter.client.version());
    let lent = shards.lend();
    let mut call = Call {
        args: waiter.request.args(),
        reply: &mut reply,
        session: &mut session,
        shared,
        config,
        shards: if waiter.no_touch { lent.without_touch() } else { lent },
        named: waiter.shards,
        patience: Patience::Waiting,
        row,
        first_key: None,
        now,
        effect: Effect::None,
    };
    let answer = (row.command.handler)(&mut call);
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
    held.end(&shared.waits, &shared.keyspace, limits, &reply.out);
}

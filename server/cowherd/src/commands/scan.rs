//! KEYS, SCAN and RANDOMKEY.
//!
//! The handlers visit one home shard after the other, and lock only the shards in which its keys
//! live. A key that exists during the whole call is visited; a key that is created, deleted or
//! renamed meanwhile may be missed.

use crate::keyspace::{Keyspace, RandomKey, ScanCursor, ShardIndex, ShardSet, ValueType};
use cowherd_resp::{glob_match, parse_i64, parse_u64_loose};

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::random::random;
use super::table::{Command, CommandFlags, CommandGroup, LockScope};

const GROUP: CommandGroup = CommandGroup::Generic;
/// The default COUNT of SCAN.
pub(super) const COUNT: usize = 10;

const NO_CURSOR: ErrorReply = ErrorReply::new("ERR invalid cursor");
/// The error of SCAN, SSCAN and ZSCAN for an option of HSCAN.
pub(super) const ONLY_HSCAN: ErrorReply =
    ErrorReply::new("ERR NOVALUES option can only be used in HSCAN");

pub(super) const COMMANDS: &[Command] = &[
    Command::new("keys", 2, CommandFlags::READONLY, keys)
        .doc(GROUP, "1.0.0", "Lists all keys whose names match a pattern.")
        .syntax("pattern")
        .locking(LockScope::Handler)
        .categories(&["@keyspace", "@dangerous"])
        .hints(&["request_policy:all_shards", "nondeterministic_output_order"]),
    Command::new("scan", -2, CommandFlags::READONLY, scan)
        .doc(GROUP, "2.8.0", "Lists some keys, and the cursor with which the next call goes on.")
        .syntax("cursor [MATCH pattern] [COUNT count] [TYPE@6.0.0 type]")
        .hints(&["nondeterministic_output", "request_policy:special", "response_policy:special"])
        .locking(LockScope::Handler),
    Command::new("randomkey", 1, CommandFlags::READONLY, randomkey)
        .doc(GROUP, "1.0.0", "Returns a key chosen at random.")
        .hints(&["request_policy:all_shards", "response_policy:special", "nondeterministic_output"])
        .locking(LockScope::Handler),
];

fn keys(call: &mut Call<'_>) -> CommandResult {
    let (db, pattern) = (call.session.db, call.args.at(1));
    let list = call.reply.deferred_array();
    let mut listed = 0;
    let mut place = Some(ScanCursor::unpack(0));
    while let Some(start) = place {
        let named = |keyspace: &Keyspace| keyspace.shards_of_home(start.shard);
        call.locked(named, |shards, reply| {
            shards.scan(db, start.shard, start.within, usize::MAX, |key, _| {
                if glob_match(pattern, key, false) {
                    reply.bulk(key);
                    listed += 1;
                }
            });
        })?;
        place = start.next_shard();
    }
    call.reply.set_array_len(list, listed);
    Ok(())
}

/// The options of SCAN.
struct KeyScanOptions<'c> {
    count: usize,
    pattern: Option<&'c [u8]>,
    kind: Option<&'c [u8]>,
}

impl<'c> KeyScanOptions<'c> {
    /// The options from argument 2 on.
    fn parse(call: &Call<'c>) -> Result<Self, ErrorReply> {
        let mut options = Self { count: COUNT, pattern: None, kind: None };
        let mut i = 2;
        while i < call.args.len() {
            if call.is(i, "novalues") {
                return Err(ONLY_HSCAN);
            }
            let Some(value) = call.args.get(i + 1) else { return Err(ErrorReply::SYNTAX) };
            if call.is(i, "count") {
                let count = parse_i64(value).ok_or(ErrorReply::NOT_INTEGER)?;
                let count = usize::try_from(count).ok().filter(|count| *count > 0);
                options.count = count.ok_or(ErrorReply::SYNTAX)?;
            } else if call.is(i, "match") {
                options.pattern = Some(value);
            } else if call.is(i, "type") {
                options.kind = Some(value);
            } else {
                return Err(ErrorReply::SYNTAX);
            }
            i += 2;
        }
        Ok(options)
    }

    fn matches(&self, key: &[u8], kind: ValueType) -> bool {
        self.pattern.is_none_or(|pattern| glob_match(pattern, key, false))
            && self.kind.is_none_or(|name| name.eq_ignore_ascii_case(kind.name().as_bytes()))
    }
}

/// The cursor in argument `i`.
pub(super) fn cursor(call: &Call<'_>, i: usize) -> Result<u64, ErrorReply> {
    parse_u64_loose(call.args.at(i)).ok_or(NO_CURSOR)
}

fn scan(call: &mut Call<'_>) -> CommandResult {
    let cursor = cursor(call, 1)?;
    let options = KeyScanOptions::parse(call)?;
    let db = call.session.db;
    let start = call.reply.len();
    let list = call.reply.deferred_array();
    let (mut visited, mut listed) = (0, 0);
    let mut next = Some(ScanCursor::unpack(cursor));
    while let Some(place) = next
        && visited < options.count
    {
        let least = options.count - visited;
        let named = |keyspace: &Keyspace| keyspace.shards_of_home(place.shard);
        let within = call.locked(named, |shards, reply| {
            shards.scan(db, place.shard, place.within, least, |key, kind| {
                visited += 1;
                if options.matches(key, kind) {
                    reply.bulk(key);
                    listed += 1;
                }
            })
        })?;
        match within {
            None => next = place.next_shard(),
            // Enough keys were visited, expired ones included.
            Some(within) => {
                next = Some(ScanCursor { within, ..place });
                break;
            }
        }
    }
    call.reply.set_array_len(list, listed);
    // The cursor precedes the keys, but is known only after the scan.
    let end = call.reply.len();
    call.reply.array(2);
    let cursor = next.map_or(0, ScanCursor::pack);
    call.reply.bulk(itoa::Buffer::new().format(cursor).as_bytes());
    let head = call.reply.len() - end;
    call.reply.out[start..].rotate_right(head);
    Ok(())
}

fn randomkey(call: &mut Call<'_>) -> CommandResult {
    let (db, keyspace) = (call.session.db, &call.shared.keyspace);
    loop {
        let len = keyspace.len(db);
        if len == 0 {
            call.reply.null();
            return Ok(());
        }
        // The shard of the nth key, so that the probability of a shard is proportional to its keys.
        let mut nth = random() % len;
        let shard = ShardIndex::all().find(|shard| {
            let len = keyspace.shard_len(*shard, db);
            let is_here = nth < len;
            nth = nth.saturating_sub(len);
            is_here
        });
        // No shard if keys were deleted meanwhile.
        let Some(shard) = shard else { continue };
        let picked = call.locked(
            |_| ShardSet::one(shard),
            |shards, reply| {
                let RandomKey::Key(key) = shards.random_key(db, shard, random) else {
                    return false;
                };
                reply.bulk(key);
                true
            },
        )?;
        if picked {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;

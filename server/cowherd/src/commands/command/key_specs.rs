//! What clients may ask of a command and the table does not tell: how it uses its keys, which
//! categories its group does not imply, and hints for proxies. The words are Redis's.

use crate::commands::table::{CommandFlags, CommandRow, KeyPositions};
use cowherd_resp::Args;

/// Keys that a command uses in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct KeySpec {
    /// How they are used.
    pub flags: &'static [&'static str],
    /// The first one.
    pub begin: usize,
    /// The last one, counted from the first; below zero, from the end.
    pub last: isize,
    /// From one to the next.
    pub step: usize,
    /// Whether the argument at `begin` says how many follow it.
    pub is_counted: bool,
    /// Whether they are behind the word STREAMS, which is at `begin` at the earliest.
    pub is_behind_word: bool,
}

impl KeySpec {
    /// Those from `first` on to the one that is `last` behind it, or from the end.
    const fn spread(flags: Uses, first: usize, last: isize, step: usize) -> Self {
        Self { flags, begin: first, last, step, is_counted: false, is_behind_word: false }
    }

    /// Where these keys stand among arguments.
    pub(super) fn positions(&self, args: &Args<'_>) -> impl Iterator<Item = usize> + use<> {
        let last = match self.last {
            last if last >= 0 => self.begin.cast_signed() + last,
            back => back,
        };
        let keys = match (self.is_counted, self.is_behind_word) {
            (_, true) => KeyPositions::streams(self.begin),
            (true, _) => KeyPositions { count: self.begin, ..KeyPositions::NONE },
            _ => KeyPositions::spread(self.begin, last, self.step),
        };
        keys.positions(args)
    }
}

type Uses = &'static [&'static str];

const READ: Uses = &["RO", "access"];
const LOOK: Uses = &["RO"];
const UPDATE: Uses = &["RW", "update"];
const EDIT: Uses = &["RW", "access", "update"];
const VARIES: Uses = &["RW", "access", "update", "variable_flags"];
const EXTEND: Uses = &["RW", "insert"];
const TAKE: Uses = &["RW", "access", "delete"];
const DELETE: Uses = &["RW", "delete"];
const REPLACE: Uses = &["OW", "update"];
const CREATE: Uses = &["OW", "insert"];
const REMOVE: Uses = &["RM", "delete"];

/// The name under which facts are kept: renaming changes nothing about a command.
pub(super) fn known_name(row: &CommandRow) -> &str {
    if row.name.contains('|') { &row.name } else { row.command.name }
}

/// How a command uses its keys.
pub(super) fn key_specs(row: &CommandRow) -> Vec<KeySpec> {
    let keys = row.command.keys;
    if !keys.are_there() {
        return Vec::new();
    }
    let (first, second): (Uses, Option<Uses>) = match known_name(row) {
        "exists" | "touch" | "type" | "strlen" | "zcard" | "scard" | "sismember" => (LOOK, None),
        name if name.starts_with("object|") || name == "memory|usage" => (LOOK, None),
        "append" | "lpush" | "rpush" | "lpushx" | "rpushx" | "linsert" | "sadd" => (EXTEND, None),
        "lpop" | "rpop" | "blpop" | "brpop" | "lmpop" | "blmpop" => (TAKE, None),
        "lrem" | "ltrim" | "xdel" | "xtrim" | "xautoclaim" | "xgroup|destroy"
        | "xgroup|delconsumer" => (DELETE, None),
        "xgroup|create" | "xgroup|createconsumer" => (EXTEND, None),
        "xreadgroup" => (READ, None),
        "lmove" | "blmove" | "rpoplpush" | "brpoplpush" => (TAKE, Some(EXTEND)),
        "llen" | "xlen" => (LOOK, None),
        "decr" | "decrby" | "incr" | "incrby" | "incrbyfloat" | "getex" | "getset" | "setbit"
        | "move" | "zincrby" => (EDIT, None),
        "set" | "bitfield" => (VARIES, None),
        "getdel" | "zpopmin" | "zpopmax" | "zmpop" | "bzpopmin" | "bzpopmax" | "bzmpop"
        | "spop" => (TAKE, None),
        "zrem" | "zremrangebyrank" | "zremrangebyscore" | "zremrangebylex" | "srem" => {
            (DELETE, None)
        }
        "smove" => (TAKE, Some(EXTEND)),
        "mset" | "psetex" | "setex" | "restore" => (REPLACE, None),
        "setnx" | "msetnx" => (CREATE, None),
        "del" | "unlink" => (REMOVE, None),
        "rename" => (TAKE, Some(REPLACE)),
        "renamenx" => (TAKE, Some(CREATE)),
        "copy" => (READ, Some(REPLACE)),
        "sort" => (READ, None),
        "bitop" | "zrangestore" | "zunionstore" | "zinterstore" | "zdiffstore" | "sunionstore"
        | "sdiffstore" => (REPLACE, Some(READ)),
        "sinterstore" => (UPDATE, Some(READ)),
        _ if row.command.flags.has(CommandFlags::PUBSUB) => (&["not_key"], None),
        _ if row.command.flags.has(CommandFlags::WRITE) => (UPDATE, None),
        _ => (READ, None),
    };
    let first_index = isize::try_from(keys.first).unwrap_or(isize::MAX);
    let last = if keys.last < 0 { keys.last } else { keys.last - first_index };
    if keys.streams != 0 {
        let behind = KeySpec::spread(first, keys.streams, -1, 1);
        return vec![KeySpec { is_behind_word: true, ..behind }];
    }
    if keys.count != 0 {
        let counted = KeySpec {
            flags: second.unwrap_or(first),
            begin: keys.count,
            last: 0,
            step: 1,
            is_counted: true,
            is_behind_word: false,
        };
        let before = KeySpec::spread(first, keys.first, last, keys.step);
        return if keys.first == 0 { vec![counted] } else { vec![before, counted] };
    }
    match second {
        None => vec![KeySpec::spread(first, keys.first, last, keys.step)],
        Some(second) => {
            let rest = if keys.last < 0 { keys.last } else { last - 1 };
            let begin = keys.first + keys.step;
            vec![
                KeySpec::spread(first, keys.first, 0, 1),
                KeySpec::spread(second, begin, rest, keys.step),
            ]
        }
    }
}

/// Categories that do not follow from the flags.
pub(super) fn categories(row: &CommandRow) -> &'static [&'static str] {
    match known_name(row) {
        "flushall" | "flushdb" | "swapdb" | "keys" | "restore" => &["@keyspace", "@dangerous"],
        "dbsize" => &["@keyspace"],
        "info" => &["@dangerous"],
        "lastsave" | "role" => &["@admin", "@dangerous"],
        name if name == "command" || name.starts_with("command|") => &["@connection"],
        _ => match row.command.group {
            "generic" if matches!(row.command.name, "sort" | "sort_ro") => {
                &["@set", "@sortedset", "@list", "@dangerous"]
            }
            "generic" => &["@keyspace"],
            "string" => &["@string"],
            "list" => &["@list"],
            "bitmap" => &["@bitmap"],
            "sorted-set" => &["@sortedset"],
            "set" => &["@set"],
            "stream" => &["@stream"],
            "connection" => &["@connection"],
            "pubsub" if row.command.flags.has(CommandFlags::PUBSUB) => &["@pubsub"],
            "scripting" => &["@scripting"],
            "transactions" => &["@transaction"],
            _ => &[],
        },
    }
}

/// Hints for clients and proxies.
pub(super) fn hints(row: &CommandRow) -> &'static [&'static str] {
    const VOLATILE: &[&str] = &["nondeterministic_output"];
    const UNORDERED: &[&str] = &["nondeterministic_output_order"];
    const SUM: &[&str] = &["request_policy:multi_shard", "response_policy:agg_sum"];
    const EVERYWHERE: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];
    const EVERY_NODE: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];
    match known_name(row) {
        "del" | "exists" | "touch" | "unlink" => SUM,
        "mget" => &["request_policy:multi_shard"],
        "mset" => &["request_policy:multi_shard", "response_policy:all_succeeded"],
        "msetnx" => &["request_policy:multi_shard", "response_policy:agg_min"],
        "ping" | "flushall" | "flushdb" | "function|flush" => EVERYWHERE,
        "config|set" | "script|flush" | "slowlog|reset" | "latency|reset" => EVERY_NODE,
        "dbsize" => &["request_policy:all_shards", "response_policy:agg_sum"],
        "keys" => &["request_policy:all_shards", "nondeterministic_output_order"],
        "randomkey" => &["request_policy:all_shards", "nondeterministic_output"],
        "scan" => &["nondeterministic_output", "request_policy:special"],
        "info" => {
            &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"]
        }
        "client|info" | "client|list" | "dump" | "lastsave" | "pttl" | "time" | "ttl"
        | "zrandmember" | "zscan" | "spop" | "srandmember" | "sscan" => VOLATILE,
        "sdiff" | "sinter" | "smembers" | "sunion" => UNORDERED,
        "object|encoding" | "object|freq" | "object|idletime" | "object|refcount" => VOLATILE,
        "command" | "command|docs" | "command|info" | "command|list" => UNORDERED,
        _ => &[],
    }
}

//! Sorted sets: members in the order of their scores.
//!
//! | file | commands |
//! |---|---|
//! | `add` | ZADD, ZINCRBY |
//! | `rank` | what one can ask of members and of whole sorted sets |
//! | `bounds` | the ranges that arguments name |
//! | `range` | ZRANGE and its kin, ZRANGESTORE |
//! | `remove` | ZREM and its kin, ZPOPMIN, ZPOPMAX, ZMPOP, BZPOPMIN, BZPOPMAX, BZMPOP |
//! | `combine` | unions, intersections, differences |
//! | `random` | ZRANDMEMBER, ZSCAN |

mod add;
mod bounds;
mod combine;
mod random;
mod range;
mod rank;
mod remove;
#[cfg(test)]
mod tests;

use crate::keyspace::{CompactLimits, Entry, ValueKind};

use super::call::Call;
use super::error_reply::ErrorReply;
use super::table::{Command, CommandFlags, Handler, KeyPositions};

const GROUP: &str = "sorted-set";
const READ: CommandFlags = CommandFlags::READONLY;
const FAST_READ: CommandFlags = CommandFlags::READONLY.and(CommandFlags::FAST);
const FAST_WRITE: CommandFlags = CommandFlags::WRITE.and(CommandFlags::FAST);
const STORE: CommandFlags = CommandFlags::WRITE.and(CommandFlags::DENYOOM);
const FAST_STORE: CommandFlags = STORE.and(CommandFlags::FAST);

/// A command on one key.
const fn one(
    name: &'static str,
    arity: isize,
    flags: CommandFlags,
    handler: Handler,
    since: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, flags, KeyPositions::ONE, handler).doc(GROUP, since, summary)
}

/// A command on several keys.
const fn several(
    name: &'static str,
    arity: isize,
    keys: KeyPositions,
    (flags, handler): (CommandFlags, Handler),
    since: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, flags, keys, handler).doc(GROUP, since, summary)
}

const WAIT: CommandFlags =
    CommandFlags::WRITE.and(CommandFlags::NOSCRIPT).and(CommandFlags::BLOCKING);
const ALL_BUT_LAST: KeyPositions = KeyPositions::spread(1, -2, 1);
const COUNTED: KeyPositions = KeyPositions::COUNTED;
const INTO: KeyPositions = KeyPositions::ONE_AND_COUNTED;

/// The family's rows.
pub(super) const COMMANDS: &[Command] = &[
    one("zadd", -4, FAST_STORE, add::zadd, "1.2.0", "Adds members, or changes their scores."),
    one("zincrby", 4, FAST_STORE, add::zincrby, "1.2.0", "Adds to the score of a member."),
    one("zcard", 2, FAST_READ, rank::zcard, "1.2.0", "Counts the members."),
    one("zcount", 4, FAST_READ, rank::zcount, "2.0.0", "Counts the members in a range of scores."),
    one("zlexcount", 4, FAST_READ, rank::zlexcount, "2.8.9", "Counts the members between two."),
    one("zscore", 3, FAST_READ, rank::zscore, "1.2.0", "Returns the score of a member."),
    one("zmscore", -3, FAST_READ, rank::zmscore, "6.2.0", "Returns the scores of members."),
    one("zrank", -3, FAST_READ, rank::zrank, "2.0.0", "Returns how many members are before one."),
    one("zrevrank", -3, FAST_READ, rank::zrevrank, "2.0.0", "Counts the members behind one."),
    one("zrange", -4, READ, range::zrange, "1.2.0", "Lists the members in a range."),
    one("zrevrange", -4, READ, range::zrevrange, "1.2.0", "Lists members, the last ones first."),
    one("zrangebyscore", -4, READ, range::by_score, "1.0.5", "Lists members by their scores."),
    one(
        "zrevrangebyscore",
        -4,
        READ,
        range::by_score_down,
        "2.2.0",
        "Lists members by their scores, the last ones first.",
    ),
    one("zrangebylex", -4, READ, range::by_lex, "2.8.9", "Lists the members between two."),
    one(
        "zrevrangebylex",
        -4,
        READ,
        range::by_lex_down,
        "2.8.9",
        "Lists the members between two, the last ones first.",
    ),
    several(
        "zrangestore",
        -5,
        KeyPositions::TWO,
        (STORE, range::zrangestore),
        "6.2.0",
        "Stores the members in a range in another key.",
    ),
    one("zrem", -3, FAST_WRITE, remove::zrem, "1.2.0", "Removes members."),
    one(
        "zremrangebyrank",
        4,
        CommandFlags::WRITE,
        remove::by_rank,
        "2.0.0",
        "Removes the members in a range of ranks.",
    ),
    one(
        "zremrangebyscore",
        4,
        CommandFlags::WRITE,
        remove::by_score,
        "1.2.0",
        "Removes the members in a range of scores.",
    ),
    one(
        "zremrangebylex",
        4,
        CommandFlags::WRITE,
        remove::by_lex,
        "2.8.9",
        "Removes those between two.",
    ),
    one("zpopmin", -2, FAST_WRITE, remove::zpopmin, "5.0.0", "Takes the first members away."),
    one("zpopmax", -2, FAST_WRITE, remove::zpopmax, "5.0.0", "Takes the last members away."),
    several(
        "zmpop",
        -4,
        COUNTED,
        (CommandFlags::WRITE, remove::zmpop),
        "7.0.0",
        "Takes members away from the first key that has some.",
    ),
    several(
        "bzpopmin",
        -3,
        ALL_BUT_LAST,
        (WAIT.and(CommandFlags::FAST), remove::bzpopmin),
        "5.0.0",
        "Takes the first member away, as soon as there is one.",
    ),
    several(
        "bzpopmax",
        -3,
        ALL_BUT_LAST,
        (WAIT.and(CommandFlags::FAST), remove::bzpopmax),
        "5.0.0",
        "Takes the last member away, as soon as there is one.",
    ),
    several(
        "bzmpop",
        -5,
        KeyPositions { count: 2, ..KeyPositions::NONE },
        (CommandFlags::WRITE.and(CommandFlags::BLOCKING), remove::bzmpop),
        "7.0.0",
        "Takes members away from the first key that has some, as soon as one has.",
    ),
    several("zunion", -3, COUNTED, (READ, combine::zunion), "6.2.0", "Lists what is in any key."),
    several("zinter", -3, COUNTED, (READ, combine::zinter), "6.2.0", "Lists what is in all keys."),
    several(
        "zdiff",
        -3,
        COUNTED,
        (READ, combine::zdiff),
        "6.2.0",
        "Lists what is in the first key only.",
    ),
    several(
        "zunionstore",
        -4,
        INTO,
        (STORE, combine::zunionstore),
        "2.0.0",
        "Stores what is in any key.",
    ),
    several(
        "zinterstore",
        -4,
        INTO,
        (STORE, combine::zinterstore),
        "2.0.0",
        "Stores what is in all keys.",
    ),
    several(
        "zdiffstore",
        -4,
        INTO,
        (STORE, combine::zdiffstore),
        "6.2.0",
        "Stores what is in the first key only.",
    ),
    several(
        "zintercard",
        -3,
        COUNTED,
        (READ, combine::zintercard),
        "7.0.0",
        "Counts what is in all keys.",
    ),
    one("zrandmember", -2, READ, random::zrandmember, "6.2.0", "Returns members by chance."),
    one("zscan", -3, READ, random::zscan, "2.8.0", "Lists some members, and where to go on."),
];

/// When a sorted set is too large to be compact.
fn limits(call: &Call<'_>) -> CompactLimits {
    CompactLimits {
        entries: call.config.zset_max_listpack_entries,
        value: call.config.zset_max_listpack_value,
    }
}

/// The sorted set of argument `i`, to be read.
fn lookup_read(call: &mut Call<'_>, i: usize) -> Result<Option<Entry>, ErrorReply> {
    let key = call.key(i);
    Ok(call.shards.lookup_kind_read(call.session.db, &key, ValueKind::SortedSet)?)
}

/// The sorted set of argument `i`, to be changed.
fn lookup(call: &mut Call<'_>, i: usize) -> Result<Option<Entry>, ErrorReply> {
    let key = call.key(i);
    Ok(call.shards.lookup_kind(call.session.db, &key, ValueKind::SortedSet)?)
}

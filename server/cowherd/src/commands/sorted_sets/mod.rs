//! Sorted set commands.
//!
//! | file | what it holds |
//! |---|---|
//! | `add` | ZADD, ZINCRBY |
//! | `rank` | ranks, scores and counts of members |
//! | `bounds` | ranges in arguments |
//! | `range` | ZRANGE, ZRANGESTORE and the older range commands |
//! | `remove` | ZREM, ZREMRANGEBY*, and the pops: ZPOPMIN, ZMPOP, BZPOPMIN and others |
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

pub(super) use add::{ZaddOptions, put_members};
pub(super) use range::store;

use crate::config::Config;
use crate::keyspace::{CompactLimits, Entry, ValueType};

use super::call::Call;
use super::error_reply::ErrorReply;
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse};

const GROUP: CommandGroup = CommandGroup::SortedSet;
const READ: CommandFlags = CommandFlags::READONLY;
const FAST_READ: CommandFlags = CommandFlags::READONLY.with(CommandFlags::FAST);
const FAST_WRITE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::FAST);
const STORE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::DENYOOM);
const FAST_STORE: CommandFlags = STORE.with(CommandFlags::FAST);

const WAIT: CommandFlags = CommandFlags::WRITE.with(CommandFlags::BLOCKING);
const ALL_BUT_LAST: KeyPositions = KeyPositions::ALL_BUT_LAST;
const COUNTED: KeyPositions = KeyPositions::COUNTED;
const INTO: KeyPositions = KeyPositions::ONE_AND_COUNTED;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("zadd", -4, FAST_STORE, add::zadd)
        .doc(GROUP, "1.2.0", "Adds members, or changes their scores.")
        .keys(KeyPositions::ONE, KeyUse::UPDATE)
        .syntax(
            "key condition:[NX|XX]@3.0.2 comparison:[GT|LT]@6.2.0 [change:CH@3.0.2] \
             [increment:INCR@3.0.2] data:(score:double member)...",
        ),
    Command::new("zincrby", 4, FAST_STORE, add::zincrby)
        .doc(GROUP, "1.2.0", "Adds to the score of a member.")
        .keys(KeyPositions::ONE, KeyUse::READ_UPDATE)
        .syntax("key increment member"),
    Command::new("zcard", 2, FAST_READ, rank::zcard)
        .doc(GROUP, "1.2.0", "Counts the members.")
        .keys(KeyPositions::ONE, KeyUse::INSPECT)
        .syntax("key"),
    Command::new("zcount", 4, FAST_READ, rank::zcount)
        .doc(GROUP, "2.0.0", "Counts the members in a range of scores.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key min max"),
    Command::new("zlexcount", 4, FAST_READ, rank::zlexcount)
        .doc(GROUP, "2.8.9", "Counts the members between two.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key min:string max:string"),
    Command::new("zscore", 3, FAST_READ, rank::zscore)
        .doc(GROUP, "1.2.0", "Returns the score of a member.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key member"),
    Command::new("zmscore", -3, FAST_READ, rank::zmscore)
        .doc(GROUP, "6.2.0", "Returns the scores of members.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key member..."),
    Command::new("zrank", -3, FAST_READ, rank::zrank)
        .doc(GROUP, "2.0.0", "Returns how many members are before one.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key member [WITHSCORE]"),
    Command::new("zrevrank", -3, FAST_READ, rank::zrevrank)
        .doc(GROUP, "2.0.0", "Counts the members behind one.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key member [WITHSCORE]"),
    Command::new("zrange", -4, READ, range::zrange)
        .doc(GROUP, "1.2.0", "Lists the members in a range.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax(
            "key start:string stop:string sortby:[BYSCORE|BYLEX]@6.2.0 [REV@6.2.0] [LIMIT@6.2.0 \
             offset count] [WITHSCORES]",
        ),
    Command::new("zrevrange", -4, READ, range::zrevrange)
        .doc(GROUP, "1.2.0", "Lists members, the last ones first.")
        .deprecated("6.2.0", "`ZRANGE` with the option `REV`")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key start stop [WITHSCORES]"),
    Command::new("zrangebyscore", -4, READ, range::by_score)
        .doc(GROUP, "1.0.5", "Lists members by their scores.")
        .deprecated("6.2.0", "`ZRANGE` with the option `BYSCORE`")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key min max [WITHSCORES@2.0.0] [LIMIT offset count]"),
    Command::new("zrevrangebyscore", -4, READ, range::by_score_down)
        .doc(GROUP, "2.2.0", "Lists members by their scores, the last ones first.")
        .deprecated("6.2.0", "`ZRANGE` with the options `REV` and `BYSCORE`")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key max min [WITHSCORES] [LIMIT offset count]"),
    Command::new("zrangebylex", -4, READ, range::by_lex)
        .doc(GROUP, "2.8.9", "Lists the members between two.")
        .deprecated("6.2.0", "`ZRANGE` with the option `BYLEX`")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key min:string max:string [LIMIT offset count]"),
    Command::new("zrevrangebylex", -4, READ, range::by_lex_down)
        .doc(GROUP, "2.8.9", "Lists the members between two, the last ones first.")
        .deprecated("6.2.0", "`ZRANGE` with the options `REV` and `BYLEX`")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key max:string min:string [LIMIT offset count]"),
    Command::new("zrangestore", -5, STORE, range::zrangestore)
        .doc(GROUP, "6.2.0", "Stores the members in a range in another key.")
        .keys(KeyPositions::TWO, KeyUse::OVERWRITE)
        .other_keys(KeyUse::READ)
        .syntax(
            "dst:key src:key min:string max:string sortby:[BYSCORE|BYLEX] [REV] [LIMIT offset \
             count]",
        ),
    Command::new("zrem", -3, FAST_WRITE, remove::zrem)
        .doc(GROUP, "1.2.0", "Removes members.")
        .keys(KeyPositions::ONE, KeyUse::DELETE)
        .syntax("key member..."),
    Command::new("zremrangebyrank", 4, CommandFlags::WRITE, remove::by_rank)
        .doc(GROUP, "2.0.0", "Removes the members in a range of ranks.")
        .keys(KeyPositions::ONE, KeyUse::DELETE)
        .syntax("key start stop"),
    Command::new("zremrangebyscore", 4, CommandFlags::WRITE, remove::by_score)
        .doc(GROUP, "1.2.0", "Removes the members in a range of scores.")
        .keys(KeyPositions::ONE, KeyUse::DELETE)
        .syntax("key min max"),
    Command::new("zremrangebylex", 4, CommandFlags::WRITE, remove::by_lex)
        .doc(GROUP, "2.8.9", "Removes those between two.")
        .keys(KeyPositions::ONE, KeyUse::DELETE)
        .syntax("key min:string max:string"),
    Command::new("zpopmin", -2, FAST_WRITE, remove::zpopmin)
        .doc(GROUP, "5.0.0", "Takes the first members away.")
        .keys(KeyPositions::ONE, KeyUse::POP)
        .syntax("key [count]"),
    Command::new("zpopmax", -2, FAST_WRITE, remove::zpopmax)
        .doc(GROUP, "5.0.0", "Takes the last members away.")
        .keys(KeyPositions::ONE, KeyUse::POP)
        .syntax("key [count]"),
    Command::new("zmpop", -4, CommandFlags::WRITE, remove::zmpop)
        .doc(GROUP, "7.0.0", "Takes members away from the first key that has some.")
        .keys(COUNTED, KeyUse::POP)
        .syntax("numkeys key... where:(MIN|MAX) [COUNT count]"),
    Command::new("bzpopmin", -3, WAIT.with(CommandFlags::FAST), remove::bzpopmin)
        .doc(GROUP, "5.0.0", "Takes the first member away, as soon as there is one.")
        .keys(ALL_BUT_LAST, KeyUse::POP)
        .syntax("key... timeout"),
    Command::new("bzpopmax", -3, WAIT.with(CommandFlags::FAST), remove::bzpopmax)
        .doc(GROUP, "5.0.0", "Takes the last member away, as soon as there is one.")
        .keys(ALL_BUT_LAST, KeyUse::POP)
        .syntax("key... timeout"),
    Command::new("bzmpop", -5, CommandFlags::WRITE.with(CommandFlags::BLOCKING), remove::bzmpop)
        .doc(
            GROUP,
            "7.0.0",
            "Takes members away from the first key that has some, as soon as one has.",
        )
        .keys(KeyPositions::COUNTED_SECOND, KeyUse::POP)
        .syntax("timeout numkeys key... where:(MIN|MAX) [COUNT count]"),
    Command::new("zunion", -3, READ, combine::zunion)
        .doc(GROUP, "6.2.0", "Lists what is in any key.")
        .keys(COUNTED, KeyUse::READ)
        .syntax(
            "numkeys key... [WEIGHTS weight...] [AGGREGATE aggregate:(SUM|MIN|MAX)] [WITHSCORES]",
        ),
    Command::new("zinter", -3, READ, combine::zinter)
        .doc(GROUP, "6.2.0", "Lists what is in all keys.")
        .keys(COUNTED, KeyUse::READ)
        .syntax(
            "numkeys key... [WEIGHTS weight...] [AGGREGATE aggregate:(SUM|MIN|MAX)] [WITHSCORES]",
        ),
    Command::new("zdiff", -3, READ, combine::zdiff)
        .doc(GROUP, "6.2.0", "Lists what is in the first key only.")
        .keys(COUNTED, KeyUse::READ)
        .syntax("numkeys key... [WITHSCORES]"),
    Command::new("zunionstore", -4, STORE, combine::zunionstore)
        .doc(GROUP, "2.0.0", "Stores what is in any key.")
        .keys(INTO, KeyUse::OVERWRITE)
        .other_keys(KeyUse::READ)
        .syntax(
            "destination numkeys key... [WEIGHTS weight...] [AGGREGATE aggregate:(SUM|MIN|MAX)]",
        ),
    Command::new("zinterstore", -4, STORE, combine::zinterstore)
        .doc(GROUP, "2.0.0", "Stores what is in all keys.")
        .keys(INTO, KeyUse::OVERWRITE)
        .other_keys(KeyUse::READ)
        .syntax(
            "destination numkeys key... [WEIGHTS weight...] [AGGREGATE aggregate:(SUM|MIN|MAX)]",
        ),
    Command::new("zdiffstore", -4, STORE, combine::zdiffstore)
        .doc(GROUP, "6.2.0", "Stores what is in the first key only.")
        .keys(INTO, KeyUse::OVERWRITE)
        .other_keys(KeyUse::READ)
        .syntax("destination numkeys key..."),
    Command::new("zintercard", -3, READ, combine::zintercard)
        .doc(GROUP, "7.0.0", "Counts what is in all keys.")
        .keys(COUNTED, KeyUse::READ)
        .syntax("numkeys key... [LIMIT limit]"),
    Command::new("zrandmember", -2, READ, random::zrandmember)
        .doc(GROUP, "6.2.0", "Returns members by chance.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key options:[count [WITHSCORES]]")
        .hints(&["nondeterministic_output"]),
    Command::new("zscan", -3, READ, random::zscan)
        .doc(GROUP, "2.8.0", "Lists some members, and where to go on.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key cursor [MATCH pattern] [COUNT count]")
        .hints(&["nondeterministic_output"]),
];

/// The limits of the compact encoding.
const fn limits(call: &Call<'_>) -> CompactLimits {
    limits_of(call.config)
}

/// The limits of compact sorted sets.
pub(super) const fn limits_of(config: &Config) -> CompactLimits {
    CompactLimits {
        entries: config.zset_max_listpack_entries,
        value: config.zset_max_listpack_value,
    }
}

/// The sorted set of argument `i`; counts a hit or a miss.
pub(super) fn lookup_read(call: &mut Call<'_>, i: usize) -> Result<Option<Entry>, ErrorReply> {
    let key = call.key(i);
    Ok(call.shards.lookup_kind_read(call.session.db, &key, ValueType::SortedSet)?)
}

/// The sorted set of argument `i`, for a command that changes it.
fn lookup(call: &mut Call<'_>, i: usize) -> Result<Option<Entry>, ErrorReply> {
    let key = call.key(i);
    Ok(call.shards.lookup_kind(call.session.db, &key, ValueType::SortedSet)?)
}

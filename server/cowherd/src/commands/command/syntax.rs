//! The arguments of commands, written as a manual writes them, and the parser that turns such a
//! line into what COMMAND DOCS answers.
//!
//! ```text
//! key                an argument; its name tells its type, unless `name:type` does
//! NX ~               a word or a sign to be typed as it is
//! EX seconds         an argument, or several, behind such a word
//! [..] (..)          a group that may be left out, or not
//! a|b                one of them, in a group
//! item...            as often as one likes
//! ```

use crate::commands::table::CommandRow;

use super::key_specs;

#[cfg(test)]
#[path = "generate.rs"]
pub mod generate;

/// One argument, or a group of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Argument {
    /// Name; of a group, those of its parts.
    pub name: String,
    /// The word before it, or, if there is nothing else, the argument itself.
    pub token: Option<String>,
    /// Which key spec of the command it belongs to.
    pub key_spec: Option<i64>,
    /// What it consists of, if it is a group.
    pub parts: Vec<Argument>,
    optional: bool,
    multiple: bool,
    /// Whether just one of the parts is given.
    choice: bool,
    /// The type, if it is no group.
    plain: Option<&'static str>,
}

impl Argument {
    /// Its type.
    pub(super) fn kind(&self) -> &'static str {
        match (self.plain, self.choice) {
            (Some(plain), _) => plain,
            (None, true) => "oneof",
            (None, false) => "block",
        }
    }

    /// Its properties.
    pub(super) fn flags(&self) -> Vec<&'static str> {
        let flags = [(self.optional, "optional"), (self.multiple, "multiple")];
        flags.into_iter().filter_map(|(set, name)| set.then_some(name)).collect()
    }

    fn group(parts: Vec<Self>, choice: bool) -> Self {
        let name = parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join("_");
        Self { name, parts, choice, ..Self::default() }
    }

    /// A name, with or without a type.
    fn named(word: &str) -> Self {
        let (name, kind) = match word.split_once(':') {
            Some((name, kind)) => (name, KINDS.iter().find(|known| **known == kind)),
            None => (word, None),
        };
        let plain = kind.copied().unwrap_or_else(|| kind_of(name));
        Self { name: name.to_owned(), plain: Some(plain), ..Self::default() }
    }

    /// A word to be typed, and what follows it.
    fn behind(token: &str, mut rest: Vec<Self>) -> Self {
        let mut argument = match rest.len() {
            0 => Self { name: token.to_lowercase(), plain: Some("pure-token"), ..Self::default() },
            1 if !rest[0].optional && rest[0].token.is_none() => rest.remove(0),
            _ => Self::group(rest, false),
        };
        argument.token = Some(token.to_owned());
        argument
    }
}

const KINDS: &[&str] = &["string", "integer", "double", "key", "pattern", "unix-time"];

fn kind_of(name: &str) -> &'static str {
    match name {
        "key" | "newkey" | "source" | "destination" | "destkey" | "key1" | "key2" => "key",
        "pattern" => "pattern",
        "unix-time-seconds" | "unix-time-milliseconds" => "unix-time",
        "seconds" | "milliseconds" | "offset" | "count" | "increment" | "decrement" | "start"
        | "end" | "bit" | "cursor" | "index" | "index1" | "index2" | "client-id" | "protover"
        | "min-match-len" | "version" => "integer",
        _ => "string",
    }
}

/// The arguments of a command; none if it has none, or has subcommands.
pub(super) fn arguments(row: &CommandRow) -> Vec<Argument> {
    let name = key_specs::known_name(row);
    let Some((_, line)) = SYNTAX.iter().find(|(known, _)| *known == name) else {
        return Vec::new();
    };
    let mut arguments = parse(line);
    let specs = i64::try_from(key_specs::key_specs(row).len()).unwrap_or(i64::MAX);
    number_keys(&mut arguments, &mut 0, specs);
    arguments
}

/// Tells each key which spec it belongs to: the first to the first, and so on, all others to the
/// last.
fn number_keys(arguments: &mut [Argument], next: &mut i64, specs: i64) {
    for argument in arguments {
        if argument.plain == Some("key") && specs > 0 {
            argument.key_spec = Some((*next).min(specs - 1));
            *next += 1;
        }
        number_keys(&mut argument.parts, next, specs);
    }
}

/// Reads a line.
pub(super) fn parse(line: &str) -> Vec<Argument> {
    let mut spaced = line.replace("...", " ... ");
    for mark in ["[", "]", "(", ")", "|"] {
        spaced = spaced.replace(mark, &format!(" {mark} "));
    }
    let words: Vec<&str> = spaced.split_whitespace().collect();
    sequence(&mut words.as_slice())
}

/// Reads items up to the end of their group.
fn sequence(words: &mut &[&str]) -> Vec<Argument> {
    let mut items: Vec<Argument> = Vec::new();
    while let [word, rest @ ..] = *words {
        let item = match *word {
            "]" | ")" | "|" => break,
            "..." => {
                *words = rest;
                if let Some(last) = items.last_mut() {
                    last.multiple = true;
                }
                continue;
            }
            open @ ("[" | "(") => {
                *words = rest;
                let mut group = alternatives(words);
                group.optional |= open == "[";
                group
            }
            word if word.starts_with(|c: char| c.is_ascii_uppercase() || "=~*$".contains(c)) => {
                *words = rest;
                Argument::behind(word, sequence(words))
            }
            word => {
                *words = rest;
                Argument::named(word)
            }
        };
        items.push(item);
    }
    items
}

/// Reads a group and the mark that ends it.
fn alternatives(words: &mut &[&str]) -> Argument {
    let mut choices = Vec::new();
    loop {
        let mut items = sequence(words);
        choices.push(match items.len() {
            1 => items.remove(0),
            _ => Argument::group(items, false),
        });
        let mark = words.split_off_first().copied();
        if mark != Some("|") {
            break;
        }
    }
    match choices.len() {
        1 => choices.remove(0),
        _ => Argument::group(choices, true),
    }
}

/// What follows the names of commands; those without arguments are left out.
pub(super) const SYNTAX: &[(&str, &str)] = &[
    ("append", "key value"),
    ("auth", "[username] password"),
    ("bgsave", "[SCHEDULE|CANCEL]"),
    ("bitcount", "key [start end [BYTE|BIT]]"),
    (
        "bitfield",
        "key [(GET encoding offset|SET encoding offset value:integer\
         |INCRBY encoding offset increment|OVERFLOW (WRAP|SAT|FAIL))...]",
    ),
    ("bitfield_ro", "key [(GET encoding offset)...]"),
    ("bitop", "(AND|OR|XOR|NOT) destkey key..."),
    ("bitpos", "key bit [start [end [BYTE|BIT]]]"),
    ("blmove", "source destination (LEFT|RIGHT) (LEFT|RIGHT) timeout:double"),
    ("blmpop", "timeout:double numkeys:integer key... (LEFT|RIGHT) [COUNT count]"),
    ("blpop", "key... timeout:double"),
    ("brpop", "key... timeout:double"),
    ("brpoplpush", "source destination timeout:double"),
    ("bzmpop", "timeout:double numkeys:integer key... (MIN|MAX) [COUNT count]"),
    ("bzpopmax", "key... timeout:double"),
    ("bzpopmin", "key... timeout:double"),
    (
        "client|kill",
        "(address|(ID client-id|TYPE (NORMAL|MASTER|REPLICA|PUBSUB)|USER username|ADDR address\
         |LADDR address|SKIPME (YES|NO)|MAXAGE seconds)...)",
    ),
    ("client|list", "[TYPE (NORMAL|MASTER|REPLICA|PUBSUB)|ID client-id...]"),
    ("client|no-evict", "(ON|OFF)"),
    ("client|no-touch", "(ON|OFF)"),
    ("client|pause", "milliseconds [WRITE|ALL]"),
    ("client|reply", "(ON|OFF|SKIP)"),
    ("client|setinfo", "(LIB-NAME name|LIB-VER version:string)"),
    ("client|setname", "name"),
    ("client|unblock", "client-id [TIMEOUT|ERROR]"),
    ("command|docs", "[command...]"),
    ("command|getkeys", "command [arg...]"),
    ("command|getkeysandflags", "command [arg...]"),
    ("command|info", "[command...]"),
    ("command|list", "[FILTERBY (MODULE name|ACLCAT category|PATTERN pattern)]"),
    ("config|get", "pattern..."),
    ("config|set", "(directive value)..."),
    ("copy", "source destination [DB index] [REPLACE]"),
    (
        "debug",
        "(CHECKPOINT-DELAY microseconds:integer|CHECKPOINT-DIGEST (YES|NO)\
         |CHECKPOINT-WATCH (YES|NO)|DIGEST|HELP|OBJECT key\
         |RELOAD|SET-ACTIVE-EXPIRE on:integer|SLEEP seconds:double|VERIFY)",
    ),
    ("decr", "key"),
    ("decrby", "key decrement"),
    ("del", "key..."),
    ("dump", "key"),
    ("echo", "message"),
    ("exists", "key..."),
    ("expire", "key seconds [NX|XX|GT|LT]"),
    ("expireat", "key unix-time-seconds [NX|XX|GT|LT]"),
    ("expiretime", "key"),
    ("flushall", "[ASYNC|SYNC]"),
    ("flushdb", "[ASYNC|SYNC]"),
    ("function|flush", "[ASYNC|SYNC]"),
    ("get", "key"),
    ("getbit", "key offset"),
    ("getdel", "key"),
    (
        "getex",
        "key [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-milliseconds\
         |PERSIST]",
    ),
    ("getrange", "key start end"),
    ("getset", "key value"),
    ("hdel", "key field..."),
    ("hello", "[protover [AUTH username password] [SETNAME name]]"),
    ("hexists", "key field"),
    ("hexpire", "key seconds [NX|XX|GT|LT] FIELDS numfields:integer field..."),
    ("hexpireat", "key unix-time-seconds [NX|XX|GT|LT] FIELDS numfields:integer field..."),
    ("hexpiretime", "key FIELDS numfields:integer field..."),
    ("hget", "key field"),
    ("hgetall", "key"),
    ("hgetdel", "key FIELDS numfields:integer field..."),
    (
        "hgetex",
        "key [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-milliseconds\
         |PERSIST] FIELDS numfields:integer field...",
    ),
    ("hincrby", "key field increment"),
    ("hincrbyfloat", "key field increment:double"),
    ("hkeys", "key"),
    ("hlen", "key"),
    ("hmget", "key field..."),
    ("hmset", "key (field value)..."),
    ("hpersist", "key FIELDS numfields:integer field..."),
    ("hpexpire", "key milliseconds [NX|XX|GT|LT] FIELDS numfields:integer field..."),
    ("hpexpireat", "key unix-time-milliseconds [NX|XX|GT|LT] FIELDS numfields:integer field..."),
    ("hpexpiretime", "key FIELDS numfields:integer field..."),
    ("hpttl", "key FIELDS numfields:integer field..."),
    ("hrandfield", "key [count [WITHVALUES]]"),
    ("hscan", "key cursor [MATCH pattern] [COUNT count] [NOVALUES]"),
    ("hset", "key (field value)..."),
    (
        "hsetex",
        "key [FNX|FXX] [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT \
         unix-time-milliseconds|KEEPTTL] FIELDS numfields:integer (field value)...",
    ),
    ("hsetnx", "key field value"),
    ("hstrlen", "key field"),
    ("httl", "key FIELDS numfields:integer field..."),
    ("hvals", "key"),
    ("incr", "key"),
    ("incrby", "key increment"),
    ("incrbyfloat", "key increment:double"),
    ("info", "[section...]"),
    ("keys", "pattern"),
    ("latency|graph", "event"),
    ("latency|histogram", "[command...]"),
    ("latency|history", "event"),
    ("latency|reset", "[event...]"),
    ("lcs", "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]"),
    ("lindex", "key index"),
    ("linsert", "key (BEFORE|AFTER) pivot element"),
    ("llen", "key"),
    ("lmove", "source destination (LEFT|RIGHT) (LEFT|RIGHT)"),
    ("lmpop", "numkeys:integer key... (LEFT|RIGHT) [COUNT count]"),
    ("lolwut", "[VERSION version]"),
    ("lpop", "key [count]"),
    ("lpos", "key element [RANK rank:integer] [COUNT num-matches:integer] [MAXLEN len:integer]"),
    ("lpush", "key element..."),
    ("lpushx", "key element..."),
    ("lrange", "key start stop:integer"),
    ("lrem", "key count element"),
    ("lset", "key index element"),
    ("ltrim", "key start stop:integer"),
    ("memory|usage", "key [SAMPLES count]"),
    ("mget", "key..."),
    ("move", "key db:integer"),
    ("mset", "(key value)..."),
    ("msetnx", "(key value)..."),
    ("object|encoding", "key"),
    ("object|freq", "key"),
    ("object|idletime", "key"),
    ("object|refcount", "key"),
    ("persist", "key"),
    ("pexpire", "key milliseconds [NX|XX|GT|LT]"),
    ("pexpireat", "key unix-time-milliseconds [NX|XX|GT|LT]"),
    ("pexpiretime", "key"),
    ("ping", "[message]"),
    ("psetex", "key milliseconds value"),
    ("psubscribe", "pattern..."),
    ("pttl", "key"),
    ("publish", "channel message"),
    ("pubsub|channels", "[pattern]"),
    ("pubsub|numsub", "[channel...]"),
    ("pubsub|shardchannels", "[pattern]"),
    ("pubsub|shardnumsub", "[shardchannel...]"),
    ("punsubscribe", "[pattern...]"),
    ("rename", "key newkey"),
    ("renamenx", "key newkey"),
    (
        "restore",
        "key ttl:integer serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ count]",
    ),
    ("rpop", "key [count]"),
    ("rpoplpush", "source destination"),
    ("rpush", "key element..."),
    ("rpushx", "key element..."),
    ("sadd", "key member..."),
    ("scan", "cursor [MATCH pattern] [COUNT count] [TYPE type]"),
    ("scard", "key"),
    ("script|flush", "[ASYNC|SYNC]"),
    ("sdiff", "key..."),
    ("sdiffstore", "destination:key key..."),
    ("select", "index"),
    (
        "set",
        "key value [NX|XX] [GET] [EX seconds|PX milliseconds|EXAT unix-time-seconds\
         |PXAT unix-time-milliseconds|KEEPTTL]",
    ),
    ("setbit", "key offset value:integer"),
    ("setex", "key seconds value"),
    ("setnx", "key value"),
    ("setrange", "key offset value"),
    ("shutdown", "[NOSAVE|SAVE] [NOW] [FORCE] [ABORT]"),
    ("sinter", "key..."),
    ("sintercard", "numkeys:integer key... [LIMIT limit:integer]"),
    ("sinterstore", "destination:key key..."),
    ("sismember", "key member"),
    ("slowlog|get", "[count]"),
    ("smembers", "key"),
    ("smismember", "key member..."),
    ("smove", "source:key destination:key member"),
    (
        "sort",
        "key [BY by-pattern:pattern] [LIMIT offset count] [GET get-pattern:pattern]...\
         \x20[ASC|DESC] [ALPHA] [STORE destination]",
    ),
    (
        "sort_ro",
        "key [BY by-pattern:pattern] [LIMIT offset count] [GET get-pattern:pattern]...\
         \x20[ASC|DESC] [ALPHA]",
    ),
    ("spop", "key [count:integer]"),
    ("spublish", "shardchannel message"),
    ("srandmember", "key [count:integer]"),
    ("srem", "key member..."),
    ("sscan", "key cursor [MATCH pattern] [COUNT count]"),
    ("ssubscribe", "shardchannel..."),
    ("strlen", "key"),
    ("subscribe", "channel..."),
    ("substr", "key start end"),
    ("sunion", "key..."),
    ("sunionstore", "destination:key key..."),
    ("sunsubscribe", "[shardchannel...]"),
    ("swapdb", "index1 index2"),
    ("touch", "key..."),
    ("ttl", "key"),
    ("type", "key"),
    ("unlink", "key..."),
    ("unsubscribe", "[channel...]"),
    ("xack", "key group id..."),
    (
        "xadd",
        "key [NOMKSTREAM] [(MAXLEN|MINID) [=|~] threshold [LIMIT count]] (*|id) (field\
         \u{20}value)...",
    ),
    ("xautoclaim", "key group consumer min-idle-time start [COUNT count] [JUSTID]"),
    (
        "xclaim",
        "key group consumer min-idle-time id... [IDLE ms] [TIME unix-time-milliseconds]\
         \u{20}[RETRYCOUNT count] [FORCE] [JUSTID] [LASTID lastid]",
    ),
    ("xdel", "key id..."),
    ("xgroup|create", "key group (id|$) [MKSTREAM] [ENTRIESREAD entries-read:integer]"),
    ("xgroup|createconsumer", "key group consumer"),
    ("xgroup|delconsumer", "key group consumer"),
    ("xgroup|destroy", "key group"),
    ("xgroup|setid", "key group (id|$) [ENTRIESREAD entries-read:integer]"),
    ("xinfo|consumers", "key group"),
    ("xinfo|groups", "key"),
    ("xinfo|stream", "key [FULL [COUNT count]]"),
    ("xlen", "key"),
    ("xpending", "key group [[IDLE min-idle-time] start end count [consumer]]"),
    ("xrange", "key start end [COUNT count]"),
    ("xread", "[COUNT count] [BLOCK milliseconds] STREAMS key... id..."),
    (
        "xreadgroup",
        "GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key...\
         \u{20}id...",
    ),
    ("xrevrange", "key end start [COUNT count]"),
    ("xsetid", "key last-id [ENTRIESADDED entries-added:integer] [MAXDELETEDID max-deleted-id]"),
    ("xtrim", "key (MAXLEN|MINID) [=|~] threshold [LIMIT count]"),
    ("zadd", "key [NX|XX] [GT|LT] [CH] [INCR] (score member)..."),
    ("zcard", "key"),
    ("zcount", "key min:double max:double"),
    ("zdiff", "numkeys:integer key... [WITHSCORES]"),
    ("zdiffstore", "destination numkeys:integer key..."),
    ("zincrby", "key increment member"),
    (
        "zinter",
        "numkeys:integer key... [WEIGHTS weight:integer...] [AGGREGATE (SUM|MIN|MAX)]\
         \u{20}[WITHSCORES]",
    ),
    ("zintercard", "numkeys:integer key... [LIMIT limit:integer]"),
    (
        "zinterstore",
        "destination numkeys:integer key... [WEIGHTS weight:integer...] [AGGREGATE\
         \u{20}(SUM|MIN|MAX)]",
    ),
    ("zlexcount", "key min max"),
    ("zmpop", "numkeys:integer key... (MIN|MAX) [COUNT count]"),
    ("zmscore", "key member..."),
    ("zpopmax", "key [count]"),
    ("zpopmin", "key [count]"),
    ("zrandmember", "key [count [WITHSCORES]]"),
    ("zrange", "key start:string stop [BYSCORE|BYLEX] [REV] [LIMIT offset count] [WITHSCORES]"),
    ("zrangebylex", "key min max [LIMIT offset count]"),
    ("zrangebyscore", "key min:double max:double [WITHSCORES] [LIMIT offset count]"),
    ("zrangestore", "dst:key src:key min max [BYSCORE|BYLEX] [REV] [LIMIT offset count]"),
    ("zrank", "key member [WITHSCORE]"),
    ("zrem", "key member..."),
    ("zremrangebylex", "key min max"),
    ("zremrangebyrank", "key start stop:integer"),
    ("zremrangebyscore", "key min:double max:double"),
    ("zrevrange", "key start stop:integer [WITHSCORES]"),
    ("zrevrangebylex", "key max min [LIMIT offset count]"),
    ("zrevrangebyscore", "key max:double min:double [WITHSCORES] [LIMIT offset count]"),
    ("zrevrank", "key member [WITHSCORE]"),
    ("zscan", "key cursor [MATCH pattern] [COUNT count]"),
    ("zscore", "key member"),
    (
        "zunion",
        "numkeys:integer key... [WEIGHTS weight:integer...] [AGGREGATE (SUM|MIN|MAX)]\
         \u{20}[WITHSCORES]",
    ),
    (
        "zunionstore",
        "destination numkeys:integer key... [WEIGHTS weight:integer...] [AGGREGATE\
         \u{20}(SUM|MIN|MAX)]",
    ),
];

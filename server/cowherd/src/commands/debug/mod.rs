//! DEBUG: inspection of the server, and switches for tests. The directive `enable-debug-command`
//! controls access.
//!
//! Test programs of Redis and its clients use subcommands about parts that this server does not
//! have; [`ACCEPTED`] lists those that reply OK and do nothing.

mod import;
mod inspect;
mod protocol;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clients::Client;
use crate::config::{DebugCommand, parse_size};
use crate::keyspace::{Expiry, ShardSet};
use cowherd_resp::{parse_f64, parse_i64, parse_u64};

use super::call::{Call, Effect, ReloadOptions};
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, Handler, LockScope};

pub use import::import_keys;

const ADMIN: CommandFlags = CommandFlags::ADMIN
    .with(CommandFlags::NOSCRIPT)
    .with(CommandFlags::LOADING)
    .with(CommandFlags::STALE);

const GROUP: CommandGroup = CommandGroup::Server;

pub(super) const COMMANDS: &[Command] = &[Command::new("debug", -2, ADMIN, debug)
    .doc(GROUP, "1.0.0", "Looks inside the server, and sets switches for tests.")
    .syntax(
        "(CHANGE-REPL-ID|CHECKPOINT-DELAY microseconds:integer|CHECKPOINT-DIGEST [YES|NO]\
             |CHECKPOINT-WATCH (YES|NO)|DICT-RESIZING on:integer|DIGEST|DIGEST-VALUE key...\
             |ERROR message|HELP|HTSTATS dbid:integer|HTSTATS-KEY key|LISTPACK key|LOG message\
             |OBJECT key|PAUSE-CRON on:integer|POPULATE count [prefix [size:integer]]\
             |PROTOCOL type|QUICKLIST key|QUICKLIST-PACKED-THRESHOLD size|RELOAD [option...]\
             |REPLICATE message|SDSLEN key|SET-ACTIVE-EXPIRE on:integer|SLEEP seconds:double\
             |STRUCTSIZE|VERIFY)",
    )
    .locking(LockScope::Handler)
    .system()];

/// Name, least and greatest number of arguments behind the name, handler.
type Subcommand = (&'static str, usize, usize, Handler);

const SUBCOMMANDS: &[Subcommand] = &[
    ("assert", 0, 0, |_| std::process::abort()),
    ("checkpoint-delay", 1, 1, checkpoint_delay),
    ("checkpoint-digest", 0, 1, checkpoint_digest),
    ("checkpoint-watch", 1, 1, checkpoint_watch),
    ("client-eviction", 0, 0, |_| Err(ErrorReply::new("ERR maxmemory-clients is disabled."))),
    ("digest", 0, 0, inspect::digest),
    ("digest-value", 0, usize::MAX, inspect::digest_value),
    ("error", 1, 1, |call| Err(ErrorReply::text(call.text(2).into_owned()))),
    ("help", 0, 0, help),
    ("htstats", 1, 2, inspect::table_sizes),
    ("htstats-key", 1, 2, inspect::element_table),
    ("leak", 1, 1, leak),
    ("listpack", 1, 1, |call| inspect::print(call, "listpack")),
    ("loadaof", 0, 0, |_| Err(ErrorReply::new("ERR append-only files are not supported"))),
    ("log", 1, 1, log),
    ("object", 1, 1, inspect::object),
    ("oom", 0, 0, |_| std::process::abort()),
    ("panic", 0, 0, |_| std::process::abort()),
    ("pause-cron", 1, 1, |call| set_switch(call, &call.shared.hooks.pause_cron)),
    ("populate", 1, 3, populate),
    ("protocol", 1, 1, protocol::protocol),
    ("quicklist", 1, 2, |call| inspect::print(call, "quicklist")),
    ("quicklist-packed-threshold", 1, 1, packed_threshold),
    ("reload", 0, usize::MAX, reload),
    ("replybuffer", 2, 2, reply_buffer),
    ("sdslen", 1, 1, inspect::string_lengths),
    ("segfault", 0, 0, |_| segfault()),
    ("set-active-expire", 1, 1, |call| set_switch(call, &call.shared.hooks.active_expire)),
    ("sleep", 1, 1, sleep),
    ("structsize", 0, 0, inspect::struct_sizes),
    ("verify", 0, 0, verify),
];

/// Subcommands with so many arguments that change nothing here: the replication id is not used, no
/// append-only file is flushed, no replica is fed, there is no cluster, no payload with a checksum,
/// and dictionaries are not resized as a whole.
const ACCEPTED: &[(&str, usize)] = &[
    ("aof-flush-sleep", 1),
    ("change-repl-id", 0),
    ("dict-resizing", 1),
    ("drop-cluster-packet-filter", 1),
    ("replicate", 1),
    ("set-skip-checksum-validation", 1),
];

const NOT_ALLOWED: ErrorReply = ErrorReply::new(
    "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you \
     can run it from a local connection, otherwise you need to set this option in the \
     configuration file, and then restart the server.",
);
/// A day in seconds.
const LONGEST_SLEEP: f64 = 86_400.0;

fn debug(call: &mut Call<'_>) -> CommandResult {
    let allowed = match call.config.enable_debug_command {
        DebugCommand::No => false,
        DebugCommand::Local => is_local(&call.session.client),
        DebugCommand::Yes => true,
    };
    if !allowed {
        return Err(NOT_ALLOWED);
    }
    let given = call.args.len() - 2;
    let named = SUBCOMMANDS.iter().find(|(name, ..)| call.is(1, name));
    if let Some((_, least, most, handler)) = named
        && (*least..=*most).contains(&given)
    {
        return handler(call);
    }
    if ACCEPTED.iter().any(|(name, arguments)| call.is(1, name) && given == *arguments) {
        call.reply.ok();
        return Ok(());
    }
    Err(ErrorReply::wrong_subcommand(&call.args))
}

/// The value of a switch, YES or NO in argument 2.
fn yes_or_no(call: &Call<'_>) -> Result<bool, ErrorReply> {
    match () {
        () if call.is(2, "yes") => Ok(true),
        () if call.is(2, "no") => Ok(false),
        () => Err(ErrorReply::new("ERR argument must be 'yes' or 'no'")),
    }
}

/// Sets a switch to argument 2, which is off only if it is no number but 0.
fn set_switch(call: &mut Call<'_>, switch: &AtomicBool) -> CommandResult {
    let on = parse_i64(call.args.at(2)).is_some_and(|number| number != 0);
    switch.store(on, Ordering::Relaxed);
    call.reply.ok();
    Ok(())
}

/// Whether a client is connected by a Unix socket or from a loopback address.
fn is_local(client: &Client) -> bool {
    let loopback = |peer: SocketAddr| peer.ip().to_canonical().is_loopback();
    client.is_unix || client.peer.parse().is_ok_and(loopback)
}

fn help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "ASSERT|OOM|PANIC|SEGFAULT",
        "    Ends the server by a signal, without a checkpoint.",
        "CHECKPOINT-DELAY <microseconds>",
        "    Lets the child of a checkpoint sleep after each chunk.",
        "CHECKPOINT-DIGEST [yes|no]",
        "    Whether each checkpoint computes a digest of all that it saves; alone, returns it.",
        "CHECKPOINT-WATCH (yes|no)",
        "    Whether the server ends when a checkpoint finds memory changed unannounced.",
        "DIGEST",
        "    Returns the digest that Redis has for the same keys.",
        "DIGEST-VALUE [<key> ...]",
        "    Returns the digests that Redis has for the values.",
        "ERROR <text>",
        "    Returns an error.",
        "HTSTATS <database>, HTSTATS-KEY <key>",
        "    Returns the sizes of the hash tables of a database or a value.",
        "LEAK <text>",
        "    Allocates memory for the text and loses it.",
        "LISTPACK <key>, QUICKLIST <key>",
        "    Writes figures of the value to the log.",
        "LOG <text>",
        "    Writes the text to the log.",
        "OBJECT <key>, SDSLEN <key>",
        "    Describes how a key is kept.",
        "PAUSE-CRON (0|1)",
        "    Whether the background thread pauses.",
        "POPULATE <count> [<prefix> [<size>]]",
        "    Adds keys <prefix>:<number> with values of a size.",
        "PROTOCOL <type>",
        "    Returns a reply of a type of RESP.",
        "RELOAD [NOSAVE] [NOFLUSH] [MERGE]",
        "    Saves, forgets everything and loads it again. NOSAVE loads an older image, NOFLUSH",
        "    keeps the keys that are there, MERGE lets those of the image replace them.",
        "SET-ACTIVE-EXPIRE (0|1)",
        "    Whether expired keys are looked for.",
        "SLEEP <seconds>",
        "    Stops the server for a while; fractions are allowed.",
        "STRUCTSIZE",
        "    Returns the sizes of some structures.",
        "VERIFY",
        "    Checks every invariant of the keyspace.",
        "AOF-FLUSH-SLEEP, CHANGE-REPL-ID, DICT-RESIZING, DROP-CLUSTER-PACKET-FILTER,",
        "QUICKLIST-PACKED-THRESHOLD, REPLICATE, REPLYBUFFER, SET-SKIP-CHECKSUM-VALIDATION",
        "    Accepted, and without effect.",
    ]);
    Ok(())
}

fn checkpoint_delay(call: &mut Call<'_>) -> CommandResult {
    let micros = parse_u64(call.args.at(2)).ok_or(ErrorReply::NOT_INTEGER)?;
    call.shared.hooks.checkpoint_delay.store(micros, Ordering::Relaxed);
    call.reply.ok();
    Ok(())
}

fn checkpoint_digest(call: &mut Call<'_>) -> CommandResult {
    if call.args.len() == 2 {
        return call.locked(|_| ShardSet::ALL, |shards, reply| reply.simple(&shards.digest()));
    }
    let on = yes_or_no(call)?;
    call.shared.hooks.checkpoint_digest.store(on, Ordering::Relaxed);
    call.reply.ok();
    Ok(())
}

fn checkpoint_watch(call: &mut Call<'_>) -> CommandResult {
    let on = yes_or_no(call)?;
    call.shared.keyspace.arena().barrier().set_checker(on);
    call.reply.ok();
    Ok(())
}

fn leak(call: &mut Call<'_>) -> CommandResult {
    Box::leak(Box::<[u8]>::from(call.args.at(2)));
    call.reply.ok();
    Ok(())
}

fn log(call: &mut Call<'_>) -> CommandResult {
    tracing::warn!("DEBUG LOG: {}", call.text(2));
    call.reply.ok();
    Ok(())
}

/// Values are never longer than their size; a missing size is that of the text. Where memory ends,
/// the keys so far stay: the error is not that of commands which run again after an eviction.
fn populate(call: &mut Call<'_>) -> CommandResult {
    let number = |i: usize| -> Result<u64, ErrorReply> {
        let number = parse_i64(call.args.at(i)).and_then(|number| u64::try_from(number).ok());
        number.ok_or(ErrorReply::NOT_POSITIVE)
    };
    let count = number(2)?;
    let prefix = call.args.get(3).unwrap_or(b"key");
    let size = if call.args.len() > 4 { number(4)? } else { 0 };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size as u64 > call.config.proto_max_bulk_len {
        return Err(ErrorReply::TOO_LONG);
    }
    let db = call.session.db;
    let populated = call.locked(
        |_| ShardSet::ALL,
        |shards, _| {
            let (mut name, mut value) = (Vec::new(), Vec::new());
            for i in 0..count {
                name.clear();
                name.extend_from_slice(prefix);
                name.extend_from_slice(format!(":{i}").as_bytes());
                value.clear();
                value.extend_from_slice(format!("value:{i}").as_bytes());
                if size > 0 {
                    value.resize(size, 0);
                }
                let key = shards.keyspace().key(db, &name);
                if shards.peek(db, &key).is_none() {
                    shards.set(db, &key, &value, Expiry::None).map_err(|_| {
                        ErrorReply::text(format!("ERR no memory for key number {i}"))
                    })?;
                }
            }
            Ok::<(), ErrorReply>(())
        },
    )?;
    populated?;
    call.reply.ok();
    Ok(())
}

/// Checks the size and does nothing: a node of a list is one run, however long an element is.
fn packed_threshold(call: &mut Call<'_>) -> CommandResult {
    let size = parse_size(&call.text(2)).filter(|size| *size < 4 << 30);
    size.ok_or(ErrorReply::new(
        "ERR argument must be a memory value bigger than 1 and smaller than 4gb",
    ))?;
    call.reply.ok();
    Ok(())
}

/// Checks the arguments and does nothing: replies have no buffers that shrink with time.
fn reply_buffer(call: &mut Call<'_>) -> CommandResult {
    match () {
        () if call.is(2, "resizing") => {}
        () if call.is(2, "peak-reset-time") => {
            if !call.is(3, "never") && !call.is(3, "reset") {
                call.integer(3)?;
            }
        }
        () => return Err(ErrorReply::wrong_subcommand(&call.args)),
    }
    call.reply.ok();
    Ok(())
}

/// Ends the process as a wild pointer would.
fn segfault() -> CommandResult {
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSEGV);
    std::process::abort()
}

/// As in Redis, what is no number is no time.
fn sleep(call: &mut Call<'_>) -> CommandResult {
    let seconds = parse_f64(call.args.at(2)).unwrap_or(0.0);
    let time = Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_SLEEP));
    call.effect = Effect::Sleep { time, all: true };
    call.reply.ok();
    Ok(())
}

/// The engine reloads and writes the reply, since a reload can fail.
fn reload(call: &mut Call<'_>) -> CommandResult {
    let mut options = ReloadOptions { saves: true, flushes: true, merges: false };
    for i in 2..call.args.len() {
        match () {
            () if call.is(i, "merge") => options.merges = true,
            () if call.is(i, "noflush") => options.flushes = false,
            () if call.is(i, "nosave") => options.saves = false,
            () => {
                return Err(ErrorReply::new(
                    "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
                ));
            }
        }
    }
    call.effect = Effect::Reload(options);
    Ok(())
}

fn verify(call: &mut Call<'_>) -> CommandResult {
    if call.session.in_exec {
        return Err(ErrorReply::new(
            "ERR DEBUG VERIFY locks what a transaction has locked already",
        ));
    }
    let broken = call.shared.keyspace.verify(call.config.threads).err();
    if let Some(broken) = broken {
        return Err(ErrorReply::text(format!("ERR the keyspace is damaged: {broken}")));
    }
    call.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests;

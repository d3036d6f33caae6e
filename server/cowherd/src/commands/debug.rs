//! DEBUG: inspection of the server, and switches for tests. The directive `enable-debug-command`
//! controls access.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clients::Client;
use crate::config::DebugCommand;
use crate::keyspace::{Key, KeyUsage, ShardSet, Shards};
use cowherd_resp::{parse_f64, parse_u64};

use super::call::{Call, Effect};
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, LockScope};

const ADMIN: CommandFlags = CommandFlags::ADMIN
    .with(CommandFlags::NOSCRIPT)
    .with(CommandFlags::LOADING)
    .with(CommandFlags::STALE);

const GROUP: CommandGroup = CommandGroup::Server;

pub(super) const COMMANDS: &[Command] = &[Command::new("debug", -2, ADMIN, debug)
    .doc(GROUP, "1.0.0", "Looks inside the server, and sets switches for tests.")
    .syntax(
        "(CHECKPOINT-DELAY microseconds:integer|CHECKPOINT-DIGEST (YES|NO)|CHECKPOINT-WATCH \
             (YES|NO)|DIGEST|HELP|OBJECT key|RELOAD|SET-ACTIVE-EXPIRE on:integer\
             |SLEEP seconds:double|VERIFY)",
    )
    .locking(LockScope::Handler)
    .system()];

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
    match call.args.len() {
        2 if call.is(1, "help") => help(call),
        2 if call.is(1, "digest") => return digest(call),
        2 if call.is(1, "verify") => return verify(call),
        2.. if call.is(1, "reload") => return reload(call),
        3 if call.is(1, "object") => return object(call),
        3 if call.is(1, "sleep") => return sleep(call),
        3 if call.is(1, "set-active-expire") => {
            let on = call.args.at(2) != b"0";
            call.shared.hooks.active_expire.store(on, Ordering::Relaxed);
            call.reply.ok();
        }
        3 if call.is(1, "checkpoint-digest") => {
            let on = yes_or_no(call)?;
            call.shared.hooks.checkpoint_digest.store(on, Ordering::Relaxed);
            call.reply.ok();
        }
        3 if call.is(1, "checkpoint-watch") => {
            let on = yes_or_no(call)?;
            call.shared.keyspace.arena().barrier().set_checker(on);
            call.reply.ok();
        }
        3 if call.is(1, "checkpoint-delay") => {
            let micros = parse_u64(call.args.at(2)).ok_or(ErrorReply::NOT_INTEGER)?;
            call.shared.hooks.checkpoint_delay.store(micros, Ordering::Relaxed);
            call.reply.ok();
        }
        _ => return Err(ErrorReply::wrong_subcommand(&call.args)),
    }
    Ok(())
}

/// The value of a switch, YES or NO in argument 2.
fn yes_or_no(call: &Call<'_>) -> Result<bool, ErrorReply> {
    match () {
        () if call.is(2, "yes") => Ok(true),
        () if call.is(2, "no") => Ok(false),
        () => Err(ErrorReply::new("ERR argument must be 'yes' or 'no'")),
    }
}

/// Whether a client is connected by a Unix socket or from a loopback address.
fn is_local(client: &Client) -> bool {
    let loopback = |peer: SocketAddr| peer.ip().to_canonical().is_loopback();
    client.is_unix || client.peer.parse().is_ok_and(loopback)
}

fn help(call: &mut Call<'_>) {
    call.help(&[
        "CHECKPOINT-DELAY <microseconds>",
        "    Lets the child of a checkpoint sleep after each chunk.",
        "CHECKPOINT-DIGEST (yes|no)",
        "    Whether each checkpoint computes the digest of what it saves.",
        "CHECKPOINT-WATCH (yes|no)",
        "    Whether the server ends when a checkpoint finds memory changed unannounced.",
        "DIGEST",
        "    Returns a digest of all databases.",
        "OBJECT <key>",
        "    Describes how a key is kept.",
        "RELOAD",
        "    Saves, forgets everything and loads it again.",
        "SET-ACTIVE-EXPIRE (0|1)",
        "    Whether expired keys are looked for.",
        "SLEEP <seconds>",
        "    Stops the server for a while; fractions are allowed.",
        "VERIFY",
        "    Checks every invariant of the keyspace.",
    ]);
}

fn digest(call: &mut Call<'_>) -> CommandResult {
    call.locked(|_| ShardSet::ALL, |shards, reply| reply.simple(&shards.digest()))
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

fn sleep(call: &mut Call<'_>) -> CommandResult {
    let seconds = parse_f64(call.args.at(2)).ok_or(ErrorReply::NOT_FLOAT)?;
    let time = Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_SLEEP));
    call.effect = Effect::Sleep { time, all: true };
    call.reply.ok();
    Ok(())
}

/// The engine reloads and writes the reply, since a reload can fail.
fn reload(call: &mut Call<'_>) -> CommandResult {
    for i in 2..call.args.len() {
        if !["merge", "noflush", "nosave"].iter().any(|option| call.is(i, option)) {
            return Err(ErrorReply::new(
                "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
            ));
        }
    }
    if call.args.len() > 2 {
        return Err(ErrorReply::new(
            "ERR DEBUG RELOAD takes no options here: it always saves, empties and loads",
        ));
    }
    call.effect = Effect::Reload;
    Ok(())
}

/// Replies the line of Redis, with the shard in place of an address. `serializedlength` is the
/// length of a string, or the memory usage of another value.
fn object(call: &mut Call<'_>) -> CommandResult {
    let (db, now) = (call.session.db, call.now);
    let bytes = call.args.at(2);
    let line = call.locked(
        |keyspace| keyspace.shards_of(keyspace.hash(bytes)),
        |shards, _| describe(shards, db, &shards.keyspace().key(db, bytes), now),
    )?;
    call.reply.simple(&line.ok_or(ErrorReply::NO_KEY)?);
    Ok(())
}

fn describe(shards: &mut Shards<'_>, db: usize, key: &Key<'_>, now: i64) -> Option<String> {
    /// The mask of the 24 bits of the LRU clock of Redis.
    const LRU_BITS: u64 = (1 << 24) - 1;
    let entry = shards.peek(db, key)?;
    let mut number = itoa::Buffer::new();
    let len = match shards.string(&entry) {
        Ok(value) => value.bytes(&mut number).len() as u64,
        Err(_) => shards.memory_usage(&entry, 0),
    };
    let seconds = u64::try_from(now / 1000).unwrap_or_default();
    let (lru, idle) = match shards.usage(&entry) {
        KeyUsage::Idle(idle) => (seconds.saturating_sub(idle) & LRU_BITS, idle),
        KeyUsage::Frequency(count) => (count, 0),
    };
    Some(format!(
        "Value at:shard-{} refcount:1 encoding:{} serializedlength:{len} lru:{lru} \
         lru_seconds_idle:{idle}",
        key.shard.get(),
        shards.encoding_name(&entry),
    ))
}

#[cfg(test)]
#[path = "debug_tests.rs"]
mod tests;

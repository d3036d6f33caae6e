//! SCRIPT.

use crate::commands::call::{Call, Effect};
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::table::{Command, CommandFlags, LockScope};
use crate::scripting::{KillError, Sha};

use super::GROUP;

const ADMIN: CommandFlags = CommandFlags::NOSCRIPT;
const KILL: CommandFlags = ADMIN.with(CommandFlags::ALLOW_BUSY).with(CommandFlags::UNPAUSED);

pub(super) const COMMAND: Command =
    Command::container("script").doc(GROUP, "2.6.0", "Manages scripts.").subcommands(&[
        Command::new("debug", 3, ADMIN, debug)
            .doc(GROUP, "3.2.0", "Accepts NO: there is no debugger.")
            .syntax("mode:(YES|SYNC|NO)"),
        Command::new("exists", -3, ADMIN, exists)
            .doc(GROUP, "2.6.0", "Tells which SHA-1s belong to scripts.")
            .syntax("sha1...")
            .hints(&["request_policy:all_shards", "response_policy:agg_logical_and"]),
        Command::new("flush", -2, ADMIN, flush)
            .doc(GROUP, "2.6.0", "Drops all scripts.")
            .syntax("flush-type:[ASYNC|SYNC]@6.2.0")
            .hints(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        Command::new("help", 2, CommandFlags::LOADING.with(CommandFlags::STALE), help).doc(
            GROUP,
            "5.0.0",
            "Lists the subcommands.",
        ),
        Command::new("kill", 2, KILL, kill)
            .doc(GROUP, "2.6.0", "Ends the script that runs for too long.")
            .locking(LockScope::Handler)
            .hints(&["request_policy:all_shards", "response_policy:one_succeeded"]),
        Command::new("load", 3, ADMIN.with(CommandFlags::STALE), load)
            .doc(GROUP, "2.6.0", "Keeps a script for EVALSHA.")
            .syntax("script")
            .hints(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    ]);

fn debug(call: &mut Call<'_>) -> CommandResult {
    if call.is(2, "no") {
        call.reply.ok();
        return Ok(());
    }
    if call.is(2, "yes") || call.is(2, "sync") {
        return Err(ErrorReply::new("ERR There is no debugger for scripts"));
    }
    Err(ErrorReply::new("ERR Use SCRIPT DEBUG YES/SYNC/NO"))
}

fn exists(call: &mut Call<'_>) -> CommandResult {
    call.reply.array(call.args.len() - 2);
    for sha in call.args.from(2).iter() {
        let sha = Sha::try_from(sha).map(|sha| sha.map(|digit| digit.to_ascii_lowercase()));
        let is_there = sha.is_ok_and(|sha| call.shared.scripting.cache.find(&sha).is_some());
        call.reply.integer(i64::from(is_there));
    }
    Ok(())
}

fn flush(call: &mut Call<'_>) -> CommandResult {
    match call.args.len() {
        2 => {}
        3 if call.is(2, "async") || call.is(2, "sync") => {}
        _ => return Err(ErrorReply::new("ERR SCRIPT FLUSH only support SYNC|ASYNC option")),
    }
    call.shared.scripting.cache.flush();
    call.reply.ok();
    Ok(())
}

fn kill(call: &mut Call<'_>) -> CommandResult {
    kill_running(call, true)
}

/// SCRIPT KILL and FUNCTION KILL.
pub(super) fn kill_running(call: &mut Call<'_>, is_eval: bool) -> CommandResult {
    match call.shared.scripting.running.kill(is_eval) {
        Ok(()) => {
            call.reply.ok();
            Ok(())
        }
        Err(KillError::NotBusy) => {
            Err(ErrorReply::new("NOTBUSY No scripts in execution right now."))
        }
        Err(KillError::OtherKind) => {
            Err(ErrorReply::new(call.shared.scripting.running.busy_reply()))
        }
        Err(KillError::HasWritten) => Err(ErrorReply::new(
            "UNKILLABLE Sorry the script already executed write commands against the dataset. You \
             can either wait the script termination or kill the server in a hard way using the \
             SHUTDOWN NOSAVE command.",
        )),
    }
}

/// The engine compiles the script and writes the reply.
fn load(call: &mut Call<'_>) -> CommandResult {
    call.effect = Effect::LoadScript;
    Ok(())
}

fn help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "DEBUG (YES|SYNC|NO)",
        "    NO is accepted; there is no debugger.",
        "EXISTS <sha1> [<sha1> ...]",
        "    Tells for each SHA-1 whether a script has it.",
        "FLUSH [ASYNC|SYNC]",
        "    Drops all scripts.",
        "KILL",
        "    Ends the script that runs for too long, unless it has written.",
        "LOAD <script>",
        "    Keeps a script for EVALSHA; replies with its SHA-1.",
    ]);
    Ok(())
}

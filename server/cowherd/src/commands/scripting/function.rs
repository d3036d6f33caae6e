//! FUNCTION.

use cowherd_resp::glob_match;

use crate::commands::call::{Call, Effect};
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::table::{Command, CommandFlags, LockScope};
use crate::scripting::{Library, RestorePolicy, dump_libraries};

use super::GROUP;
use super::script::kill_running;

const READ: CommandFlags = CommandFlags::NOSCRIPT;
const WRITE: CommandFlags = CommandFlags::NOSCRIPT.with(CommandFlags::WRITE);
const GROW: CommandFlags = WRITE.with(CommandFlags::DENYOOM);
const KILL: CommandFlags = READ.with(CommandFlags::ALLOW_BUSY).with(CommandFlags::UNPAUSED);

pub(super) const COMMAND: Command = Command::container("function")
    .doc(GROUP, "7.0.0", "Manages libraries of functions.")
    .subcommands(&[
        Command::new("delete", 3, WRITE, delete)
            .doc(GROUP, "7.0.0", "Deletes a library.")
            .syntax("library-name")
            .locking(LockScope::All)
            .hints(&["request_policy:all_shards", "response_policy:all_succeeded"]),
        Command::new("dump", 2, READ, dump).doc(
            GROUP,
            "7.0.0",
            "Returns all libraries as a payload for RESTORE.",
        ),
        Command::new("flush", -2, WRITE, flush)
            .doc(GROUP, "7.0.0", "Deletes all libraries.")
            .syntax("flush-type:[ASYNC|SYNC]")
            .locking(LockScope::All)
            .hints(&["request_policy:all_shards", "response_policy:all_succeeded"]),
        Command::new("help", 2, CommandFlags::LOADING.with(CommandFlags::STALE), help).doc(
            GROUP,
            "7.0.0",
            "Lists the subcommands.",
        ),
        Command::new("kill", 2, KILL, |call| kill_running(call, false))
            .doc(GROUP, "7.0.0", "Ends the function that runs for too long.")
            .locking(LockScope::Handler)
            .hints(&["request_policy:all_shards", "response_policy:one_succeeded"]),
        Command::new("list", -2, READ, list)
            .doc(GROUP, "7.0.0", "Lists the libraries and their functions.")
            .syntax("[LIBRARYNAME library-name-pattern] [WITHCODE]")
            .hints(&["nondeterministic_output_order"]),
        Command::new("load", -3, GROW, load)
            .doc(GROUP, "7.0.0", "Adds a library.")
            .syntax("[REPLACE] function-code")
            .locking(LockScope::Handler)
            .hints(&["request_policy:all_shards", "response_policy:all_succeeded"]),
        Command::new("restore", -3, GROW, restore)
            .doc(GROUP, "7.0.0", "Adds the libraries of a payload.")
            .syntax("serialized-value policy:[FLUSH|APPEND|REPLACE]")
            .locking(LockScope::Handler)
            .hints(&["request_policy:all_shards", "response_policy:all_succeeded"]),
        Command::new("stats", 2, KILL, stats)
            .doc(GROUP, "7.0.0", "Shows the function that runs for too long, and counts.")
            .locking(LockScope::Handler)
            .hints(&[
                "nondeterministic_output",
                "request_policy:all_shards",
                "response_policy:special",
            ]),
    ]);

fn delete(call: &mut Call<'_>) -> CommandResult {
    let name = call.text(2);
    if !call.shared.scripting.functions.has(&name) {
        return Err(ErrorReply::new("ERR Library not found"));
    }
    call.shards.remove_library(call.args.at(2));
    call.shards.libraries_changed();
    call.shared.scripting.functions.remove(&name);
    call.reply.ok();
    Ok(())
}

fn flush(call: &mut Call<'_>) -> CommandResult {
    match call.args.len() {
        2 => {}
        3 if call.is(2, "async") || call.is(2, "sync") => {}
        4.. => {
            return Err(ErrorReply::wrong_subcommand(&call.args));
        }
        _ => return Err(ErrorReply::new("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")),
    }
    for library in call.shared.scripting.functions.snapshot().1 {
        call.shards.remove_library(library.name.as_bytes());
    }
    call.shards.libraries_changed();
    call.shared.scripting.functions.clear();
    call.reply.ok();
    Ok(())
}

/// The engine runs the code and writes the reply.
fn load(call: &mut Call<'_>) -> CommandResult {
    let options = 2..call.args.len() - 1;
    if let Some(other) = options.clone().find(|i| !call.is(*i, "replace")) {
        return Err(ErrorReply::quoting(&[b"ERR Unknown option given: ", call.args.at(other)]));
    }
    call.effect = Effect::LoadLibrary { replaces: !options.is_empty() };
    Ok(())
}

fn dump(call: &mut Call<'_>) -> CommandResult {
    let (_, libraries) = call.shared.scripting.functions.snapshot();
    call.reply.bulk(&dump_libraries(&libraries));
    Ok(())
}

/// The engine runs the code and writes the reply.
fn restore(call: &mut Call<'_>) -> CommandResult {
    let policy = match call.args.len() {
        3 => RestorePolicy::Append,
        4 if call.is(3, "append") => RestorePolicy::Append,
        4 if call.is(3, "replace") => RestorePolicy::Replace,
        4 if call.is(3, "flush") => RestorePolicy::Flush,
        4 => {
            return Err(ErrorReply::new(
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            ));
        }
        _ => return Err(ErrorReply::wrong_subcommand(&call.args)),
    };
    call.effect = Effect::RestoreLibraries(policy);
    Ok(())
}

fn list(call: &mut Call<'_>) -> CommandResult {
    let (mut pattern, mut with_code) = (None, false);
    let mut i = 2;
    while i < call.args.len() {
        if !with_code && call.is(i, "withcode") {
            with_code = true;
        } else if pattern.is_none() && call.is(i, "libraryname") {
            i += 1;
            let missing = ErrorReply::new("ERR library name argument was not given");
            pattern = Some(call.args.get(i).ok_or(missing)?);
        } else {
            return Err(ErrorReply::quoting(&[b"ERR Unknown argument ", call.args.at(i)]));
        }
        i += 1;
    }
    let (_, mut libraries) = call.shared.scripting.functions.snapshot();
    libraries.retain(|library| {
        pattern.is_none_or(|pattern| glob_match(pattern, library.name.as_bytes(), true))
    });
    call.reply.array(libraries.len());
    for library in libraries {
        write_library(call, &library, with_code);
    }
    Ok(())
}

fn write_library(call: &mut Call<'_>, library: &Library, with_code: bool) {
    let reply = &mut *call.reply;
    reply.map(if with_code { 4 } else { 3 });
    reply.bulk_str("library_name");
    reply.bulk_str(&library.name);
    reply.bulk_str("engine");
    reply.bulk_str("LUA");
    reply.bulk_str("functions");
    reply.array(library.functions.len());
    for function in &library.functions {
        reply.map(3);
        reply.bulk_str("name");
        reply.bulk_str(&function.name);
        reply.bulk_str("description");
        match &function.description {
            Some(text) => reply.bulk(text),
            None => reply.null(),
        }
        reply.bulk_str("flags");
        reply.set(function.flags.names().count());
        function.flags.names().for_each(|name| reply.simple(name));
    }
    if with_code {
        reply.bulk_str("library_code");
        reply.bulk(&library.code);
    }
}

fn stats(call: &mut Call<'_>) -> CommandResult {
    let scripting = &call.shared.scripting;
    let running = scripting.running.first();
    if running.as_ref().is_some_and(|running| running.is_eval) {
        return Err(ErrorReply::new(scripting.running.busy_reply()));
    }
    let (libraries, functions, _) = scripting.functions.size();
    let reply = &mut *call.reply;
    reply.map(2);
    reply.bulk_str("running_script");
    match running {
        None => reply.null(),
        Some(running) => {
            reply.map(3);
            reply.bulk_str("name");
            reply.bulk_str(&running.name);
            reply.bulk_str("command");
            reply.array(running.command.len());
            running.command.iter().for_each(|word| reply.bulk(word));
            reply.bulk_str("duration_ms");
            reply.integer(i64::try_from(running.milliseconds()).unwrap_or(i64::MAX));
        }
    }
    reply.bulk_str("engines");
    reply.map(1);
    reply.bulk_str("LUA");
    reply.map(2);
    for (name, count) in [("libraries_count", libraries), ("functions_count", functions)] {
        reply.bulk_str(name);
        reply.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }
    Ok(())
}

fn help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "LOAD [REPLACE] <FUNCTION CODE>",
        "    Adds a library; REPLACE: in place of one of the same name.",
        "DELETE <LIBRARY NAME>",
        "    Deletes a library.",
        "DUMP",
        "    Returns all libraries as a payload for RESTORE.",
        "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
        "    Adds the libraries of a payload: all or, after an error, none.",
        "    APPEND (the default): no library of the payload may be there.",
        "    REPLACE: libraries of the same names are replaced.",
        "    FLUSH: all libraries are replaced.",
        "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
        "    Lists the libraries with their functions, and their code.",
        "STATS",
        "    Shows the function that runs for too long, and counts.",
        "KILL",
        "    Ends the function that runs for too long, unless it has written.",
        "FLUSH [ASYNC|SYNC]",
        "    Deletes all libraries.",
    ]);
    Ok(())
}

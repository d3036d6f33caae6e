//! CLIENT: lists, names, pauses, unblocks and closes connections.

mod kill;
mod list;
#[cfg(test)]
mod tests;
mod tracking;

use std::sync::atomic::Ordering;

use crate::clients::ReplyMode;
use cowherd_resp::parse_i64;

use super::call::Call;
use super::connection::{client_name, printable};
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup};

const PLAIN: CommandFlags =
    CommandFlags::NOSCRIPT.with(CommandFlags::LOADING).with(CommandFlags::STALE);
const ADMIN: CommandFlags = PLAIN.with(CommandFlags::ADMIN);
/// Runs during a pause too: otherwise no command could end or shorten one.
const PAUSING: CommandFlags = ADMIN.with(CommandFlags::UNPAUSED);

const GROUP: CommandGroup = CommandGroup::Connection;

pub(super) const COMMANDS: &[Command] = &[Command::container("client")
    .doc(GROUP, "2.4.0", "Commands about connections.")
    .subcommands(&[
        Command::new("caching", 3, PLAIN, tracking::caching)
            .doc(GROUP, "6.0.0", "Whether the next command's reads are tracked.")
            .syntax("mode:(YES|NO)"),
        Command::new("getname", 2, PLAIN, get_name).doc(
            GROUP,
            "2.6.9",
            "Returns this connection's name.",
        ),
        Command::new("getredir", 2, PLAIN, tracking::get_redirect).doc(
            GROUP,
            "6.0.0",
            "Returns the client that gets this connection's invalidations.",
        ),
        Command::new("help", 2, HELP, help).doc(GROUP, "5.0.0", "Lists the subcommands."),
        Command::new("id", 2, PLAIN, id).doc(GROUP, "5.0.0", "Returns this connection's number."),
        Command::new("info", 2, PLAIN, list::info)
            .doc(GROUP, "6.2.0", "Describes this connection.")
            .hints(&["nondeterministic_output"]),
        Command::new("kill", -3, PAUSING, kill::kill)
            .doc(GROUP, "2.4.0", "Closes connections.")
            .syntax(
                "filter:(old-format=ip:port@-2.8.12|new-format:([ID@2.8.12 client-id]|[TYPE@2.8.12 \
                 client-type:(NORMAL|MASTER@3.2.0|SLAVE|REPLICA@5.0.0|PUBSUB)]|[USER username]|\
                 [ADDR addr=ip:port]|[LADDR@6.2.0 laddr=ip:port]|[SKIPME skipme:(YES|NO)]|\
                 [MAXAGE@7.4.0 maxage:integer])...)",
            ),
        Command::new("list", -2, ADMIN, list::list)
            .doc(GROUP, "2.4.0", "Describes the connections.")
            .syntax(
                "[TYPE@5.0.0 client-type:(NORMAL|MASTER|REPLICA|PUBSUB)] [ID@6.2.0 client-id...]",
            )
            .hints(&["nondeterministic_output"]),
        Command::new("no-evict", 3, ADMIN, no_evict)
            .doc(GROUP, "7.0.0", "Marks this connection as to be kept.")
            .syntax("enabled:(ON|OFF)"),
        Command::new("no-touch", 3, PLAIN, no_touch)
            .doc(GROUP, "7.2.0", "Lets reads leave access times alone.")
            .syntax("enabled:(ON|OFF)"),
        Command::new("pause", -3, PAUSING, pause)
            .doc(GROUP, "3.0.0", "Holds up commands for a while.")
            .syntax("timeout:integer mode:[WRITE|ALL]@6.2.0"),
        Command::new("reply", 3, PLAIN, reply)
            .doc(GROUP, "3.2.0", "Turns replies on and off.")
            .syntax("action:(ON|OFF|SKIP)"),
        Command::new("setinfo", 4, PLAIN, set_info)
            .doc(GROUP, "7.2.0", "Tells the client library's name.")
            .syntax("attr:(LIB-NAME libname|LIB-VER libver)")
            .hints(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        Command::new("setname", 3, PLAIN, set_name)
            .doc(GROUP, "2.6.9", "Names this connection.")
            .syntax("connection-name")
            .hints(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        Command::new("tracking", -3, PLAIN, tracking::tracking)
            .doc(GROUP, "6.0.0", "Turns invalidations for client-side caching on or off.")
            .syntax(
                "status:(ON|OFF) [REDIRECT client-id] [(PREFIX prefix)...] [BCAST] [OPTIN] \
                 [OPTOUT] [NOLOOP]",
            ),
        Command::new("trackinginfo", 2, PLAIN, tracking::tracking_info).doc(
            GROUP,
            "6.2.0",
            "Describes this connection's tracking.",
        ),
        Command::new("unblock", -3, ADMIN, unblock)
            .doc(GROUP, "5.0.0", "Ends the wait of a blocked client.")
            .syntax("client-id unblock-type:[TIMEOUT|ERROR]"),
        Command::new("unpause", 2, PAUSING, unpause).doc(GROUP, "6.2.0", "Ends a pause."),
    ])];

const HELP: CommandFlags = CommandFlags::LOADING.with(CommandFlags::STALE);

fn help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "CACHING (YES|NO)",
        "    Whether the reads of the next command are tracked, after TRACKING ON OPTIN or OPTOUT.",
        "GETNAME",
        "    Returns the name of this connection.",
        "GETREDIR",
        "    Returns the connection that gets the invalidations of this one: 0 this one itself,",
        "    -1 none.",
        "ID",
        "    Returns the number of this connection.",
        "INFO",
        "    Describes this connection.",
        "KILL <address>",
        "    Closes the connection from an address.",
        "KILL <filter> <value> [<filter> <value> ...]",
        "    Closes the connections that pass all filters: ID <number>, ADDR <address>,",
        "    LADDR <own address>, TYPE <type>, USER <name>, MAXAGE <seconds at least>, and",
        "    SKIPME (YES|NO), whether to spare this connection (default: yes).",
        "LIST [TYPE <type> | ID <number> [<number> ...]]",
        "    Describes connections, one a line.",
        "NO-EVICT (ON|OFF)",
        "    Marks this connection as one to keep when memory is short.",
        "NO-TOUCH (ON|OFF)",
        "    Whether reads of this connection leave access times alone.",
        "PAUSE <milliseconds> [WRITE|ALL]",
        "    Holds up commands of all clients, or those that write.",
        "REPLY (ON|OFF|SKIP)",
        "    Turns replies on or off, or leaves out the next one.",
        "SETINFO (LIB-NAME|LIB-VER) <text>",
        "    Tells name or version of the client library.",
        "SETNAME <name>",
        "    Names this connection.",
        "TRACKING (ON|OFF) [REDIRECT <number>] [BCAST] [PREFIX <prefix> ...] [OPTIN] [OPTOUT]",
        "         [NOLOOP]",
        "    Lets the server tell this connection, or another, which keys have changed.",
        "TRACKINGINFO",
        "    Describes the tracking of this connection.",
        "UNBLOCK <number> [TIMEOUT|ERROR]",
        "    Ends the wait of a blocked client.",
        "UNPAUSE",
        "    Ends a pause.",
    ]);
    Ok(())
}

/// Parses ON or OFF.
fn parse_switch(call: &Call<'_>, i: usize) -> Result<bool, ErrorReply> {
    match () {
        () if call.is(i, "on") => Ok(true),
        () if call.is(i, "off") => Ok(false),
        () => Err(ErrorReply::SYNTAX),
    }
}

fn id(call: &mut Call<'_>) -> CommandResult {
    call.reply.integer(i64::try_from(call.session.client.id).unwrap_or(i64::MAX));
    Ok(())
}

fn get_name(call: &mut Call<'_>) -> CommandResult {
    match call.session.client.names.lock().name.as_str() {
        "" => call.reply.null(),
        name => call.reply.bulk_str(name),
    }
    Ok(())
}

fn set_name(call: &mut Call<'_>) -> CommandResult {
    call.session.client.names.lock().name = client_name(call.args.at(2))?;
    call.reply.ok();
    Ok(())
}

fn set_info(call: &mut Call<'_>) -> CommandResult {
    let option = call.args.at(2);
    let (is_name, is_version) = (call.is(2, "lib-name"), call.is(2, "lib-ver"));
    if !is_name && !is_version {
        return Err(ErrorReply::quoting(&[b"ERR Unrecognized option '", option, b"'"]));
    }
    let Some(value) = printable(call.args.at(3)) else {
        let problem = b" cannot contain spaces, newlines or special characters.";
        return Err(ErrorReply::quoting(&[b"ERR ", option, problem]));
    };
    let mut names = call.session.client.names.lock();
    let field = if is_name { &mut names.library } else { &mut names.library_version };
    *field = value;
    drop(names);
    call.reply.ok();
    Ok(())
}

fn no_evict(call: &mut Call<'_>) -> CommandResult {
    call.session.client.no_evict.store(parse_switch(call, 2)?, Ordering::Relaxed);
    call.reply.ok();
    Ok(())
}

fn no_touch(call: &mut Call<'_>) -> CommandResult {
    let on = parse_switch(call, 2)?;
    call.session.no_touch = on;
    call.session.client.no_touch.store(on, Ordering::Relaxed);
    call.reply.ok();
    Ok(())
}

/// OFF and SKIP themselves have no reply. A monitor with replies off is shown no requests.
fn reply(call: &mut Call<'_>) -> CommandResult {
    let monitors = &call.shared.clients.monitors;
    if call.is(2, "on") {
        call.session.reply_mode = ReplyMode::On;
        call.session.skip_reply = false;
        if call.session.is_monitor {
            monitors.show_to(&call.session.client);
        }
        call.reply.ok();
    } else if call.is(2, "off") {
        call.session.reply_mode = ReplyMode::Off;
        if call.session.is_monitor {
            monitors.hide_from(&call.session.client);
        }
    } else if call.is(2, "skip") {
        if call.session.reply_mode != ReplyMode::Off {
            call.session.reply_mode = ReplyMode::SkipNext;
        }
    } else {
        return Err(ErrorReply::SYNTAX);
    }
    Ok(())
}

fn pause(call: &mut Call<'_>) -> CommandResult {
    const BAD_TIMEOUT: ErrorReply =
        ErrorReply::new("ERR timeout is not an integer or out of range");
    let writes_only = match call.args.len() {
        3 => false,
        4 if call.is(3, "all") => false,
        4 if call.is(3, "write") => true,
        4 => return Err(ErrorReply::new("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(ErrorReply::wrong_subcommand(&call.args)),
    };
    let time = parse_i64(call.args.at(2)).ok_or(BAD_TIMEOUT)?;
    if time < 0 {
        return Err(ErrorReply::new("ERR timeout is negative"));
    }
    let until = call.now.checked_add(time);
    let until = until.ok_or(ErrorReply::new("ERR timeout is out of range"))?;
    // A pause of all commands is not reduced to one of writes while it lasts.
    let clients = &call.shared.clients;
    let writes_only = writes_only && clients.paused_until(call.now, false).is_none();
    clients.pause(until, writes_only);
    call.reply.ok();
    Ok(())
}

fn unpause(call: &mut Call<'_>) -> CommandResult {
    call.shared.clients.unpause();
    call.reply.ok();
    Ok(())
}

fn unblock(call: &mut Call<'_>) -> CommandResult {
    let with_error = match call.args.len() {
        3 => false,
        4 if call.is(3, "timeout") => false,
        4 if call.is(3, "error") => true,
        4 => return Err(ErrorReply::new("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
        _ => return Err(ErrorReply::wrong_subcommand(&call.args)),
    };
    let shared = call.shared;
    let client = u64::try_from(call.integer(2)?).ok().and_then(|id| shared.clients.get(id));
    let sequence = client.and_then(|client| client.blocked_sequence());
    let limits = &call.config.client_output_buffer_limit;
    let ended = sequence.is_some_and(|sequence| match with_error {
        true => {
            let failed = |row: usize, error: &[u8]| shared.telemetry.failed_after_wait(row, error);
            shared.blocked_clients.unblock(sequence, &shared.keyspace, limits, failed)
        }
        false => shared.blocked_clients.time_out(sequence, &shared.keyspace, limits),
    });
    call.reply.integer(i64::from(ended));
    Ok(())
}

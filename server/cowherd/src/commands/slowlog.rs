//! SLOWLOG: the log of slow commands.

use crate::telemetry::SlowlogEntry;
use cowherd_resp::{Args, parse_i64};

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, CommandRow};

const ALWAYS: CommandFlags =
    CommandFlags::ADMIN.with(CommandFlags::LOADING).with(CommandFlags::STALE);
/// The default count of SLOWLOG GET.
const ENTRIES: i64 = 10;

const BAD_COUNT: ErrorReply = ErrorReply::new("ERR count should be greater than or equal to -1");

const GROUP: CommandGroup = CommandGroup::Server;

pub(super) const COMMANDS: &[Command] = &[Command::container("slowlog")
    .doc(GROUP, "2.2.12", "Shows the commands that took long.")
    .subcommands(&[
        Command::new("get", -2, ALWAYS, get)
            .doc(GROUP, "2.2.12", "Returns the newest entries.")
            .syntax("[count]")
            .hints(&["request_policy:all_nodes", "nondeterministic_output"]),
        Command::new("len", 2, ALWAYS, len)
            .doc(GROUP, "2.2.12", "Returns the number of entries.")
            .hints(&[
                "request_policy:all_nodes",
                "response_policy:agg_sum",
                "nondeterministic_output",
            ]),
        Command::new("reset", 2, ALWAYS, reset)
            .doc(GROUP, "2.2.12", "Removes all entries.")
            .hints(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        Command::new("help", 2, CommandFlags::LOADING.with(CommandFlags::STALE), help).doc(
            GROUP,
            "6.2.0",
            "Lists the subcommands.",
        ),
    ])];

fn get(call: &mut Call<'_>) -> CommandResult {
    let count = match call.args.len() {
        2 => ENTRIES,
        3 => parse_i64(call.args.at(2)).ok_or(BAD_COUNT)?,
        _ => return Err(ErrorReply::wrong_subcommand(&call.args)),
    };
    let count = match count {
        -1 => usize::MAX,
        count => usize::try_from(count).map_err(|_| BAD_COUNT)?,
    };
    let entries = call.shared.telemetry.slowlog(count);
    call.reply.array(entries.len());
    for entry in &entries {
        show(call, entry);
    }
    Ok(())
}

/// Replies an entry. Clients require exactly six elements, so that the time spent on copy-on-write
/// or in the undo log is appended to the arguments, as Redis does for omitted arguments.
fn show(call: &mut Call<'_>, entry: &SlowlogEntry) {
    let stall = entry.stall_nanos / 1000;
    let undo_log = call.shared.keyspace.arena().barrier().undo_log().is_some();
    let reply = &mut *call.reply;
    reply.array(6);
    reply.integer(entry.id.cast_signed());
    reply.integer(entry.at_ms.div_euclid(1000));
    reply.integer((entry.nanos / 1000).cast_signed());
    reply.array(entry.arguments.len() + usize::from(stall > 0));
    for argument in &entry.arguments {
        reply.bulk(argument);
    }
    if stall > 0 {
        let what = if undo_log { "capturing for the undo log" } else { "copy-on-write" };
        reply.bulk_str(&format!("... ({stall} us of {what})"));
    }
    reply.bulk_str(&entry.peer);
    reply.bulk_str(&entry.name);
}

fn len(call: &mut Call<'_>) -> CommandResult {
    let length = call.shared.telemetry.slowlog_len();
    call.reply.integer(length.cast_signed());
    Ok(())
}

fn reset(call: &mut Call<'_>) -> CommandResult {
    call.shared.telemetry.slowlog_reset();
    call.reply.ok();
    Ok(())
}

fn help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "GET [<count>]",
        "    Returns the newest entries, 10 by default, all with -1: number, Unix time,",
        "    microseconds, arguments, and address and name of the client.",
        "LEN",
        "    Returns the number of entries.",
        "RESET",
        "    Removes all entries.",
    ]);
    Ok(())
}

/// Whether argument `i` is a password and must be neither logged nor shown to monitors; renamed
/// commands are recognized. Requests that fail have passwords too.
pub fn is_secret(row: &CommandRow, args: &Args<'_>, i: usize) -> bool {
    let is = |i: usize, word: &str| {
        args.get(i).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    };
    match row.command.name {
        "auth" => i > 0,
        "hello" => {
            let mut at = 2;
            while at < i && !(is(at, "auth") && i - at <= 2) {
                at += if is(at, "auth") { 3 } else { 1 + usize::from(is(at, "setname")) };
            }
            at < i
        }
        "set" if row.name.contains('|') => i > 2 && i % 2 == 1 && is(i - 1, "requirepass"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestServer;
    use super::*;
    use crate::commands::table::CommandTable;
    use crate::telemetry::SlowCommand;
    use cowherd_resp::{Batch, RequestLimits, RequestParser};

    /// A line with its secret arguments replaced by dashes.
    fn shown(line: &str) -> String {
        let mut batch = Batch::new();
        let line = format!("{line}\r\n");
        RequestParser::new()
            .parse(line.as_bytes(), &RequestLimits::default(), &mut batch, 1)
            .unwrap();
        let args = batch.request(0, line.as_bytes());
        let renames = [("config".to_owned(), "conf".to_owned())];
        let table = CommandTable::new(crate::commands::all(), &renames).unwrap();
        let row = table.resolve(&args).unwrap();
        let shown = (0..args.len()).map(|i| match is_secret(row, &args, i) {
            true => "-".to_owned(),
            false => String::from_utf8_lossy(args.at(i)).into_owned(),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn passwords_are_secret() {
        for (line, safe) in [
            ("AUTH geheim", "AUTH -"),
            ("AUTH me geheim", "AUTH - -"),
            ("HELLO 3 auth me geheim SETNAME x", "HELLO 3 auth - - SETNAME x"),
            ("HELLO 3 AUTH auth auth SETNAME auth", "HELLO 3 AUTH - - SETNAME auth"),
            ("HELLO 9 SETNAME auth AUTH me geheim", "HELLO 9 SETNAME auth AUTH - -"),
            ("HELLO 3 AUTH geheim", "HELLO 3 AUTH -"),
            ("CONF SET hz 10 requirepass geheim dir x", "CONF SET hz 10 requirepass - dir x"),
            ("CONF GET requirepass", "CONF GET requirepass"),
            ("SET auth geheim", "SET auth geheim"),
        ] {
            assert_eq!(shown(line), safe);
        }
    }

    #[test]
    fn entries_are_shown_as_in_redis() {
        let server = TestServer::new();
        assert_eq!(server.run("SLOWLOG LEN"), ":0\r\n");
        let telemetry = &server.shared.telemetry;
        let recorder = telemetry.recorder(0).unwrap();
        let slow = SlowCommand {
            at_ms: 1_700_000_000_999,
            nanos: 12_345_678,
            stall_nanos: 0,
            peer: "127.0.0.1:5",
            name: "",
        };
        recorder.slow(&slow, [b"GET".as_slice(), b"a"].into_iter());
        let slow = SlowCommand { nanos: 20_000_000, stall_nanos: 245_900, name: "me", ..slow };
        recorder.slow(&slow, [b"SET".as_slice()].into_iter());
        recorder.slow(&SlowCommand { nanos: 9_999_999, ..slow }, [b"FAST".as_slice()].into_iter());
        assert_eq!(server.run("SLOWLOG LEN"), ":2\r\n");
        assert_eq!(
            server.run("SLOWLOG GET 1"),
            "*1\r\n*6\r\n:1\r\n:1700000000\r\n:20000\r\n*2\r\n$3\r\nSET\r\n\
             $29\r\n... (245 us of copy-on-write)\r\n$11\r\n127.0.0.1:5\r\n$2\r\nme\r\n"
        );
        assert!(server.run("SLOWLOG GET -1").starts_with("*2\r\n*6\r\n:1\r\n"));
        assert_eq!(server.run("SLOWLOG GET 0"), "*0\r\n");
        for wrong in ["SLOWLOG GET -2", "SLOWLOG GET x", "SLOWLOG GET 9223372036854775808"] {
            let reply = "-ERR count should be greater than or equal to -1\r\n";
            assert_eq!(server.run(wrong), reply, "{wrong}");
        }
        assert_eq!(server.run("CONFIG SET slowlog-max-len 1"), "+OK\r\n");
        assert_eq!(server.run("SLOWLOG RESET"), "+OK\r\n");
        assert_eq!(server.run("SLOWLOG GET"), "*0\r\n");
        assert!(server.run("SLOWLOG HELP").contains("GET [<count>]"));
        assert!(server.run("SLOWLOG NO").starts_with("-ERR unknown subcommand 'NO'"));
    }
}

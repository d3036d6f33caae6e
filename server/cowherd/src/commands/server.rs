//! TIME, LOLWUT, and the FLUSH subcommands of FUNCTION and SCRIPT, which do nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::shared::REDIS_VERSION;
use super::table::{Command, CommandFlags, CommandGroup};

const ALWAYS: CommandFlags = CommandFlags::LOADING.with(CommandFlags::STALE);

const GROUP: CommandGroup = CommandGroup::Scripting;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("time", 1, ALWAYS.with(CommandFlags::FAST), time)
        .doc(
            CommandGroup::Server,
            "2.6.0",
            "Returns the wall clock: seconds since 1970, and microseconds.",
        )
        .hints(&["nondeterministic_output"]),
    Command::new("lolwut", -1, CommandFlags::READONLY.with(CommandFlags::FAST), lolwut)
        .doc(CommandGroup::Server, "5.0.0", "Shows a picture and the version.")
        .syntax("[VERSION version]"),
    Command::container("function")
        .doc(GROUP, "7.0.0", "There are no functions; FLUSH is accepted.")
        .subcommands(&[
            Command::new("flush", -2, CommandFlags::NOSCRIPT, function_flush)
                .doc(GROUP, "7.0.0", "Does nothing.")
                .syntax("[ASYNC|SYNC]")
                .hints(&["request_policy:all_shards", "response_policy:all_succeeded"]),
            Command::new("help", 2, ALWAYS, flush_help).doc(
                GROUP,
                "7.0.0",
                "Lists the subcommands.",
            ),
        ]),
    Command::container("script")
        .doc(GROUP, "2.6.0", "There are no scripts; FLUSH is accepted.")
        .subcommands(&[
            Command::new("flush", -2, CommandFlags::NOSCRIPT, script_flush)
                .doc(GROUP, "2.6.0", "Does nothing.")
                .syntax("[ASYNC|SYNC]")
                .hints(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
            Command::new("help", 2, ALWAYS, flush_help).doc(
                GROUP,
                "5.0.0",
                "Lists the subcommands.",
            ),
        ]),
];

/// Reads the clock instead of the time of the batch, since clients measure with TIME.
fn time(call: &mut Call<'_>) -> CommandResult {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    call.reply.array(2);
    call.reply.bulk_integer(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    call.reply.bulk_integer(i64::from(now.subsec_micros()));
    Ok(())
}

const COW: &str = r"
          (__)            (__)
   *------(oo)     *------(oo)          ,,        ,,
   |  __   \/      |   __  \/      ,,        ,,
   |_/  \__|_      |__/  \_|   ,,       ,,        ,,
   ||    ||        ||    ||  ,,    ,,        ,,
 ,,^^,,,,^^,,,,,,,,^^,,,,^^,,,,,,,,,,,,,,,,,,,,,,,,,,,

";

/// Replies the same picture for all versions and sizes.
fn lolwut(call: &mut Call<'_>) -> CommandResult {
    if call.is(1, "version") && call.args.len() > 2 {
        call.integer(2)?;
    }
    let version = env!("CARGO_PKG_VERSION");
    let text = format!("{COW}Cowherd ver. {version}, as Redis ver. {REDIS_VERSION}\n");
    call.reply.verbatim("txt", &text);
    Ok(())
}

fn function_flush(call: &mut Call<'_>) -> CommandResult {
    match call.args.len() {
        2 => {}
        3 if call.is(2, "sync") || call.is(2, "async") => {}
        3 => {
            return Err(ErrorReply::new("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"));
        }
        _ => {
            let (name, given) = (call.text(0).to_uppercase(), call.text(1));
            return Err(ErrorReply::text(format!(
                "ERR unknown subcommand or wrong number of arguments for '{given}'. \
                 Try {name} HELP."
            )));
        }
    }
    call.reply.ok();
    Ok(())
}

fn script_flush(call: &mut Call<'_>) -> CommandResult {
    match call.args.len() {
        2 => {}
        3 if call.is(2, "sync") || call.is(2, "async") => {}
        _ => return Err(ErrorReply::new("ERR SCRIPT FLUSH only support SYNC|ASYNC option")),
    }
    call.reply.ok();
    Ok(())
}

fn flush_help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "FLUSH [ASYNC|SYNC]",
        "    Does nothing: scripts and functions are not supported.",
    ]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::TestServer;

    #[test]
    fn time_replies_two_numbers() {
        let server = TestServer::new();
        let reply = server.run("TIME");
        let lines: Vec<&str> = reply.split("\r\n").collect();
        assert_eq!((lines[0], lines.len()), ("*2", 6), "{reply}");
        let (seconds, micros): (i64, i64) = (lines[2].parse().unwrap(), lines[4].parse().unwrap());
        assert!(seconds > 1_700_000_000 && (0..1_000_000).contains(&micros), "{reply}");
        assert_eq!(server.run("TIME x"), "-ERR wrong number of arguments for 'time' command\r\n");
    }

    #[test]
    fn lolwut_ends_with_the_version() {
        let server = TestServer::new();
        for line in ["LOLWUT", "LOLWUT VERSION 5 10 10", "LOLWUT version", "lolwut foo"] {
            let reply = server.run(line);
            assert!(reply.contains("(oo)") && reply.contains("Redis ver. 7.4.0\n"), "{reply}");
        }
        let error = "-ERR value is not an integer or out of range\r\n";
        assert_eq!(server.run("LOLWUT VERSION a"), error);
        assert!(TestServer::new().resp3().run("LOLWUT").contains("\r\ntxt:\n"));
    }

    #[test]
    fn flush_is_accepted() {
        let server = TestServer::new();
        for name in ["FUNCTION", "SCRIPT"] {
            for line in ["FLUSH", "FLUSH sync", "FLUSH ASYNC"] {
                assert_eq!(server.run(&format!("{name} {line}")), "+OK\r\n", "{name} {line}");
            }
            let unknown = format!("-ERR unknown subcommand 'Load'. Try {name} HELP.\r\n");
            assert_eq!(server.run(&format!("{name} Load x")), unknown);
            let lower = name.to_lowercase();
            let alone = format!("-ERR wrong number of arguments for '{lower}' command\r\n");
            assert_eq!(server.run(name), alone);
            assert!(server.run(&format!("{name} HELP")).starts_with("*5\r\n+"));
        }
        for (line, error) in [
            ("FUNCTION FLUSH x", "FUNCTION FLUSH only supports SYNC|ASYNC option"),
            (
                "FUNCTION FLUSH sync x",
                "unknown subcommand or wrong number of arguments for 'FLUSH'. Try FUNCTION HELP.",
            ),
            ("SCRIPT FLUSH x", "SCRIPT FLUSH only support SYNC|ASYNC option"),
            ("SCRIPT FLUSH sync x", "SCRIPT FLUSH only support SYNC|ASYNC option"),
        ] {
            assert_eq!(server.run(line), format!("-ERR {error}\r\n"), "{line}");
        }
    }
}

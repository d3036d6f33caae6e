//! TIME and LOLWUT.

use std::time::{SystemTime, UNIX_EPOCH};

use super::call::Call;
use super::error_reply::CommandResult;
use super::shared::REDIS_VERSION;
use super::table::{Command, CommandFlags, CommandGroup};

const ALWAYS: CommandFlags = CommandFlags::LOADING.with(CommandFlags::STALE);

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
];

/// Reads the clock instead of the time of the batch, since clients measure with TIME.
fn time(call: &mut Call<'_>) -> CommandResult {
    let now = call
        .session
        .script_start
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
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
    call.reply.verbatim(b"txt", text.as_bytes());
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
}

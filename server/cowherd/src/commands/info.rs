//! INFO and LASTSAVE.

use crate::telemetry::{StatsSource as _, info};

use super::call::Call;
use super::error_reply::CommandResult;
use super::table::{Command, CommandFlags, CommandGroup};

const ALWAYS: CommandFlags = CommandFlags::LOADING.with(CommandFlags::STALE);

const GROUP: CommandGroup = CommandGroup::Server;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("info", -1, ALWAYS, render)
        .doc(GROUP, "1.0.0", "Returns figures about the server, by section.")
        .syntax("[section...]")
        .categories(&["@dangerous"])
        .hints(&[
            "nondeterministic_output",
            "request_policy:all_shards",
            "response_policy:special",
        ]),
    Command::new("lastsave", 1, ALWAYS.with(CommandFlags::FAST), lastsave)
        .doc(GROUP, "1.0.0", "Returns the Unix time of the last successful save.")
        .categories(&["@admin", "@dangerous"])
        .hints(&["nondeterministic_output"]),
];

fn render(call: &mut Call<'_>) -> CommandResult {
    let sections: Vec<String> =
        call.args.from(1).iter().map(|arg| String::from_utf8_lossy(arg).to_lowercase()).collect();
    let sections: Vec<&str> = sections.iter().map(String::as_str).collect();
    let text = info::render(&call.shared.telemetry, &sections, &call.shared.stats_snapshot());
    call.reply.verbatim(b"txt", text.as_bytes());
    Ok(())
}

fn lastsave(call: &mut Call<'_>) -> CommandResult {
    call.reply.integer(call.shared.telemetry.persistence().last_checkpoint_ms() / 1000);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::TestServer;

    #[test]
    fn sections_can_be_chosen() {
        let server = TestServer::new();
        server.run("SET k v EX 100");
        let all = server.run("INFO");
        assert!(all.contains("redis_version:7.4.0\r\n") && all.contains("# Persistence\r\n"));
        let keyspace = server.run("INFO keyspace");
        assert!(keyspace.contains("db0:keys=1,expires=1,avg_ttl="), "{keyspace}");
        assert!(!keyspace.contains("redis_version"));
        assert!(server.run("LASTSAVE").starts_with(':'));
    }
}

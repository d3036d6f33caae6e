//! CONFIG: reads, changes and rewrites the configuration.

use crate::config::{Config, SetError};
use crate::telemetry::StatsSource as _;
use cowherd_resp::glob_match;

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::shared::Shared;
use super::table::{Command, CommandFlags, CommandGroup, LockScope};

const ADMIN: CommandFlags = CommandFlags::ADMIN
    .with(CommandFlags::NOSCRIPT)
    .with(CommandFlags::LOADING)
    .with(CommandFlags::STALE);
const HELP: CommandFlags = CommandFlags::LOADING.with(CommandFlags::STALE);

const GROUP: CommandGroup = CommandGroup::Server;

pub(super) const COMMANDS: &[Command] = &[Command::container("config")
    .doc(GROUP, "2.0.0", "Commands about the configuration.")
    .subcommands(&[
        Command::new("get", -3, ADMIN, get)
            .doc(GROUP, "2.0.0", "Returns the directives that fit patterns.")
            .syntax("parameter...")
            .locking(LockScope::Handler),
        Command::new("help", 2, HELP, help)
            .doc(GROUP, "5.0.0", "Lists the subcommands.")
            .locking(LockScope::Handler),
        Command::new("resetstat", 2, ADMIN, reset_stat)
            .doc(GROUP, "2.0.0", "Sets the statistics to zero.")
            .hints(&["request_policy:all_nodes", "response_policy:all_succeeded"])
            .locking(LockScope::Handler),
        Command::new("rewrite", 2, ADMIN, rewrite)
            .doc(GROUP, "2.8.0", "Brings the configuration file up to date.")
            .hints(&["request_policy:all_nodes", "response_policy:all_succeeded"])
            .locking(LockScope::Handler),
        Command::new("set", -4, ADMIN, set)
            .doc(GROUP, "2.0.0", "Changes directives, all or none.")
            .syntax("data:(parameter value)...")
            .locking(LockScope::Handler)
            .hints(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    ])];

fn help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "GET <pattern> [<pattern> ...]",
        "    Returns the directives whose names fit, and their values.",
        "RESETSTAT",
        "    Sets the statistics that INFO reports to zero.",
        "REWRITE",
        "    Brings the configuration file up to date.",
        "SET <directive> <value> [<directive> <value> ...]",
        "    Changes directives, all or none.",
    ]);
    Ok(())
}

fn get(call: &mut Call<'_>) -> CommandResult {
    let patterns = call.args.from(2);
    let fits =
        |name: &str| patterns.iter().any(|pattern| glob_match(pattern, name.as_bytes(), true));
    let found = call.shared.config.matching(fits);
    call.reply.map(found.len());
    for (name, value) in found {
        // As in Redis, a pattern that is a plain name is replied as the client spelled it.
        let asked = patterns.iter().find(|asked| asked.eq_ignore_ascii_case(name.as_bytes()));
        call.reply.bulk(asked.unwrap_or(name.as_bytes()));
        call.reply.bulk_str(&value);
    }
    Ok(())
}

/// The error for the name of no directive.
fn unknown(name: &[u8]) -> ErrorReply {
    let problem = b"ERR Unknown option or number of arguments for CONFIG SET - '";
    ErrorReply::quoting(&[problem, name, b"'"])
}

impl From<SetError> for ErrorReply {
    fn from(error: SetError) -> Self {
        Self::text(error.to_string())
    }
}

fn set(call: &mut Call<'_>) -> CommandResult {
    if !call.args.len().is_multiple_of(2) {
        return Err(ErrorReply::SYNTAX);
    }
    let mut pairs = Vec::new();
    for i in (2..call.args.len()).step_by(2) {
        let name = str::from_utf8(call.args.at(i));
        let name = name.map_err(|_| unknown(call.args.at(i)))?;
        let value = str::from_utf8(call.args.at(i + 1));
        let value = value.map_err(|_| refused(name, "the value must be UTF-8 text"))?;
        pairs.push((name, value));
    }
    let shared = call.shared;
    shared.config.update_if(&pairs, |old, new| {
        check_memory(shared, old, new)?;
        shared.apply(new);
        Ok::<(), ErrorReply>(())
    })?;
    call.reply.ok();
    Ok(())
}

fn refused(name: &str, reason: &str) -> ErrorReply {
    ErrorReply::text(format!(
        "ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"
    ))
}

/// Checks that `maxmemory` does not exceed the arena, which cannot grow.
fn check_memory(shared: &Shared, old: &Config, new: &Config) -> CommandResult {
    let capacity = shared.capacity();
    if new.maxmemory <= capacity || new.maxmemory == old.maxmemory {
        return Ok(());
    }
    let reason = format!(
        "the arena of {capacity} bytes was reserved at start and cannot grow; set maxmemory to {} \
         in the configuration file and restart the server",
        new.maxmemory
    );
    Err(refused("maxmemory", &reason))
}

fn rewrite(call: &mut Call<'_>) -> CommandResult {
    call.shared.config.rewrite().map_err(|error| ErrorReply::text(error.to_string()))?;
    call.reply.ok();
    Ok(())
}

fn reset_stat(call: &mut Call<'_>) -> CommandResult {
    reset_statistics(call.shared);
    call.reply.ok();
    Ok(())
}

/// Sets all statistics to zero. Locks each shard in turn.
pub fn reset_statistics(shared: &Shared) {
    shared.telemetry.reset(&shared.stats_snapshot());
}

#[cfg(test)]
#[path = "configuration_tests.rs"]
mod tests;

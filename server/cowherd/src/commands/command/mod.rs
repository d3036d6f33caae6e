//! COMMAND: queries of the command table.
//!
//! | file | what it holds |
//! |---|---|
//! | `entry` | the reply of COMMAND INFO for one command |
//! | `key_specs` | a command's keys, grouped by how they are used |
//! | `docs` | the reply of COMMAND DOCS for one command |
//! | `syntax` | the notation for arguments, and its parser |
//! | `generate` | random requests that fit a syntax, for tests |

mod docs;
mod entry;
mod key_specs;
mod syntax;
#[cfg(test)]
mod tests;

use cowherd_resp::{Args, ReplyWriter, glob_match};
#[cfg(test)]
pub use syntax::generate::{ArgumentChooser, generate_request};

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, CommandRow, CommandTable, KeyUse};

use key_specs::keys_of;

const ALWAYS: CommandFlags = CommandFlags::LOADING.with(CommandFlags::STALE);

const GROUP: CommandGroup = CommandGroup::Server;

pub(super) const COMMANDS: &[Command] = &[Command::new("command", -1, ALWAYS, command)
    .doc(GROUP, "2.8.13", "Describes all commands.")
    .categories(&["@connection"])
    .hints(&["nondeterministic_output_order"])
    .subcommands(&[
        Command::new("count", 2, ALWAYS, count)
            .doc(GROUP, "2.8.13", "Returns the number of commands.")
            .categories(&["@connection"]),
        Command::new("docs", -2, ALWAYS, docs)
            .doc(GROUP, "7.0.0", "Returns the documentation of commands.")
            .syntax("[command-name...]")
            .categories(&["@connection"])
            .hints(&["nondeterministic_output_order"]),
        Command::new("getkeys", -3, ALWAYS, get_keys)
            .doc(GROUP, "2.8.13", "Finds the keys in a full command.")
            .syntax("command [arg...]")
            .categories(&["@connection"]),
        Command::new("getkeysandflags", -3, ALWAYS, get_keys_and_flags)
            .doc(GROUP, "7.0.0", "Finds the keys in a full command, and how they are used.")
            .syntax("command [arg...]")
            .categories(&["@connection"]),
        Command::new("help", 2, ALWAYS, help)
            .doc(GROUP, "5.0.0", "Lists the subcommands.")
            .categories(&["@connection"]),
        Command::new("info", -2, ALWAYS, info)
            .doc(GROUP, "2.8.13", "Describes commands.")
            .syntax("[command-name...]")
            .categories(&["@connection"])
            .hints(&["nondeterministic_output_order"]),
        Command::new("list", -2, ALWAYS, list)
            .doc(GROUP, "7.0.0", "Returns the names of commands.")
            .syntax("[FILTERBY filterby:(MODULE module-name|ACLCAT category|PATTERN pattern)]")
            .categories(&["@connection"])
            .hints(&["nondeterministic_output_order"]),
    ])];

/// The rows of commands, without those of subcommands.
fn top(table: &CommandTable) -> impl Iterator<Item = &CommandRow> + Clone {
    table.rows().iter().filter(|row| !row.name.contains('|'))
}

/// The row of a name in any case, such as `get` or `Config|Get`.
fn by_name<'t>(table: &'t CommandTable, name: &[u8]) -> Option<&'t CommandRow> {
    table.by_full_name(&str::from_utf8(name).ok()?.to_ascii_lowercase())
}

/// COMMAND without a subcommand.
fn command(call: &mut Call<'_>) -> CommandResult {
    if call.args.len() > 1 {
        return Err(ErrorReply::unknown_subcommand(&call.args));
    }
    all_entries(&call.shared.table, call.reply);
    Ok(())
}

fn all_entries(table: &CommandTable, reply: &mut ReplyWriter) {
    reply.array(top(table).count());
    for row in top(table) {
        entry::write(reply, table, row);
    }
}

fn help(call: &mut Call<'_>) -> CommandResult {
    call.help(&[
        "(none)",
        "    Describes all commands.",
        "COUNT",
        "    Returns the number of commands.",
        "DOCS [<command> ...]",
        "    Returns the documentation of these commands, or of all.",
        "GETKEYS <command> [<arg> ...]",
        "    Finds the keys in a full command.",
        "GETKEYSANDFLAGS <command> [<arg> ...]",
        "    Finds the keys in a full command, and how they are used.",
        "INFO [<command> ...]",
        "    Describes these commands, or all.",
        "LIST [FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]",
        "    Returns the names of commands.",
    ]);
    Ok(())
}

fn count(call: &mut Call<'_>) -> CommandResult {
    call.reply.integer(i64::try_from(top(&call.shared.table).count()).unwrap_or(i64::MAX));
    Ok(())
}

fn info(call: &mut Call<'_>) -> CommandResult {
    let table = &call.shared.table;
    let names = call.args.from(2);
    if names.is_empty() {
        all_entries(table, call.reply);
        return Ok(());
    }
    call.reply.array(names.len());
    for name in names {
        match by_name(table, name) {
            Some(row) => entry::write(call.reply, table, row),
            None => call.reply.null(),
        }
    }
    Ok(())
}

fn docs(call: &mut Call<'_>) -> CommandResult {
    let table = &call.shared.table;
    let names = call.args.from(2);
    let rows: Vec<&CommandRow> = match names.len() {
        0 => top(table).collect(),
        _ => names.iter().filter_map(|name| by_name(table, name)).collect(),
    };
    docs::write(call.reply, table, &rows);
    Ok(())
}

fn list(call: &mut Call<'_>) -> CommandResult {
    let rows = call.shared.table.rows();
    let listed: Vec<&CommandRow> = match call.args.get(4) {
        None if call.args.len() == 2 => rows.iter().collect(),
        Some(wanted) if call.args.len() == 5 && call.is(2, "filterby") => match () {
            // No command comes from a module.
            () if call.is(3, "module") => Vec::new(),
            () if call.is(3, "aclcat") => {
                let wanted = wanted.to_ascii_lowercase();
                let has = |row: &&CommandRow| {
                    entry::categories(row.command)
                        .any(|category| category.as_bytes()[1..] == wanted)
                };
                rows.iter().filter(has).collect()
            }
            () if call.is(3, "pattern") => {
                let fits = |row: &&CommandRow| glob_match(wanted, row.name.as_bytes(), true);
                rows.iter().filter(fits).collect()
            }
            () => return Err(ErrorReply::SYNTAX),
        },
        _ => return Err(ErrorReply::SYNTAX),
    };
    call.reply.array(listed.len());
    for row in listed {
        call.reply.bulk_str(&row.name);
    }
    Ok(())
}

/// The keys of the full command in `args`: their indexes, and how the command uses them.
fn keys_in(table: &CommandTable, args: &Args<'_>) -> Result<Vec<(usize, KeyUse)>, ErrorReply> {
    let row = table.resolve(args);
    // A container that has another argument lacks the subcommand.
    let row = row.filter(|row| row.subcommands.is_empty() || args.len() == 1);
    let row = row.ok_or(ErrorReply::new("ERR Invalid command specified"))?;
    // Shard channels are at key positions, but are no keys.
    if !row.command.keys.has_keys() || row.command.flags.contains(CommandFlags::PUBSUB) {
        return Err(ErrorReply::new("ERR The command has no key arguments"));
    }
    if !row.command.accepts(args.len()) {
        return Err(ErrorReply::new("ERR Invalid number of arguments specified for command"));
    }
    keys_of(row.command, args)
        .map_err(|_| ErrorReply::new("ERR Invalid arguments specified for command"))
}

fn get_keys(call: &mut Call<'_>) -> CommandResult {
    let args = call.args.from(2);
    let keys = keys_in(&call.shared.table, &args)?;
    call.reply.array(keys.len());
    for (i, _) in keys {
        call.reply.bulk(args.at(i));
    }
    Ok(())
}

fn get_keys_and_flags(call: &mut Call<'_>) -> CommandResult {
    let args = call.args.from(2);
    let keys = keys_in(&call.shared.table, &args)?;
    call.reply.array(keys.len());
    for (i, key_use) in keys {
        let flags = key_use.flags();
        call.reply.array(2);
        call.reply.bulk(args.at(i));
        call.reply.set(flags.len());
        flags.iter().for_each(|flag| call.reply.simple(flag));
    }
    Ok(())
}

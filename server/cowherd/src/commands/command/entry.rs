//! One command as COMMAND and COMMAND INFO describe it: an array of ten.
//!
//! ```text
//! name, arity, flags, first key, last key, key step, categories, hints, key specs, subcommands
//! ```

use crate::commands::table::{CommandFlags, CommandRow, CommandTable};
use cowherd_resp::ReplyWriter;

use super::key_specs::{self, KeySpec};

/// Appends the description of a command.
pub(super) fn write(reply: &mut ReplyWriter, table: &CommandTable, row: &CommandRow) {
    let command = row.command;
    reply.array(10);
    reply.bulk_str(&row.name);
    reply.integer(command.arity as i64);
    let moves = command.keys.moves().then_some("movablekeys");
    words(reply, command.flags.names().chain(moves));
    reply.integer(i64::try_from(command.keys.first).unwrap_or(i64::MAX));
    reply.integer(command.keys.last as i64);
    reply.integer(i64::try_from(command.keys.step).unwrap_or(i64::MAX));
    words(reply, categories(row));
    let hints = key_specs::hints(row);
    reply.set(hints.len());
    hints.iter().for_each(|hint| reply.bulk_str(hint));
    let specs = key_specs::key_specs(row);
    reply.set(specs.len());
    specs.iter().for_each(|spec| write_spec(reply, spec));
    reply.set(row.subcommands.len());
    for sub in &row.subcommands {
        write(reply, table, &table.rows()[*sub]);
    }
}

fn words<'w>(reply: &mut ReplyWriter, words: impl Iterator<Item = &'w str>) {
    let words: Vec<&str> = words.collect();
    reply.set(words.len());
    words.iter().for_each(|word| reply.simple(word));
}

/// Where keys begin that a word stands before.
fn write_keyword(reply: &mut ReplyWriter, from: i64) {
    reply.map(2);
    reply.bulk_str("type");
    reply.bulk_str("keyword");
    reply.bulk_str("spec");
    reply.map(2);
    reply.bulk_str("keyword");
    reply.bulk_str("STREAMS");
    reply.bulk_str("startfrom");
    reply.integer(from);
}

fn write_spec(reply: &mut ReplyWriter, spec: &KeySpec) {
    reply.map(3);
    reply.bulk_str("flags");
    words(reply, spec.flags.iter().copied());
    reply.bulk_str("begin_search");
    let begin = i64::try_from(spec.begin).unwrap_or(i64::MAX);
    if spec.is_behind_word {
        write_keyword(reply, begin);
    } else {
        kind(reply, "index", &[("index", begin)]);
    }
    reply.bulk_str("find_keys");
    let step = i64::try_from(spec.step).unwrap_or(i64::MAX);
    if spec.is_counted {
        kind(reply, "keynum", &[("keynumidx", 0), ("firstkey", 1), ("keystep", step)]);
        return;
    }
    let limit = if spec.is_behind_word { 2 } else { 0 };
    kind(reply, "range", &[("lastkey", spec.last as i64), ("keystep", step), ("limit", limit)]);
}

fn kind(reply: &mut ReplyWriter, kind: &str, numbers: &[(&str, i64)]) {
    reply.map(2);
    reply.bulk_str("type");
    reply.bulk_str(kind);
    reply.bulk_str("spec");
    reply.map(numbers.len());
    for (name, number) in numbers {
        reply.bulk_str(name);
        reply.integer(*number);
    }
}

/// The categories of a command, as access control lists name them, in Redis's order.
pub(super) fn categories(row: &CommandRow) -> impl Iterator<Item = &'static str> {
    let command = row.command;
    let is_container = !command.subcommands.is_empty() && command.name != "command";
    let (flags, own) = match is_container {
        true => (CommandFlags::NONE, &[][..]),
        false => (command.flags, key_specs::categories(row)),
    };
    let admin = flags.has(CommandFlags::ADMIN);
    let fast = flags.has(CommandFlags::FAST);
    let has = move |category: &str| own.contains(&category);
    [
        ("@keyspace", has("@keyspace")),
        ("@read", flags.has(CommandFlags::READONLY)),
        ("@write", flags.has(CommandFlags::WRITE)),
        ("@set", has("@set")),
        ("@sortedset", has("@sortedset")),
        ("@list", has("@list")),
        ("@string", has("@string")),
        ("@bitmap", has("@bitmap")),
        ("@stream", has("@stream")),
        ("@pubsub", has("@pubsub")),
        ("@admin", admin || has("@admin")),
        ("@fast", fast),
        ("@slow", !fast),
        ("@blocking", flags.has(CommandFlags::BLOCKING)),
        ("@dangerous", admin || has("@dangerous")),
        ("@connection", has("@connection")),
        ("@scripting", has("@scripting")),
    ]
    .into_iter()
    .filter_map(|(name, has)| has.then_some(name))
}

//! The reply of COMMAND and COMMAND INFO for one command: an array of ten elements.
//!
//! ```text
//! name, arity, flags, first key, last key, key step, categories, hints, key specs, subcommands
//! ```

use crate::commands::table::{Command, CommandFlags, CommandRow, CommandTable};
use cowherd_resp::ReplyWriter;

use super::key_specs::{KeyRange, KeySpec, key_specs};

/// Appends the description of a command.
pub(super) fn write(reply: &mut ReplyWriter, table: &CommandTable, row: &CommandRow) {
    let command = row.command;
    reply.array(10);
    reply.bulk_str(&row.name);
    reply.integer(command.arity as i64);
    let moves = command.has_movable_keys().then_some("movablekeys");
    words(reply, command.flags.names().chain(moves));
    reply.integer(i64::try_from(command.keys.first).unwrap_or(i64::MAX));
    reply.integer(command.keys.last as i64);
    reply.integer(i64::try_from(command.keys.step).unwrap_or(i64::MAX));
    words(reply, categories(command));
    reply.set(command.hints.len());
    command.hints.iter().for_each(|hint| reply.bulk_str(hint));
    let specs = key_specs(command);
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

fn write_spec(reply: &mut ReplyWriter, spec: &KeySpec) {
    let number = |index: usize| i64::try_from(index).unwrap_or(i64::MAX);
    reply.map(3);
    reply.bulk_str("flags");
    words(reply, spec.key_use.flags().iter().copied());
    reply.bulk_str("begin_search");
    match spec.range {
        KeyRange::Index { begin, .. } | KeyRange::Counted { begin } => {
            typed(reply, "index", &[("index", number(begin))]);
        }
        KeyRange::Streams { begin } => write_keyword(reply, "STREAMS", begin),
        KeyRange::Option { word, begin } => write_keyword(reply, word, begin),
        KeyRange::Unknown { .. } => typed(reply, "unknown", &[]),
    }
    reply.bulk_str("find_keys");
    match spec.range {
        KeyRange::Index { last, step, .. } => {
            let range = [("lastkey", last as i64), ("keystep", number(step)), ("limit", 0)];
            typed(reply, "range", &range);
        }
        KeyRange::Option { .. } => {
            typed(reply, "range", &[("lastkey", 0), ("keystep", 1), ("limit", 0)]);
        }
        KeyRange::Counted { .. } => {
            typed(reply, "keynum", &[("keynumidx", 0), ("firstkey", 1), ("keystep", 1)]);
        }
        // A limit of 2: the keys are the first half of the remaining arguments.
        KeyRange::Streams { .. } => {
            typed(reply, "range", &[("lastkey", -1), ("keystep", 1), ("limit", 2)]);
        }
        KeyRange::Unknown { .. } => typed(reply, "unknown", &[]),
    }
}

/// Appends a search for a word from argument `from` on.
fn write_keyword(reply: &mut ReplyWriter, word: &str, from: u16) {
    reply.map(2);
    reply.bulk_str("type");
    reply.bulk_str("keyword");
    reply.bulk_str("spec");
    reply.map(2);
    reply.bulk_str("keyword");
    reply.bulk_str(word);
    reply.bulk_str("startfrom");
    reply.integer(from.into());
}

fn typed(reply: &mut ReplyWriter, kind: &str, numbers: &[(&str, i64)]) {
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

/// The ACL categories of a command, in Redis's order.
pub(super) fn categories(command: &Command) -> impl Iterator<Item = &'static str> {
    let (flags, own) = (command.flags, command.acl_categories());
    let admin = flags.contains(CommandFlags::ADMIN);
    let fast = flags.contains(CommandFlags::FAST);
    let has = move |category: &str| own.contains(&category);
    // What a script does depends on the script.
    let reads = flags.contains(CommandFlags::READONLY) && !has("@scripting");
    [
        ("@keyspace", has("@keyspace")),
        ("@read", reads),
        ("@write", flags.contains(CommandFlags::WRITE)),
        ("@set", has("@set")),
        ("@sortedset", has("@sortedset")),
        ("@list", has("@list")),
        ("@hash", has("@hash")),
        ("@string", has("@string")),
        ("@bitmap", has("@bitmap")),
        ("@hyperloglog", has("@hyperloglog")),
        ("@geo", has("@geo")),
        ("@stream", has("@stream")),
        ("@pubsub", flags.contains(CommandFlags::PUBSUB)),
        ("@admin", admin || has("@admin")),
        ("@fast", fast),
        ("@slow", !fast),
        ("@blocking", flags.contains(CommandFlags::BLOCKING)),
        ("@dangerous", admin || has("@dangerous")),
        ("@connection", has("@connection")),
        ("@transaction", has("@transaction")),
        ("@scripting", has("@scripting")),
    ]
    .into_iter()
    .filter_map(|(name, has)| has.then_some(name))
}

//! The reply of COMMAND DOCS for one command: a map of texts, arguments and subcommands.

use crate::commands::table::{CommandRow, CommandTable};
use cowherd_resp::ReplyWriter;

use super::syntax::{self, Argument};

/// Appends a map from names to descriptions.
pub(super) fn write(reply: &mut ReplyWriter, table: &CommandTable, rows: &[&CommandRow]) {
    reply.map(rows.len());
    for row in rows {
        reply.bulk_str(&row.name);
        write_one(reply, table, row);
    }
}

fn write_one(reply: &mut ReplyWriter, table: &CommandTable, row: &CommandRow) {
    let command = row.command;
    let arguments = syntax::arguments(command);
    let more = usize::from(!arguments.is_empty()) + usize::from(!row.subcommands.is_empty());
    reply.map(3 + more);
    let texts =
        [("summary", command.summary), ("since", command.since), ("group", command.group.name())];
    for (name, text) in texts {
        reply.bulk_str(name);
        reply.bulk_str(text);
    }
    if !arguments.is_empty() {
        reply.bulk_str("arguments");
        write_arguments(reply, &arguments);
    }
    if !row.subcommands.is_empty() {
        reply.bulk_str("subcommands");
        let rows: Vec<&CommandRow> =
            row.subcommands.iter().map(|sub| &table.rows()[*sub]).collect();
        write(reply, table, &rows);
    }
}

fn write_arguments(reply: &mut ReplyWriter, arguments: &[Argument]) {
    reply.array(arguments.len());
    for argument in arguments {
        write_argument(reply, argument);
    }
}

fn write_argument(reply: &mut ReplyWriter, argument: &Argument) {
    let flags = argument.flags();
    let optional = [
        argument.key_spec.is_some(),
        argument.token.is_some(),
        !flags.is_empty(),
        !argument.parts.is_empty(),
    ];
    reply.map(2 + optional.into_iter().filter(|there| *there).count());
    reply.bulk_str("name");
    reply.bulk_str(&argument.name);
    reply.bulk_str("type");
    reply.bulk_str(argument.kind());
    if let Some(index) = argument.key_spec {
        reply.bulk_str("key_spec_index");
        reply.integer(index);
    }
    if let Some(token) = &argument.token {
        reply.bulk_str("token");
        reply.bulk_str(token);
    }
    if !flags.is_empty() {
        reply.bulk_str("flags");
        reply.set(flags.len());
        flags.iter().for_each(|flag| reply.simple(flag));
    }
    if !argument.parts.is_empty() {
        reply.bulk_str("arguments");
        write_arguments(reply, &argument.parts);
    }
}

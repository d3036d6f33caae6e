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
    let doc_flags: Vec<&str> = [
        command.deprecated.is_some().then_some("deprecated"),
        command.is_system.then_some("syscmd"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let optional = [!doc_flags.is_empty(), !arguments.is_empty(), !row.subcommands.is_empty()];
    let optional = optional.into_iter().filter(|there| *there).count();
    reply.map(3 + optional + 2 * usize::from(command.deprecated.is_some()));
    let texts =
        [("summary", command.summary), ("since", command.since), ("group", command.group.name())];
    for (name, text) in texts {
        reply.bulk_str(name);
        reply.bulk_str(text);
    }
    if !doc_flags.is_empty() {
        reply.bulk_str("doc_flags");
        write_flags(reply, &doc_flags);
    }
    if let Some((since, replaced_by)) = command.deprecated {
        for (name, text) in [("deprecated_since", since), ("replaced_by", replaced_by)] {
            reply.bulk_str(name);
            reply.bulk_str(text);
        }
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
    let texts = [
        ("name", Some(argument.name.as_str())),
        ("type", Some(argument.kind())),
        ("display_text", argument.display_text()),
        ("token", argument.token.as_deref()),
        ("since", argument.since.as_deref()),
        ("deprecated_since", argument.deprecated_since.as_deref()),
    ];
    let optional = [argument.key_spec.is_some(), !flags.is_empty(), !argument.parts.is_empty()];
    let optional = optional.into_iter().filter(|there| *there).count();
    reply.map(texts.iter().filter(|(_, text)| text.is_some()).count() + optional);
    for (name, text) in texts {
        if let Some(text) = text {
            reply.bulk_str(name);
            reply.bulk_str(text);
        }
    }
    if let Some(index) = argument.key_spec {
        reply.bulk_str("key_spec_index");
        reply.integer(index);
    }
    if !flags.is_empty() {
        reply.bulk_str("flags");
        write_flags(reply, &flags);
    }
    if !argument.parts.is_empty() {
        reply.bulk_str("arguments");
        write_arguments(reply, &argument.parts);
    }
}

fn write_flags(reply: &mut ReplyWriter, flags: &[&str]) {
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.simple(flag));
}

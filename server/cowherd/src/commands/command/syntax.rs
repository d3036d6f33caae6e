//! The notation for the arguments of a command, as manuals use it, and the parser that turns a line
//! of it into the arguments of COMMAND DOCS.
//!
//! ```text
//! key                an argument; its type follows from the name, unless `name:type` gives it
//! NX ~               a token: a literal word or sign
//! EX seconds         a token and the arguments that belong to it
//! [..] (..)          an optional group, a required group
//! a|b                alternatives, within a group
//! item...            one or more
//! ```

use crate::commands::table::Command;

use super::key_specs::key_specs;

#[cfg(test)]
#[path = "generate.rs"]
pub mod generate;

/// One argument, or a group of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Argument {
    /// The name; for a group, the names of its parts.
    pub name: String,
    /// The literal word before the argument, or instead of one.
    pub token: Option<String>,
    /// The index of the command's key spec that the argument belongs to.
    pub key_spec: Option<i64>,
    /// The members of a group.
    pub parts: Vec<Argument>,
    optional: bool,
    multiple: bool,
    /// Whether exactly one of the parts is given.
    choice: bool,
    /// The type; `None` for a group.
    plain: Option<&'static str>,
}

impl Argument {
    /// The type for COMMAND DOCS.
    pub(super) fn kind(&self) -> &'static str {
        match (self.plain, self.choice) {
            (Some(plain), _) => plain,
            (None, true) => "oneof",
            (None, false) => "block",
        }
    }

    /// The flags for COMMAND DOCS.
    pub(super) fn flags(&self) -> Vec<&'static str> {
        let flags = [(self.optional, "optional"), (self.multiple, "multiple")];
        flags.into_iter().filter_map(|(set, name)| set.then_some(name)).collect()
    }

    fn group(parts: Vec<Self>, choice: bool) -> Self {
        let name = parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join("_");
        Self { name, parts, choice, ..Self::default() }
    }

    /// The argument `name` or `name:type`.
    fn named(word: &str) -> Self {
        let (name, kind) = match word.split_once(':') {
            Some((name, kind)) => (name, KINDS.iter().find(|known| **known == kind)),
            None => (word, None),
        };
        let plain = kind.copied().unwrap_or_else(|| kind_of(name));
        Self { name: name.to_owned(), plain: Some(plain), ..Self::default() }
    }

    /// A token, and the arguments that follow it.
    fn with_token(token: &str, mut rest: Vec<Self>) -> Self {
        let mut argument = match rest.len() {
            0 => Self { name: token.to_lowercase(), plain: Some("pure-token"), ..Self::default() },
            1 if !rest[0].optional && rest[0].token.is_none() => rest.remove(0),
            _ => Self::group(rest, false),
        };
        argument.token = Some(token.to_owned());
        argument
    }
}

const KINDS: &[&str] = &["string", "integer", "double", "key", "pattern", "unix-time"];

fn kind_of(name: &str) -> &'static str {
    match name {
        "key" | "newkey" | "source" | "destination" | "destkey" | "key1" | "key2" => "key",
        "pattern" => "pattern",
        "unix-time-seconds" | "unix-time-milliseconds" => "unix-time",
        "seconds" | "milliseconds" | "offset" | "count" | "increment" | "decrement" | "start"
        | "end" | "bit" | "cursor" | "index" | "index1" | "index2" | "client-id" | "protover"
        | "min-match-len" | "version" => "integer",
        _ => "string",
    }
}

/// The arguments of a command.
pub(super) fn arguments(command: &Command) -> Vec<Argument> {
    let mut arguments = parse(command.syntax);
    let specs = i64::try_from(key_specs(command).len()).unwrap_or(i64::MAX);
    number_keys(&mut arguments, &mut 0, specs);
    arguments
}

/// Assigns key specs to keys: the first to the first, and so on, the last to all others.
fn number_keys(arguments: &mut [Argument], next: &mut i64, specs: i64) {
    for argument in arguments {
        if argument.plain == Some("key") && specs > 0 {
            argument.key_spec = Some((*next).min(specs - 1));
            *next += 1;
        }
        number_keys(&mut argument.parts, next, specs);
    }
}

/// Parses a line.
pub(super) fn parse(line: &str) -> Vec<Argument> {
    let mut spaced = line.replace("...", " ... ");
    for mark in ["[", "]", "(", ")", "|"] {
        spaced = spaced.replace(mark, &format!(" {mark} "));
    }
    let words: Vec<&str> = spaced.split_whitespace().collect();
    sequence(&mut words.as_slice())
}

/// Parses items up to the end of their group.
fn sequence(words: &mut &[&str]) -> Vec<Argument> {
    let mut items: Vec<Argument> = Vec::new();
    while let [word, rest @ ..] = *words {
        let item = match *word {
            "]" | ")" | "|" => break,
            "..." => {
                *words = rest;
                if let Some(last) = items.last_mut() {
                    last.multiple = true;
                }
                continue;
            }
            open @ ("[" | "(") => {
                *words = rest;
                let mut group = alternatives(words);
                group.optional |= open == "[";
                group
            }
            word if word.starts_with(|c: char| c.is_ascii_uppercase() || "=~*$".contains(c)) => {
                *words = rest;
                Argument::with_token(word, sequence(words))
            }
            word => {
                *words = rest;
                Argument::named(word)
            }
        };
        items.push(item);
    }
    items
}

/// Parses a group and the bracket that closes it.
fn alternatives(words: &mut &[&str]) -> Argument {
    let mut choices = Vec::new();
    loop {
        let mut items = sequence(words);
        choices.push(match items.len() {
            1 => items.remove(0),
            _ => Argument::group(items, false),
        });
        let mark = words.split_off_first().copied();
        if mark != Some("|") {
            break;
        }
    }
    match choices.len() {
        1 => choices.remove(0),
        _ => Argument::group(choices, true),
    }
}

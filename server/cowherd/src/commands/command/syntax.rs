//! The notation for the arguments of a command, as manuals use it, and the parser that turns a line
//! of it into the arguments of COMMAND DOCS.
//!
//! ```text
//! key                an argument; its type follows from the name, unless `name:type` gives it
//! name=text          an argument that is shown as `text`
//! key#1              an argument of key spec 1; keys are numbered by themselves
//! NX ~               a token: a literal word or sign; `name:NX` gives the name
//! EX seconds         a token and the arguments that belong to it, up to the end of the group
//! [..] (..)          an optional group, a required group; `name:[..]` gives the name
//! a|b                alternatives, within a group
//! item...            one or more; a token within the item is repeated too
//! item@6.2.0         since that version of Redis; directly behind a token that has arguments
//! item@-6.2.0        deprecated since that version
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
    /// The version of Redis that added the argument to the command.
    pub since: Option<String>,
    /// The version of Redis that discourages the argument.
    pub deprecated_since: Option<String>,
    /// The members of a group.
    pub parts: Vec<Argument>,
    optional: bool,
    multiple: bool,
    /// Whether exactly one of the parts is given.
    choice: bool,
    /// Whether the token is repeated with the argument.
    repeats_token: bool,
    /// The type; `None` for a group.
    plain: Option<&'static str>,
    /// The text that is shown in place of the name.
    shown: Option<String>,
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
        let flags = [
            (self.optional, "optional"),
            (self.multiple, "multiple"),
            (self.multiple && self.repeats_token, "multiple_token"),
        ];
        flags.into_iter().filter_map(|(set, name)| set.then_some(name)).collect()
    }

    /// What a client shows for the argument; `None` for a group.
    pub(super) fn display_text(&self) -> Option<&str> {
        self.plain.and(self.shown.as_deref().or(Some(&self.name)))
    }

    fn group(parts: Vec<Self>, choice: bool) -> Self {
        let name = parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join("_");
        Self { name, parts, choice, ..Self::default() }
    }

    /// The argument `name:type=text#spec`, of which all but the name may be missing.
    fn named(word: &str) -> Self {
        let (word, spec) = word.split_once('#').map_or((word, None), |(w, s)| (w, Some(s)));
        let (word, shown) = word.split_once('=').map_or((word, None), |(w, s)| (w, Some(s)));
        let (name, kind) = word.split_once(':').unwrap_or((word, ""));
        let kind = KINDS.iter().find(|known| **known == kind);
        let plain = kind.copied().unwrap_or_else(|| kind_of(name));
        Self {
            name: name.to_owned(),
            plain: Some(plain),
            key_spec: spec.and_then(|spec| spec.parse().ok()),
            shown: shown.map(str::to_owned),
            ..Self::default()
        }
    }

    /// The token `TOKEN` or `name:TOKEN`, and the arguments that follow it.
    fn with_token(word: &str, mut rest: Vec<Self>) -> Self {
        let (name, token) = word.split_once(':').unwrap_or(("", word));
        let mut argument = match rest.len() {
            0 => Self { plain: Some("pure-token"), ..Self::default() },
            1 if !rest[0].optional && rest[0].token.is_none() => rest.remove(0),
            _ => Self { name: String::new(), ..Self::group(rest, false) },
        };
        if argument.name.is_empty() {
            argument.name = if name.is_empty() { token.to_lowercase() } else { name.to_owned() };
        }
        argument.token = Some(token.to_owned());
        argument
    }

    /// Notes the version behind `@`.
    fn set_version(&mut self, version: &str) {
        match version.strip_prefix('-') {
            Some(version) => self.deprecated_since = Some(version.to_owned()),
            None => self.since = Some(version.to_owned()),
        }
    }
}

/// Whether a word is a token, with or without a name.
fn is_token(word: &str) -> bool {
    let token = word.split_once(':').map_or(word, |(_, token)| token);
    token.starts_with(|c: char| c.is_ascii_uppercase() || "=~*$".contains(c))
}

const KINDS: &[&str] = &["string", "integer", "double", "key", "pattern", "unix-time"];

fn kind_of(name: &str) -> &'static str {
    match name {
        "key" | "newkey" | "source" | "destination" | "destkey" | "key1" | "key2" => "key",
        "pattern" | "by-pattern" | "get-pattern" => "pattern",
        "unix-time-seconds" | "unix-time-milliseconds" => "unix-time",
        "timeout" | "min" | "max" => "double",
        "seconds" | "milliseconds" | "ms" | "offset" | "count" | "increment" | "decrement"
        | "start" | "end" | "stop" | "limit" | "bit" | "cursor" | "index" | "index1" | "index2"
        | "client-id" | "protover" | "min-match-len" | "version" | "numkeys" | "numfields"
        | "entries-read" | "entriesread" | "entries-added" | "rank" | "len" | "weight" => "integer",
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
            argument.key_spec.get_or_insert((*next).min(specs - 1));
            *next += 1;
        }
        number_keys(&mut argument.parts, next, specs);
    }
}

/// Parses a line.
pub(super) fn parse(line: &str) -> Vec<Argument> {
    let mut spaced = line.replace("...", " ... ").replace('@', " @");
    for mark in ["[", "]", "(", ")", "|"] {
        spaced = spaced.replace(mark, &format!(" {mark} "));
    }
    let words: Vec<&str> = spaced.split_whitespace().collect();
    sequence(&mut words.as_slice())
}

/// Parses items up to the end of their group.
fn sequence(words: &mut &[&str]) -> Vec<Argument> {
    let mut items: Vec<Argument> = Vec::new();
    let mut name = None;
    while let Some(word) = words.first().filter(|word| !matches!(**word, "]" | ")" | "|")) {
        *words = &words[1..];
        let item = match *word {
            "..." => {
                if let Some(last) = items.last_mut() {
                    last.multiple = true;
                    last.repeats_token = last.token.is_some();
                }
                continue;
            }
            open @ ("[" | "(") => {
                let mut group = alternatives(words);
                group.optional |= open == "[";
                if let Some(name) = name.take() {
                    group.name = name;
                }
                group
            }
            word if word.starts_with('@') => {
                if let Some(last) = items.last_mut() {
                    last.set_version(&word[1..]);
                }
                continue;
            }
            word if word.ends_with(':') => {
                name = Some(word[..word.len() - 1].to_owned());
                continue;
            }
            word if is_token(word) => {
                let version = words.first().filter(|next| next.starts_with('@')).copied();
                if version.is_some() {
                    *words = &words[1..];
                }
                let mut argument = Argument::with_token(word, sequence(words));
                if let Some(version) = version {
                    argument.set_version(&version[1..]);
                }
                argument
            }
            word => Argument::named(word),
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

//! Key specs: runs of keys that a command uses in the same way, as COMMAND INFO, COMMAND GETKEYS
//! and COMMAND GETKEYSANDFLAGS describe them.

use crate::commands::table::{
    Command, CommandFlags, KeyCountError, KeyPositions, KeyUse, KeyWords, after_streams,
};
use cowherd_resp::Args;

/// How the first key of a spec is found, and the number of keys.
#[derive(Clone, Copy, Debug)]
pub(super) enum KeyRange {
    /// The first key is at index `begin`. `last` is the last one, counted from the first;
    /// negative values count from the end.
    Index { begin: usize, last: isize, step: usize },
    /// The argument at index `begin` holds the number of keys that follow it.
    Counted { begin: usize },
    /// The keys follow the word STREAMS, which is at index `begin` at the earliest.
    Streams { begin: u16 },
    /// The key follows the word, which is at index `begin` at the earliest.
    Option { word: &'static str, begin: u16 },
    /// Only `find` knows the key's index.
    Unknown { find: fn(&Args<'_>) -> Option<usize> },
}

/// A run of keys with the same use.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeySpec {
    /// The use.
    pub key_use: KeyUse,
    /// The keys.
    pub range: KeyRange,
}

impl KeySpec {
    /// The positions of these keys among `args`. Unlike [`KeyPositions::positions`], which the
    /// locks depend on, this follows the spec alone, as clients do: the first of equal words
    /// counts.
    fn positions(&self, args: &Args<'_>) -> Box<dyn Iterator<Item = usize>> {
        let keys = match self.range {
            KeyRange::Streams { begin } => {
                let at = find_word(args, "STREAMS", begin);
                return Box::new(at.map_or(0..0, |at| after_streams(args, at)));
            }
            KeyRange::Option { word, begin } => {
                let key = find_word(args, word, begin).map(|at| at + 1);
                return Box::new(key.filter(|key| *key < args.len()).into_iter());
            }
            KeyRange::Unknown { find } => return Box::new(find(args).into_iter()),
            KeyRange::Counted { begin } => KeyPositions { count: begin, ..KeyPositions::NONE },
            KeyRange::Index { begin, last, step } => {
                let last = if last >= 0 { begin.cast_signed() + last } else { last };
                KeyPositions::spread(begin, last, step)
            }
        };
        Box::new(keys.positions(args))
    }
}

/// The index of the first argument from `begin` on that is `word`, in any case.
fn find_word(args: &Args<'_>, word: &str, begin: u16) -> Option<usize> {
    let is_word = |i: &usize| args.at(*i).eq_ignore_ascii_case(word.as_bytes());
    (begin.into()..args.len()).find(is_word)
}

/// The key specs of a command.
pub(super) fn key_specs(command: &Command) -> Vec<KeySpec> {
    let mut specs = fixed_specs(command);
    let unknown = command.option_keys.iter();
    specs.extend(unknown.map(|option| KeySpec {
        key_use: option.key_use,
        range: KeyRange::Unknown { find: option.find },
    }));
    specs
}

/// The specs of the keys at known places.
fn fixed_specs(command: &Command) -> Vec<KeySpec> {
    let keys = command.keys;
    let (first, second) = (command.key_use, command.other_key_use);
    let spec = |key_use, range| KeySpec { key_use, range };
    if !keys.has_keys() {
        return Vec::new();
    }
    if let KeyWords::Streams(begin) = keys.words {
        return vec![spec(first, KeyRange::Streams { begin })];
    }
    let from_first = |last: isize| if last < 0 { last } else { last - keys.first.cast_signed() };
    let index = |begin, last, step| KeyRange::Index { begin, last, step };
    if keys.count != 0 {
        let counted = spec(second.unwrap_or(first), KeyRange::Counted { begin: keys.count });
        let before = index(keys.first, from_first(keys.last), keys.step);
        return if keys.first == 0 { vec![counted] } else { vec![spec(first, before), counted] };
    }
    if let (KeyWords::Store(begin), Some(second)) = (keys.words, second) {
        let option = |word| spec(second, KeyRange::Option { word, begin });
        return vec![spec(first, index(keys.first, 0, 1)), option("STORE"), option("STOREDIST")];
    }
    let Some(second) = second else {
        return vec![spec(first, index(keys.first, from_first(keys.last), keys.step))];
    };
    let last = from_first(keys.last);
    let rest = if last < 0 { last } else { last - 1 };
    vec![
        spec(first, index(keys.first, 0, 1)),
        spec(second, index(keys.first + keys.step, rest, keys.step)),
    ]
}

/// The keys of a request: their indexes, and how the command uses them.
///
/// # Errors
/// The number of keys is wrong, or there are none although the command or one of its specs needs
/// some.
pub(super) fn keys_of(
    command: &Command,
    args: &Args<'_>,
) -> Result<Vec<(usize, KeyUse)>, KeyCountError> {
    let needs_keys = !command.flags.contains(CommandFlags::RUNS_SCRIPT);
    if needs_keys {
        command.keys.check_count(args)?;
    }
    let mut keys = Vec::new();
    for (i, spec) in key_specs(command).into_iter().enumerate() {
        if matches!(spec.range, KeyRange::Index { begin, .. } if begin >= args.len()) {
            return Err(KeyCountError);
        }
        let key_use = match command.key_use_of {
            Some(key_use_of) if i == 0 => key_use_of(args),
            _ => spec.key_use,
        };
        keys.extend(spec.positions(args).map(|at| (at, key_use)));
    }
    if keys.is_empty() && needs_keys { Err(KeyCountError) } else { Ok(keys) }
}

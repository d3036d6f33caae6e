//! Key specs: runs of keys that a command uses in the same way, as COMMAND INFO and COMMAND
//! GETKEYSANDFLAGS describe them.

use crate::commands::table::{Command, KeyPositions, KeyUse};
use cowherd_resp::Args;

/// How the first key of a spec is found, and the number of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeyRange {
    /// The first key is at index `begin`. `last` is the last one, counted from the first;
    /// negative values count from the end.
    Index { begin: usize, last: isize, step: usize },
    /// The argument at index `begin` holds the number of keys that follow it.
    Counted { begin: usize },
    /// The keys follow the word STREAMS, which is at index `begin` at the earliest.
    Streams { begin: usize },
}

/// A run of keys with the same use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct KeySpec {
    /// The use.
    pub key_use: KeyUse,
    /// The keys.
    pub range: KeyRange,
}

impl KeySpec {
    /// The positions of these keys among `args`.
    pub(super) fn positions(&self, args: &Args<'_>) -> impl Iterator<Item = usize> + use<> {
        let keys = match self.range {
            KeyRange::Streams { begin } => KeyPositions::streams(begin),
            KeyRange::Counted { begin } => KeyPositions { count: begin, ..KeyPositions::NONE },
            KeyRange::Index { begin, last, step } => {
                let last = if last >= 0 { begin.cast_signed() + last } else { last };
                KeyPositions::spread(begin, last, step)
            }
        };
        keys.positions(args)
    }
}

/// The key specs of a command.
pub(super) fn key_specs(command: &Command) -> Vec<KeySpec> {
    let keys = command.keys;
    let (first, second) = (command.key_use, command.other_key_use);
    let spec = |key_use, range| KeySpec { key_use, range };
    if !keys.has_keys() {
        return Vec::new();
    }
    if keys.streams != 0 {
        return vec![spec(first, KeyRange::Streams { begin: keys.streams })];
    }
    let from_first = |last: isize| if last < 0 { last } else { last - keys.first.cast_signed() };
    let index = |begin, last, step| KeyRange::Index { begin, last, step };
    if keys.count != 0 {
        let counted = spec(second.unwrap_or(first), KeyRange::Counted { begin: keys.count });
        let before = index(keys.first, from_first(keys.last), keys.step);
        return if keys.first == 0 { vec![counted] } else { vec![spec(first, before), counted] };
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

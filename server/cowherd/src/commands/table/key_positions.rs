//! Which arguments of a command are keys, and how the command uses them.

use std::ops::Range;

use cowherd_resp::{Args, parse_u64};

/// The positions of a command's keys among its arguments; the command's name is argument 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyPositions {
    /// The first key; 0 if there is none, or none before the counted ones.
    pub first: usize,
    /// The last key; negative values count from the end, -1 being the last argument.
    pub last: isize,
    /// The distance from one key to the next.
    pub step: usize,
    /// The argument that holds the number of keys that follow it (`numkeys`); 0 if there is none.
    pub count: usize,
    /// The words behind which other keys stand.
    pub words: KeyWords,
}

/// Words behind which keys stand, and the least index of such a word in a valid request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyWords {
    /// There are none.
    None,
    /// STREAMS. The first half of the arguments after it are keys.
    Streams(u16),
    /// STORE or STOREDIST. The argument after the last of them is a key.
    Store(u16),
}

impl KeyPositions {
    /// No keys.
    pub const NONE: Self = Self::spread(0, 0, 0);
    /// Argument 1.
    pub const ONE: Self = Self::spread(1, 1, 1);
    /// Arguments 1 and 2.
    pub const TWO: Self = Self::spread(1, 2, 1);
    /// All arguments.
    pub const ALL: Self = Self::spread(1, -1, 1);
    /// All arguments but the last.
    pub const ALL_BUT_LAST: Self = Self::spread(1, -2, 1);
    /// Every other argument from 1 on.
    pub const PAIRS: Self = Self::spread(1, -1, 2);
    /// Argument 2, after a subcommand.
    pub const SECOND: Self = Self::spread(2, 2, 1);
    /// The arguments after argument 1, which holds their number.
    pub const COUNTED: Self = Self { count: 1, ..Self::NONE };
    /// The arguments after argument 2, which holds their number.
    pub const COUNTED_SECOND: Self = Self { count: 2, ..Self::NONE };
    /// Argument 1, and the arguments after argument 2, which holds their number.
    pub const ONE_AND_COUNTED: Self = Self { count: 2, ..Self::ONE };

    /// From `first` to `last` in steps.
    pub const fn spread(first: usize, last: isize, step: usize) -> Self {
        Self { first, last, step, count: 0, words: KeyWords::None }
    }

    /// The keys after the word STREAMS, which is argument `least` at the earliest. Before it stand
    /// the options of XREAD and XREADGROUP.
    pub const fn streams(least: u16) -> Self {
        Self { words: KeyWords::Streams(least), ..Self::NONE }
    }

    /// Argument 1, and the one after STORE or STOREDIST, which is argument `least` at the earliest.
    pub const fn one_and_stored(least: u16) -> Self {
        Self { words: KeyWords::Store(least), ..Self::ONE }
    }

    /// Whether the command can have keys.
    #[inline]
    pub const fn has_keys(self) -> bool {
        self.first != 0 || self.is_movable()
    }

    /// Whether the positions depend on the values of arguments.
    #[inline]
    pub const fn is_movable(self) -> bool {
        self.count != 0 || !matches!(self.words, KeyWords::None)
    }

    /// The positions of the keys among `args`. There are no counted keys if their number is no
    /// number, or larger than the number of arguments; see [`Self::check_count`].
    #[inline]
    pub fn positions(self, args: &Args<'_>) -> impl Iterator<Item = usize> + Clone + use<> {
        let len = args.len();
        let last = match self.last {
            last if last >= 0 => last.unsigned_abs().min(len.saturating_sub(1)),
            back => len.saturating_sub(back.unsigned_abs()),
        };
        let end = if self.first == 0 { 0 } else { last + 1 };
        let others = match (self.count, self.words) {
            (0, KeyWords::None) => 0..0,
            (0, KeyWords::Streams(_)) => streams(args),
            (0, KeyWords::Store(least)) => stored(args, least.into()),
            (count, _) => count + 1..count + 1 + counted(args, count).unwrap_or(0),
        };
        (self.first..end).step_by(self.step.max(1)).chain(others)
    }

    /// Checks the argument that holds the number of keys, if the command has one.
    ///
    /// # Errors
    /// The argument is no positive number, or larger than the number of arguments that follow.
    pub fn check_count(self, args: &Args<'_>) -> Result<(), KeyCountError> {
        match self.count {
            0 => Ok(()),
            at => counted(args, at).filter(|count| *count > 0).map(drop).ok_or(KeyCountError),
        }
    }
}

/// The number of keys in an argument is none, or larger than the number of arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyCountError;

/// The first half of the arguments after the word STREAMS, where that is no value of an option. The
/// shard locks depend on this range, so the parser must agree exactly with the option parsers of
/// the handlers.
fn streams(args: &Args<'_>) -> Range<usize> {
    let mut i = 1;
    while let Some(word) = args.get(i) {
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        match () {
            () if is(b"streams") => return after_streams(args, i),
            () if is(b"block") || is(b"count") => i += 2,
            () if is(b"group") => i += 3,
            () if is(b"noack") => i += 1,
            () => break,
        }
    }
    0..0
}

/// The keys after the word STREAMS in argument `at`: the first half of the arguments that follow.
pub fn after_streams(args: &Args<'_>, at: usize) -> Range<usize> {
    at + 1..at + 1 + (args.len() - at - 1) / 2
}

/// The argument after the last word STORE or STOREDIST from argument `least` on, where that is no
/// value of an option. The shard locks depend on it, as on [`streams`].
fn stored(args: &Args<'_>, least: usize) -> Range<usize> {
    let (mut i, mut key) = (least, 0..0);
    while i + 1 < args.len() {
        let word = args.at(i);
        i += 1;
        if word.eq_ignore_ascii_case(b"store") || word.eq_ignore_ascii_case(b"storedist") {
            key = i..i + 1;
            i += 1;
        }
    }
    key
}

/// The number in argument `at`, if so many arguments follow.
fn counted(args: &Args<'_>, at: usize) -> Option<usize> {
    let rest = args.len().saturating_sub(at + 1);
    let number = args.get(at).and_then(parse_u64).and_then(|number| usize::try_from(number).ok());
    number.filter(|number| *number <= rest)
}

/// A key that an option of a command names, in a place that only the command's parser finds.
#[derive(Clone, Copy, Debug)]
pub struct OptionKey {
    /// How the command uses it.
    pub key_use: KeyUse,
    /// The index of the key among the arguments. Always `None` where values of other keys name it.
    pub find: fn(&Args<'_>) -> Option<usize>,
}

/// How a command uses a key, as the flags of Redis's key specs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyUse(&'static [&'static str]);

impl KeyUse {
    /// Returns data of the value.
    pub const READ: Self = Self(&["RO", "access"]);
    /// Returns metadata only: existence, type, length.
    pub const INSPECT: Self = Self(&["RO"]);
    /// Returns data of the value, and may change how the value is stored.
    pub const READ_RESHAPE: Self = Self(&["RW", "access"]);
    /// Returns data of the value and adds to it.
    pub const READ_INSERT: Self = Self(&["RW", "access", "insert"]);
    /// Changes data of the value.
    pub const UPDATE: Self = Self(&["RW", "update"]);
    /// Returns data of the value and changes it.
    pub const READ_UPDATE: Self = Self(&["RW", "access", "update"]);
    /// As [`Self::READ_UPDATE`]; some options make it a write without a read, or a plain read. The
    /// command has a function that tells which.
    pub const READ_UPDATE_VARIES: Self = Self(&["RW", "access", "update", "variable_flags"]);
    /// Adds data to the value.
    pub const INSERT: Self = Self(&["RW", "insert"]);
    /// Returns data of the value and removes it.
    pub const POP: Self = Self(&["RW", "access", "delete"]);
    /// Removes data of the value.
    pub const DELETE: Self = Self(&["RW", "delete"]);
    /// Replaces the value.
    pub const OVERWRITE: Self = Self(&["OW", "update"]);
    /// Sets the value of a new key.
    pub const CREATE: Self = Self(&["OW", "insert"]);
    /// Removes the key.
    pub const REMOVE: Self = Self(&["RM", "delete"]);
    /// No key: a channel.
    pub const NOT_KEY: Self = Self(&["not_key"]);

    /// The names of the flags.
    pub const fn flags(self) -> &'static [&'static str] {
        self.0
    }
}

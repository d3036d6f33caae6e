//! The options that SET and GETEX share, and the expiry times that clients name.

use crate::commands::call::Call;
use crate::commands::error_reply::ErrorReply;

/// How an expiry is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    /// In so many seconds.
    Seconds,
    /// In so many milliseconds.
    Milliseconds,
    /// Seconds since 1970.
    SecondsSince,
    /// Milliseconds since 1970.
    MillisecondsSince,
}

impl Unit {
    const ALL: [(&'static str, Self); 4] = [
        ("ex", Self::Seconds),
        ("px", Self::Milliseconds),
        ("exat", Self::SecondsSince),
        ("pxat", Self::MillisecondsSince),
    ];

    const fn is_seconds(self) -> bool {
        matches!(self, Self::Seconds | Self::SecondsSince)
    }

    /// Whether it counts from 1970, and not from now.
    pub const fn is_absolute(self) -> bool {
        matches!(self, Self::SecondsSince | Self::MillisecondsSince)
    }
}

/// On what condition a key is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Condition {
    /// On none.
    #[default]
    Always,
    /// If it is not there.
    IfAbsent,
    /// If it is there.
    IfPresent,
}

/// What becomes of the expiry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Wish {
    /// What the command does unasked.
    #[default]
    Unsaid,
    /// KEEPTTL.
    Keep,
    /// PERSIST.
    Persist,
    /// A time, which is argument `.0`.
    At(usize, Unit),
}

/// Which command the options are for; each knows some that the other does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum For {
    /// SET.
    Set,
    /// GETEX.
    Getex,
}

/// Options of SET or GETEX.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Options {
    /// NX and XX.
    pub condition: Condition,
    /// GET.
    pub get: bool,
    /// The others.
    pub expiry: Wish,
}

impl Options {
    /// The options from argument `first` on. The same one may stand twice, and the last counts;
    /// two that contradict each other may not.
    pub fn parse(call: &Call<'_>, first: usize, command: For) -> Result<Self, ErrorReply> {
        let mut options = Self::default();
        let mut i = first;
        while i < call.args.len() {
            i += options.take(call, i, command).ok_or(ErrorReply::SYNTAX)?;
        }
        Ok(options)
    }

    /// Takes the option at argument `i`; returns how many arguments it has.
    fn take(&mut self, call: &Call<'_>, i: usize, command: For) -> Option<usize> {
        let is_set = command == For::Set;
        if is_set && call.is(i, "get") {
            self.get = true;
        } else if is_set && call.is(i, "nx") && self.condition != Condition::IfPresent {
            self.condition = Condition::IfAbsent;
        } else if is_set && call.is(i, "xx") && self.condition != Condition::IfAbsent {
            self.condition = Condition::IfPresent;
        } else if is_set && call.is(i, "keepttl") {
            return self.wish(Wish::Keep).then_some(1);
        } else if !is_set && call.is(i, "persist") {
            return self.wish(Wish::Persist).then_some(1);
        } else {
            let (_, unit) = Unit::ALL.into_iter().find(|(name, _)| call.is(i, name))?;
            call.args.get(i + 1)?;
            return self.wish(Wish::At(i + 1, unit)).then_some(2);
        }
        Some(1)
    }

    /// Tells whether the wish agrees with what was said before.
    fn wish(&mut self, wish: Wish) -> bool {
        let agrees = match (self.expiry, wish) {
            (Wish::Unsaid, _) => true,
            (Wish::At(_, old), Wish::At(_, new)) => old == new,
            (old, new) => old == new,
        };
        self.expiry = wish;
        agrees
    }
}

/// The moment that argument `i` names, wall clock in milliseconds.
pub(super) fn moment(call: &Call<'_>, i: usize, unit: Unit) -> Result<i64, ErrorReply> {
    let given = call.integer(i)?;
    let milliseconds = if unit.is_seconds() { given.checked_mul(1000) } else { Some(given) };
    let since = if unit.is_absolute() { 0 } else { call.now };
    milliseconds.filter(|ms| *ms > 0).and_then(|ms| ms.checked_add(since)).ok_or_else(|| {
        ErrorReply::text(format!("ERR invalid expire time in '{}' command", call.row.name))
    })
}

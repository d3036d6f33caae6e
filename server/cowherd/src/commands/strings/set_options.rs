//! The options of SET and GETEX, and expiry times in arguments.

use crate::commands::call::Call;
use crate::commands::error_reply::ErrorReply;
use crate::commands::table::KeyUse;
use cowherd_resp::Args;

/// How a request of SET uses its key: GET makes it a read too.
pub(super) fn key_use(args: &Args<'_>) -> KeyUse {
    let reads = args.from(3).iter().any(|word| word.eq_ignore_ascii_case(b"get"));
    if reads { KeyUse::READ_UPDATE } else { KeyUse::OVERWRITE }
}

/// The unit and the origin of an expiry time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ExpiryUnit {
    /// EX: seconds from now.
    Seconds,
    /// PX: milliseconds from now.
    Milliseconds,
    /// EXAT: a Unix time in seconds.
    UnixSeconds,
    /// PXAT: a Unix time in milliseconds.
    UnixMilliseconds,
}

impl ExpiryUnit {
    const ALL: [(&'static str, Self); 4] = [
        ("ex", Self::Seconds),
        ("px", Self::Milliseconds),
        ("exat", Self::UnixSeconds),
        ("pxat", Self::UnixMilliseconds),
    ];

    const fn is_seconds(self) -> bool {
        matches!(self, Self::Seconds | Self::UnixSeconds)
    }

    /// Whether the origin is 1970 and not now.
    pub const fn is_absolute(self) -> bool {
        matches!(self, Self::UnixSeconds | Self::UnixMilliseconds)
    }
}

/// The condition for setting a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum SetCondition {
    /// None.
    #[default]
    Always,
    /// NX: the key does not exist.
    IfAbsent,
    /// XX: the key exists.
    IfPresent,
}

/// The change of the expiry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum ExpiryChange {
    /// No option is given: SET removes the expiry, GETEX leaves it.
    #[default]
    Default,
    /// KEEPTTL.
    Keep,
    /// PERSIST.
    Persist,
    /// A new time, in argument `.0`.
    At(usize, ExpiryUnit),
}

/// The command that the options belong to; each has some that the other has not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OptionsOf {
    /// SET.
    Set,
    /// GETEX.
    Getex,
}

/// The options of SET or GETEX.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct SetOptions {
    /// NX and XX.
    pub condition: SetCondition,
    /// GET.
    pub get: bool,
    /// EX, PX, EXAT, PXAT, KEEPTTL and PERSIST.
    pub expiry: ExpiryChange,
}

impl SetOptions {
    /// The options from argument `first` on. An option may be repeated, and the last value counts;
    /// contradicting options are an error.
    pub fn parse(call: &Call<'_>, first: usize, command: OptionsOf) -> Result<Self, ErrorReply> {
        let mut options = Self::default();
        let mut i = first;
        while i < call.args.len() {
            i += options.take(call, i, command).ok_or(ErrorReply::SYNTAX)?;
        }
        Ok(options)
    }

    /// Takes the option at argument `i`; returns the number of its arguments.
    fn take(&mut self, call: &Call<'_>, i: usize, command: OptionsOf) -> Option<usize> {
        let is_set = command == OptionsOf::Set;
        if is_set && call.is(i, "get") {
            self.get = true;
        } else if is_set && call.is(i, "nx") && self.condition != SetCondition::IfPresent {
            self.condition = SetCondition::IfAbsent;
        } else if is_set && call.is(i, "xx") && self.condition != SetCondition::IfAbsent {
            self.condition = SetCondition::IfPresent;
        } else if is_set && call.is(i, "keepttl") {
            return self.change_expiry(ExpiryChange::Keep).then_some(1);
        } else if !is_set && call.is(i, "persist") {
            return self.change_expiry(ExpiryChange::Persist).then_some(1);
        } else {
            let (_, unit) = ExpiryUnit::ALL.into_iter().find(|(name, _)| call.is(i, name))?;
            call.args.get(i + 1)?;
            return self.change_expiry(ExpiryChange::At(i + 1, unit)).then_some(2);
        }
        Some(1)
    }

    /// Sets the change of the expiry. Returns whether it agrees with the options before.
    fn change_expiry(&mut self, change: ExpiryChange) -> bool {
        let agrees = match (self.expiry, change) {
            (ExpiryChange::Default, _) => true,
            (ExpiryChange::At(_, old), ExpiryChange::At(_, new)) => old == new,
            (old, new) => old == new,
        };
        self.expiry = change;
        agrees
    }
}

/// The expiry time in argument `i`, as a Unix time in milliseconds.
pub(super) fn expiry_time(call: &Call<'_>, i: usize, unit: ExpiryUnit) -> Result<i64, ErrorReply> {
    let given = call.integer(i)?;
    let milliseconds = if unit.is_seconds() { given.checked_mul(1000) } else { Some(given) };
    let since = if unit.is_absolute() { 0 } else { call.now };
    milliseconds.filter(|ms| *ms > 0).and_then(|ms| ms.checked_add(since)).ok_or_else(|| {
        ErrorReply::text(format!("ERR invalid expire time in '{}' command", call.row.name))
    })
}

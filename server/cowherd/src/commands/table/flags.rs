//! The properties of a command, as COMMAND INFO names them, and a few of the server's own.

use std::ops::BitOr;

/// A set of command properties, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CommandFlags(u32);

impl CommandFlags {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// May change keys.
    pub const WRITE: Self = Self(1);
    /// Reads keys and changes none.
    pub const READONLY: Self = Self(1 << 1);
    /// May allocate: refused while the memory limit is reached.
    pub const DENYOOM: Self = Self(1 << 2);
    /// An administrative command.
    pub const ADMIN: Self = Self(1 << 3);
    /// Takes constant or logarithmic time.
    pub const FAST: Self = Self(1 << 4);
    /// Allowed while the data set is being loaded.
    pub const LOADING: Self = Self(1 << 5);
    /// Allowed while the data may be out of date.
    pub const STALE: Self = Self(1 << 6);
    /// Allowed without authentication.
    pub const NO_AUTH: Self = Self(1 << 7);
    /// Not allowed in a script.
    pub const NOSCRIPT: Self = Self(1 << 8);
    /// Not allowed in a transaction.
    pub const NO_MULTI: Self = Self(1 << 9);
    /// Runs while clients are paused.
    pub const UNPAUSED: Self = Self(1 << 10);
    /// Runs at once in a transaction instead of being queued.
    pub const UNQUEUED: Self = Self(1 << 11);
    /// Runs the queued commands of a transaction: has their flags too, and is not logged as slow
    /// itself.
    pub const RUNS_QUEUE: Self = Self(1 << 12);
    /// Belongs to publish/subscribe; the arguments in the place of keys are channels.
    pub const PUBSUB: Self = Self(1 << 13);
    /// May block the client.
    pub const BLOCKING: Self = Self(1 << 14);
    /// Runs a script: the flags of the commands that it calls are checked when it calls them.
    pub const RUNS_SCRIPT: Self = Self(1 << 15);
    /// Runs while a script runs for too long.
    pub const ALLOW_BUSY: Self = Self(1 << 16);
    /// Has effects outside the keys: refused in scripts that must not write.
    pub const HAS_EFFECTS: Self = Self(1 << 17);
    /// Not allowed while a replica loads its data set beside the old one, which never happens.
    pub const NO_ASYNC_LOADING: Self = Self(1 << 18);

    /// Whether the set contains all flags of `other`.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The union with `other`: `|` for constants.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set as a bit mask.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The set with a bit mask that [`Self::bits`] returned.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The names for COMMAND INFO, in Redis's order. [`Self::UNPAUSED`], [`Self::UNQUEUED`] and
    /// [`Self::HAS_EFFECTS`] have none.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        const NAMES: [(CommandFlags, &str); 17] = [
            (CommandFlags::WRITE, "write"),
            (CommandFlags::READONLY, "readonly"),
            (CommandFlags::DENYOOM, "denyoom"),
            (CommandFlags::ADMIN, "admin"),
            (CommandFlags::PUBSUB, "pubsub"),
            (CommandFlags::NOSCRIPT, "noscript"),
            (CommandFlags::BLOCKING, "blocking"),
            (CommandFlags::LOADING, "loading"),
            (CommandFlags::NO_ASYNC_LOADING, "no_async_loading"),
            (CommandFlags::STALE, "stale"),
            (CommandFlags::FAST, "fast"),
            (CommandFlags::RUNS_QUEUE, "skip_slowlog"),
            (CommandFlags::NO_AUTH, "no_auth"),
            (CommandFlags::NO_MULTI, "no_multi"),
            (CommandFlags::ALLOW_BUSY, "allow_busy"),
            (CommandFlags::RUNS_SCRIPT, "skip_monitor"),
            (CommandFlags::RUNS_SCRIPT, "no_mandatory_keys"),
        ];
        NAMES.into_iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| name)
    }
}

impl BitOr for CommandFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

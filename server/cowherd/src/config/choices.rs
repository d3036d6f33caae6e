//! Directives whose value is one of a few words.

use std::borrow::Cow;
use std::marker::PhantomData;

use super::values::{Reason, ValueKind, only};

/// An enum that a directive's value can name.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// The words, in the order messages list them. The first word of a variant is its name.
    const ALL: &'static [(&'static str, Self)];
    /// Words that users know from elsewhere, and why they are refused.
    const REFUSED: &'static [(&'static str, &'static str)];
}

/// The kind of a directive that takes one word of a [`Choice`].
pub(super) struct OneOf<T>(PhantomData<T>);

impl<T> OneOf<T> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Choice> ValueKind for OneOf<T> {
    type Value = T;

    fn read(&self, _old: &T, words: &[String], _fresh: bool) -> Result<T, Reason> {
        let word = only(words)?;
        if let Some((_, choice)) = T::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
            return Ok(*choice);
        }
        match T::REFUSED.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
            Some((_, why)) => Err(Cow::Borrowed(*why)),
            None => Err(Cow::Owned(format!(
                "argument(s) must be one of the following: {}",
                names::<T>(", ")
            ))),
        }
    }

    fn show(&self, value: &T) -> String {
        value.name().to_owned()
    }

    fn shape(&self) -> String {
        names::<T>("|")
    }
}

fn names<T: Choice>(separator: &str) -> String {
    T::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(separator)
}

/// Names of choices.
trait Named: Choice {
    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, choice)| *choice == self).map_or("", |(name, _)| name)
    }
}

impl<T: Choice> Named for T {}

macro_rules! choices {
    ($(
        $(#[$about:meta])*
        $type:ident {
            $( $(#[$note:meta])* $variant:ident = $($word:literal)|+, )+
        }
        refused { $($other:literal => $why:literal),* }
    )+) => { $(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum $type {
            $( $(#[$note])* $variant, )+
        }

        impl $type {
            /// The word that names this choice in a configuration.
            #[allow(dead_code, reason = "not every choice is shown by its name")]
            pub(crate) fn name(self) -> &'static str {
                Named::name(self)
            }
        }

        impl Choice for $type {
            const ALL: &'static [(&'static str, Self)] = &[$( $(($word, Self::$variant),)+ )+];
            const REFUSED: &'static [(&'static str, &'static str)] = &[$(($other, $why)),*];
        }
    )+ };
}

choices! {
    /// What the arena is made of.
    ArenaPages {
        /// Pages of 4 KiB, never merged.
        Small = "small",
        /// Small pages that the kernel may merge into huge ones.
        Thp = "thp",
        /// Reserved huge pages of 2 MiB.
        Huge2Mb = "huge-2mb",
        /// Reserved huge pages of 1 GiB.
        Huge1Gb = "huge-1gb",
        /// The best that the machine has.
        Auto = "auto",
    }
    refused {}

    /// How a checkpoint's child sees the data of one instant.
    CheckpointIsolation {
        /// The kernel copies the pages that the parent changes.
        KernelCow = "kernel-cow",
        /// The parent logs what was in the blocks that it changes.
        UndoLog = "undo-log",
    }
    refused {}

    /// How many bytes the undo log captures at once.
    UndoBlock {
        /// 256 bytes.
        B256 = "256",
        /// 512 bytes.
        B512 = "512",
        /// 1 KiB.
        B1024 = "1024",
        /// 2 KiB.
        B2048 = "2048",
        /// 4 KiB.
        B4096 = "4096",
    }
    refused {}

    /// What to do when the arena is full.
    MaxmemoryPolicy {
        /// Drop the key unused for longest, of those with an expiry.
        VolatileLru = "volatile-lru",
        /// Drop the key used least often, of those with an expiry.
        VolatileLfu = "volatile-lfu",
        /// Drop any key that has an expiry.
        VolatileRandom = "volatile-random",
        /// Drop the key that expires next.
        VolatileTtl = "volatile-ttl",
        /// Drop the key unused for longest.
        AllkeysLru = "allkeys-lru",
        /// Drop the key used least often.
        AllkeysLfu = "allkeys-lfu",
        /// Drop any key.
        AllkeysRandom = "allkeys-random",
        /// Drop nothing; refuse writes.
        Noeviction = "noeviction",
    }
    refused {}

    /// How lines of the log look.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line, for programs.
        Json = "json",
    }
    refused {}

    /// How much is logged.
    LogLevel {
        /// All there is.
        Debug = "debug",
        /// A little less.
        Verbose = "verbose",
        /// What an operator wants to know.
        Notice = "notice",
        /// Only what is wrong.
        Warning = "warning",
        /// Nothing.
        Nothing = "nothing",
    }
    refused {}

    /// Who supervises the process.
    Supervised {
        /// Nobody.
        No = "no",
        /// systemd: tell it when the server is ready.
        Systemd = "systemd",
        /// systemd if `NOTIFY_SOCKET` is set, else nobody.
        Auto = "auto",
    }
    refused {
        "upstart" => "upstart is not supported; use systemd or auto"
    }

    /// Whether the kernel's out-of-memory score is set.
    OomScoreAdj {
        /// Leave it.
        No = "no",
        /// Set it relative to the score at start.
        Relative = "yes" | "relative",
        /// Set it to the values as they are.
        Absolute = "absolute",
    }
    refused {}

    /// Who may use DEBUG.
    DebugCommand {
        /// Nobody.
        No = "no",
        /// Everybody.
        Yes = "yes",
        /// Connections from this machine.
        Local = "local",
    }
    refused {}
}

impl UndoBlock {
    /// Bytes.
    pub(crate) const fn bytes(self) -> u64 {
        match self {
            Self::B256 => 256,
            Self::B512 => 512,
            Self::B1024 => 1024,
            Self::B2048 => 2048,
            Self::B4096 => 4096,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Choice>(word: &str) -> Result<T, Reason> {
        OneOf::new().read(&T::ALL[0].1, &[word.to_owned()], true)
    }

    #[test]
    fn words_are_read_without_regard_to_case() {
        assert_eq!(read::<MaxmemoryPolicy>("AllKeys-LRU"), Ok(MaxmemoryPolicy::AllkeysLru));
        assert_eq!(read::<OomScoreAdj>("relative"), Ok(OomScoreAdj::Relative));
        assert_eq!(OomScoreAdj::Relative.name(), "yes");
    }

    #[test]
    fn a_wrong_word_is_answered_with_the_right_ones() {
        assert_eq!(
            read::<OomScoreAdj>("nope").unwrap_err(),
            "argument(s) must be one of the following: no, yes, relative, absolute"
        );
        assert_eq!(
            read::<CheckpointIsolation>("undo").unwrap_err(),
            "argument(s) must be one of the following: kernel-cow, undo-log"
        );
        assert!(read::<Supervised>("upstart").unwrap_err().contains("upstart is not supported"));
    }
}

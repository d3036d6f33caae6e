//! Values that are one of a few words.

use std::borrow::Cow;
use std::marker::PhantomData;

use super::values::{Reason, ValueKind, only};

/// An enum whose variants are the words of a directive.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// The words, in the order messages list them. The first word of a variant is its name.
    const ALL: &'static [(&'static str, Self)];
    /// Words of Redis that are refused, and why.
    const REFUSED: &'static [(&'static str, &'static str)];
}

/// The kind of value that is one word of a [`Choice`].
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

/// The name of a choice.
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
    /// The memory pages of the arena (`arena-pages`).
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

    /// How a checkpoint's child sees the data of one instant (`checkpoint-isolation`).
    CheckpointIsolation {
        /// The kernel copies the pages that the parent changes.
        KernelCow = "kernel-cow",
        /// The parent logs the old bytes of blocks before it changes them.
        UndoLog = "undo-log",
    }
    refused {}

    /// Bytes that the undo log captures at once (`checkpoint-undo-block`).
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

    /// The keys to evict when the arena is full (`maxmemory-policy`).
    MaxmemoryPolicy {
        /// Among keys with an expiry, the one unused for longest.
        VolatileLru = "volatile-lru",
        /// Among keys with an expiry, the one used least often.
        VolatileLfu = "volatile-lfu",
        /// A random key with an expiry.
        VolatileRandom = "volatile-random",
        /// The key that expires next.
        VolatileTtl = "volatile-ttl",
        /// The key unused for longest.
        AllkeysLru = "allkeys-lru",
        /// The key used least often.
        AllkeysLfu = "allkeys-lfu",
        /// A random key.
        AllkeysRandom = "allkeys-random",
        /// None; refuse writes.
        Noeviction = "noeviction",
    }
    refused {}

    /// The format of log lines (`log-format`).
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line, for programs.
        Json = "json",
    }
    refused {}

    /// The log level of Redis (`loglevel`).
    LogLevel {
        /// Everything.
        Debug = "debug",
        /// As `Debug`; Redis logs a little less.
        Verbose = "verbose",
        /// Events of interest to operators.
        Notice = "notice",
        /// Problems only.
        Warning = "warning",
        /// Nothing.
        Nothing = "nothing",
    }
    refused {}

    /// The process supervisor (`supervised`).
    Supervised {
        /// None.
        No = "no",
        /// systemd, which is notified when the server is ready.
        Systemd = "systemd",
        /// systemd if `NOTIFY_SOCKET` is set, else none.
        Auto = "auto",
    }
    refused {
        "upstart" => "upstart is not supported; use systemd or auto"
    }

    /// How the kernel's out-of-memory score is set (`oom-score-adj`).
    OomScoreAdj {
        /// Not at all.
        No = "no",
        /// Relative to the score at start.
        Relative = "yes" | "relative",
        /// To the values as they are.
        Absolute = "absolute",
    }
    refused {}

    /// The clients that may use DEBUG (`enable-debug-command`).
    DebugCommand {
        /// None.
        No = "no",
        /// All.
        Yes = "yes",
        /// Connections from this machine.
        Local = "local",
    }
    refused {}
}

impl UndoBlock {
    /// The number of bytes.
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

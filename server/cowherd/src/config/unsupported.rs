//! Directives of Redis for features that Cowherd lacks: a redis.conf that disables such a feature
//! is accepted, one that enables it is refused with the reason.

use super::directives::{Config, Directive, directives};
use super::suggestion::nearest;
use super::units;
use super::values::Reason;
use AcceptedValues::{Any, Numbers, Sizes, Words};

/// The directive that reads another file. `ConfigLoader` executes it.
pub(super) const INCLUDE: &str = "include";

/// A directive of Redis that has no field in [`Config`].
#[derive(Debug)]
pub(crate) struct UnsupportedDirective {
    /// Its name.
    pub(crate) name: &'static str,
    /// The accepted values: those that do not need the feature.
    accepted: AcceptedValues,
    /// The value in CONFIG GET; None: left out.
    pub(crate) reported: Option<&'static str>,
    /// The missing feature, and what to do instead.
    pub(crate) why: &'static str,
}

/// Values that do not need a missing feature.
#[derive(Debug, Clone, Copy)]
enum AcceptedValues {
    /// These words.
    Words(&'static [&'static str]),
    /// Numbers.
    Numbers,
    /// Sizes in bytes.
    Sizes,
    /// Any text.
    Any,
}

impl AcceptedValues {
    fn has(self, value: &str) -> bool {
        match self {
            Words(words) => words.iter().any(|word| word.eq_ignore_ascii_case(value)),
            Numbers => value.parse::<u32>().is_ok(),
            Sizes => units::parse(value).is_some(),
            Any => true,
        }
    }
}

/// The table of [`UnsupportedDirective`] directives.
pub(crate) fn unsupported() -> &'static [UnsupportedDirective] {
    TABLE
}

const NO_LOG: &str =
    "append-only files are not supported; data is kept by checkpoints (see save), so set it to no";
const NOT_A_SWITCH: &str = "argument must be 'yes' or 'no'";
/// The values of switches.
const YES_NO: AcceptedValues = Words(&["yes", "no"]);
const NO_REPLICAS: &str = "replication is not supported; remove the line";

static TABLE: &[UnsupportedDirective] = &[
    UnsupportedDirective {
        name: "appendonly",
        accepted: Words(&["no"]),
        reported: Some("no"),
        why: NO_LOG,
    },
    UnsupportedDirective {
        name: "appendfsync",
        accepted: Words(&["always", "everysec", "no"]),
        reported: Some("everysec"),
        why: "argument(s) must be one of the following: everysec, always, no",
    },
    // The files that `appendonly no` does not write may have any properties.
    UnsupportedDirective {
        name: "appendfilename",
        accepted: Any,
        reported: Some("appendonly.aof"),
        why: "wrong number of arguments",
    },
    UnsupportedDirective {
        name: "appenddirname",
        accepted: Any,
        reported: Some("appendonlydir"),
        why: "wrong number of arguments",
    },
    UnsupportedDirective {
        name: "no-appendfsync-on-rewrite",
        accepted: YES_NO,
        reported: Some("no"),
        why: NOT_A_SWITCH,
    },
    UnsupportedDirective {
        name: "auto-aof-rewrite-percentage",
        accepted: Numbers,
        reported: Some("100"),
        why: "argument couldn't be parsed into an integer",
    },
    UnsupportedDirective {
        name: "auto-aof-rewrite-min-size",
        accepted: Sizes,
        reported: Some("67108864"),
        why: "argument must be a memory value",
    },
    UnsupportedDirective {
        name: "aof-load-truncated",
        accepted: YES_NO,
        reported: Some("yes"),
        why: NOT_A_SWITCH,
    },
    UnsupportedDirective {
        name: "aof-use-rdb-preamble",
        accepted: YES_NO,
        reported: Some("yes"),
        why: NOT_A_SWITCH,
    },
    UnsupportedDirective {
        name: "aof-timestamp-enabled",
        accepted: YES_NO,
        reported: Some("no"),
        why: NOT_A_SWITCH,
    },
    UnsupportedDirective {
        name: "aof-rewrite-incremental-fsync",
        accepted: YES_NO,
        reported: Some("yes"),
        why: NOT_A_SWITCH,
    },
    UnsupportedDirective {
        name: "cluster-enabled",
        accepted: Words(&["no"]),
        reported: Some("no"),
        why: "cluster mode is not supported; set it to no",
    },
    UnsupportedDirective {
        name: "replicaof",
        accepted: Words(&["", "no one"]),
        reported: Some(""),
        why: NO_REPLICAS,
    },
    UnsupportedDirective {
        name: "slaveof",
        accepted: Words(&["", "no one"]),
        reported: Some(""),
        why: NO_REPLICAS,
    },
    UnsupportedDirective {
        name: "tls-port",
        accepted: Words(&["0"]),
        reported: Some("0"),
        why: "TLS is not supported; set it to 0, and put a TLS proxy in front",
    },
    UnsupportedDirective {
        name: "loadmodule",
        accepted: Words(&[]),
        reported: None,
        why: "modules are not supported; remove the line",
    },
    UnsupportedDirective {
        name: "daemonize",
        accepted: Words(&["no"]),
        reported: Some("no"),
        why: "Cowherd stays in the foreground; set it to no and let systemd run the server, \
              with 'supervised systemd' here and Type=notify in the unit",
    },
    UnsupportedDirective {
        name: "io-threads-do-reads",
        accepted: YES_NO,
        reported: None,
        why: NOT_A_SWITCH,
    },
    UnsupportedDirective {
        name: "user",
        accepted: Words(&[]),
        reported: None,
        why: "access control lists are not supported; use requirepass and rename-command",
    },
    UnsupportedDirective {
        name: "aclfile",
        accepted: Words(&[""]),
        reported: Some(""),
        why: "access control lists are not supported; use requirepass and rename-command",
    },
];

/// A directive with a known name.
#[derive(Debug, Clone, Copy)]
pub(super) enum KnownDirective {
    /// A directive with a field in [`Config`].
    Own(&'static Directive),
    /// A directive of Redis without a field.
    Foreign(&'static UnsupportedDirective),
}

impl PartialEq for KnownDirective {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl KnownDirective {
    /// Finds a directive by name or alias, in any case.
    pub(super) fn find(name: &str) -> Option<Self> {
        let own = directives().iter().find(|directive| directive.is_named(name)).map(Self::Own);
        own.or_else(|| {
            let foreign = TABLE.iter().find(|foreign| foreign.name.eq_ignore_ascii_case(name));
            foreign.map(Self::Foreign)
        })
    }

    /// The known name nearest to an unknown one, if one is near.
    pub(super) fn nearest(name: &str) -> Option<&'static str> {
        let own = directives().iter().flat_map(Directive::names);
        let foreign = TABLE.iter().map(|foreign| foreign.name);
        nearest(name, own.chain(foreign).chain([INCLUDE]))
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Own(directive) => directive.name,
            Self::Foreign(foreign) => foreign.name,
        }
    }

    /// Sets the value, or checks that it does not need a missing feature.
    pub(super) fn apply(
        &self,
        config: &mut Config,
        words: &[String],
        fresh: bool,
    ) -> Result<(), Reason> {
        match self {
            Self::Own(directive) => directive.apply(config, words, fresh),
            Self::Foreign(foreign) => {
                let accepted = !words.is_empty() && foreign.accepted.has(&words.join(" "));
                if accepted { Ok(()) } else { Err(foreign.why.into()) }
            }
        }
    }
}

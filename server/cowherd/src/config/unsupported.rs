//! Directives of Redis for features that Cowherd lacks: a redis.conf that disables such a feature
//! is accepted, one that enables it is refused with the reason.

use super::directives::{Config, Directive, directives};
use super::suggestion::nearest;
use super::values::Reason;

/// The directive that reads another file. `ConfigLoader` executes it.
pub(super) const INCLUDE: &str = "include";

/// A directive of Redis that has no field in [`Config`].
#[derive(Debug)]
pub(crate) struct UnsupportedDirective {
    /// Its name.
    pub(crate) name: &'static str,
    /// The accepted values: those that do not need the feature.
    pub(crate) accepted: &'static [&'static str],
    /// The value in CONFIG GET; None: left out.
    pub(crate) reported: Option<&'static str>,
    /// The missing feature, and what to do instead.
    pub(crate) why: &'static str,
}

/// The table of [`UnsupportedDirective`] directives.
pub(crate) fn unsupported() -> &'static [UnsupportedDirective] {
    TABLE
}

const NO_LOG: &str =
    "append-only files are not supported; data is kept by checkpoints (see save), so set it to no";
const NO_REPLICAS: &str = "replication is not supported; remove the line";

static TABLE: &[UnsupportedDirective] = &[
    UnsupportedDirective {
        name: "appendonly",
        accepted: &["no"],
        reported: Some("no"),
        why: NO_LOG,
    },
    UnsupportedDirective {
        name: "appendfsync",
        accepted: &["always", "everysec", "no"],
        reported: Some("everysec"),
        why: "argument(s) must be one of the following: everysec, always, no",
    },
    UnsupportedDirective {
        name: "cluster-enabled",
        accepted: &["no"],
        reported: Some("no"),
        why: "cluster mode is not supported; set it to no",
    },
    UnsupportedDirective {
        name: "replicaof",
        accepted: &["", "no one"],
        reported: Some(""),
        why: NO_REPLICAS,
    },
    UnsupportedDirective {
        name: "slaveof",
        accepted: &["", "no one"],
        reported: Some(""),
        why: NO_REPLICAS,
    },
    UnsupportedDirective {
        name: "tls-port",
        accepted: &["0"],
        reported: Some("0"),
        why: "TLS is not supported; set it to 0, and put a TLS proxy in front",
    },
    UnsupportedDirective {
        name: "loadmodule",
        accepted: &[],
        reported: None,
        why: "modules are not supported; remove the line",
    },
    UnsupportedDirective {
        name: "daemonize",
        accepted: &["no"],
        reported: Some("no"),
        why: "Cowherd stays in the foreground; set it to no and let systemd run the server, \
              with 'supervised systemd' here and Type=notify in the unit",
    },
    UnsupportedDirective {
        name: "io-threads-do-reads",
        accepted: &["yes", "no"],
        reported: None,
        why: "argument must be 'yes' or 'no'",
    },
    UnsupportedDirective {
        name: "user",
        accepted: &[],
        reported: None,
        why: "access control lists are not supported; use requirepass and rename-command",
    },
    UnsupportedDirective {
        name: "aclfile",
        accepted: &[""],
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
                let value = words.join(" ");
                let asked = |accepted: &&str| accepted.eq_ignore_ascii_case(&value);
                let accepted = !words.is_empty() && foreign.accepted.iter().any(asked);
                if accepted { Ok(()) } else { Err(foreign.why.into()) }
            }
        }
    }
}

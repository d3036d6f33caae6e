//! Kinds of values that are several words: save points, addresses, limits, renamed commands.

use std::net::IpAddr;

use super::values::{Reason, ValueKind, parse_address, show_address};
use super::{quoting, units};

/// The most addresses that `bind` takes, as in Redis.
const MOST_ADDRESSES: usize = 16;

/// A save point: checkpoint after `seconds` if there were `changes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SaveRule {
    /// The least time since the last checkpoint, in seconds.
    pub(crate) seconds: u64,
    /// The least number of changes since the last checkpoint.
    pub(crate) changes: u64,
}

/// `save`: pairs of seconds and changes. Several lines add up; the empty text removes all.
pub(super) struct SaveRules;

impl SaveRules {
    fn rule(pair: &[String]) -> Option<SaveRule> {
        let [seconds, changes] = pair else { return None };
        let (seconds, changes) = (natural(seconds)?, natural(changes)?);
        (seconds >= 1).then_some(SaveRule { seconds, changes })
    }
}

impl ValueKind for SaveRules {
    type Value = Vec<SaveRule>;
    const LIST: bool = true;

    fn read(
        &self,
        old: &Vec<SaveRule>,
        words: &[String],
        fresh: bool,
    ) -> Result<Vec<SaveRule>, Reason> {
        let mut rules = if fresh || words.is_empty() { Vec::new() } else { old.clone() };
        for pair in words.chunks(2) {
            rules.push(Self::rule(pair).ok_or("Invalid save parameters")?);
        }
        Ok(rules)
    }

    fn show(&self, value: &Vec<SaveRule>) -> String {
        let rules = value.iter().map(|rule| format!("{} {}", rule.seconds, rule.changes));
        rules.collect::<Vec<_>>().join(" ")
    }

    fn shape(&self) -> String {
        "<seconds> <changes> ... | \"\"".to_owned()
    }
}

/// A number without sign that fits into an `i64`.
fn natural(word: &str) -> Option<u64> {
    let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.then(|| word.parse().ok())??;
    i64::try_from(number).is_ok().then_some(number)
}

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BindAddress {
    /// The address; the unspecified one stands for all of this machine.
    pub(crate) address: IpAddr,
    /// Whether a machine that lacks the address may start nevertheless.
    pub(crate) optional: bool,
}

/// `bind`: addresses, `-` before the optional ones; the empty text listens on none.
pub(super) struct BindAddresses;

impl ValueKind for BindAddresses {
    type Value = Vec<BindAddress>;
    const LIST: bool = true;

    fn read(
        &self,
        _old: &Vec<BindAddress>,
        words: &[String],
        _fresh: bool,
    ) -> Result<Vec<BindAddress>, Reason> {
        if words.len() > MOST_ADDRESSES {
            return Err("Too many bind addresses specified.".into());
        }
        let read = |word: &String| {
            let (optional, address) = match word.strip_prefix('-') {
                Some(address) => (true, address),
                None => (false, word.as_str()),
            };
            Ok(BindAddress { address: parse_address(address)?, optional })
        };
        words.iter().map(read).collect()
    }

    fn show(&self, value: &Vec<BindAddress>) -> String {
        let show = |bind: &BindAddress| {
            format!("{}{}", if bind.optional { "-" } else { "" }, show_address(bind.address))
        };
        value.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    fn shape(&self) -> String {
        "<IP address> ... (-<address> where it may be missing)".to_owned()
    }
}

/// The most unread output of a client before it is disconnected; 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutputLimit {
    /// Bytes above which the client is disconnected at once.
    pub(crate) hard: u64,
    /// Bytes above which the client is disconnected after `soft_seconds`.
    pub(crate) soft: u64,
    /// The longest time above the soft limit, in seconds.
    pub(crate) soft_seconds: u64,
}

/// The [`OutputLimit`] of each class of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutputLimits {
    /// Ordinary clients.
    pub(crate) normal: OutputLimit,
    /// Replicas. Cowherd has none; tools read the limit.
    pub(crate) replica: OutputLimit,
    /// Clients that subscribe to channels.
    pub(crate) pubsub: OutputLimit,
}

impl Default for OutputLimits {
    fn default() -> Self {
        let limit = |hard: u64, soft: u64, soft_seconds| OutputLimit {
            hard: hard << 20,
            soft: soft << 20,
            soft_seconds,
        };
        Self { normal: limit(0, 0, 0), replica: limit(256, 64, 60), pubsub: limit(32, 8, 60) }
    }
}

impl OutputLimits {
    fn each(&self) -> [(&'static str, OutputLimit); 3] {
        [("normal", self.normal), ("slave", self.replica), ("pubsub", self.pubsub)]
    }
}

/// `client-output-buffer-limit`: class, hard, soft, seconds; classes not named keep theirs.
pub(super) struct ClientLimits;

impl ValueKind for ClientLimits {
    type Value = OutputLimits;
    const LIST: bool = true;

    fn read(
        &self,
        old: &OutputLimits,
        words: &[String],
        _fresh: bool,
    ) -> Result<OutputLimits, Reason> {
        let mut limits = *old;
        for group in words.chunks(4) {
            let [class, hard, soft, seconds] = group else {
                return Err("Wrong number of arguments in buffer limit configuration.".into());
            };
            let target = match class.to_ascii_lowercase().as_str() {
                "normal" => &mut limits.normal,
                "replica" | "slave" => &mut limits.replica,
                "pubsub" => &mut limits.pubsub,
                _ => {
                    let why = "Invalid client class specified in buffer limit configuration.";
                    return Err(why.into());
                }
            };
            let numbers = (units::parse(hard), units::parse(soft), natural(seconds));
            let (Some(hard), Some(soft), Some(soft_seconds)) = numbers else {
                let why =
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
                return Err(why.into());
            };
            *target = OutputLimit { hard, soft, soft_seconds };
        }
        Ok(limits)
    }

    fn show(&self, value: &OutputLimits) -> String {
        let show = |(class, limit): (&str, OutputLimit)| {
            format!("{class} {} {} {}", limit.hard, limit.soft, limit.soft_seconds)
        };
        value.each().map(show).join(" ")
    }

    fn lines(&self, value: &OutputLimits) -> Vec<String> {
        let line = |(class, limit): (&str, OutputLimit)| {
            let class = if class == "slave" { "replica" } else { class };
            let (hard, soft) = (units::show(limit.hard), units::show(limit.soft));
            format!("{class} {hard} {soft} {}", limit.soft_seconds)
        };
        value.each().map(line).to_vec()
    }

    fn shape(&self) -> String {
        "normal|replica|pubsub <hard size> <soft size> <soft seconds> ...".to_owned()
    }
}

/// Scores for the kernel's out-of-memory killer; a higher one is killed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OomScoreValues {
    /// Of the server.
    pub(crate) server: i32,
    /// Of a replica. Cowherd has none; tools read the value.
    pub(crate) replica: i32,
    /// Of the child that writes a checkpoint.
    pub(crate) child: i32,
}

/// `oom-score-adj-values`: three numbers.
pub(super) struct OomScores;

impl ValueKind for OomScores {
    type Value = OomScoreValues;
    const LIST: bool = true;

    fn read(
        &self,
        _old: &OomScoreValues,
        words: &[String],
        _fresh: bool,
    ) -> Result<OomScoreValues, Reason> {
        let [server, replica, child] = words else {
            return Err("wrong number of arguments".into());
        };
        let read = |word: &String| {
            let score = word.parse::<i32>().ok().filter(|score| (-2000..=2000).contains(score));
            score.ok_or("Invalid oom-score-adj-values, elements must be between -2000 and 2000.")
        };
        Ok(OomScoreValues { server: read(server)?, replica: read(replica)?, child: read(child)? })
    }

    fn show(&self, value: &OomScoreValues) -> String {
        format!("{} {} {}", value.server, value.replica, value.child)
    }

    fn shape(&self) -> String {
        "<server> <replica> <child>, each -2000..2000".to_owned()
    }
}

/// Another name for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandRename {
    /// The command.
    pub(crate) from: String,
    /// The new name; empty to disable the command.
    pub(crate) to: String,
}

/// `rename-command`: a command and its new name. Several lines add up.
pub(super) struct Renames;

impl ValueKind for Renames {
    type Value = Vec<CommandRename>;
    const LIST: bool = true;

    fn read(
        &self,
        old: &Vec<CommandRename>,
        words: &[String],
        fresh: bool,
    ) -> Result<Vec<CommandRename>, Reason> {
        let mut renames = if fresh { Vec::new() } else { old.clone() };
        for pair in words.chunks(2) {
            let [from, to] = pair else { return Err("wrong number of arguments".into()) };
            if from.is_empty() {
                return Err("the command's name can't be empty".into());
            }
            renames.retain(|rename| !rename.from.eq_ignore_ascii_case(from));
            renames.push(CommandRename { from: from.clone(), to: to.clone() });
        }
        Ok(renames)
    }

    fn show(&self, value: &Vec<CommandRename>) -> String {
        self.lines(value).join(" ")
    }

    fn lines(&self, value: &Vec<CommandRename>) -> Vec<String> {
        let line = |rename: &CommandRename| {
            format!("{} {}", quoting::quote(&rename.from), quoting::quote(&rename.to))
        };
        value.iter().map(line).collect()
    }

    fn shape(&self) -> String {
        "<command> <new name> | <command> \"\"".to_owned()
    }
}

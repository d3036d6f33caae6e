//! Kinds of values that are several words: save points, addresses, limits, renamed commands.

use std::fmt;
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

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.optional { "-" } else { "" })?;
        f.write_str(&show_address(self.address))
    }
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
        value.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
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

/// `latency-tracking-info-percentiles`: numbers from 0 to 100; may be none.
pub(super) struct Percentiles;

impl ValueKind for Percentiles {
    type Value = Vec<f64>;
    const LIST: bool = true;

    fn read(&self, _old: &Vec<f64>, words: &[String], _fresh: bool) -> Result<Vec<f64>, Reason> {
        let read = |word: &String| {
            let number = word.parse::<f64>().ok().filter(|number| !number.is_nan());
            let number = number.ok_or("Invalid latency-tracking-info-percentiles parameters")?;
            match (0.0..=100.0).contains(&number) {
                // As it is shown.
                true => Ok(six_digits(number).parse().unwrap_or(number)),
                false => Err("latency-tracking-info-percentiles parameters should sit between \
                              [0.0,100.0]"
                    .into()),
            }
        };
        words.iter().filter(|word| !word.is_empty()).map(read).collect()
    }

    fn show(&self, value: &Vec<f64>) -> String {
        value.iter().map(|number| six_digits(*number)).collect::<Vec<_>>().join(" ")
    }

    fn shape(&self) -> String {
        "<percentile, 0..100> ... | \"\"".to_owned()
    }
}

/// A number with six significant digits, as `%g` of printf(3) writes it.
pub(crate) fn six_digits(number: f64) -> String {
    let shortest = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    let scientific = format!("{number:.5e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent @ -4..=5) => {
            let decimals = usize::try_from(5 - exponent).unwrap_or(0);
            shortest(&format!("{number:.decimals$}"))
        }
        Ok(exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{}e{sign}{:02}", shortest(digits), exponent.unsigned_abs())
        }
        Err(_) => scientific,
    }
}

#[cfg(test)]
#[test]
fn six_digits_are_written_as_by_printf() {
    for (number, text) in [
        (0.0, "0"),
        (50.0, "50"),
        (99.9, "99.9"),
        (99.999, "99.999"),
        (99.999_999_999, "100"),
        (0.000_123_456_7, "0.000123457"),
        (0.000_012_34, "1.234e-05"),
        (100.0, "100"),
        (1_234_567.0, "1.23457e+06"),
    ] {
        assert_eq!(six_digits(number), text);
    }
}

/// How SIGTERM or SIGINT shuts the server down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ShutdownSignal {
    /// Whether to checkpoint; `None`: if save points are set.
    pub(crate) save: Option<bool>,
    /// Not to wait for replicas. Cowherd has none; tools read the value.
    pub(crate) now: bool,
    /// To end even if the checkpoint fails.
    pub(crate) force: bool,
}

/// `shutdown-on-sigterm` and `shutdown-on-sigint`: words of SHUTDOWN.
pub(super) struct ShutdownWords;

impl ValueKind for ShutdownWords {
    type Value = ShutdownSignal;
    const LIST: bool = true;

    fn read(
        &self,
        _old: &ShutdownSignal,
        words: &[String],
        _fresh: bool,
    ) -> Result<ShutdownSignal, Reason> {
        const WORDS: &str =
            "argument(s) must be one of the following: default, save, nosave, now, force";
        let (mut signal, mut save, mut no_save) = (ShutdownSignal::default(), false, false);
        for word in words {
            match word.to_ascii_lowercase().as_str() {
                "default" => {}
                "save" => save = true,
                "nosave" => no_save = true,
                "now" => signal.now = true,
                "force" => signal.force = true,
                _ => return Err(WORDS.into()),
            }
        }
        signal.save = match (save, no_save) {
            (true, true) => {
                return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".into());
            }
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        if words.is_empty() { Err(WORDS.into()) } else { Ok(signal) }
    }

    fn show(&self, value: &ShutdownSignal) -> String {
        let words = [
            (value.save == Some(true), "save"),
            (value.save == Some(false), "nosave"),
            (value.now, "now"),
            (value.force, "force"),
        ];
        let words: Vec<&str> =
            words.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
        if words.is_empty() { "default".to_owned() } else { words.join(" ") }
    }

    fn shape(&self) -> String {
        "default | save|nosave|now|force ...".to_owned()
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

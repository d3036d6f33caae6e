//! Kinds of values that are one word: yes or no, numbers, sizes, texts, paths, addresses.
//!
//! Error messages are those of Redis wherever it has one.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::IpAddr;
use std::path::PathBuf;

use super::machine_memory::machine_memory;
use super::{quoting, units};

/// Why a value was refused.
pub(super) type Reason = Cow<'static, str>;

/// A kind of value: how values are parsed and formatted.
pub(super) trait ValueKind {
    /// The type of a field of this kind.
    type Value;
    /// Whether a value has several words, so that a value given as one word is split.
    const LIST: bool = false;

    /// Parses a value. `old` is the value so far; with `fresh` the result replaces `old`, otherwise
    /// it may add to it (only for kinds whose lines add up).
    fn read(&self, old: &Self::Value, words: &[String], fresh: bool)
    -> Result<Self::Value, Reason>;

    /// Formats a value for CONFIG GET; [`ValueKind::read`] restores it.
    fn show(&self, value: &Self::Value) -> String;

    /// The values to write after the name in a file, one per line.
    fn lines(&self, value: &Self::Value) -> Vec<String> {
        let shown = self.show(value);
        vec![if Self::LIST && !shown.is_empty() { shown } else { quoting::quote(&shown) }]
    }

    /// The syntax of a value, for help and messages.
    fn shape(&self) -> String;
}

/// The only word of a value.
pub(super) fn only(words: &[String]) -> Result<&str, Reason> {
    match words {
        [word] => Ok(word),
        _ => Err("wrong number of arguments".into()),
    }
}

/// `yes` or `no`.
pub(super) struct YesNo;

impl ValueKind for YesNo {
    type Value = bool;

    fn read(&self, _old: &bool, words: &[String], _fresh: bool) -> Result<bool, Reason> {
        let word = only(words)?;
        match word {
            _ if word.eq_ignore_ascii_case("yes") => Ok(true),
            _ if word.eq_ignore_ascii_case("no") => Ok(false),
            _ => Err("argument must be 'yes' or 'no'".into()),
        }
    }

    fn show(&self, value: &bool) -> String {
        if *value { "yes" } else { "no" }.to_owned()
    }

    fn shape(&self) -> String {
        "yes|no".to_owned()
    }
}

fn between(low: impl Display, high: impl Display) -> Reason {
    format!("argument must be between {low} and {high} inclusive").into()
}

/// A decimal integer between two bounds, both included.
pub(super) struct IntegerRange<T> {
    pub(super) low: T,
    pub(super) high: T,
}

impl<T: Copy + Display + PartialOrd + TryFrom<i64>> ValueKind for IntegerRange<T> {
    type Value = T;

    fn read(&self, _old: &T, words: &[String], _fresh: bool) -> Result<T, Reason> {
        let word = only(words)?;
        // Redis takes the canonical form only: no plus sign, no leading zeros.
        let number = word.parse::<i64>().ok().filter(|number| number.to_string() == word);
        let number = number.ok_or("argument couldn't be parsed into an integer")?;
        T::try_from(number)
            .ok()
            .filter(|number| self.low <= *number && *number <= self.high)
            .ok_or_else(|| between(self.low, self.high))
    }

    fn show(&self, value: &T) -> String {
        value.to_string()
    }

    fn shape(&self) -> String {
        format!("<{}..{}>", self.low, self.high)
    }
}

/// A decimal integer that counts as the nearest bound if it is not between two of them.
pub(super) struct ClampedInteger {
    pub(super) low: u32,
    pub(super) high: u32,
}

impl ValueKind for ClampedInteger {
    type Value = u32;

    fn read(&self, old: &u32, words: &[String], fresh: bool) -> Result<u32, Reason> {
        let accepted = IntegerRange { low: 0, high: i32::MAX.unsigned_abs() };
        Ok(accepted.read(old, words, fresh)?.clamp(self.low, self.high))
    }

    fn show(&self, value: &u32) -> String {
        value.to_string()
    }

    fn shape(&self) -> String {
        format!("<{}..{}>", self.low, self.high)
    }
}

/// A number of bytes between two bounds, with units.
pub(super) struct ByteSize {
    pub(super) low: u64,
    pub(super) high: u64,
    /// Whether a share of the machine's memory such as `50%` is accepted.
    pub(super) percent: bool,
}

impl ByteSize {
    fn percent_of_memory(&self, word: &str) -> Option<u64> {
        let percent = word.strip_suffix('%').filter(|_| self.percent)?;
        let percent: u64 = percent.parse().ok().filter(|n: &u64| n.to_string() == percent)?;
        (1..=100).contains(&percent).then(|| machine_memory().effective / 100 * percent)
    }
}

impl ValueKind for ByteSize {
    type Value = u64;

    fn read(&self, _old: &u64, words: &[String], _fresh: bool) -> Result<u64, Reason> {
        let word = only(words)?;
        let bytes = units::parse(word).or_else(|| self.percent_of_memory(word));
        let bytes = bytes.ok_or("argument must be a memory value")?;
        let fits = (self.low..=self.high).contains(&bytes);
        if fits { Ok(bytes) } else { Err(between(self.low, self.high)) }
    }

    fn show(&self, value: &u64) -> String {
        value.to_string()
    }

    fn lines(&self, value: &u64) -> Vec<String> {
        vec![units::show(*value)]
    }

    fn shape(&self) -> String {
        let percent = if self.percent { ", 50%" } else { "" };
        format!("<bytes, 64mb, 1gb{percent}>")
    }
}

/// File permissions in octal.
pub(super) struct Permissions;

impl ValueKind for Permissions {
    type Value = u32;

    fn read(&self, _old: &u32, words: &[String], _fresh: bool) -> Result<u32, Reason> {
        let word = only(words)?;
        let octal = Some(word).filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
        let mode = octal.and_then(|word| u32::from_str_radix(word, 8).ok());
        let mode = mode.ok_or("argument couldn't be parsed as an octal number")?;
        if mode <= 0o777 { Ok(mode) } else { Err(between("0", "777")) }
    }

    fn show(&self, value: &u32) -> String {
        format!("{value:o}")
    }

    fn shape(&self) -> String {
        "<octal, 700>".to_owned()
    }
}

/// A text; empty: None.
pub(super) struct TextValue;

impl ValueKind for TextValue {
    type Value = Option<String>;

    fn read(
        &self,
        _old: &Option<String>,
        words: &[String],
        _fresh: bool,
    ) -> Result<Option<String>, Reason> {
        let word = only(words)?;
        Ok(Some(word.to_owned()).filter(|text| !text.is_empty()))
    }

    fn show(&self, value: &Option<String>) -> String {
        value.clone().unwrap_or_default()
    }

    fn shape(&self) -> String {
        "<text>".to_owned()
    }
}

fn path_text(word: &str) -> Result<&str, Reason> {
    if word.contains('\0') { Err("a path can't hold a NUL byte".into()) } else { Ok(word) }
}

/// A path; empty: None.
pub(super) struct OptionalPath;

impl ValueKind for OptionalPath {
    type Value = Option<PathBuf>;

    fn read(
        &self,
        _old: &Option<PathBuf>,
        words: &[String],
        _fresh: bool,
    ) -> Result<Option<PathBuf>, Reason> {
        let word = path_text(only(words)?)?;
        Ok(Some(PathBuf::from(word)).filter(|path| !path.as_os_str().is_empty()))
    }

    fn show(&self, value: &Option<PathBuf>) -> String {
        value.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }

    fn shape(&self) -> String {
        "<path>".to_owned()
    }
}

/// A directory.
pub(super) struct DirectoryPath;

impl ValueKind for DirectoryPath {
    type Value = PathBuf;

    fn read(&self, _old: &PathBuf, words: &[String], _fresh: bool) -> Result<PathBuf, Reason> {
        match path_text(only(words)?)? {
            "" => Err("a directory's name can't be empty".into()),
            word => Ok(PathBuf::from(word)),
        }
    }

    fn show(&self, value: &PathBuf) -> String {
        value.display().to_string()
    }

    fn shape(&self) -> String {
        "<directory>".to_owned()
    }
}

/// The name of a file, without a path.
pub(super) struct FileName;

impl ValueKind for FileName {
    type Value = String;

    fn read(&self, _old: &String, words: &[String], _fresh: bool) -> Result<String, Reason> {
        match path_text(only(words)?)? {
            "" | "." | ".." => Err("dbfilename must name a file".into()),
            word if word.contains('/') => Err("dbfilename can't be a path, just a filename".into()),
            word => Ok(word.to_owned()),
        }
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }

    fn shape(&self) -> String {
        "<file name>".to_owned()
    }
}

/// An IP address to listen on.
pub(super) struct ListenAddress;

impl ValueKind for ListenAddress {
    type Value = IpAddr;

    fn read(&self, _old: &IpAddr, words: &[String], _fresh: bool) -> Result<IpAddr, Reason> {
        parse_address(only(words)?)
    }

    fn show(&self, value: &IpAddr) -> String {
        show_address(*value)
    }

    fn shape(&self) -> String {
        "<IP address>".to_owned()
    }
}

/// Reads an IP address; `*` is every IPv4 one of this machine, `::*` every IPv6 one.
pub(super) fn parse_address(word: &str) -> Result<IpAddr, Reason> {
    match word {
        "*" => Ok(IpAddr::from([0; 4])),
        "::*" => Ok(IpAddr::from([0; 16])),
        _ => word.parse().map_err(|_| {
            "an IP address is needed, such as 127.0.0.1, ::1, * or ::*; names are not looked up"
                .into()
        }),
    }
}

/// Formats an IP address as [`parse_address`] reads it.
pub(super) fn show_address(address: IpAddr) -> String {
    match address {
        any if !any.is_unspecified() => any.to_string(),
        IpAddr::V4(_) => "*".to_owned(),
        IpAddr::V6(_) => "::*".to_owned(),
    }
}

/// The classes of events that `A` stands for, in the order of Redis.
const EVENT_CLASSES: &str = "g$lshzxetd";
/// The other letters, in the order of Redis.
const OTHER_EVENTS: &str = "KEmn";

/// The classes of keyspace events to publish: letters, in normalized order.
pub(super) struct KeyspaceEvents;

impl ValueKind for KeyspaceEvents {
    type Value = String;

    fn read(&self, _old: &String, words: &[String], _fresh: bool) -> Result<String, Reason> {
        let word = only(words)?;
        let known = |c| c == 'A' || EVENT_CLASSES.contains(c) || OTHER_EVENTS.contains(c);
        if !word.chars().all(known) {
            return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into());
        }
        let asked = |c: &char| word.contains(*c);
        let all = word.contains('A') || EVENT_CLASSES.chars().all(|c| word.contains(c));
        let classes: String =
            if all { "A".to_owned() } else { EVENT_CLASSES.chars().filter(asked).collect() };
        Ok(classes + &OTHER_EVENTS.chars().filter(asked).collect::<String>())
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }

    fn shape(&self) -> String {
        "<letters of Ag$lshzxeKEtmdn>".to_owned()
    }
}

//! Writes the lines of an INFO reply and INFO's forms of numbers.

use std::fmt::{Display, Write};

/// An INFO reply under construction.
#[derive(Default)]
pub(super) struct InfoWriter(String);

impl InfoWriter {
    /// Begins a section.
    pub(super) fn section(&mut self, title: &str) {
        let gap = if self.0.is_empty() { "" } else { "\r\n" };
        self.write(format_args!("{gap}# {title}\r\n"));
    }

    /// Writes one field. Line breaks in the value become spaces.
    pub(super) fn field(&mut self, name: impl Display, value: impl Display) {
        self.write(format_args!("{name}:"));
        let start = self.0.len();
        self.write(format_args!("{value}"));
        if self.0[start..].contains(['\r', '\n']) {
            let clean = self.0[start..].replace(['\r', '\n'], " ");
            self.0.replace_range(start.., &clean);
        }
        self.0.push_str("\r\n");
    }

    /// Fields that are always zero: they count features that the server does not have.
    pub(super) fn zeros(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.field(name, 0));
    }

    /// A number of bytes, as a number and in a readable form (`_human`).
    pub(super) fn bytes(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.human(name, bytes);
    }

    /// A number of bytes in a readable form (`_human`) only.
    pub(super) fn human(&mut self, name: &str, bytes: u64) {
        self.field(format_args!("{name}_human"), HumanBytes(bytes));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.0.write_fmt(text);
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// Formats bytes in units of 1024 with two decimals.
struct HumanBytes(u64);

impl Display for HumanBytes {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 < 1024 {
            return write!(out, "{}B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut units = "KMGTPE".chars();
        let mut unit = units.next();
        while value >= 1024.0 {
            value /= 1024.0;
            unit = units.next();
        }
        write!(out, "{value:.2}{}", unit.unwrap_or('E'))
    }
}

/// `part / whole`; 0 when `whole` is 0.
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// `part / whole` in percent.
pub(super) fn percent(part: u64, whole: u64) -> impl Display {
    let value = ratio(part, whole) * 100.0;
    format!("{value:.2}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_as_in_redis() {
        let human = |bytes| HumanBytes(bytes).to_string();
        assert_eq!(human(0), "0B");
        assert_eq!(human(1023), "1023B");
        assert_eq!(human(990_688), "967.47K");
        assert_eq!(human(7_102_464), "6.77M");
        assert_eq!(human(25_276_510_208), "23.54G");
        assert_eq!(human(u64::MAX), "16.00E");
    }

    #[test]
    fn sections_are_set_apart_and_values_stay_on_their_line() {
        let mut out = InfoWriter::default();
        out.section("One");
        out.field("error", "no\r\n# Fake\nspace");
        out.section("Two");
        assert_eq!(out.finish(), "# One\r\nerror:no  # Fake space\r\n\r\n# Two\r\n");
    }
}

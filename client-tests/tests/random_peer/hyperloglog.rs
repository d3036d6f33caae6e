//! Commands of HyperLogLogs.

use super::words::{Arguments, Line, Words};

/// An element: of few, so that sets overlap, or of many.
fn element(words: &mut Words) -> String {
    let most = if words.chance(50) { 100 } else { 1_000_000 };
    words.number(0, most).to_string()
}

/// A value without elements, as a client might write it: header, and opcodes for runs of zeros. All
/// bytes are ASCII. No value is damaged, because a PFADD that finds the damage behind its first
/// element has added that element in Redis.
fn value(words: &mut Words) -> String {
    let validity = words.one(&["\0", "\0", "\u{1}"]);
    let mut value = format!("HYLL\u{1}\0\0\0\u{7}\0\0\0\0\0\0{validity}");
    let mut left = 16_384u32;
    while left > 0 {
        let most = if words.chance(60) { 64 } else { left };
        let rest = u32::try_from(words.number(0, most.min(left).into())).unwrap_or_default();
        // Without the highest bit of the second byte.
        let rest = rest.saturating_sub(1) & !0x80;
        let [low, high, ..] = rest.to_le_bytes();
        if rest >= 64 {
            value.push(char::from(0x40 | high));
        }
        value.push(char::from(low));
        left -= rest + 1;
    }
    value
}

pub fn hyperloglog_command(words: &mut Words) -> Arguments {
    let choice = words.random.below(40);
    let line = Line { words, line: Vec::new() };
    let line = match choice {
        0..=11 => line.add("PFADD").key().several(8, element),
        12..=13 => line.add("PFADD").key().several(200, element),
        14 => line.add("PFADD").key(),
        15..=18 => line.add("PFCOUNT").key(),
        19..=20 => line.add("PFCOUNT").several(3, Words::key),
        21..=24 => line.add("PFMERGE").several(3, Words::key),
        25..=30 => line.add("GET").key(),
        31 => line.add("PFDEBUG").chosen(&["GETREG", "TODENSE", "nothing"]).key(),
        32..=33 => line.add("PFDEBUG").chosen(&["DECODE", "ENCODING"]).key(),
        34 => line.add("DEL").key(),
        35 => line.chosen(&["STRLEN", "TYPE"]).key(),
        36..=37 => line.add("SET").chosen(&["a", "b"]).several(1, value),
        38 => line
            .add("SETRANGE")
            .chosen(&["c", "d"])
            .several(1, |words| words.number(5, 15).to_string())
            .chosen(&["\u{1}", "\0", "\u{7f}"]),
        _ => line.add("COPY").key().chosen(&["a", "b", "c", "d"]).perhaps(60, "REPLACE"),
    };
    line.line
}

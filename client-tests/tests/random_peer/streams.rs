//! Commands of streams.

use super::words::{Arguments, Line, Words};

pub fn stream_command(words: &mut Words) -> Arguments {
    const IDLE: &[&str] = &["0", "0", "0", "100000", "-1", "x"];
    let choice = words.random.below(64);
    let line = Line { words, line: Vec::new() };
    let line = match choice {
        0..=13 => {
            let line = line.add("XADD").several(1, Words::stream).perhaps(10, "NOMKSTREAM");
            let line = if line.words.chance(15) { line.trimmed() } else { line };
            line.several(1, Words::new_id).twice(Words::member).several(2, Words::member)
        }
        14..=15 => line.add("XTRIM").several(1, Words::stream).trimmed(),
        16..=18 => line.add("XDEL").several(1, Words::stream).several(3, Words::id),
        19 => line.chosen(&["XLEN", "TYPE", "EXISTS"]).several(1, Words::stream),
        20..=22 => line
            .chosen(&["XRANGE", "XREVRANGE"])
            .several(1, Words::stream)
            .twice(Words::id_bound)
            .count(30),
        23..=25 => line.add("XREAD").count(40).streams("0"),
        26 => {
            line.add("XGROUP").add("CREATE").grouped().several(1, Words::id).perhaps(9, "MKSTREAM")
        }
        27 => line.add("XGROUP").add("CREATE").grouped().add("$").perhaps(30, "MKSTREAM"),
        28 => line.add("XGROUP").add("SETID").grouped().several(1, Words::id),
        29 => line.add("XGROUP").add("DELCONSUMER").grouped().consumer(),
        30 => line.add("XGROUP").add("CREATECONSUMER").grouped().consumer(),
        31..=42 => {
            let line = line.add("XREADGROUP").add("GROUP").several(1, Words::group).consumer();
            line.count(70).perhaps(10, "NOACK").streams(">")
        }
        43..=46 => line.add("XACK").grouped().several(3, Words::id),
        47..=48 => line.add("XPENDING").grouped(),
        49..=50 => {
            let line = line.add("XPENDING").grouped();
            let line = if line.words.chance(30) { line.add("IDLE").chosen(IDLE) } else { line };
            let line = line.twice(Words::id_bound).chosen(&["1", "5", "100"]);
            if line.words.chance(30) { line.consumer() } else { line }
        }
        51..=54 => line
            .add("XCLAIM")
            .grouped()
            .consumer()
            .chosen(IDLE)
            .several(4, Words::id)
            .claim_options(),
        55..=57 => line
            .add("XAUTOCLAIM")
            .grouped()
            .consumer()
            .chosen(IDLE)
            .several(1, Words::id_bound)
            .count(40)
            .perhaps(30, "JUSTID"),
        58..=59 => line.add("XINFO").add("GROUPS").several(1, Words::stream),
        60 => line.add("XINFO").add("CONSUMERS").grouped(),
        61 => line.add("XSETID").several(1, Words::stream).several(1, Words::id),
        62 => match line.words.random.below(30) {
            0 => line.add("XGROUP").add("DESTROY").grouped(),
            1 => line.add("DEL").several(1, Words::stream),
            2 => line.add("COPY").chosen(&["a", "b"]).chosen(&["a", "b"]).add("REPLACE"),
            3 => line.add("RENAME").chosen(&["a", "b"]).chosen(&["a", "b"]),
            _ => line.add("XRANGE").several(1, Words::stream).add("-").add("+"),
        },
        _ => line.add("XREADGROUP").add("GROUP").several(1, Words::group).consumer().streams("0"),
    };
    line.line
}

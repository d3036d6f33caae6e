//! Geo commands.
//!
//! Distances that are equal, of which COUNT leaves some out, do not occur: positions have many
//! digits. The scores of results that are distances are not read, since Redis 7.0 formats them
//! otherwise than later versions.

use super::words::{Arguments, Line, Words};

const UNITS: [&str; 6] = ["m", "km", "ft", "mi", "KM", "miles"];

fn degrees(words: &mut Words, middle: f64, most: f64) -> f64 {
    let share = words.number(-100_000_000, 100_000_000) as f64 / 1e8;
    middle + share * most
}

/// Longitude and latitude, of few regions: a town, a country, the date line, the poles, the globe.
fn position(words: &mut Words) -> [String; 2] {
    let (longitude, latitude, most) = match words.random.below(12) {
        0..=3 => (13.4, 52.5, 0.2),
        4..=6 => (13.4, 52.5, 5.0),
        7 => (179.8, -17.0, 0.2),
        8 => (-179.8, -17.0, 0.2),
        9 => (20.0, 84.0, 1.0),
        _ => (0.0, 0.0, 85.0),
    };
    [degrees(words, longitude, most), degrees(words, latitude, most)].map(|one| one.to_string())
}

/// A longitude or latitude that is refused, or at the edge.
fn odd(words: &mut Words) -> String {
    words.one(&["180", "-180", "181", "85.05112878", "86", "inf", "x", "", "nan"]).to_owned()
}

fn member(words: &mut Words) -> String {
    format!("m{}", words.number(0, 60))
}

fn length(words: &mut Words) -> String {
    match words.random.below(20) {
        0 => words.one(&["0", "-1", "x", "inf", "1e9"]).to_owned(),
        1..=10 => (words.number(0, 100_000_000) as f64 / 1e6).to_string(),
        11..=16 => words.number(0, 5_000).to_string(),
        _ => words.number(0, 30_000_000).to_string(),
    }
}

fn center(line: Line<'_>) -> Line<'_> {
    let [longitude, latitude] = position(line.words);
    match line.words.random.below(20) {
        0..=9 => line.add("FROMMEMBER").several(1, member),
        10..=18 => line.add("FROMLONLAT").add(longitude).add(latitude),
        _ => line.add("FROMLONLAT").twice(odd),
    }
}

fn shape(line: Line<'_>) -> Line<'_> {
    match line.words.chance(50) {
        true => line.add("BYRADIUS").several(1, length).chosen(&UNITS),
        false => line.add("BYBOX").twice(length).chosen(&UNITS),
    }
}

fn order(line: Line<'_>) -> Line<'_> {
    let line = line.perhaps(25, "ASC").perhaps(25, "DESC");
    match line.words.random.below(20) {
        0..=5 => line.add("COUNT").several(1, |words| words.number(1, 20).to_string()),
        6..=10 => line.add("COUNT").several(1, |words| words.number(1, 9).to_string()).add("ANY"),
        11 => line.add("COUNT").several(1, Words::rank).perhaps(30, "ANY"),
        _ => line,
    }
}

fn parts(line: Line<'_>) -> Line<'_> {
    line.perhaps(30, "WITHDIST").perhaps(30, "WITHHASH").perhaps(30, "withcoord")
}

fn add(line: Line<'_>) -> Line<'_> {
    let mut line = line.add("GEOADD").key().perhaps(10, "NX").perhaps(10, "XX").perhaps(30, "CH");
    for _ in 0..line.words.number(1, 6) {
        let [longitude, latitude] = position(line.words);
        line = line.add(longitude).add(latitude).several(1, member);
    }
    line.perhaps(3, "alone")
}

pub fn geo_command(words: &mut Words) -> Arguments {
    let choice = words.random.below(40);
    let line = Line { words, line: Vec::new() };
    let [longitude, latitude] = position(line.words);
    let line = match choice {
        0..=11 => add(line),
        12 => line.add("GEOADD").key().twice(odd).several(1, member),
        13..=14 => line.add("GEOPOS").key().several(4, member),
        15 => line.add("GEOHASH").key().several(4, member),
        16..=17 => line.add("GEODIST").key().twice(member).chosen(&UNITS),
        18..=25 => parts(order(shape(center(line.add("GEOSEARCH").key())))),
        26..=27 => parts(order(center(shape(line.add("GEOSEARCH").key())))),
        28..=29 => {
            let line = line.add("GEOSEARCHSTORE").chosen(&["a", "b", "c"]).key();
            order(shape(center(line))).perhaps(5, "WITHDIST")
        }
        30 => {
            let line = line.add("GEOSEARCHSTORE").add("distances").key();
            order(shape(center(line))).add("STOREDIST")
        }
        31..=32 => {
            let line = line.chosen(&["GEORADIUS", "GEORADIUS_RO"]).key();
            let line = line.add(longitude).add(latitude).several(1, length).chosen(&UNITS);
            parts(order(line)).perhaps(3, "STORE")
        }
        33..=34 => {
            let line = line.chosen(&["GEORADIUSBYMEMBER", "GEORADIUSBYMEMBER_RO"]).key();
            parts(order(line.several(1, member).several(1, length).chosen(&UNITS)))
        }
        35 => {
            let line = line.add("GEORADIUS").key().add(longitude).add(latitude);
            let line = order(line.several(1, length).chosen(&UNITS));
            line.perhaps(20, "WITHHASH").add("STORE").chosen(&["a", "b", "c"])
        }
        36 => {
            let line = line.add("GEORADIUSBYMEMBER").key().several(1, member);
            order(line.several(1, length).chosen(&UNITS)).add("STOREDIST").add("distances")
        }
        37 => line.add("ZREM").key().several(3, member),
        38 => line.add("ZRANGE").key().add("0").add("-1").add("WITHSCORES"),
        _ => line.add("ZCARD").chosen(&["a", "distances"]),
    };
    line.line
}

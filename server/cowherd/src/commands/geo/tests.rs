use super::*;
use crate::commands::testing::{TestServer, follow, refuse_too_few, words};
use crate::config::Config;

const SYNTAX: &str = "-ERR syntax error";
const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";
const UNIT: &str = "-ERR unsupported unit provided. please use M, KM, FT, MI";

/// Two towns of Sicily, as in the documentation of Redis.
fn sicily() -> TestServer {
    let server = TestServer::with(64 << 20, Config::default());
    server.run("GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania");
    server
}

#[test]
fn every_command_counts_its_arguments() {
    refuse_too_few(&sicily(), COMMANDS);
}

#[test]
fn other_types_are_refused() {
    let server = sicily();
    server.run("SET s string");
    for line in [
        "GEOADD s 0 0 a",
        "GEODIST s a b",
        "GEOHASH s",
        "GEOPOS s a",
        "GEOSEARCH s a b c d e f",
        "GEOSEARCHSTORE g s a b c d e f",
        "GEORADIUS s a b c d",
        "GEORADIUSBYMEMBER_RO s a b c",
    ] {
        follow(&server, &[(line, WRONG_TYPE)]);
    }
}

#[test]
fn geoadd_is_zadd_of_positions() {
    let server = sicily();
    follow(
        &server,
        &[
            ("ZSCORE g Palermo", "$16\r\n3479099956230698"),
            ("GEOADD g 13.361389 38.115556 Palermo", ":0"),
            ("GEOADD g CH 13.4 38.1 Palermo", ":1"),
            ("GEOADD g NX CH 13.5 38.1 Palermo 1 1 new", ":1"),
            ("GEOADD g XX 13.5 38.1 none", ":0"),
            ("GEOADD none XX 13.5 38.1 none", ":0"),
            ("EXISTS none", ":0"),
            ("GEOADD g NX XX 13.5 38.1 Palermo", SYNTAX),
            ("GEOADD g 13.5 38.1 Palermo 1", SYNTAX),
            ("GEOADD g NX CH CH", SYNTAX),
            ("GEOADD g 181 0 a", "-ERR invalid longitude,latitude pair 181.000000,0.000000"),
            ("GEOADD g inf 0 a", "-ERR invalid longitude,latitude pair inf,0.000000"),
            ("GEOADD g x 0 a", "-ERR value is not a valid float"),
            ("GEOADD g 1 1 a 0 86 b", "-ERR invalid longitude,latitude pair 0.000000,86.000000"),
            ("ZSCORE g a", "$-1"),
        ],
    );
}

#[test]
fn members_have_positions_hashes_and_distances() {
    let server = sicily();
    let place = "*2\r\n$20\r\n13.36138933897018433\r\n$20\r\n38.11555639549629859";
    follow(
        &server,
        &[
            ("GEOPOS g Palermo none", &format!("*2\r\n{place}\r\n*-1")),
            ("GEOPOS none a", "*1\r\n*-1"),
            ("GEOPOS g", "*0"),
            ("GEOHASH g Palermo none", "*2\r\n$11\r\nsqc8b49rny0\r\n$-1"),
            ("GEODIST g Palermo Catania", "$11\r\n166274.1516"),
            ("GEODIST g Palermo Catania KM", "$8\r\n166.2742"),
            ("GEODIST g Palermo Palermo mi", "$6\r\n0.0000"),
            ("GEODIST g Palermo none", "$-1"),
            ("GEODIST none a b", "$-1"),
            ("GEODIST none a b parsec", UNIT),
            ("GEODIST g a b m m", SYNTAX),
        ],
    );
    let server = server.resp3();
    let place = "*2\r\n,13.36138933897018433\r\n,38.11555639549629859";
    follow(&server, &[("GEOPOS g Palermo none", &format!("*2\r\n{place}\r\n_"))]);
}

#[test]
fn searches_find_members() {
    let server = sicily();
    for (line, expected) in [
        ("GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km ASC", "Catania Palermo"),
        ("GEOSEARCH g BYRADIUS 200 km FROMLONLAT 15 37 DESC COUNT 1", "Palermo"),
        ("GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km COUNT 1 ANY", "Palermo"),
        ("GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km COUNT 1", "Catania"),
        ("GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 100 km", "Catania"),
        (
            "GEOSEARCH g FROMLONLAT 15 37 BYBOX 400 400 km ASC WITHDIST",
            "Catania 56.4413 Palermo 190.4424",
        ),
        ("GEOSEARCH g FROMMEMBER Palermo BYRADIUS 0 m WITHHASH", "Palermo :3479099956230698"),
        ("GEOSEARCH g FROMMEMBER Palermo FROMMEMBER Catania BYRADIUS 1 m", "Catania"),
        ("GEORADIUS g 15 37 200 km WITHDIST DESC", "Palermo 190.4424 Catania 56.4413"),
        ("GEORADIUS_RO g 15 37 200 km COUNT 1", "Catania"),
        ("GEORADIUSBYMEMBER g Palermo 200 km", "Palermo Catania"),
        ("GEORADIUSBYMEMBER_RO g Palermo 100 km", "Palermo"),
        ("GEOSEARCH none FROMMEMBER x BYRADIUS 1 m", ""),
        ("GEORADIUSBYMEMBER none x y parsec", ""),
        ("GEOSEARCH g FROMMEMBER Palermo BYRADIUS inf m ASC", "Palermo Catania"),
    ] {
        assert_eq!(words(&server, line), expected, "{line}");
    }
}

#[test]
fn results_are_stored() {
    let server = sicily();
    follow(
        &server,
        &[
            ("GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 200 km", ":2"),
            ("ZSCORE d Palermo", "$16\r\n3479099956230698"),
            ("GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 200 km COUNT 1 STOREDIST", ":1"),
            ("ZRANGE d 0 -1 WITHSCORES", "*2\r\n$7\r\nCatania\r\n$16\r\n56.4412578701582"),
            ("GEORADIUS g 15 37 200 km STORE d STOREDIST e", ":2"),
            ("ZCARD e", ":2"),
            ("ZCARD d", ":1"),
            ("GEORADIUS g 15 37 200 km STOREDIST d STORE e STOREDIST d STORE d", ":2"),
            ("ZSCORE d Palermo", "$16\r\n3479099956230698"),
            ("GEORADIUSBYMEMBER none x y z STORE d", ":0"),
            ("EXISTS d", ":0"),
            ("GEOSEARCHSTORE e g FROMLONLAT 0 0 BYRADIUS 1 m", ":0"),
            ("EXISTS e", ":0"),
            ("GEORADIUS_RO g 15 37 200 km STORE d", SYNTAX),
            ("GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km STORE d", SYNTAX),
            ("GEOSEARCH g FROMLONLAT 15 37 BYRADIUS 200 km STOREDIST", SYNTAX),
            ("GEORADIUS g 15 37 200 km STORE", SYNTAX),
            ("GEOSEARCHSTORE g g FROMMEMBER Palermo BYRADIUS 1 km", ":1"),
            ("ZCARD g", ":1"),
        ],
    );
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let server = sicily();
    let one = |options, command: &str| {
        format!("-ERR exactly one of {options} can be specified for {command}")
    };
    let with = "is not compatible with WITHDIST, WITHHASH and WITHCOORD options";
    for (line, error) in [
        ("GeoSearch g BYRADIUS 1 m ASC ASC", &*one("FROMMEMBER or FROMLONLAT", "GeoSearch")),
        ("GEOSEARCH g FROMLONLAT 1 1 ASC ASC", &one("BYRADIUS and BYBOX", "GEOSEARCH")),
        ("GEOSEARCH g FROMMEMBER none BYRADIUS 1 m", "-ERR could not decode requested zset member"),
        ("GEOSEARCH g FROMMEMBER Palermo FROMLONLAT 1 2 BYRADIUS 1 m", SYNTAX),
        ("GEOSEARCH g FROMLONLAT 1 2 BYRADIUS 1 m BYBOX 1 1 m", SYNTAX),
        ("GEOSEARCH g FROMLONLAT 1 2 BYRADIUS x m", "-ERR need numeric radius"),
        ("GEOSEARCH g FROMLONLAT 1 2 BYRADIUS -1 m", "-ERR radius cannot be negative"),
        ("GEOSEARCH g FROMLONLAT 1 2 BYRADIUS 1 parsec", UNIT),
        ("GEOSEARCH g FROMLONLAT 1 2 BYBOX x y m", "-ERR need numeric width"),
        ("GEOSEARCH g FROMLONLAT 1 2 BYBOX 1 y m", "-ERR need numeric height"),
        ("GEOSEARCH g FROMLONLAT 1 2 BYBOX 1 -1 m", "-ERR height or width cannot be negative"),
        ("GEOSEARCH g FROMLONLAT 1 2 BYRADIUS 1 m COUNT 0", "-ERR COUNT must be > 0"),
        ("GEOSEARCH g FROMLONLAT 1 2 BYRADIUS 1 m COUNT -5", "-ERR COUNT must be > 0"),
        ("GEOSEARCH g FROMLONLAT 1 2 BYRADIUS 1 m COUNT", SYNTAX),
        (
            "GEOSEARCH g FROMLONLAT 1 2 BYRADIUS 1 m ANY",
            "-ERR the ANY argument requires COUNT argument",
        ),
        (
            "GEOSEARCHSTORE d g FROMLONLAT 1 2 BYRADIUS 1 m WITHDIST",
            &format!("-ERR GEOSEARCHSTORE {with}"),
        ),
        ("GEORADIUS g 1 2 3 m WITHHASH STORE d", &format!("-ERR STORE option in GEORADIUS {with}")),
        ("GEORADIUS g 1 2 3 m FROMMEMBER Palermo", SYNTAX),
        ("GEORADIUSBYMEMBER g Palermo x parsec", "-ERR need numeric radius"),
        ("GEORADIUSBYMEMBER none x y z nonsense", SYNTAX),
        ("GEORADIUS none x 1 1 m", "-ERR value is not a valid float"),
    ] {
        follow(&server, &[(line, error)]);
    }
}

#[test]
fn the_target_of_a_search_is_one_of_its_keys() {
    let server = sicily();
    for (line, keys) in [
        ("GEORADIUS k 1 2 3 m STORE a", "k a"),
        ("GEORADIUS k 1 2 3 m STORE a STOREDIST b", "k a b"),
        ("GEORADIUS k 1 2 3 m STORE a STORE b", "k a"),
        ("GEORADIUS k 1 2 3 m STOREDIST STORE c", "k c STORE"),
        ("GEORADIUS k 1 2 3 m STORE", "k"),
        ("GEORADIUS k 1 2 3 store x", "k"),
        ("GEORADIUSBYMEMBER k store 3 m storedist x WITHDIST", "k x"),
        ("GEORADIUSBYMEMBER k m 3 store x", "k"),
        ("GEORADIUS_RO k 1 2 3 m STORE a", "k"),
        ("GEOSEARCHSTORE a b c d e f g h", "a b"),
    ] {
        assert_eq!(words(&server, &format!("COMMAND GETKEYS {line}")), keys, "{line}");
    }
    let flags = server.run("COMMAND GETKEYSANDFLAGS GEORADIUS k 1 2 3 m STOREDIST a");
    assert_eq!(
        flags,
        "*2\r\n*2\r\n$1\r\nk\r\n*2\r\n+RO\r\n+access\r\n*2\r\n$1\r\na\r\n*2\r\n+OW\r\n+update\r\n"
    );
}

#[test]
fn any_members_are_found_batch_by_batch() {
    for entries in [0, 10_000] {
        let config = Config { zset_max_listpack_entries: entries, ..Config::default() };
        let server = TestServer::with(64 << 20, config);
        for i in 0..500 {
            // Every other member is outside of the circle, and in the same cell.
            let latitude = if i % 2 == 0 { 38.0 } else { 38.9 };
            server.run(&format!("GEOADD g {} {latitude} m{i}", 13.0 + f64::from(i) / 1e5));
        }
        let found = |count: usize| {
            let line = format!("GEOSEARCH g FROMLONLAT 13 38 BYRADIUS 50 km COUNT {count} ANY");
            words(&server, &line).split(' ').count()
        };
        for count in [1, 63, 64, 65, 200, 250, 300] {
            assert_eq!(found(count), count.min(250), "{count}");
        }
    }
}

#[test]
fn hits_of_one_distance_keep_their_order() {
    let server = sicily();
    server.run("GEOADD same 1 1 c 1 1 a 1 1 b 1 1.00001 d");
    for (options, expected) in [
        ("ASC", "a b c d"),
        ("DESC", "d a b c"),
        ("ASC COUNT 2", "a b"),
        ("DESC COUNT 2", "d a"),
        ("COUNT 3", "a b c"),
    ] {
        let line = format!("GEOSEARCH same FROMLONLAT 1 1 BYRADIUS 1 km {options}");
        assert_eq!(words(&server, &line), expected, "{options}");
    }
}

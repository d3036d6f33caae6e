//! Commands with many elements in an arena that runs out of memory before the last one: a command
//! is executed completely or not at all.

use crate::config::Config;
use crate::keyspace::MemoryExhauster;

use super::testing::TestServer;

/// Commands that add to each type of value, with more elements than a compact value has.
fn commands() -> Vec<String> {
    let elements = |from: usize| (from..from + 120).map(|i| format!("element:{i}"));
    let long = |from: usize| elements(from).map(|name| name + &"x".repeat(90));
    let pairs = |names: Vec<String>| {
        names.iter().map(|name| format!("{name} {name}")).collect::<Vec<_>>().join(" ")
    };
    let scored = |names: Vec<String>| {
        names
            .iter()
            .enumerate()
            .map(|(i, name)| format!("{i} {name}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let placed = |names: Vec<String>| {
        names
            .iter()
            .enumerate()
            .map(|(i, name)| format!("{i} {} {name}", i / 2))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut commands = Vec::new();
    for names in [elements(50).collect::<Vec<_>>(), long(50).collect()] {
        commands.extend([
            format!("HSET hash {}", pairs(names.clone())),
            format!("HSETEX hash EX 1000 FIELDS 120 {}", pairs(names.clone())),
            format!("RPUSH list {}", names.join(" ")),
            format!("LPUSH list {}", names.join(" ")),
            format!("SADD set {}", names.join(" ")),
            format!("ZADD zset {}", scored(names.clone())),
            format!("PFADD sketch {}", names.join(" ")),
            format!("GEOADD zset {}", placed(names.clone())),
            format!("ZADD zset CH GT {}", scored(names.into_iter().rev().collect())),
        ]);
    }
    commands.extend(["SUNIONSTORE set set other".into(), "ZUNIONSTORE zset 2 zset other".into()]);
    commands.push("MSET text x hash x list x".into());
    commands.push("PFMERGE sketch dense".into());
    commands.push("GEOSEARCHSTORE near zset FROMLONLAT -180 -85 BYRADIUS 1000 km".into());
    // The first values are overwritten where they are, some of them twice.
    commands.push("MSET short y number 7 short long:x number 8 hash x list x text x".into());
    commands
}

/// Commands that prepare compact or large values; some elements occur again in the tested command.
fn begin(server: &TestServer, count: usize) {
    for i in 0..count {
        let name = format!("element:{i}");
        for line in [
            format!("HSET hash {name} {i}"),
            format!("RPUSH list {name}"),
            format!("SADD set {name}"),
            format!("ZADD zset {i} {name}"),
            format!("SADD other {name} other:{name} more:{name}"),
            format!("PFADD sketch {name}"),
            format!("PFADD dense {name} other:{name}"),
        ] {
            server.run(&line);
        }
    }
    server.run("MSET short x number 5");
    server.run("HEXPIRE hash 500 FIELDS 1 element:1");
    server.run("PFDEBUG TODENSE dense");
}

fn contents(server: &TestServer) -> String {
    // Fields are unordered.
    let fields = server.run("HGETALL hash");
    let mut fields: Vec<&str> = fields.lines().collect();
    fields.sort_unstable();
    let lines = [
        "HPTTL hash FIELDS 3 element:1 element:51 element:60",
        "LRANGE list 0 -1",
        "SORT set ALPHA",
        "ZRANGE zset 0 -1 WITHSCORES",
        "MGET text short number",
        "GET sketch",
    ];
    fields.concat() + &lines.map(|line| server.run(line)).concat()
}

/// Runs a command with a little more memory each time until it succeeds; returns the number of
/// failures.
fn refusals(command: &str, count: usize) -> usize {
    let config = || Config {
        hash_max_listpack_entries: 64,
        zset_max_listpack_entries: 64,
        set_max_listpack_entries: 64,
        list_max_listpack_size: 64,
        ..Config::default()
    };
    let server = TestServer::with(8 << 20, config());
    begin(&server, count);
    let space = &server.shared.keyspace;
    let before = contents(&server);
    for refused in 0.. {
        let (largest, smallest) = (refused / 4, 3 * (refused % 4));
        let mut scarcity = MemoryExhauster::default();
        // Objects of other shards are taken, too, since free units are shared.
        for shard in crate::keyspace::ShardIndex::all() {
            scarcity.take(space, shard);
        }
        scarcity.give_back(space, largest, smallest);
        let reply = server.run(command);
        scarcity.end(space);
        space.verify(1).unwrap();
        if !reply.starts_with("-OOM") {
            assert!(!reply.starts_with('-'), "{command}: {reply}");
            return refused;
        }
        assert_eq!(
            contents(&server),
            before,
            "{:.40} was refused for the {refused}. time",
            command
        );
    }
    unreachable!("there is memory in the end")
}

#[test]
fn a_command_that_finds_no_memory_midway_changes_nothing() {
    let mut most = 0;
    for command in commands() {
        for count in [3, 100] {
            let refused = refusals(&command, count);
            assert!(refused > 0, "{command:.40} needs no memory");
            most = most.max(refused);
        }
    }
    assert!(most > 8, "no command got far before it was refused");
}

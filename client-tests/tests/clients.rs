//! Compatibility with existing programs and client libraries of Redis.

use anyhow::{Context, Result, ensure};
use client_tests::binaries::run_cowherd;
use client_tests::server::Server;
use client_tests::wire::encode;
use client_tests::{TestResult, exporter, http, libraries, skip, tools};
use redis::geo::{Coord, RadiusOptions, RadiusOrder, RadiusSearchResult, Unit};
use redis::{Commands, ConnectionLike};
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a program with `-p PORT` and returns its standard output.
fn with_port(program: &str, server: &Server, arguments: &[&str], input: &[u8]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(["-p", &server.port().to_string()]).args(arguments);
    let outcome = tools::run(&mut command, input, DEADLINE)?;
    ensure!(outcome.stderr.is_empty(), "{command:?}: {}", outcome.stderr);
    outcome.success().with_context(|| format!("{command:?}"))
}

/// Skips the test if a program is not installed.
macro_rules! need {
    ($program:literal) => {
        if tools::find($program).is_none() {
            skip!("{} is not installed", $program);
        }
    };
}

#[test]
fn redis_cli_runs_single_commands() -> TestResult {
    need!("redis-cli");
    let server = Server::start()?;
    let cases: &[(&[&str], &str)] = &[
        (&["PING"], "PONG\n"),
        (&["SET", "name", "a value"], "OK\n"),
        (&["GET", "name"], "a value\n"),
        (&["GET", "missing"], "\n"),
        (&["--no-raw", "GET", "missing"], "(nil)\n"),
        (&["--no-raw", "INCR", "count"], "(integer) 1\n"),
        (&["-3", "GET", "count"], "1\n"),
        (&["-3", "--no-raw", "GET", "missing"], "(nil)\n"),
        (&["-n", "1", "DBSIZE"], "0\n"),
        (&["-r", "3", "INCR", "count"], "2\n3\n4\n"),
        (&["-3", "--json", "MGET", "name", "missing"], "[\"a value\",null]\n"),
        (&["INCR", "name"], "ERR value is not an integer or out of range\n\n"),
    ];
    for (arguments, expected) in cases {
        let wrote = with_port("redis-cli", &server, arguments, b"")?;
        ensure!(wrote == *expected, "{arguments:?}: expected {expected:?}, got {wrote:?}");
    }
    let wrote = with_port("redis-cli", &server, &["-x", "SET", "stdin"], b"from a pipe")?;
    ensure!(wrote == "OK\n" && server.text(&["GET", "stdin"])? == "from a pipe");
    let wrote = with_port("redis-cli", &server, &[], b"SET script 1\nGET script\n")?;
    ensure!(wrote == "OK\n1\n", "{wrote:?}");
    Ok(())
}

#[test]
fn redis_cli_shows_info_and_configuration() -> TestResult {
    need!("redis-cli");
    let server = Server::start()?;
    let info = with_port("redis-cli", &server, &["INFO"], b"")?;
    for field in [
        "redis_version:",
        "cowherd_version:",
        "redis_mode:standalone",
        "arch_bits:64",
        "process_id:",
        "run_id:",
        "tcp_port:",
        "uptime_in_seconds:",
        "cluster_enabled:0",
        "role:master",
        "loading:0",
        "rdb_bgsave_in_progress:0",
        "latest_fork_usec:",
        "used_memory_human:",
    ] {
        let found = info.lines().any(|line| line.starts_with(field));
        ensure!(found, "INFO lacks {field}:\n{info}");
    }
    let config = with_port("redis-cli", &server, &["CONFIG", "GET", "maxmemory"], b"")?;
    ensure!(config == format!("maxmemory\n{}\n", 256 << 20), "{config:?}");
    Ok(())
}

#[test]
fn redis_cli_stat_prints_its_lines() -> TestResult {
    need!("redis-cli");
    let server = Server::start()?;
    server.text(&["SET", "one", "1"])?;
    let mut child = Command::new("redis-cli")
        .args(["-p", &server.port().to_string(), "--stat", "-i", "0.1"])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().context("no output")?);
    // A headline, the column names, and two lines of figures.
    let lines = output.lines().take(4).collect::<Result<Vec<_>, _>>();
    child.kill()?;
    child.wait()?;
    let lines = lines?;
    ensure!(lines.len() == 4, "{lines:?}");
    for line in &lines[2..] {
        ensure!(line.split_whitespace().next() == Some("1"), "the key count is wrong: {line:?}");
    }
    Ok(())
}

#[test]
fn redis_cli_scans_the_keys() -> TestResult {
    need!("redis-cli");
    let server = Server::start()?;
    for n in 0..500 {
        server.text(&["SET", &format!("key:{n}"), &"x".repeat(n)])?;
    }
    let scanned = with_port("redis-cli", &server, &["--scan", "--pattern", "key:*"], b"")?;
    ensure!(scanned.lines().count() == 500);
    ensure!(scanned.lines().collect::<HashSet<_>>().len() == 500);
    let big = with_port("redis-cli", &server, &["--bigkeys"], b"")?;
    ensure!(big.contains("Biggest string found '\"key:499\"' has 499 bytes"), "{big}");
    ensure!(big.contains("Sampled 500 keys in the keyspace!"), "{big}");
    let memory = with_port("redis-cli", &server, &["--memkeys"], b"")?;
    ensure!(memory.contains("Sampled 500 keys in the keyspace!"), "{memory}");
    Ok(())
}

#[test]
fn redis_cli_pipe_loads_a_file() -> TestResult {
    need!("redis-cli");
    let server = Server::start()?;
    let mut input = Vec::new();
    for n in 0..20_000 {
        input.extend(encode(&["SET", &format!("piped:{n}"), "value"]));
    }
    let wrote = with_port("redis-cli", &server, &["--pipe"], &input)?;
    ensure!(wrote.contains("errors: 0, replies: 20000"), "{wrote}");
    ensure!(server.text(&["DBSIZE"])? == "20000");
    Ok(())
}

#[test]
fn redis_benchmark_finishes() -> TestResult {
    need!("redis-benchmark");
    let server = Server::start()?;
    for more in [&[][..], &["-P", "16", "--threads", "2"][..], &["-3", "-d", "5000"][..]] {
        let mut arguments = vec!["-t", "ping,set,get,incr,mset", "-n", "10000", "-q"];
        arguments.extend(more);
        let wrote = with_port("redis-benchmark", &server, &arguments, b"")?;
        for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"] {
            let line = format!("{test}: ");
            ensure!(
                wrote
                    .split(['\r', '\n'])
                    .any(|part| part.starts_with(&line) && part.contains("requests per second")),
                "no figures for {test}: {wrote}"
            );
        }
        ensure!(!wrote.contains("Error"), "{wrote}");
    }
    // 10,000 increments per run.
    ensure!(server.text(&["GET", "counter:__rand_int__"])? == "30000");
    Ok(())
}

#[test]
fn redis_py_works() -> TestResult {
    libraries::run_python("redis", "python_client.py", "ok")
}

#[test]
fn ioredis_works() -> TestResult {
    libraries::run_node("ioredis", "ioredis_client.mjs", "ioredis ok")
}

#[test]
fn node_redis_works() -> TestResult {
    libraries::run_node("redis", "node_redis_client.mjs", "node-redis ok")
}

#[test]
fn redis_rs_works_in_both_protocols() -> TestResult {
    let server = Server::start()?;
    for protocol in ["resp2", "resp3"] {
        let url = format!("redis://127.0.0.1:{}/1?protocol={protocol}", server.port());
        let mut connection = redis::Client::open(url)?.get_connection()?;
        ensure!(connection.check_connection());
        redis::cmd("FLUSHALL").exec(&mut connection)?;
        let () = connection.set("key", b"\0\r\n\xff")?;
        ensure!(connection.get::<_, Vec<u8>>("key")? == b"\0\r\n\xff");
        ensure!(connection.get::<_, Option<String>>("missing")?.is_none());
        let () = connection.mset(&[("a", 1), ("b", 2)])?;
        ensure!(
            connection.mget::<_, Vec<Option<i32>>>(&["a", "none", "b"])?
                == [Some(1), None, Some(2)]
        );
        ensure!(connection.incr::<_, _, i64>("a", 41)? == 42);
        ensure!(connection.expire::<_, bool>("a", 100)?);
        ensure!(connection.ttl::<_, i64>("a")? > 0);
        ensure!(connection.del::<_, i64>(&["a", "b"])? == 2);
        let mut pipeline = redis::pipe();
        for n in 0..1000 {
            pipeline.set(format!("p:{n}"), n).ignore();
            pipeline.get(format!("p:{n}"));
        }
        ensure!(pipeline.query::<Vec<i32>>(&mut connection)? == (0..1000).collect::<Vec<_>>());
        let keys = connection.scan_match("p:*")?.collect::<Result<HashSet<String>, _>>()?;
        ensure!(keys.len() == 1000, "SCAN found {}", keys.len());
        redis_rs_uses_all_types(&mut connection)?;
        redis_rs_uses_sketches_and_places(&mut connection)?;
        let error = connection.incr::<_, _, i64>("key", 1).err().context("INCR of bytes worked")?;
        ensure!(error.to_string().contains("not an integer"), "{error}");
    }
    Ok(())
}

fn redis_rs_uses_all_types(connection: &mut redis::Connection) -> TestResult {
    let () = connection.hset_multiple("hash", &[("a", 1), ("b", 2)])?;
    let fields: HashMap<String, i64> = connection.hgetall("hash")?;
    ensure!(fields == HashMap::from([("a".into(), 1), ("b".into(), 2)]));
    ensure!(connection.rpush::<_, _, i64>("list", &["x", "y", "z"])? == 3);
    let popped: (String, String) = connection.blpop("list", 5.0)?;
    ensure!(popped == ("list".into(), "x".into()));
    ensure!(connection.lrange::<_, Vec<String>>("list", 0, -1)? == ["y", "z"]);
    ensure!(connection.sadd::<_, _, i64>("set", &["a", "b", "a"])? == 2);
    ensure!(connection.smembers::<_, HashSet<String>>("set")?.len() == 2);
    ensure!(connection.zadd_multiple::<_, _, _, i64>("zset", &[(1, "one"), (3, "three")])? == 2);
    let ranked: Vec<(String, f64)> = connection.zrange_withscores("zset", 0, -1)?;
    ensure!(ranked == [("one".into(), 1.0), ("three".into(), 3.0)]);
    let id: String = connection.xadd("stream", "*", &[("field", "value")])?;
    let entries: redis::streams::StreamRangeReply = connection.xrange_all("stream")?;
    ensure!(entries.ids.len() == 1 && entries.ids[0].id == id);
    ensure!(entries.ids[0].get::<String>("field").as_deref() == Some("value"));
    let keys = &["counter"];
    let (counted,): (i64,) = redis::transaction(connection, keys, |connection, pipe| {
        let before: Option<i64> = connection.get("counter")?;
        pipe.set("counter", before.unwrap_or(41) + 1).ignore().get("counter").query(connection)
    })?;
    ensure!(counted == 42);
    ensure!(connection.del::<_, i64>(&["hash", "list", "set", "zset", "stream", "counter"])? == 6);
    Ok(())
}

fn redis_rs_uses_sketches_and_places(connection: &mut redis::Connection) -> TestResult {
    ensure!(connection.pfadd::<_, _, bool>("visitors", &["a", "b", "c"])?);
    ensure!(!connection.pfadd::<_, _, bool>("visitors", "a")?);
    ensure!(connection.pfadd::<_, _, bool>("more", &["c", "d"])?);
    ensure!(connection.pfcount::<_, i64>(&["visitors", "more"])? == 4);
    let () = connection.pfmerge("all", &["visitors", "more"])?;
    ensure!(connection.pfcount::<_, i64>("all")? == 4);
    let palermo = (Coord::lon_lat(13.361389, 38.115556), "Palermo");
    let catania = (Coord::lon_lat(15.087269, 37.502669), "Catania");
    ensure!(connection.geo_add::<_, _, i64>("places", &[palermo, catania])? == 2);
    let distance: f64 = connection.geo_dist("places", "Palermo", "Catania", Unit::Kilometers)?;
    ensure!((distance - 166.2742).abs() < 1e-9, "{distance}");
    ensure!(connection.geo_hash::<_, _, Vec<String>>("places", "Palermo")? == ["sqc8b49rny0"]);
    let positions: Vec<Option<Coord<f64>>> = connection.geo_pos("places", &["Palermo", "none"])?;
    ensure!(positions[1].is_none(), "{positions:?}");
    let position = positions[0].as_ref().context("Palermo is missing")?;
    ensure!((position.longitude - 13.361389).abs() < 1e-5, "{position:?}");
    let options = RadiusOptions::default().with_dist().order(RadiusOrder::Asc);
    let found: Vec<RadiusSearchResult> =
        connection.geo_radius("places", 15.0, 37.0, 200.0, Unit::Kilometers, options)?;
    let found: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.dist)).collect();
    ensure!(found == [("Catania", Some(56.4413)), ("Palermo", Some(190.4424))], "{found:?}");
    ensure!(connection.del::<_, i64>(&["visitors", "more", "all", "places"])? == 4);
    Ok(())
}

#[test]
fn prometheus_accepts_the_metrics() -> TestResult {
    need!("promtool");
    let server = Server::start()?;
    server.text(&["SET", "key", "value"])?;
    server.text(&["GET", "key"])?;
    server.bgsave_and_wait()?;
    let (status, page) = http::get(server.metrics_port(), "/metrics")?;
    ensure!(status.contains(" 200 "), "{status}");
    for name in ["redis_up 1", "redis_rdb_last_bgsave_status 1", "redis_db_keys{db=\"db0\"} 1"] {
        ensure!(page.lines().any(|line| line == name), "no {name} in:\n{page}");
    }
    ensure!(page.lines().any(|line| line.starts_with("cowherd_")), "{page}");
    // Only names of Cowherd must pass the linter; those of redis_exporter do not.
    let own = page.lines().filter(|line| {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        name.starts_with("cowherd_")
    });
    let own = own.collect::<Vec<_>>().join("\n") + "\n";
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    let outcome = tools::run(&mut promtool, own.as_bytes(), DEADLINE)?;
    ensure!(outcome.status.success() && outcome.stderr.is_empty(), "{}", outcome.stderr);
    // The whole page must parse. Exit code 3 stands for complaints of the linter.
    let outcome = tools::run(&mut promtool, page.as_bytes(), DEADLINE)?;
    ensure!(matches!(outcome.status.code(), Some(0 | 3)), "{}\n{page}", outcome.stderr);
    Ok(())
}

#[test]
fn the_health_page_returns_200() -> TestResult {
    let server = Server::start()?;
    let (status, _) = http::get(server.metrics_port(), "/healthz")?;
    ensure!(status.contains(" 200 "), "{status}");
    let (status, _) = http::get(server.metrics_port(), "/no-such-page")?;
    ensure!(status.contains(" 404 "), "{status}");
    Ok(())
}

#[test]
fn redis_exporter_reads_the_server() -> TestResult {
    need!("prometheus-redis-exporter");
    let server = Server::start()?;
    server.text(&["SET", "key", "value"])?;
    let page = exporter::page(server.port())?;
    for line in ["redis_up 1", "redis_exporter_last_scrape_error{err=\"\"} 0"] {
        ensure!(page.contains(line), "no {line} in:\n{page}");
    }
    for name in ["redis_db_keys{db=\"db0\"} 1", "redis_memory_max_bytes 2.68435456e+08"] {
        ensure!(page.contains(name), "no {name} in:\n{page}");
    }
    Ok(())
}

#[test]
fn cowherd_ping_fails_without_a_server() -> TestResult {
    let mut server = Server::start()?;
    let port = server.port().to_string();
    let outcome = run_cowherd(&["ping", "--port", &port])?;
    ensure!(outcome.status.success(), "{outcome:?}");
    server.kill9()?;
    let outcome = run_cowherd(&["ping", "--port", &port])?;
    ensure!(outcome.status.code() == Some(1), "{outcome:?}");
    ensure!(!outcome.stderr.trim().is_empty(), "a failed ping prints no error");
    Ok(())
}

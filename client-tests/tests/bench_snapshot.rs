//! `cowherd-bench snapshot` against real servers.

use anyhow::{Context as _, Result, ensure};
use client_tests::binaries::run_cowherd_bench;
use client_tests::browser::Browser;
use client_tests::server::Server;
use client_tests::{TestResult, skip, tools};
use serde_json::Value;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(600);

/// Arguments of a short test.
const SMALL: [&str; 15] = [
    "snapshot",
    "--keys",
    "5000",
    "--value-size",
    "64",
    "--rate",
    "2000",
    "--connections",
    "4",
    "--duration",
    "0.5",
    "--after",
    "1",
    "--warm-up",
    "0.1",
];

fn bench(more: &[&str]) -> Result<tools::ProgramOutput> {
    run_cowherd_bench(&[&SMALL[..], more].concat(), DEADLINE)
}

fn number(value: &Value, path: &str) -> Result<f64> {
    value.pointer(path).and_then(Value::as_f64).with_context(|| format!("no {path} in {value}"))
}

#[test]
fn cowherd_and_its_peer_are_started_and_compared() -> TestResult {
    let Some(peer) = tools::find("redis-server") else {
        skip!("redis-server is not installed");
    };
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report");
    let report_text = report.display().to_string();
    let work = folder.path().display().to_string();
    let peer = format!("peer={}", peer.display());
    let options = ["--spawn", "--no-peers", "--pages", "small,thp", "--server", &peer];
    let outputs = ["--rounds", "2", "--work", &work, "--report", &report_text];
    let output = bench(&[&options[..], &outputs].concat())?.success()?;
    ensure!(
        output.contains("cowherd thp kernel-cow")
            && output.contains("cowherd thp undo-log")
            && output.contains("peer (redis"),
        "{output}"
    );

    let json = std::fs::read_to_string(report.join("snapshot.json"))?;
    let result: Value = serde_json::from_str(&json)?;
    let servers = result["servers"].as_array().context("no servers")?;
    ensure!(servers.len() == 5, "{}", servers.len());
    for server in servers {
        let rounds = server["rounds"].as_array().context("no rounds")?;
        ensure!(rounds.len() == 2, "{}: {}", server["name"], server["failed"]);
        for round in rounds {
            check_round(round).with_context(|| format!("{}", server["name"]))?;
        }
    }
    let csv = std::fs::read_to_string(report.join("snapshot.csv"))?;
    ensure!(csv.lines().count() == 1 + 5 * 2, "{csv}");
    ensure!(
        csv.lines().next().is_some_and(|head| head.contains(",after_to_before_p99.9,")),
        "{csv}"
    );
    let left = std::fs::read_dir(folder.path())?.count();
    ensure!(left == 1, "{left} entries are left, not only the report");
    check_page(&report.join("snapshot.html").display().to_string())
}

fn check_round(round: &Value) -> TestResult {
    ensure!(round["saved"] == true, "{round}");
    ensure!(round["errors"].as_object().is_some_and(serde_json::Map::is_empty), "{round}");
    ensure!(number(round, "/unanswered")? == 0.0);
    ensure!(number(round, "/fork_us")? > 0.0 && number(round, "/save_seconds")? > 0.0);
    ensure!(number(round, "/bgsave_reply_us")? >= number(round, "/fork_us")? * 0.5);
    // 5,000 incompressible values of 64 bytes.
    ensure!(number(round, "/image_bytes")? > 5000.0 * 64.0);
    let mut answered = 0.0;
    for phase in 0..3 {
        let at = |name: &str| number(round, &format!("/phases/{phase}/{name}"));
        let latencies = ["p50_us", "p99_us", "p999_us", "p9999_us", "max_us"].map(at);
        let latencies = latencies.into_iter().collect::<Result<Vec<_>>>()?;
        ensure!(latencies.is_sorted() && latencies[0] > 0.0, "{latencies:?}");
        answered += at("requests")?;
    }
    // The phase after the checkpoint lasts as long as `--after` says.
    let after = number(round, "/phases/2/requests")?;
    ensure!((after - 2000.0).abs() <= 1.0, "{after} requests in the second after the checkpoint");
    // Only the requests of the warm-up are left out.
    let (requests, warm_up) = (number(round, "/requests")?, 0.1 * 2000.0);
    ensure!((requests - warm_up - answered).abs() <= 1.0, "{requests} {answered}");
    Ok(())
}

fn check_page(page: &str) -> TestResult {
    let browser = match Browser::start()? {
        Ok(browser) => browser,
        Err(missing) => skip!("{missing}"),
    };
    browser.open(&format!("file://{page}"))?;
    browser.wait_for("document.querySelectorAll('figure svg').length >= 8")?;
    let lines = browser.run("return document.querySelectorAll('svg polyline').length")?;
    ensure!(lines.as_u64().is_some_and(|lines| lines > 20), "{lines}");
    let text_color = "return getComputedStyle(document.querySelector('svg text')).fill";
    browser.prefer("prefers-color-scheme", "light")?;
    let light = browser.run(text_color)?;
    browser.prefer("prefers-color-scheme", "dark")?;
    ensure!(
        browser.run(text_color)? != light,
        "the text has the same color in both schemes: {light}"
    );
    let console = browser.console()?;
    ensure!(console.is_empty(), "{console:?}");
    let outside = browser.requested()?;
    ensure!(outside.iter().all(|url| !url.starts_with("http")), "{outside:?}");
    Ok(())
}

#[test]
fn a_server_with_other_data_is_not_changed() -> TestResult {
    let server = Server::start()?;
    server.text(&["SET", "mine", "precious"])?;
    let outcome = bench(&["--rounds", "1", "--target", &server.port().to_string()])?;
    ensure!(!outcome.status.success());
    ensure!(
        outcome.stderr.contains("holds 1 keys that are not from this test"),
        "{}",
        outcome.stderr
    );
    ensure!(server.text(&["DBSIZE"])? == "1" && server.text(&["GET", "mine"])? == "precious");
    Ok(())
}

#[test]
fn a_running_server_is_measured_several_times() -> TestResult {
    let server = Server::start()?;
    let port = server.port().to_string();
    let output = bench(&["--rounds", "2", "--target", &port, "--json", "-"])?.success()?;
    let json = &output[output.find("\n{").context("no JSON")?..];
    let result: Value = serde_json::from_str(json)?;
    ensure!(number(&result, "/servers/0/identity/process")? == f64::from(server.pid()));
    for round in result["servers"][0]["rounds"].as_array().context("no rounds")? {
        check_round(round)?;
    }
    ensure!(server.info("rdb_saves")? == "2");
    Ok(())
}

#[test]
fn a_checkpoint_without_end_fails_the_test() -> TestResult {
    let server = Server::start()?;
    server.delay_checkpoints(60_000_000)?;
    let port = server.port().to_string();
    let outcome = bench(&["--rounds", "1", "--target", &port, "--longest-save", "0.2"])?;
    ensure!(!outcome.status.success());
    ensure!(
        outcome.stderr.contains("the checkpoint has not ended after 200ms"),
        "{}",
        outcome.stderr
    );
    Ok(())
}

#[test]
fn a_missing_server_program_is_named() -> TestResult {
    let outcome = bench(&["--spawn", "--server", "x=/no/such/server"])?;
    ensure!(!outcome.status.success());
    ensure!(outcome.stderr.contains("there is no program /no/such/server"), "{}", outcome.stderr);
    Ok(())
}

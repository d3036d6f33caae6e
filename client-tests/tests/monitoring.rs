//! Prometheus with the configuration of docker/: scrapes, alerts, and the queries of the dashboard.

use anyhow::{Context as _, Result, ensure};
use client_tests::server::Server;
use client_tests::wait::wait_until;
use client_tests::{TestResult, http, libraries, ports, skip, tools};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

fn file(path: &str) -> PathBuf {
    tools::package_file("../docker").join(path)
}

fn dashboard() -> Result<Value> {
    let text = fs::read_to_string(file("grafana/dashboards/cowherd.json"))?;
    Ok(serde_json::from_str(&text)?)
}

/// All queries of a dashboard: of panels, annotations and variables.
fn queries(dashboard: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let panels = list(&dashboard["panels"]);
    let targets = panels.iter().flat_map(|panel| list(&panel["targets"]));
    let mut queries: Vec<String> = targets.filter_map(|target| text(&target["expr"])).collect();
    let annotations = list(&dashboard["annotations"]["list"]);
    queries.extend(annotations.iter().filter_map(|one| text(&one["expr"])));
    for variable in list(&dashboard["templating"]["list"]) {
        let asked = text(&variable["query"]["query"]).unwrap_or_default();
        let inner = asked.strip_prefix("label_values(").and_then(|rest| rest.split_once(','));
        queries.extend(inner.map(|(metric, _)| metric.to_owned()));
    }
    queries
}

/// Replaces Grafana's variables in a query.
fn substitute_variables(query: &str) -> String {
    [("$__rate_interval", "1m"), ("$__range", "30m"), ("$instance", ".*")]
        .iter()
        .fold(query.to_owned(), |query, (variable, value)| query.replace(variable, value))
}

/// Metric families in a query or rule.
fn families(text: &str) -> BTreeSet<String> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let words = text.split(|char| !is_part(char));
    let metrics = words.filter(|word| word.starts_with("cowherd_") || word.starts_with("redis_"));
    metrics
        .map(|name| {
            let parts = ["_bucket", "_sum", "_count"];
            parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name).to_owned()
        })
        .collect()
}

/// Metric families of the server's page.
fn scraped(server: &Server) -> Result<BTreeSet<String>> {
    let (_, page) = http::get(server.metrics_port(), "/metrics")?;
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    Ok(types.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

/// Whether only an arena on hugetlb pages has a family.
fn is_of_pools(name: &str) -> bool {
    name.starts_with("cowherd_hugetlb_pool_")
}

#[test]
fn metrics_of_dashboard_and_alerts_exist() -> TestResult {
    let server = Server::start()?;
    server.text(&["SET", "key", "value"])?;
    ensure!(server.text(&["NO-SUCH-COMMAND"]).is_err());
    server.bgsave_and_wait()?;
    let there = scraped(&server)?;
    let catalogue = fs::read_to_string(tools::package_file("../docs/metrics.md"))?;
    let dashboard = queries(&dashboard()?);
    ensure!(dashboard.len() > 30, "only {} queries in the dashboard", dashboard.len());
    let rules = fs::read_to_string(file("prometheus/rules.yml"))?;
    let expressions = rules.split("annotations:").filter_map(|rule| rule.rsplit_once("expr:"));
    let asked = dashboard.join(" ") + &expressions.map(|(_, expr)| expr).collect::<String>();
    let asked = families(&asked);
    ensure!(asked.len() > 30, "only {asked:?}");
    for name in asked {
        ensure!(catalogue.contains(&format!("| `{name}` |")), "{name} is not in docs/metrics.md");
        ensure!(there.contains(&name) || is_of_pools(&name), "the server has no {name}");
    }
    Ok(())
}

#[test]
fn the_parsers_of_prometheus_read_every_scrape() -> TestResult {
    for isolation in ["undo-log", "kernel-cow"] {
        let server = Server::builder().arg("--checkpoint-isolation", isolation).start()?;
        let (program, end) = ("openmetrics_client.py", "openmetrics ok");
        libraries::run_python_with(&server, "prometheus_client", program, end)?;
    }
    Ok(())
}

#[test]
fn each_alert_fires_when_it_should() -> TestResult {
    if tools::find("promtool").is_none() {
        skip!("there is no promtool on PATH");
    }
    for arguments in [["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]] {
        let mut promtool = Command::new("promtool");
        promtool.args(arguments).current_dir(file("prometheus"));
        tools::run(&mut promtool, b"", DEADLINE)?.success()?;
    }
    let rules = fs::read_to_string(file("prometheus/rules.yml"))?;
    let tests = fs::read_to_string(file("prometheus/rules_test.yml"))?;
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        for outcome in ["fires", "stays silent"] {
            let name = format!("- name: {alert} {outcome}");
            ensure!(tests.contains(&name), "no test {name:?}");
        }
    }
    Ok(())
}

/// Running Prometheus; dropping it kills the process.
struct Prometheus {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts Prometheus with the configuration of docker/, except for the server's address and the
    /// intervals.
    fn start(server: &Server, features: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let given = fs::read_to_string(file("prometheus/prometheus.yml"))?;
        let own = given
            .replace("cowherd:9121", &format!("127.0.0.1:{}", server.metrics_port()))
            .replace("scrape_interval: 5s", "scrape_interval: 1s")
            .replace("evaluation_interval: 15s", "evaluation_interval: 1s");
        ensure!(own.matches("_interval: 1s").count() == 2, "{own}");
        fs::write(folder.path().join("prometheus.yml"), own)?;
        fs::copy(file("prometheus/rules.yml"), folder.path().join("rules.yml"))?;
        let port = ports::free()?;
        let argument = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let process = Command::new("prometheus")
            .arg(argument("config.file", &folder.path().join("prometheus.yml")))
            .arg(argument("storage.tsdb.path", &folder.path().join("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(features.iter().map(|feature| format!("--enable-feature={feature}")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let prometheus = Self { process, port, _folder: folder };
        let is_up = || {
            let up = prometheus.query("up{job=\"cowherd\"}").unwrap_or_default();
            Ok(up[0]["value"][1] == "1")
        };
        wait_until(is_up, DEADLINE, "Prometheus to scrape the server")?;
        Ok(prometheus)
    }

    fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = http::get(self.port, path)?;
        ensure!(status.contains(" 200 "), "{path}: {status} {body}");
        Ok(serde_json::from_str::<Value>(&body)?["data"].clone())
    }

    /// Current result of a query.
    fn query(&self, query: &str) -> Result<Value> {
        let found = self.get(&format!("/api/v1/query?query={}", http::encoded(query)))?;
        Ok(found["result"].clone())
    }

    /// Result of a query, as soon as there is one.
    fn wait_for(&self, query: &str) -> Result<Value> {
        let mut found = Value::Null;
        let has = || {
            found = self.query(query)?;
            Ok(found.as_array().is_some_and(|found| !found.is_empty()))
        };
        wait_until(has, DEADLINE, query)?;
        Ok(found)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Server that has executed commands during a checkpoint and outside, so that all families have
/// values.
fn busy_server(isolation: &str) -> Result<Server> {
    let server = Server::builder()
        .arg("--slowlog-log-slower-than", "0")
        .arg("--checkpoint-isolation", isolation)
        .start()?;
    for key in 0..200 {
        server.text(&["SET", &format!("key:{key}"), "value"])?;
    }
    server.delay_checkpoints(300_000)?;
    server.bgsave()?;
    for key in 0..200 {
        server.text(&["SET", &format!("key:{key}"), "other"])?;
    }
    server.wait_checkpoint()?.map_err(anyhow::Error::msg)?;
    Ok(server)
}

#[test]
fn prometheus_answers_the_queries_of_the_dashboard() -> TestResult {
    if tools::find("prometheus").is_none() {
        skip!("there is no prometheus on PATH");
    }
    let server = busy_server("kernel-cow")?;
    let prometheus = Prometheus::start(&server, &[])?;
    prometheus.wait_for("cowherd_cow_faults_total > 0")?;
    for phase in ["idle", "checkpoint"] {
        let query = format!(
            "cowherd_command_duration_seconds_count{{family=\"string\",phase=\"{phase}\"}} > 0"
        );
        prometheus.wait_for(&query)?;
    }
    for query in queries(&dashboard()?) {
        let query = substitute_variables(&query);
        prometheus.query(&query).with_context(|| query.clone())?;
        let may_be_empty = ["rate(", "increase(", " == 1", " > 0", "hugetlb"];
        if !may_be_empty.iter().any(|part| query.contains(part)) {
            prometheus.wait_for(&query)?;
        }
    }
    let rules = prometheus.get("/api/v1/rules")?;
    let rules = rules["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
    ensure!(rules.len() >= 14, "{rules:?}");
    let evaluated = || {
        let rules = prometheus.get("/api/v1/rules")?;
        let rules = rules["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        Ok(rules.iter().all(|rule| rule["health"] == "ok"))
    };
    wait_until(evaluated, DEADLINE, "all alerts to be evaluated")
}

#[test]
fn prometheus_scrapes_native_histograms() -> TestResult {
    if tools::find("prometheus").is_none() {
        skip!("there is no prometheus on PATH");
    }
    let server = busy_server("undo-log")?;
    let prometheus = Prometheus::start(&server, &["native-histograms"])?;
    prometheus.wait_for("histogram_count(cowherd_undo_capture_duration_seconds) > 0")?;
    let series = "cowherd_command_duration_seconds{family=\"string\",phase=\"idle\"}";
    let query = format!("histogram_count({series})");
    let count: f64 =
        prometheus.wait_for(&query)?[0]["value"][1].as_str().context("a count")?.parse()?;
    let calls: f64 = {
        let sets = prometheus.wait_for("cowherd_commands_total{command=\"set\"}")?;
        sets[0]["value"][1].as_str().context("a counter")?.parse()?
    };
    ensure!(count >= 200.0 && count <= calls, "{count} of {calls}");
    let median = prometheus.wait_for(&format!("histogram_quantile(0.5, {series})"))?;
    let median: f64 = median[0]["value"][1].as_str().context("a quantile")?.parse()?;
    ensure!(median > 1e-8 && median < 1.0, "half of all commands took {median} s");
    Ok(())
}

#[test]
fn a_checkpoint_is_logged_as_one_line_of_json() -> TestResult {
    logs_one_line("kernel-cow", "cow_faults", "undo_captures")?;
    logs_one_line("undo-log", "undo_captures", "cow_faults")
}

/// Checks that the log line of a checkpoint has figures of its isolation, and none of the other
/// one.
fn logs_one_line(isolation: &str, own: &str, other: &str) -> TestResult {
    let server = Server::builder()
        .arg("--log-format", "json")
        .arg("--checkpoint-isolation", isolation)
        .start()?;
    server.text(&["SET", "key", "value"])?;
    server.bgsave_and_wait()?;
    let is_logged = || Ok(server.log().contains("Checkpoint saved"));
    wait_until(is_logged, DEADLINE, "the log line of the checkpoint")?;
    let log = server.log();
    let lines = log.lines().map(serde_json::from_str::<Value>);
    let lines: Vec<Value> = lines.collect::<Result<_, _>>().with_context(|| log.clone())?;
    let checkpoints: Vec<&Value> =
        lines.iter().filter(|line| line["message"] == "Checkpoint saved").collect();
    ensure!(checkpoints.len() == 1, "{log}");
    for field in ["keys", "image_bytes", "fork_us", own, "seconds", "bytes_per_second"] {
        ensure!(checkpoints[0][field].is_number(), "no {field}: {}", checkpoints[0]);
    }
    ensure!(checkpoints[0][other].is_null(), "{other} in {}", checkpoints[0]);
    ensure!(checkpoints[0]["keys"] == 1 && checkpoints[0]["level"] == "INFO", "{}", checkpoints[0]);
    Ok(())
}

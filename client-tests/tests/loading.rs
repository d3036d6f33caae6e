//! A server that reads its image: what clients, probes and signals get meanwhile.
//!
//! strace holds the server in the middle of its image, so that no test depends on time.

use anyhow::{Context as _, Result, ensure};
use client_tests::binaries::run_cowherd;
use client_tests::browser::Browser;
use client_tests::server::{Server, ServerBuilder, expect_code};
use client_tests::{TestResult, http, skip, tools, wait::wait_until};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LOADING: &str = "-LOADING Redis is loading the dataset in memory\r\n";
/// Keys of 1 MB: chunks enough that none of sixteen readers gets to the end of the image.
const KEYS: usize = 200;
const DEADLINE: Duration = Duration::from_secs(60);

fn builder(folder: &Path) -> ServerBuilder {
    Server::builder().arg("--maxmemory", "512mb").dir(folder)
}

/// Writes an image into `folder`; returns the digest of the keys.
fn make_image(folder: &Path) -> Result<String> {
    let server = builder(folder).start()?;
    for key in 0..KEYS {
        server.text(&["SET", &format!("key:{key}"), &"x".repeat(1_000_000)])?;
    }
    server.text(&["SET", "small", "value"])?;
    server.text(&["SAVE"])?;
    server.digest()
}

/// A server that is held while it reads an image, its folder, and the digest of the image.
fn held() -> Result<Option<(Server, tempfile::TempDir, String)>> {
    if tools::find("strace").is_none() {
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let digest = make_image(folder.path())?;
    Ok(Some((builder(folder.path()).start_held()?, folder, digest)))
}

fn reply(server: &Server, line: &str) -> Result<String> {
    let mut raw = server.raw()?;
    raw.send(format!("{line}\r\n").as_bytes())?;
    Ok(String::from_utf8_lossy(&raw.read_reply()?).into_owned())
}

fn fields(info: &str) -> HashMap<&str, &str> {
    info.lines().filter_map(|line| line.split_once(':')).collect()
}

#[test]
fn clients_are_answered_and_then_served() -> TestResult {
    let Some((mut server, _folder, digest)) = held()? else { skip!("strace is not installed") };
    for line in ["PING", "GET small", "SET a 1", "DEBUG DIGEST", "BGSAVE", "WATCH a"] {
        let reply = reply(&server, line)?;
        ensure!(reply == LOADING, "{line}: {reply:?}");
    }
    // A connection that is opened now stays.
    let mut early = server.raw()?;
    early.text(&["CLIENT", "SETNAME", "early"])?;
    early.text(&["CONFIG", "SET", "slowlog-max-len", "77"])?;
    let mut subscriber = server.raw()?;
    subscriber.send(b"SUBSCRIBE news\r\n")?;
    let subscribed = subscriber.read_reply()?;
    ensure!(subscribed.starts_with(b"*3\r\n$9\r\nsubscribe"), "{subscribed:?}");

    // redis-rs connects, and calls the error by its name.
    let mut connection = server.connection()?;
    let refused = redis::cmd("GET").arg("small").query::<String>(&mut connection);
    let error = refused.err().context("GET was answered")?;
    ensure!(error.to_string().contains("oading"), "{error}");

    server.release()?;
    ensure!(server.digest()? == digest, "not what was saved");
    ensure!(redis::cmd("GET").arg("small").query::<String>(&mut connection)? == "value");
    ensure!(early.text(&["CLIENT", "GETNAME"])? == "early");
    ensure!(early.text(&["GET", "small"])? == "value");
    early.text(&["PUBLISH", "news", "served"])?;
    let message = subscriber.read_reply()?;
    ensure!(message.ends_with(b"$6\r\nserved\r\n"), "{message:?}");
    let config = reply(&server, "CONFIG GET slowlog-max-len")?;
    ensure!(config.ends_with("$2\r\n77\r\n"), "{config:?}");
    ensure!(server.info("loading")? == "0");
    ensure!(server.info_field("loading_total_bytes")?.is_none());
    ensure!(server.info("rdb_last_load_keys_loaded")? == (KEYS + 1).to_string());
    ensure!(http::get(server.metrics_port(), "/healthz")?.0.contains(" 200 "));
    Ok(())
}

#[test]
fn info_healthz_and_metrics_show_the_progress() -> TestResult {
    let Some((server, _folder, _)) = held()? else { skip!("strace is not installed") };
    // All readers run up to the held read.
    wait_until(|| Ok(server.info("loading_loaded_bytes")? != "0"), DEADLINE, "a chunk to be read")?;
    let info = server.text(&["INFO"])?;
    let fields = fields(&info);
    let number = |name: &str| -> Result<f64> {
        Ok(fields.get(name).with_context(|| format!("no {name}"))?.parse()?)
    };
    ensure!(number("loading")? == 1.0 && number("async_loading")? == 0.0);
    ensure!(number("loading_start_time")? > 1.7e9);
    let (total, loaded) = (number("loading_total_bytes")?, number("loading_loaded_bytes")?);
    ensure!(total > 1e6 * KEYS as f64 && loaded > 0.0 && loaded < total, "{loaded} of {total}");
    let percent = number("loading_loaded_perc")?;
    ensure!(percent > 0.0 && percent < 100.0, "{percent}");
    number("loading_eta_seconds")?;
    ensure!(number("loading_rdb_used_mem")? >= total, "chunks are not compressed here");
    ensure!(number("used_memory")? >= loaded);
    ensure!(number("maxmemory")? == f64::from(512 << 20));
    for name in ["mem_fragmentation_ratio", "allocator_frag_ratio", "rss_overhead_ratio"] {
        ensure!(number(name)?.is_finite(), "{name}");
    }

    let (status, body) = http::get(server.metrics_port(), "/healthz")?;
    ensure!(status.contains(" 503 ") && body == "loading\n", "{status} {body}");
    let (status, metrics) = http::get(server.metrics_port(), "/metrics")?;
    ensure!(status.contains(" 200 ") && metrics.contains("\ncowherd_loading 1"), "{status}");
    ensure!(metrics.contains("\ncowherd_loading_total_bytes "), "{metrics}");
    let state: serde_json::Value =
        serde_json::from_str(&http::get(server.metrics_port(), "/api/state")?.1)?;
    let share = state["loading"]["share"].as_f64().context("no share")?;
    ensure!(share > 0.0 && share < 1.0, "{share}");
    let (status, _) = http::get(server.metrics_port(), "/")?;
    ensure!(status.contains(" 200 "), "{status}");

    let port = server.port().to_string();
    let ping = run_cowherd(&["ping".as_ref(), "--port".as_ref(), OsStr::new(&port)])?;
    expect_code(ping.status, 1, &ping.stderr)?;
    ensure!(ping.stderr.contains("loading"), "{}", ping.stderr);
    Ok(())
}

/// Waits for the end of a held server. strace does not let a thread die that it holds, so it is
/// ended after the server's last words.
fn ends(server: &mut Server) -> Result<()> {
    wait_until(|| Ok(server.log().contains("stays as it is")), DEADLINE, "the last words")?;
    server.end_tracer()?;
    expect_code(server.wait_exit()?, 0, &server.log())
}

/// The page shows how far the image is read, and that it ended.
#[test]
fn the_page_shows_a_restore() -> TestResult {
    let browser = match Browser::start()? {
        Ok(browser) => browser,
        Err(reason) => skip!("{reason}"),
    };
    let Some((mut server, _folder, _)) = held()? else { skip!("strace is not installed") };
    browser.open(&format!("http://127.0.0.1:{}/", server.metrics_port()))?;
    let share = "Number(document.getElementById('loading-bar').getAttribute('aria-valuenow'))";
    browser.wait_for("!document.getElementById('loading').hidden")?;
    browser.wait_for(&format!("{share} > 0 && {share} < 100"))?;
    let text = "document.getElementById('loading-now').textContent";
    browser.wait_for(&format!("{text}.startsWith('Loading the image: ')"))?;
    browser.wait_for(&format!("{text}.includes(' read')"))?;
    server.release()?;
    browser.wait_for("document.getElementById('loading').hidden")?;
    let messages = browser.console()?;
    ensure!(messages.is_empty(), "messages on the console: {messages:#?}");
    Ok(())
}

/// By default SIGTERM and SHUTDOWN save; an image of what was read so far would lose the rest.
#[test]
fn sigterm_and_shutdown_end_at_once_and_leave_the_image() -> TestResult {
    let Some((mut server, folder, digest)) = held()? else { skip!("strace is not installed") };
    let image = std::fs::read(server.image())?;
    tools::signal(server.pid(), Signal::SIGTERM)?;
    ends(&mut server)?;
    for line in ["SHUTDOWN NOSAVE", "SHUTDOWN", "SHUTDOWN SAVE"] {
        let held = builder(folder.path()).arg("--save", "1 1");
        let mut server = held.start_held()?;
        let mut raw = server.raw()?;
        raw.send(format!("{line}\r\n").as_bytes())?;
        ends(&mut server)?;
        ensure!(raw.read_reply().is_err(), "{line} has a reply");
    }
    let names: Vec<_> = std::fs::read_dir(folder.path())?.collect::<Result<_, _>>()?;
    ensure!(names.len() == 2, "more than the image and the lock: {names:?}");
    let path = folder.path().join(client_tests::server::IMAGE);
    ensure!(std::fs::read(path)? == image, "the image was changed");
    ensure!(builder(folder.path()).start()?.digest()? == digest);
    Ok(())
}

/// A restore that fails behind connected clients ends the process as one before any client does.
#[test]
fn a_damaged_image_ends_a_server_with_clients() -> TestResult {
    if tools::find("strace").is_none() {
        skip!("strace is not installed");
    }
    let folder = tempfile::tempdir()?;
    make_image(folder.path())?;
    let path = folder.path().join(client_tests::server::IMAGE);
    let mut image = std::fs::read(&path)?;
    let middle = image.len() * 3 / 4;
    image[middle] ^= 1;
    std::fs::write(&path, &image)?;
    let pid_file = folder.path().join("pid");
    let text = pid_file.to_string_lossy().into_owned();
    let mut server = builder(folder.path()).arg("--pidfile", &text).start_held()?;
    let mut client = server.raw()?;
    client.send(b"PING\r\n")?;
    ensure!(client.read_reply()? == LOADING.as_bytes());
    ensure!(pid_file.exists());
    // The server ends while `release` waits for it.
    let error = format!("{:#}", server.release().err().context("it serves a damaged image")?);
    ensure!(error.contains("is damaged") && error.contains("exit status: 1"), "{error}");
    ensure!(!pid_file.exists(), "the pid file stays");
    ensure!(client.read_reply().is_err(), "the connection lives on");
    ensure!(std::fs::read(&path)? == image, "the image was changed");
    Ok(())
}

/// `redis-cli --pipe`, as bulk loaders use it, reports the refusals and does not hang.
#[test]
fn a_bulk_load_is_refused_with_a_count() -> TestResult {
    let Some((server, _folder, _)) = held()? else { skip!("strace is not installed") };
    let Some(cli) = tools::find("redis-cli") else { skip!("redis-cli is not installed") };
    let mut child = Command::new(cli)
        .args(["-p", &server.port().to_string(), "--pipe", "--pipe-timeout", "30"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("no stdin")?;
    (0..1000).try_for_each(|key| write!(input, "SET bulk:{key} 1\r\n"))?;
    drop(input);
    let mut said = String::new();
    child.stdout.take().context("no stdout")?.read_to_string(&mut said)?;
    child.wait()?;
    ensure!(said.contains("errors: 1000, replies: 1000"), "{said}");
    Ok(())
}

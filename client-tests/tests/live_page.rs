//! The live page in a browser: content, no requests to other hosts, small screens, use by keyboard.

use anyhow::{Context, Result, ensure};
use client_tests::browser::Browser;
use client_tests::server::Server;
use client_tests::{TestResult, skip};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Number of points of the median line.
const POINTS: &str =
    "(document.querySelector('.line.p50').getAttribute('d') || '').split(/[ML]/).length - 1";
/// Script that records which parts of the page show a running checkpoint. The page handles each
/// event in a step of its own, and the observer runs after each step, so that no state is missed.
const WATCH: &str = "
    window.seen = new Set();
    const map = document.getElementById('map');
    const before = map.toDataURL();
    const look = () => {
        const now = document.getElementById('checkpoint-now');
        if (!now.textContent.startsWith('Checkpoint 1 runs')) return;
        seen.add('text');
        if (Number(document.getElementById('checkpoint-bar').getAttribute('aria-valuenow')) > 0) {
            seen.add('bar');
        }
        if (document.querySelector('#table tbody tr.running')) seen.add('row');
        if (document.querySelector('.checkpoints rect.running')) seen.add('shade');
        if (map.toDataURL() !== before) seen.add('map');
    };
    new MutationObserver(look).observe(document.body, {
        subtree: true, childList: true, characterData: true, attributes: true,
    });
";
/// Status at the top of the page.
const LINK: &str = "document.getElementById('link').dataset.state";

fn text_of(selector: &str) -> String {
    format!("document.querySelector('{selector}').textContent")
}

fn address(server: &Server) -> String {
    format!("http://127.0.0.1:{}/", server.metrics_port())
}

/// Sets thousands of keys of 4 KiB, so that a checkpoint has several chunks.
fn fill(server: &Server) -> Result<()> {
    let value = "x".repeat(4096);
    for key in 0..4000 {
        server.text(&["SET", &format!("key:{key}"), &value])?;
    }
    Ok(())
}

fn expect_empty_console(browser: &Browser) -> Result<()> {
    let messages = browser.console()?;
    ensure!(messages.is_empty(), "messages on the console: {messages:#?}");
    Ok(())
}

#[test]
fn the_page_shows_latency_and_a_checkpoint() -> TestResult {
    shows_a_checkpoint("kernel-cow", "pages copied since the fork", "Faults", "copy-on-write")
}

#[test]
fn the_page_shows_what_an_undo_log_captures() -> TestResult {
    shows_a_checkpoint("undo-log", "blocks captured since the fork", "Captures", "undo log")
}

/// Observes a checkpoint. `legend` names the colored pages, `column` is the counter in the table,
/// and `costs` the subject of the facts.
fn shows_a_checkpoint(isolation: &str, legend: &str, column: &str, costs: &str) -> TestResult {
    let browser = match Browser::start()? {
        Ok(browser) => browser,
        Err(reason) => skip!("{reason}"),
    };
    let server = Server::builder().arg("--checkpoint-isolation", isolation).start()?;
    browser.open(&address(&server))?;
    browser.wait_for(&format!("{LINK} === 'live'"))?;
    browser.wait_for("!document.getElementById('checkpoints-empty').hidden")?;
    let hint = browser.run(&format!("return {}", text_of("#checkpoints-empty")))?;
    let command = format!("redis-cli -p {} BGSAVE", server.port());
    ensure!(hint.as_str().is_some_and(|hint| hint.contains(&command)), "{hint}");

    fill(&server)?;
    browser.wait_for(&format!("{POINTS} >= 1"))?;
    // A second without commands interrupts the line until there are new commands.
    browser.wait_for("document.querySelector('.chart .rate').getAttribute('d') !== ''")?;

    browser.run(WATCH)?;
    // At least ten chunks: the checkpoint takes several updates of the page.
    server.delay_checkpoints(300_000)?;
    server.bgsave()?;
    server.text(&["SET", "key:1", "written during the checkpoint"])?;
    if let Err(reason) = server.wait_checkpoint()? {
        anyhow::bail!("the checkpoint failed: {reason}");
    }
    browser.wait_for("document.querySelector('#table tbody tr.ok')")?;
    let cells = browser.run(
        "return [...document.querySelectorAll('#table tbody tr.ok td')].map((cell) => \
         [cell.dataset.label, cell.textContent]);",
    )?;
    let cell = |label: &str| {
        let cells = cells.as_array().into_iter().flatten();
        cells.into_iter().find(|cell| cell[0] == label).and_then(|cell| cell[1].as_str())
    };
    ensure!(cell("No.") == Some("1"), "{cells}");
    ensure!(cell("Image").is_some_and(|image| image.ends_with("MiB")), "{cells}");
    ensure!(cell(column).is_some_and(|count| count != "0"), "{cells}");
    check_terms(&browser, legend, column, costs)?;
    let seen = browser.run("return [...seen];")?;
    for sight in ["text", "bar", "row", "shade", "map"] {
        ensure!(
            seen.as_array().is_some_and(|seen| seen.contains(&sight.into())),
            "{sight}: {seen}"
        );
    }
    // After the checkpoint the page shows the idle arena again.
    browser
        .wait_for(&format!("{}.startsWith('No checkpoint runs')", text_of("#checkpoint-now")))?;

    expect_empty_console(&browser)?;
    let requested = browser.requested()?;
    ensure!(requested.iter().any(|url| url.ends_with("/events")), "{requested:?}");
    let own = address(&server);
    let foreign: Vec<_> = requested.iter().filter(|url| !url.starts_with(&own)).collect();
    ensure!(foreign.is_empty() || foreign == ["data:,"], "other hosts were asked: {foreign:?}");
    Ok(())
}

/// Checks that the page uses the terms of the isolation, and none of the other one.
fn check_terms(browser: &Browser, legend: &str, column: &str, costs: &str) -> Result<()> {
    let texts = browser.run(&format!(
        "return [{}, {}, {}, {}];",
        text_of("#legend .heat"),
        text_of("#head-number"),
        text_of("#memory-panel"),
        text_of("main")
    ))?;
    let text = |i: usize| texts[i].as_str().unwrap_or_default().to_lowercase();
    ensure!(text(0).starts_with(legend) && text(1) == column.to_lowercase(), "{texts}");
    ensure!(text(2).contains(&format!("{costs} since the start")), "{texts}");
    let foreign = if costs == "undo log" { "copy-on-write" } else { "captured" };
    ensure!(!text(3).contains(foreign), "{foreign}: {texts}");
    Ok(())
}

#[test]
fn a_failed_save_shows_its_error() -> TestResult {
    let browser = match Browser::start()? {
        Ok(browser) => browser,
        Err(reason) => skip!("{reason}"),
    };
    let server = Server::start()?;
    // A folder with the name of the image, which a file cannot replace.
    std::fs::create_dir_all(server.image().join("in the way"))?;
    server.bgsave()?;
    ensure!(server.wait_checkpoint()?.is_err(), "the save should have failed");
    browser.open(&address(&server))?;
    browser.wait_for("document.querySelector('#table tr.failed + tr.error')")?;
    let error = browser.run(&format!("return {}", text_of("#table tr.error")))?;
    let error = error.as_str().context("no text")?;
    ensure!(error.contains("dump.cow"), "{error:?}");
    expect_empty_console(&browser)
}

#[test]
fn the_page_fits_any_screen_and_color_scheme() -> TestResult {
    fits_any_screen("kernel-cow")
}

#[test]
fn the_page_fits_any_screen_with_an_undo_log_too() -> TestResult {
    fits_any_screen("undo-log")
}

fn fits_any_screen(isolation: &str) -> TestResult {
    let browser = match Browser::start()? {
        Ok(browser) => browser,
        Err(reason) => skip!("{reason}"),
    };
    let server = Server::builder().arg("--checkpoint-isolation", isolation).start()?;
    server.bgsave_and_wait()?;
    browser.open(&address(&server))?;
    browser.wait_for("document.querySelector('#table tbody tr.ok')")?;
    for width in [320, 360, 600, 768, 930, 1024, 1440, 2560] {
        browser.resize(width, 800)?;
        browser.wait_for(&format!("innerWidth === {width}"))?;
        browser.wait_for("document.documentElement.scrollWidth <= innerWidth")?;
        let outside = browser.run(
            "return [...document.querySelectorAll('main *, header *')].filter((one) => { \
             const box = one.getBoundingClientRect(); return box.width > 0 && \
             !one.closest('.hidden, .skip, thead, svg') && box.right > innerWidth + 0.5; \
             }).map((one) => one.outerHTML.slice(0, 80));",
        )?;
        ensure!(outside == serde_json::json!([]), "at {width}: {outside}");
    }
    let paper = "return getComputedStyle(document.body).backgroundColor;";
    browser.prefer("prefers-color-scheme", "light")?;
    browser.wait_for("!matchMedia('(prefers-color-scheme: dark)').matches")?;
    let light = browser.run(paper)?;
    browser.run("window.lightMap = document.getElementById('map').toDataURL();")?;
    browser.prefer("prefers-color-scheme", "dark")?;
    browser.wait_for("matchMedia('(prefers-color-scheme: dark)').matches")?;
    let dark = browser.run(paper)?;
    ensure!(light != dark, "the page is as light as before: {dark}");
    browser.wait_for("document.getElementById('map').toDataURL() !== window.lightMap")?;
    expect_empty_console(&browser)
}

#[test]
fn all_controls_are_reachable_by_keyboard() -> TestResult {
    let browser = match Browser::start()? {
        Ok(browser) => browser,
        Err(reason) => skip!("{reason}"),
    };
    let server = Server::start()?;
    browser.open(&address(&server))?;
    browser.wait_for(
        "document.getElementById('chart').getAttribute('aria-valuetext') \
                      .includes('commands a second')",
    )?;
    let mut reached = Vec::new();
    loop {
        browser.press("Tab")?;
        let focus = browser.run(
            "const one = document.activeElement; const style = getComputedStyle(one); \
             return one === document.body ? null : [one.id || one.textContent, \
             style.outlineStyle];",
        )?;
        // After the last element the focus leaves the page.
        if focus.is_null() || reached.len() > 30 {
            break;
        }
        ensure!(focus[1] != "none", "no ring around {focus}");
        let name = focus[0].as_str().unwrap_or_default().to_owned();
        match name.as_str() {
            "chart" => {
                browser.press("ArrowLeft")?;
                browser
                    .wait_for(&format!("!{}.startsWith('now')", text_of("#readout .when dd")))?;
                browser.press("Escape")?;
                browser.wait_for(&format!("{}.startsWith('now')", text_of("#readout .when dd")))?;
            }
            "map" => {
                browser.wait_for(&format!("{}.startsWith('Chunk 0')", text_of("#cell")))?;
                browser.press("ArrowRight")?;
                browser.wait_for(&format!("{}.startsWith('Chunk 1')", text_of("#cell")))?;
                let spoken = browser
                    .run("return document.getElementById('map').getAttribute('aria-valuetext');")?;
                ensure!(spoken.as_str().is_some_and(|it| it.starts_with("Chunk 1")), "{spoken}");
            }
            _ => {}
        }
        reached.push(name);
    }
    for name in ["1 min", "3 min", "10 min", "chart", "map", "/metrics"] {
        ensure!(reached.iter().any(|one| one == name), "{name} is not among {reached:?}");
    }
    expect_empty_console(&browser)
}

#[test]
fn the_page_reports_the_loss_of_the_server_and_reconnects() -> TestResult {
    let browser = match Browser::start()? {
        Ok(browser) => browser,
        Err(reason) => skip!("{reason}"),
    };
    let metrics_port = client_tests::ports::free()?.to_string();
    let mut server = Server::builder().arg("--metrics-port", &metrics_port).start()?;
    browser.open(&format!("http://127.0.0.1:{metrics_port}/"))?;
    browser.wait_for(&format!("{LINK} === 'live'"))?;
    server.kill9()?;
    browser.wait_for(&format!("{LINK} === 'lost'"))?;
    server.restart()?;
    browser.wait_for(&format!("{LINK} === 'live'"))
}

/// Requests the stream of events; returns the status line and the reader.
fn listen(port: u16) -> Result<(String, BufReader<TcpStream>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.read_line(&mut status)?;
    Ok((status, reader))
}

#[test]
fn event_streams_stay_open_are_limited_and_end_with_the_server() -> TestResult {
    let mut server = Server::start()?;
    let port = server.metrics_port();
    let mut listeners = Vec::new();
    for _ in 0..16 {
        let (status, reader) = listen(port)?;
        ensure!(status.contains("200"), "{status}");
        listeners.push(reader);
    }
    let (refused, _) = listen(port)?;
    ensure!(refused.contains("503"), "{refused}");
    // A scrape still gets a connection.
    let mut scrape = TcpStream::connect(("127.0.0.1", port))?;
    scrape.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut metrics = String::new();
    scrape.read_to_string(&mut metrics)?;
    ensure!(metrics.contains("cowherd_"), "{metrics}");
    // Other connections are closed after 30 s.
    let first = listeners.first_mut().context("no listener")?;
    let mut seconds = 0;
    let mut line = String::new();
    while seconds < 33 {
        line.clear();
        ensure!(first.read_line(&mut line)? > 0, "cut off after {seconds} s");
        seconds += u32::from(line.trim_end() == "event: second");
    }
    server.terminate()?;
    let mut rest = Vec::new();
    first.read_to_end(&mut rest)?;
    Ok(())
}

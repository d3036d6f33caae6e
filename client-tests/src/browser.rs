//! Headless Chromium, controlled through chromedriver by WebDriver (W3C) and Chromium's DevTools
//! commands. Debian's package chromium-driver contains both programs.

use crate::{ports, tools, wait::wait_until};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(30);

/// Browser with one page; dropping it ends the browser.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// Chromium's profile and caches.
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser. Returns `Ok(Err(reason))`, for [`skip!`](crate::skip), if none is
    /// installed.
    ///
    /// # Errors
    /// Returns an error if an installed browser does not start.
    pub fn start() -> Result<Result<Self, String>> {
        for program in ["chromedriver", "chromium"] {
            if tools::find(program).is_none() {
                return Ok(Err(format!("there is no {program} on PATH")));
            }
        }
        let port = ports::free()?;
        let folder = tempfile::tempdir()?;
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start chromedriver")?;
        let mut browser = Self { driver, port, session: String::new(), _folder: folder };
        browser.open_session()?;
        Ok(Ok(browser))
    }

    fn open_session(&mut self) -> Result<()> {
        let ready = || Ok(self.call("GET", "/status", None).is_ok_and(|s| s["ready"] == true));
        wait_until(ready, DEADLINE, "chromedriver to listen")?;
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            // Chromium's sandbox fails for root, and its use of /dev/shm in small containers.
            "goog:chromeOptions": {"args": [
                "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                "--hide-scrollbars",
            ]},
        }}});
        let session = self.call("POST", "/session", Some(&wanted))?;
        let id = session["sessionId"].as_str().context("chromium did not start")?;
        self.session = format!("/session/{id}");
        Ok(())
    }

    /// Loads a page.
    ///
    /// # Errors
    /// Returns an error if the page cannot be loaded.
    pub fn open(&self, url: &str) -> Result<()> {
        self.post("/url", &json!({"url": url})).map(drop)
    }

    /// Runs the body of a JavaScript function in the page and returns its result.
    ///
    /// # Errors
    /// Returns an error if the script throws.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until a JavaScript expression is true in the page.
    ///
    /// # Errors
    /// Returns an error if the expression throws or stays false for 30 s.
    pub fn wait_for(&self, expression: &str) -> Result<()> {
        let script = format!("return Boolean({expression});");
        wait_until(|| Ok(self.run(&script)? == true), DEADLINE, expression)
    }

    /// Presses a key, given by its JavaScript name (`"ArrowLeft"`), on the focused element.
    ///
    /// # Errors
    /// Returns the error of the browser.
    pub fn press(&self, key: &str) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            // Chromium moves the focus by the key code of Windows.
            let number = if key == "Tab" { 9 } else { 0 };
            let event = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": number,
            });
            self.devtools("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// Sets the size of the screen in CSS pixels.
    ///
    /// # Errors
    /// Returns the error of the browser.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let screen = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &screen).map(drop)
    }

    /// Sets a preference of the user, such as `prefers-color-scheme`: `dark`.
    ///
    /// # Errors
    /// Returns the error of the browser.
    pub fn prefer(&self, feature: &str, value: &str) -> Result<()> {
        let media = json!({"features": [{"name": feature, "value": value}]});
        self.devtools("Emulation.setEmulatedMedia", &media).map(drop)
    }

    /// Console messages of pages and of the browser since the last call.
    ///
    /// # Errors
    /// Returns an error if the browser does not answer.
    pub fn console(&self) -> Result<Vec<String>> {
        let entries = self.post("/se/log", &json!({"type": "browser"}))?;
        let entries = entries.as_array().cloned().unwrap_or_default();
        Ok(entries
            .iter()
            .map(|entry| format!("{}: {}", entry["level"], entry["message"]))
            .collect())
    }

    /// Addresses requested by pages since the last call.
    ///
    /// # Errors
    /// Returns an error if the browser does not answer.
    pub fn requested(&self) -> Result<Vec<String>> {
        let entries = self.post("/se/log", &json!({"type": "performance"}))?;
        let mut addresses = Vec::new();
        for entry in entries.as_array().context("no log")? {
            let text = entry["message"].as_str().context("an entry without message")?;
            let message = &serde_json::from_str::<Value>(text)?["message"];
            if message["method"] == "Network.requestWillBeSent" {
                let url = message["params"]["request"]["url"].as_str().unwrap_or_default();
                addresses.push(url.to_owned());
            }
        }
        Ok(addresses)
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Result<Value> {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call("POST", &format!("{}{path}", self.session), Some(body))
    }

    /// Executes one WebDriver command: HTTP with JSON in both directions.
    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let port = self.port;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let (status, body) = read_answer(BufReader::new(stream))?;
        let answer: Value = serde_json::from_slice(&body).context(status.clone())?;
        ensure!(status.contains(" 200 "), "{path}: {}", answer["value"]["message"]);
        Ok(answer["value"].clone())
    }
}

/// Reads status line and body. The driver does not close the connection after the body.
fn read_answer(mut reader: impl BufRead) -> Result<(String, Vec<u8>)> {
    let mut status = String::new();
    reader.read_line(&mut status)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((status, body))
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium, which survives the kill of chromedriver.
        drop(self.call("DELETE", &self.session, None));
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

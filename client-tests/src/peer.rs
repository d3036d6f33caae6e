//! Debian's redis-server beside ours, to compare with.

use crate::{ports, tools, wait::wait_until, wire::Raw};
use anyhow::{Context, Result};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running redis-server, stopped when dropped.
#[derive(Debug)]
pub struct Peer {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Peer {
    /// Starts it on a free port, saving nothing; `None` when it is not installed.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Result<Option<Self>> {
        let Some(program) = tools::find("redis-server") else {
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        let port = ports::free()?;
        let process = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--enable-debug-command", "yes", "--dir"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start redis-server")?;
        let peer = Self { process, port, _folder: folder };
        let ready = || Ok(Raw::connect(port).and_then(|mut raw| raw.text(&["PING"])).is_ok());
        wait_until(ready, Duration::from_secs(20), "redis-server to answer")?;
        Ok(Some(peer))
    }

    /// A new connection to it.
    ///
    /// # Errors
    /// When it has gone.
    pub fn raw(&self) -> Result<Raw> {
        Raw::connect(self.port)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

//! Debian's redis-server, for comparisons.

use crate::{ports, tools, wait::wait_until, wire::RawConnection};
use anyhow::{Context, Result};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Running redis-server; dropping it kills the server.
#[derive(Debug)]
pub struct Peer {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Peer {
    /// Starts redis-server on a free port without save points. Returns `None` if it is not
    /// installed.
    ///
    /// # Errors
    /// Returns an error if the server does not answer within 20 s.
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
        let ready =
            || Ok(RawConnection::connect(port).and_then(|mut raw| raw.text(&["PING"])).is_ok());
        wait_until(ready, Duration::from_secs(20), "redis-server to answer")?;
        Ok(Some(peer))
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Returns an error if the server has ended.
    pub fn raw(&self) -> Result<RawConnection> {
        RawConnection::connect(self.port)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

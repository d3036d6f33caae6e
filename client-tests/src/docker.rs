//! A Docker daemon of the tests' own, in a folder of its own, with an image of Debian made on the
//! spot: nothing is pulled, and a daemon that runs already is left alone.

use crate::{tools, wait::wait_until};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);
/// For what installs packages, or compiles.
const LONG: Duration = Duration::from_secs(900);

/// What the image of `rust` needs besides Debian's base: a linker, and trust in registries.
const PACKAGES: &str = "gcc,libc6-dev,ca-certificates";

/// A running daemon; ends when dropped, and all of its containers with it.
pub struct Docker {
    daemon: Child,
    folder: tempfile::TempDir,
}

impl Docker {
    /// Starts one. `Ok(Err(reason))`, fit for [`skip!`](crate::skip), where it cannot run.
    ///
    /// # Errors
    /// When it should run, but does not.
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
            // The machine's network stays as it is: containers have none, or the machine's.
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

    /// The end of the daemon's log.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn command(&self) -> Command {
        // Debian's own client, which has BuildKit built in.
        let debian = Path::new("/usr/bin/docker");
        let mut command = Command::new(if debian.is_file() { debian } else { "docker".as_ref() });
        command
            .env("DOCKER_HOST", format!("unix://{}", self.folder.path().join("socket").display()))
            .env("DOCKER_BUILDKIT", "1");
        command
    }

    /// Runs `docker` with these arguments; what it wrote to standard output.
    ///
    /// # Errors
    /// When it fails, with all that it wrote.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command();
        let outcome = tools::run(command.args(arguments), b"", LONG)?;
        Ok(outcome.success().with_context(|| arguments.join(" "))?.trim().to_owned())
    }

    /// Makes the two images that a Dockerfile for Rust on Debian begins with, of this machine's
    /// toolchain and of packages from the network.
    ///
    /// # Errors
    /// When there is no network, or no room.
    pub fn make_base_images(&self, debian: &str, rust: &str) -> Result<()> {
        let root = self.folder.path().join("root");
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.arg("--variant=minbase").arg(format!("--include={PACKAGES}"));
        debootstrap.arg("bookworm").arg(&root);
        tools::run(&mut debootstrap, b"", LONG)?.success()?;
        self.import(&root, debian, &[])?;
        let sysroot = tools::run(Command::new("rustc").args(["--print", "sysroot"]), b"", LONG)?;
        let sysroot = PathBuf::from(sysroot.success()?.trim());
        let mut copy = Command::new("cp");
        copy.arg("-a").args([sysroot.join("bin"), sysroot.join("lib")]).arg(root.join("usr/local"));
        tools::run(&mut copy, b"", LONG)?.success()?;
        // Whoever signs for the registries here signs for them there.
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

    /// Makes an image of a folder.
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
        // It takes its own containerd, and its mounts, with it.
        drop(tools::signal(self.daemon.id(), nix::sys::signal::Signal::SIGTERM));
        if !matches!(tools::wait(&mut self.daemon, DEADLINE), Ok(Some(_))) {
            drop(self.daemon.kill());
            drop(self.daemon.wait());
        }
    }
}

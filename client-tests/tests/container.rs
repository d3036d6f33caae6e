//! The image of docker/Dockerfile: build, checkpoints in a volume, huge pages.

use anyhow::{Result, ensure};
use client_tests::docker::Docker;
use client_tests::hugepages::{self, PageSize};
use client_tests::wait::wait_until;
use client_tests::{TestResult, skip, tools};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

/// Container of the image, without network: clients use a socket in its volume.
struct Container<'d> {
    docker: &'d Docker,
    name: &'static str,
    volume: PathBuf,
}

impl<'d> Container<'d> {
    fn start(docker: &'d Docker, name: &'static str, arguments: &[&str]) -> Result<Self> {
        let volume = format!("{name}:/data");
        let mut command = vec!["run", "-d", "--name", name, "--network", "none"];
        command.extend(["--health-interval", "1s", "-v", &volume, "cowherd"]);
        command.extend(["--unixsocket", "/data/socket", "--unixsocketperm", "777"]);
        command.extend(arguments);
        docker.run(&command)?;
        let volume = docker.run(&["volume", "inspect", "-f", "{{.Mountpoint}}", name])?;
        let container = Self { docker, name, volume: volume.into() };
        container.wait_until_healthy()?;
        Ok(container)
    }

    fn inspect(&self, format: &str) -> Result<String> {
        self.docker.run(&["inspect", "-f", format, self.name])
    }

    fn wait_until_healthy(&self) -> Result<()> {
        let healthy = || Ok(self.inspect("{{.State.Health.Status}}")? == "healthy");
        wait_until(healthy, DEADLINE, "the container to be healthy")
    }

    fn cli(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("redis-cli");
        command.arg("-s").arg(self.volume.join("socket")).args(arguments);
        Ok(tools::run(&mut command, b"", DEADLINE)?.success()?.trim().to_owned())
    }

    fn checkpoint(&self) -> Result<()> {
        self.cli(&["BGSAVE"])?;
        let ended = || Ok(self.cli(&["INFO", "persistence"])?.contains("bgsave_in_progress:0"));
        wait_until(ended, DEADLINE, "the checkpoint to end")
    }
}

#[test]
fn the_image_is_built_and_its_server_keeps_data() -> TestResult {
    if tools::find("redis-cli").is_none() {
        skip!("there is no redis-cli on PATH");
    }
    let docker = match Docker::start()? {
        Ok(docker) => docker,
        Err(reason) => skip!("{reason}"),
    };
    let dockerfile = std::fs::read_to_string(tools::package_file("../docker/Dockerfile"))?;
    let mut bases = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM "));
    let (rust, debian) = (bases.next().unwrap_or_default(), bases.next().unwrap_or_default());
    let rust = rust.split(' ').next().unwrap_or_default();
    ensure!(rust.starts_with("rust:") && debian.starts_with("debian:"), "{rust}, {debian}");
    docker.make_base_images(debian, rust)?;
    let tree = tools::package_file("..").display().to_string();
    let file = tools::package_file("../docker/Dockerfile").display().to_string();
    // All steps of the Dockerfile run; only the optimization differs from a release.
    let mut build = vec!["build", "--network", "host", "--build-arg", "PROFILE=unoptimized"];
    build.extend(["-t", "cowherd", "-f", &file, &tree]);
    docker.run(&build)?;
    check_persistence(&docker)?;
    check_huge_pages(&docker)
}

/// The server runs as an ordinary user, and its checkpoints survive a stop and a kill.
fn check_persistence(docker: &Docker) -> TestResult {
    let container =
        Container::start(docker, "plain", &["--save", "3600 1", "--maxmemory", "64mb"])?;
    ensure!(
        docker.run(&["exec", "plain", "id", "-u"])? == "6379",
        "the server runs as another user"
    );
    ensure!(container.cli(&["SET", "key", "first"])? == "OK");
    container.checkpoint()?;
    ensure!(container.volume.join("dump.cow").is_file(), "no image in the volume");
    ensure!(container.cli(&["SET", "key", "second"])? == "OK");
    docker.run(&["stop", "plain"])?;
    ensure!(
        container.inspect("{{.State.ExitCode}}")? == "0",
        "{}",
        docker.run(&["logs", "plain"])?
    );
    docker.run(&["start", "plain"])?;
    container.wait_until_healthy()?;
    ensure!(container.cli(&["GET", "key"])? == "second", "the last checkpoint is lost");
    ensure!(container.cli(&["SET", "key", "third"])? == "OK");
    docker.run(&["kill", "plain"])?;
    docker.run(&["start", "plain"])?;
    container.wait_until_healthy()?;
    ensure!(container.cli(&["GET", "key"])? == "second", "a kill has damaged the last checkpoint");
    // The server can read its page tables in a container too.
    container.checkpoint()?;
    let checkpoint = container.cli(&["INFO", "checkpoint"])?;
    ensure!(checkpoint.contains("huge_before_bytes="), "{checkpoint}");
    Ok(())
}

/// A container can use the machine's hugetlb pool without privileges.
fn check_huge_pages(docker: &Docker) -> TestResult {
    match hugepages::claim(PageSize::Huge2M, 2 * 32 + 8)? {
        Ok(_claim) => {
            let arguments = ["--arena-pages", "huge-2mb", "--maxmemory", "64mb", "--save", ""];
            let container = Container::start(docker, "huge", &arguments)?;
            let memory = container.cli(&["INFO", "memory"])?;
            ensure!(memory.contains("cowherd_arena_pages:huge-2mb"), "{memory}");
            container.checkpoint()?;
            docker.run(&["rm", "-f", "huge"])?;
            Ok(())
        }
        Err(reason) => skip!("{reason}"),
    }
}

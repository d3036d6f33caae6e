//! The image of docker/Dockerfile, really built and run.

use anyhow::{Result, ensure};
use client_tests::docker::Docker;
use client_tests::hugepages::{self, PageSize};
use client_tests::wait::wait_until;
use client_tests::{TestResult, skip, tools};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

/// A container of the image, without a network: clients use a socket in its volume.
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

    fn save(&self) -> Result<()> {
        self.cli(&["BGSAVE"])?;
        let saved = || Ok(self.cli(&["INFO", "persistence"])?.contains("bgsave_in_progress:0"));
        wait_until(saved, DEADLINE, "the save to end")
    }
}

#[test]
fn the_image_is_built_and_keeps_its_data() -> TestResult {
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
    docker.run(&["build", "--network", "host", "-t", "cowherd", "-f", &file, &tree])?;
    keeps_its_data(&docker)?;
    takes_huge_pages(&docker)
}

/// As an ordinary user, healthy, with an image in its volume that a stop and a kill leave whole.
fn keeps_its_data(docker: &Docker) -> TestResult {
    let container =
        Container::start(docker, "plain", &["--save", "3600 1", "--maxmemory", "64mb"])?;
    ensure!(docker.run(&["exec", "plain", "id", "-u"])? == "6379", "it runs as somebody else");
    ensure!(container.cli(&["SET", "key", "first"])? == "OK");
    container.save()?;
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
    ensure!(container.cli(&["GET", "key"])? == "second", "the last save is lost");
    ensure!(container.cli(&["SET", "key", "third"])? == "OK");
    docker.run(&["kill", "plain"])?;
    docker.run(&["start", "plain"])?;
    container.wait_until_healthy()?;
    ensure!(container.cli(&["GET", "key"])? == "second", "a kill leaves the last save");
    // What the page tables tell is told in there too.
    container.save()?;
    let save = container.cli(&["INFO", "checkpoint"])?;
    ensure!(save.contains("huge_before_bytes="), "{save}");
    Ok(())
}

/// The machine's pool serves containers too, without any privilege.
fn takes_huge_pages(docker: &Docker) -> TestResult {
    match hugepages::claim(PageSize::Huge2M, 2 * 32 + 8)? {
        Ok(_claim) => {
            let arguments = ["--arena-pages", "huge-2mb", "--maxmemory", "64mb", "--save", ""];
            let container = Container::start(docker, "huge", &arguments)?;
            let memory = container.cli(&["INFO", "memory"])?;
            ensure!(memory.contains("cowherd_arena_pages:huge-2mb"), "{memory}");
            container.save()?;
            docker.run(&["rm", "-f", "huge"])?;
            Ok(())
        }
        Err(reason) => skip!("{reason}"),
    }
}

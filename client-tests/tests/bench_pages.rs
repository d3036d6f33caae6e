//! `cowherd-bench pages`, and the cleanup of both benchmarks after a signal.

use anyhow::{Context as _, Result, ensure};
use client_tests::binaries::{cowherd_bench, run_cowherd, run_cowherd_bench};
use client_tests::hugepages::{PageSize, claim};
use client_tests::wait::wait_until;
use client_tests::{TestResult, skip, tools};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(600);

fn bench(more: &[&str]) -> Result<tools::ProgramOutput> {
    let arguments = [&["pages", "--runs", "2", "--fault-runs", "1"], more].concat();
    run_cowherd_bench(&arguments, DEADLINE)
}

/// Finds the cell with these parameters.
fn cell<'a>(result: &'a Value, kind: &str, pattern: &str, writer: &str) -> Result<&'a Value> {
    let cells = result["experiment"]["cells"].as_array().context("no cells")?;
    let wanted = |cell: &&Value| {
        cell["kind"] == kind && cell["pattern"] == pattern && cell["writer"] == writer
    };
    cells.iter().find(wanted).with_context(|| format!("no cell {kind} {pattern} {writer}"))
}

fn faults(cell: &Value) -> Result<u64> {
    let runs = cell["runs"].as_array().context("no runs")?;
    let faults = runs.iter().filter_map(|run| run["faults"].as_u64());
    faults.min().context("no faults")
}

#[test]
fn each_write_after_a_fork_faults_once_on_private_memory() -> TestResult {
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report");
    let output = bench(&[
        "--kinds",
        "small,shared-small",
        "--sizes",
        "1,8",
        "--report",
        &report.display().to_string(),
    ])?
    .success()?;
    ensure!(output.contains("Sparse writes by the child"), "{output}");
    ensure!(output.contains("was not put to the test"), "{output}");
    ensure!(output.contains("published huge"), "{output}");

    let read = |name: &str| std::fs::read_to_string(report.join(name));
    let result: Value = serde_json::from_str(&read("pages.json")?)?;
    let cells = result["experiment"]["cells"].as_array().context("no cells")?;
    ensure!(cells.len() == 2 * 2 * 2 * 2, "{}", cells.len());
    for cell in cells {
        let size = cell["size"].as_u64().context("no size")?;
        let writes = if cell["pattern"] == "dense" { size * 512 } else { size };
        ensure!(cell["runs"].as_array().is_some_and(|runs| runs.len() == 2), "{cell}");
        ensure!(cell["each"][0]["count"] == writes, "{cell}");
        let faults = faults(cell)?;
        if cell["kind"] == "small" {
            // Pages of the stack or of the program may fault too.
            ensure!((writes..writes + 16).contains(&faults), "{cell}");
        } else if cell["writer"] == "parent" {
            ensure!(faults < 16, "shared memory has nothing to copy: {cell}");
        }
        for run in cell["runs"].as_array().context("no runs")? {
            let phases = run["phases_ms"].as_array().context("no phases")?;
            let sum = phases.iter().filter_map(Value::as_f64).sum::<f64>();
            let whole = run["whole_ms"].as_f64().context("no whole")?;
            ensure!((sum - whole).abs() < 0.001, "the phases do not add up: {run}");
        }
    }
    ensure!(read("pages.csv")?.lines().count() == 1 + cells.len());
    ensure!(read("pages.md")?.contains("| 8 x 2 MiB |"));
    let page = read("pages.html")?;
    ensure!(page.matches("<svg ").count() == 8 && !page.contains("src="), "{page}");
    Ok(())
}

#[test]
fn a_pool_that_is_too_small_is_reported_with_the_remedy() -> TestResult {
    // Through the server's command line, which the other tests bypass.
    let outcome = run_cowherd(&["bench", "pages", "--kinds", "huge-2mb", "--sizes", "1000000"])?;
    ensure!(!outcome.status.success());
    ensure!(outcome.stderr.contains("needs 2000000 free pages in the pool"), "{}", outcome.stderr);
    ensure!(outcome.stderr.contains("hugepages-2048kB/nr_hugepages"), "{}", outcome.stderr);
    Ok(())
}

#[test]
fn a_pool_is_enlarged_and_restored() -> TestResult {
    if !tools::is_root() {
        skip!("only root may set the pool");
    }
    let _claim = match claim(PageSize::Huge2M, 0)? {
        Ok(claim) => claim,
        Err(missing) => skip!("{missing}"),
    };
    let before = PageSize::Huge2M.figure("nr_hugepages")?;
    let size = (PageSize::Huge2M.available() / 2 + 4).to_string();
    let output = bench(&[
        "--set-pool",
        "--kinds",
        "small,huge-2mb,shared-2mb",
        "--sizes",
        &size,
        "--patterns",
        "sparse",
        "--json",
        "-",
    ])?
    .success()?;
    ensure!(PageSize::Huge2M.figure("nr_hugepages")? == before);
    let json = &output[output.find("\n{").context("no JSON")?..];
    let result: Value = serde_json::from_str(json)?;
    if result["experiment"]["left_out"].as_array().is_some_and(|left_out| !left_out.is_empty()) {
        skip!("the kernel found no huge pages: {}", result["experiment"]["left_out"]);
    }
    let size = size.parse::<u64>()?;
    let copied = faults(cell(&result, "huge-2mb", "sparse", "parent")?)?;
    ensure!((size..size + 16).contains(&copied), "{copied} of {size}");
    let shared = faults(cell(&result, "shared-2mb", "sparse", "parent")?)?;
    ensure!(shared < 16, "{shared}");
    Ok(())
}

/// Benchmark that runs until a signal stops it.
struct RunningBench(Child);

impl RunningBench {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(cowherd_bench()?);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    /// Sends a signal and returns the exit code.
    fn stop(mut self, signal: Signal) -> Result<i32> {
        tools::signal(self.0.id(), signal)?;
        let status = tools::wait(&mut self.0, DEADLINE)?.context("it does not end")?;
        status.code().context("it was killed")
    }
}

impl Drop for RunningBench {
    fn drop(&mut self) {
        // The process still runs only if the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_pool_is_restored_after_an_interrupt() -> TestResult {
    if !tools::is_root() {
        skip!("only root may set the pool");
    }
    let _claim = match claim(PageSize::Huge2M, 0)? {
        Ok(claim) => claim,
        Err(missing) => skip!("{missing}"),
    };
    let figure = || PageSize::Huge2M.figure("nr_hugepages");
    let before = figure()?;
    let size = (PageSize::Huge2M.available() / 2 + 4).to_string();
    let endless =
        ["pages", "--set-pool", "--kinds", "huge-2mb", "--sizes", &size, "--runs", "60000"];
    let running = RunningBench::start(&endless)?;
    wait_until(|| Ok(figure()? > before), DEADLINE, "a larger pool")?;
    ensure!(running.stop(Signal::SIGINT)? == 128 + 2);
    ensure!(figure()? == before, "{} instead of {before}", figure()?);
    Ok(())
}

#[test]
fn servers_and_their_folders_are_removed_after_a_signal() -> TestResult {
    let folder = tempfile::tempdir()?;
    let work = folder.path().display().to_string();
    let endless = ["snapshot", "--spawn", "--no-peers", "--pages", "small", "--keys", "1000"];
    let more = ["--duration", "3600", "--rate", "100", "--work", &work];
    let running = RunningBench::start(&[&endless[..], &more].concat())?;
    let servers = || -> Result<Vec<u32>> {
        let children = format!("/proc/{0}/task/{0}/children", running.0.id());
        let children = std::fs::read_to_string(children)?;
        Ok(children.split_whitespace().filter_map(|id| id.parse().ok()).collect())
    };
    wait_until(|| Ok(!servers()?.is_empty()), DEADLINE, "a server")?;
    let found = servers()?;
    ensure!(running.stop(Signal::SIGTERM)? == 128 + 15);
    ensure!(found.iter().all(|id| !tools::is_running(*id)), "{found:?}");
    ensure!(std::fs::read_dir(folder.path())?.count() == 0, "a folder is left");
    Ok(())
}

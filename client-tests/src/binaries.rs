//! The binaries under test, found beside the test program.

use crate::tools::{self, ProgramOutput};
use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Deadline of [`run_cowherd`].
const DEADLINE: Duration = Duration::from_secs(30);

/// Path of the server: `COWHERD_BIN`, else `cowherd` of this test's profile.
///
/// # Errors
/// Returns an error that names the build command if the binary does not exist.
pub fn cowherd() -> Result<PathBuf> {
    find("COWHERD_BIN", "cowherd")
}

/// Path of the benchmark program: `COWHERD_BENCH_BIN`, else `cowherd-bench` of this test's profile.
///
/// # Errors
/// Returns an error that names the build command if the binary does not exist.
pub fn cowherd_bench() -> Result<PathBuf> {
    find("COWHERD_BENCH_BIN", "cowherd-bench")
}

fn find(variable: &str, name: &str) -> Result<PathBuf> {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => {
            // This test is target/<profile>/deps/<test>.
            let test = std::env::current_exe()?;
            let folder = test.parent().and_then(Path::parent).context("this test has no folder")?;
            folder.join(name)
        }
    };
    ensure!(
        path.is_file(),
        "{name} is not built: there is no {}. Build it with `cargo build -p {name}` and the \
         profile of this test, or name a binary in {variable}",
        path.display()
    );
    Ok(path)
}

/// Runs `cowherd` with these arguments to its end, as for its subcommands.
///
/// # Errors
/// Returns an error if the binary does not exist or does not end within 30 s.
pub fn run_cowherd<A: AsRef<OsStr>>(arguments: &[A]) -> Result<ProgramOutput> {
    tools::run(Command::new(cowherd()?).args(arguments), b"", DEADLINE)
}

/// Runs `cowherd-bench` with these arguments to its end.
///
/// # Errors
/// Returns an error if the binary does not exist or does not end within the deadline.
pub fn run_cowherd_bench<A: AsRef<OsStr>>(
    arguments: &[A],
    deadline: Duration,
) -> Result<ProgramOutput> {
    tools::run(Command::new(cowherd_bench()?).args(arguments), b"", deadline)
}

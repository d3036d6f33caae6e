//! Programs of `client-tests/clients/`, which use the server through libraries of other languages.

use crate::{TestResult, server::Server, skip, tools};
use anyhow::{Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a Python program against a new server; its output must end with `expected`. Skips the test
/// if `module` is not installed.
///
/// # Errors
/// Returns an error with all output if the program fails or exceeds the deadline.
pub fn run_python(module: &str, program: &str, expected: &str) -> TestResult {
    run_python_with(&Server::start()?, module, program, expected)
}

/// As [`run_python`], against a running server.
///
/// # Errors
/// As [`run_python`].
pub fn run_python_with(server: &Server, module: &str, program: &str, expected: &str) -> TestResult {
    let python = tools::client_tools().join("venv/bin/python");
    let import = ["-c", &format!("import {module}")];
    if !python.is_file() || !Command::new(&python).args(import).output()?.status.success() {
        skip!("the Python module {module} is not installed in {}", python.display());
    }
    run(server, &python, program, expected)
}

/// Runs a Node.js program against a new server; its output must end with `expected`. Skips the
/// test if `package` is not installed.
///
/// # Errors
/// Returns an error with all output if the program fails or exceeds the deadline.
pub fn run_node(package: &str, program: &str, expected: &str) -> TestResult {
    let Some(node) = tools::find("node") else {
        skip!("node is not installed");
    };
    if !tools::client_tools().join("node_modules").join(package).is_dir() {
        skip!("{package} is not installed in {}", tools::client_tools().display());
    }
    run(&Server::start()?, &node, program, expected)
}

fn run(server: &Server, interpreter: &Path, program: &str, expected: &str) -> Result<()> {
    let mut command = Command::new(interpreter);
    command
        .arg(tools::package_file("clients").join(program))
        .arg(server.port().to_string())
        .env("COWHERD_CLIENT_TOOLS", tools::client_tools());
    let wrote = tools::run(&mut command, b"", DEADLINE)?.success()?;
    ensure!(wrote.trim_end().ends_with(expected), "{wrote}");
    Ok(())
}

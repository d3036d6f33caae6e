//! The command line of `cowherd-bench`.
//!
//! Cargo builds the program of a crate along with its tests only if the crate has an integration
//! test. This one is also what makes `cargo test` build `cowherd-bench` for client-tests, which run
//! it through `cowherd bench` and pack it into the Debian package.

use std::io;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_cowherd-bench")).args(arguments).output()
}

#[test]
fn help_lists_both_experiments() -> io::Result<()> {
    let output = run(&["--help"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for command in ["pages", "snapshot"] {
        assert!(text.contains(&format!("\n  {command} ")), "{text}");
    }
    Ok(())
}

#[test]
fn an_unknown_experiment_is_an_error_of_usage() -> io::Result<()> {
    let output = run(&["moo"])?;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("moo"), "{output:?}");
    Ok(())
}

//! The command line of `cowherd-bench`.
//!
//! Cargo builds the binary of a package along with its tests only if the package has an integration
//! test. This one makes `cargo test` build `cowherd-bench` for client-tests, which run the binary
//! and pack it into the Debian package.

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

#[test]
fn errors_name_their_cause() -> io::Result<()> {
    let cases: [(&[&str], &str); 3] = [
        (&["--target", "127.0.0.1:1"], "is a server running there?"),
        (&["--mix", "0:0"], "is no mix"),
        (&["--rate", "0"], "--rate"),
    ];
    for (options, message) in cases {
        let output = run(&[&["snapshot", "--rounds", "1"], options].concat())?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{options:?}");
        assert!(stderr.contains(message), "{options:?}: {stderr}");
    }
    Ok(())
}

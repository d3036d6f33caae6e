//! The `cowherd` binary: the server and its subcommands.
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

const DEFAULT_PORT: u16 = 6379;
const PING_TIMEOUT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    #[cfg(panic = "unwind")]
    abort_on_panic();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some("bench") => bench(&args[1..]),
        Some("check") => check(&args[1..]),
        Some("ping") => ping(&args[1..]),
        _ => cowherd::serve(args.into_iter()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cowherd: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// Makes a panic in any thread end the process, as `panic = "abort"` does in a release. The profile
/// of the tests unwinds, so that the server and the test programs share the compiled crates.
#[cfg(panic = "unwind")]
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// The text of an error and of those causes that the text does not quote already.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// `cowherd check FILE`: restores an image into a separate arena and verifies every structure.
fn check(args: &[String]) -> anyhow::Result<()> {
    let [path] = args else { anyhow::bail!("usage: cowherd check FILE") };
    let report = cowherd::check_image(Path::new(path))?;
    print!("{path}: whole\n{report}");
    Ok(())
}

/// `cowherd ping [--port N]`: checks whether a server answers on this machine.
fn ping(args: &[String]) -> anyhow::Result<()> {
    const USAGE: &str = "usage: cowherd ping [--port N]";
    let port = match args {
        [] => DEFAULT_PORT,
        [flag, port] if flag == "--port" => {
            port.parse().map_err(|_| anyhow::anyhow!("{port:?} is not a port; {USAGE}"))?
        }
        _ => anyhow::bail!(USAGE),
    };
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .map_err(|error| anyhow::anyhow!("no server answers on port {port}: {error}"))?;
    stream.set_read_timeout(Some(PING_TIMEOUT))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    anyhow::ensure!(&answer != b"-LOAD", "the server on port {port} is loading its image");
    // A server with a password answers -NOAUTH, which shows that the server runs.
    anyhow::ensure!(&answer == b"+PONG" || &answer == b"-NOAU", "the server does not answer PING");
    Ok(())
}

/// `cowherd bench ...`: replaces this process by `cowherd-bench`.
fn bench(args: &[String]) -> anyhow::Result<()> {
    Err(exec(&bench_program(std::env::current_exe().ok().as_deref()), args))
}

const BENCH: &str = "cowherd-bench";

/// The `cowherd-bench` beside the running program or, if there is none, the one on the PATH.
fn bench_program(current: Option<&Path>) -> PathBuf {
    let beside = current.map(|program| program.with_file_name(BENCH));
    beside.filter(|program| program.is_file()).unwrap_or_else(|| BENCH.into())
}

/// Replaces this process by `program`; returns only the error of a failure.
fn exec(program: &Path, args: &[String]) -> anyhow::Error {
    use std::os::unix::process::CommandExt as _;
    let error = Command::new(program).args(args).exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        return anyhow::anyhow!(
            "the benchmarks are a program of their own, {BENCH}, which is neither beside cowherd \
             nor on the PATH. Build it with: cargo build --release -p {BENCH}"
        );
    }
    anyhow::Error::new(error).context(format!("cannot run {}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn usage_errors_name_the_usage() {
        for words in [&[][..], &["a", "b"]] {
            let error = check(&strings(words)).unwrap_err().to_string();
            assert_eq!(error, "usage: cowherd check FILE");
        }
        for words in [&["7000"][..], &["--port"], &["--port", "70000"], &["--port", "x"]] {
            let error = ping(&strings(words)).unwrap_err().to_string();
            assert!(error.ends_with("usage: cowherd ping [--port N]"), "{error}");
        }
    }

    #[test]
    fn a_missing_bench_program_names_the_build_command() {
        let error = exec(Path::new("/nonexistent/cowherd-bench"), &[]).to_string();
        assert!(error.ends_with("cargo build --release -p cowherd-bench"), "{error}");
        let error = with_causes(&exec(Path::new("/dev/null"), &[]));
        assert!(error.starts_with("cannot run /dev/null: "), "{error}");
    }

    #[test]
    fn the_bench_program_beside_the_server_is_preferred() {
        let folder = tempfile::TempDir::new().unwrap();
        let current = folder.path().join("cowherd");
        assert_eq!(bench_program(Some(&current)), Path::new(BENCH));
        std::fs::write(folder.path().join(BENCH), "").unwrap();
        assert_eq!(bench_program(Some(&current)), folder.path().join(BENCH));
        assert_eq!(bench_program(None), Path::new(BENCH));
    }

    #[test]
    fn causes_that_the_error_quotes_are_not_repeated() {
        let error = anyhow::anyhow!("inner").context("outer");
        assert_eq!(with_causes(&error), "outer: inner");
        let error = anyhow::anyhow!("inner").context("outer because of inner");
        assert_eq!(with_causes(&error), "outer because of inner");
    }
}

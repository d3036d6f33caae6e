//! The `cowherd` binary: a server, and the tools around it.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use cowherd::config::{Config, Startup};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.first().map(String::as_str) {
        Some("bench") => bench(&args[1..]),
        Some("check") => check(&args[1..]),
        Some("ping") => ping(&args[1..]),
        _ => serve(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cowherd: {}", in_full(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, but for those that it tells itself.
fn in_full(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |told, cause| {
        let cause = cause.to_string();
        if told.contains(&cause) { told } else { format!("{told}: {cause}") }
    })
}

fn serve(args: Vec<String>) -> anyhow::Result<()> {
    match Config::from_args(args.into_iter())? {
        Startup::Help(text) | Startup::Version(text) => {
            print!("{text}");
            Ok(())
        }
        Startup::Run(config, file) => cowherd::server::run(*config, file),
    }
}

/// `cowherd check FILE`: reads an image and checks everything in it.
fn check(args: &[String]) -> anyhow::Result<()> {
    let [path] = args else { anyhow::bail!("usage: cowherd check FILE") };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let restored = cowherd::engine::check_image(Path::new(path), threads)?;
    let (stats, contents) = (&restored.stats, &restored.contents);
    println!("{path}: whole");
    println!("written by     {}", stats.image.writer);
    println!("keys           {} ({} with an expiry)", contents.keys, contents.expires);
    println!("chunks         {}", contents.arena.chunks);
    println!("objects        {} ({} bytes)", contents.arena.objects, contents.arena.bytes);
    println!("image          {} bytes", stats.image.image_bytes);
    println!("digest         {}", restored.digest.unwrap_or_default());
    println!("read in        {:.3} s", stats.duration.as_secs_f64());
    println!("verified in    {:.3} s", restored.verified_in.as_secs_f64());
    Ok(())
}

/// `cowherd ping [--port N]`: whether a server answers on this machine.
fn ping(args: &[String]) -> anyhow::Result<()> {
    let port = match args {
        [] => 6379,
        [flag, port] if flag == "--port" => port.parse()?,
        _ => anyhow::bail!("usage: cowherd ping [--port N]"),
    };
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    // A server with a password answers -NOAUTH, and is alive.
    anyhow::ensure!(&answer == b"+PONG" || &answer == b"-NOAU", "the server does not answer PING");
    Ok(())
}

/// `cowherd bench ...`: runs `cowherd-bench`, which stands beside this program or on the path.
fn bench(args: &[String]) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;
    const NAME: &str = "cowherd-bench";
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name(NAME));
    let program = beside.filter(|program| program.is_file()).unwrap_or_else(|| NAME.into());
    let error = std::process::Command::new(&program).args(args).exec();
    anyhow::ensure!(
        error.kind() != std::io::ErrorKind::NotFound,
        "the benchmarks are a program of their own, {NAME}, which stands neither beside cowherd \
         nor on the path. Build it with: cargo build --release -p {NAME}"
    );
    Err(anyhow::Error::new(error).context(format!("cannot run {}", program.display())))
}

//! The Cowherd server: Redis-compatible and in memory, with the whole keyspace in one arena that
//! background checkpoints write to an image.
//!
//! The library exists for the `cowherd` binary and for the fuzz targets; it promises no API.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::cast_possible_truncation))]

mod clients;
mod clock;
mod commands;
mod config;
mod engine;
mod keyspace;
mod net;
mod scripting;
mod server;
mod telemetry;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

use std::path::Path;

/// Runs the server that the command line describes until a client or a signal stops it, or prints
/// what `--help` or `--version` asks for.
///
/// # Errors
/// The arguments are wrong or the server cannot start; the text says what to do.
pub fn serve(args: impl Iterator<Item = String>) -> anyhow::Result<()> {
    match config::Config::from_args(args)? {
        config::Startup::Help(text) | config::Startup::Version(text) => {
            print!("{text}");
            Ok(())
        }
        config::Startup::Run(config, file) => server::run(*config, file),
    }
}

/// Restores the image at `path` into a separate arena, verifies every structure, compiles the
/// libraries of functions, and returns the report that `cowherd check` prints.
///
/// # Errors
/// The image is unreadable or damaged, or the machine has not enough memory.
pub fn check_image(path: &Path) -> anyhow::Result<String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(engine::check_image(path, threads)?.to_string())
}

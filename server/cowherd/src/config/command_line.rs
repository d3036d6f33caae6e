//! The command line: `cowherd [FILE|-] [--directive value ...]`, split as in redis-server.
//!
//! ```text
//!   cowherd my.conf --port 7000 --save 900 1 300 10 --requirepass "" -
//!           |         |           |                                  |
//!           file      option      its values, up to the next `--`    standard input
//! ```
//!
//! In any order on the command line, the file is read first, then standard input, then the options.
//! The word after an option is its value even if it starts with `--`; only `--save` may have none.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::directives::{Config, directives};
use super::errors::{ConfigError, ConfigLocation, ConfigProblem, shorten};
use super::loader::ConfigLoader;
use super::quoting;

/// The action that a command line requests.
#[derive(Debug)]
pub(crate) enum Startup {
    /// Run the server. The path is the configuration file, absolute, if there is one.
    Run(Box<Config>, Option<PathBuf>),
    /// Print this help.
    Help(String),
    /// Print this version.
    Version(String),
}

impl Config {
    /// Reads the configuration of a command line, with its file and standard input. `args` are
    /// without the program's name.
    pub(crate) fn from_args(args: impl Iterator<Item = String>) -> Result<Startup, ConfigError> {
        let base = std::env::current_dir().map_err(ConfigError::WorkingDirectory)?;
        start(&args.collect::<Vec<_>>(), &base, std::io::stdin().lock())
    }
}

/// An option with its values.
#[derive(Debug, PartialEq)]
struct CommandLineOption {
    name: String,
    values: Vec<String>,
}

/// The parts of a command line.
#[derive(Debug, Default, PartialEq)]
struct CommandLine {
    file: Option<String>,
    standard_input: bool,
    options: Vec<CommandLineOption>,
}

pub(super) fn start(
    args: &[String],
    base: &Path,
    standard_input: impl Read,
) -> Result<Startup, ConfigError> {
    match args.first().map(String::as_str) {
        Some("--help" | "-h") => return Ok(Startup::Help(help())),
        Some("--version" | "-v") => return Ok(Startup::Version(version())),
        _ => {}
    }
    let line = split_arguments(args)
        .map_err(|problem| ConfigError::At { location: ConfigLocation::CommandLine, problem })?;
    let mut loader = ConfigLoader::new(base);
    let file = line.file.map(PathBuf::from);
    if let Some(file) = &file {
        loader.file(file)?;
    }
    if line.standard_input {
        loader.standard_input(standard_input)?;
    }
    for option in &line.options {
        loader.directive(&option.name, &option.values, &|| ConfigLocation::CommandLine)?;
    }
    Ok(Startup::Run(Box::new(loader.finish()), file.map(|file| base.join(file))))
}

fn split_arguments(args: &[String]) -> Result<CommandLine, ConfigProblem> {
    let mut line = CommandLine::default();
    let mut rest = args;
    if let [first, tail @ ..] = args
        && !first.starts_with('-')
    {
        line.file = Some(first.clone());
        rest = tail;
    }
    // The last word was an option's name, so the next word is its value.
    let mut awaits_value = false;
    for (index, arg) in rest.iter().enumerate() {
        let at_an_end = (index == 0 && line.file.is_none()) || index + 1 == rest.len();
        if arg == "-" && at_an_end {
            line.standard_input = true;
        } else if let Some(option) = arg.strip_prefix("--").filter(|_| !awaits_value) {
            let mut given = split_option(option)?;
            awaits_value = given.values.is_empty();
            let followed = rest.get(index + 1).is_some_and(|next| !next.starts_with("--"));
            if awaits_value && !followed && given.name.eq_ignore_ascii_case("save") {
                given.values.push(String::new());
                awaits_value = false;
            }
            line.options.push(given);
        } else if let Some(option) = line.options.last_mut() {
            option.values.push(arg.clone());
            awaits_value = false;
        } else {
            return Err(ConfigProblem::NotAnOption { word: shorten(arg) });
        }
    }
    Ok(line)
}

/// Splits `port` or, when name and value are quoted as one word, `port 7000`.
fn split_option(option: &str) -> Result<CommandLineOption, ConfigProblem> {
    let mut words = quoting::split(option.as_bytes())?.into_iter();
    match words.next() {
        Some(name) => Ok(CommandLineOption { name, values: words.collect() }),
        None => Err(ConfigProblem::NotAnOption { word: "--".to_owned() }),
    }
}

fn version() -> String {
    format!("cowherd {}", env!("CARGO_PKG_VERSION"))
}

fn help() -> String {
    let mut text = format!(
        "{}: a Redis-compatible in-memory key-value server\n\n{USAGE}\nDirectives:\n",
        version()
    );
    let defaults = Config::default();
    for directive in directives() {
        let mut default = directive.show(&defaults);
        if default.is_empty() {
            default = "\"\"".to_owned();
        }
        let also =
            directive.aliases.iter().map(|alias| format!(" (also --{alias})")).collect::<String>();
        text.push_str(&format!(
            "  --{} {}{also}\n      {} [{default}]\n",
            directive.name,
            directive.shape(),
            directive.summary
        ));
    }
    text
}

const USAGE: &str = "\
Usage:
  cowherd [FILE] [--directive value ...] [-]
  cowherd -                     read the configuration from standard input
  cowherd check FILE            check an image
  cowherd ping [--port N]       check whether a server answers on this machine
  cowherd bench ...             run the benchmarks (cowherd-bench)
  cowherd --help | --version

FILE is written like redis.conf: a directive and its values per line, # before a comment.
Options are directives too; they come after FILE and win over it.

Examples:
  cowherd
  cowherd /etc/cowherd/cowherd.conf --port 7000
  cowherd --save 900 1 300 10 --maxmemory 2gb
  echo 'maxmemory 128mb' | cowherd -
";

#[cfg(test)]
#[path = "command_line_tests.rs"]
mod tests;

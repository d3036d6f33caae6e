//! Errors of a configuration and their messages.
//!
//! Messages never repeat a value, since it may be a password: location and name identify the line.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// The longest part of a user's text that a message repeats, in characters.
const LONGEST_ECHO: usize = 128;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file named on the command line cannot be read.
    #[error("cannot read the configuration file '{path}': {error}", path = path.display())]
    Open {
        /// The file, as it was named.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// A problem at a known location.
    #[error("{location}: {problem}")]
    At {
        /// The line, or the command line.
        location: ConfigLocation,
        /// What is wrong.
        problem: ConfigProblem,
    },
    /// The working directory does not exist, so relative paths cannot be resolved.
    #[error("cannot find the working directory: {0}; start Cowherd from one that exists")]
    WorkingDirectory(io::Error),
}

/// The location of a directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConfigLocation {
    /// In a file; lines count from 1.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// In the text read from standard input; lines count from 1.
    StandardInput {
        /// The line.
        line: usize,
    },
    /// An argument of the command line.
    CommandLine,
}

impl fmt::Display for ConfigLocation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(out, "{}:{line}", path.display()),
            Self::StandardInput { line } => write!(out, "standard input:{line}"),
            Self::CommandLine => out.write_str("command line"),
        }
    }
}

/// What is wrong with a directive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigProblem {
    /// No directive has this name.
    #[error("unknown directive '{name}'{}", suggestion(*.nearest))]
    Unknown {
        /// The name as written.
        name: String,
        /// A known name close to it.
        nearest: Option<&'static str>,
    },
    /// The value does not fit.
    #[error("{name}: {reason}; write it as: {name} {shape}")]
    Value {
        /// The directive.
        name: &'static str,
        /// Why the value does not fit.
        reason: String,
        /// The syntax of a value.
        shape: String,
    },
    /// A directive of Redis for a feature that Cowherd lacks.
    #[error("{name}: {why}")]
    Unsupported {
        /// The directive.
        name: &'static str,
        /// The missing feature, and what to do instead.
        why: String,
    },
    /// A quote is not closed, or not followed by a blank.
    #[error("unbalanced quotes; close each quote, and put a blank between two values")]
    Quotes,
    /// The text is not UTF-8.
    #[error("the text is not valid UTF-8; save it as UTF-8 without escapes such as \\xff")]
    Encoding,
    /// The text is too long.
    #[error("the configuration is longer than {limit} bytes; is it the right file?")]
    TooLong {
        /// The bound in bytes.
        limit: u64,
    },
    /// Reading the text failed.
    #[error("reading failed: {0}")]
    Read(io::Error),
    /// An included file cannot be read.
    #[error("cannot read the included file '{path}': {error}", path = path.display())]
    Include {
        /// The file, as it was named.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// A file includes itself, perhaps through others.
    #[error("'{path}' includes itself; remove one include of the circle", path = path.display())]
    IncludeCycle {
        /// The file that closes the circle.
        path: PathBuf,
    },
    /// Includes are nested too deep, or there are too many.
    #[error("more than {depth} includes inside each other, or {files} in all; include fewer")]
    IncludeLimit {
        /// The deepest nesting.
        depth: usize,
        /// The most files.
        files: usize,
    },
    /// A word of the command line that is not part of an option.
    #[error("'{word}' is no option; options look like --port 6379, and --help lists them")]
    NotAnOption {
        /// The word.
        word: String,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("; did you mean '{name}'?"),
        None => "; --help lists the known ones".to_owned(),
    }
}

/// Why CONFIG SET was refused. The display form is the whole error reply, `ERR` included.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SetError {
    /// No directive has this name.
    #[error("ERR Unknown option or number of arguments for CONFIG SET - '{name}'")]
    Unknown {
        /// The name as written.
        name: String,
    },
    /// The directive is read at start only.
    #[error(
        "ERR CONFIG SET failed (possibly related to argument '{name}') - can't set immutable config"
    )]
    Immutable {
        /// The name as written.
        name: String,
    },
    /// The directive names files, which a client must not choose.
    #[error(
        "ERR CONFIG SET failed (possibly related to argument '{name}') - can't set protected config"
    )]
    Protected {
        /// The name as written.
        name: String,
    },
    /// The directive stands twice in one CONFIG SET.
    #[error("ERR CONFIG SET failed (possibly related to argument '{name}') - duplicate parameter")]
    Duplicate {
        /// The name as written.
        name: String,
    },
    /// The value does not fit.
    #[error("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}")]
    Value {
        /// The name as written, in lower case.
        name: String,
        /// Why the value does not fit.
        reason: String,
    },
}

/// Why CONFIG REWRITE failed. The display form is the whole error reply, `ERR` included.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RewriteError {
    /// There is no file to rewrite.
    #[error("ERR The server is running without a config file")]
    NoFile,
    /// The file on disk was edited into something that cannot be read.
    #[error("ERR Rewriting config file: {0}")]
    Unreadable(#[from] ConfigError),
    /// The new file could not be written; the old one stands.
    #[error("ERR Rewriting config file: {0}")]
    Write(#[from] io::Error),
}

/// A user's text for one line of a message: truncated, without control characters.
pub(super) fn shorten(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(LONGEST_ECHO).map(clean).collect();
    if text.chars().nth(LONGEST_ECHO).is_some() {
        short.push_str("...");
    }
    short
}

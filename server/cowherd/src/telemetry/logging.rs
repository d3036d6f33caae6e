//! The log: one line per event, to standard output or a file, at a level that can be changed.
//!
//! ```text
//!   2026-01-02T03:04:05.678Z 4711  INFO ready to accept connections port=6379
//!
//!   with log-format json, on one line:
//!   {"timestamp":"2026-01-02T03:04:05.678Z","level":"INFO",
//!    "message":"ready to accept connections","port":6379}
//! ```
//!
//! Redis's levels map to tracing's: debug and verbose show everything up to DEBUG, notice up to
//! INFO, warning up to WARN, nothing shows nothing.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::Subscriber;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::{Config, LogFormat, LogLevel};

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggingError {
    /// The log file cannot be written.
    #[error(
        "can't open the log file '{path}': {source}; the server did not start; check that the \
         folder exists and may be written to, or leave logfile empty for standard output"
    )]
    Open {
        /// The setting `logfile`.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another log was set up before.
    #[error("logging is set up already in this process; set it up once, at the start")]
    Twice,
}

/// The log of this process.
#[derive(Debug, Clone)]
pub(crate) struct Logging {
    level: reload::Handle<LevelFilter, Registry>,
}

impl Logging {
    /// Changes how much is logged (CONFIG SET loglevel).
    pub(crate) fn set_level(&self, level: LogLevel) {
        // Fails only after the subscriber was dropped, when there is no log either.
        let _ = self.level.reload(filter_of(level));
    }
}

/// Sets up the log as `loglevel` and `logfile` say. Once per process.
pub(crate) fn init(config: &Config) -> Result<Logging, LoggingError> {
    let (writer, colours) = match &config.logfile {
        Some(path) => (BoxMakeWriter::new(Arc::new(open(path)?)), false),
        None => (BoxMakeWriter::new(io::stdout), io::stdout().is_terminal()),
    };
    let (subscriber, logging) = build(config.loglevel, config.log_format, writer, colours);
    subscriber.try_init().map_err(|_| LoggingError::Twice)?;
    Ok(logging)
}

fn open(path: &Path) -> Result<File, LoggingError> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.map_err(|source| LoggingError::Open { path: path.to_owned(), source })
}

fn build(
    level: LogLevel,
    format: LogFormat,
    writer: BoxMakeWriter,
    colours: bool,
) -> (impl Subscriber + Send + Sync, Logging) {
    let (filter, level) = reload::Layer::new(filter_of(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        LogFormat::Text => Box::new(lines.with_ansi(colours).with_timer(TimeAndPid)),
        LogFormat::Json => {
            let json = lines.with_ansi(false).json().flatten_event(true);
            Box::new(json.with_current_span(false).with_span_list(false).with_timer(Milliseconds))
        }
    };
    (tracing_subscriber::registry().with(filter).with(lines), Logging { level })
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug | LogLevel::Verbose => LevelFilter::DEBUG,
        LogLevel::Notice => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Nothing => LevelFilter::OFF,
    }
}

/// The time in UTC with milliseconds (RFC 3339).
struct Milliseconds;

/// Length of a time with milliseconds, without its final Z.
const TO_MILLISECONDS: usize = "2026-01-02T03:04:05.678".len();

impl FormatTime for Milliseconds {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        let mut micros = String::new();
        SystemTime.format_time(&mut Writer::new(&mut micros))?;
        let millis = micros.get(..TO_MILLISECONDS).unwrap_or(&micros);
        write!(out, "{millis}Z")
    }
}

/// The time, and the process id.
struct TimeAndPid;

impl FormatTime for TimeAndPid {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        Milliseconds.format_time(out)?;
        write!(out, " {}", std::process::id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(level: LogLevel, write: impl FnOnce(&Logging)) -> String {
        log_in(LogFormat::Text, level, write)
    }

    fn log_in(format: LogFormat, level: LogLevel, write: impl FnOnce(&Logging)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cowherd.log");
        std::fs::write(&path, "old line\n").unwrap();
        let writer = BoxMakeWriter::new(Arc::new(open(&path).unwrap()));
        let (subscriber, logging) = build(level, format, writer, false);
        tracing::subscriber::with_default(subscriber, || write(&logging));
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn lines_carry_time_pid_level_and_message() {
        let log = log_of(LogLevel::Notice, |_| tracing::info!(port = 6379, "ready"));
        let line = log.strip_prefix("old line\n").expect("the file is appended to");
        let words: Vec<&str> = line.split_whitespace().collect();
        let pid = std::process::id().to_string();
        assert_eq!(words[1..], [pid.as_str(), "INFO", "ready", "port=6379"]);
        let shape: String =
            words[0].chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000Z");
        assert!(!log.contains('\x1b'));
    }

    #[test]
    fn json_lines_are_objects_with_their_fields() {
        let log = log_in(LogFormat::Json, LogLevel::Notice, |_| {
            tracing::info!(port = 6379, path = "a\"b\nc", "ready");
        });
        let line = log.strip_prefix("old line\n").unwrap();
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&object["message"], &object["level"]), (&"ready".into(), &"INFO".into()));
        assert_eq!((&object["port"], &object["path"]), (&6379.into(), &"a\"b\nc".into()));
        assert!(object["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn levels_are_mapped_and_can_be_changed() {
        let log = log_of(LogLevel::Warning, |logging| {
            tracing::info!("hidden");
            logging.set_level(LogLevel::Verbose);
            tracing::debug!("shown");
            logging.set_level(LogLevel::Nothing);
            tracing::error!("silent");
        });
        assert!(log.contains("shown") && !log.contains("hidden") && !log.contains("silent"));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_that_names_it() {
        let error = open(Path::new("/nonexistent/cowherd.log")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/cowherd.log"), "{error}");
    }
}

//! Reading configuration text: files, standard input, includes.
//!
//! A relative include resolves against the working directory, as in Redis. Length, nesting and
//! number of files are bounded, and a cycle of includes is an error.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::directives::Config;
use super::errors::{ConfigError, ConfigLocation, ConfigProblem, shorten};
use super::quoting;
use super::unsupported::{INCLUDE, KnownDirective};

/// The longest configuration text, in bytes.
pub(super) const LONGEST_TEXT: u64 = 1 << 20;
/// The deepest nesting of includes.
const DEEPEST_INCLUDE: usize = 16;
/// The most files of one configuration.
const MOST_FILES: usize = 256;

/// Collects a configuration from several sources; later ones win.
pub(super) struct ConfigLoader<'a> {
    /// The directory against which relative paths resolve.
    base: &'a Path,
    config: Config,
    /// Directives seen so far: the first line of one that adds up replaces the default.
    seen: Vec<&'static str>,
    /// The canonical paths of the files being read, each included by the one before.
    open: Vec<PathBuf>,
    files: usize,
}

impl<'a> ConfigLoader<'a> {
    pub(super) fn new(base: &'a Path) -> Self {
        Self { base, config: Config::default(), seen: Vec::new(), open: Vec::new(), files: 0 }
    }

    pub(super) fn finish(self) -> Config {
        self.config
    }

    /// Reads the main configuration file.
    pub(super) fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let full = self.base.join(path);
        let text = File::open(&full).and_then(read_bounded);
        let text = text.map_err(|error| ConfigError::Open { path: path.to_owned(), error })?;
        self.file_text(path, &text)
    }

    /// Reads `text` as the content of the file at `path`.
    pub(super) fn file_text(&mut self, path: &Path, text: &[u8]) -> Result<(), ConfigError> {
        self.open.push(canonical_path(&self.base.join(path)));
        self.files += 1;
        let location = |line| ConfigLocation::File { path: path.to_owned(), line };
        let result = self.text(text, &location);
        self.open.pop();
        result
    }

    /// Reads standard input.
    pub(super) fn standard_input(&mut self, input: impl Read) -> Result<(), ConfigError> {
        let location = |line| ConfigLocation::StandardInput { line };
        let text = read_bounded(input).map_err(|error| ConfigError::At {
            location: location(1),
            problem: ConfigProblem::Read(error),
        })?;
        self.text(&text, &location)
    }

    fn text(
        &mut self,
        text: &[u8],
        location: &dyn Fn(usize) -> ConfigLocation,
    ) -> Result<(), ConfigError> {
        if text.len() as u64 > LONGEST_TEXT {
            let problem = ConfigProblem::TooLong { limit: LONGEST_TEXT };
            return Err(ConfigError::At { location: location(1), problem });
        }
        for (line, content) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let location = || location(line);
            let words = split_line(content)
                .map_err(|problem| ConfigError::At { location: location(), problem })?;
            if let Some((name, values)) = words.split_first() {
                self.directive(name, values, &location)?;
            }
        }
        Ok(())
    }

    /// Applies one directive.
    pub(super) fn directive(
        &mut self,
        name: &str,
        values: &[String],
        location: &dyn Fn() -> ConfigLocation,
    ) -> Result<(), ConfigError> {
        if name.eq_ignore_ascii_case(INCLUDE) {
            return self.include(values, location);
        }
        self.apply(name, values)
            .map_err(|problem| ConfigError::At { location: location(), problem })
    }

    fn apply(&mut self, name: &str, values: &[String]) -> Result<(), ConfigProblem> {
        let Some(known) = KnownDirective::find(name) else {
            return Err(ConfigProblem::Unknown {
                name: shorten(name),
                nearest: KnownDirective::nearest(name),
            });
        };
        let fresh = !self.seen.contains(&known.name());
        known.apply(&mut self.config, values, fresh).map_err(|reason| match known {
            KnownDirective::Own(directive) => ConfigProblem::Value {
                name: directive.name,
                reason: with_comment_hint(reason.into_owned(), values),
                shape: directive.shape(),
            },
            KnownDirective::Foreign(foreign) => {
                ConfigProblem::Unsupported { name: foreign.name, why: reason.into_owned() }
            }
        })?;
        if fresh {
            self.seen.push(known.name());
        }
        Ok(())
    }

    fn include(
        &mut self,
        values: &[String],
        location: &dyn Fn() -> ConfigLocation,
    ) -> Result<(), ConfigError> {
        let fail = |problem| ConfigError::At { location: location(), problem };
        let [path] = values else {
            return Err(fail(ConfigProblem::Value {
                name: INCLUDE,
                reason: with_comment_hint("wrong number of arguments".to_owned(), values),
                shape: "<path>".to_owned(),
            }));
        };
        let path = PathBuf::from(path);
        let full = self.base.join(&path);
        let real = canonical_path(&full);
        if self.open.contains(&real) {
            return Err(fail(ConfigProblem::IncludeCycle { path }));
        }
        if self.open.len() > DEEPEST_INCLUDE || self.files >= MOST_FILES {
            let (depth, files) = (DEEPEST_INCLUDE, MOST_FILES);
            return Err(fail(ConfigProblem::IncludeLimit { depth, files }));
        }
        let text = File::open(&full).and_then(read_bounded);
        let text =
            text.map_err(|error| fail(ConfigProblem::Include { path: path.clone(), error }))?;
        self.file_text(&path, &text)
    }
}

/// Splits a line into words; blank lines and comments have none.
pub(super) fn split_line(line: &[u8]) -> Result<Vec<String>, ConfigProblem> {
    let line = line.trim_ascii();
    if line.starts_with(b"#") { Ok(Vec::new()) } else { quoting::split(line) }
}

/// Appends a hint: in other formats `port 6379 # comment` works.
fn with_comment_hint(reason: String, values: &[String]) -> String {
    let comment = values.len() > 1 && values.iter().any(|value| value.starts_with('#'));
    if comment { reason + " (a comment needs a line of its own)" } else { reason }
}

/// Reads at most one byte more than allowed, so that the caller detects a longer text.
fn read_bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    source.take(LONGEST_TEXT + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// The canonical path, or the path as it is if there is no such file.
fn canonical_path(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

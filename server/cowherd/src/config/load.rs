//! Reading configuration text: files, standard input, includes.
//!
//! A relative include starts at the working directory, as in Redis. Length, nesting and number
//! of files are bounded, and a circle of includes is an error.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::{ConfigError, ConfigLocation, ConfigProblem, shorten};
use super::table::Config;
use super::unsupported::{INCLUDE, KnownDirective};
use super::words;

/// The longest configuration text, in bytes.
pub(super) const LONGEST_TEXT: u64 = 1 << 20;
/// The deepest nesting of includes.
const DEEPEST_INCLUDE: usize = 16;
/// The most files of one configuration.
const MOST_FILES: usize = 256;

/// Collects a configuration from one source after the other; later ones win.
pub(super) struct Loader<'a> {
    /// Where relative paths start.
    base: &'a Path,
    config: Config,
    /// Directives met so far; the first line of one that adds up replaces the default.
    met: Vec<&'static str>,
    /// The files being read, each included by the one before, as the system names them.
    open: Vec<PathBuf>,
    files: usize,
}

impl<'a> Loader<'a> {
    pub(super) fn new(base: &'a Path) -> Self {
        Self { base, config: Config::default(), met: Vec::new(), open: Vec::new(), files: 0 }
    }

    pub(super) fn finish(self) -> Config {
        self.config
    }

    /// Reads the file that the configuration starts with.
    pub(super) fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let full = self.base.join(path);
        let text = File::open(&full).and_then(read_bounded);
        let text = text.map_err(|error| ConfigError::Open { path: path.to_owned(), error })?;
        self.file_text(path, &text)
    }

    /// Takes `text` for the content of the file that the configuration starts with.
    pub(super) fn file_text(&mut self, path: &Path, text: &[u8]) -> Result<(), ConfigError> {
        self.open.push(real_path(&self.base.join(path)));
        self.files += 1;
        let place = |line| ConfigLocation::File { path: path.to_owned(), line };
        let result = self.text(text, &place);
        self.open.pop();
        result
    }

    /// Reads standard input.
    pub(super) fn standard_input(&mut self, input: impl Read) -> Result<(), ConfigError> {
        let place = |line| ConfigLocation::StandardInput { line };
        let text = read_bounded(input).map_err(|error| ConfigError::At {
            place: place(1),
            problem: ConfigProblem::Read(error),
        })?;
        self.text(&text, &place)
    }

    fn text(
        &mut self,
        text: &[u8],
        place: &dyn Fn(usize) -> ConfigLocation,
    ) -> Result<(), ConfigError> {
        if text.len() as u64 > LONGEST_TEXT {
            let problem = ConfigProblem::TooLong { limit: LONGEST_TEXT };
            return Err(ConfigError::At { place: place(1), problem });
        }
        for (line, content) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let place = || place(line);
            let words = split_line(content)
                .map_err(|problem| ConfigError::At { place: place(), problem })?;
            if let Some((name, values)) = words.split_first() {
                self.directive(name, values, &place)?;
            }
        }
        Ok(())
    }

    /// Carries out one directive.
    pub(super) fn directive(
        &mut self,
        name: &str,
        values: &[String],
        place: &dyn Fn() -> ConfigLocation,
    ) -> Result<(), ConfigError> {
        if name.eq_ignore_ascii_case(INCLUDE) {
            return self.include(values, place);
        }
        self.apply(name, values).map_err(|problem| ConfigError::At { place: place(), problem })
    }

    fn apply(&mut self, name: &str, values: &[String]) -> Result<(), ConfigProblem> {
        let Some(known) = KnownDirective::find(name) else {
            return Err(ConfigProblem::Unknown {
                name: shorten(name),
                nearest: KnownDirective::nearest(name),
            });
        };
        let fresh = !self.met.contains(&known.name());
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
            self.met.push(known.name());
        }
        Ok(())
    }

    fn include(
        &mut self,
        values: &[String],
        place: &dyn Fn() -> ConfigLocation,
    ) -> Result<(), ConfigError> {
        let fail = |problem| ConfigError::At { place: place(), problem };
        let [path] = values else {
            return Err(fail(ConfigProblem::Value {
                name: INCLUDE,
                reason: with_comment_hint("wrong number of arguments".to_owned(), values),
                shape: "<path>".to_owned(),
            }));
        };
        let path = PathBuf::from(path);
        let full = self.base.join(&path);
        let real = real_path(&full);
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

/// Cuts a line into words; blank lines and comments have none.
pub(super) fn split_line(line: &[u8]) -> Result<Vec<String>, ConfigProblem> {
    let line = line.trim_ascii();
    if line.starts_with(b"#") { Ok(Vec::new()) } else { words::split(line) }
}

/// Users of other formats expect `port 6379 # comment` to work.
fn with_comment_hint(reason: String, values: &[String]) -> String {
    let comment = values.len() > 1 && values.iter().any(|value| value.starts_with('#'));
    if comment { reason + " (a comment needs a line of its own)" } else { reason }
}

/// Reads one byte more than is allowed, so that a longer text is noticed.
fn read_bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    source.take(LONGEST_TEXT + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// The file's one true name, or the path as it is when there is no such file.
fn real_path(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

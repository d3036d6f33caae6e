//! What a careful reader would check on the whole tree: layers, unsafe code, heads, lengths, links.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Which rooms of `server/cowherd/src` each room may use. What is not listed may use nothing.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["server", "engine", "config", "telemetry", "clock"]),
    ("server", &["net", "engine", "config", "telemetry", "clock"]),
    ("net", &["engine", "config", "telemetry", "clock"]),
    ("engine", &["commands", "clients", "keyspace", "config", "telemetry", "clock"]),
    ("commands", &["clients", "keyspace", "config", "telemetry", "clock"]),
    ("clients", &["keyspace", "config", "telemetry", "clock"]),
    ("keyspace", &["config", "telemetry", "clock"]),
    ("telemetry", &["config", "clock"]),
];

/// Which rooms of `server/cowherd/src` may name each other crate of the workspace.
const CRATES: &[(&str, &[&str])] = &[
    ("cowherd_arena", &["server", "engine", "keyspace", "telemetry", "clock"]),
    ("cowherd_resp", &["net", "engine", "commands", "clients"]),
];

/// Single files that may use one more room or crate, and why.
const LAYER_EXCEPTIONS: &[(&str, &str, &str)] =
    &[("commands/debug.rs", "cowherd_arena", "DEBUG shows and checks the arena itself")];

/// The rooms that know tokio: a lock is never held across an await, so nothing below engine waits.
const ASYNC_ROOMS: &[&str] = &["main", "server", "net", "engine", "telemetry"];

/// Where unsafe code may stand: folders end with a slash. The compiler enforces the same list by
/// `deny(unsafe_code)` in each crate and `expect(unsafe_code)` in the modules named here.
const UNSAFE_ALLOWED: &[&str] = &[
    "server/arena/src/allocator/",
    "server/arena/src/barrier/",
    "server/arena/src/checkpoint/child.rs",
    "server/arena/src/checkpoint/fork.rs",
    "server/arena/src/checkpoint/quiescent_source.rs",
    "server/arena/src/checkpoint/sys.rs",
    "server/arena/src/locks.rs",
    "server/arena/src/memory/",
    "server/arena/src/open.rs",
    "server/bench/src/pages/",
];

/// The source folders of the workspace.
const SOURCES: &[&str] = &[
    "server/arena/src",
    "server/resp/src",
    "server/cowherd/src",
    "server/bench/src",
    "client-tests/src",
];

const LONGEST_FILE: usize = 600;
const WIDEST_LINE: usize = 100;

/// A source file.
struct Source {
    /// Its path below the folder that was searched.
    path: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let in_folder = self.path.split('/').any(|part| part == "tests");
        in_folder || name == "tests.rs" || name == "testing.rs" || name.ends_with("_tests.rs")
    }

    /// `main` for main.rs, `arena` for arena/heap.rs.
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Numbered lines of product code, comments cut off.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let lines = self.text[..tests].lines().enumerate();
        lines.map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}")) {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources(folder: &str) -> Vec<Source> {
    let folder = root().join(folder);
    let read = |path: PathBuf| Source {
        text: std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}")),
        path: path.strip_prefix(&folder).expect("below the folder").display().to_string(),
    };
    let found = files_below(&folder, "rs").into_iter().map(read).collect::<Vec<_>>();
    assert!(!found.is_empty(), "no sources in {}", folder.display());
    found
}

/// As [`sources`], with paths from the root of the tree.
fn sources_from_root(folder: &str) -> Vec<Source> {
    let below = |source: Source| Source { path: format!("{folder}/{}", source.path), ..source };
    sources(folder).into_iter().map(below).collect()
}

/// Fails with all faults at once.
fn expect_none(faults: &[String], rule: &str) {
    let mut list = String::new();
    for fault in faults {
        writeln!(list, "  {fault}").expect("writing to a string");
    }
    assert!(faults.is_empty(), "{rule}\n{list}");
}

/// The words of a line: runs of letters, digits and underscores, with where they begin.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.split(move |c| !is_word(c))
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - line.as_ptr() as usize, word))
}

/// The rooms that a line names as `crate::room` or `cowherd::room`.
fn rooms_named(line: &str) -> Vec<&str> {
    let mut rooms = Vec::new();
    for (at, word) in words(line) {
        let rest = &line[at + word.len()..];
        let path = rest.strip_prefix("::").filter(|_| word == "crate" || word == "cowherd");
        if let Some((0, room)) = path.and_then(|path| words(path).next()) {
            rooms.push(room);
        } else if path.is_some_and(|path| path.starts_with('{')) {
            rooms.push("{");
        }
    }
    rooms
}

/// The crates of this workspace that a line names.
fn crates_named(line: &str) -> impl Iterator<Item = &str> {
    let is_path = |at: usize, word: &str| line[at + word.len()..].starts_with("::");
    let named =
        move |(at, word): &(usize, &str)| word.starts_with("cowherd_") && is_path(*at, word);
    words(line).filter(named).map(|(_, word)| word)
}

#[test]
fn rooms_and_crates_are_found_in_lines() {
    assert_eq!(rooms_named("use crate::arena::{Heap, pages};"), ["arena"]);
    assert_eq!(rooms_named("    let x = crate::net::y(cowherd::config::Z);"), ["net", "config"]);
    assert_eq!(rooms_named("use crate::{arena, net};"), ["{"]);
    assert_eq!(rooms_named("pub(crate) fn crate_name() -> super::Arena"), [""; 0]);
    assert_eq!(crates_named("use cowherd_arena::Arena;").collect::<Vec<_>>(), ["cowherd_arena"]);
}

#[test]
fn rooms_keep_to_their_layers() {
    let mut faults = Vec::new();
    for source in sources("server/cowherd/src").iter().filter(|source| !source.is_test()) {
        let room = source.room();
        let listed = LAYERS.iter().find(|(name, _)| *name == room);
        let allowed = listed.map_or(&[][..], |(_, allowed)| *allowed);
        let excepted =
            |used| LAYER_EXCEPTIONS.iter().any(|(path, e, _)| *path == source.path && *e == used);
        for (number, line) in source.code() {
            for used in rooms_named(line) {
                if used != room && !allowed.contains(&used) && !excepted(used) {
                    faults.push(format!("{}:{number}: {room} uses {used}", source.path));
                }
            }
            for used in crates_named(line) {
                let users = CRATES.iter().find(|(name, _)| *name == used);
                let allowed = users.is_some_and(|(_, users)| users.contains(&room));
                if !allowed && !excepted(used) {
                    faults.push(format!("{}:{number}: {room} uses {used}", source.path));
                }
            }
        }
    }
    expect_none(&faults, "These lines break the layers (see LAYERS, CRATES):");
}

#[test]
fn only_the_upper_rooms_know_tokio() {
    let mut faults = Vec::new();
    for source in sources("server/cowherd/src").iter().filter(|source| !source.is_test()) {
        if ASYNC_ROOMS.contains(&source.room()) {
            continue;
        }
        for (number, line) in source.code() {
            if words(line).any(|(_, word)| matches!(word, "tokio" | "await")) {
                faults.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    expect_none(&faults, "Nothing below engine may wait:");
}

#[test]
fn unsafe_code_stays_where_it_is_expected() {
    let mut faults = Vec::new();
    let mut used = BTreeSet::new();
    for source in SOURCES.iter().flat_map(|folder| sources_from_root(folder)) {
        if source.is_test() {
            continue;
        }
        let permits = ["expect(unsafe_code", "allow(unsafe_code"];
        for (number, line) in source.code() {
            let found = words(line).any(|(_, word)| word == "unsafe")
                || permits.iter().any(|permit| line.contains(permit));
            if !found {
                continue;
            }
            let place = UNSAFE_ALLOWED.iter().find(|place| {
                if place.ends_with('/') {
                    source.path.starts_with(*place)
                } else {
                    source.path == **place
                }
            });
            match place {
                Some(place) => drop(used.insert(*place)),
                None => faults.push(format!("{}:{number}: {}", source.path, line.trim())),
            }
        }
    }
    expect_none(&faults, "Unsafe code outside of UNSAFE_ALLOWED:");
    let idle = UNSAFE_ALLOWED.iter().filter(|place| !used.contains(*place));
    let idle = idle.map(|place| (*place).to_owned()).collect::<Vec<_>>();
    expect_none(&idle, "UNSAFE_ALLOWED names places without unsafe code:");
}

#[test]
fn every_module_says_what_it_is_for() {
    let mut faults = Vec::new();
    let tests = ["server/cowherd/tests", "client-tests/tests"];
    for folder in SOURCES.iter().chain(&tests) {
        for source in sources(folder) {
            let below_tests = folder.ends_with("src") && source.is_test();
            if !below_tests && !source.text.starts_with("//! ") {
                faults.push(format!("{folder}/{}", source.path));
            }
        }
    }
    expect_none(&faults, "These files do not open with `//! what the module is for`:");
}

#[test]
fn files_and_lines_are_short() {
    let mut faults = Vec::new();
    for folder in ["server", "client-tests"] {
        for source in sources(folder) {
            let lines = source.text.lines().count();
            if lines > LONGEST_FILE && !source.is_test() {
                faults.push(format!("{folder}/{}: {lines} lines", source.path));
            }
            for (number, line) in source.text.lines().enumerate() {
                let width = line.chars().count();
                if width > WIDEST_LINE {
                    let place = format!("{folder}/{}:{}", source.path, number + 1);
                    faults.push(format!("{place}: {width} columns"));
                }
            }
        }
    }
    let rule =
        format!("More than {LONGEST_FILE} lines, or lines wider than {WIDEST_LINE} columns:");
    expect_none(&faults, &rule);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut faults = Vec::new();
    for folder in SOURCES {
        for source in sources(folder) {
            for (number, line) in source.text.lines().enumerate() {
                let mut marks = words(line).filter(|(at, word)| {
                    let called = line[at + word.len()..].starts_with('!');
                    matches!(*word, "TODO" | "FIXME" | "XXX")
                        || called && matches!(*word, "todo" | "unimplemented" | "dbg")
                });
                if let Some((_, mark)) = marks.next() {
                    faults.push(format!("{folder}/{}:{}: {mark}", source.path, number + 1));
                }
            }
        }
    }
    expect_none(&faults, "Unfinished:");
}

/// Pages for readers: at the root and below docs/ and docker/.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    for folder in ["docs", "docker"].map(|folder| root().join(folder)) {
        if folder.is_dir() {
            paths.extend(files_below(&folder, "md"));
        }
    }
    let at_root = std::fs::read_dir(root()).expect("the root").flatten().map(|entry| entry.path());
    paths.extend(at_root.filter(|path| path.extension().is_some_and(|found| found == "md")));
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a readable page");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut faults = Vec::new();
    for (page, text) in pages() {
        let folder = page.parent().expect("a page has a folder");
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#', ' ']).next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains("://") || target.contains('@');
            if !elsewhere && !folder.join(target).exists() {
                faults.push(format!("{}: {target}", page.display()));
            }
        }
    }
    expect_none(&faults, "Links to nothing:");
}

#[test]
fn a_command_is_documented_once() {
    let path = root().join("docs/commands.md");
    let Ok(text) = std::fs::read_to_string(&path) else {
        panic!("{} is missing", path.display());
    };
    let mut seen = BTreeSet::new();
    let mut faults = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let name = line.split('|').nth(1).unwrap_or_default().trim();
        let is_command =
            name.chars().all(|c| c.is_ascii_uppercase() || " -_0123456789".contains(c));
        if is_command && !seen.insert(name) {
            faults.push(name.to_owned());
        }
    }
    expect_none(&faults, "docs/commands.md lists these twice:");
    assert!(seen.len() > 20, "docs/commands.md lists only {} commands", seen.len());
}

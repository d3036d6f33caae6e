//! Checks of the source tree as a whole: edges between modules, unsafe code, file heads, line
//! widths, links between documents, the code map.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The top-level modules of the crate `cowherd` from top to bottom, and the modules that each may
/// use. A module may use only modules below itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("lib", &["server", "engine", "config"]),
    ("server", &["net", "engine", "config", "telemetry", "clock"]),
    ("net", &["engine", "clients", "config", "telemetry", "clock"]),
    ("fuzzing", &["engine", "clients", "keyspace", "config", "clock"]),
    ("engine", &["commands", "scripting", "clients", "keyspace", "config", "telemetry", "clock"]),
    ("commands", &["scripting", "clients", "keyspace", "config", "telemetry", "clock"]),
    ("scripting", &["config", "clock"]),
    ("clients", &["keyspace", "config", "clock"]),
    ("keyspace", &["config", "clock"]),
    ("telemetry", &["config", "clock"]),
    ("config", &[]),
    ("clock", &[]),
];

/// What `main` may use of the library: no module, only the public functions.
const LIBRARY_API: &[&str] = &["serve", "check_image"];

/// Which modules may name each other crate of the workspace. Cargo enforces the crates' edges.
const CRATES: &[(&str, &[&str])] = &[
    ("cowherd_arena", &["fuzzing", "engine", "keyspace", "telemetry", "clock"]),
    ("cowherd_lua", &["engine", "scripting"]),
    ("cowherd_rdb", &["scripting"]),
    ("cowherd_resp", &["fuzzing", "net", "engine", "commands", "scripting", "clients"]),
];

/// Single files that may use one more module or crate, and why.
const LAYER_EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("commands/stats_source.rs", "cowherd_arena", "passes the arena's statistics on"),
    ("keyspace/content_digest.rs", "cowherd_resp", "a score counts as the text of a reply"),
];

/// Where async code may stand in `server/cowherd/src`: folders end with a slash. Elsewhere a future
/// could hold shard locks across an await.
const ASYNC_ALLOWED: &[&str] = &["server.rs", "net/", "telemetry/live/", "telemetry/metrics/"];

/// Types that own shard locks. Code that awaits must not name them.
const LOCK_GUARDS: &[&str] = &["Shards", "Held", "Safepoint"];

/// Where unsafe code may stand: folders end with a slash. The compiler enforces the same list by
/// `deny(unsafe_code)` in each crate and `expect(unsafe_code)` in the modules named here.
const UNSAFE_ALLOWED: &[&str] = &[
    "server/arena/src/allocator/",
    "server/arena/src/arena/",
    "server/arena/src/backing_store.rs",
    "server/arena/src/barrier/",
    "server/arena/src/checkpoint/child.rs",
    "server/arena/src/checkpoint/fork.rs",
    "server/arena/src/checkpoint/quiescent_source.rs",
    "server/arena/src/checkpoint/sys.rs",
    "server/arena/src/lib.rs",
    "server/arena/src/memory/",
    "server/bench/src/pages/",
    "server/lua/src/stack.rs",
    "server/lua/src/stack/",
];

/// Longest file. Files are cut by topic, and one topic rarely needs more lines.
const LONGEST_FILE: usize = 1000;
const WIDEST_LINE: usize = 100;

/// A source file.
struct Source {
    /// Path below the searched folder.
    path: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let in_folder = self.path.split('/').any(|part| part == "tests");
        in_folder
            || matches!(name, "tests.rs" | "testing.rs" | "testing_waits.rs")
            || name.ends_with("_tests.rs")
    }

    /// The top-level module: `main` for main.rs, `engine` for engine/worker.rs.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Numbered lines of product code without comments and without the unit tests at the end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let lines = self.text[..tests].lines().enumerate();
        lines.map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| is_place(&self.path, place))
    }
}

/// Whether `path` is the file `place` or below the folder `place`.
fn is_place(path: &str, place: &str) -> bool {
    if place.ends_with('/') { path.starts_with(place) } else { path == place }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The source folders of the workspace's crates, by the root's Cargo.toml.
fn source_folders() -> Vec<String> {
    let manifest = read(&root().join("Cargo.toml"));
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ["));
    let members = members.expect("Cargo.toml lists the members on one line");
    members.split('"').skip(1).step_by(2).map(|member| format!("{member}/src")).collect()
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
        text: read(&path),
        path: path.strip_prefix(&folder).expect("below the folder").display().to_string(),
    };
    let found = files_below(&folder, "rs").into_iter().map(read).collect::<Vec<_>>();
    assert!(!found.is_empty(), "no sources in {}", folder.display());
    found
}

/// As [`sources`] for all crates, with paths from the root of the tree.
fn all_sources() -> Vec<Source> {
    let with_folder = |folder: String| {
        let sources = sources(&folder).into_iter();
        sources.map(move |source| Source { path: format!("{folder}/{}", source.path), ..source })
    };
    source_folders().into_iter().flat_map(with_folder).collect()
}

/// Fails with the list of all faults.
fn expect_none(faults: &[String], rule: &str) {
    let mut list = String::new();
    for fault in faults {
        writeln!(list, "  {fault}").expect("writing to a string");
    }
    assert!(faults.is_empty(), "{rule}\n{list}");
}

/// The words of a line (runs of letters, digits and underscores) and their positions.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.split(move |c| !is_word(c))
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - line.as_ptr() as usize, word))
}

/// The modules that a line names as `crate::module` or `cowherd::module`; `{` for a list of them.
fn modules_named(line: &str) -> Vec<&str> {
    let mut modules = Vec::new();
    for (at, word) in words(line) {
        let rest = &line[at + word.len()..];
        let path = rest.strip_prefix("::").filter(|_| word == "crate" || word == "cowherd");
        if let Some((0, module)) = path.and_then(|path| words(path).next()) {
            modules.push(module);
        } else if path.is_some_and(|path| path.starts_with('{')) {
            modules.push("{");
        }
    }
    modules
}

/// The crates of this workspace that a line names.
fn crates_named(line: &str) -> impl Iterator<Item = &str> {
    let is_path = |at: usize, word: &str| line[at + word.len()..].starts_with("::");
    let named =
        move |(at, word): &(usize, &str)| word.starts_with("cowherd_") && is_path(*at, word);
    words(line).filter(named).map(|(_, word)| word)
}

#[test]
fn modules_and_crates_are_found_in_lines() {
    assert_eq!(modules_named("use crate::arena::{Heap, pages};"), ["arena"]);
    assert_eq!(modules_named("    let x = crate::net::y(cowherd::config::Z);"), ["net", "config"]);
    assert_eq!(modules_named("use crate::{arena, net};"), ["{"]);
    assert_eq!(modules_named("pub(crate) fn crate_name() -> super::Arena"), [""; 0]);
    assert_eq!(crates_named("use cowherd_arena::Arena;").collect::<Vec<_>>(), ["cowherd_arena"]);
}

#[test]
fn layers_list_each_module_above_those_that_it_uses() {
    let mut faults = Vec::new();
    for (position, (module, used)) in LAYERS.iter().enumerate() {
        let below = &LAYERS[position + 1..];
        for used in used.iter().filter(|used| !below.iter().any(|(module, _)| module == *used)) {
            faults.push(format!("{module} is not above {used}"));
        }
    }
    let sources = sources("server/cowherd/src");
    let modules: BTreeSet<&str> = sources.iter().map(Source::module).collect();
    let listed: BTreeSet<&str> = LAYERS.iter().map(|(module, _)| *module).chain(["main"]).collect();
    faults.extend(
        modules.symmetric_difference(&listed).map(|module| format!("{module} is in one only")),
    );
    expect_none(&faults, "LAYERS and the modules of server/cowherd/src differ:");
}

/// The faults of one line, and the permissions of LAYERS that the line needs.
fn check_line<'s>(
    source: &'s Source,
    line: &'s str,
    needed: &mut BTreeSet<(String, String)>,
) -> Vec<&'s str> {
    let module = source.module();
    let excepted =
        |used| LAYER_EXCEPTIONS.iter().any(|(path, e, _)| *path == source.path && *e == used);
    let layer = LAYERS.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, used)| *used);
    let allowed = if module == "main" { LIBRARY_API } else { layer };
    let crates =
        |used| CRATES.iter().any(|(name, modules)| *name == used && modules.contains(&module));
    let modules = modules_named(line).into_iter().filter(|used| *used != module);
    let mut faults = Vec::new();
    for used in modules.chain(crates_named(line)) {
        if allowed.contains(&used) || crates(used) {
            needed.insert((module.to_owned(), used.to_owned()));
        } else if !excepted(used) {
            faults.push(used);
        }
    }
    faults
}

#[test]
fn modules_use_only_the_modules_below_that_are_listed() {
    let (mut faults, mut needed) = (Vec::new(), BTreeSet::new());
    for source in sources("server/cowherd/src").iter().filter(|source| !source.is_test()) {
        for (number, line) in source.code() {
            for used in check_line(source, line, &mut needed) {
                faults.push(format!("{}:{number}: {} uses {used}", source.path, source.module()));
            }
        }
    }
    expect_none(&faults, "These lines break the layers (see LAYERS, CRATES):");
    let modules =
        LAYERS.iter().flat_map(|(module, used)| used.iter().map(move |used| (*module, *used)));
    let crates = CRATES
        .iter()
        .flat_map(|(used, modules)| modules.iter().map(move |module| (*module, *used)));
    let unused = |(module, used): &(&str, &str)| {
        *module != "lib" && !needed.contains(&((*module).to_owned(), (*used).to_owned()))
    };
    let unused = modules.chain(crates).filter(unused);
    let unused: Vec<_> = unused.map(|(module, used)| format!("{module} -> {used}")).collect();
    expect_none(&unused, "LAYERS or CRATES permit edges that no code needs:");
}

#[test]
fn async_code_stays_in_the_network_modules() {
    let mut faults = Vec::new();
    for source in sources("server/cowherd/src").iter().filter(|source| !source.is_test()) {
        if source.is_in(ASYNC_ALLOWED) {
            continue;
        }
        for (number, line) in source.code() {
            if words(line).any(|(_, word)| matches!(word, "tokio" | "await")) {
                faults.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    expect_none(&faults, "Async code outside of ASYNC_ALLOWED:");
}

/// A future that held a lock guard across an await would block the other connections of its worker,
/// and the compiler does not see it: the workers' futures need not be `Send`.
#[test]
fn code_that_awaits_names_no_lock_guard() {
    let mut faults = Vec::new();
    for source in sources("server/cowherd/src").iter().filter(|source| !source.is_test()) {
        if !source.code().any(|(_, line)| words(line).any(|(_, word)| word == "await")) {
            continue;
        }
        for (number, line) in source.code() {
            if words(line).any(|(_, word)| LOCK_GUARDS.contains(&word)) {
                faults.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    expect_none(&faults, "Lock guards in files with async code:");
}

#[test]
fn unsafe_code_stays_where_it_is_expected() {
    let mut faults = Vec::new();
    let mut used = BTreeSet::new();
    for source in all_sources() {
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
            match UNSAFE_ALLOWED.iter().find(|place| is_place(&source.path, place)) {
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

fn opens_with_doc(text: &str) -> bool {
    text.starts_with("//! ") || text.starts_with("#![doc = include_str!(")
}

#[test]
fn every_file_opens_with_a_module_comment() {
    let mut faults = Vec::new();
    let tests = ["server/cowherd/tests", "client-tests/tests"].map(str::to_owned);
    for folder in source_folders().iter().chain(&tests) {
        for source in sources(folder) {
            let is_unit_test = folder.ends_with("src") && source.is_test();
            if !is_unit_test && !opens_with_doc(&source.text) {
                faults.push(format!("{folder}/{}", source.path));
            }
        }
    }
    expect_none(&faults, "These files do not open with `//!` and what the module is for:");
}

#[test]
fn files_and_lines_are_within_their_limits() {
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
fn no_code_is_marked_as_unfinished() {
    let mut faults = Vec::new();
    for source in all_sources() {
        for (number, line) in source.text.lines().enumerate() {
            let mut marks = words(line).filter(|(at, word)| {
                let called = line[at + word.len()..].starts_with('!');
                matches!(*word, "TODO" | "FIXME" | "XXX")
                    || called && matches!(*word, "todo" | "unimplemented" | "dbg")
            });
            if let Some((_, mark)) = marks.next() {
                faults.push(format!("{}:{}: {mark}", source.path, number + 1));
            }
        }
    }
    expect_none(&faults, "Unfinished:");
}

/// The Markdown documents at the root and below docs/ and docker/.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    for folder in ["docs", "docker"].map(|folder| root().join(folder)) {
        if folder.is_dir() {
            paths.extend(files_below(&folder, "md"));
        }
    }
    let at_root = std::fs::read_dir(root()).expect("the root").flatten().map(|entry| entry.path());
    paths.extend(at_root.filter(|path| path.extension().is_some_and(|found| found == "md")));
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

#[test]
fn links_between_documents_resolve() {
    let mut faults = Vec::new();
    for (document, text) in documents() {
        let folder = document.parent().expect("a document has a folder");
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#', ' ']).next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains("://") || target.contains('@');
            if !elsewhere && !folder.join(target).exists() {
                faults.push(format!("{}: {target}", document.display()));
            }
        }
    }
    expect_none(&faults, "Links to nothing:");
}

#[test]
fn docs_list_each_command_once() {
    let text = read(&root().join("docs/commands.md"));
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

/// The paths that a section `### \`folder\`` of the code map lists in its block, one path per line.
fn mapped_paths(map: &str, folder: &str) -> Option<Vec<String>> {
    let (_, section) = map.split_once(&format!("\n### `{folder}`\n"))?;
    let (_, block) = section.split_once("```text\n")?;
    let (block, _) = block.split_once("\n```")?;
    Some(block.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

/// The folders at any depth (with a slash) and the files at the top of a source folder, without
/// those of unit tests.
fn paths_to_map(folder: &Path) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in std::fs::read_dir(&current).expect("a readable folder").flatten() {
            let path = entry.path();
            let below = path.strip_prefix(folder).expect("below the folder").display().to_string();
            let source = Source { path: below.clone(), text: String::new() };
            if source.is_test() || below.ends_with("tests") {
                continue;
            }
            if path.is_dir() {
                paths.insert(format!("{below}/"));
                folders.push(path);
            } else if current == folder {
                paths.insert(below);
            }
        }
    }
    paths
}

#[test]
fn the_code_map_names_every_folder_and_top_level_file() {
    let document = read(&root().join("docs/architecture.md"));
    let (_, map) = document.split_once("\n## Code map\n").expect("docs/architecture.md has a map");
    let map = map.split("\n## ").next().unwrap_or_default();
    let mut faults = Vec::new();
    for folder in source_folders() {
        let Some(mapped) = mapped_paths(map, &folder) else {
            faults.push(format!("### `{folder}` with a block ```text is missing"));
            continue;
        };
        let path = root().join(&folder);
        let missing = paths_to_map(&path).into_iter().filter(|path| !mapped.contains(path));
        faults.extend(missing.map(|path| format!("{folder}/{path} is missing")));
        let stale = mapped.iter().filter(|mapped| !path.join(mapped).exists());
        faults.extend(stale.map(|mapped| format!("{folder}/{mapped} does not exist")));
    }
    expect_none(&faults, "The code map in docs/architecture.md and the source folders differ:");
}

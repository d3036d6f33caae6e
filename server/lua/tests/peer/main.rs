//! Runs the same Lua snippets with this crate and in a redis-server, and compares the results to
//! the byte: those of the files in `edge_cases/`, and random ones of `generate.rs`.
//!
//! `COWHERD_LUA_PEER` names the server, else `redis-server` of the system is used.
//! `COWHERD_TEST_ROUNDS` sets the number of random snippets per library, else 400;
//! `COWHERD_TEST_SEED` repeats those of a failed run.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod generate;
mod local;
mod redis;

use std::fmt::Write as _;

/// Defines `run`.
const PRELUDE: &str = include_str!("../common/show.lua");

/// The script of one snippet, which is the body of a function on the first line.
fn script(snippet: &[u8]) -> Vec<u8> {
    [b"local function body() ", snippet, b"\nend\n", PRELUDE.as_bytes(), b" return run(body)"]
        .concat()
}

fn rounds() -> usize {
    std::env::var("COWHERD_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

/// Compares all snippets, or reports that there is no server to compare with.
fn compare(name: &str, snippets: &[Vec<u8>]) {
    let Some(mut peer) = redis::Peer::start() else {
        report_skip("no redis-server to compare with");
        return;
    };
    let local = local::Runner::new();
    let mut faults = String::new();
    let mut count = 0;
    for snippet in snippets {
        if std::env::var_os("COWHERD_TEST_TRACE").is_some() {
            eprintln!("{}", snippet.escape_ascii());
        }
        let script = script(snippet);
        let (expected, found) = (peer.eval(&script), local.eval(&script));
        if expected != found || expected.starts_with(b"failed") {
            count += 1;
            if count <= 20 {
                let text = snippet.escape_ascii();
                writeln!(
                    faults,
                    "{text}\n   redis: {}\n cowherd: {}",
                    expected.escape_ascii(),
                    found.escape_ascii()
                )
                .unwrap();
            }
        }
    }
    assert!(count == 0, "{name}: {count} of {} snippets differ:\n{faults}", snippets.len());
}

fn report_skip(reason: &str) {
    use std::io::Write as _;
    eprintln!("skipped: {reason}");
    if let Some(path) = std::env::var_os("COWHERD_SKIPPED") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        if let Ok(mut file) = file {
            drop(writeln!(file, "{}: {reason}", module_path!()));
        }
    }
}

fn random_snippets(generate: fn(&mut fastrand::Rng) -> Vec<u8>) -> Vec<Vec<u8>> {
    let seed = std::env::var("COWHERD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("COWHERD_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    (0..rounds()).map(|_| generate(&mut random)).collect()
}

fn edge_cases(list: &str) -> Vec<Vec<u8>> {
    let snippets = list.lines().filter(|line| !line.starts_with("--"));
    let body = |line: &str| match line.contains("return ") {
        true => line.as_bytes().to_vec(),
        false => format!("return {line}").into_bytes(),
    };
    snippets.map(body).collect()
}

#[test]
fn cjson_edge_cases() {
    compare("cjson", &edge_cases(include_str!("edge_cases/cjson.lua")));
}

#[test]
fn cmsgpack_edge_cases() {
    compare("cmsgpack", &edge_cases(include_str!("edge_cases/cmsgpack.lua")));
}

#[test]
fn struct_edge_cases() {
    compare("struct", &edge_cases(include_str!("edge_cases/struct.lua")));
}

#[test]
fn bit_edge_cases() {
    compare("bit", &edge_cases(include_str!("edge_cases/bit.lua")));
}

#[test]
fn random_cjson() {
    compare("cjson", &random_snippets(generate::cjson));
}

#[test]
fn random_cmsgpack() {
    compare("cmsgpack", &random_snippets(generate::cmsgpack));
}

#[test]
fn random_struct() {
    compare("struct", &random_snippets(generate::structs));
}

#[test]
fn random_bit() {
    compare("bit", &random_snippets(generate::bit));
}

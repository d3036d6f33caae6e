//! Library of the client tests, which start the built server in a folder of its own and send
//! commands to it.
//!
//! | module | content |
//! |---|---|
//! | [`binaries`] | the binaries under test |
//! | [`server`] | a running server: start, kill, restart, INFO, BGSAVE |
//! | [`peer`] | a running redis-server, for comparisons |
//! | [`wire`] | a RESP connection that keeps the exact bytes of replies |
//! | [`conversation`] | commands and messages of several connections, as text |
//! | [`words`] | words of a line, quoted as in redis-cli |
//! | [`wait`] | waiting for a condition, with a deadline |
//! | [`browser`] | a headless Chromium for the live page |
//! | [`tools`] | running programs, and reporting of skipped tests |
//! | [`docker`] | a Docker daemon in a folder of its own |
//! | [`debian`] | a bare Debian in a folder |
//! | [`exporter`] | Debian's redis_exporter |
//! | [`http`] | HTTP GET |
//! | [`libraries`] | programs that use client libraries of other languages |
//! | [`kernel`] | page faults and mappings of a process, from /proc |
//! | [`hugepages`] | exclusive use of the machine's hugetlb pools |
//! | [`volume`] | a small filesystem that a test can fill |
//! | [`load`] | writers that run concurrently with a test |
//! | [`mix`] | random commands for those writers |
//! | [`random`] | repeatable random numbers |
//! | [`times`] | comparison of replies that contain times |
//! | [`ports`] | free TCP ports |
//!
//! A test that cannot run on this machine reports that by [`skip!`].
#![deny(unsafe_code)]

pub mod binaries;
pub mod browser;
pub mod conversation;
pub mod debian;
pub mod docker;
pub mod exporter;
pub mod http;
pub mod hugepages;
pub mod kernel;
pub mod libraries;
pub mod load;
pub mod mix;
pub mod peer;
pub mod ports;
pub mod random;
pub mod server;
pub mod times;
pub mod tools;
pub mod volume;
pub mod wait;
pub mod wire;
pub mod words;

/// Result of a test; the error is printed with its chain of causes.
pub type TestResult = anyhow::Result<()>;

/// Returns from the test and reports the test as skipped: `skip!("no root: cannot mount")`.
///
/// The reason is written to standard error and, as one line, to the file named by
/// `COWHERD_SKIPPED`.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::tools::report_skip(module_path!(), &format!($($reason)*));
        return Ok(());
    }};
}

/// Number of rounds of a randomized test: `COWHERD_TEST_ROUNDS`, else 100.
#[must_use]
pub fn rounds() -> u64 {
    std::env::var("COWHERD_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100)
}

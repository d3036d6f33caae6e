//! Starts the real server in a folder of its own and talks to it.
//!
//! | module | what it gives |
//! |---|---|
//! | [`server`] | a running server: start, kill, restart, INFO, BGSAVE |
//! | [`peer`] | Debian's redis-server beside it, to compare with |
//! | [`wire`] | a bare RESP connection that keeps each reply's very bytes |
//! | [`wait`] | waiting for something to become true, with a deadline |
//! | [`browser`] | a headless Chromium, to look at the live page |
//! | [`tools`] | the programs the tests run, and what is missing here |
//! | [`docker`] | a Docker daemon of our own |
//! | [`exporter`] | Debian's redis_exporter |
//! | [`http`] | plain HTTP |
//! | [`kernel`] | what the kernel counts of a process |
//! | [`hugepages`] | a claim on the machine's hugetlb pool |
//! | [`volume`] | a small filesystem that can be filled to the brim |
//! | [`load`] | clients that write as fast as they can |
//! | [`random`] | repeatable random numbers |
//! | [`ports`] | free TCP ports |
//!
//! A test that cannot run on this machine says so with [`skip!`], never in silence.
#![deny(unsafe_code)]

pub mod browser;
pub mod docker;
pub mod exporter;
pub mod http;
pub mod hugepages;
pub mod kernel;
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

/// What a test returns: the error is printed with its whole chain.
pub type TestResult = anyhow::Result<()>;

/// Leaves the test, and reports it as left out: `skip!("no root: cannot mount")`.
///
/// The reason goes to standard error and, as one line, to the file that `COWHERD_SKIPPED` names.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::tools::report_skip(module_path!(), &format!($($reason)*));
        return Ok(());
    }};
}

/// How often a test that draws lots is repeated: `COWHERD_TEST_ROUNDS`, else 100.
#[must_use]
pub fn rounds() -> u64 {
    std::env::var("COWHERD_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100)
}

//! One run: a process that maps, populates, forks, lets one side write, and ends.
//!
//! ```text
//!   parent   map, write every byte | fork |  writes, if it is the writer  | wait | end
//!   child                             '-> |  writes, if it is the writer  | end
//! ```
//!
//! Who does not write is held still by a pipe, so that every page is still shared when it is
//! written. Invariant: this process has one thread, so the child may do whatever its parent could.
#![expect(unsafe_code, reason = "the experiment is a fork")]

use std::fs::File;
use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, fork, pipe};
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Pattern, UNIT, Writer};
use super::memory::Region;
use cowherd_arena::clock::monotonic_ns;

/// The slowest write that is told apart, in nanoseconds.
const SLOWEST: u64 = 60_000_000_000;

/// What one run is to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// How memory is mapped
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// How much of it, in units of 2 MiB
    #[arg(long)]
    pub size: usize,
    /// What is written
    #[arg(long, value_enum)]
    pub pattern: Pattern,
    /// Who writes
    #[arg(long, value_enum)]
    pub writer: Writer,
    /// Time every write alone
    #[arg(long)]
    pub each: bool,
    /// Look up which pages are really there
    #[arg(long)]
    pub look: bool,
}

/// What the writer saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Writes {
    /// When it began, in nanoseconds of CLOCK_MONOTONIC.
    pub begin: u64,
    /// When it ended.
    pub end: u64,
    /// Its minor page faults meanwhile.
    pub faults: u64,
    /// Each write, if they were timed.
    pub each: Option<Distribution>,
    /// Pages that the child did not inherit, if it is hugetlb memory. Linux 6.18 sometimes leaves
    /// one of 1 GiB out; a run with one says nothing about copying.
    pub missing: usize,
}

/// Times of single writes, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many writes.
    pub count: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Half of them took no longer.
    pub p50_us: f64,
    /// 99 % took no longer.
    pub p99_us: f64,
    /// 99.9 % took no longer.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

/// What a run tells whoever started it, as a line of JSON. Times in nanoseconds of CLOCK_MONOTONIC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The process was up.
    pub up: u64,
    /// Every byte was written once.
    pub populated: u64,
    /// The fork had returned in the parent.
    pub forked: u64,
    /// The writes.
    pub writes: Writes,
    /// Bytes of the region on pages of its kind, if they were looked up.
    pub really_bytes: Option<u64>,
}

/// Nanoseconds of CLOCK_MONOTONIC, which all processes share.
///
/// # Errors
/// Never on Linux.
pub fn now() -> Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(time.tv_sec())? * 1_000_000_000 + u64::try_from(time.tv_nsec())?)
}

/// Does the run and prints what it has to tell.
///
/// # Errors
/// When memory of this kind cannot be had, or the child dies of it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let up = now()?;
    let before = mthp_allocations();
    let mut region = Region::map(arguments.kind, arguments.size * UNIT)?;
    region.fill();
    let populated = now()?;
    let really_bytes = arguments.look.then(|| really(arguments.kind, &region, before));
    // Made before the fork, or its memory would count as faults.
    let mut writes = Vec::new();
    let (hold, release) = pipe()?;
    let (read, write) = pipe()?;
    // SAFETY: the invariant above: the process has one thread.
    let child = match unsafe { fork() }.context("cannot fork")? {
        ForkResult::Child => {
            drop((release, read));
            let told = match arguments.writer {
                Writer::Child => {
                    let missing = region.missing(arguments.kind)?;
                    let writes = Writes { missing, ..write_all(&mut region, arguments)? };
                    serde_json::to_vec(&writes)?
                }
                Writer::Parent => {
                    let missing = region.missing(arguments.kind)?;
                    // Returns when the parent lets go of the other end.
                    File::from(hold).read_to_end(&mut Vec::new())?;
                    serde_json::to_vec(&missing)?
                }
            };
            File::from(write).write_all(&told)?;
            std::process::exit(0);
        }
        ForkResult::Parent { child } => child,
    };
    let forked = now()?;
    drop((hold, write));
    let own = match arguments.writer {
        Writer::Parent => Some(write_all(&mut region, arguments)?),
        Writer::Child => None,
    };
    drop(release);
    File::from(read).read_to_end(&mut writes)?;
    match waitpid(child, None)? {
        WaitStatus::Exited(_, 0) => {}
        status => bail!(
            "the child ended with {status:?}; a hugetlb pool that runs dry kills it by SIGBUS"
        ),
    }
    let writes = match own {
        Some(own) => Writes {
            missing: serde_json::from_slice(&writes).context("the child told nothing")?,
            ..own
        },
        None => serde_json::from_slice(&writes).context("the child told nothing")?,
    };
    println!("{}", serde_json::to_string(&Told { up, populated, forked, writes, really_bytes })?);
    Ok(())
}

fn write_all(region: &mut Region, arguments: &Arguments) -> Result<Writes> {
    // Pages of 1 GiB are more than was asked for: only that much is written.
    let bytes = region.bytes().min(arguments.size * UNIT);
    let offsets = arguments.pattern.offsets(bytes);
    let faults = || getrusage(UsageWho::RUSAGE_SELF).map(|usage| usage.minor_page_faults());
    let mut each = Histogram::<u64>::new_with_bounds(1, SLOWEST, 3)?;
    monotonic_ns();
    let faults_before = faults()?;
    let begin = now()?;
    if arguments.each {
        for offset in offsets {
            let before = monotonic_ns();
            region.touch(offset);
            each.saturating_record(monotonic_ns() - before);
        }
    } else {
        for offset in offsets {
            region.touch(offset);
        }
    }
    let end = now()?;
    let faults = u64::try_from(faults()? - faults_before)?;
    let us = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    let each = (arguments.each && !each.is_empty()).then(|| Distribution {
        count: each.len(),
        mean_us: each.mean() / 1000.0,
        p50_us: us(each.value_at_quantile(0.5)),
        p99_us: us(each.value_at_quantile(0.99)),
        p999_us: us(each.value_at_quantile(0.999)),
        max_us: us(each.max()),
    });
    ensure!(begin <= end, "the clock went backwards");
    Ok(Writes { begin, end, faults, each, missing: 0 })
}

/// Bytes of the region that lie on pages of its kind.
fn really(kind: Kind, region: &Region, mthp_before: u64) -> u64 {
    if kind == Kind::Mthp {
        return (mthp_allocations() - mthp_before) * (64 << 10);
    }
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let (mut inside, mut bytes) = (false, std::collections::HashMap::new());
    for line in smaps.lines() {
        let word = line.split(' ').next().unwrap_or_default();
        if let Some((from, to)) = word.split_once('-') {
            let parse = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            inside = (parse(from)..parse(to)).contains(&region.address());
        } else if inside && let Some(name) = word.strip_suffix(':') {
            let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
            bytes.insert(name, kib.unwrap_or(0) * 1024);
        }
    }
    let field = |name: &str| bytes.get(name).copied().unwrap_or(0);
    match kind {
        Kind::Small => field("Rss") - field("AnonHugePages"),
        Kind::SharedSmall => field("Rss") - field("ShmemPmdMapped"),
        Kind::Thp => field("AnonHugePages"),
        // A memfd's pages that one process maps count as private, whatever the mapping.
        _ => field("Private_Hugetlb") + field("Shared_Hugetlb"),
    }
}

fn mthp_allocations() -> u64 {
    let path = format!("{}/hugepages-64kB/stats/anon_fault_alloc", crate::settings::THP);
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

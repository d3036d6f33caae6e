//! One run of the experiment: a process that maps, populates, forks, writes, and ends.
//!
//! ```text
//!   parent   map, write every byte | fork |  writes, if it is the writer  | wait | end
//!   child                             '-> |  writes, if it is the writer  | end
//! ```
//!
//! The process that does not write blocks on a pipe, so that every page is still shared when it is
//! written. Invariant: this process has one thread, so the child may call any function.
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

use super::memory::Region;
use super::parameters::{MemoryKind, UNIT, WritePattern, Writer};
use cowherd_arena::clock::monotonic_ns;

/// Upper bound of the histogram of writes, in nanoseconds.
const MAX_WRITE_NS: u64 = 60_000_000_000;

/// Arguments of one run.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArguments {
    /// Kind of the mapping
    #[arg(long, value_enum)]
    pub kind: MemoryKind,
    /// Size in units of 2 MiB
    #[arg(long)]
    pub size: usize,
    /// Addresses that are written
    #[arg(long, value_enum)]
    pub pattern: WritePattern,
    /// Process that writes
    #[arg(long, value_enum)]
    pub writer: Writer,
    /// Time each write
    #[arg(long)]
    pub time_each: bool,
    /// Determine how much memory lies on pages of the kind
    #[arg(long)]
    pub check_pages: bool,
}

/// Measurements of the writing process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WriteReport {
    /// Time of the first write, in nanoseconds of CLOCK_MONOTONIC.
    pub begin: u64,
    /// Time after the last write.
    pub end: u64,
    /// Minor page faults during the writes.
    pub faults: u64,
    /// Latency of single writes, if timed.
    pub each: Option<WriteLatency>,
    /// Number of hugetlb pages that the child did not inherit. Linux 6.18 sometimes omits a page of
    /// 1 GiB; such a run is no measurement of copying.
    pub missing: usize,
}

/// Latency of single writes in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WriteLatency {
    /// Number of writes.
    pub count: u64,
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Maximum.
    pub max_us: f64,
}

/// Report that a run prints as a line of JSON. Times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Start of `main`.
    pub up: u64,
    /// End of the first writes.
    pub populated: u64,
    /// Return of `fork` in the parent.
    pub forked: u64,
    /// Measurements of the writes after the fork.
    pub writes: WriteReport,
    /// Bytes of the mapping that lie on pages of its kind, if requested.
    pub bytes_on_pages: Option<u64>,
}

/// Reads CLOCK_MONOTONIC, which is the same in all processes, in nanoseconds.
///
/// # Errors
/// Returns the error of `clock_gettime`, which cannot fail on Linux.
pub fn now() -> Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(time.tv_sec())? * 1_000_000_000 + u64::try_from(time.tv_nsec())?)
}

/// Executes the run and prints its report.
///
/// # Errors
/// Returns an error if the memory cannot be mapped or the child fails.
pub fn run(arguments: &RunArguments) -> Result<()> {
    let up = now()?;
    let before = mthp_allocations();
    let mut region = Region::map(arguments.kind, arguments.size * UNIT)?;
    region.fill();
    let populated = now()?;
    let bytes_on_pages =
        arguments.check_pages.then(|| bytes_on_pages(arguments.kind, &region, before));
    // Created before the fork, so that page faults of its memory are not counted.
    let mut writes = Vec::new();
    let (hold, release) = pipe()?;
    let (read, write) = pipe()?;
    // SAFETY: the invariant above: the process has one thread.
    let child = match unsafe { fork() }.context("cannot fork")? {
        ForkResult::Child => {
            drop((release, read));
            let report = match arguments.writer {
                Writer::Child => {
                    let missing = region.missing_pages(arguments.kind)?;
                    let writes = WriteReport { missing, ..write_all(&mut region, arguments)? };
                    serde_json::to_vec(&writes)?
                }
                Writer::Parent => {
                    let missing = region.missing_pages(arguments.kind)?;
                    // Returns when the parent closes the other end.
                    File::from(hold).read_to_end(&mut Vec::new())?;
                    serde_json::to_vec(&missing)?
                }
            };
            File::from(write).write_all(&report)?;
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
        status => {
            bail!("the child ended with {status:?}; an exhausted hugetlb pool kills it by SIGBUS")
        }
    }
    let writes = match own {
        Some(own) => WriteReport {
            missing: serde_json::from_slice(&writes).context("the child sent no report")?,
            ..own
        },
        None => serde_json::from_slice(&writes).context("the child sent no report")?,
    };
    println!(
        "{}",
        serde_json::to_string(&RunReport { up, populated, forked, writes, bytes_on_pages })?
    );
    Ok(())
}

fn write_all(region: &mut Region, arguments: &RunArguments) -> Result<WriteReport> {
    // A mapping of 1 GiB pages may be larger than requested.
    let bytes = region.bytes().min(arguments.size * UNIT);
    let offsets = arguments.pattern.offsets(bytes);
    let faults = || getrusage(UsageWho::RUSAGE_SELF).map(|usage| usage.minor_page_faults());
    let mut each = Histogram::<u64>::new_with_bounds(1, MAX_WRITE_NS, 3)?;
    // The first call calibrates the clock.
    monotonic_ns();
    let faults_before = faults()?;
    let begin = now()?;
    if arguments.time_each {
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
    let each = (arguments.time_each && !each.is_empty()).then(|| WriteLatency {
        count: each.len(),
        mean_us: each.mean() / 1000.0,
        p50_us: us(each.value_at_quantile(0.5)),
        p99_us: us(each.value_at_quantile(0.99)),
        p999_us: us(each.value_at_quantile(0.999)),
        max_us: us(each.max()),
    });
    ensure!(begin <= end, "the clock went backwards");
    Ok(WriteReport { begin, end, faults, each, missing: 0 })
}

/// Bytes of the region that lie on pages of its kind, from `smaps`.
fn bytes_on_pages(kind: MemoryKind, region: &Region, mthp_before: u64) -> u64 {
    if kind == MemoryKind::Mthp {
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
        MemoryKind::Small => field("Rss") - field("AnonHugePages"),
        MemoryKind::SharedSmall => field("Rss") - field("ShmemPmdMapped"),
        MemoryKind::Thp => field("AnonHugePages"),
        // Pages of a memfd that one process maps count as private, even if the mapping is shared.
        _ => field("Private_Hugetlb") + field("Shared_Hugetlb"),
    }
}

/// Number of 64 KiB pages that the kernel has allocated since boot.
fn mthp_allocations() -> u64 {
    let path = format!("{}/hugepages-64kB/stats/anon_fault_alloc", crate::settings::THP);
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

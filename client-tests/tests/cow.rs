//! What the server counts of copy-on-write is what the kernel counts.
//!
//! While a child is held in the middle of a save, writers write. A page that the kernel copied is
//! then private in the child's page tables (its smaps), and was one minor fault of a worker; a
//! hugetlb page was taken from the pool.

use anyhow::{Context as _, Result, ensure};
use client_tests::hugepages::{self, PageSize};
use client_tests::kernel::{self, Mapping};
use client_tests::random::{self, Random};
use client_tests::server::{Server, ServerBuilder};
use client_tests::wait::wait_until;
use client_tests::{TestResult, skip};
use std::time::Duration;

const VALUE: u64 = 4000;
/// The child sleeps so long after its first chunk.
const HELD: u64 = 3600 * 1_000_000;
const DEADLINE: Duration = Duration::from_secs(60);

fn server_with(pages: &str, megabytes: u64) -> ServerBuilder {
    Server::builder()
        .arg("--checkpoint-isolation", "kernel-cow")
        .arg("--arena-pages", pages)
        .arg("--maxmemory", &format!("{megabytes}mb"))
        .arg("--save", "")
}

fn thp_is_off() -> bool {
    let modes = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    modes.map_or(true, |modes| modes.contains("[never]"))
}

/// Sets keys `from..to`, in batches.
fn load(server: &Server, from: u64, to: u64) -> TestResult {
    let value = "v".repeat(usize::try_from(VALUE)?);
    let mut connection = server.connection()?;
    for first in (from..to).step_by(500) {
        let mut pipe = redis::pipe();
        for key in first..to.min(first + 500) {
            pipe.set(format!("key:{key}"), &value).ignore();
        }
        pipe.query::<()>(&mut connection)?;
    }
    Ok(())
}

/// Changes 8 bytes of so many random values in place.
fn write(server: &Server, random: &mut Random, keys: u64, times: u64) -> TestResult {
    let mut connection = server.connection()?;
    for _ in 0..times.div_ceil(500) {
        let mut pipe = redis::pipe();
        for _ in 0..500 {
            let (key, at) = (random.below(keys), random.below(VALUE - 8));
            pipe.cmd("SETRANGE").arg(format!("key:{key}")).arg(at).arg("12345678").ignore();
        }
        pipe.query::<()>(&mut connection)?;
    }
    Ok(())
}

/// What the kernel knows of a save.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    worker_faults: u64,
    child: Mapping,
    pool_free: u64,
}

impl Kernel {
    fn look(server: &Server, pool: Option<PageSize>) -> Result<Self> {
        let child = server.child_pid()?.context("no save runs")?;
        Ok(Self {
            worker_faults: kernel::faults_of_threads(server.pid(), "worker-")?,
            child: kernel::largest_mapping(child)?,
            pool_free: pool.map_or(Ok(0), |pool| pool.figure("free_hugepages"))?,
        })
    }
}

fn ours(server: &Server, name: &str) -> Result<u64> {
    let cow = server.checkpoint("cow")?;
    cow.get(name).with_context(|| format!("no {name}"))?.parse().context("not a number")
}

/// Whether two counts differ by at most two in a hundred.
fn agree(what: &str, counted: u64, kernel: u64) -> TestResult {
    eprintln!("{what}: counted {counted}, the kernel {kernel}");
    ensure!(counted > 0, "{what}: nothing was counted");
    ensure!(counted.abs_diff(kernel) * 50 <= kernel, "{what}: counted {counted}, not {kernel}");
    Ok(())
}

/// Starts a save whose child stays where it is, and waits until it has begun.
fn hold_a_save(server: &Server) -> TestResult {
    server.delay_checkpoints(HELD)?;
    server.bgsave()?;
    let begun = || Ok(server.info("cowherd_checkpoint_chunks_done")? != "0");
    wait_until(begun, DEADLINE, "the child to write")
}

/// Writes during a save, and compares.
fn counts_are_the_kernels(server: &Server, keys: u64, pool: Option<PageSize>) -> TestResult {
    let mut random = Random::new(random::seed());
    load(server, 0, keys)?;
    hold_a_save(server)?;
    let before = Kernel::look(server, pool)?;
    let old = (ours(server, "faults")?, ours(server, "copied_bytes")?);
    write(server, &mut random, keys, 2 * keys)?;
    let after = Kernel::look(server, pool)?;
    let faults = ours(server, "faults")? - old.0;
    let copied = ours(server, "copied_bytes")? - old.1;
    agree("bytes copied", copied, after.child.private - before.child.private)?;
    match pool {
        Some(_) => agree("huge pages copied", faults, before.pool_free - after.pool_free)?,
        None => {
            let kernel = after.worker_faults - before.worker_faults;
            agree("faults", faults, kernel)?;
        }
    }
    let (fresh, private) = (ours(server, "fresh_pages")?, ours(server, "private_pages")?);
    ensure!(private == 0, "{private} pages counted as private while the child shares them all");
    ensure!(fresh * 50 <= faults.max(50), "{fresh} pages counted as fresh, of {faults}");
    let line = server.checkpoint("cow_fault_usec")?;
    let timed: u64 = line["count"].parse()?;
    ensure!(timed == ours(server, "faults")?, "{timed} faults were timed");
    // No processor enters the kernel, copies a page and returns in less: if it seems so, the page
    // was not copied when the clock ran.
    let mean = ours(server, "stall_usec")? * 1000 / timed;
    ensure!(mean > 250, "a fault took {mean} ns in the mean");
    server.text(&["BGSAVE", "CANCEL"])?;
    Ok(())
}

#[test]
fn small_pages_agree_with_the_kernel() -> TestResult {
    counts_are_the_kernels(&server_with("small", 128).start()?, 20_000, None)
}

#[test]
fn transparent_huge_pages_agree_with_the_kernel() -> TestResult {
    if thp_is_off() {
        skip!("transparent huge pages are off in this kernel");
    }
    counts_are_the_kernels(&server_with("thp", 128).start()?, 20_000, None)
}

#[test]
fn huge_pages_of_2_mib_agree_with_the_kernel() -> TestResult {
    let size = PageSize::Huge2M;
    match hugepages::claim(size, 2 * 64 + 8)? {
        Ok(_claim) => {
            counts_are_the_kernels(&server_with("huge-2mb", 128).start()?, 20_000, Some(size))
        }
        Err(reason) => skip!("{reason}"),
    }
}

#[test]
fn huge_pages_of_1_gib_agree_with_the_kernel() -> TestResult {
    let size = PageSize::Huge1G;
    match hugepages::claim(size, 2)? {
        Ok(_claim) => {
            counts_are_the_kernels(&server_with("huge-1gb", 1024).start()?, 2000, Some(size))
        }
        Err(reason) => skip!("{reason}"),
    }
}

/// New keys go to memory that held nothing at the fork: the kernel brings zeros, copies nothing.
#[test]
fn pages_that_were_fresh_are_not_counted_as_copied() -> TestResult {
    let server = server_with("small", 256).start()?;
    load(&server, 0, 5000)?;
    hold_a_save(&server)?;
    let before = Kernel::look(&server, None)?;
    load(&server, 5000, 25_000)?;
    let after = Kernel::look(&server, None)?;
    let copied = after.child.private - before.child.private;
    agree("bytes copied", ours(&server, "copied_bytes")?, copied)?;
    let fresh = ours(&server, "fresh_pages")?;
    let faults = after.worker_faults - before.worker_faults;
    ensure!(fresh > 0, "no page was fresh");
    ensure!(fresh + ours(&server, "faults")? <= faults, "{fresh} fresh, {faults} faults in all");
    Ok(())
}

/// Writers split huge pages while a save runs; afterwards they are made whole.
#[test]
fn split_huge_pages_are_counted_and_made_whole() -> TestResult {
    if thp_is_off() {
        skip!("transparent huge pages are off in this kernel");
    }
    let server = server_with("thp", 128).arg("--arena-thp-collapse", "no").start()?;
    load(&server, 0, 20_000)?;
    let whole = kernel::largest_mapping(server.pid())?.huge;
    ensure!(whole >= 64 << 20, "only {whole} bytes on huge pages: is memory short?");
    hold_a_save(&server)?;
    write(&server, &mut Random::new(random::seed()), 10_000, 3000)?;
    server.text(&["BGSAVE", "CANCEL"])?;
    server.wait_saved()?.ok();
    let split = kernel::largest_mapping(server.pid())?.huge;
    let save = server.checkpoint("checkpoint_1")?;
    let figure = |name: &str| -> Result<u64> { Ok(save[name].parse()?) };
    ensure!(figure("huge_before_bytes")? == whole, "{save:?}, not {whole}");
    ensure!(figure("huge_after_bytes")? == split, "{save:?}, not {split}");
    ensure!(figure("thp_splits")? << 21 == whole - split, "{save:?}, not {whole} - {split}");
    ensure!(split < whole, "nothing was split");

    server.text(&["CONFIG", "SET", "arena-thp-collapse", "yes"])?;
    server.delay_checkpoints(0)?;
    server.bgsave_and_wait()?;
    let healed = || Ok(kernel::largest_mapping(server.pid())?.huge >= whole);
    wait_until(healed, DEADLINE, "the huge pages to be whole again")?;
    let healed = format!("\nthp_collapsed:{}\r", figure("thp_splits")?);
    let huge = format!("\narena_huge_bytes:{whole}\r");
    let counted = || {
        let told = server.text(&["INFO", "checkpoint"])?;
        Ok(told.contains(&healed) && told.contains(&huge))
    };
    wait_until(counted, DEADLINE, "the healed pages to be counted")
}

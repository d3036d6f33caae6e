//! Comparison of the server's copy-on-write counters with those of the kernel.
//!
//! Writers write while a child is delayed in a checkpoint. A page that the kernel has copied is
//! private in the page tables of both processes (smaps) and has caused one minor fault of a worker.
//! Counters of the hugetlb pool belong to the whole machine, so they are not compared.

use anyhow::{Context as _, Result, ensure};
use client_tests::hugepages::{self, PageSize};
use client_tests::kernel::{self, Mapping};
use client_tests::random::{self, Random};
use client_tests::server::{Server, ServerBuilder};
use client_tests::wait::wait_until;
use client_tests::{TestResult, skip};
use std::time::Duration;

const VALUE: u64 = 4000;
/// Delay of the child after each chunk in microseconds, longer than any test.
const ENDLESS_DELAY: u64 = 3600 * 1_000_000;
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

/// Changes 8 bytes in place of `times` random values.
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

/// Counters of the kernel during a checkpoint.
#[derive(Clone, Copy, Debug)]
struct KernelCounters {
    worker_faults: u64,
    child: Mapping,
    server: Mapping,
}

impl KernelCounters {
    fn read(server: &Server) -> Result<Self> {
        let child = server.child_pid()?.context("no checkpoint runs")?;
        Ok(Self {
            worker_faults: kernel::faults_of_threads(server.pid(), "worker-")?,
            child: kernel::largest_mapping(child)?,
            server: kernel::largest_mapping(server.pid())?,
        })
    }
}

/// Counter of the server.
fn server_counter(server: &Server, name: &str) -> Result<u64> {
    let cow = server.checkpoint("cow")?;
    cow.get(name).with_context(|| format!("no {name}"))?.parse().context("not a number")
}

/// Checks that two counters differ by at most 2 %.
fn compare(what: &str, counted: u64, kernel: u64) -> TestResult {
    eprintln!("{what}: counted {counted}, the kernel {kernel}");
    ensure!(counted > 0, "{what}: nothing was counted");
    ensure!(counted.abs_diff(kernel) * 50 <= kernel, "{what}: counted {counted}, not {kernel}");
    Ok(())
}

/// Starts a checkpoint that does not end, and waits for its first chunk.
fn start_endless_checkpoint(server: &Server) -> TestResult {
    server.delay_checkpoints(ENDLESS_DELAY)?;
    server.bgsave()?;
    let begun = || Ok(server.info("cowherd_checkpoint_chunks_done")? != "0");
    wait_until(begun, DEADLINE, "the child to write")
}

/// Writes during a checkpoint, and compares the counters.
fn compare_with_kernel(server: &Server, keys: u64, pool: Option<PageSize>) -> TestResult {
    let mut random = Random::new(random::seed());
    load(server, 0, keys)?;
    start_endless_checkpoint(server)?;
    let before = KernelCounters::read(server)?;
    let old = (server_counter(server, "faults")?, server_counter(server, "copied_bytes")?);
    write(server, &mut random, keys, 2 * keys)?;
    let after = KernelCounters::read(server)?;
    let faults = server_counter(server, "faults")? - old.0;
    let copied = server_counter(server, "copied_bytes")? - old.1;
    compare("bytes copied", copied, after.child.private - before.child.private)?;
    match pool {
        Some(size) => {
            let copies = after.server.private - before.server.private;
            compare("huge pages copied", faults, copies / size.bytes())?;
            // Workers fault on memory of their own too, which is many faults beside so few copies.
            let kernel = after.worker_faults - before.worker_faults;
            ensure!(faults <= kernel, "{faults} faults counted, but the kernel had {kernel}");
        }
        None => {
            let kernel = after.worker_faults - before.worker_faults;
            compare("faults", faults, kernel)?;
        }
    }
    let (fresh, private) =
        (server_counter(server, "fresh_pages")?, server_counter(server, "private_pages")?);
    ensure!(private == 0, "{private} pages counted as private while the child shares them all");
    ensure!(fresh * 50 <= faults.max(50), "{fresh} pages counted as fresh, of {faults}");
    let line = server.checkpoint("cow_fault_usec")?;
    let timed: u64 = line["count"].parse()?;
    ensure!(timed == server_counter(server, "faults")?, "{timed} faults were timed");
    // No processor enters the kernel, copies a page and returns in less time, so a shorter mean
    // would show that the page was not copied while the clock ran.
    let mean = server_counter(server, "stall_usec")? * 1000 / timed;
    ensure!(mean > 250, "a fault took {mean} ns in the mean");
    server.text(&["BGSAVE", "CANCEL"])?;
    Ok(())
}

#[test]
fn small_pages_agree_with_the_kernel() -> TestResult {
    compare_with_kernel(&server_with("small", 128).start()?, 20_000, None)
}

#[test]
fn transparent_huge_pages_agree_with_the_kernel() -> TestResult {
    if thp_is_off() {
        skip!("transparent huge pages are off in this kernel");
    }
    compare_with_kernel(&server_with("thp", 128).start()?, 20_000, None)
}

#[test]
fn huge_pages_of_2_mib_agree_with_the_kernel() -> TestResult {
    let size = PageSize::Huge2M;
    match hugepages::claim(size, 2 * 64 + 8)? {
        Ok(_claim) => {
            compare_with_kernel(&server_with("huge-2mb", 128).start()?, 20_000, Some(size))
        }
        Err(reason) => skip!("{reason}"),
    }
}

#[test]
fn huge_pages_of_1_gib_agree_with_the_kernel() -> TestResult {
    let size = PageSize::Huge1G;
    match hugepages::claim(size, 2)? {
        Ok(_claim) => {
            compare_with_kernel(&server_with("huge-1gb", 1024).start()?, 2000, Some(size))
        }
        Err(reason) => skip!("{reason}"),
    }
}

/// New keys use pages that did not exist at the fork: the kernel maps zeros and copies nothing.
#[test]
fn fresh_pages_are_not_counted_as_copied() -> TestResult {
    let server = server_with("small", 256).start()?;
    load(&server, 0, 5000)?;
    start_endless_checkpoint(&server)?;
    let before = KernelCounters::read(&server)?;
    load(&server, 5000, 25_000)?;
    let after = KernelCounters::read(&server)?;
    let copied = after.child.private - before.child.private;
    compare("bytes copied", server_counter(&server, "copied_bytes")?, copied)?;
    let fresh = server_counter(&server, "fresh_pages")?;
    let faults = after.worker_faults - before.worker_faults;
    ensure!(fresh > 0, "no page was fresh");
    ensure!(
        fresh + server_counter(&server, "faults")? <= faults,
        "{fresh} fresh, {faults} faults in all"
    );
    Ok(())
}

/// Writers split huge pages during a checkpoint, after which the THP collapser collapses them
/// again.
#[test]
fn split_huge_pages_are_counted_and_collapsed_again() -> TestResult {
    if thp_is_off() {
        skip!("transparent huge pages are off in this kernel");
    }
    let server = server_with("thp", 128).arg("--arena-thp-collapse", "no").start()?;
    load(&server, 0, 20_000)?;
    let unsplit = kernel::largest_mapping(server.pid())?.huge;
    ensure!(unsplit >= 64 << 20, "only {unsplit} bytes on huge pages: is memory short?");
    start_endless_checkpoint(&server)?;
    write(&server, &mut Random::new(random::seed()), 10_000, 3000)?;
    server.text(&["BGSAVE", "CANCEL"])?;
    server.wait_checkpoint()?.ok();
    let split = kernel::largest_mapping(server.pid())?.huge;
    let checkpoint = server.checkpoint("checkpoint_1")?;
    let figure = |name: &str| -> Result<u64> { Ok(checkpoint[name].parse()?) };
    ensure!(figure("huge_before_bytes")? == unsplit, "{checkpoint:?}, not {unsplit}");
    ensure!(figure("huge_after_bytes")? == split, "{checkpoint:?}, not {split}");
    ensure!(
        figure("thp_splits")? << 21 == unsplit - split,
        "{checkpoint:?}, not {unsplit} - {split}"
    );
    ensure!(split < unsplit, "nothing was split");

    server.text(&["CONFIG", "SET", "arena-thp-collapse", "yes"])?;
    server.delay_checkpoints(0)?;
    server.bgsave_and_wait()?;
    let collapsed = || Ok(kernel::largest_mapping(server.pid())?.huge >= unsplit);
    // The collapser backs off while collapses take long, as on a machine with too few processors.
    wait_until(collapsed, 5 * DEADLINE, "the huge pages to be collapsed again")?;
    // The kernel's own thread may have collapsed some of them.
    let splits = figure("thp_splits")?;
    let counted = || {
        let info = server.text(&["INFO", "checkpoint"])?;
        let field = |name| {
            let mut fields = info.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(field, _)| *field == name).map(|(_, value)| value)
        };
        let huge: u64 = field("arena_huge_bytes").context("no huge bytes")?.parse()?;
        let collapsed: u64 = field("thp_collapsed").context("no collapsed pages")?.parse()?;
        Ok((1..=splits).contains(&collapsed) && huge > split)
    };
    wait_until(counted, DEADLINE, "the collapsed pages to be counted")
}

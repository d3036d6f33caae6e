//! Figures of this process from the kernel: resident memory, processor time, page faults.
//!
//! Sources: proc(5), getrusage(2). Read on demand, never on the command path.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::time::ClockId;
use nix::unistd::{SysconfVar, getpid, sysconf};

use crate::config::machine_memory;

/// Bytes of the machine's memory; read once.
pub(super) fn system_memory_bytes() -> u64 {
    static TOTAL: OnceLock<u64> = OnceLock::new();
    *TOTAL.get_or_init(|| machine_memory().total)
}

/// Resident bytes of this process, hugetlb pages included (the kernel leaves them out of RSS).
pub(crate) fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    resident_pages(&statm) * ask(SysconfVar::PAGE_SIZE, 4096) + hugetlb_bytes(&status)
}

/// Resident bytes that belong to this process alone: heap and stacks, no files and no shared
/// memory.
pub(crate) fn private_bytes() -> u64 {
    kib_of(&fs::read_to_string("/proc/self/status").unwrap_or_default(), "RssAnon:")
}

fn resident_pages(statm: &str) -> u64 {
    statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

fn hugetlb_bytes(status: &str) -> u64 {
    kib_of(status, "HugetlbPages:")
}

/// The bytes of a line of /proc/self/status that counts kB; 0 if there is none.
fn kib_of(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

fn ask(name: SysconfVar, otherwise: u64) -> u64 {
    sysconf(name).ok().flatten().and_then(|value| u64::try_from(value).ok()).unwrap_or(otherwise)
}

/// Processor time in the kernel and outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct CpuTime {
    pub(super) system: Duration,
    pub(super) user: Duration,
}

/// Processor time of this process, of its children that are gone, and of its main thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct CpuTimes {
    pub(super) own: CpuTime,
    pub(super) children: CpuTime,
    pub(super) main_thread: CpuTime,
}

pub(super) fn cpu_times() -> CpuTimes {
    let pid = getpid();
    let stat = fs::read_to_string(format!("/proc/self/task/{pid}/stat")).unwrap_or_default();
    CpuTimes {
        own: usage(UsageWho::RUSAGE_SELF),
        children: usage(UsageWho::RUSAGE_CHILDREN),
        main_thread: thread_time(&stat, ask(SysconfVar::CLK_TCK, 100)).unwrap_or_default(),
    }
}

fn usage(who: UsageWho) -> CpuTime {
    let read = |usage: Usage| CpuTime {
        system: duration(usage.system_time()),
        user: duration(usage.user_time()),
    };
    getrusage(who).map_or_else(|_| CpuTime::default(), read)
}

/// Processor time of a thread of this process, by the kernel's id; zero if it has ended.
pub(super) fn thread_cpu_time(thread: i32) -> Duration {
    // The kernel's encoding of a thread's clock (`MAKE_THREAD_CPUCLOCK` in
    // include/linux/posix-timers.h): the complemented id, the bit of threads, and that of the
    // scheduler's time.
    let clock = ClockId::from_raw(!thread << 3 | 4 | 2);
    clock.now().map_or(Duration::ZERO, Duration::from)
}

/// Minor page faults of all threads of this process except the calling one, since the start.
pub(crate) fn minor_faults_of_other_threads() -> Option<u64> {
    let faults = |who| u64::try_from(getrusage(who).ok()?.minor_page_faults()).ok();
    // In this order the process's count includes every fault of the thread's count.
    let own = faults(UsageWho::RUSAGE_THREAD)?;
    Some(faults(UsageWho::RUSAGE_SELF)?.saturating_sub(own))
}

fn duration(time: TimeVal) -> Duration {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec()).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// Fields 14 and 15 of a `stat` file, in ticks. The name in field 2 may hold anything, so count
/// from the parenthesis that ends it.
fn thread_time(stat: &str, ticks_per_second: u64) -> Option<CpuTime> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut next = || -> Option<Duration> {
        let ticks: u64 = fields.next()?.parse().ok()?;
        Some(Duration::from_micros(ticks.saturating_mul(1_000_000) / ticks_per_second.max(1)))
    };
    let (user, system) = (next()?, next()?);
    Some(CpuTime { system, user })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_with_huge_pages() {
        assert_eq!(resident_pages("1000 250 3 4 0 5 0\n"), 250);
        assert_eq!(hugetlb_bytes("VmRSS:\t 12 kB\nHugetlbPages:\t    4096 kB\n"), 4096 * 1024);
        assert_eq!((resident_pages(""), hugetlb_bytes("HugetlbPages:\n")), (0, 0));
        assert!(resident_bytes() > 100_000);
    }

    #[test]
    fn faults_are_those_of_other_threads() {
        let fault = || {
            // Above the largest threshold of malloc, which maps it anew: a smaller one may lie on
            // pages that an ended thread has left.
            let pages = vec![1_u8; 40 << 20];
            std::hint::black_box(&pages);
        };
        let before = minor_faults_of_other_threads().unwrap();
        std::thread::spawn(fault).join().unwrap();
        assert!(
            minor_faults_of_other_threads().unwrap() > before,
            "those of a thread that is gone too"
        );
    }

    #[test]
    fn thread_times_survive_odd_names() {
        let stat = "7 (a) b (c)) R 1 1 1 0 -1 4194560 1 2 3 4 250 75 0 0 20 0 1 0 99";
        let time = thread_time(stat, 100).unwrap();
        assert_eq!(time.user, Duration::from_millis(2500));
        assert_eq!(time.system, Duration::from_millis(750));
        assert_eq!(thread_time("7 (a) R 1", 100), None);
    }

    #[test]
    fn the_time_of_one_thread_is_its_own() {
        let here = nix::unistd::gettid().as_raw();
        let idle = std::thread::spawn(move || {
            let before = thread_cpu_time(here);
            while thread_cpu_time(here) == before {}
        });
        let mut sum = 0_u64;
        while !idle.is_finished() {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        idle.join().unwrap();
        assert!(sum > 0 && thread_cpu_time(0x3f_fffe) == Duration::ZERO);
    }

    #[test]
    fn this_process_has_used_the_processor() {
        let mut sum = 0_u64;
        let own = || cpu_times().own;
        while own().user + own().system == Duration::ZERO {
            sum = sum.wrapping_add((0..100_000).sum::<u64>());
        }
        assert!(sum < u64::MAX);
    }
}

//! The forked child: it lowers its priority, writes the image, and ends.
//!
//! Invariants that unsafe code cites:
//! 1. The child has one thread, and memory as it was at the fork. Locks of other threads may be
//!    held for ever, so only async-signal-safe calls are made: nothing allocates, locks, logs,
//!    unwinds or drops, and the end is `_exit`. A panic aborts before its message is formatted.
//! 2. A signal has its default action or is ignored: a handler of the parent would write to pipes
//!    that parent and child share.
//! 3. The child names only what it has: a [`ChildView`], not the arena.

#![expect(unsafe_code, reason = "the child of a fork; invariants above")]

use std::os::fd::AsFd;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::MmapMut;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getppid, write};

use super::completion_pipe::CompletionPipe;
use super::quiescent_source::QuiescentSource;
use super::report::{ChildReport, NOT_INHERITED, WriterFailure};
use super::sys;
use super::undo_log_source::UndoLogSource;
use super::writer::Job;
use crate::barrier::ChildView;

/// Added to the niceness of the parent.
const NICER_BY: libc::c_int = 10;
/// `ioprio_set(2)`: the lowest level of the best-effort class, which still makes progress.
const IO_PRIORITY: libc::c_int = 2 << 13 | 7;
const IOPRIO_WHO_PROCESS: libc::c_int = 1;

/// Whether this process is the child of a checkpoint's fork.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Makes every panic in a child abort at once, before a message is formatted or a lock is taken.
/// To be called before the fork; panics of the parent are handled as before.
pub(super) fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IS_CHILD.load(Ordering::Relaxed) {
                std::process::abort();
            }
            previous(info);
        }));
    });
}

/// All that the child does.
pub(super) fn run(
    job: &mut Job,
    buffer: &mut MmapMut,
    view: ChildView<'_>,
    report: &ChildReport,
    completion: &CompletionPipe,
    parent: Pid,
) -> ! {
    IS_CHILD.store(true, Ordering::Relaxed);
    set_parent_death_signal(parent);
    reset_signals();
    lower_priority();
    let written = match view.shared_memory() {
        Some((records, file)) => {
            job.run(&mut UndoLogSource::new(view, records, file, buffer), report)
        }
        None => write_own_copy(job, buffer, view, report),
    };
    let code = match written {
        Ok(()) => 0,
        Err(failure) => {
            report.fail(failure);
            1
        }
    };
    completion.notify();
    exit(code)
}

/// Writes the child's own copy of a private arena.
fn write_own_copy(
    job: &mut Job,
    buffer: &mut MmapMut,
    view: ChildView<'_>,
    report: &ChildReport,
) -> Result<(), WriterFailure> {
    if let Some(missing) = first_missing(view) {
        return Err(missing);
    }
    // SAFETY: the child's own copy of the arena, which only the child could change.
    let mut source = unsafe { QuiescentSource::new(view, buffer) };
    job.run(&mut source, report)
}

/// A fork sometimes leaves private hugetlb pages of 1 GiB out of the child (seen on Linux 6.18),
/// which would read zeros in their place: a failed checkpoint instead of a wrong image.
fn first_missing(view: ChildView<'_>) -> Option<WriterFailure> {
    if !view.page_kind().is_hugetlb() {
        return None;
    }
    let missing = view.chunks().any(|chunk| !sys::is_mapped(view.chunk_address(chunk)));
    missing.then_some(NOT_INHERITED)
}

fn exit(code: libc::c_int) -> ! {
    // SAFETY: ends the process at once and runs nothing of it (invariant 1).
    unsafe { libc::_exit(code) }
}

/// Ends with the parent: the inherited sockets would otherwise keep its ports busy.
fn set_parent_death_signal(parent: Pid) {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    // The parent may have ended before.
    if getppid() != parent {
        exit(1);
    }
}

/// Puts every signal back to its default (invariant 2) and lets them through again.
fn reset_signals() {
    for signal in Signal::iterator() {
        // A file that grows over its limit is then an error with a name.
        let ignored = signal == Signal::SIGXFSZ;
        let handler = if ignored { SigHandler::SigIgn } else { SigHandler::SigDfl };
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: neither default nor ignoring runs code of ours; SIGKILL and SIGSTOP refuse.
        let _ = unsafe { sigaction(signal, &action) };
    }
    let _ = SigSet::empty().thread_set_mask();
}

/// Lowers the priority for processor, disk and memory. Each call may fail: the checkpoint goes on.
fn lower_priority() {
    let _ = prctl::set_name(c"cowherd-save");
    if !sys::take_short_turns(libc::SCHED_BATCH, NICER_BY) {
        // SAFETY: a number (invariant 1).
        let _ = unsafe { libc::nice(NICER_BY) };
        let batch = libc::sched_param { sched_priority: 0 };
        // SAFETY: reads `batch`, which lives.
        let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const batch) };
    }
    // SAFETY: numbers (invariant 1).
    let _ = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IO_PRIORITY) };
    // One byte, not zero, also refuses a core file through a pipe (core(5)): one of the arena would
    // take longer than the checkpoint.
    let _ = setrlimit(Resource::RLIMIT_CORE, 1, 1);
    let _ = set_oom_score();
}

/// Makes this process the out-of-memory killer's first choice.
fn set_oom_score() -> Result<(), Errno> {
    let path = c"/proc/self/oom_score_adj";
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(file.as_fd(), b"1000").map(drop)
}

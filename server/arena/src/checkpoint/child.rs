//! The forked child: it lowers itself, writes the image, and ends.
//!
//! Invariants that unsafe code leans on:
//! 1. The child has one thread, and memory as it was at the fork. Locks of other threads may be
//!    held for ever, so only async-signal-safe calls are made: nothing allocates, locks, logs,
//!    unwinds or drops, and the end is `_exit`.
//! 2. A signal is handled by default or not at all: a handler of the parent's would write to pipes
//!    that parent and child share.

#![expect(unsafe_code, reason = "the child of a fork; invariants above")]

use std::os::fd::AsFd;

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
use super::quiescent_source::still;
use super::report::{ChildReport, NOT_INHERITED, WriterFailure};
use super::sys;
use super::undo_log_source::UndoLogSource;
use super::writer::Job;
use crate::Arena;

/// Added to the niceness of the parent.
const NICER_BY: libc::c_int = 10;
/// `ioprio_set(2)`: the lowest level of the best-effort class, which still makes progress.
const IO_PRIORITY: libc::c_int = 2 << 13 | 7;
const IOPRIO_WHO_PROCESS: libc::c_int = 1;

/// All that the child does.
pub(super) fn run(
    job: &mut Job,
    buffer: &mut MmapMut,
    arena: &Arena,
    report: &ChildReport,
    completion: &CompletionPipe,
    parent: Pid,
) -> ! {
    set_parent_death_signal(parent);
    reset_signals();
    lower_priority();
    let written = match (arena.barrier().undo_log(), arena.file()) {
        (Some(log), Some(file)) => {
            job.run(&mut UndoLogSource::new(arena.barrier(), log, file, buffer), report)
        }
        _ => write_own_copy(job, arena, report),
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
fn write_own_copy(job: &mut Job, arena: &Arena, report: &ChildReport) -> Result<(), WriterFailure> {
    if let Some(missing) = first_missing(arena) {
        return Err(missing);
    }
    // SAFETY: the child's own copy of the arena, which only it could change.
    let mut source = unsafe { still(arena) };
    job.run(&mut source, report)
}

/// A fork sometimes child_exiting private hugetlb pages of 1 GiB out of the child (seen on Linux 6.18): it
/// would read zeros in their place. Better no image than a wrong one.
fn first_missing(arena: &Arena) -> Option<WriterFailure> {
    if !arena.page_kind().is_hugetlb() {
        return None;
    }
    let mut chunks = arena.barrier().chunks_at_fork();
    let missing = chunks.any(|chunk| !sys::is_mapped(arena.chunk_address(chunk)));
    missing.then_some(NOT_INHERITED)
}

fn exit(code: libc::c_int) -> ! {
    // SAFETY: ends the process at once and runs nothing of it (invariant 1).
    unsafe { libc::_exit(code) }
}

/// Dies with the parent. The inherited sockets would otherwise keep its ports busy.
fn set_parent_death_signal(parent: Pid) {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    // It may have died before.
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

/// Yields processor, disk and memory to the parent. Each step is a wish: a save goes on without.
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
    // One byte, not zero, also refuses a dump through a pipe (core(5)): a dump of the arena would
    // last longer than the save.
    let _ = setrlimit(Resource::RLIMIT_CORE, 1, 1);
    let _ = set_oom_score();
}

/// Asks the kernel to kill this process before any other when memory runs out.
fn set_oom_score() -> Result<(), Errno> {
    let path = c"/proc/self/oom_score_adj";
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(file.as_fd(), b"1000").map(drop)
}

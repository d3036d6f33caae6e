//! Cleanup at the end of a benchmark, also after a signal: restores settings, kills servers,
//! removes folders.
//!
//! Invariants:
//! 1. A step is on the list before the action that it reverts, and the list stays locked during the
//!    action. A concurrent cleanup therefore finds no action half done.
//! 2. Steps run in reverse order.
//! 3. After a signal the list stays locked until the process has ended: no action starts any more.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// Reversal of one action.
#[derive(Debug, PartialEq, Eq)]
pub enum CleanupStep {
    /// Writes the text to a settings file of the kernel.
    Setting(PathBuf, String),
    /// Kills a child process.
    Process(u32),
    /// Kills the process group that a child process leads.
    Group(u32),
    /// Removes a folder and its content.
    Folder(PathBuf),
}

/// The last number given to a [`Cleanup`], and all pending steps with the number of their owner.
static STEPS: Mutex<(u64, Vec<(u64, CleanupStep)>)> = Mutex::new((0, Vec::new()));

fn steps() -> MutexGuard<'static, (u64, Vec<(u64, CleanupStep)>)> {
    STEPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Owner of cleanup steps, which run when the owner is dropped.
#[derive(Debug)]
pub struct Cleanup {
    number: u64,
}

impl Cleanup {
    /// Creates an owner without steps.
    pub fn new() -> Self {
        let mut steps = steps();
        steps.0 += 1;
        Self { number: steps.0 }
    }

    /// Registers `step`, then executes the action that `step` reverts.
    pub fn guard<T>(&mut self, step: CleanupStep, act: impl FnOnce() -> T) -> T {
        let mut steps = steps();
        steps.1.push((self.number, step));
        act()
    }

    /// Starts a process and registers the step that kills it.
    ///
    /// # Errors
    /// Returns the error of `spawn`.
    pub fn start_process<T>(
        &mut self,
        step: fn(u32) -> CleanupStep,
        spawn: impl FnOnce() -> Result<(T, u32)>,
    ) -> Result<T> {
        let mut steps = steps();
        let (process, id) = spawn()?;
        steps.1.push((self.number, step(id)));
        Ok(process)
    }

    /// Removes the steps of processes that have been waited for, whose ids the kernel may reuse.
    pub fn forget_processes(&mut self) {
        let mut steps = steps();
        let is_process =
            |step: &CleanupStep| matches!(step, CleanupStep::Process(_) | CleanupStep::Group(_));
        steps.1.retain(|(number, step)| *number != self.number || !is_process(step));
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let mut steps = steps();
        let (own, others) = std::mem::take(&mut steps.1)
            .into_iter()
            .partition::<Vec<_>, _>(|(number, _)| *number == self.number);
        steps.1 = others;
        own.into_iter().rev().for_each(|(_, step)| execute(&step));
    }
}

fn execute(step: &CleanupStep) {
    let pid = |id: &u32| Pid::from_raw(i32::try_from(*id).unwrap_or(i32::MAX));
    match step {
        CleanupStep::Setting(path, old) => {
            if let Err(error) = fs::write(path, old) {
                eprintln!("cannot put {} back to {old}: {error}", path.display());
            }
        }
        CleanupStep::Process(id) => {
            let _ = kill(pid(id), Signal::SIGKILL);
            let _ = waitpid(pid(id), None);
        }
        CleanupStep::Group(id) => {
            let _ = killpg(pid(id), Signal::SIGKILL);
            let _ = waitpid(pid(id), None);
        }
        CleanupStep::Folder(path) => {
            if let Err(error) = fs::remove_dir_all(path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                eprintln!("cannot remove {}: {error}", path.display());
            }
        }
    }
}

/// Makes SIGINT, SIGTERM and SIGHUP run all pending steps before they end the program. Must be
/// called before any other thread starts, because threads inherit the blocked signals.
///
/// # Errors
/// Returns an error if the signals cannot be blocked or the thread cannot start.
pub fn run_on_signals() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let wait = move || {
        if let Ok(signal) = signals.wait() {
            // Locked until the exit: invariant 3.
            let mut steps = steps();
            while let Some((_, step)) = steps.1.pop() {
                execute(&step);
            }
            std::process::exit(128 + signal as i32);
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    #[expect(clippy::zombie_processes, reason = "dropping the cleanup waits")]
    fn dropping_kills_the_group_and_removes_the_folder() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("made");
        let mut cleanup = Cleanup::new();
        cleanup.guard(CleanupStep::Folder(folder.clone()), || fs::create_dir(&folder)).unwrap();
        let spawn = || {
            let child = Command::new("sleep").arg("60").process_group(0).spawn()?;
            let id = child.id();
            Ok((child, id))
        };
        let child = cleanup.start_process(CleanupStep::Group, spawn).unwrap();
        drop(cleanup);
        assert!(!folder.exists());
        let leader = Pid::from_raw(i32::try_from(child.id()).unwrap());
        assert_eq!(kill(leader, None), Err(nix::errno::Errno::ESRCH));
    }

    #[test]
    fn steps_of_ended_processes_are_removed() {
        let mut cleanup = Cleanup::new();
        // No process has this id.
        cleanup.start_process(CleanupStep::Process, || Ok(((), u32::MAX))).unwrap();
        cleanup.forget_processes();
        assert!(steps().1.iter().all(|(number, _)| *number != cleanup.number));
    }
}

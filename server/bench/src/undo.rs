//! What has to be undone when a benchmark ends, also by a signal: settings that were changed,
//! servers and folders that were made.
//!
//! Invariants:
//! 1. A step is on the list before what it undoes is done, and the list stays locked meanwhile. So
//!    whoever goes through the list finds nothing half done.
//! 2. Steps are undone backwards.
//! 3. After a signal the list stays locked until the process is gone: nothing is done any more.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// Something to be undone, and how.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A file of the kernel's gets this text again.
    Setting(PathBuf, String),
    /// A process that was started here is killed.
    Process(u32),
    /// The same with all processes of the group that it leads.
    Group(u32),
    /// A folder is removed with everything in it.
    Folder(PathBuf),
}

/// All steps, each with the number of the [`Undo`] that it belongs to.
static STEPS: Mutex<(u64, Vec<(u64, Step)>)> = Mutex::new((0, Vec::new()));

fn steps() -> MutexGuard<'static, (u64, Vec<(u64, Step)>)> {
    STEPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Steps that are undone when this is dropped.
#[derive(Debug)]
pub struct Undo {
    number: u64,
}

impl Undo {
    /// Nothing to undo yet.
    pub fn begin() -> Self {
        let mut steps = steps();
        steps.0 += 1;
        Self { number: steps.0 }
    }

    /// Does something that `step` undoes.
    pub fn after<T>(&mut self, step: Step, act: impl FnOnce() -> T) -> T {
        let mut steps = steps();
        steps.1.push((self.number, step));
        act()
    }

    /// Starts a process that is to be killed if this is dropped before it was waited for.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start<T>(
        &mut self,
        step: fn(u32) -> Step,
        spawn: impl FnOnce() -> Result<(T, u32)>,
    ) -> Result<T> {
        let mut steps = steps();
        let (process, id) = spawn()?;
        steps.1.push((self.number, step(id)));
        Ok(process)
    }

    /// Its processes have ended and were waited for.
    pub fn processes_ended(&mut self) {
        let mut steps = steps();
        let is_process = |step: &Step| matches!(step, Step::Process(_) | Step::Group(_));
        steps.1.retain(|(number, step)| *number != self.number || !is_process(step));
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let mut steps = steps();
        let (own, others) = std::mem::take(&mut steps.1)
            .into_iter()
            .partition::<Vec<_>, _>(|(number, _)| *number == self.number);
        steps.1 = others;
        own.into_iter().rev().for_each(|(_, step)| undo(&step));
    }
}

fn undo(step: &Step) {
    let pid = |id: &u32| Pid::from_raw(i32::try_from(*id).unwrap_or(i32::MAX));
    match step {
        Step::Setting(path, old) => {
            if let Err(error) = fs::write(path, old) {
                eprintln!("cannot put {} back to {old}: {error}", path.display());
            }
        }
        Step::Process(id) => {
            let _ = kill(pid(id), Signal::SIGKILL);
            let _ = waitpid(pid(id), None);
        }
        Step::Group(id) => {
            let _ = killpg(pid(id), Signal::SIGKILL);
            let _ = waitpid(pid(id), None);
        }
        Step::Folder(path) => {
            if let Err(error) = fs::remove_dir_all(path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                eprintln!("cannot remove {}: {error}", path.display());
            }
        }
    }
}

/// From here on a signal undoes everything before it ends the program. To be called before any
/// other thread starts.
///
/// # Errors
/// When the kernel refuses.
pub fn at_signals() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let wait = move || {
        if let Ok(signal) = signals.wait() {
            // Held to the end: invariant 3.
            let mut steps = steps();
            while let Some((_, step)) = steps.1.pop() {
                undo(&step);
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
    #[expect(clippy::zombie_processes, reason = "dropping the undo waits for it")]
    fn a_group_and_its_folder_are_gone_when_dropped() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("made");
        let mut undo = Undo::begin();
        undo.after(Step::Folder(folder.clone()), || fs::create_dir(&folder)).unwrap();
        let spawn = || {
            let child = Command::new("sleep").arg("60").process_group(0).spawn()?;
            let id = child.id();
            Ok((child, id))
        };
        let child = undo.start(Step::Group, spawn).unwrap();
        drop(undo);
        assert!(!folder.exists());
        let leader = Pid::from_raw(i32::try_from(child.id()).unwrap());
        assert_eq!(kill(leader, None), Err(nix::errno::Errno::ESRCH));
    }

    #[test]
    fn processes_that_have_ended_are_forgotten() {
        let mut undo = Undo::begin();
        // No process has this number.
        undo.start(Step::Process, || Ok(((), u32::MAX))).unwrap();
        undo.processes_ended();
        assert!(steps().1.iter().all(|(number, _)| *number != undo.number));
    }
}

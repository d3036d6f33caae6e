//! The lock on a directory: one process writes images into it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::LockError;

const LOCK_FILE_NAME: &str = "cowherd.lock";
/// Longest wait for the checkpoint child of a server that was killed: until the child notices that
/// its parent is gone it holds the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// An exclusive lock on a directory, released on drop. The lock is `flock(2)` on a file that
/// stays; the file holds the owner's process id. A child that writes an image shares the lock, so
/// a directory is never taken while an orphan still writes into it.
#[derive(Debug)]
pub struct DirLock {
    dir: PathBuf,
    file: File,
}

impl DirLock {
    /// Takes `dir`. If its owner is dead, waits up to 5 seconds for what the owner left running.
    ///
    /// # Errors
    /// Another process has it, or the lock file cannot be used.
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        Self::acquire_within(dir, LOCK_TIMEOUT)
    }

    pub(super) fn acquire_within(dir: &Path, timeout: Duration) -> Result<Self, LockError> {
        let path = dir.join(LOCK_FILE_NAME);
        let failed = |source| LockError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    let owner = owner(&mut file);
                    if begun.elapsed() >= timeout || !owner.is_some_and(is_dead) {
                        return Err(LockError::Held { owner, path });
                    }
                    thread::sleep(RETRY_INTERVAL);
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        write_owner(&mut file).map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), file })
    }

    /// Removes temporary files of checkpoints that a crash cut off; returns them. No process
    /// writes to one now: every writer shares the lock of its server.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn remove_leftovers(&self) -> io::Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if is_temporary(&path) && fs::remove_file(&path).is_ok() {
                removed.push(path);
            }
        }
        Ok(removed)
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child that still has the file open.
        let _ = self.file.unlock();
    }
}

fn is_dead(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = name.strip_prefix("temp-").and_then(|name| name.strip_suffix(".cow"));
    let numbers = numbers.and_then(|numbers| numbers.split_once('-'));
    numbers.is_some_and(|(pid, save)| number(pid) && number(save))
}

fn owner(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_owner(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

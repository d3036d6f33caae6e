//! Small filesystem that a test can fill.

use crate::tools;
use anyhow::{Result, ensure};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(30);

/// Kind of a filesystem.
#[derive(Clone, Copy, Debug)]
pub enum FilesystemKind {
    /// ext4 in a file, on a loop device.
    Ext4,
    /// tmpfs with a size limit.
    Tmpfs,
}

/// Mounted filesystem; dropping it unmounts the filesystem.
#[derive(Debug)]
pub struct Volume {
    folder: tempfile::TempDir,
}

impl Volume {
    /// Creates and mounts a filesystem of about `megabytes`.
    ///
    /// Returns `Ok(Err(reason))`, for [`skip!`](crate::skip), if this machine cannot mount it.
    ///
    /// # Errors
    /// Returns an error if the files for the filesystem cannot be created.
    pub fn mount(kind: FilesystemKind, megabytes: u64) -> Result<Result<Self, String>> {
        if !tools::is_root() {
            return Ok(Err(format!("no root: cannot mount {kind:?}")));
        }
        let folder = tempfile::tempdir()?;
        let target = folder.path().join("mounted");
        std::fs::create_dir(&target)?;
        let mut mount = Command::new("mount");
        match kind {
            FilesystemKind::Tmpfs => {
                mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "cowherd-test"]);
            }
            FilesystemKind::Ext4 => {
                let image = folder.path().join("image");
                std::fs::File::create(&image)?.set_len(megabytes << 20)?;
                let mut mkfs = Command::new("mkfs.ext4");
                // Without journal and reserved blocks, nearly all space is available to the test.
                mkfs.args(["-q", "-O", "^has_journal", "-m", "0"]).arg(&image);
                if let Err(reason) = tools::run(&mut mkfs, b"", DEADLINE)?.success() {
                    return Ok(Err(format!("mkfs.ext4 failed: {reason}")));
                }
                mount.args(["-o", "loop"]).arg(&image);
            }
        }
        mount.arg(&target);
        Ok(match tools::run(&mut mount, b"", DEADLINE)?.success() {
            Ok(_) => Ok(Self { folder }),
            Err(reason) => Err(format!("cannot mount {kind:?} here: {reason}")),
        })
    }

    /// Mount point.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Fills the filesystem with one file, then shortens the file by `spare` bytes. Returns its
    /// path.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created, or if 1 GiB does not fill the filesystem.
    pub fn fill(&self, spare: u64) -> Result<PathBuf> {
        let path = self.path().join("ballast");
        let mut file = std::fs::File::create(&path)?;
        let block = vec![b'x'; 64 << 10];
        while file.write_all(&block).is_ok() {
            ensure!(file.metadata()?.len() < 1 << 30, "the volume does not fill up");
        }
        let length = file.metadata()?.len();
        file.set_len(length.saturating_sub(spare))?;
        file.sync_all()?;
        Ok(path)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let path = self.path();
        if !unmount(&path, &[]) {
            // A process that a failed test left behind may still use the filesystem.
            unmount(&path, &["-l"]);
        }
    }
}

fn unmount(path: &Path, options: &[&str]) -> bool {
    let mut command = Command::new("umount");
    command.args(options).arg(path);
    tools::run(&mut command, b"", DEADLINE).is_ok_and(|outcome| outcome.status.success())
}

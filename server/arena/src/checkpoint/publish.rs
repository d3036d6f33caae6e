//! The temporary file of an image, and its publication under the image's name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::libc;

use super::report::WriterPhase;
use super::storage::Storage;
use super::{CheckpointError, ImageTarget};

/// The temporary file, removed on drop unless it was published.
pub(super) struct TempFile {
    pub path: PathBuf,
    published: bool,
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.published {
            // The error that led here is the one to report.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl TempFile {
    /// Creates the temporary file of a target; returns the file too, and whether it is open for
    /// direct I/O: past the page cache, where the filesystem can.
    ///
    /// # Errors
    /// The target's name is no file name, or the file cannot be created.
    pub(super) fn create(
        target: &ImageTarget,
        storage: &dyn Storage,
    ) -> Result<(Self, std::fs::File, bool), CheckpointError> {
        let name = Path::new(&target.filename);
        if name.file_name() != Some(name.as_os_str()) {
            return Err(CheckpointError::Name { name: target.filename.clone() });
        }
        let path = target.dir.join(temp_name());
        let opened = match storage.create(&path, true) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                storage.create(&path, false).map(|file| (file, false))
            }
            outcome => outcome.map(|file| (file, true)),
        };
        match opened {
            Ok((file, direct)) => Ok((Self { path, published: false }, file, direct)),
            Err(source) => Err(CheckpointError::Create { path, source }),
        }
    }

    /// Renames the complete and durable file to the image's name and syncs the directory.
    ///
    /// # Errors
    /// The rename failed: the old image is kept. Or the directory could not be synced: the new
    /// image is there and may not survive a power failure.
    pub(super) fn publish(
        &mut self,
        target: &ImageTarget,
        storage: &dyn Storage,
    ) -> Result<(), CheckpointError> {
        let image = target.path();
        if let Err(source) = storage.rename(&self.path, &image) {
            return Err(CheckpointError::Rename { from: self.path.clone(), to: image, source });
        }
        self.published = true;
        let sync = storage.sync_dir(&target.dir);
        sync.map_err(|source| CheckpointError::SyncDirectory { image, source })
    }

    /// The error of a writer that stopped in `phase`.
    pub(super) fn write_error(&self, phase: WriterPhase, errno: i32) -> CheckpointError {
        let action = if phase == WriterPhase::Syncing { "sync" } else { "write to" };
        let source = io::Error::from_raw_os_error(errno);
        CheckpointError::Write { action, path: self.path.clone(), source }
    }
}

/// A name that no other checkpoint of this process has: two must not write into one file.
fn temp_name() -> String {
    static CHECKPOINTS: AtomicU64 = AtomicU64::new(0);
    format!("temp-{}-{}.cow", std::process::id(), CHECKPOINTS.fetch_add(1, Ordering::Relaxed))
}

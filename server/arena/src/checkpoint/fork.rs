//! Preparing a save, and the fork itself.
//!
//! Invariants that unsafe code leans on:
//! 1. A fork happens at a safepoint only: every shard is locked, the arena is whole.
//! 2. Signals are blocked around the fork, so that no handler of the parent's runs in the child.
//! 3. After the fork the child runs [`child::run`] and nothing else.

#![expect(unsafe_code, reason = "fork; invariants above")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{ForkResult, fork, getpid};

use super::completion_pipe::CompletionPipe;
use super::format::{FileHeader, MAGIC, VERSION, page_kind_byte};
use super::quiescent_source::still;
use super::report::WriterFailure;
use super::running::{CheckpointOutcome, RunningCheckpoint, publish, write_error};
use super::storage::{Disk, Storage};
use super::sys::SharedReport;
use super::undo_log_source::UndoLogSource;
use super::writer::{Job, Output};
use super::{CheckpointError, ImageOptions, ImageTarget, child};
use crate::barrier;
use crate::layout::index;
use crate::{Arena, Backing, CHUNK_SIZE, Safepoint};

/// The arena that a save is of, for what errors say about it.
#[derive(Clone, Copy)]
pub(super) struct ArenaInfo {
    pub backing: Backing,
    pub capacity: u64,
}

/// The temporary file, removed when it goes unless it was published.
pub(super) struct TempFile {
    pub path: PathBuf,
    pub published: bool,
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.published {
            // The error that led here is the one to tell.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Everything that a save needs, taken before the safepoint: file, buffers, tables, report page.
pub struct PreparedCheckpoint {
    pub(super) job: Job,
    /// Room for a chunk that is put right before it is compressed.
    buffer: MmapMut,
    pub(super) report: Arc<SharedReport>,
    pub(super) temp: TempFile,
    pub(super) target: ImageTarget,
    pub(super) arena_info: ArenaInfo,
    pub(super) completion: CompletionPipe,
}

impl PreparedCheckpoint {
    /// Prepares a save of `arena`.
    ///
    /// # Errors
    /// The temporary file cannot be made, or there is no memory for the buffers.
    pub fn new(
        target: &ImageTarget,
        options: &ImageOptions,
        arena: &Arena,
    ) -> Result<Self, CheckpointError> {
        Self::with_storage(target, options, arena, Arc::new(Disk))
    }

    pub(super) fn with_storage(
        target: &ImageTarget,
        options: &ImageOptions,
        arena: &Arena,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, CheckpointError> {
        let name = Path::new(&target.filename);
        if name.file_name() != Some(name.as_os_str()) {
            return Err(CheckpointError::Name { name: target.filename.clone() });
        }
        let buffers = |source| CheckpointError::Buffers { source };
        let report = Arc::new(SharedReport::new().map_err(buffers)?);
        let completion = CompletionPipe::new().map_err(buffers)?;
        let arena_info = ArenaInfo { backing: arena.backing(), capacity: arena.capacity() };
        let buffer = MmapMut::map_anon(index(CHUNK_SIZE)).map_err(buffers)?;
        let path = target.dir.join(temp_name());
        let (file, direct) = create(storage.as_ref(), &path)
            .map_err(|source| CheckpointError::Create { path: path.clone(), source })?;
        let temp = TempFile { path, published: false };
        let out = Output::new(file, storage, direct);
        let most = arena_info.capacity / CHUNK_SIZE;
        let header = header(options, arena_info);
        let job =
            Job::new(header, options.codec, options.delay_per_chunk, most, out).map_err(buffers)?;
        if let Some(log) = arena.barrier().undo_log() {
            log.prefault();
        }
        Ok(Self { job, buffer, report, temp, target: target.clone(), arena_info, completion })
    }

    /// Starts recording in the arena's barrier and forks a child that writes the image. The caller
    /// ends the recording once the child is child_exited; if there is no child it is ended here.
    ///
    /// # Errors
    /// There is no child, or another save is being recorded.
    ///
    /// # Panics
    /// The save was prepared for another arena.
    pub fn fork(mut self, safepoint: &Safepoint<'_>) -> Result<RunningCheckpoint, CheckpointError> {
        let arena = self.arena_of(safepoint)?;
        if !barrier::ON {
            return Err(CheckpointError::NoBarrier);
        }
        arena.barrier().begin(safepoint);
        let parent = getpid();
        // SAFETY: every shard is locked (invariant 1), and the child's arm is `child::run` alone.
        let (outcome, took) = unsafe { forked() };
        match outcome {
            Ok(ForkResult::Child) => {
                let Self { job, buffer, report, completion, .. } = &mut self;
                child::run(job, buffer, arena, report, completion, parent)
            }
            Ok(ForkResult::Parent { child }) => {
                self.completion.close_tx();
                Ok(RunningCheckpoint::new(self, child, took))
            }
            Err(errno) => {
                arena.barrier().end(safepoint);
                Err(CheckpointError::Fork { source: errno.into() })
            }
        }
    }

    /// Writes the image in this process while the arena stands still, and publishes it.
    ///
    /// # Errors
    /// The image cannot be written or published, or another save is being recorded; the old image
    /// is kept.
    ///
    /// # Panics
    /// The save was prepared for another arena.
    pub fn write_here(
        mut self,
        safepoint: &Safepoint<'_>,
    ) -> Result<CheckpointOutcome, CheckpointError> {
        let begun = Instant::now();
        let arena = self.arena_of(safepoint)?;
        let barrier = arena.barrier();
        // Only the barrier's list of chunks is needed: nobody writes, so nothing is counted.
        barrier.begin(safepoint);
        let written = match (barrier.undo_log(), arena.file()) {
            // Read through its mapping, what was never touched would take memory.
            (Some(log), Some(file)) => {
                let mut source = UndoLogSource::new(barrier, log, file, &mut self.buffer);
                self.job.run(&mut source, &self.report)
            }
            _ => {
                // SAFETY: every shard is locked while the source is used.
                let mut source = unsafe { still(arena) };
                self.job.run(&mut source, &self.report)
            }
        };
        barrier.end(safepoint);
        barrier.reset();
        match written {
            Ok(()) => publish(&mut self.temp, &self.target, self.job.out.storage.as_ref())?,
            Err(WriterFailure { phase, errno }) => {
                return Err(write_error(phase, errno, &self.temp.path));
            }
        }
        Ok(CheckpointOutcome::new(&self.report, Duration::ZERO, begun.elapsed()))
    }

    fn arena_of<'s>(&self, safepoint: &Safepoint<'s>) -> Result<&'s Arena, CheckpointError> {
        let arena = safepoint.arena();
        assert!(arena.capacity() == self.arena_info.capacity, "prepared for another arena");
        if arena.barrier().is_active() { Err(CheckpointError::Busy) } else { Ok(arena) }
    }
}

/// A name that no other save of this process has: two must not write into one file.
fn temp_name() -> String {
    static SAVES: AtomicU64 = AtomicU64::new(0);
    format!("temp-{}-{}.cow", std::process::id(), SAVES.fetch_add(1, Ordering::Relaxed))
}

/// Opens the temporary file, past the page cache where the filesystem can.
fn create(storage: &dyn Storage, path: &Path) -> io::Result<(std::fs::File, bool)> {
    match storage.create(path, true) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            storage.create(path, false).map(|file| (file, false))
        }
        outcome => outcome.map(|file| (file, true)),
    }
}

fn header(options: &ImageOptions, arena_info: ArenaInfo) -> FileHeader {
    let mut writer = [0; 32];
    let name = concat!("cowherd ", env!("CARGO_PKG_VERSION")).as_bytes();
    for (to, from) in writer.iter_mut().zip(name) {
        *to = *from;
    }
    FileHeader {
        magic: MAGIC,
        version: VERSION.into(),
        flags: 0.into(),
        layout: options.layout.into(),
        chunk_size: CHUNK_SIZE.into(),
        capacity: arena_info.capacity.into(),
        created_ms: options.created_ms.into(),
        page_kind: page_kind_byte(arena_info.backing.kind),
        reserved: [0; 7],
        writer,
        reserved_end: [0; 4000],
        checksum: 0.into(),
    }
}

/// Forks; returns how long it took. The child comes back with all signals blocked.
///
/// # Safety
/// The child calls [`child::run`] and nothing else (invariant 3).
unsafe fn forked() -> (Result<ForkResult, Errno>, Duration) {
    let mask = match SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK) {
        Ok(mask) => mask,
        Err(errno) => return (Err(errno), Duration::ZERO),
    };
    let begun = Instant::now();
    // SAFETY: the caller keeps the child to async-signal-safe calls; no handler of the parent's
    // runs in it (invariant 2).
    let outcome = unsafe { fork() };
    let took = begun.elapsed();
    if !matches!(outcome, Ok(ForkResult::Child)) {
        let _ = mask.thread_set_mask();
    }
    (outcome, took)
}

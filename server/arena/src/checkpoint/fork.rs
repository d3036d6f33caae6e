//! `PreparedCheckpoint`: everything that a checkpoint needs, taken before the safepoint; and the
//! fork itself.
//!
//! Invariants that unsafe code cites:
//! 1. A fork happens at a safepoint only: every shard is locked, every structure is whole.
//! 2. Signals are blocked around the fork, so that no handler of the parent runs in the child.
//! 3. After the fork the child runs [`child::run`] and nothing else.

#![expect(unsafe_code, reason = "fork; invariants above")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{ForkResult, fork, getpid};

use super::completion_pipe::CompletionPipe;
use super::format::{FileHeader, MAGIC, VERSION, page_kind_byte};
use super::publish::TempFile;
use super::quiescent_source::QuiescentSource;
use super::report::WriterFailure;
use super::running::{ArenaInfo, CheckpointOutcome, Resources, RunningCheckpoint};
use super::storage::{Disk, Storage};
use super::sys::SharedReport;
use super::undo_log_source::UndoLogSource;
use super::writer::{Job, Output};
use super::{CheckpointError, ImageOptions, ImageTarget, child};
use crate::barrier;
use crate::layout::{CHUNK_SIZE, index};
use crate::{Arena, Recording, Safepoint};

/// A checkpoint that can start: file, buffers, tables and the shared report exist.
pub struct PreparedCheckpoint<'a> {
    arena: &'a Arena,
    pub(super) job: Job,
    /// Room for a chunk that is patched and packed before it is compressed.
    buffer: MmapMut,
    report: Arc<SharedReport>,
    temp: TempFile,
    target: ImageTarget,
    completion: CompletionPipe,
}

impl<'a> PreparedCheckpoint<'a> {
    /// Prepares a checkpoint of `arena`.
    ///
    /// # Errors
    /// The temporary file cannot be created, or there is no memory for the buffers.
    pub fn new(
        target: &ImageTarget,
        options: &ImageOptions,
        arena: &'a Arena,
    ) -> Result<Self, CheckpointError> {
        Self::with_storage(target, options, arena, Arc::new(Disk))
    }

    pub(super) fn with_storage(
        target: &ImageTarget,
        options: &ImageOptions,
        arena: &'a Arena,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, CheckpointError> {
        child::install_panic_hook();
        let buffers = |source| CheckpointError::Buffers { source };
        let report = Arc::new(SharedReport::new().map_err(buffers)?);
        let completion = CompletionPipe::new().map_err(buffers)?;
        let buffer = MmapMut::map_anon(index(CHUNK_SIZE)).map_err(buffers)?;
        let (temp, file, direct) = TempFile::create(target, storage.as_ref())?;
        let out = Output::new(file, storage, direct);
        let most = arena.capacity() / CHUNK_SIZE;
        let header = header(options, arena);
        let job =
            Job::new(header, options.codec, options.delay_per_chunk, most, out).map_err(buffers)?;
        if let Some(log) = arena.barrier().undo_log() {
            log.prefault();
        }
        Ok(Self { arena, job, buffer, report, temp, target: target.clone(), completion })
    }

    /// Starts recording in the arena's barrier and forks a child that writes the image.
    ///
    /// # Errors
    /// There is no child, or another checkpoint is being recorded.
    ///
    /// # Panics
    /// The safepoint is of another arena.
    pub fn fork(
        mut self,
        safepoint: &Safepoint<'_>,
    ) -> Result<RunningCheckpoint<'a>, CheckpointError> {
        if !barrier::ON {
            return Err(CheckpointError::NoBarrier);
        }
        let recording = self.record(safepoint)?;
        let view = recording.child_view();
        let parent = getpid();
        // SAFETY: every shard is locked (invariant 1), and the child's arm is `child::run` alone.
        let (outcome, took) = unsafe { forked() };
        match outcome {
            Ok(ForkResult::Child) => {
                let Self { job, buffer, report, completion, .. } = &mut self;
                child::run(job, buffer, view, report, completion, parent)
            }
            Ok(ForkResult::Parent { child }) => {
                let Self { job, buffer, report, temp, target, mut completion, arena } = self;
                completion.close_tx();
                let arena = ArenaInfo { backing: arena.backing(), capacity: arena.capacity() };
                let _buffer = buffer;
                let resources = Resources { job, _buffer, report, temp, target, completion, arena };
                Ok(RunningCheckpoint::new(child, took, recording, resources))
            }
            Err(errno) => {
                drop(recording.finish(safepoint));
                Err(CheckpointError::Fork { source: errno.into() })
            }
        }
    }

    /// Writes the image in this process, at the safepoint, and publishes it.
    ///
    /// # Errors
    /// The image cannot be written or published, or another checkpoint is being recorded; the old
    /// image is kept.
    ///
    /// # Panics
    /// The safepoint is of another arena.
    pub fn write_here(
        mut self,
        safepoint: &Safepoint<'_>,
    ) -> Result<CheckpointOutcome, CheckpointError> {
        let begun = Instant::now();
        // Only the list of chunks is needed: no thread writes, so nothing is recorded.
        let recording = self.record(safepoint)?;
        let view = recording.child_view();
        let written = match view.shared_memory() {
            // Read through the mapping, pages that were never touched would take memory.
            Some((records, file)) => {
                let mut source = UndoLogSource::new(view, records, file, &mut self.buffer);
                self.job.run(&mut source, &self.report)
            }
            None => {
                // SAFETY: every shard is locked while the source is used.
                let mut source = unsafe { QuiescentSource::new(view, &mut self.buffer) };
                self.job.run(&mut source, &self.report)
            }
        };
        drop(recording.finish(safepoint));
        if let Err(WriterFailure { phase, errno }) = written {
            return Err(self.temp.write_error(phase, errno));
        }
        self.temp.publish(&self.target, self.job.out.storage.as_ref())?;
        Ok(CheckpointOutcome::new(&self.report, Duration::ZERO, begun.elapsed()))
    }

    fn record(&self, safepoint: &Safepoint<'_>) -> Result<Recording<'a>, CheckpointError> {
        Recording::begin(self.arena, safepoint).ok_or(CheckpointError::Busy)
    }
}

fn header(options: &ImageOptions, arena: &Arena) -> FileHeader {
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
        capacity: arena.capacity().into(),
        created_ms: options.created_ms.into(),
        page_kind: page_kind_byte(arena.page_kind()),
        reserved: [0; 7],
        writer,
        reserved_end: [0; 4000],
        checksum: 0.into(),
    }
}

/// Forks; returns the duration too. The child starts with all signals blocked.
///
/// # Safety
/// The child calls [`child::run`] and nothing else (invariant 3).
unsafe fn forked() -> (Result<ForkResult, Errno>, Duration) {
    let mask = match SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK) {
        Ok(mask) => mask,
        Err(errno) => return (Err(errno), Duration::ZERO),
    };
    let begun = Instant::now();
    // SAFETY: the caller keeps the child to async-signal-safe calls; no handler of the parent runs
    // in it (invariant 2).
    let outcome = unsafe { fork() };
    let took = begun.elapsed();
    if !matches!(outcome, Ok(ForkResult::Child)) {
        let _ = mask.thread_set_mask();
    }
    (outcome, took)
}

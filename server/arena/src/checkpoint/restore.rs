//! Reading an image back: chunks go in parallel straight to their places in a fresh arena.
//!
//! An image is untrusted: header, footer and index are checked before the first chunk is read, a
//! chunk's checksum before it is decoded, and the arena's own tables before it is opened. What the
//! objects mean is for the layers above to check.
//!
//! A checkpoint is written past the page cache, so after a crash the image is on disk only, and
//! direct reads bring it in fastest; what the page cache has is copied from there. See
//! docs/decisions/0002-image-io.md.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use nix::libc;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::format::{CODEC_NONE, IndexEntry, aligned};
use super::image::{Image, ImageInfo};
use super::packing::{self, Form};
use super::{ImageRegion, RestoreError, sys};
use crate::layout::{MIN_CAPACITY, index as to_index};
use crate::{
    Arena, Backing, CHUNK_SIZE, ChunkIndex, ObjectInspector, ObjectNotes, OpenError, ReservedArena,
};

const CHUNK: usize = to_index(CHUNK_SIZE);
/// More threads than this do not read faster.
const MAX_THREADS: usize = 16;
/// Readers for each processor that the caller allows. A reader waits for the disk while it reads,
/// and leaves the disk alone while it populates a chunk or checks a frame: with this many there are
/// requests at the disk all the time. Measured in docs/decisions/0021-loading.md.
const READERS_PER_PROCESSOR: usize = 4;

/// What a restore was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestoreStats {
    /// What the image says about itself.
    pub image: ImageInfo,
    /// Bytes of its chunks in memory.
    pub raw_bytes: u64,
    /// Threads that read it.
    pub threads: usize,
    /// Time in all.
    pub duration: Duration,
}

/// How far a restore is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RestoreProgress {
    /// Bytes of the frames that are read.
    pub read_bytes: u64,
    /// Bytes of all frames.
    pub total_bytes: u64,
    /// Chunks in memory.
    pub chunks: u64,
    /// Chunks of the image.
    pub total_chunks: u64,
}

/// What goes on beside reading.
#[derive(Clone, Copy)]
pub struct RestoreHooks<'a> {
    /// Is called with the progress once the index is read and after each chunk, from any of the
    /// threads, so that calls overlap and may be out of order.
    pub observe: &'a (dyn Fn(RestoreProgress) + Sync),
    /// Inspects the objects of each chunk once it is in memory, while others are read.
    pub inspector: Option<&'a dyn ObjectInspector>,
}

impl RestoreHooks<'_> {
    /// Nothing.
    pub const NONE: Self = Self { observe: &|_| {}, inspector: None };
}

/// Reads the image at `path` into a new arena of `capacity` bytes. `layout` is the layout hash that
/// it must have.
///
/// # Errors
/// There is no image, it is damaged or of another layout, or it does not fit.
pub fn restore(
    path: &Path,
    backing: impl Into<Backing>,
    capacity: u64,
    layout: u64,
    threads: usize,
) -> Result<(Arena, RestoreStats), RestoreError> {
    let hooks = RestoreHooks::NONE;
    let (arena, _, stats) = restore_with(path, backing, capacity, layout, threads, hooks)?;
    Ok((arena, stats))
}

/// As [`restore`], with hooks; the notes are the inspector's. There are none without an inspector
/// or without memory for them.
///
/// # Errors
/// As [`restore`].
pub fn restore_with(
    path: &Path,
    backing: impl Into<Backing>,
    capacity: u64,
    layout: u64,
    threads: usize,
    hooks: RestoreHooks<'_>,
) -> Result<(Arena, Option<ObjectNotes>, RestoreStats), RestoreError> {
    let backing = backing.into();
    let begun = Instant::now();
    let image = Image::open(path)?;
    let mut info = image.info();
    if info.layout != layout {
        return Err(RestoreError::Version {
            path: path.to_owned(),
            writer: info.writer,
            what: "memory layout",
            found: info.layout,
            expected: layout,
        });
    }
    // A capacity beyond all bounds is refused when it is reserved.
    let allocated_size =
        capacity.max(MIN_CAPACITY).checked_next_multiple_of(backing.kind.granularity());
    let capacity = allocated_size.unwrap_or(u64::MAX);
    let entries = read_index(&image, capacity, &mut info)?;
    let wrap = |source| RestoreError::Arena { path: path.to_owned(), source };
    let blank = ReservedArena::reserve(backing, capacity).map_err(wrap)?;
    let reader = Reader::new(path, &image.file);
    let threads = readers(threads).min(entries.len().max(1));
    let progress = Progress::new(&entries, hooks.observe);
    let inspection = hooks.inspector.and_then(|inspector| {
        let notes = ObjectNotes::new(capacity, entries.len() as u64).ok()?;
        Some(Inspection { inspector, notes, hash_seed: OnceLock::new() })
    });
    let loading = Loading {
        image: &image,
        reader,
        blank: &blank,
        entries: &entries,
        progress,
        inspection: inspection.as_ref(),
    };
    loading.run(threads)?;
    let arena = blank.open(layout).map_err(|source| match source {
        OpenError::Corruption(broken) => {
            image.damaged(ImageRegion::Chunk(broken.chunk), broken.reason)
        }
        source => wrap(source),
    })?;
    let raw_bytes = entries.len() as u64 * CHUNK_SIZE;
    let stats = RestoreStats { image: info, raw_bytes, threads, duration: begun.elapsed() };
    Ok((arena, inspection.map(|inspection| inspection.notes), stats))
}

/// The inspection of objects while chunks are read.
struct Inspection<'a> {
    inspector: &'a dyn ObjectInspector,
    notes: ObjectNotes,
    /// As the image's first chunk says. Until that is read, no chunk is inspected.
    hash_seed: OnceLock<u64>,
}

impl Inspection<'_> {
    /// A chunk has its final content.
    fn chunk(&self, chunk: ChunkIndex, bytes: &[u8]) {
        if chunk == ChunkIndex(0) {
            if let Some(hash_seed) = ObjectNotes::hash_seed(bytes) {
                self.hash_seed.get_or_init(|| hash_seed);
            }
        } else if let Some(hash_seed) = self.hash_seed.get() {
            self.notes.inspect(chunk, bytes, *hash_seed, self.inspector);
        }
    }
}

/// Threads that read, where the caller allows `threads` processors. One stays one: it keeps the
/// order of the frames.
const fn readers(threads: usize) -> usize {
    match threads {
        0 | 1 => 1,
        more if more < MAX_THREADS / READERS_PER_PROCESSOR => more * READERS_PER_PROCESSOR,
        _ => MAX_THREADS,
    }
}

/// Counts what is read, for the observer.
struct Progress<'a> {
    read_bytes: AtomicU64,
    chunks: AtomicU64,
    total_bytes: u64,
    total_chunks: u64,
    observe: &'a (dyn Fn(RestoreProgress) + Sync),
}

impl<'a> Progress<'a> {
    fn new(entries: &[IndexEntry], observe: &'a (dyn Fn(RestoreProgress) + Sync)) -> Self {
        let total_bytes = entries.iter().map(|entry| u64::from(entry.stored.get())).sum();
        let total_chunks = entries.len() as u64;
        let (read_bytes, chunks) = (AtomicU64::new(0), AtomicU64::new(0));
        observe(RestoreProgress { total_bytes, total_chunks, ..RestoreProgress::default() });
        Self { read_bytes, chunks, total_bytes, total_chunks, observe }
    }

    fn chunk_done(&self, entry: &IndexEntry) {
        let stored = u64::from(entry.stored.get());
        let read_bytes = self.read_bytes.fetch_add(stored, Ordering::Relaxed) + stored;
        let chunks = self.chunks.fetch_add(1, Ordering::Relaxed) + 1;
        let Self { total_bytes, total_chunks, .. } = *self;
        (self.observe)(RestoreProgress { read_bytes, total_bytes, chunks, total_chunks });
    }
}

/// Reads the index of an image that fits into `capacity` bytes.
fn read_index(
    image: &Image<'_>,
    capacity: u64,
    info: &mut ImageInfo,
) -> Result<Vec<IndexEntry>, RestoreError> {
    let too_small =
        |needed| RestoreError::TooSmall { path: image.path.to_owned(), capacity, needed };
    if image.chunks() > capacity / CHUNK_SIZE {
        return Err(too_small(image.chunks().saturating_mul(CHUNK_SIZE)));
    }
    let mut entries = Vec::with_capacity(to_index(image.chunks()));
    image.entries(|_, entry| {
        info.lz4_chunks += u64::from(entry.codec != CODEC_NONE);
        let needed = (u64::from(entry.chunk.get()) + 1) * CHUNK_SIZE;
        info.needed_capacity = info.needed_capacity.max(needed);
        entries.push(*entry);
    })?;
    if info.needed_capacity > capacity {
        return Err(too_small(info.needed_capacity));
    }
    Ok(entries)
}

/// The two ways to the bytes of an image.
struct Reader<'a> {
    cached: &'a File,
    /// The same file past the page cache, if the filesystem can.
    direct: Option<File>,
    use_direct: AtomicBool,
    resident: Option<sys::PageCacheMap>,
}

impl<'a> Reader<'a> {
    fn new(path: &Path, cached: &'a File) -> Self {
        let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
        // Another file may have taken the name since.
        let direct = direct.ok().filter(|direct| is_same(direct, cached).unwrap_or(false));
        let resident = sys::PageCacheMap::new(cached).ok();
        Self { cached, use_direct: AtomicBool::new(direct.is_some()), direct, resident }
    }

    /// Fills `to` from `at`; address, length and offset are multiples of 4096.
    fn read(&self, to: &mut [u8], at: u64) -> io::Result<()> {
        let direct = self.direct.as_ref().filter(|_| self.use_direct.load(Ordering::Relaxed));
        let Some(direct) = direct else { return self.cached.read_exact_at(to, at) };
        if self.resident.as_ref().is_some_and(|r| r.has(to_index(at), to.len())) {
            return self.cached.read_exact_at(to, at);
        }
        match direct.read_exact_at(to, at) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.use_direct.store(false, Ordering::Relaxed);
                self.cached.read_exact_at(to, at)
            }
            outcome => outcome,
        }
    }
}

fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok(one.dev() == other.dev() && one.ino() == other.ino())
}

/// Chunks on their way into an arena.
struct Loading<'a> {
    image: &'a Image<'a>,
    reader: Reader<'a>,
    blank: &'a ReservedArena,
    entries: &'a [IndexEntry],
    progress: Progress<'a>,
    inspection: Option<&'a Inspection<'a>>,
}

/// The failure of the lowest frame, so that a damaged image always gives the same error.
type Failed = Mutex<Option<(usize, RestoreError)>>;

impl Loading<'_> {
    fn run(&self, threads: usize) -> Result<(), RestoreError> {
        let next = AtomicUsize::new(0);
        let failed: Failed = Mutex::new(None);
        let work = || self.work(&next, &failed);
        // A checkpoint begins with the lowest chunk, and the inspection needs to know its seed.
        let is_inspected = self.inspection.is_some();
        if is_inspected && self.entries.first().is_some_and(|first| first.chunk.get() == 0) {
            self.work_on(next.fetch_add(1, Ordering::Relaxed), &next, &failed, &mut [None, None]);
        }
        thread::scope(|scope| {
            for _ in 1..threads {
                // With fewer threads it takes longer.
                let _ = thread::Builder::new().name("restore".into()).spawn_scoped(scope, work);
            }
            work();
        });
        failed.into_inner().map_or(Ok(()), |(_, error)| Err(error))
    }

    fn work(&self, next: &AtomicUsize, failed: &Failed) {
        let mut buffers = [None, None];
        while self.work_on(next.fetch_add(1, Ordering::Relaxed), next, failed, &mut buffers) {}
    }

    /// Brings one chunk to its place; tells whether there may be more to do.
    fn work_on(
        &self,
        number: usize,
        next: &AtomicUsize,
        failed: &Failed,
        buffers: &mut [Option<MmapMut>; 2],
    ) -> bool {
        let Some(entry) = self.entries.get(number) else { return false };
        if let ControlFlow::Break(error) = self.chunk(entry, buffers) {
            let mut failed = failed.lock();
            if failed.as_ref().is_none_or(|(lowest, _)| number < *lowest) {
                *failed = Some((number, error));
            }
            // Frames before this one are being read; those after it no longer matter.
            next.store(self.entries.len(), Ordering::Relaxed);
            return false;
        }
        self.progress.chunk_done(entry);
        true
    }

    /// Brings one chunk to its place, and inspects it there.
    fn chunk(
        &self,
        entry: &IndexEntry,
        buffers: &mut [Option<MmapMut>; 2],
    ) -> ControlFlow<RestoreError> {
        let chunk = ChunkIndex(entry.chunk.get());
        let to = match self.blank.chunk(chunk) {
            Ok(to) => to,
            Err(OpenError::Twice { .. }) => {
                return self.broken(chunk, "it is there twice".into());
            }
            Err(source) => {
                let path = self.image.path.to_owned();
                return ControlFlow::Break(RestoreError::Arena { path, source });
            }
        };
        self.fill(entry, chunk, to, buffers)?;
        if let Some(inspection) = self.inspection {
            inspection.chunk(chunk, to);
        }
        ControlFlow::Continue(())
    }

    /// Reads a chunk's frame, checks it, and expands it.
    fn fill(
        &self,
        entry: &IndexEntry,
        chunk: ChunkIndex,
        to: &mut [u8],
        [stored_buffer, packed_buffer]: &mut [Option<MmapMut>; 2],
    ) -> ControlFlow<RestoreError> {
        let Some(form) = Form::from_byte(entry.form) else {
            return self.broken(chunk, format!("unknown form {}", entry.form));
        };
        if entry.codec == CODEC_NONE && form == Form::Whole {
            self.read(entry, to)?;
            return self.check(entry, to);
        }
        let stored = to_index(entry.stored.get().into());
        let frame = &mut self.take(chunk, stored_buffer)?[..to_index(aligned(stored as u64))];
        self.read(entry, frame)?;
        let (frame, zeros) = frame.split_at(stored);
        self.check(entry, frame)?;
        if zeros.iter().any(|byte| *byte != 0) {
            return self.broken(chunk, "the bytes after its frame are not zero".into());
        }
        let len = to_index(entry.len.get().into());
        let packed = match (entry.codec, form) {
            (CODEC_NONE, _) => frame,
            (_, Form::Whole) => return self.decode(chunk, frame, to),
            _ => {
                let packed = &mut self.take(chunk, packed_buffer)?[..len];
                self.decode(chunk, frame, packed)?;
                packed
            }
        };
        match packing::unpack(packed, form, to) {
            Ok(()) => ControlFlow::Continue(()),
            Err(reason) => self.broken(chunk, format!("its frame cannot be expanded: {reason}")),
        }
    }

    fn decode(&self, chunk: ChunkIndex, frame: &[u8], to: &mut [u8]) -> ControlFlow<RestoreError> {
        match lz4_flex::block::decompress_into(frame, to) {
            Ok(len) if len == to.len() => ControlFlow::Continue(()),
            Ok(len) => self.broken(chunk, format!("it decodes to {len} bytes")),
            Err(error) => self.broken(chunk, format!("it cannot be decoded: {error}")),
        }
    }

    /// A buffer of one chunk, aligned to pages, made when it is first needed.
    fn take<'b>(
        &self,
        chunk: ChunkIndex,
        buffer: &'b mut Option<MmapMut>,
    ) -> ControlFlow<RestoreError, &'b mut MmapMut> {
        let taken = match buffer.take().map_or_else(|| MmapMut::map_anon(CHUNK), Ok) {
            Ok(taken) => taken,
            Err(source) => {
                let path = self.image.path.to_owned();
                let source = OpenError::NoMemory { chunk, source };
                return ControlFlow::Break(RestoreError::Arena { path, source });
            }
        };
        ControlFlow::Continue(buffer.insert(taken))
    }

    fn read(&self, entry: &IndexEntry, to: &mut [u8]) -> ControlFlow<RestoreError> {
        match self.reader.read(to, entry.offset.get()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(source) => ControlFlow::Break(RestoreError::Read {
                path: self.image.path.to_owned(),
                place: ImageRegion::Chunk(ChunkIndex(entry.chunk.get())),
                source,
            }),
        }
    }

    fn check(&self, entry: &IndexEntry, frame: &[u8]) -> ControlFlow<RestoreError> {
        if xxh3_64(frame) == entry.checksum.get() {
            return ControlFlow::Continue(());
        }
        let chunk = ChunkIndex(entry.chunk.get());
        let at = entry.offset.get();
        self.broken(chunk, format!("the checksum of its frame at {at} is wrong"))
    }

    fn broken(&self, chunk: ChunkIndex, reason: String) -> ControlFlow<RestoreError> {
        ControlFlow::Break(self.image.damaged(ImageRegion::Chunk(chunk), reason))
    }
}

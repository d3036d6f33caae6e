//! The writer of an image: chunks in, file out. It runs in a forked child, or in this process for
//! a foreground checkpoint.
//!
//! ```text
//! source, packed -> (lz4) -> stage: | frame | frame |  -> write at multiples of 4096, past the
//!                                   0            2 MiB+   page cache
//! ```
//!
//! Invariants:
//! 1. Nothing here allocates, locks, logs or panics: all buffers come from [`Job::new`], all
//!    slices are taken by `get`, and an error is a [`WriterFailure`], two numbers.
//! 2. The stage holds whole frames with their zeros, and so does each write: addresses, lengths and
//!    offsets are multiples of 4096, as direct I/O asks.
//! 3. Chunks are always copied or compressed into the stage, never written from where they lie:
//!    direct I/O pins pages, and pinning a page that is shared after a fork makes the kernel copy
//!    it (Linux 5.19, commit a7f226604170), which would double the memory of the arena.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use memmap2::MmapMut;
use nix::errno::Errno;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::IntoBytes;

use super::ChunkCodec;
use super::format::{
    ALIGN, CODEC_LZ4, CODEC_NONE, ENTRY_LEN, FOOTER_LEN, FOOTER_MAGIC, FileHeader, Footer,
    HEADER_LEN, IndexEntry, aligned, tail_len,
};
use super::packing::PackedChunk;
use super::report::{ChildReport, WriterFailure, WriterPhase};
use super::source::ChunkSource;
use super::storage::{self, Storage};
use crate::layout::index as to_index;
use crate::{CHUNK_SIZE, ChunkIndex};

/// The stage is written when it holds at least this much; see docs/decisions/0002-image-io.md.
const WINDOW: usize = 2 << 20;
const CHUNK: usize = to_index(CHUNK_SIZE);
const STAGE: usize = WINDOW + get_maximum_output_size(CHUNK).next_multiple_of(to_index(ALIGN));
const BLOCK: usize = to_index(ALIGN);

/// A failure in a place that cannot be reached, as an errno.
const IMPOSSIBLE: Errno = Errno::EOVERFLOW;

/// All that a writer needs, taken before the fork.
pub(super) struct Job {
    pub header: FileHeader,
    pub codec: ChunkCodec,
    pub delay: Duration,
    pub out: Output,
    stage: MmapMut,
    filled: usize,
    /// The index as it grows, and room for the zeros and the footer after it.
    tail: MmapMut,
    chunks: u64,
    table: CompressTable,
}

/// Bytes of the buffers that fill while so many chunks are written; no other process shares them.
pub const fn buffer_bytes(chunks: u64) -> u64 {
    STAGE as u64 + tail_len(chunks)
}

/// The file, and how far it is written.
pub(super) struct Output {
    pub file: File,
    pub storage: Arc<dyn Storage>,
    pub direct: bool,
    at: u64,
    /// The range of the page cache that `sync_file_range` started to write last.
    behind: (u64, u64),
}

impl Output {
    /// Output to a file that is open for direct I/O or not.
    pub(super) const fn new(file: File, storage: Arc<dyn Storage>, direct: bool) -> Self {
        Self { file, storage, direct, at: 0, behind: (0, 0) }
    }
}

impl Job {
    /// A job that can write up to `most` chunks.
    pub(super) fn new(
        header: FileHeader,
        codec: ChunkCodec,
        delay: Duration,
        most: u64,
        out: Output,
    ) -> io::Result<Self> {
        // Fresh anonymous memory is zero, and committed by the process that touches it.
        let stage = MmapMut::map_anon(STAGE)?;
        let tail = MmapMut::map_anon(to_index(tail_len(most)))?;
        let table = CompressTable::large();
        Ok(Self { header, codec, delay, out, stage, filled: 0, tail, chunks: 0, table })
    }

    /// Writes the whole image and makes it durable.
    pub(super) fn run(
        &mut self,
        source: &mut impl ChunkSource,
        report: &ChildReport,
    ) -> Result<(), WriterFailure> {
        report.chunks_total.set(source.total());
        report.direct.set(u64::from(self.out.direct));
        report.enter(WriterPhase::Writing);
        self.write(source, report).map_err(|errno| failure(WriterPhase::Writing, errno))?;
        report.direct.set(u64::from(self.out.direct));
        report.enter(WriterPhase::Syncing);
        let begun = Instant::now();
        self.out.sync().map_err(|errno| failure(WriterPhase::Syncing, errno))?;
        report.sync.lap(begun);
        report.enter(WriterPhase::Done);
        Ok(())
    }

    fn write(&mut self, source: &mut impl ChunkSource, report: &ChildReport) -> Result<(), Errno> {
        self.header.checksum = self.header.expected_checksum().into();
        let room = self.stage.get_mut(..to_index(HEADER_LEN)).ok_or(IMPOSSIBLE)?;
        fill(room, self.header.as_bytes());
        self.filled = to_index(HEADER_LEN);
        while let Some(at) = source.next() {
            self.frame(at, source, report)?;
            if self.filled >= WINDOW {
                let begun = Instant::now();
                self.flush()?;
                report.write.lap(begun);
            }
            report.image_bytes.set(self.end());
            report.done_below.set(u64::from(at.0).saturating_add(1));
            report.chunks_done.add(1);
            if !self.delay.is_zero() {
                std::thread::sleep(self.delay);
            }
        }
        let begun = Instant::now();
        self.flush()?;
        self.finish()?;
        report.write.lap(begun);
        report.image_bytes.set(self.out.at);
        Ok(())
    }

    /// Where the next frame begins in the file.
    const fn end(&self) -> u64 {
        self.out.at.saturating_add(self.filled as u64)
    }

    /// Puts a chunk into the stage, and its entry into the index.
    fn frame(
        &mut self,
        chunk: ChunkIndex,
        source: &mut impl ChunkSource,
        report: &ChildReport,
    ) -> Result<(), Errno> {
        let offset = self.end();
        let room = self.stage.get_mut(self.filled..).ok_or(IMPOSSIBLE)?;
        let (codec, packed, stored) = match self.codec {
            ChunkCodec::Lz4 => {
                let (bytes, form) = source.view(chunk, report)?;
                let packed = PackedChunk { form, len: bytes.len() };
                let begun = Instant::now();
                let stored = compress(bytes, room, &mut self.table);
                let begun = report.compress.lap(begun);
                match stored {
                    Some(stored) => {
                        report.lz4_chunks.add(1);
                        (CODEC_LZ4, packed, stored)
                    }
                    None => {
                        fill(room.get_mut(..packed.len).ok_or(IMPOSSIBLE)?, bytes);
                        report.read.lap(begun);
                        (CODEC_NONE, packed, packed.len)
                    }
                }
            }
            ChunkCodec::None => {
                let room = room.get_mut(..CHUNK).ok_or(IMPOSSIBLE)?;
                let packed = source.copy(chunk, room, report)?;
                (CODEC_NONE, packed, packed.len)
            }
        };
        report.raw_bytes.add(packed.len as u64);
        let begun = Instant::now();
        let checksum = xxh3_64(room.get(..stored).ok_or(IMPOSSIBLE)?);
        report.checksum.lap(begun);
        let padded = stored.next_multiple_of(BLOCK);
        room.get_mut(stored..padded).ok_or(IMPOSSIBLE)?.fill(0);
        self.filled = self.filled.saturating_add(padded);
        let entry = IndexEntry {
            chunk: chunk.0.into(),
            stored: u32::try_from(stored).map_err(|_| IMPOSSIBLE)?.into(),
            offset: offset.into(),
            checksum: checksum.into(),
            codec,
            form: packed.form as u8,
            reserved: [0; 2],
            len: u32::try_from(packed.len).map_err(|_| IMPOSSIBLE)?.into(),
        };
        let at = to_index(self.chunks.saturating_mul(ENTRY_LEN));
        let place = at..at.saturating_add(to_index(ENTRY_LEN));
        fill(self.tail.get_mut(place).ok_or(IMPOSSIBLE)?, entry.as_bytes());
        self.chunks = self.chunks.saturating_add(1);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        self.out.write(self.stage.get(..self.filled).ok_or(IMPOSSIBLE)?)?;
        self.filled = 0;
        Ok(())
    }

    /// Writes the index and the footer.
    fn finish(&mut self) -> Result<(), Errno> {
        let len = tail_len(self.chunks);
        let index_at = self.out.at;
        let tail = self.tail.get_mut(..to_index(len)).ok_or(IMPOSSIBLE)?;
        let split = tail.len().saturating_sub(to_index(FOOTER_LEN));
        let (index, room) = tail.split_at_mut_checked(split).ok_or(IMPOSSIBLE)?;
        let mut footer = Footer {
            magic: FOOTER_MAGIC,
            length: index_at.saturating_add(len).into(),
            index_at: index_at.into(),
            chunks: self.chunks.into(),
            index_checksum: xxh3_64(index).into(),
            header_checksum: self.header.checksum,
            reserved: 0.into(),
            checksum: 0.into(),
        };
        footer.checksum = footer.expected_checksum().into();
        fill(room, footer.as_bytes());
        self.out.write(tail)
    }
}

impl Output {
    /// Writes all of the bytes; their length is a multiple of 4096.
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        let start = self.at;
        while !bytes.is_empty() {
            match self.storage.write_at(&self.file, bytes, self.at) {
                Ok(count) => {
                    // What a short write leaves must still be aligned.
                    let whole = if self.direct { count / BLOCK * BLOCK } else { count };
                    if whole == 0 && !self.direct {
                        return Err(Errno::EIO);
                    }
                    if whole == 0 {
                        self.leave_direct();
                    }
                    bytes = bytes.get(whole..).ok_or(IMPOSSIBLE)?;
                    self.at = self.at.saturating_add(whole as u64);
                }
                Err(error) => match errno(&error) {
                    Errno::EINTR => {}
                    Errno::EINVAL if self.direct => self.leave_direct(),
                    errno => return Err(errno),
                },
            }
        }
        if !self.direct {
            let len = self.at.saturating_sub(start);
            storage::start_writeback(&self.file, start, len);
            storage::finish_writeback(&self.file, self.behind.0, self.behind.1);
            self.behind = (start, len);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Errno> {
        loop {
            match self.storage.sync(&self.file) {
                Ok(()) => return Ok(()),
                Err(error) if errno(&error) == Errno::EINTR => {}
                Err(error) => return Err(errno(&error)),
            }
        }
    }

    fn leave_direct(&mut self) {
        storage::leave_direct(&self.file);
        self.direct = false;
    }
}

/// Compresses a packed chunk; `None` if that saves no block.
fn compress(bytes: &[u8], room: &mut [u8], table: &mut CompressTable) -> Option<usize> {
    let stored = compress_into_with_table(bytes, room, table).ok()?;
    (aligned(stored as u64) < aligned(bytes.len() as u64)).then_some(stored)
}

/// `copy_from_slice` without its panic: the lengths agree wherever it is called.
pub(super) fn fill(to: &mut [u8], from: &[u8]) {
    if to.len() == from.len() {
        to.copy_from_slice(from);
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}

const fn failure(phase: WriterPhase, errno: Errno) -> WriterFailure {
    WriterFailure { phase, errno: errno as i32 }
}

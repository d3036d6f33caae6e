//! Reading the outside of an image: header, footer and index, all of them untrusted.
//!
//! Memory is taken only for what fits both the file's length and the arena, never for a number
//! that the file declares.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::Xxh3Default;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::format::{
    ALIGN, CODEC_LZ4, CODEC_NONE, ENTRY_LEN, FOOTER_LEN, FOOTER_MAGIC, FileHeader, Footer,
    HEADER_LEN, IndexEntry, MAGIC, MIN_LENGTH, VERSION, VERSION_WHOLE, aligned, page_kind_from,
    tail_len,
};
use super::packing::Form;
use super::{ImageRegion, RestoreError};
use crate::layout::index as to_index;
use crate::{CHUNK_SIZE, ChunkIndex, PageKind};

/// Bytes of the index that are read at once; a multiple of an entry.
const PIECE: usize = 64 << 10;
/// Bytes of a whole chunk, in an index entry.
const WHOLE: U32 = U32::new(2 << 20);

const _: () = assert!(WHOLE.get() as u64 == CHUNK_SIZE);

/// What an image says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageInfo {
    /// Version of the format.
    pub version: u32,
    /// Hash of the arena's layout.
    pub layout: u64,
    /// Name and version of the program that wrote it.
    pub writer: String,
    /// When it was written, in milliseconds since 1970.
    pub created_ms: u64,
    /// The page kind of the arena.
    pub page_kind: PageKind,
    /// Bytes of that arena.
    pub capacity: u64,
    /// Chunks in the image.
    pub chunks: u64,
    /// Those of them that are compressed.
    pub lz4_chunks: u64,
    /// Bytes of the file.
    pub image_bytes: u64,
    /// Bytes of the smallest arena that it fits into.
    pub needed_capacity: u64,
}

/// Reads what an image says about itself, and checks all of it but the chunks.
///
/// # Errors
/// There is no image, it cannot be read, or it is damaged.
pub fn inspect(path: &Path) -> Result<ImageInfo, RestoreError> {
    let image = Image::open(path)?;
    let mut info = image.info();
    image.entries(|_, entry| {
        info.lz4_chunks += u64::from(entry.codec == CODEC_LZ4);
        let needed = (u64::from(entry.chunk.get()) + 1) * CHUNK_SIZE;
        info.needed_capacity = info.needed_capacity.max(needed);
    })?;
    Ok(info)
}

/// An image with a valid header and footer.
pub(super) struct Image<'p> {
    pub path: &'p Path,
    pub file: File,
    header: FileHeader,
    footer: Footer,
    page_kind: PageKind,
}

impl<'p> Image<'p> {
    pub(super) fn open(path: &'p Path) -> Result<Self, RestoreError> {
        let unreadable = |place, source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => RestoreError::NotFound { path: path.to_owned() },
            _ => RestoreError::Read { path: path.to_owned(), place, source },
        };
        let file = File::open(path).map_err(|e| unreadable(ImageRegion::File, e))?;
        let metadata = file.metadata().map_err(|e| unreadable(ImageRegion::File, e))?;
        if !metadata.is_file() {
            let source = io::Error::other("not a regular file");
            return Err(RestoreError::Read {
                path: path.to_owned(),
                place: ImageRegion::File,
                source,
            });
        }
        let length = metadata.len();
        if length < MIN_LENGTH {
            let reason = format!(
                "{length} bytes, and the shortest image has {MIN_LENGTH}: it was cut off, or it is \
                 no image"
            );
            return Err(damaged(path, ImageRegion::File, reason));
        }
        let mut header = FileHeader::new_zeroed();
        file.read_exact_at(header.as_mut_bytes(), 0)
            .map_err(|e| unreadable(ImageRegion::Header, e))?;
        let page_kind = check_header(path, &header)?;
        let mut footer = Footer::new_zeroed();
        file.read_exact_at(footer.as_mut_bytes(), length - FOOTER_LEN)
            .map_err(|e| unreadable(ImageRegion::Footer, e))?;
        check_footer(&header, &footer, length)
            .map_err(|reason| damaged(path, ImageRegion::Footer, reason))?;
        Ok(Self { path, file, header, footer, page_kind })
    }

    /// Frames in the image.
    pub(super) const fn chunks(&self) -> u64 {
        self.footer.chunks.get()
    }

    /// Where the frames end.
    pub(super) const fn index_at(&self) -> u64 {
        self.footer.index_at.get()
    }

    /// What header and footer say.
    pub(super) fn info(&self) -> ImageInfo {
        ImageInfo {
            version: self.header.version.get(),
            layout: self.header.layout.get(),
            writer: writer(&self.header),
            created_ms: self.header.created_ms.get(),
            page_kind: self.page_kind,
            capacity: self.header.capacity.get(),
            chunks: self.chunks(),
            lz4_chunks: 0,
            image_bytes: self.footer.length.get(),
            needed_capacity: 0,
        }
    }

    /// An error about this image.
    pub(super) fn damaged(&self, place: ImageRegion, reason: String) -> RestoreError {
        damaged(self.path, place, reason)
    }

    /// Passes each index entry, checked, to `visit`, in the order of the file. All of it holds only
    /// if this returns without error.
    pub(super) fn entries(
        &self,
        mut visit: impl FnMut(u64, &IndexEntry),
    ) -> Result<(), RestoreError> {
        let end = self.footer.length.get() - FOOTER_LEN;
        let mut at = self.index_at();
        let mut hasher = Xxh3Default::new();
        let mut buffer = vec![0; PIECE];
        let mut frames = Frames { count: 0, next: HEADER_LEN };
        let mut wrong = None;
        while at < end {
            let piece = buffer.len().min(to_index(end - at));
            let bytes = &mut buffer[..piece];
            self.file.read_exact_at(bytes, at).map_err(|source| RestoreError::Read {
                path: self.path.to_owned(),
                place: ImageRegion::Index,
                source,
            })?;
            hasher.update(bytes);
            for bytes in bytes.chunks_exact(to_index(ENTRY_LEN)) {
                let checked = self.check_entry(&mut frames, bytes);
                match checked {
                    Ok(Some((number, entry))) if wrong.is_none() => visit(number, &entry),
                    Err(error) => wrong = wrong.or(Some(error)),
                    Ok(_) => {}
                }
            }
            at += piece as u64;
        }
        // If the checksum is wrong too, then that is the reason for the rest.
        if hasher.digest() != self.footer.index_checksum.get() {
            return Err(self.damaged(ImageRegion::Index, "its checksum is wrong".into()));
        }
        if wrong.is_none() && frames.next != self.index_at() {
            let reason = format!("frames end at {}, the index begins elsewhere", frames.next);
            return Err(self.damaged(ImageRegion::Index, reason));
        }
        wrong.map_or(Ok(()), Err)
    }

    /// Checks an entry, or the zeros after the last one.
    fn check_entry(
        &self,
        frames: &mut Frames,
        bytes: &[u8],
    ) -> Result<Option<(u64, IndexEntry)>, RestoreError> {
        let number = frames.count;
        frames.count += 1;
        if number >= self.chunks() {
            if bytes.iter().any(|byte| *byte != 0) {
                return Err(self.damaged(ImageRegion::Index, "bytes after its last entry".into()));
            }
            return Ok(None);
        }
        let mut entry = IndexEntry::read_from_bytes(bytes)
            .map_err(|_| self.damaged(ImageRegion::Index, "an entry is cut off".into()))?;
        let place = ImageRegion::Chunk(ChunkIndex(entry.chunk.get()));
        let broken = |reason| Err(self.damaged(place, reason));
        let stored = u64::from(entry.stored.get());
        if self.header.version.get() == VERSION_WHOLE && entry.form == 0 && entry.len.get() == 0 {
            entry.len = WHOLE;
        }
        let len = u64::from(entry.len.get());
        let Some(form) = Form::from_byte(entry.form) else {
            let form = entry.form;
            return broken(format!("unknown form {form} in index entry {number}"));
        };
        let fits = match form {
            Form::Whole => len == CHUNK_SIZE,
            Form::Units | Form::Blocks => len > 0 && len < CHUNK_SIZE,
        };
        if !fits || form != Form::Whole && self.header.version.get() == VERSION_WHOLE {
            return broken(format!("{len} bytes in the form {form:?}"));
        }
        let sound = match entry.codec {
            CODEC_NONE => stored == len,
            CODEC_LZ4 => stored > 0 && aligned(stored) < aligned(len),
            codec => return broken(format!("unknown codec {codec} in index entry {number}")),
        };
        if !sound {
            let codec = entry.codec;
            return broken(format!("{stored} stored bytes with codec {codec}"));
        }
        if entry.offset.get() != frames.next {
            let (at, expected) = (entry.offset.get(), frames.next);
            return broken(format!("its frame is at {at}, the one before it ends at {expected}"));
        }
        frames.next += aligned(stored);
        if frames.next > self.index_at() {
            return broken(format!("its frame ends at {}, inside the index", frames.next));
        }
        if entry.reserved != [0; 2] {
            return broken("reserved bytes of its index entry are not zero".into());
        }
        Ok(Some((number, entry)))
    }
}

/// How far the check of the frames is.
struct Frames {
    count: u64,
    next: u64,
}

fn damaged(path: &Path, place: ImageRegion, reason: String) -> RestoreError {
    RestoreError::Damaged { path: path.to_owned(), place, reason }
}

/// The writer's name, fit to be shown.
fn writer(header: &FileHeader) -> String {
    let text = String::from_utf8_lossy(&header.writer);
    text.trim_end_matches('\0').chars().filter(|c| !c.is_control()).collect()
}

fn check_header(path: &Path, header: &FileHeader) -> Result<PageKind, RestoreError> {
    let broken = |reason| Err(damaged(path, ImageRegion::Header, reason));
    if header.magic != MAGIC {
        return broken("it does not begin as an image does".into());
    }
    if header.checksum.get() != header.expected_checksum() {
        return broken("its checksum is wrong".into());
    }
    if ![VERSION, VERSION_WHOLE].contains(&header.version.get()) {
        return Err(RestoreError::Version {
            path: path.to_owned(),
            writer: writer(header),
            what: "format version",
            found: header.version.get().into(),
            expected: VERSION.into(),
        });
    }
    if header.flags.get() != 0 {
        return broken(format!("unknown flags {:#x}", header.flags.get()));
    }
    if header.chunk_size.get() != CHUNK_SIZE {
        return broken(format!("chunks of {} bytes", header.chunk_size.get()));
    }
    if header.reserved != [0; 7] || header.reserved_end != [0; 4000] {
        return broken("reserved bytes are not zero".into());
    }
    match page_kind_from(header.page_kind) {
        Some(kind) => Ok(kind),
        None => broken(format!("unknown page kind {}", header.page_kind)),
    }
}

fn check_footer(header: &FileHeader, footer: &Footer, length: u64) -> Result<(), String> {
    if footer.magic != FOOTER_MAGIC {
        return Err(format!(
            "there is none at the end of {length} bytes: the file was cut off, or something was \
             appended to it"
        ));
    }
    if footer.checksum.get() != footer.expected_checksum() {
        return Err("its checksum is wrong".into());
    }
    if footer.length.get() != length {
        let declared = footer.length.get();
        return Err(format!("it says {declared} bytes, the file has {length}"));
    }
    if footer.header_checksum != header.checksum {
        return Err("it belongs to another header".into());
    }
    if footer.reserved.get() != 0 {
        return Err("reserved bytes are not zero".into());
    }
    let (chunks, index_at) = (footer.chunks.get(), footer.index_at.get());
    // Each frame takes a block at least.
    let frames = index_at.checked_sub(HEADER_LEN).map(|bytes| bytes / ALIGN);
    let sound = index_at.is_multiple_of(ALIGN)
        && frames.is_some_and(|blocks| chunks <= blocks)
        && index_at.checked_add(tail_len(chunks)) == Some(length);
    if !sound {
        return Err(format!("{chunks} chunks with an index at {index_at} in {length} bytes"));
    }
    Ok(())
}

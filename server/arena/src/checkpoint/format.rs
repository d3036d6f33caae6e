//! The image file, byte by byte; docs/image-format.md draws it for readers of other programs.
//!
//! ```text
//! 0        4096                                        index_at               length-64  length
//! +--------+---------+------+---------+------+--------+----------------+------+----------+
//! | header | frame 0 | zero | frame 1 | zero |  ...   | index entries  | zero |  footer  |
//! +--------+---------+------+---------+------+--------+----------------+------+----------+
//!          ^ each frame begins at a multiple of 4096  ^                       ^ ends at one
//! ```
//!
//! 1. Every byte is covered: the header, the index (with the zeros after it) and the footer by a
//!    checksum each, a frame by the checksum in its index entry, the zeros after a frame by being
//!    zero.
//! 2. Frames follow each other without gaps but for those zeros, in the order of the index. A chunk
//!    has one frame at most.
//! 3. All integers are little-endian; all structs are free of padding and need no alignment.

use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::PageKind;

/// First bytes of an image.
pub(super) const MAGIC: [u8; 8] = *b"COWIMAGE";
/// First bytes of the footer.
pub(super) const FOOTER_MAGIC: [u8; 8] = *b"COWFOOT\n";
/// Changes whenever bytes of the file, outside the chunks, get another meaning.
pub(super) const VERSION: u32 = 2;
/// The version whose frames are whole chunks, whatever is free in them. It is read, too.
pub(super) const VERSION_WHOLE: u32 = 1;
/// What frames, the index and the length of the file are multiples of: the block of direct I/O.
pub(super) const ALIGN: u64 = 4096;
/// Bytes of the header.
pub(super) const HEADER_LEN: u64 = size_of::<FileHeader>() as u64;
/// Bytes of an index entry.
pub(super) const ENTRY_LEN: u64 = size_of::<IndexEntry>() as u64;
/// Bytes of the footer.
pub(super) const FOOTER_LEN: u64 = size_of::<Footer>() as u64;
/// The shortest file that can be an image: a header, and one block of index and footer.
pub(super) const MIN_LENGTH: u64 = HEADER_LEN + ALIGN;

/// Stored as it is.
pub(super) const CODEC_NONE: u8 = 0;
/// One LZ4 block.
pub(super) const CODEC_LZ4: u8 = 1;

const _: () = assert!(size_of::<FileHeader>() == 4096 && align_of::<FileHeader>() == 1);
const _: () = assert!(std::mem::offset_of!(FileHeader, checksum) == 4088);
const _: () = assert!(size_of::<IndexEntry>() == 32 && align_of::<IndexEntry>() == 1);
const _: () = assert!(size_of::<Footer>() == 64 && align_of::<Footer>() == 1);
const _: () = assert!(std::mem::offset_of!(Footer, checksum) == 56);
const _: () = assert!(ALIGN.is_multiple_of(ENTRY_LEN) && HEADER_LEN.is_multiple_of(ALIGN));

/// The first 4096 bytes of an image.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub(super) struct FileHeader {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: U32,
    /// Zero.
    pub flags: U32,
    /// The arena's layout hash.
    pub layout: U64,
    /// Bytes in a chunk.
    pub chunk_size: U64,
    /// Capacity of the arena at the checkpoint.
    pub capacity: U64,
    /// Time of the checkpoint, in milliseconds since 1970.
    pub created_ms: U64,
    /// The page kind of the arena at the checkpoint; see [`page_kind_byte`].
    pub page_kind: u8,
    /// Zero.
    pub reserved: [u8; 7],
    /// Name and version of the program that wrote it, followed by zeros.
    pub writer: [u8; 32],
    /// Zero.
    pub reserved_end: [u8; 4000],
    /// xxh3-64 of the bytes before it.
    pub checksum: U64,
}

/// What stands in the index for one frame.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub(super) struct IndexEntry {
    /// Number of the chunk.
    pub chunk: U32,
    /// Bytes of the frame, the zeros after it not included.
    pub stored: U32,
    /// Where the frame begins in the file.
    pub offset: U64,
    /// xxh3-64 of the frame.
    pub checksum: U64,
    /// [`CODEC_NONE`] or [`CODEC_LZ4`].
    pub codec: u8,
    /// A [`Form`](super::packing::Form).
    pub form: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// Bytes of the frame when it is decoded.
    pub len: U32,
}

/// The last 64 bytes of an image.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub(super) struct Footer {
    /// [`FOOTER_MAGIC`].
    pub magic: [u8; 8],
    /// Bytes of the whole file.
    pub length: U64,
    /// Where the index begins.
    pub index_at: U64,
    /// Entries of the index.
    pub chunks: U64,
    /// xxh3-64 of everything from the index to the footer.
    pub index_checksum: U64,
    /// The checksum in the header: header and footer are of one file.
    pub header_checksum: U64,
    /// Zero.
    pub reserved: U64,
    /// xxh3-64 of the bytes before it.
    pub checksum: U64,
}

impl FileHeader {
    /// The checksum that the other bytes ask for.
    pub(super) fn expected_checksum(&self) -> u64 {
        let bytes = self.as_bytes();
        xxh3_64(bytes.split_last_chunk::<8>().map_or(bytes, |(front, _)| front))
    }
}

impl Footer {
    /// The checksum that the other bytes ask for.
    pub(super) fn expected_checksum(&self) -> u64 {
        let bytes = self.as_bytes();
        xxh3_64(bytes.split_last_chunk::<8>().map_or(bytes, |(front, _)| front))
    }
}

/// The next multiple of [`ALIGN`]; the largest one if there is none.
pub(super) const fn aligned(len: u64) -> u64 {
    match len.checked_next_multiple_of(ALIGN) {
        Some(len) => len,
        None => u64::MAX / ALIGN * ALIGN,
    }
}

/// Bytes from the index to the end of the file.
pub(super) const fn tail_len(chunks: u64) -> u64 {
    aligned(chunks.saturating_mul(ENTRY_LEN).saturating_add(FOOTER_LEN))
}

/// The number of a page kind in the header.
pub(super) const fn page_kind_byte(kind: PageKind) -> u8 {
    match kind {
        PageKind::Small => 0,
        PageKind::Thp => 1,
        PageKind::Huge2Mb => 2,
        PageKind::Huge1Gb => 3,
    }
}

/// The page kind with this number.
pub(super) const fn page_kind_from(byte: u8) -> Option<PageKind> {
    Some(match byte {
        0 => PageKind::Small,
        1 => PageKind::Thp,
        2 => PageKind::Huge2Mb,
        3 => PageKind::Huge1Gb,
        _ => return None,
    })
}

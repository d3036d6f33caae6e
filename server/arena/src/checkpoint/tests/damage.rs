//! An image is untrusted: whatever its bytes are, a restore ends in an arena or in one clear error.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::super::format::{CODEC_NONE, FOOTER_LEN, FileHeader, Footer, IndexEntry};
use super::*;
use zerocopy::{FromBytes, IntoBytes};

/// An image, as bytes and as a file that tests change.
struct Image {
    _dir: TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Image {
    /// An image with frames of every form, compressed and plain.
    fn new() -> Self {
        let arena = empty(PageKind::Small, 16);
        let shard = ShardIndex::of_hash(5);
        let mut random = Random(7);
        let small = std::iter::repeat_n((1000, Content::Text), 100);
        let large = [(20_000, Content::Text), (3 << 20, Content::Noise), (3 << 20, Content::Text)];
        for (i, (len, content)) in small.chain(large).enumerate() {
            let mut held = arena.lock(ShardSet::one(shard));
            let mut mem = held.mem(shard);
            let at = mem.allocate(len).unwrap();
            random.fill(mem.bytes_mut(at, len), content);
            // Slabs with a few, with most, and with all of their objects.
            if [3, 7, 17].contains(&i) || (20..34).contains(&i) {
                mem.release(at, len);
            }
        }
        let dir = TempDir::new().unwrap();
        let at = target(&dir);
        checkpoint_here(PreparedCheckpoint::new(&at, &OPTIONS, &arena).unwrap(), &arena).unwrap();
        let bytes = fs::read(at.path()).unwrap();
        Self { _dir: dir, path: at.path(), bytes }
    }

    fn footer(&self) -> Footer {
        Footer::read_from_bytes(&self.bytes[self.bytes.len() - FOOTER_LEN as usize..]).unwrap()
    }

    fn entries(&self) -> Vec<IndexEntry> {
        let at = self.footer().index_at.get() as usize;
        let count = self.footer().chunks.get() as usize;
        let bytes = &self.bytes[at..at + count * size_of::<IndexEntry>()];
        bytes
            .chunks(size_of::<IndexEntry>())
            .map(|entry| IndexEntry::read_from_bytes(entry).unwrap())
            .collect()
    }

    fn restore(&self) -> Result<(Arena, RestoreStats), RestoreError> {
        restore(&self.path, PageKind::Small, 16 << 20, LAYOUT, 2)
    }

    /// The error of a restore of other bytes.
    fn error_of(&self, bytes: &[u8]) -> String {
        fs::write(&self.path, bytes).unwrap();
        let error = self.restore().err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(fs::read(&self.path).unwrap(), bytes, "the file is left as it is");
        error
    }

    /// The error of a restore with one byte changed in place.
    fn error_of_flip(&self, at: usize) -> String {
        let file = OpenOptions::new().write(true).open(&self.path).unwrap();
        file.write_all_at(&[self.bytes[at] ^ 0x40], at as u64).unwrap();
        let error = self.restore().err().map(|e| e.to_string()).unwrap_or_default();
        file.write_all_at(&self.bytes[at..=at], at as u64).unwrap();
        error
    }

    /// Changes header, entries and footer, and makes every checksum right again.
    fn resealed(
        &self,
        change: impl FnOnce(&mut FileHeader, &mut Vec<IndexEntry>, &mut Footer),
    ) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let mut header = FileHeader::read_from_bytes(&bytes[..4096]).unwrap();
        let (mut entries, mut footer) = (self.entries(), self.footer());
        let index_at = footer.index_at.get() as usize;
        change(&mut header, &mut entries, &mut footer);
        header.checksum = header.expected_checksum().into();
        bytes[..4096].copy_from_slice(header.as_bytes());
        let end = bytes.len() - FOOTER_LEN as usize;
        let index = entries.as_bytes();
        bytes[index_at..index_at + index.len()].copy_from_slice(index);
        footer.index_checksum = xxh3_64(&bytes[index_at..end]).into();
        footer.header_checksum = header.checksum;
        footer.checksum = footer.expected_checksum().into();
        bytes[end..].copy_from_slice(footer.as_bytes());
        bytes
    }

    /// Where each frame begins and ends, with the zeros after it.
    fn frames(&self) -> Vec<(usize, usize)> {
        let entries = self.entries();
        let starts: Vec<usize> = entries.iter().map(|e| e.offset.get() as usize).collect();
        let mut ends: Vec<usize> = starts[1..].to_vec();
        ends.push(self.footer().index_at.get() as usize);
        starts.into_iter().zip(ends).collect()
    }
}

#[test]
fn the_image_of_these_tests_has_every_form_and_codec_and_is_sound() {
    let image = Image::new();
    let entries = image.entries();
    let found: Vec<(u8, u8)> = entries.iter().map(|entry| (entry.codec, entry.form)).collect();
    // Tables; units; a run of noise; a run of text.
    assert_eq!(found, [(0, 2), (1, 1), (0, 0), (0, 2), (1, 0), (1, 2)]);
    let resealed = image.resealed(|_, _, _| {});
    assert_eq!(resealed, image.bytes, "sealing anew changes nothing");
    image.restore().unwrap();
}

#[test]
fn a_flip_of_any_byte_outside_the_frames_is_found() {
    let image = Image::new();
    let index_at = image.footer().index_at.get() as usize;
    for at in (0..4096).chain(index_at..image.bytes.len()) {
        let error = image.error_of_flip(at);
        let place = if at < 4096 {
            "header: "
        } else if at < image.bytes.len() - FOOTER_LEN as usize {
            "index: its checksum is wrong"
        } else {
            "footer: "
        };
        assert!(error.contains(place), "byte {at}: {error}");
        assert!(error.contains("is damaged"), "byte {at}: {error}");
    }
    image.restore().unwrap();
}

#[test]
fn flips_in_frames_and_in_the_zeros_after_them_name_the_chunk() {
    let image = Image::new();
    for (entry, (start, end)) in image.entries().into_iter().zip(image.frames()) {
        let stored = start + entry.stored.get() as usize;
        let frame = [start, start + 1, start + (stored - start) / 2, stored - 1];
        let zeros = (stored..end).step_by(113).chain((stored..end).last());
        for at in frame.into_iter().chain(zeros) {
            let error = image.error_of_flip(at);
            let reason = if at < stored { "the checksum of its frame" } else { "are not zero" };
            let chunk = format!("chunk {}: ", entry.chunk.get());
            assert!(error.contains(&chunk) && error.contains(reason), "byte {at}: {error}");
        }
    }
    image.restore().unwrap();
}

#[test]
fn a_cut_at_any_length_is_found() {
    let image = Image::new();
    let whole = image.bytes.len();
    let mut borders = vec![0, 4096, 8192, whole - 4096, whole - 64, whole];
    borders.extend(image.frames().into_iter().flat_map(|(start, end)| [start, end]));
    let near = |border: usize| border.saturating_sub(70)..(border + 70).min(whole);
    let file = OpenOptions::new().write(true).open(&image.path).unwrap();
    let mut lengths: Vec<usize> = borders.into_iter().flat_map(near).collect();
    lengths.extend((0..whole).step_by(30_011));
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    for length in lengths {
        file.set_len(length as u64).unwrap();
        let error = image.restore().err().unwrap().to_string();
        assert!(error.contains("cut off"), "cut to {length}: {error}");
    }
}

#[test]
fn bytes_after_the_end_are_found() {
    let image = Image::new();
    let footer = &image.bytes[image.bytes.len() - 64..];
    for garbage in [&[0][..], &[0; 64], &[0; 4096], footer, &image.bytes[..4096]] {
        let longer = [&image.bytes[..], garbage].concat();
        let error = image.error_of(&longer);
        assert!(error.contains("footer: "), "{error}");
    }
    let doubled = [&image.bytes[..], &image.bytes[..]].concat();
    assert!(image.error_of(&doubled).contains("it says"));
}

#[test]
fn header_and_footer_of_two_images_do_not_mix() {
    let image = Image::new();
    let mut other = image.resealed(|header, _, _| header.created_ms = 1.into());
    let end = other.len() - 64;
    other[end..].copy_from_slice(&image.bytes[end..]);
    assert!(image.error_of(&other).contains("belongs to another header"));
}

/// Numbers that no writer writes, under checksums that are right.
#[test]
fn every_number_is_bounded() {
    type Change = fn(&mut FileHeader, &mut Vec<IndexEntry>, &mut Footer);
    let image = Image::new();
    let cases: [(&str, Change); 26] = [
        ("format version 0x3", |h, _, _| h.version = 3.into()),
        ("memory layout 0x1,", |h, _, _| h.layout = 1.into()),
        ("unknown flags 0x1", |h, _, _| h.flags = 1.into()),
        ("chunks of 4096 bytes", |h, _, _| h.chunk_size = 4096.into()),
        ("unknown page kind 9", |h, _, _| h.page_kind = 9),
        ("reserved bytes are not zero", |h, _, _| h.reserved[3] = 1),
        ("reserved bytes are not zero", |h, _, _| h.reserved_end[3999] = 1),
        ("reserved bytes are not zero", |_, _, f| f.reserved = 1.into()),
        ("18446744073709551615 chunks", |_, _, f| f.chunks = u64::MAX.into()),
        ("bytes after its last entry", |_, _, f| f.chunks = 1.into()),
        ("0 chunks with an index", |_, _, f| {
            f.chunks = 0.into();
            f.index_at = 0.into();
        }),
        ("an index at 18446744073709547520", |_, _, f| f.index_at = (u64::MAX - 4095).into()),
        ("maxmemory to at least 8589934592mb", |_, e, _| e[1].chunk = u32::MAX.into()),
        ("chunk 0: it is there twice", |_, e, _| e[1].chunk = 0.into()),
        ("unknown codec 2 in index entry 0", |_, e, _| e[0].codec = 2),
        ("0 stored bytes", |_, e, _| e[0].stored = 0.into()),
        ("4294967295 stored bytes", |_, e, _| e[0].stored = u32::MAX.into()),
        ("its frame is at 8192", |_, e, _| e[0].offset = 8192.into()),
        ("index entry are not zero", |_, e, _| e[1].reserved[1] = 1),
        ("unknown form 3 in index entry 1", |_, e, _| e[1].form = 3),
        ("0 bytes in the form Units", |_, e, _| e[1].len = 0.into()),
        ("2097152 bytes in the form Units", |_, e, _| e[1].len = (2 << 20).into()),
        ("4294967295 bytes in the form Blocks", |_, e, _| e[0].len = u32::MAX.into()),
        ("bytes in the form Whole", |_, e, _| e[1].form = 0),
        ("2097151 bytes in the form Whole", |_, e, _| e[2].len = ((2 << 20) - 1).into()),
        ("1536 bytes in the form Blocks", |h, _, _| h.version = 1.into()),
    ];
    for (reason, change) in cases {
        let error = image.error_of(&image.resealed(change));
        assert!(error.contains(reason), "{reason}: {error}");
    }
    let smaller = image.resealed(|_, e, _| e[1].stored = 100.into());
    assert!(image.error_of(&smaller).contains("the one before it ends at 12288"));
    let lost = image.error_of(&image.resealed(|_, e, _| e[2].chunk = 6.into()));
    assert!(lost.contains("chunk 2: the chunk table says it is in use but was not"), "{lost}");
}

#[test]
fn an_image_that_is_not_there_can_be_told_from_a_bad_one() {
    let dir = TempDir::new().unwrap();
    let missing = inspect(&dir.path().join("dump.cow")).unwrap_err();
    assert!(matches!(missing, RestoreError::NotFound { .. }), "{missing}");
    let folder = inspect(dir.path()).unwrap_err();
    assert!(matches!(folder, RestoreError::Read { .. }), "{folder}");
    assert!(folder.to_string().contains("not a regular file"), "{folder}");
}

/// A declared size must not be believed: a sparse file of 8 TiB with an index to match.
#[test]
fn a_huge_sparse_file_takes_no_memory() {
    let image = Image::new();
    let length: u64 = 8 << 40;
    let chunks: u64 = 1 << 30;
    let tail = super::super::format::tail_len(chunks);
    let header = FileHeader::read_from_bytes(&image.bytes[..4096]).unwrap();
    let mut footer = image.footer();
    footer.length = length.into();
    footer.chunks = chunks.into();
    footer.index_at = (length - tail).into();
    footer.header_checksum = header.checksum;
    footer.checksum = footer.expected_checksum().into();
    let file = OpenOptions::new().write(true).open(&image.path).unwrap();
    file.set_len(length).unwrap();
    file.write_all_at(footer.as_bytes(), length - 64).unwrap();
    let error = image.restore().err().unwrap();
    assert!(matches!(error, RestoreError::TooSmall { .. }), "{error}");
}

static SOUND: std::sync::LazyLock<Image> = std::sync::LazyLock::new(Image::new);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn noise_is_no_image(bytes in prop::collection::vec(any::<u8>(), 0..20_000)) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("dump.cow");
        fs::write(&path, bytes).unwrap();
        prop_assert!(restore(&path, PageKind::Small, 8 << 20, LAYOUT, 1).is_err());
        prop_assert!(inspect(&path).is_err());
    }

    /// The checksums are right, so the noise reaches the checks behind them.
    #[test]
    fn noise_under_right_checksums_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        stored in prop::option::of(1u32..3_000_000),
    ) {
        let image = &*SOUND;
        let entries = image.entries();
        let packed = entries.iter().position(|e| e.codec != CODEC_NONE).unwrap();
        let start = entries[packed].offset.get() as usize;
        let len = entries[packed].stored.get() as usize;
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("dump.cow");
        let mut noisy = Image { _dir: dir, path, bytes: image.bytes.clone() };
        for (at, byte) in changes {
            noisy.bytes[start + at.index(len)] = byte;
        }
        let checksum = xxh3_64(&noisy.bytes[start..start + len]);
        let bytes = noisy.resealed(|_, e, _| {
            e[packed].checksum = checksum.into();
            if let Some(stored) = stored {
                e[packed].stored = stored.into();
            }
        });
        noisy.error_of(&bytes);
    }
}

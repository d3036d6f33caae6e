//! Size classes of small objects, and the number of units that a slab of each class takes.
//!
//! | sizes | step | rounding wastes at most |
//! |---|---|---|
//! | 20 to 128 bytes | 4 bytes | 3 bytes |
//! | to 256, 512, ... 4096 | a sixteenth of the lower bound | a sixteenth |
//! | to 16 KiB | those of which a slab of 8 units wastes little | a fifth |
//!
//! Few objects of a size would fill slabs of their own badly: there are 64 shards. Therefore a
//! class has a *coarse* class, of four sizes to each doubling, whose slabs take its first objects
//! in a shard (see `Mem::allocate`).
//!
//! Invariants: a slab has at most [`MAX_OBJECTS`] objects (its bitmap); class sizes are multiples
//! of 4, and objects whose class is a multiple of 64 bytes begin on a cache line, in the slabs of
//! the coarse class too.

use crate::layout::{CHUNK_SIZE, MAX_OBJECTS, UNIT_SIZE, UNITS_IN_CHUNK, index};

/// Bytes of the smallest class.
pub const MIN_OBJECT: u64 = 20;
/// Bytes of the largest class; larger objects are runs of units.
pub const MAX_SLAB_OBJECT: u64 = 16 << 10;

/// Class sizes differ by a multiple of this.
const GRAIN: u64 = 4;

/// The first size of a row of equal steps, its last, and the step.
const ROWS: [(u64, u64, u64); 13] = [
    (MIN_OBJECT, 128, 4),
    (136, 256, 8),
    (272, 512, 16),
    (544, 1024, 32),
    (1088, 2048, 64),
    (2176, 4096, 128),
    // From here on the sizes of which a slab of 8 units wastes little.
    (4352, 6400, 256),
    (6912, 7168, 256),
    (7680, 8192, 512),
    (9344, 9344, 1),
    (10880, 10880, 1),
    (13056, 13056, 1),
    (MAX_SLAB_OBJECT, MAX_SLAB_OBJECT, 1),
];

/// Number of classes.
pub const CLASSES: usize = count_classes();

const SIZES: [u32; CLASSES] = sizes();
const BY_SIZE: [u8; (MAX_SLAB_OBJECT / GRAIN) as usize + 1] = by_size();
const UNITS: [u8; CLASSES] = slab_units();
const COARSE: [u8; CLASSES] = coarse_classes();
/// For each class `2^32 / size`, rounded up: a division by the size as a multiplication.
const RECIPROCALS: [u32; CLASSES] = reciprocals();

const fn count_classes() -> usize {
    let (mut count, mut row) = (0, 0);
    while row < ROWS.len() {
        let (first, last, step) = ROWS[row];
        count += (last - first) / step + 1;
        row += 1;
    }
    index(count)
}

#[expect(clippy::cast_possible_truncation, reason = "sizes are up to 16 KiB")]
const fn sizes() -> [u32; CLASSES] {
    let mut sizes = [0; CLASSES];
    let (mut class, mut row) = (0, 0);
    while row < ROWS.len() {
        let (first, last, step) = ROWS[row];
        let mut size = first;
        while size <= last {
            sizes[class] = size as u32;
            class += 1;
            size += step;
        }
        row += 1;
    }
    sizes
}

const fn by_size() -> [u8; (MAX_SLAB_OBJECT / GRAIN) as usize + 1] {
    let mut table = [0; (MAX_SLAB_OBJECT / GRAIN) as usize + 1];
    let mut class = 0u8;
    let mut grains = 0;
    while grains < table.len() {
        if grains as u64 * GRAIN > SIZES[class as usize] as u64 {
            class += 1;
        }
        table[grains] = class;
        grains += 1;
    }
    table
}

/// The fewest units (1, 2, 4 or 8) that leave at most a sixteenth of the slab unused.
const fn slab_units() -> [u8; CLASSES] {
    let mut units = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let size = SIZES[class] as u64;
        let mut n = 1u8;
        while n < 8 {
            let bytes = n as u64 * UNIT_SIZE;
            if size <= bytes && (bytes % size) * 16 <= bytes {
                break;
            }
            n *= 2;
        }
        units[class] = n;
        class += 1;
    }
    units
}

/// The smallest of 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, ... 8192 that holds each
/// class; the largest classes themselves.
#[expect(clippy::cast_possible_truncation, reason = "there are fewer than 255 classes")]
const fn coarse_classes() -> [u8; CLASSES] {
    let mut coarse = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let size = SIZES[class] as u64;
        let step = if size <= 64 { 16 } else { size.next_power_of_two() / 8 };
        let step = if step < 16 { 16 } else { step };
        let rounded = size.next_multiple_of(step);
        coarse[class] = if size > 8192 { class as u8 } else { BY_SIZE[(rounded / GRAIN) as usize] };
        class += 1;
    }
    coarse
}

#[expect(clippy::cast_possible_truncation, reason = "a class has at least 20 bytes")]
const fn reciprocals() -> [u32; CLASSES] {
    let mut reciprocals = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        reciprocals[class] = (1u64 << 32).div_ceil(SIZES[class] as u64) as u32;
        class += 1;
    }
    reciprocals
}

const _: () = assert!(CLASSES < u8::MAX as usize);
const _: () = assert!(SIZES[0] as u64 == MIN_OBJECT);
const _: () = assert!(SIZES[CLASSES - 1] as u64 == MAX_SLAB_OBJECT);
const _: () = {
    let mut class = 0;
    while class < CLASSES {
        let bytes = UNITS[class] as u64 * UNIT_SIZE;
        let objects = bytes / SIZES[class] as u64;
        assert!(objects <= MAX_OBJECTS && objects >= 1);
        let coarse = COARSE[class] as usize;
        assert!(SIZES[coarse] >= SIZES[class] && COARSE[coarse] as usize == coarse);
        assert!(!SIZES[class].is_multiple_of(64) || SIZES[coarse].is_multiple_of(64));
        class += 1;
    }
};

/// A size class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SizeClass(u8);

impl SizeClass {
    /// The class of objects of `len` bytes; `None` if they are too large for slabs.
    pub const fn of(len: u64) -> Option<Self> {
        if len > MAX_SLAB_OBJECT {
            return None;
        }
        Some(Self(BY_SIZE[index(len.div_ceil(GRAIN))]))
    }

    /// The class with this number.
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 255 classes")]
    pub const fn from_index(index: usize) -> Option<Self> {
        if index < CLASSES { Some(Self(index as u8)) } else { None }
    }

    /// Its number.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Bytes of an object.
    pub const fn size(self) -> u64 {
        SIZES[self.0 as usize] as u64
    }

    /// The class whose slabs take the first objects of this class in a shard.
    pub(crate) const fn coarse(self) -> Self {
        Self(COARSE[self.0 as usize])
    }

    /// The smallest class that has this one as its coarse class.
    pub(crate) fn smallest_held(self) -> Self {
        let held = COARSE.iter().position(|coarse| *coarse == self.0);
        held.and_then(Self::from_index).unwrap_or(self)
    }

    /// Whether slabs of class `slab` may hold objects of this class: the class itself, its coarse
    /// class, and those to which compaction may move them.
    pub(crate) const fn fits_slab_of(self, slab: Self) -> bool {
        slab.0 == self.0
            || slab.0 == COARSE[self.0 as usize]
            || slab.0 > self.0 && is_near_enough(self, slab)
    }

    /// The number of the object in which the byte `within` a slab lies.
    #[inline]
    pub(crate) const fn object_at(self, within: u64) -> u64 {
        // Exact: `within` is below 2^16, and the reciprocal is too large by less than size / 2^32.
        (within * RECIPROCALS[self.0 as usize] as u64) >> 32
    }

    /// What the offsets of all objects are multiples of: a cache line, or no more than [`GRAIN`].
    pub(crate) const fn alignment(self) -> u64 {
        if self.size().is_multiple_of(64) { 64 } else { GRAIN }
    }

    /// Units in a slab.
    pub const fn units(self) -> u64 {
        UNITS[self.0 as usize] as u64
    }

    /// Objects in a slab.
    pub const fn objects(self) -> u64 {
        self.units() * UNIT_SIZE / self.size()
    }
}

/// How many times as large as an object's own class the class may be that the object moves to when
/// its slab is emptied.
const PROMOTION: u64 = 4;

/// Whether an object of a class may move to a slab of a larger one: that is not much larger, and
/// its objects are aligned as well as those of the class.
pub(crate) const fn is_near_enough(class: SizeClass, larger: SizeClass) -> bool {
    larger.size() <= class.size() * PROMOTION && larger.size().is_multiple_of(class.alignment())
}

/// The longest object that shares a chunk with others.
pub(crate) const MAX_RUN_OBJECT: u64 = UNITS_IN_CHUNK * UNIT_SIZE;

/// Bytes that a large object of `len` bytes really takes.
pub(crate) const fn large_size(len: u64) -> u64 {
    if len <= MAX_RUN_OBJECT {
        len.div_ceil(UNIT_SIZE) * UNIT_SIZE
    } else {
        len.div_ceil(CHUNK_SIZE) * CHUNK_SIZE
    }
}

/// Bytes that an object of `len` bytes needs in one piece where there is no slab with room for it.
pub const fn contiguous_bytes_for(len: u64) -> u64 {
    match SizeClass::of(len) {
        Some(class) => class.units() * UNIT_SIZE,
        None => large_size(len),
    }
}

/// Bytes that an object of `len` bytes takes at least: in a slab of its coarse class it takes up to
/// 15 bytes or a quarter more.
pub const fn allocated_size(len: u64) -> u64 {
    match SizeClass::of(len) {
        Some(class) => class.size(),
        None => large_size(len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_gets_the_smallest_class_that_holds_it() {
        for len in 0..=MAX_SLAB_OBJECT {
            let class = SizeClass::of(len).unwrap();
            assert!(class.size() >= len);
            if class.index() > 0 {
                let smaller = SizeClass::from_index(class.index() - 1).unwrap();
                assert!(smaller.size() < len, "{len} fits {}", smaller.size());
            }
        }
        assert_eq!(SizeClass::of(MAX_SLAB_OBJECT + 1), None);
    }

    #[test]
    fn the_object_of_every_byte_is_found() {
        for class in (0..CLASSES).filter_map(SizeClass::from_index) {
            for within in 0..class.units() * UNIT_SIZE {
                assert_eq!(class.object_at(within), within / class.size(), "{class:?}");
            }
        }
    }

    #[test]
    fn coarse_classes_are_four_to_a_doubling() {
        let coarse: Vec<u64> = (0..CLASSES)
            .filter_map(SizeClass::from_index)
            .filter(|class| class.coarse() == *class)
            .map(SizeClass::size)
            .collect();
        assert_eq!(coarse[..12], [32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]);
        assert_eq!(coarse.len(), 35);
    }

    #[test]
    fn slabs_waste_little() {
        for index in 0..CLASSES {
            let class = SizeClass::from_index(index).unwrap();
            let bytes = class.units() * UNIT_SIZE;
            let waste = bytes - class.objects() * class.size();
            assert!(waste * 8 <= bytes, "class {} wastes {waste} of {bytes}", class.size());
        }
    }
}

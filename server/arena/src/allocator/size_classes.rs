//! Size classes of small objects: four to each doubling, so that rounding up wastes at most a
//! fifth, and the number of units that a slab of each class takes.
//!
//! Invariants: a slab has at most 256 objects (its bitmap); class sizes are multiples of 16, and
//! objects whose class is a multiple of 64 bytes begin on a cache line.

use crate::layout::{CHUNK_SIZE, UNIT_SIZE, UNITS_IN_CHUNK, index};

/// Bytes of the smallest class.
pub const MIN_OBJECT: u64 = 32;
/// Bytes of the largest class; larger objects are runs of units.
pub const MAX_SLAB_OBJECT: u64 = 16 << 10;

const SIZES: [u32; 35] = [
    32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024,
    1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192, 10240, 12288, 14336,
    16384,
];

/// Number of classes.
pub const CLASSES: usize = SIZES.len();

const BY_SIZE: [u8; (MAX_SLAB_OBJECT / 16) as usize + 1] = by_size();
const UNITS: [u8; CLASSES] = slab_units();

const fn by_size() -> [u8; (MAX_SLAB_OBJECT / 16) as usize + 1] {
    let mut table = [0; (MAX_SLAB_OBJECT / 16) as usize + 1];
    let mut class = 0u8;
    let mut sixteenths = 0;
    while sixteenths < table.len() {
        if sixteenths * 16 > SIZES[class as usize] as usize {
            class += 1;
        }
        table[sixteenths] = class;
        sixteenths += 1;
    }
    table
}

/// The fewest units (1, 2, 4 or 8) that leave at most an eighth of the slab unused.
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

const _: () = assert!(SIZES[0] as u64 == MIN_OBJECT);
const _: () = assert!(SIZES[CLASSES - 1] as u64 == MAX_SLAB_OBJECT);
const _: () = {
    let mut class = 0;
    while class < CLASSES {
        let bytes = UNITS[class] as u64 * UNIT_SIZE;
        let objects = bytes / SIZES[class] as u64;
        assert!(objects <= 256 && objects >= 1);
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
        Some(Self(BY_SIZE[index(len.div_ceil(16))]))
    }

    /// The class with this number.
    #[expect(clippy::cast_possible_truncation, reason = "there are 35 classes")]
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

    /// What all offsets of objects are multiples of; more than a cache line is of no use.
    pub(crate) const fn alignment(self) -> u64 {
        let own = 1 << self.size().trailing_zeros();
        if own < 64 { own } else { 64 }
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

/// Bytes that an object of `len` bytes really takes.
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
    fn slabs_waste_little() {
        for index in 0..CLASSES {
            let class = SizeClass::from_index(index).unwrap();
            let bytes = class.units() * UNIT_SIZE;
            let waste = bytes - class.objects() * class.size();
            assert!(waste * 8 <= bytes, "class {} wastes {waste} of {bytes}", class.size());
        }
    }
}

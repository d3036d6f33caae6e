//! `ObjectWords`: one word beside the arena for each object, whose meaning belongs to the layers
//! above.
//!
//! The words of a slab lie together in a *page* of 2,048 words that holds such blocks for slabs of
//! one size class only, so that a page that has become empty serves any other class:
//!
//! ```text
//! units:  | unit | unit | unit | ...                        one entry for each unit of the arena
//!            |      '----.
//!            v           v
//! pages:  | block, block, block, free | block, block |  ...  a page: blocks of one class
//!
//! entry:  | in use 1 | 0 (5) | shard 6 | units back to head 4 | class 8 | first word 40 |
//! ```
//!
//! A run of units or chunks is an object of class [`RUN`] with one word. A run may change its
//! shard, so its entry names none.
//!
//! Invariants:
//! 1. The entries of a slab's units, and those of a run's first unit, change with the slab or run,
//!    under the lock of its shard. Readers need no lock.
//! 2. A block belongs to one slab or run. A page with no block in use is in `empty`; one with free
//!    blocks is in the list of its class.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::allocator::chunk_pool::OutOfMemory;
use crate::allocator::size_classes::{CLASSES, SizeClass};
use crate::layout::{SHARDS, UNIT_SIZE, index};
use crate::memory::side_tables::SideTable;
use crate::shard::ShardIndex;

/// Words in a page: 8 KiB.
const PAGE: u64 = 2048;
/// Pages in an extent of a small arena.
const MIN_EXTENT: u64 = 128;
/// The class of objects that are runs.
const RUN: usize = CLASSES;
/// Words of a block of class [`RUN`], and of the smallest block of another one.
const RUN_WORDS: u64 = 4;
/// Empty pages that keep their memory.
const KEEP_EMPTY: usize = 8;
/// No page.
const NONE: u32 = u32::MAX;

const IN_USE: u64 = 1 << 63;
const SHARD_SHIFT: u32 = 52;
const BACK_SHIFT: u32 = 48;
const CLASS_SHIFT: u32 = 40;
const FIRST_MASK: u64 = (1 << CLASS_SHIFT) - 1;

const _: () = assert!(SHARDS <= 1 << 6);
const _: () = assert!(PAGE / RUN_WORDS <= 8 * u64::BITS as u64);
const _: () = {
    let mut class = 0;
    while class < CLASSES {
        assert!(words_of(class) >= RUN_WORDS && words_of(class) <= PAGE);
        class += 1;
    }
};

/// One word for each object.
pub struct ObjectWords {
    units: SideTable<AtomicU64>,
    /// Made when they are first needed.
    extents: Box<[OnceLock<SideTable<AtomicU32>>]>,
    /// Pages in an extent, a power of two.
    extent_pages: u64,
    pages: Mutex<Pages>,
}

/// The blocks in use of each page.
struct Pages {
    pages: Vec<Page>,
    /// For each class, the first page with a free block.
    with_free_block: [u32; CLASSES + 1],
    empty: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Page {
    class: u8,
    used: u16,
    next: u32,
    previous: u32,
    /// A set bit is a block in use.
    blocks: [u64; 8],
}

/// Words in a block of a class.
const fn words_of(class: usize) -> u64 {
    match SizeClass::from_index(class) {
        Some(class) if class.objects() > RUN_WORDS => class.objects(),
        _ => RUN_WORDS,
    }
}

const fn blocks_of(class: usize) -> u64 {
    PAGE / words_of(class)
}

impl ObjectWords {
    /// No words, for an arena of `capacity` bytes.
    ///
    /// # Errors
    /// The kernel refused the mapping.
    pub(crate) fn new(capacity: u64) -> io::Result<Self> {
        let units = capacity / UNIT_SIZE;
        let extent_pages = (units / 2048).next_power_of_two().max(MIN_EXTENT);
        // Each slab takes a page of its own at worst.
        let extents = (units + CLASSES as u64 + 1).div_ceil(extent_pages);
        Ok(Self {
            units: SideTable::new(index(units))?,
            extents: (0..extents).map(|_| OnceLock::new()).collect(),
            extent_pages,
            pages: Mutex::new(Pages {
                pages: Vec::new(),
                with_free_block: [NONE; CLASSES + 1],
                empty: Vec::new(),
            }),
        })
    }

    /// The word of the object at `at`; `None` if there is no object.
    #[inline]
    pub fn get(&self, at: u64) -> Option<&AtomicU32> {
        let entry = self.units.get(index(at / UNIT_SIZE))?.load(Ordering::Relaxed);
        if entry & IN_USE == 0 {
            return None;
        }
        let first = entry & FIRST_MASK;
        let back = entry >> BACK_SHIFT & 0xf;
        let object = match SizeClass::from_index(index(entry >> CLASS_SHIFT & 0xff)) {
            Some(class) => class.object_at(back * UNIT_SIZE + at % UNIT_SIZE),
            None => 0,
        };
        let word = first + object;
        let extent = self.extents.get(index(word / (PAGE * self.extent_pages)))?.get()?;
        extent.get(index(word % (PAGE * self.extent_pages)))
    }

    /// Asks the processor to fetch the word of the object at `at`, if there is one.
    #[inline]
    pub fn prefetch(&self, at: u64) {
        if let Some(word) = self.get(at) {
            crate::memory::prefetch::prefetch_line(std::ptr::from_ref(word).cast());
        }
    }

    /// Bytes of the pages with words in use.
    pub fn bytes(&self) -> u64 {
        let pages = self.pages.lock();
        (pages.pages.len() - pages.empty.len()) as u64 * PAGE * 4
    }

    /// The class of the slab that begins at `at`, if it is one of `shard`; `None` for anything
    /// else, which other threads may be changing. Requires the lock of `shard`.
    pub(crate) fn slab_of(&self, at: u64, shard: ShardIndex) -> Option<SizeClass> {
        let entry = self.units.get(index(at / UNIT_SIZE))?.load(Ordering::Relaxed);
        let is_head = entry & IN_USE != 0 && entry >> BACK_SHIFT & 0xf == 0;
        let is_own = entry >> SHARD_SHIFT & 0x3f == shard.get() as u64;
        let class = SizeClass::from_index(index(entry >> CLASS_SHIFT & 0xff))?;
        (is_head && is_own).then_some(class)
    }

    /// Gives words to the objects of a new slab of a shard that begins at `at`.
    ///
    /// # Errors
    /// The kernel refused memory.
    pub(crate) fn add_slab(
        &self,
        at: u64,
        class: SizeClass,
        shard: ShardIndex,
    ) -> Result<(), OutOfMemory> {
        let first = (shard.get() as u64) << SHARD_SHIFT | self.take_block(class.index())?;
        for back in 0..class.units() {
            self.set(at / UNIT_SIZE + back, first, class.index(), back);
        }
        Ok(())
    }

    /// Takes the words of a slab back.
    pub(crate) fn remove_slab(&self, at: u64, class: SizeClass) {
        for back in (0..class.units()).rev() {
            self.clear(at / UNIT_SIZE + back, class.index(), back == 0);
        }
    }

    /// Gives a word to the run that begins at `at`.
    ///
    /// # Errors
    /// The kernel refused memory.
    pub(crate) fn add_run(&self, at: u64) -> Result<(), OutOfMemory> {
        let first = self.take_block(RUN)?;
        self.set(at / UNIT_SIZE, first, RUN, 0);
        Ok(())
    }

    /// Takes the word of a run back.
    pub(crate) fn remove_run(&self, at: u64) {
        self.clear(at / UNIT_SIZE, RUN, true);
    }

    fn set(&self, unit: u64, first: u64, class: usize, back: u64) {
        let entry = IN_USE | back << BACK_SHIFT | (class as u64) << CLASS_SHIFT | first;
        self.units.word(index(unit)).store(entry, Ordering::Relaxed);
    }

    fn clear(&self, unit: u64, class: usize, frees_block: bool) {
        let entry = self.units.word(index(unit)).swap(0, Ordering::Relaxed);
        debug_assert!(entry & IN_USE != 0 && entry >> CLASS_SHIFT & 0xff == class as u64);
        if frees_block {
            self.put_block(class, entry & FIRST_MASK);
        }
    }

    /// Takes a block; returns the number of its first word.
    fn take_block(&self, class: usize) -> Result<u64, OutOfMemory> {
        let mut pages = self.pages.lock();
        let page = match pages.with_free_block[class] {
            NONE => self.new_page(&mut pages, class)?,
            page => page,
        };
        let info = &mut pages.pages[page as usize];
        let block = (0..blocks_of(class))
            .find(|block| !crate::allocator::unit_bitmap::get(&info.blocks, *block))
            .expect("invariant: a page in the list of its class has a free block");
        crate::allocator::unit_bitmap::set(&mut info.blocks, block, 1);
        info.used += 1;
        if u64::from(info.used) == blocks_of(class) {
            pages.unlink(page);
        }
        Ok(u64::from(page) * PAGE + block * words_of(class))
    }

    fn put_block(&self, class: usize, first: u64) {
        let mut pages = self.pages.lock();
        let page = u32::try_from(first / PAGE).expect("invariant: pages have 32-bit numbers");
        let info = &mut pages.pages[page as usize];
        let block = first % PAGE / words_of(class);
        crate::allocator::unit_bitmap::clear(&mut info.blocks, block, 1);
        let was_full = u64::from(info.used) == blocks_of(class);
        info.used -= 1;
        let is_empty = info.used == 0;
        if was_full && !is_empty {
            pages.link(page);
        } else if is_empty {
            if !was_full {
                pages.unlink(page);
            }
            pages.empty.push(page);
            if pages.empty.len() > KEEP_EMPTY {
                self.discard(page);
            }
        }
    }

    /// A page without blocks in use, in the list of `class`.
    #[cold]
    fn new_page(&self, pages: &mut Pages, class: usize) -> Result<u32, OutOfMemory> {
        let fresh = Page {
            class: u8::try_from(class).expect("invariant: classes have 8-bit numbers"),
            used: 0,
            next: NONE,
            previous: NONE,
            blocks: [0; 8],
        };
        let page = match pages.empty.pop() {
            Some(page) => {
                pages.pages[page as usize] = fresh;
                page
            }
            None => {
                let page = u32::try_from(pages.pages.len()).map_err(|_| OutOfMemory)?;
                self.extent(u64::from(page))?;
                pages.pages.push(fresh);
                page
            }
        };
        pages.link(page);
        Ok(page)
    }

    /// The extent of a page.
    fn extent(&self, page: u64) -> Result<&SideTable<AtomicU32>, OutOfMemory> {
        let slot = self.extents.get(index(page / self.extent_pages)).ok_or(OutOfMemory)?;
        if let Some(extent) = slot.get() {
            return Ok(extent);
        }
        let words = index(self.extent_pages * PAGE);
        let extent = SideTable::new(words).map_err(|_| OutOfMemory)?;
        Ok(slot.get_or_init(|| extent))
    }

    /// Returns the memory of an empty page to the kernel.
    fn discard(&self, page: u32) {
        if let Ok(extent) = self.extent(u64::from(page)) {
            let within = u64::from(page) % self.extent_pages;
            extent.discard(index(within * PAGE), index(PAGE));
        }
    }
}

impl Pages {
    /// Puts a page at the front of the list of its class.
    fn link(&mut self, page: u32) {
        let class = usize::from(self.pages[page as usize].class);
        let first = self.with_free_block[class];
        if first != NONE {
            self.pages[first as usize].previous = page;
        }
        let info = &mut self.pages[page as usize];
        (info.next, info.previous) = (first, NONE);
        self.with_free_block[class] = page;
    }

    fn unlink(&mut self, page: u32) {
        let Page { class, next, previous, .. } = self.pages[page as usize];
        if previous == NONE {
            self.with_free_block[usize::from(class)] = next;
        } else {
            self.pages[previous as usize].next = next;
        }
        if next != NONE {
            self.pages[next as usize].previous = previous;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn each_object_has_a_word_of_its_own(
            steps in prop::collection::vec((0usize..=RUN, any::<prop::sample::Index>()), 1..300),
        ) {
            let words = ObjectWords::new(1 << 30).unwrap();
            // Slabs and runs by their offsets: class, and the value of the first word.
            let mut live: BTreeMap<u64, (usize, u32)> = BTreeMap::new();
            let mut next = 0;
            for (i, (class, pick)) in steps.into_iter().enumerate() {
                if i % 3 == 2 && !live.is_empty() {
                    let at = *live.keys().nth(pick.index(live.len())).unwrap();
                    let (class, _) = live.remove(&at).unwrap();
                    match SizeClass::from_index(class) {
                        Some(class) => words.remove_slab(at, class),
                        None => words.remove_run(at),
                    }
                    prop_assert!(words.get(at).is_none());
                    continue;
                }
                let at = next;
                next += 8 * UNIT_SIZE;
                match SizeClass::from_index(class) {
                    Some(class) => words.add_slab(at, class, ShardIndex::of_hash(0)).unwrap(),
                    None => words.add_run(at).unwrap(),
                }
                let value = i as u32 * 1000;
                live.insert(at, (class, value));
                for (n, object) in objects(at, class).enumerate() {
                    words.get(object).unwrap().store(value + n as u32, Ordering::Relaxed);
                }
            }
            for (at, (class, value)) in &live {
                for (n, object) in objects(*at, *class).enumerate() {
                    let word = words.get(object).unwrap().load(Ordering::Relaxed);
                    prop_assert_eq!(word, value + n as u32);
                }
            }
            for (at, (class, _)) in live {
                match SizeClass::from_index(class) {
                    Some(class) => words.remove_slab(at, class),
                    None => words.remove_run(at),
                }
            }
            prop_assert_eq!(words.bytes(), 0);
        }
    }

    fn objects(at: u64, class: usize) -> impl Iterator<Item = u64> {
        let (count, size) = match SizeClass::from_index(class) {
            Some(class) => (class.objects(), class.size()),
            None => (1, 0),
        };
        (0..count).map(move |object| at + object * size)
    }
}

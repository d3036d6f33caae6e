//! `UnitOwners`: the shard that each unit belongs to, beside the arena, in builds with debug
//! assertions. Every access through a [`Mem`](super::mem::Mem) asserts that its bytes belong to the
//! shard of the `Mem`, so that any test that runs such a build checks ownership (invariant 2 of
//! [`super::held`]). Release builds have no table and no check.
//!
//! | bytes | owner |
//! |---|---|
//! | a shard's root | the shard |
//! | a slab, a run of units, a run of chunks | the shard that has allocated it |
//! | a unit's descriptor | the owner of the unit |
//! | a chunk's entry in the chunk table | the owner of the chunk's first unit |
//!
//! The tables of a restored arena name the owners of slabs only. A run's owner becomes known when
//! an audit claims it; until then any shard may access it. During an audit, which holds every lock
//! and follows references that are not trusted yet, nothing is checked.

#[cfg(debug_assertions)]
pub(super) use table::UnitOwners;

#[cfg(not(debug_assertions))]
pub(super) use nothing::UnitOwners;

#[cfg(debug_assertions)]
mod table {
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

    use crate::layout::{
        CHUNK_SIZE, ChunkEntry, ChunkIndex, GROUP_CHUNKS, HEAD_UNITS, ROOT_SIZE, ROOTS_AT, SHARDS,
        TABLE_AT, UNIT_SIZE, UNITS_PER_CHUNK, UnitDescriptor, index,
    };
    use crate::memory::side_tables::SideTable;
    use crate::shard::ShardIndex;

    /// Not in use.
    const FREE: u32 = 0;
    /// Descriptors of a chunk that is cut into units.
    const DESCRIPTORS: u32 = u32::MAX - 1;
    /// In use, by a shard that is not known yet.
    const UNKNOWN: u32 = u32::MAX;

    const fn of(shard: ShardIndex) -> u32 {
        shard.get().to_le_bytes()[0] as u32 + 1
    }

    /// A word for each unit of the arena: its owner's number plus 1, or a constant above.
    pub(in crate::arena) struct UnitOwners {
        units: SideTable<AtomicU32>,
        suspended: AtomicBool,
    }

    impl UnitOwners {
        pub(in crate::arena) fn new(capacity: u64) -> io::Result<Self> {
            let units = SideTable::new(index(capacity / UNIT_SIZE))?;
            Ok(Self { units, suspended: AtomicBool::new(false) })
        }

        /// Turns the check off, or on again. The caller holds every lock.
        pub(in crate::arena) fn suspend(&self, suspended: bool) {
            self.suspended.store(suspended, Relaxed);
        }

        fn set_range(&self, at: u64, len: u64, owner: u32) {
            let first = index(at / UNIT_SIZE);
            for word in &self.units[first..first + index(len / UNIT_SIZE)] {
                word.store(owner, Relaxed);
            }
        }

        /// The units in `len` bytes at `at` belong to a shard.
        pub(in crate::arena) fn set(&self, at: u64, len: u64, shard: ShardIndex) {
            self.set_range(at, len, of(shard));
        }

        /// The units in `len` bytes at `at` belong to a shard that is not known.
        pub(in crate::arena) fn set_unknown(&self, at: u64, len: u64) {
            self.set_range(at, len, UNKNOWN);
        }

        /// The units in `len` bytes at `at` are free.
        pub(in crate::arena) fn clear(&self, at: u64, len: u64) {
            self.set_range(at, len, FREE);
        }

        /// A chunk is cut into units: its first units hold descriptors.
        pub(in crate::arena) fn set_descriptors(&self, chunk: ChunkIndex) {
            self.set_range(chunk.start(), HEAD_UNITS * UNIT_SIZE, DESCRIPTORS);
        }

        /// Asserts that `len` bytes at `at` belong to a shard.
        ///
        /// # Panics
        /// They do not.
        pub(in crate::arena) fn check(&self, at: u64, len: u64, shard: ShardIndex) {
            self.check_either(at, len, shard, shard);
        }

        /// Asserts that `len` bytes at `at` belong to one of two shards.
        ///
        /// # Panics
        /// They do not.
        pub(in crate::arena) fn check_either(
            &self,
            at: u64,
            len: u64,
            shard: ShardIndex,
            other: ShardIndex,
        ) {
            if len == 0 || self.suspended.load(Relaxed) {
                return;
            }
            // An object lies in one slab or one run: if its ends belong to the shard, all does.
            for byte in [at, at + len - 1] {
                let owner = self.owner_of(byte);
                assert!(
                    owner == of(shard) || owner == of(other) || owner == UNKNOWN,
                    "arena: {len} bytes at {at:#x} are not shard {}'s: owner {owner:#x}",
                    shard.get()
                );
            }
        }

        fn owner_of(&self, at: u64) -> u32 {
            let chunk = ChunkIndex::of(at);
            let within = at % CHUNK_SIZE;
            if chunk.is_table() {
                return self.owner_in_table(chunk, within);
            }
            let owner = self.unit(at);
            if owner == DESCRIPTORS {
                let unit = within / size_of::<UnitDescriptor>() as u64;
                return self.unit(chunk.start() + unit % UNITS_PER_CHUNK * UNIT_SIZE);
            }
            owner
        }

        fn owner_in_table(&self, chunk: ChunkIndex, within: u64) -> u32 {
            let roots = ROOTS_AT..ROOTS_AT + ROOT_SIZE * SHARDS as u64;
            if chunk.0 == 0 && roots.contains(&within) {
                let shard = ShardIndex::new(index((within - ROOTS_AT) / ROOT_SIZE));
                return shard.map_or(FREE, of);
            }
            let entry = within.saturating_sub(TABLE_AT) / size_of::<ChunkEntry>() as u64;
            let chunk = u64::from(chunk.0) / GROUP_CHUNKS * GROUP_CHUNKS + entry;
            self.unit(chunk * CHUNK_SIZE)
        }

        fn unit(&self, at: u64) -> u32 {
            self.units.get(index(at / UNIT_SIZE)).map_or(FREE, |word| word.load(Relaxed))
        }
    }
}

#[cfg(not(debug_assertions))]
mod nothing {
    use std::io;

    use crate::layout::ChunkIndex;
    use crate::shard::ShardIndex;

    /// Nothing: the checks cost too much for a release build.
    pub(in crate::arena) struct UnitOwners;

    impl UnitOwners {
        pub(in crate::arena) const fn new(_capacity: u64) -> io::Result<Self> {
            Ok(Self)
        }

        #[inline]
        pub(in crate::arena) const fn suspend(&self, _suspended: bool) {}

        #[inline]
        pub(in crate::arena) const fn set(&self, _at: u64, _len: u64, _shard: ShardIndex) {}

        #[inline]
        pub(in crate::arena) const fn set_unknown(&self, _at: u64, _len: u64) {}

        #[inline]
        pub(in crate::arena) const fn clear(&self, _at: u64, _len: u64) {}

        #[inline]
        pub(in crate::arena) const fn set_descriptors(&self, _chunk: ChunkIndex) {}

        #[inline]
        pub(in crate::arena) const fn check(&self, _at: u64, _len: u64, _shard: ShardIndex) {}

        #[inline]
        pub(in crate::arena) const fn check_either(
            &self,
            _at: u64,
            _len: u64,
            _shard: ShardIndex,
            _other: ShardIndex,
        ) {
        }
    }
}

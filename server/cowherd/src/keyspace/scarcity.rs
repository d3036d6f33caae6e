//! Takes memory away, for tests of what must not need any.

use cowherd_arena::{MAX_SLAB_OBJECT, ShardIndex, ShardSet, SizeClass};

use super::Keyspace;

/// Memory that nobody else can have.
#[derive(Default)]
pub struct MemoryExhauster {
    taken: Vec<(ShardIndex, u64, u64)>,
}

impl MemoryExhauster {
    /// Takes all that a shard could get: no command finds an object of any size there.
    pub fn take(&mut self, space: &Keyspace, shard: ShardIndex) {
        let mut shards = space.lock(ShardSet::one(shard), 0);
        let mut mem = shards.mem(shard);
        let classes = (0..).map_while(SizeClass::from_index).map(SizeClass::size);
        let mut sizes: Vec<u64> = classes.chain([MAX_SLAB_OBJECT + 1]).collect();
        // The largest first: what is left of them is few.
        while let Some(size) = sizes.pop() {
            while let Ok(at) = mem.allocate(size) {
                self.taken.push((shard, at, size));
            }
        }
    }

    /// Gives some of the largest objects back, and some of the smallest.
    pub fn give_back(&mut self, space: &Keyspace, largest: usize, smallest: usize) {
        let smallest = self.taken.len().saturating_sub(smallest);
        let mut given: Vec<_> = self.taken.drain(smallest..).collect();
        given.extend(self.taken.drain(..largest.min(self.taken.len())));
        for (shard, at, size) in given {
            space.lock(ShardSet::one(shard), 0).mem(shard).release(at, size);
        }
    }

    /// Gives everything back.
    pub fn end(&mut self, space: &Keyspace) {
        for (shard, at, size) in self.taken.drain(..) {
            space.lock(ShardSet::one(shard), 0).mem(shard).release(at, size);
        }
    }
}

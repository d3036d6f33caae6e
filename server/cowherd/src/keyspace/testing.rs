//! Memory exhaustion on purpose, for tests of what must not need memory.

use cowherd_arena::{MAX_SLAB_OBJECT, ShardIndex, ShardSet, SizeClass};

use super::Keyspace;

/// Objects that a test has allocated so that nothing else finds memory.
#[derive(Default)]
pub struct MemoryExhauster {
    objects: Vec<(ShardIndex, u64, u64)>,
}

impl MemoryExhauster {
    /// Allocates all that a shard can get: afterwards no allocation of any size succeeds there.
    pub fn take(&mut self, space: &Keyspace, shard: ShardIndex) {
        let mut shards = space.lock(ShardSet::one(shard), 0);
        let mut mem = shards.mem(shard);
        let classes = (0..).map_while(SizeClass::from_index).map(SizeClass::size);
        let mut sizes: Vec<u64> = classes.chain([MAX_SLAB_OBJECT + 1]).collect();
        // The largest first, so that few objects exhaust the shard.
        while let Some(size) = sizes.pop() {
            while let Ok(at) = mem.allocate(size) {
                self.objects.push((shard, at, size));
            }
        }
    }

    /// Frees some of the largest objects, and some of the smallest.
    pub fn give_back(&mut self, space: &Keyspace, largest: usize, smallest: usize) {
        let smallest = self.objects.len().saturating_sub(smallest);
        let mut freed: Vec<_> = self.objects.drain(smallest..).collect();
        freed.extend(self.objects.drain(..largest.min(self.objects.len())));
        for (shard, at, size) in freed {
            space.lock(ShardSet::one(shard), 0).mem(shard).release(at, size);
        }
    }

    /// Frees all objects.
    pub fn end(&mut self, space: &Keyspace) {
        for (shard, at, size) in self.objects.drain(..) {
            space.lock(ShardSet::one(shard), 0).mem(shard).release(at, size);
        }
    }
}

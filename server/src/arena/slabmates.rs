//! Which objects share a slab: whoever frees all of them gives the slab's units back to everybody.
//!
//! Reads only what belongs to the shard: the descriptor of one of its slabs.

use super::classes::Class;
use super::layout::UNIT_SIZE;
use super::memory::Mem;

impl Mem<'_> {
    /// The objects in the slab of the object of `len` bytes at `at`, itself included, and the bytes
    /// that each of them has. Empty if the object is too large for a slab.
    pub fn slab_mates(&self, at: u64, len: u64) -> (Vec<u64>, u64) {
        let Some(class) = Class::of(len) else { return (Vec::new(), 0) };
        let (chunk, unit, descriptor) = self.slab_at(at);
        let start = chunk.start() + unit * UNIT_SIZE;
        let in_use = |object: &u64| super::unitmap::get(&descriptor.objects, *object);
        let objects = (0..class.objects()).filter(in_use);
        (objects.map(|object| start + object * class.size()).collect(), class.size())
    }
}

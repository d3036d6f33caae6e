//! Random numbers for commands that choose.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};

/// A random number (splitmix64), seeded by the system for each thread.
pub(super) fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// A random number below `bound`, which is not 0.
pub(super) fn below(bound: usize) -> usize {
    let wide = (u128::from(random()) * bound as u128) >> 64;
    usize::try_from(wide).unwrap_or(0)
}

//! Random numbers for commands that return random elements.

/// A random number of the thread's generator, which is seeded by the system.
pub(super) fn random() -> u64 {
    fastrand::u64(..)
}

/// A random number below `bound`, which is not 0.
pub(super) fn below(bound: usize) -> usize {
    let wide = (u128::from(random()) * bound as u128) >> 64;
    usize::try_from(wide).unwrap_or(0)
}

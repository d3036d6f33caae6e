//! `math.random`: the generator of POSIX's `drand48`, which Redis uses for scripts, so that scripts
//! with a seed draw the same numbers everywhere.

/// Multiplier and increment of the linear congruence, modulo 2^48.
const MULTIPLIER: u64 = 0x5_deec_e66d;
const INCREMENT: u64 = 0xb;
const MASK: u64 = (1 << 48) - 1;
/// The low 16 bits of the state after seeding.
const SEED_LOW: u64 = 0x330e;
/// The state before any seeding.
const INITIAL: u64 = 0x1234_abcd_330e;

/// A generator with 48 bits of state.
pub(crate) struct Random48(u64);

impl Random48 {
    pub fn new() -> Self {
        Self(INITIAL)
    }

    /// Begins anew from 32 bits of seed.
    pub fn seed(&mut self, seed: u32) {
        self.0 = u64::from(seed) << 16 | SEED_LOW;
    }

    /// The next number below 2^31.
    fn next(&mut self) -> u32 {
        self.0 = (self.0.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT)) & MASK;
        u32::try_from(self.0 >> 17).expect("invariant: 48 bits, shifted by 17")
    }

    /// The next number from 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        const MAX: u32 = i32::MAX.cast_unsigned();
        f64::from(self.next() % MAX) / f64::from(MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::Random48;

    #[test]
    fn numbers_are_those_of_drand48() {
        let mut random = Random48::new();
        assert!((random.unit() - 0.396_464_773_638).abs() < 1e-9);
        assert!((random.unit() - 0.840_485_369_712).abs() < 1e-9);
        random.seed(1);
        assert!((random.unit() - 0.041_630_344_485).abs() < 1e-9);
    }
}

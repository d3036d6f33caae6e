//! In-process harness of the fuzz targets: each function runs one input and panics on a fault.
//!
//! Compiled for tests and with the feature `fuzzing`; the targets stand in `server/fuzz`.

mod commands;
mod images;

pub use commands::run_commands;
pub use images::run_image;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        /// One to three damages each, so that many images pass the first checks.
        #[test]
        fn notes_change_no_verdict(input in prop::collection::vec(any::<u8>(), 6..=18)) {
            super::run_image(&input);
        }
    }

    /// Inputs from a generator, so that the harness is known to work before a fuzzer runs it.
    fn inputs(count: usize) -> impl Iterator<Item = Vec<u8>> {
        let mut state = 1_u64;
        (0..count).map(move |number| {
            let bytes = (0..number * 60).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            });
            bytes.collect()
        })
    }

    #[test]
    fn arbitrary_commands_break_no_invariant() {
        inputs(20).for_each(|input| super::run_commands(&input));
    }

    #[test]
    fn damaged_images_are_rejected_or_usable() {
        inputs(8).for_each(|input| super::run_image(&input));
    }
}

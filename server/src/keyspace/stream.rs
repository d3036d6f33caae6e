//! Streams.

use crate::arena::{Audit, Broken, Mem, OutOfMemory};

use super::entry::Shape;
use super::values::{Digest, Type};

/// Streams.
pub(super) struct Stream;

impl Type for Stream {
    const HEADER: u64 = 0;

    fn encoding_name(_: &Shape) -> &'static str {
        "stream"
    }

    fn verify_compact(_: &Shape, _: &[u8]) -> Result<(), String> {
        Err("there are none".into())
    }

    fn verify_large(
        _: &Mem<'_>,
        _: &Audit<'_>,
        _: Option<&Shape>,
        header: u64,
        _: bool,
    ) -> Result<(), Broken> {
        Err(Broken::at(header, "there are none".into()))
    }

    fn digest(_: &Mem<'_>, _: u64, _: &Shape, _: &mut Digest) {}

    fn copy_large(_: &mut Mem<'_>, _: u64) -> Result<u64, OutOfMemory> {
        Err(OutOfMemory)
    }

    fn free_some(_: &mut Mem<'_>, _: u64, _: usize) -> bool {
        true
    }

    fn usage(_: &Mem<'_>, _: u64, _: usize) -> u64 {
        0
    }
}

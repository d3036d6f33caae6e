//! A sketch: the string that PFADD keeps of a set of elements, to estimate how many they are.
//!
//! ```text
//! 0      4          5      8                          16
//! +------+----------+------+--------------------------+-----------------------+
//! | HYLL | encoding | 0    | number of elements, or   | registers or opcodes  |
//! |      |    1     |  3   | highest bit: out of date |                       |
//! +------+----------+------+--------------------------+-----------------------+
//! ```
//!
//! The encoding is 0 for dense (`dense`) and 1 for sparse (`sparse`). The number is little-endian.
//! Clients exchange these strings with GET and SET, also with Redis; all bytes behind the first
//! four are therefore untrusted.

use super::estimator::{RankCounts, estimate};
use super::{dense, sparse};

use sparse::Raised;

/// Bits of an element's hash that choose its register.
pub const REGISTER_BITS: u32 = 14;
/// Registers of a sketch.
pub const REGISTERS: usize = 1 << REGISTER_BITS;
/// Bytes before the registers or opcodes.
pub const HEADER: usize = 16;
/// The offset of the number of elements.
pub const CARDINALITY_AT: usize = 8;
/// The offset of the byte with [`OUT_OF_DATE`].
pub const VALIDITY_AT: usize = 15;
/// The bit that says that the number of elements has to be estimated anew.
pub const OUT_OF_DATE: u8 = 0x80;
const MAGIC: &[u8; 4] = b"HYLL";
const ENCODING_AT: usize = 4;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
/// All registers have rank 0.
const EMPTY: [u8; HEADER + 2] = *b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff";

/// The opcodes of a sparse sketch are not of as many registers as there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the opcodes of a sparse sketch do not have {REGISTERS} registers")]
pub struct DamagedSketch;

/// The registers of a sketch, for reading.
#[derive(Clone, Copy, Debug)]
pub enum SketchRegisters<'v> {
    /// [`dense::LEN`] bytes.
    Dense(&'v [u8]),
    /// Opcodes.
    Sparse(&'v [u8]),
}

impl<'v> SketchRegisters<'v> {
    /// The registers in a string; `None` if the string is no sketch.
    pub fn of(value: &'v [u8]) -> Option<Self> {
        let (header, body) = value.split_at_checked(HEADER)?;
        match (header.starts_with(MAGIC), header[ENCODING_AT]) {
            (true, DENSE) if body.len() == dense::LEN => Some(Self::Dense(body)),
            (true, SPARSE) => Some(Self::Sparse(body)),
            _ => None,
        }
    }

    /// The rank of a register.
    ///
    /// # Errors
    /// The sketch is damaged before the register.
    pub fn rank(&self, register: usize) -> Result<u8, DamagedSketch> {
        match self {
            Self::Dense(registers) => Ok(dense::rank(registers, register)),
            Self::Sparse(opcodes) => sparse::rank(opcodes, register),
        }
    }

    /// Raises the `ranks` of all registers to at least those of the sketch.
    ///
    /// # Errors
    /// The sketch is damaged.
    pub fn merge_into(&self, ranks: &mut [u8]) -> Result<(), DamagedSketch> {
        match self {
            Self::Dense(registers) => dense::merge_into(ranks, registers),
            Self::Sparse(opcodes) => sparse::merge_into(ranks, opcodes)?,
        }
        Ok(())
    }

    /// Estimates the number of elements.
    ///
    /// # Errors
    /// The sketch is damaged.
    pub fn estimate(&self) -> Result<u64, DamagedSketch> {
        Ok(estimate(&match self {
            Self::Dense(registers) => dense::count_ranks(registers),
            Self::Sparse(opcodes) => {
                let mut counts = [0; 64];
                sparse::each_run(opcodes, |run| {
                    let registers = u32::try_from(run.len).unwrap_or(u32::MAX);
                    counts[usize::from(run.rank)] += registers;
                })?;
                counts
            }
        }))
    }
}

/// Estimates the number of elements from the ranks of all registers.
pub fn estimate_ranks(ranks: &[u8]) -> u64 {
    let mut counts: RankCounts = [0; 64];
    ranks.iter().for_each(|rank| counts[usize::from(*rank)] += 1);
    estimate(&counts)
}

/// The number of elements that a sketch has from an earlier estimate, if that is up to date.
/// `value` is a sketch.
pub fn cached_cardinality(value: &[u8]) -> Option<u64> {
    let bytes = value.get(CARDINALITY_AT..HEADER)?.try_into().ok()?;
    Some(u64::from_le_bytes(bytes)).filter(|_| value[VALIDITY_AT] & OUT_OF_DATE == 0)
}

/// A sketch that is being changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sketch(Vec<u8>);

impl Sketch {
    /// A sketch without elements.
    pub fn new() -> Self {
        Self(EMPTY.to_vec())
    }

    /// A copy of a sketch.
    pub fn copy(value: &[u8]) -> Self {
        debug_assert!(SketchRegisters::of(value).is_some());
        Self(value.to_vec())
    }

    /// The string.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the encoding is dense.
    pub fn is_dense(&self) -> bool {
        self.0[ENCODING_AT] == DENSE
    }

    /// Raises a register to at least a rank; tells whether it was lower. A sparse sketch becomes
    /// dense if it would have more than `sparse_limit` bytes.
    ///
    /// # Errors
    /// The sketch is damaged; nothing has changed.
    pub fn raise(
        &mut self,
        register: usize,
        rank: u8,
        sparse_limit: u64,
    ) -> Result<bool, DamagedSketch> {
        if !self.is_dense() {
            match sparse::raise(&mut self.0, HEADER, register, rank, sparse_limit)? {
                Raised::Yes => return Ok(true),
                Raised::No => return Ok(false),
                Raised::NoRoom => self.make_dense()?,
            }
        }
        let registers = &mut self.0[HEADER..];
        let is_raised = dense::rank(registers, register) < rank;
        if is_raised {
            dense::set_rank(registers, register, rank);
        }
        Ok(is_raised)
    }

    /// Changes the encoding to dense; the rest of the header stays.
    ///
    /// # Errors
    /// The sketch is damaged; nothing has changed.
    pub fn make_dense(&mut self) -> Result<(), DamagedSketch> {
        if self.is_dense() {
            return Ok(());
        }
        let mut value = vec![0; HEADER + dense::LEN];
        let (header, registers) = value.split_at_mut(HEADER);
        header.copy_from_slice(&self.0[..HEADER]);
        header[ENCODING_AT] = DENSE;
        sparse::each_run(&self.0[HEADER..], |run| {
            if run.rank > 0 {
                run.registers().for_each(|i| dense::set_rank(registers, i, run.rank));
            }
        })?;
        self.0 = value;
        Ok(())
    }

    /// Marks the number of elements as out of date.
    pub fn invalidate(&mut self) {
        self.0[VALIDITY_AT] |= OUT_OF_DATE;
    }
}

#[cfg(test)]
#[path = "sketch_tests.rs"]
mod tests;

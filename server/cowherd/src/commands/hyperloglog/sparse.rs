//! The sparse encoding: opcodes that stand for runs of registers with the same rank.
//!
//! ```text
//! ZERO    00llllll             1 to 64 registers of rank 0
//! XZERO   01llllll llllllll    1 to 16384 registers of rank 0
//! VAL     1rrrrrll             1 to 4 registers of a rank from 1 to 32
//! ```
//!
//! A length or rank is stored less one. How runs are split and joined is visible to clients, since
//! they read values with GET, and is therefore that of Redis.

use super::sketch::{DamagedSketch, REGISTERS};

/// The highest rank that the encoding has.
pub const MAX_RANK: u8 = 32;
/// The longest run of VAL, and that of ZERO.
const MAX_VALUES: usize = 4;
const MAX_SHORT_ZEROS: usize = 64;
const XZERO: u8 = 0b0100_0000;
const VAL: u8 = 0b1000_0000;
/// The opcodes, from the one before a changed run on, of which runs of equal ranks are joined.
const JOINED_OPCODES: usize = 5;

/// An opcode, and which registers it stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterRun {
    /// The offset of the opcode, in bytes.
    at: usize,
    /// The bytes of the opcode.
    size: usize,
    /// The first register.
    first: usize,
    /// The number of registers.
    pub len: usize,
    /// The rank of each; 0 for ZERO and XZERO.
    pub rank: u8,
}

impl RegisterRun {
    /// Whether the opcode is XZERO.
    pub const fn is_long(&self) -> bool {
        self.size == 2
    }

    fn end(&self) -> usize {
        self.first + self.len
    }

    /// The registers.
    pub fn registers(&self) -> std::ops::Range<usize> {
        self.first..self.end()
    }

    /// The opcode at an offset, for registers from `first` on; `None` if it is cut off.
    fn read(opcodes: &[u8], at: usize, first: usize) -> Option<Self> {
        let low = |byte: u8, mask: u8| usize::from(byte & mask);
        Some(match *opcodes.get(at)? {
            byte if byte & VAL != 0 => {
                let (len, rank) = (low(byte, 3) + 1, (byte >> 2 & 31) + 1);
                Self { at, size: 1, first, len, rank }
            }
            byte if byte & XZERO != 0 => {
                let len = low(byte, 63) << 8 | usize::from(*opcodes.get(at + 1)?);
                Self { at, size: 2, first, len: len + 1, rank: 0 }
            }
            byte => Self { at, size: 1, first, len: low(byte, 63) + 1, rank: 0 },
        })
    }
}

/// The runs of a value, which may be of more registers than there are. The last item is an error if
/// the last opcode is cut off.
pub fn runs(opcodes: &[u8]) -> impl Iterator<Item = Result<RegisterRun, DamagedSketch>> {
    let (mut at, mut first) = (0, 0);
    std::iter::from_fn(move || {
        if at == opcodes.len() {
            return None;
        }
        let run = RegisterRun::read(opcodes, at, first);
        (at, first) = run.map_or((opcodes.len(), 0), |run| (at + run.size, run.end()));
        Some(run.ok_or(DamagedSketch))
    })
}

/// Calls `each` with the runs of a value.
///
/// # Errors
/// They are not of exactly as many registers as there are.
pub fn each_run(opcodes: &[u8], mut each: impl FnMut(&RegisterRun)) -> Result<(), DamagedSketch> {
    let mut registers = 0;
    for run in runs(opcodes) {
        let run = run?;
        registers = run.end();
        if registers > REGISTERS {
            return Err(DamagedSketch);
        }
        each(&run);
    }
    if registers == REGISTERS { Ok(()) } else { Err(DamagedSketch) }
}

/// Raises the `ranks` of all registers to at least those of a value.
///
/// # Errors
/// The value is damaged.
pub fn merge_into(ranks: &mut [u8], opcodes: &[u8]) -> Result<(), DamagedSketch> {
    each_run(opcodes, |run| {
        if run.rank > 0 {
            ranks[run.registers()].iter_mut().for_each(|rank| *rank = (*rank).max(run.rank));
        }
    })
}

/// The run of a register, and the offset of the opcode before its own, or of its own if that is the
/// first.
fn find(opcodes: &[u8], register: usize) -> Result<(RegisterRun, usize), DamagedSketch> {
    let mut before = 0;
    for run in runs(opcodes) {
        let run = run?;
        if register < run.end() {
            return Ok((run, before));
        }
        before = run.at;
    }
    Err(DamagedSketch)
}

/// The rank of a register.
///
/// # Errors
/// The value is damaged before the register.
pub fn rank(opcodes: &[u8], register: usize) -> Result<u8, DamagedSketch> {
    find(opcodes, register).map(|(run, _)| run.rank)
}

/// What has become of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Raised {
    /// The register has the rank now.
    Yes,
    /// Its rank was as high before.
    No,
    /// The value would exceed its limit, or the rank that of the encoding.
    NoRoom,
}

/// The opcodes that take the place of one: at most XZERO, VAL and XZERO.
#[derive(Default)]
struct Opcodes {
    bytes: [u8; 5],
    len: usize,
}

impl Opcodes {
    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// Appends a run. One of a rank above 0 has at most four registers.
    fn push_run(&mut self, rank: u8, len: usize) {
        let Some(rest) = len.checked_sub(1) else { return };
        let [low, high, ..] = rest.to_le_bytes();
        match rank.checked_sub(1) {
            Some(rank) => self.push(VAL | rank << 2 | low),
            None if len <= MAX_SHORT_ZEROS => self.push(low),
            None => {
                self.push(XZERO | high);
                self.push(low);
            }
        }
    }
}

/// Raises a register to a rank. The opcodes begin at byte `start` of `value`, which grows to at
/// most `limit` bytes.
///
/// # Errors
/// The value is damaged before the register; nothing has changed.
pub fn raise(
    value: &mut Vec<u8>,
    start: usize,
    register: usize,
    rank: u8,
    limit: u64,
) -> Result<Raised, DamagedSketch> {
    if rank > MAX_RANK {
        return Ok(Raised::NoRoom);
    }
    let (run, before) = find(&value[start..], register)?;
    if run.rank >= rank {
        return Ok(Raised::No);
    }
    let mut opcodes = Opcodes::default();
    opcodes.push_run(run.rank, register - run.first);
    opcodes.push_run(rank, 1);
    opcodes.push_run(run.rank, run.end() - register - 1);
    if opcodes.len > run.size && (value.len() + opcodes.len - run.size) as u64 > limit {
        return Ok(Raised::NoRoom);
    }
    let at = start + run.at;
    value.splice(at..at + run.size, opcodes.bytes[..opcodes.len].iter().copied());
    join(value, start + before);
    Ok(Raised::Yes)
}

/// Joins neighbouring runs of the same rank, among a few opcodes from an offset on.
fn join(value: &mut Vec<u8>, mut at: usize) {
    for _ in 0..JOINED_OPCODES {
        let Some(run) = RegisterRun::read(value, at, 0) else { return };
        let next = RegisterRun::read(value, at + run.size, 0);
        let joined = next.filter(|next| {
            run.rank > 0 && next.rank == run.rank && run.len + next.len <= MAX_VALUES
        });
        match joined {
            Some(next) => {
                let mut opcode = Opcodes::default();
                opcode.push_run(run.rank, run.len + next.len);
                value[next.at] = opcode.bytes[0];
                value.remove(at);
            }
            None => at += run.size,
        }
    }
}

#[cfg(test)]
#[path = "sparse_tests.rs"]
mod tests;

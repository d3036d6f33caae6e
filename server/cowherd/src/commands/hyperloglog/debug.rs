//! PFDEBUG and PFSELFTEST.

use std::fmt::Write as _;

use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::Entry;

use super::murmur::register_and_rank;
use super::sketch::{REGISTERS, Sketch, SketchRegisters, estimate_ranks};
use super::{DAMAGED, read_sketch, sketch, sparse};

const NO_KEY: ErrorReply = ErrorReply::new("ERR The specified key does not exist");
const NOT_SPARSE: ErrorReply = ErrorReply::new("ERR HLL encoding is not sparse");

pub(super) fn pfdebug(call: &mut Call<'_>) -> CommandResult {
    let key = call.key(2);
    let entry = call.shards.lookup_read(call.session.db, &key).ok_or(NO_KEY)?;
    read_sketch(&call.shards, &entry)?;
    let entry = call.shards.grow(call.session.db, &key, Some(&entry), 0)?;
    let (_, registers) = read_sketch(&call.shards, &entry)?;
    match () {
        () if call.is(1, "getreg") => {
            make_dense(call, &entry)?;
            let entry = call.shards.lookup(call.session.db, &key).ok_or(NO_KEY)?;
            let (_, registers) = read_sketch(&call.shards, &entry)?;
            call.reply.array(REGISTERS);
            for register in 0..REGISTERS {
                call.reply.integer(registers.rank(register)?.into());
            }
        }
        () if call.is(1, "decode") => {
            let SketchRegisters::Sparse(opcodes) = registers else { return Err(NOT_SPARSE) };
            call.reply.bulk_str(&decode(opcodes)?);
        }
        () if call.is(1, "encoding") => call.reply.simple(match registers {
            SketchRegisters::Dense(_) => "dense",
            SketchRegisters::Sparse(_) => "sparse",
        }),
        () if call.is(1, "todense") => {
            let has_changed = make_dense(call, &entry)?;
            call.reply.integer(i64::from(has_changed));
        }
        () => {
            let parts: [&[u8]; 3] = [b"ERR Unknown PFDEBUG subcommand '", call.args.at(1), b"'"];
            return Err(ErrorReply::quoting(&parts));
        }
    }
    Ok(())
}

/// Makes the sketch of argument 2 dense; tells whether it was sparse.
fn make_dense(call: &mut Call<'_>, entry: &Entry) -> Result<bool, ErrorReply> {
    let mut sketch = Sketch::copy(read_sketch(&call.shards, entry)?.0);
    let was_sparse = !sketch.is_dense();
    if was_sparse {
        sketch.make_dense()?;
        let key = call.key(2);
        call.shards.rewrite(call.session.db, &key, Some(entry), sketch.as_bytes(), 1)?;
    }
    Ok(was_sparse)
}

/// The longest text of opcodes, in bytes. All registers of a sketch take less.
const MAX_TEXT: usize = 1 << 20;

/// The opcodes as text: `z:` for ZERO and `Z:` for XZERO with the number of registers, `v:` for VAL
/// with rank and number.
fn decode(opcodes: &[u8]) -> Result<String, ErrorReply> {
    let mut text = String::new();
    for run in sparse::runs(opcodes) {
        let run = run?;
        let blank = if text.is_empty() { "" } else { " " };
        let (rank, len) = (run.rank, run.len);
        let written = match (rank, run.is_long()) {
            (0, false) => write!(text, "{blank}z:{len}"),
            (0, true) => write!(text, "{blank}Z:{len}"),
            _ => write!(text, "{blank}v:{rank},{len}"),
        };
        debug_assert!(written.is_ok());
        if text.len() > MAX_TEXT {
            return Err(DAMAGED);
        }
    }
    Ok(text)
}

/// The number of elements that PFSELFTEST adds: some milliseconds.
const TEST_ELEMENTS: u32 = 100_000;

pub(super) fn pfselftest(call: &mut Call<'_>) -> CommandResult {
    self_test(TEST_ELEMENTS).map_err(|text| ErrorReply::text(format!("TESTFAILED {text}")))?;
    call.reply.ok();
    Ok(())
}

/// The bytes up to which the sparse sketch of PFSELFTEST stays sparse: adding to it takes a time
/// that is proportional to its length.
const SPARSE_BYTES: u64 = 3000;

/// Adds numbers to a sparse and a dense sketch and to a plain list of ranks, which must agree, and
/// compares the estimate after each tenfold number with it.
fn self_test(elements: u32) -> Result<(), String> {
    /// The standard error of an estimate is this by the square root of the number of registers.
    const STANDARD_ERROR: f64 = 1.04;
    let damaged = |error: sketch::DamagedSketch| error.to_string();
    let (mut sparse, mut dense) = (Sketch::new(), Sketch::new());
    let mut ranks = vec![0; REGISTERS];
    dense.make_dense().map_err(damaged)?;
    let mut checkpoint = 1;
    for number in 1..=elements {
        let (register, rank) = register_and_rank(&number.to_le_bytes());
        let is_raised = ranks[register] < rank;
        ranks[register] = rank.max(ranks[register]);
        for sketch in [&mut sparse, &mut dense] {
            if sketch.raise(register, rank, SPARSE_BYTES).map_err(damaged)? != is_raised {
                return Err(format!("element {number} and register {register} disagree"));
            }
        }
        if number != checkpoint {
            continue;
        }
        checkpoint *= 10;
        let expected = estimate_ranks(&ranks);
        for sketch in [&sparse, &dense] {
            let registers = SketchRegisters::of(sketch.as_bytes()).ok_or("no sketch")?;
            let mut read = vec![0; REGISTERS];
            registers.merge_into(&mut read).map_err(damaged)?;
            let estimate = registers.estimate().map_err(damaged)?;
            if read != ranks || estimate != expected {
                return Err(format!("the encodings differ with {number} elements"));
            }
        }
        let bound = f64::from(number) * 6.0 * STANDARD_ERROR / (REGISTERS as f64).sqrt();
        if expected.abs_diff(number.into()) as f64 > bound.ceil() {
            return Err(format!("{number} elements are estimated as {expected}"));
        }
    }
    Ok(())
}

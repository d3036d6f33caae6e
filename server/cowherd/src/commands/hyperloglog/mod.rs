//! HyperLogLog commands: sketches of sets, to estimate how many elements they have.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | the rows, PFADD, PFCOUNT, PFMERGE |
//! | `debug` | PFDEBUG, PFSELFTEST |
//! | `sketch` | the strings of sketches, without the keyspace |
//! | `dense`, `sparse` | the encodings of their registers |
//! | `estimator` | the number of elements by the registers |
//! | `murmur` | the register of an element |

mod debug;
mod dense;
mod estimator;
mod murmur;
mod sketch;
mod sparse;
#[cfg(test)]
mod tests;

use crate::clients::EventClass;
use crate::keyspace::{Entry, Shards, Value};

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse};

use debug::{pfdebug, pfselftest};
use murmur::register_and_rank;
use sketch::{DamagedSketch, Sketch, SketchRegisters};

const WRITE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::DENYOOM);
/// PFCOUNT keeps its result in the value.
const COUNT: CommandFlags = CommandFlags::READONLY.with(CommandFlags::HAS_EFFECTS);

const GROUP: CommandGroup = CommandGroup::HyperLogLog;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("pfadd", -2, WRITE.with(CommandFlags::FAST), pfadd)
        .doc(GROUP, "2.8.9", "Adds elements to a sketch.")
        .keys(KeyPositions::ONE, KeyUse::INSERT)
        .syntax("key [element...]"),
    Command::new("pfcount", -2, COUNT, pfcount)
        .doc(GROUP, "2.8.9", "Estimates how many elements were added to any key.")
        .keys(KeyPositions::ALL, KeyUse::READ_RESHAPE)
        .syntax("key..."),
    Command::new("pfmerge", -2, WRITE, pfmerge)
        .doc(GROUP, "2.8.9", "Adds the elements of other keys.")
        .keys(KeyPositions::ALL, KeyUse::READ_INSERT)
        .other_keys(KeyUse::READ)
        .syntax("destkey [sourcekey:key...]"),
    Command::new("pfdebug", 3, WRITE.with(CommandFlags::ADMIN), pfdebug)
        .doc(GROUP, "2.8.9", "Shows and changes how a sketch is stored.")
        .system()
        .keys(KeyPositions::SECOND, KeyUse::READ_RESHAPE)
        .syntax("subcommand key"),
    Command::new("pfselftest", 1, CommandFlags::ADMIN, pfselftest)
        .doc(GROUP, "2.8.9", "Tests the registers and the estimates of sketches.")
        .system(),
];

const NO_SKETCH: ErrorReply =
    ErrorReply::new("WRONGTYPE Key is not a valid HyperLogLog string value.");
const DAMAGED: ErrorReply = ErrorReply::new("INVALIDOBJ Corrupted HLL object detected");

impl From<DamagedSketch> for ErrorReply {
    fn from(_: DamagedSketch) -> Self {
        DAMAGED
    }
}

/// The string of a sketch, and its registers.
fn read_sketch<'s>(
    shards: &'s Shards<'_>,
    entry: &Entry,
) -> Result<(&'s [u8], SketchRegisters<'s>), ErrorReply> {
    match shards.string(entry)? {
        Value::Bytes(value) => Ok((value, SketchRegisters::of(value).ok_or(NO_SKETCH)?)),
        Value::Int(_) => Err(NO_SKETCH),
    }
}

fn pfadd(call: &mut Call<'_>) -> CommandResult {
    let (db, key) = (call.session.db, call.key(1));
    let limit = call.config.hll_sparse_max_bytes;
    let changes = match call.shards.lookup(db, &key) {
        None => {
            let mut sketch = Sketch::new();
            let raised = add(&mut sketch, call, 2, limit)?;
            call.shards.rewrite(db, &key, None, sketch.as_bytes(), raised + 1)?;
            raised + 1
        }
        Some(entry) => match read_sketch(&call.shards, &entry)?.1 {
            SketchRegisters::Dense(_) => add_to_dense(call, &entry)?,
            SketchRegisters::Sparse(_) => add_to_sparse(call, &entry, limit)?,
        },
    };
    if changes > 0 {
        call.notify(EventClass::STRING, "pfadd", key.bytes);
    }
    call.reply.integer(i64::from(changes > 0));
    Ok(())
}

/// Adds the elements from argument `first` on; returns the number of registers that were raised.
fn add(
    sketch: &mut Sketch,
    call: &Call<'_>,
    first: usize,
    limit: u64,
) -> Result<u64, DamagedSketch> {
    let mut raised = 0;
    for element in call.args.from(first).iter() {
        let (register, rank) = register_and_rank(element);
        raised += u64::from(sketch.raise(register, rank, limit)?);
    }
    Ok(raised)
}

/// Adds all elements to a dense sketch, in its place. Returns the number of registers that were
/// raised.
fn add_to_dense(call: &mut Call<'_>, entry: &Entry) -> Result<u64, ErrorReply> {
    let (db, key) = (call.session.db, call.key(1));
    let (mut entry, mut raised) = (*entry, 0);
    for element in call.args.from(2).iter() {
        let (register, rank) = register_and_rank(element);
        let (value, _) = read_sketch(&call.shards, &entry)?;
        let registers = &value[sketch::HEADER..];
        if dense::rank(registers, register) >= rank {
            continue;
        }
        let (at, patch) = dense::patch(registers, register, rank);
        let validity = value[sketch::VALIDITY_AT] | sketch::OUT_OF_DATE;
        if raised == 0 {
            entry = call.shards.grow(db, &key, Some(&entry), 0)?;
            call.shards.edit(&entry, sketch::VALIDITY_AT as u64, &[validity]);
        }
        call.shards.edit(&entry, (sketch::HEADER + at) as u64, patch.as_slice());
        raised += 1;
    }
    if raised > 0 {
        call.shards.edited(db, &key, raised);
    }
    Ok(raised)
}

/// As [`add_to_dense`], for a sparse sketch, which is written anew if any register was raised.
fn add_to_sparse(call: &mut Call<'_>, entry: &Entry, limit: u64) -> Result<u64, ErrorReply> {
    let (db, key) = (call.session.db, call.key(1));
    let (value, registers) = read_sketch(&call.shards, entry)?;
    for (i, element) in call.args.from(2).iter().enumerate() {
        let (register, rank) = register_and_rank(element);
        if registers.rank(register)? < rank {
            let mut sketch = Sketch::copy(value);
            let raised = add(&mut sketch, call, 2 + i, limit)?;
            sketch.invalidate();
            call.shards.rewrite(db, &key, Some(entry), sketch.as_bytes(), raised)?;
            return Ok(raised);
        }
    }
    // From now on the encoding is `raw`, as in Redis.
    call.shards.grow(db, &key, Some(entry), 0)?;
    Ok(0)
}

fn pfcount(call: &mut Call<'_>) -> CommandResult {
    let cardinality = match call.args.len() {
        2 => count_one(call)?,
        _ => count_several(call)?,
    };
    call.reply.integer(cardinality.cast_signed());
    Ok(())
}

/// The elements of one key. An estimate is kept in the value, unless memory is full.
fn count_one(call: &mut Call<'_>) -> Result<u64, ErrorReply> {
    let (db, key) = (call.session.db, call.key(1));
    let Some(entry) = call.shards.lookup_read(db, &key) else { return Ok(0) };
    let (value, registers) = read_sketch(&call.shards, &entry)?;
    let cached = sketch::cached_cardinality(value);
    let cardinality = match cached {
        Some(cardinality) => cardinality,
        None => registers.estimate()?,
    };
    let is_short = matches!(registers, SketchRegisters::Sparse(_));
    if cached.is_some() && !is_short {
        return Ok(cardinality);
    }
    // From now on the encoding is `raw`, as in Redis.
    if let Ok(entry) = call.shards.grow(db, &key, Some(&entry), 0)
        && cached.is_none()
    {
        let bytes = cardinality.to_le_bytes();
        call.shards.edit(&entry, sketch::CARDINALITY_AT as u64, &bytes);
        call.shards.edited(db, &key, 1);
    }
    Ok(cardinality)
}

/// The elements of the union of several keys.
fn count_several(call: &mut Call<'_>) -> Result<u64, ErrorReply> {
    let mut ranks = vec![0; sketch::REGISTERS];
    for i in 1..call.args.len() {
        merge_key(call, i, &mut ranks)?;
    }
    Ok(sketch::estimate_ranks(&ranks))
}

/// Raises the ranks of all registers to at least those of a key; tells whether its sketch is dense.
fn merge_key(call: &mut Call<'_>, i: usize, ranks: &mut [u8]) -> Result<bool, ErrorReply> {
    let key = call.key(i);
    let Some(entry) = call.shards.lookup_read(call.session.db, &key) else { return Ok(false) };
    let (_, registers) = read_sketch(&call.shards, &entry)?;
    registers.merge_into(ranks)?;
    Ok(matches!(registers, SketchRegisters::Dense(_)))
}

fn pfmerge(call: &mut Call<'_>) -> CommandResult {
    let (db, key, limit) = (call.session.db, call.key(1), call.config.hll_sparse_max_bytes);
    let mut ranks = vec![0; sketch::REGISTERS];
    let mut is_dense = merge_key(call, 1, &mut ranks)?;
    let before = ranks.clone();
    for i in 2..call.args.len() {
        is_dense |= merge_key(call, i, &mut ranks)?;
    }
    let entry = call.shards.lookup(db, &key);
    let mut sketch = match &entry {
        Some(entry) => Sketch::copy(read_sketch(&call.shards, entry)?.0),
        None => Sketch::new(),
    };
    if is_dense {
        sketch.make_dense()?;
    }
    for (register, (rank, before)) in ranks.iter().zip(&before).enumerate() {
        if rank > before {
            sketch.raise(register, *rank, limit)?;
        }
    }
    sketch.invalidate();
    call.shards.rewrite(db, &key, entry.as_ref(), sketch.as_bytes(), 1)?;
    // As in Redis, which has no event of its own for it.
    call.notify(EventClass::STRING, "pfadd", key.bytes);
    call.reply.ok();
    Ok(())
}

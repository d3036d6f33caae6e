//! Bitmap commands on strings. Bit 0 is the highest bit of byte 0.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | the rows, SETBIT, GETBIT, BITCOUNT, BITPOS |
//! | `find` | counting and searching bits |
//! | `operation` | BITOP |
//! | `field` | BITFIELD, BITFIELD_RO |

mod field;
mod find;
mod operation;
#[cfg(test)]
mod tests;

use crate::clients::EventClass;
use crate::keyspace::Entry;
use cowherd_resp::parse_u64;

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};
use super::index_range::{self, IndexRange, index};
use super::table::{Command, CommandFlags, CommandGroup, KeyPositions, KeyUse};

const READ: CommandFlags = CommandFlags::READONLY;
const FAST_READ: CommandFlags = CommandFlags::READONLY.with(CommandFlags::FAST);
const WRITE: CommandFlags = CommandFlags::WRITE.with(CommandFlags::DENYOOM);

const BAD_OFFSET: ErrorReply = ErrorReply::new("ERR bit offset is not an integer or out of range");
const BAD_BIT: ErrorReply = ErrorReply::new("ERR bit is not an integer or out of range");
const NOT_ONE_OR_ZERO: ErrorReply = ErrorReply::new("ERR The bit argument must be 1 or 0.");

/// All arguments after the operation.
const AFTER_OPERATION: KeyPositions = KeyPositions::spread(2, -1, 1);

const GROUP: CommandGroup = CommandGroup::Bitmap;

pub(super) const COMMANDS: &[Command] = &[
    Command::new("setbit", 4, WRITE, setbit)
        .doc(GROUP, "2.2.0", "Sets or clears a bit, returns what it was.")
        .keys(KeyPositions::ONE, KeyUse::READ_UPDATE)
        .syntax("key offset value:integer"),
    Command::new("getbit", 3, FAST_READ, getbit)
        .doc(GROUP, "2.2.0", "Returns a bit.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key offset"),
    Command::new("bitcount", -2, READ, bitcount)
        .doc(GROUP, "2.6.0", "Counts the bits that are set.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key range:[start end unit:[BYTE|BIT]@7.0.0]"),
    Command::new("bitpos", -3, READ, bitpos)
        .doc(GROUP, "2.8.7", "Finds the first bit that is set or clear.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key bit range:[start end-unit-block:[end unit:[BYTE|BIT]@7.0.0]]"),
    Command::new("bitop", -4, WRITE, operation::bitop)
        .doc(GROUP, "2.6.0", "Combines values bit by bit into another key.")
        .keys(AFTER_OPERATION, KeyUse::OVERWRITE)
        .other_keys(KeyUse::READ)
        .syntax("operation:(AND|OR|XOR|NOT) destkey key..."),
    Command::new("bitfield", -2, WRITE, field::bitfield)
        .doc(GROUP, "3.2.0", "Reads and changes numbers of any width.")
        .keys(KeyPositions::ONE, KeyUse::READ_UPDATE_VARIES)
        .key_use_of(field::key_use)
        .syntax(
            "key [operation:(GET get-block:(encoding offset)|write:([OVERFLOW overflow-block:(WRAP\
             |SAT|FAIL)] write-operation:(SET set-block:(encoding offset value:integer)|INCRBY \
             incrby-block:(encoding offset increment))))...]",
        ),
    Command::new("bitfield_ro", -2, FAST_READ, field::bitfield_ro)
        .doc(GROUP, "6.0.0", "Reads numbers of any width.")
        .keys(KeyPositions::ONE, KeyUse::READ)
        .syntax("key [(GET get-block:(encoding offset))...]"),
];

/// The bit offset in argument `i`. With a `width`, an offset that begins with `#` is a multiple of
/// it.
fn bit_offset(call: &Call<'_>, i: usize, width: Option<u64>) -> Result<u64, ErrorReply> {
    let (digits, unit) = match (call.args.at(i), width) {
        ([b'#', digits @ ..], Some(width)) => (digits, width),
        (digits, _) => (digits, 1),
    };
    parse_u64(digits)
        .and_then(|number| number.checked_mul(unit))
        .filter(|offset| offset / 8 < call.config.proto_max_bulk_len)
        .ok_or(BAD_OFFSET)
}

/// Byte `at` of an entry's value; `None` behind the end.
fn byte(call: &Call<'_>, entry: &Entry, at: u64) -> Result<Option<u8>, ErrorReply> {
    let mut number = itoa::Buffer::new();
    Ok(call.shards.string(entry)?.bytes(&mut number).get(index(at)).copied())
}

/// The mask of a bit within its byte.
const fn mask(bit: u64) -> u8 {
    0x80 >> (bit % 8)
}

fn setbit(call: &mut Call<'_>) -> CommandResult {
    let offset = bit_offset(call, 2, None)?;
    let on = match call.args.at(3) {
        b"0" => false,
        b"1" => true,
        _ => return Err(BAD_BIT),
    };
    let (db, key) = (call.session.db, call.key(1));
    let entry = call.shards.lookup(db, &key);
    let old = match &entry {
        Some(entry) => byte(call, entry, offset / 8)?,
        None => None,
    };
    let was = old.unwrap_or(0) & mask(offset) != 0;
    if old.is_none() || was != on {
        let clear = old.unwrap_or(0) & !mask(offset);
        let new = if on { clear | mask(offset) } else { clear };
        call.shards.write_at(db, &key, entry.as_ref(), offset / 8, &[new])?;
        call.notify(EventClass::STRING, "setbit", key.bytes);
    } else {
        // Nothing is to be written, but the encoding is that of an edited value, as in Redis.
        call.shards.grow(db, &key, entry.as_ref(), 0)?;
    }
    call.reply.integer(i64::from(was));
    Ok(())
}

fn getbit(call: &mut Call<'_>) -> CommandResult {
    let offset = bit_offset(call, 2, None)?;
    let key = call.key(1);
    let old = match call.shards.lookup_read(call.session.db, &key) {
        Some(entry) => byte(call, &entry, offset / 8)?,
        None => None,
    };
    call.reply.integer(i64::from(old.unwrap_or(0) & mask(offset) != 0));
    Ok(())
}

/// Whether the unit in argument `i` is BIT and not BYTE.
fn counts_bits(call: &Call<'_>, i: usize) -> Result<bool, ErrorReply> {
    match call.args.get(i) {
        None => Ok(false),
        Some(_) if call.is(i, "byte") => Ok(false),
        Some(_) if call.is(i, "bit") => Ok(true),
        Some(_) => Err(ErrorReply::SYNTAX),
    }
}

/// The first and the last bit of a range within `len` bytes; `None` if it is empty.
fn bits_within(range: IndexRange, len: u64, in_bits: bool) -> Option<(u64, u64)> {
    if in_bits {
        let bits = range.within(len * 8)?;
        return Some((*bits.start(), *bits.end()));
    }
    let bytes = range.within(len)?;
    Some((bytes.start() * 8, bytes.end() * 8 + 7))
}

fn bitcount(call: &mut Call<'_>) -> CommandResult {
    let range = match call.args.len() {
        2 => IndexRange { start: 0, end: -1 },
        4 | 5 => IndexRange { start: call.integer(2)?, end: call.integer(3)? },
        _ => return Err(ErrorReply::SYNTAX),
    };
    let in_bits = counts_bits(call, 4)?;
    let key = call.key(1);
    let Some(entry) = call.shards.lookup_read(call.session.db, &key) else {
        call.reply.integer(0);
        return Ok(());
    };
    let mut number = itoa::Buffer::new();
    let bytes = call.shards.string(&entry)?.bytes(&mut number);
    let range = match range.is_backward() {
        true => None,
        false => bits_within(range, bytes.len() as u64, in_bits),
    };
    let count = range.map_or(0, |(first, last)| find::ones_between(bytes, first, last));
    call.reply.integer(count.cast_signed());
    Ok(())
}

fn bitpos(call: &mut Call<'_>) -> CommandResult {
    let wanted = match call.integer(2)? {
        0 => false,
        1 => true,
        _ => return Err(NOT_ONE_OR_ZERO),
    };
    if call.args.len() > 6 {
        return Err(ErrorReply::SYNTAX);
    }
    let start = if call.args.len() > 3 { call.integer(3)? } else { 0 };
    let in_bits = counts_bits(call, 5)?;
    let has_end = call.args.len() > 4;
    let end = if has_end { call.integer(4)? } else { -1 };
    let key = call.key(1);
    let Some(entry) = call.shards.lookup_read(call.session.db, &key) else {
        // A missing key counts as clear bits.
        call.reply.integer(if wanted { -1 } else { 0 });
        return Ok(());
    };
    let mut number = itoa::Buffer::new();
    let bytes = call.shards.string(&entry)?.bytes(&mut number);
    let found = match bits_within(IndexRange { start, end }, bytes.len() as u64, in_bits) {
        None => None,
        Some((first, last)) => match find::first(bytes, wanted, first, last) {
            // Without an end argument, the value is followed by clear bits.
            None if !wanted && !has_end => Some(bytes.len() as u64 * 8),
            found => found,
        },
    };
    call.reply.integer(found.map_or(-1, u64::cast_signed));
    Ok(())
}

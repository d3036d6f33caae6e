//! BITFIELD and BITFIELD_RO: integers of 1 to 64 bits at any bit offset of a value.
//!
//! The arithmetic is done in 128 bits, where nothing overflows, and the result is then brought into
//! the range of the type.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::commands::table::KeyUse;
use crate::keyspace::Entry;
use cowherd_resp::{Args, parse_u64};

use super::{bit_offset, index};

const BAD_TYPE: ErrorReply = ErrorReply::new(
    "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but \
     i64 is.",
);
const BAD_OVERFLOW: ErrorReply = ErrorReply::new("ERR Invalid OVERFLOW type specified");
const ONLY_GET: ErrorReply = ErrorReply::new("ERR BITFIELD_RO only supports the GET subcommand");

/// How a request of BITFIELD uses its key: a plain read if it consists of GET and OVERFLOW.
pub(super) fn key_use(args: &Args<'_>) -> KeyUse {
    let mut i = 2;
    while let Some(word) = args.get(i) {
        i += match () {
            () if word.eq_ignore_ascii_case(b"get") => 3,
            () if word.eq_ignore_ascii_case(b"overflow") => 2,
            () => return KeyUse::READ_UPDATE,
        };
    }
    if i == args.len() { KeyUse::READ } else { KeyUse::READ_UPDATE }
}

/// An integer type and its offset in bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct BitField {
    signed: bool,
    bits: u64,
    offset: u64,
}

/// The handling of a number out of range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FieldAction {
    Get,
    Set(i64),
    Add(i64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FieldOperation {
    field: BitField,
    action: FieldAction,
    overflow: Overflow,
}

impl BitField {
    /// The type in argument `i` and the offset in the next one.
    fn parse(call: &Call<'_>, i: usize) -> Result<Self, ErrorReply> {
        let (signed, digits) = match call.args.at(i) {
            [b'i', digits @ ..] => (true, digits),
            [b'u', digits @ ..] => (false, digits),
            _ => return Err(BAD_TYPE),
        };
        let most = if signed { 64 } else { 63 };
        let bits = parse_u64(digits).filter(|bits| (1..=most).contains(bits));
        let bits = bits.ok_or(BAD_TYPE)?;
        let offset = bit_offset(call, i + 1, Some(bits))?;
        Ok(Self { signed, bits, offset })
    }

    /// The length of the shortest value that contains the field, in bytes.
    const fn end(self) -> u64 {
        (self.offset + self.bits).div_ceil(8)
    }

    const fn first_byte(self) -> u64 {
        self.offset / 8
    }

    const fn mask(self) -> u128 {
        (1 << self.bits) - 1
    }

    /// The number of bits below the field in its window.
    const fn shift(self) -> u64 {
        self.end() * 8 - self.offset - self.bits
    }

    const fn range(self) -> (i128, i128) {
        if self.signed {
            (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1)
        } else {
            (0, (1 << self.bits) - 1)
        }
    }

    /// The window: the bytes that the field touches, as one number. Missing bytes are zero.
    fn window(self, bytes: &[u8]) -> u128 {
        (self.first_byte()..self.end()).fold(0, |window, at| {
            window << 8 | u128::from(bytes.get(index(at)).copied().unwrap_or(0))
        })
    }

    /// The number in a window.
    const fn read(self, window: u128) -> i128 {
        self.wrap((window >> self.shift() & self.mask()).cast_signed())
    }

    /// The window with another number in it.
    const fn write(self, window: u128, number: i128) -> u128 {
        let bits = number.cast_unsigned() & self.mask();
        window & !(self.mask() << self.shift()) | bits << self.shift()
    }

    /// The number with the same lowest bits that is in range.
    const fn wrap(self, number: i128) -> i128 {
        let unused = 128 - self.bits;
        let top = number.cast_unsigned() << unused;
        if self.signed { top.cast_signed() >> unused } else { (top >> unused).cast_signed() }
    }

    /// The number in range; `None` for [`Overflow::Fail`].
    fn fit(self, number: i128, overflow: Overflow) -> Option<i128> {
        let (low, high) = self.range();
        if (low..=high).contains(&number) {
            return Some(number);
        }
        match overflow {
            Overflow::Wrap => Some(self.wrap(number)),
            Overflow::Saturate => Some(number.clamp(low, high)),
            Overflow::Fail => None,
        }
    }

    /// A number from an argument; for an unsigned type, a negative one wraps to a large one.
    fn given(self, number: i64) -> i128 {
        if self.signed { number.into() } else { number.cast_unsigned().into() }
    }
}

fn parse(call: &Call<'_>) -> Result<Vec<FieldOperation>, ErrorReply> {
    let mut operations = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut i = 2;
    while i < call.args.len() {
        let more = call.args.len() - i - 1;
        if call.is(i, "overflow") && more >= 1 {
            overflow = match () {
                () if call.is(i + 1, "wrap") => Overflow::Wrap,
                () if call.is(i + 1, "sat") => Overflow::Saturate,
                () if call.is(i + 1, "fail") => Overflow::Fail,
                () => return Err(BAD_OVERFLOW),
            };
            i += 2;
            continue;
        }
        let is_get = call.is(i, "get") && more >= 2;
        let is_set = call.is(i, "set") && more >= 3;
        let is_add = call.is(i, "incrby") && more >= 3;
        if !(is_get || is_set || is_add) {
            return Err(ErrorReply::SYNTAX);
        }
        let field = BitField::parse(call, i + 1)?;
        let action = match (is_get, is_set) {
            (true, _) => FieldAction::Get,
            (_, true) => FieldAction::Set(call.integer(i + 3)?),
            _ => FieldAction::Add(call.integer(i + 3)?),
        };
        operations.push(FieldOperation { field, action, overflow });
        i += if is_get { 3 } else { 4 };
    }
    Ok(operations)
}

/// The length in bytes that the value needs for the writes; `None` if there are none.
fn needed(operations: &[FieldOperation]) -> Option<u64> {
    let writes = operations.iter().filter(|operation| operation.action != FieldAction::Get);
    writes.map(|operation| operation.field.end()).max()
}

pub(super) fn bitfield(call: &mut Call<'_>) -> CommandResult {
    let operations = parse(call)?;
    let (db, key) = (call.session.db, call.key(1));
    let Some(len) = needed(&operations) else { return read_all(call, &operations) };
    let old = call.shards.lookup(db, &key);
    let grows = match &old {
        Some(old) => call.shards.string(old)?.size() < len,
        None => true,
    };
    // Allocates all memory first, so that the operations cannot fail halfway.
    let entry = call.shards.grow(db, &key, old.as_ref(), len)?;
    let mut changes = 0;
    call.reply.array(operations.len());
    for operation in &operations {
        let (number, differs) = run(call, &entry, operation)?;
        match number {
            Some(number) => call.reply.integer(number),
            None => call.reply.null(),
        }
        let is_write = operation.action != FieldAction::Get && number.is_some();
        changes += u64::from(differs || is_write && grows);
    }
    if changes > 0 || grows {
        call.shards.edited(db, &key, changes);
    }
    if changes > 0 {
        call.notify(EventClass::STRING, "setbit", key.bytes);
    }
    Ok(())
}

pub(super) fn bitfield_ro(call: &mut Call<'_>) -> CommandResult {
    let operations = parse(call)?;
    match needed(&operations) {
        None => read_all(call, &operations),
        Some(_) => Err(ONLY_GET),
    }
}

fn read_all(call: &mut Call<'_>, operations: &[FieldOperation]) -> CommandResult {
    let key = call.key(1);
    let mut number = itoa::Buffer::new();
    let bytes = match call.shards.lookup_read(call.session.db, &key) {
        Some(entry) => call.shards.string(&entry)?.bytes(&mut number),
        None => &[],
    };
    call.reply.array(operations.len());
    for FieldOperation { field, .. } in operations {
        call.reply.integer(reply_value(field.read(field.window(bytes))));
    }
    Ok(())
}

/// Runs one operation on an entry of sufficient length. Returns the reply, and whether a byte has
/// changed.
fn run(
    call: &mut Call<'_>,
    entry: &Entry,
    operation: &FieldOperation,
) -> Result<(Option<i64>, bool), ErrorReply> {
    let FieldOperation { field, action, overflow } = *operation;
    let mut digits = itoa::Buffer::new();
    let window = field.window(call.shards.string(entry)?.bytes(&mut digits));
    let old = field.read(window);
    let wanted = match action {
        FieldAction::Get => return Ok((Some(reply_value(old)), false)),
        FieldAction::Set(number) => field.given(number),
        FieldAction::Add(by) => old + i128::from(by),
    };
    let Some(new) = field.fit(wanted, overflow) else { return Ok((None, false)) };
    let mut differs = false;
    let changed = field.write(window, new);
    // Writes only the bytes that differ.
    let touched = index(field.end() - field.first_byte());
    let before = &window.to_be_bytes()[size_of::<u128>() - touched..];
    let after = &changed.to_be_bytes()[size_of::<u128>() - touched..];
    let is_new = |i: &usize| before[*i] != after[*i];
    if let (Some(first), Some(last)) = ((0..touched).find(is_new), (0..touched).rfind(is_new)) {
        differs = true;
        call.shards.edit(entry, field.first_byte() + first as u64, &after[first..=last]);
    }
    let reply = reply_value(if matches!(action, FieldAction::Set(_)) { old } else { new });
    Ok((Some(reply), differs))
}

/// The number as a reply; unsigned fields have at most 63 bits.
#[expect(clippy::cast_possible_truncation, reason = "at most 64 bits with the sign")]
const fn reply_value(number: i128) -> i64 {
    number as i64
}

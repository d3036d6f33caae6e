//! BITFIELD: numbers of 1 to 64 bits at any bit of a value.
//!
//! All arithmetic is done in 128 bits, where nothing overflows, and brought into the type's range
//! afterwards.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::Entry;
use cowherd_resp::parse_u64;

use super::{bit_offset, index};

const BAD_TYPE: ErrorReply = ErrorReply::new(
    "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but \
     i64 is.",
);
const BAD_OVERFLOW: ErrorReply = ErrorReply::new("ERR Invalid OVERFLOW type specified");
const ONLY_GET: ErrorReply = ErrorReply::new("ERR BITFIELD_RO only supports the GET subcommand");

/// A field: a type, and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Field {
    signed: bool,
    bits: u64,
    offset: u64,
}

/// What happens to a number that does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Get,
    Set(i64),
    Add(i64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Operation {
    field: Field,
    action: Action,
    overflow: Overflow,
}

impl Field {
    /// The type that argument `i` names and the offset after it.
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

    /// Bytes that a value needs to have all of it.
    const fn end(self) -> u64 {
        (self.offset + self.bits).div_ceil(8)
    }

    const fn first_byte(self) -> u64 {
        self.offset / 8
    }

    const fn mask(self) -> u128 {
        (1 << self.bits) - 1
    }

    /// Bits below it in its window.
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

    /// The bytes that it touches as one number; bytes that are not there are zero.
    fn window(self, bytes: &[u8]) -> u128 {
        (self.first_byte()..self.end()).fold(0, |window, at| {
            window << 8 | u128::from(bytes.get(index(at)).copied().unwrap_or(0))
        })
    }

    /// Its number in a window.
    const fn read(self, window: u128) -> i128 {
        self.wrap((window >> self.shift() & self.mask()).cast_signed())
    }

    /// The window with another number in it.
    const fn write(self, window: u128, number: i128) -> u128 {
        let bits = number.cast_unsigned() & self.mask();
        window & !(self.mask() << self.shift()) | bits << self.shift()
    }

    /// The number that the lowest bits of another one are.
    const fn wrap(self, number: i128) -> i128 {
        let unused = 128 - self.bits;
        let top = number.cast_unsigned() << unused;
        if self.signed { top.cast_signed() >> unused } else { (top >> unused).cast_signed() }
    }

    /// Brings a number into the range; `None` if it must not be.
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

    /// A number that a client gave for it; below zero it is a large one if there is no sign.
    fn given(self, number: i64) -> i128 {
        if self.signed { number.into() } else { number.cast_unsigned().into() }
    }
}

fn parse(call: &Call<'_>) -> Result<Vec<Operation>, ErrorReply> {
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
        let field = Field::parse(call, i + 1)?;
        let action = match (is_get, is_set) {
            (true, _) => Action::Get,
            (_, true) => Action::Set(call.integer(i + 3)?),
            _ => Action::Add(call.integer(i + 3)?),
        };
        operations.push(Operation { field, action, overflow });
        i += if is_get { 3 } else { 4 };
    }
    Ok(operations)
}

/// Bytes that the operations need to write; `None` if they only read.
fn needed(operations: &[Operation]) -> Option<u64> {
    let writes = operations.iter().filter(|operation| operation.action != Action::Get);
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
    // All memory is got here, so that what follows cannot fail halfway.
    let entry = call.shards.grow(db, &key, old.as_ref(), len)?;
    let mut changed = grows;
    call.reply.array(operations.len());
    for operation in &operations {
        match run(call, &entry, operation, &mut changed)? {
            Some(number) => call.reply.integer(number),
            None => call.reply.null(),
        }
    }
    if changed {
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

fn read_all(call: &mut Call<'_>, operations: &[Operation]) -> CommandResult {
    let key = call.key(1);
    let mut number = itoa::Buffer::new();
    let bytes = match call.shards.lookup_read(call.session.db, &key) {
        Some(entry) => call.shards.string(&entry)?.bytes(&mut number),
        None => &[],
    };
    call.reply.array(operations.len());
    for Operation { field, .. } in operations {
        call.reply.integer(answer(field.read(field.window(bytes))));
    }
    Ok(())
}

/// Runs one operation on an entry that was grown for it; returns the reply, and notes if a byte
/// has changed.
fn run(
    call: &mut Call<'_>,
    entry: &Entry,
    operation: &Operation,
    has_changed: &mut bool,
) -> Result<Option<i64>, ErrorReply> {
    let Operation { field, action, overflow } = *operation;
    let mut digits = itoa::Buffer::new();
    let window = field.window(call.shards.string(entry)?.bytes(&mut digits));
    let old = field.read(window);
    let wanted = match action {
        Action::Get => return Ok(Some(answer(old))),
        Action::Set(number) => field.given(number),
        Action::Add(by) => old + i128::from(by),
    };
    let Some(new) = field.fit(wanted, overflow) else { return Ok(None) };
    let changed = field.write(window, new);
    // Only bytes that differ are written.
    let touched = index(field.end() - field.first_byte());
    let before = &window.to_be_bytes()[size_of::<u128>() - touched..];
    let after = &changed.to_be_bytes()[size_of::<u128>() - touched..];
    let differ = |i: &usize| before[*i] != after[*i];
    if let (Some(first), Some(last)) = ((0..touched).find(differ), (0..touched).rfind(differ)) {
        *has_changed = true;
        call.shards.edit(
            call.session.db,
            &call.key(1),
            entry,
            field.first_byte() + first as u64,
            &after[first..=last],
        );
    }
    Ok(Some(answer(if matches!(action, Action::Set(_)) { old } else { new })))
}

/// All numbers of fields fit: unsigned ones have 63 bits at most.
#[expect(clippy::cast_possible_truncation, reason = "at most 64 bits with the sign")]
const fn answer(number: i128) -> i64 {
    number as i64
}

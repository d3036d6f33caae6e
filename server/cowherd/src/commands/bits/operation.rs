//! BITOP: bitwise operations between values.

use crate::clients::EventClass;
use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};

const NOT_ALONE: ErrorReply =
    ErrorReply::new("ERR BITOP NOT must be called with a single source key.");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BitOperation {
    And,
    Or,
    Xor,
    Not,
}

impl BitOperation {
    fn parse(call: &Call<'_>) -> Result<Self, ErrorReply> {
        let all = [("and", Self::And), ("or", Self::Or), ("xor", Self::Xor), ("not", Self::Not)];
        let found = all.into_iter().find(|(name, _)| call.is(1, name));
        found.map(|(_, operation)| operation).ok_or(ErrorReply::SYNTAX)
    }

    /// Combines `result` with another value; the shorter one is padded with zeros.
    fn apply(self, result: &mut Vec<u8>, value: &[u8]) {
        if result.len() < value.len() {
            result.resize(value.len(), 0);
        }
        let (shared, beyond) = result.split_at_mut(value.len());
        let pairs = shared.iter_mut().zip(value);
        match self {
            Self::And => {
                pairs.for_each(|(byte, other)| *byte &= other);
                beyond.fill(0);
            }
            Self::Or => pairs.for_each(|(byte, other)| *byte |= other),
            Self::Xor => pairs.for_each(|(byte, other)| *byte ^= other),
            Self::Not => {}
        }
    }
}

pub(super) fn bitop(call: &mut Call<'_>) -> CommandResult {
    let operation = BitOperation::parse(call)?;
    if operation == BitOperation::Not && call.args.len() != 4 {
        return Err(NOT_ALONE);
    }
    let db = call.session.db;
    let mut result: Vec<u8> = Vec::new();
    for i in 3..call.args.len() {
        let key = call.key(i);
        let mut number = itoa::Buffer::new();
        let value = match call.shards.lookup_read(db, &key) {
            Some(entry) => call.shards.string(&entry)?.bytes(&mut number),
            None => &[],
        };
        if i == 3 {
            result.extend_from_slice(value);
        } else {
            operation.apply(&mut result, value);
        }
    }
    if operation == BitOperation::Not {
        result.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let target = call.key(2);
    if result.is_empty() {
        if call.shards.remove(db, &target) {
            call.notify(EventClass::GENERIC, "del", target.bytes);
        }
    } else {
        call.shards.set_raw(db, &target, &result)?;
        call.notify(EventClass::STRING, "set", target.bytes);
    }
    call.reply.integer(result.len() as i64);
    Ok(())
}

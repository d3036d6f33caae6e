//! The patterns of BY and GET.
//!
//! ```text
//! weight_*         the string of the key whose name has the element in place of the star
//! object_*->name   a field of the hash of that key
//! #                the element itself
//! ```

use crate::commands::call::Call;
use crate::keyspace::ValueType;

/// The value of a pattern for an element; `None` without a star or without such a value.
pub(super) fn look_up(call: &mut Call<'_>, pattern: &[u8], element: &[u8]) -> Option<Vec<u8>> {
    if pattern == b"#" {
        return Some(element.to_vec());
    }
    let star = pattern.iter().position(|byte| *byte == b'*')?;
    let (before, behind) = (&pattern[..star], &pattern[star + 1..]);
    let arrow = behind.windows(2).position(|two| two == b"->").filter(|at| at + 2 < behind.len());
    let (behind, field) = match arrow {
        Some(at) => (&behind[..at], Some(&behind[at + 2..])),
        None => (behind, None),
    };
    let name = [before, element, behind].concat();
    let key = call.shared.keyspace.key(call.session.db, &name);
    let entry = call.shards.lookup_read(call.session.db, &key)?;
    let mut digits = itoa::Buffer::new();
    match field {
        None => Some(call.shards.string(&entry).ok()?.bytes(&mut digits).to_vec()),
        Some(field) if entry.kind() == ValueType::Hash => {
            let (value, _) = call.shards.hash_get(&entry, field)?;
            Some(value.bytes(&mut digits).to_vec())
        }
        Some(_) => None,
    }
}

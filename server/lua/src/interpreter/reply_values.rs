//! Replies of commands as Lua values.
//!
//! | reply | Lua |
//! |---|---|
//! | integer | number |
//! | bulk string | string |
//! | null, null array | `false`; `nil` in RESP3 |
//! | array | table |
//! | status | table with `ok` |
//! | error | table with `err` |
//! | map, set | table with `map`, with `set` (members as keys, values `true`) |
//! | double, big number | table with `double`, with `big_number` |
//! | boolean | boolean |
//! | verbatim string | table with `verbatim_string`: a table with `string` and `format` |

use cowherd_resp::ProtocolVersion;

use crate::stack::Stack;

/// Pushes the first reply in `input`, which the server's own writer has made; returns the rest.
/// Does not check more than it needs: a reply that ends early is pushed as `nil`.
pub(super) fn push_reply<'r>(stack: Stack<'_>, input: &'r [u8]) -> &'r [u8] {
    stack.require_stack(6, "too many nested replies");
    let Some((&kind, rest)) = input.split_first() else {
        stack.push_nil();
        return input;
    };
    let end = memchr::memchr(b'\r', rest).unwrap_or(rest.len());
    let line = &rest[..end];
    let rest = rest.get(end + 2..).unwrap_or_default();
    match kind {
        b':' => {
            #[expect(clippy::cast_precision_loss, reason = "numbers of Lua are doubles")]
            stack.push_number(number(line) as f64);
        }
        b'$' => match usize::try_from(number(line)) {
            Ok(length) => {
                stack.push_bytes(&rest[..length.min(rest.len())]);
                return rest.get(length + 2..).unwrap_or_default();
            }
            Err(_) => stack.push_boolean(false),
        },
        b'+' => push_field(stack, line, c"ok"),
        b'-' => {
            push_field(stack, line, c"err");
            // It was counted when the command failed.
            stack.push_boolean(true);
            stack.set_field(c"ignore_error_stats_update");
        }
        b'*' | b'>' => match usize::try_from(number(line)) {
            Ok(length) => return push_elements(stack, rest, length),
            Err(_) => stack.push_boolean(false),
        },
        b'%' => {
            let length = usize::try_from(number(line)).unwrap_or_default();
            return push_entries(stack, rest, length, c"map", true);
        }
        b'~' => {
            let length = usize::try_from(number(line)).unwrap_or_default();
            return push_entries(stack, rest, length, c"set", false);
        }
        b'#' => stack.push_boolean(line == b"t"),
        b',' => {
            stack.push_table();
            let text = std::str::from_utf8(line).unwrap_or_default();
            stack.push_number(text.parse().unwrap_or(f64::NAN));
            stack.set_field(c"double");
        }
        b'(' => push_field(stack, line, c"big_number"),
        b'=' => {
            let length = usize::try_from(number(line)).unwrap_or_default();
            let (format, text) = rest[..length.min(rest.len())].split_at(3.min(length));
            stack.push_table();
            push_field(stack, text.get(1..).unwrap_or_default(), c"string");
            stack.push_bytes(format);
            stack.set_field(c"format");
            stack.set_field(c"verbatim_string");
            return rest.get(length + 2..).unwrap_or_default();
        }
        // `_`, null in RESP3.
        _ => stack.push_nil(),
    }
    rest
}

/// Pushes a table with one field.
fn push_field(stack: Stack<'_>, text: &[u8], name: &std::ffi::CStr) {
    stack.push_table();
    stack.push_bytes(text);
    stack.set_field(name);
}

fn push_elements<'r>(stack: Stack<'_>, mut rest: &'r [u8], length: usize) -> &'r [u8] {
    match stack.slot().version.get() {
        ProtocolVersion::Resp2 => stack.push_table_for(length.min(rest.len())),
        // Null is `nil`: the length that `#` finds in a table with holes depends on how the table
        // has grown.
        ProtocolVersion::Resp3 => stack.push_table(),
    }
    for i in 1..=i32::try_from(length).unwrap_or(i32::MAX) {
        rest = push_reply(stack, rest);
        stack.set_element(i);
    }
    rest
}

/// Pushes a table with the field `name`, whose keys are replies, and whose values too if `is_map`.
fn push_entries<'r>(
    stack: Stack<'_>,
    mut rest: &'r [u8],
    length: usize,
    name: &std::ffi::CStr,
    is_map: bool,
) -> &'r [u8] {
    stack.push_table();
    stack.push_table();
    for _ in 0..length {
        rest = push_reply(stack, rest);
        if is_map {
            rest = push_reply(stack, rest);
        } else {
            stack.push_boolean(true);
        }
        stack.set_entry();
    }
    stack.set_field(name);
    rest
}

/// An integer of a reply.
fn number(line: &[u8]) -> i64 {
    cowherd_resp::parse_i64(line).unwrap_or_default()
}

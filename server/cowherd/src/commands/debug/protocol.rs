//! DEBUG PROTOCOL: a reply of each type, for tests of clients.

use cowherd_resp::ProtocolVersion;

use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};

#[expect(clippy::approx_constant, reason = "the digits are those of Redis's reply")]
const DOUBLE: f64 = 3.141;

/// `DEBUG PROTOCOL type`
pub(super) fn protocol(call: &mut Call<'_>) -> CommandResult {
    let name = call.args.at(2).to_ascii_lowercase();
    let reply = &mut *call.reply;
    match &name[..] {
        b"string" => reply.bulk_str("Hello World"),
        b"integer" => reply.integer(12345),
        b"double" => reply.double(DOUBLE),
        b"bignum" => reply.big_number(b"1234567999999999999999999999999999999"),
        b"null" => reply.null(),
        b"array" | b"set" => {
            if name == b"set" {
                reply.set(3)
            } else {
                reply.array(3)
            };
            (0..3).for_each(|number| reply.integer(number));
        }
        b"map" => {
            reply.map(3);
            for number in 0..3 {
                reply.integer(number);
                reply.boolean(number == 1);
            }
        }
        b"attrib" => {
            if reply.version == ProtocolVersion::Resp3 {
                reply.attribute(1);
                reply.bulk_str("key-popularity");
                reply.array(2);
                reply.bulk_str("key:123");
                reply.integer(90);
            }
            reply.bulk_str("Some real reply following the attribute");
        }
        b"push" => {
            if reply.version == ProtocolVersion::Resp2 {
                return Err(ErrorReply::new("ERR RESP2 is not supported by this command"));
            }
            // A message of a command that its own client gets follows the reply.
            reply.bulk_str("Some real reply following the push reply");
            reply.push(2);
            reply.bulk_str("server-cpu-usage");
            reply.integer(42);
        }
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        b"verbatim" => reply.verbatim(b"txt", b"This is a verbatim\nstring"),
        _ => {
            return Err(ErrorReply::new(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}

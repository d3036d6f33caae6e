//! Strings: GET, SET and their kin.

use crate::keyspace::{Expiry, Value};

use super::call::Call;
use super::failure::{Answer, Failure};
use super::table::{Command, Flags, Keys};

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE.and(Flags::DENYOOM);

/// The family's rows.
pub(super) const COMMANDS: &[Command] = &[
    Command::new("get", 2, READ, Keys::ONE, get).doc(
        "string",
        "1.0.0",
        "Returns the value of a key.",
    ),
    Command::new("set", -3, WRITE, Keys::ONE, set).doc(
        "string",
        "1.0.0",
        "Sets the value of a key, with its expiry and on conditions.",
    ),
];

fn get(call: &mut Call<'_>) -> Answer {
    let key = call.key(1);
    match call.shards.lookup_read(call.session.db, &key) {
        None => call.reply.null(),
        Some(entry) => match call.shards.string(&entry)? {
            Value::Bytes(bytes) => call.reply.bulk(bytes),
            Value::Int(number) => call.reply.bulk_integer(number),
        },
    }
    Ok(())
}

fn set(call: &mut Call<'_>) -> Answer {
    if call.args.len() > 3 {
        return Err(Failure::SYNTAX);
    }
    let key = call.key(1);
    call.shards.set(call.session.db, &key, call.args.at(2), Expiry::None)?;
    call.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Bench;

    #[test]
    fn a_value_comes_back() {
        let bench = Bench::new();
        assert_eq!(bench.run("SET k v"), "+OK\r\n");
        assert_eq!(bench.run("GET k"), "$1\r\nv\r\n");
        assert_eq!(bench.run("GET none"), "$-1\r\n");
        assert_eq!(bench.run("GET"), "-ERR wrong number of arguments for 'get' command\r\n");
    }
}

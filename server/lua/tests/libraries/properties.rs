//! Properties: values survive a round trip, and decoders answer all input with a value or an error.

use crate::lua;
use mlua::{Lua, MultiValue, Value};
use proptest::prelude::*;
use std::fmt::Write as _;

/// Compares two values deeply.
const EQUAL: &str = "
    local function equal(a, b)
      if type(a) ~= 'table' or type(b) ~= 'table' then return a == b end
      for k, v in pairs(a) do if not equal(v, b[k]) then return false end end
      for k in pairs(b) do if a[k] == nil then return false end end
      return true
    end ";

fn round_trip(value: &str, call: &str) -> String {
    format!("{EQUAL} local v = {value} return equal({call}, v)")
}

fn literal(bytes: &[u8]) -> String {
    let escape = |mut text: String, byte: &u8| {
        write!(text, "\\{byte:03}").unwrap();
        text
    };
    format!("'{}'", bytes.iter().fold(String::new(), escape))
}

fn string() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| literal(&bytes))
}

/// Text of Lua values without empty tables, which have no kind.
fn value(scalar: BoxedStrategy<String>) -> impl Strategy<Value = String> {
    scalar.prop_recursive(5, 60, 6, |inner| {
        let array = prop::collection::vec(inner.clone(), 1..6);
        let object = prop::collection::vec((string(), inner), 1..6);
        let member = |(key, value): &(String, String)| format!("[{key}]={value}");
        prop_oneof![
            array.prop_map(|values| format!("{{{}}}", values.join(","))),
            object.prop_map(move |members| {
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

fn scalar(numbers: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let others = prop_oneof![Just("true".to_owned()), Just("false".to_owned())];
    prop_oneof![numbers, string(), others].boxed()
}

/// Calls `function` with arguments from Rust; panics if it neither returns nor raises a string.
fn call(lua: &Lua, function: &str, arguments: impl mlua::IntoLuaMulti) {
    let script = format!(
        "local function check(ok, ...) return ok or type((...)) == 'string' end
         return check(pcall({function}, ...))"
    );
    let answer: MultiValue = lua.load(script).call(arguments).unwrap();
    assert_eq!(answer.into_vec(), [Value::Boolean(true)]);
}

proptest! {
    #[test]
    fn json_survives(
        value in value(scalar((-1_000_000_i64..1_000_000).prop_map(|n| format!("{n}/64")).boxed()))
    ) {
        let script = round_trip(&value, "cjson.decode(cjson.encode(v))");
        prop_assert!(lua().load(script).eval::<bool>().unwrap());
    }

    #[test]
    fn messages_survive(
        value in value(scalar(any::<f64>().prop_map(|n| {
            if n.is_finite() { format!("{n:e}") } else { "1/0".to_owned() }
        }).boxed()))
    ) {
        let script = round_trip(&value, "cmsgpack.unpack(cmsgpack.pack(v))");
        prop_assert!(lua().load(script).eval::<bool>().unwrap());
    }

    #[test]
    fn structs_survive(
        big: bool, alignment in 0_u32..5, i: i32, l in -1_i64 << 53..1 << 53, d: f64, s in "[a-z]*"
    ) {
        prop_assume!(!d.is_nan());
        let order = if big { '>' } else { '<' };
        let format = format!("{order}!{} b i l d s H", 1 << alignment);
        let script = "
            local format, i, l, d, s = ...
            local text = struct.pack(format, -5, i, l, d, s, 65535)
            local b, i2, l2, d2, s2, h, position = struct.unpack(format, text)
            return b == -5 and i2 == i and l2 == l and d2 == d and s2 == s and h == 65535
              and position == #text + 1";
        prop_assert!(lua().load(script).call::<bool>((format, i, l, d, s)).unwrap());
    }

    #[test]
    fn decoders_answer_all_bytes(text: Vec<u8>, limit in -3..9, offset in -3..40) {
        let lua = lua();
        let bytes = lua.create_string(&text).unwrap();
        call(&lua, "cjson.decode", bytes.clone());
        call(&lua, "cmsgpack.unpack", bytes.clone());
        call(&lua, "cmsgpack.unpack_one", (bytes.clone(), offset));
        call(&lua, "cmsgpack.unpack_limit", (bytes, limit, offset));
    }

    #[test]
    fn structs_answer_all_formats(format: Vec<u8>, data: Vec<u8>, position: i64) {
        let lua = lua();
        let format = lua.create_string(&format).unwrap();
        let data = lua.create_string(&data).unwrap();
        call(&lua, "struct.size", format.clone());
        call(&lua, "struct.pack", (format.clone(), data.clone(), 1, 2.5, data.clone()));
        call(&lua, "struct.unpack", (format.clone(), data.clone()));
        call(&lua, "struct.unpack", (format, data, position));
    }

    #[test]
    fn structs_answer_likely_formats(
        format in "([<>! bBhHlLTiIfdxcs]|[!icI][0-9]{1,3}){0,12}",
        data: Vec<u8>,
        position in -9..300,
    ) {
        let lua = lua();
        let data = lua.create_string(&data).unwrap();
        call(&lua, "struct.size", format.clone());
        call(&lua, "struct.pack", (format.clone(), data.clone(), 1, 2.5, data.clone()));
        call(&lua, "struct.unpack", (format, data, position));
    }
}

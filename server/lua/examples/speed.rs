//! Compares the time per call of the libraries with that of redis-server: the same Lua loops here
//! and through EVAL. Needs redis-server, or its path in `COWHERD_LUA_PEER`.
//!
//! `cargo run --release -p cowherd-lua --example speed`
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

#[path = "../tests/peer/local.rs"]
mod local;
#[path = "../tests/peer/redis.rs"]
mod redis;

use std::time::{Duration, Instant};

const CALLS: u32 = 10_000;

/// A document of about 1 KB as JSON: members of all types, a list of numbers, some escapes.
const DOCUMENT: &str = r#"
local doc = {id = 1234567, name = 'A name of some length', active = true, score = 12.375,
  tags = {'red', 'green', 'blue', 'yellow'}, text = 'One "line" of text\nand another one / more',
  numbers = {}, items = {}}
for i = 1, 40 do doc.numbers[i] = i * 1000 + 7 end
for i = 1, 10 do
  doc.items[i] = {sku = 'SKU-' .. i * 7919, count = i, price = i * 9.99, note = 'x y z', ok = false}
end
local text, packed = cjson.encode(doc), cmsgpack.pack(doc)
local record = struct.pack('>I2i8dsb', 513, 1, 0.5, 'some text', 7)
"#;

const LOOPS: &[(&str, &str)] = &[
    ("cjson.encode", "cjson.encode(doc)"),
    ("cjson.decode", "cjson.decode(text)"),
    ("cmsgpack.pack", "cmsgpack.pack(doc)"),
    ("cmsgpack.unpack", "cmsgpack.unpack(packed)"),
    ("struct.pack", "struct.pack('>I2i8dsb', 513, i, 0.5, 'some text', 7)"),
    ("struct.unpack", "struct.unpack('>I2i8dsb', record)"),
    ("bit.bxor", "bit.bxor(i, 0x5555)"),
    ("(empty loop)", "nothing(i)"),
];

/// The shortest of several runs.
fn shortest(mut run: impl FnMut()) -> Duration {
    let time = |()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..9).map(|_| ()).map(time).min().unwrap()
}

fn main() {
    let runner = local::Runner::new();
    let mut peer = redis::Peer::start();
    println!("{:16} {:>12} {:>12}", "", "cowherd", "redis");
    for (name, call) in LOOPS {
        let script = format!(
            "{DOCUMENT} local function nothing() end for i = 1, {CALLS} do local r = {call} end \
             return 'done'"
        );
        let run = || assert_eq!(runner.eval(script.as_bytes()), b"done");
        let per_call = |time: Duration| time.as_nanos() as f64 / f64::from(CALLS);
        let here = per_call(shortest(run));
        let there = peer.as_mut().map_or(f64::NAN, |peer| {
            per_call(shortest(|| assert_eq!(peer.eval(script.as_bytes()), b"done")))
        });
        println!("{name:16} {here:9.0} ns {there:9.0} ns   {:.2}x", here / there);
    }
}

//! Random snippets.

use fastrand::Rng;

/// Text of a Lua string literal.
fn literal(bytes: &[u8]) -> String {
    let mut text = String::from("'");
    for &byte in bytes {
        match byte {
            b'\'' | b'\\' | 0..=31 | 127.. => text.push_str(&format!("\\{byte:03}")),
            _ => text.push(char::from(byte)),
        }
    }
    text + "'"
}

fn pick<'a, T: ?Sized>(random: &mut Rng, choices: &[&'a T]) -> &'a T {
    choices[random.usize(..choices.len())]
}

/// Text of a number, often one at the limit of a format.
fn number(random: &mut Rng) -> String {
    const SPECIAL: &[&str] = &[
        "0",
        "-0",
        "1",
        "-1",
        "0.5",
        "-0.5",
        "1.5",
        "2.5",
        "1/0",
        "-1/0",
        "0/0",
        "1e15",
        "1e14",
        "99999999999999.5",
        "1e-5",
        "0.0001",
        "2^31",
        "2^32",
        "2^53",
        "2^63",
        "2^64",
        "-2^31",
        "-2^63",
        "1e300",
        "5e-324",
        "1/3",
        "127",
        "128",
        "255",
        "256",
        "-32",
        "-33",
        "-128",
        "-129",
        "65535",
        "65536",
        "-32768",
        "-32769",
        "2^31-1",
        "-2^31-1",
        "2^32-1",
    ];
    match random.u8(..6) {
        0 => pick(random, SPECIAL).to_owned(),
        1 => random.i32(-300..300).to_string(),
        2 => random.i64(..).to_string(),
        3 => format!("{:e}", f64::from_bits(random.u64(..)))
            .replace("inf", "1e999")
            .replace("NaN", "0"),
        4 => format!("{}/{}", random.i32(-100_000..100_000), random.i32(1..1000)),
        _ => format!("{}", (random.f64() - 0.5) * 10_f64.powi(random.i32(-8..20))),
    }
}

/// Random bytes: letters, all ASCII, all bytes, or pieces of JSON.
fn bytes(random: &mut Rng, longest: usize) -> Vec<u8> {
    let length = random.usize(..=longest);
    let kind = random.u8(..4);
    let byte = |random: &mut Rng| match kind {
        0 => random.u8(b'a'..=b'z'),
        1 => random.u8(..128),
        2 => random.u8(..),
        _ => *b"\"\\/\n\t\x7F\x00 {}[]:,u".get(random.usize(..16)).unwrap_or(&b'x'),
    };
    (0..length).map(|_| byte(random)).collect()
}

fn string(random: &mut Rng) -> String {
    let longest = if random.u8(..20) == 0 { 400 } else { 12 };
    literal(&bytes(random, longest))
}

/// Text of a value for the encoders.
fn value(random: &mut Rng, depth: usize) -> String {
    match random.u8(..if depth == 0 { 10 } else { 14 }) {
        0..=3 => number(random),
        4..=6 => string(random),
        7 => pick(random, &["true", "false"]).to_owned(),
        8 => pick(random, &["nil", "cjson.null", "{}", "true", "function() end"]).to_owned(),
        9 => literal(number(random).as_bytes()),
        10 | 11 => {
            let values: Vec<_> = (0..random.u8(..6)).map(|_| value(random, depth - 1)).collect();
            format!("{{{}}}", values.join(","))
        }
        _ => {
            let entry = |random: &mut Rng| {
                let key = match random.u8(..12) {
                    // Longer keys have another order in Lua of Redis.
                    0..=5 => literal(&bytes(random, 31)),
                    6 | 7 => random.i32(-2..12).to_string(),
                    8 => format!("{}.5", random.i32(-5..5)),
                    9 => random.i64(..1 << 40).to_string(),
                    10 => random.i32(1..40).to_string(),
                    _ => "true".to_owned(),
                };
                format!("[{key}]={}", value(random, depth - 1))
            };
            let entries: Vec<_> = (0..random.u8(..6)).map(|_| entry(random)).collect();
            format!("{{{}}}", entries.join(","))
        }
    }
}

/// JSON text, mostly valid.
fn json(random: &mut Rng, depth: usize) -> Vec<u8> {
    let space = |random: &mut Rng| pick(random, &["", "", "", " ", "\n", "\t", "\r "]);
    let mut text = space(random).as_bytes().to_vec();
    match random.u8(..if depth == 0 { 8 } else { 12 }) {
        0 | 1 => text.extend(json_number(random).as_bytes()),
        2..=4 => json_string(random, &mut text),
        5 => text.extend(b"null"),
        6 => text.extend(b"true"),
        7 => text.extend(b"false"),
        8 | 9 => {
            text.push(b'[');
            for i in 0..random.u8(..5) {
                if i > 0 {
                    text.push(b',');
                }
                text.extend(json(random, depth - 1));
            }
            text.push(b']');
        }
        _ => {
            text.push(b'{');
            for i in 0..random.u8(..5) {
                if i > 0 {
                    text.extend(b", ");
                }
                json_string_up_to(6, random, &mut text);
                text.extend(space(random).as_bytes());
                text.push(b':');
                text.extend(json(random, depth - 1));
            }
            text.push(b'}');
        }
    }
    text.extend(space(random).as_bytes());
    text
}

fn json_number(random: &mut Rng) -> String {
    match random.u8(..8) {
        0 => random.i32(-1000..1000).to_string(),
        1 => random.i64(..).to_string(),
        2 => format!("{:e}", f64::from_bits(random.u64(..))),
        3 => format!("{}", random.f64() * 1e6),
        4 => format!("{}.{}e{}", random.u8(..), random.u32(..), random.i32(-340..340)),
        5 => format!(
            "{}0x{:x}.{:x}p{}",
            pick(random, &["", "-"]),
            random.u64(..) >> random.u32(..64),
            random.u64(..),
            random.i32(-1200..1100)
        ),
        6 => pick(
            random,
            &[
                "nan",
                "-NaN",
                "inf",
                "-Infinity",
                "+1",
                "01",
                "-01",
                "1.",
                "-.5",
                "1e",
                "1e+",
                "0x",
                "0x.p1",
                "0xfp",
                "-",
                "+",
            ],
        )
        .to_owned(),
        _ => format!("{}{}", random.u64(..), random.u64(..)),
    }
}

fn json_string(random: &mut Rng, text: &mut Vec<u8>) {
    let longest = if random.u8(..15) == 0 { 300 } else { 6 };
    json_string_up_to(longest, random, text);
}

fn json_string_up_to(longest: usize, random: &mut Rng, text: &mut Vec<u8>) {
    text.push(b'"');
    for _ in 0..random.usize(..=longest) {
        match random.u8(..10) {
            0 => text
                .extend(pick(random, &["\\n", "\\t", "\\/", "\\\\", "\\\"", "\\b", "\\f"]).bytes()),
            1 => text.extend(format!("\\u{:04x}", random.u32(..0xD800)).bytes()),
            2 => {
                let (high, low) = (random.u32(0xD800..0xDC00), random.u32(0xDC00..0xE000));
                text.extend(format!("\\u{high:04X}\\u{low:04x}").bytes());
            }
            3 => text.extend(pick(random, &["é", "€", "😀", "\u{7F}", "\u{1}"]).bytes()),
            _ => text.push(random.u8(b'a'..=b'z')),
        }
    }
    text.push(b'"');
}

/// Changes, removes, adds or copies a few bytes.
fn damage(random: &mut Rng, text: &mut Vec<u8>, with: &[u8]) {
    for _ in 0..random.u8(1..4) {
        let at = random.usize(..=text.len());
        match random.u8(..4) {
            0 if at < text.len() => drop(text.remove(at)),
            1 if at < text.len() => text[at] = with[random.usize(..with.len())],
            2 => text.insert(at, with[random.usize(..with.len())]),
            _ if random.bool() => text.truncate(at),
            _ => {}
        }
    }
}

/// Calls that change the settings of `c`.
fn settings(random: &mut Rng) -> String {
    let mut text = String::from("local c = cjson.new() ");
    for _ in 0..random.u8(..3) {
        let number = random.i32(-1..6);
        let switch = pick(random, &["true", "false", "'on'", "'off'", "nil", "'null'", "'x'", "1"]);
        let call = match random.u8(..8) {
            0 => format!("c.encode_max_depth({number})"),
            1 => format!("c.decode_max_depth({number})"),
            2 => format!("c.encode_sparse_array({switch}, {number}, {})", random.i32(0..12)),
            3 => format!("c.encode_number_precision({})", random.i32(0..17)),
            4 => format!("c.encode_keep_buffer({switch})"),
            5 => format!("c.decode_invalid_numbers({switch})"),
            _ => format!("c.encode_invalid_numbers({switch})"),
        };
        text.push_str(&format!("r[#r + 1] = {{pcall(function() return {call} end)}} "));
    }
    text
}

pub fn cjson(random: &mut Rng) -> Vec<u8> {
    let new = if random.u8(..3) == 0 { settings(random) } else { "local c = cjson ".to_owned() };
    let call = match random.u8(..10) {
        0..=3 => format!("return r, c.encode({})", value(random, 4)),
        4..=7 => {
            let mut text = json(random, 4);
            if random.u8(..3) == 0 {
                damage(random, &mut text, b"\"\\/\x00 {}[]:,uxtfn0123456789eE+-.aN");
            }
            format!("return r, c.decode({})", literal(&text))
        }
        8 => format!("return r, c.encode(c.decode({}))", literal(&json(random, 4))),
        _ => format!("return r, c.decode(c.encode({}))", value(random, 4)),
    };
    format!("local r = {{}} {new} {call}").into_bytes()
}

/// MessagePack text, mostly valid.
fn message(random: &mut Rng, depth: usize, text: &mut Vec<u8>) {
    let count = random.u8(..5);
    match random.u8(..if depth == 0 { 9 } else { 13 }) {
        0 => text.push(random.u8(..)),
        1 => text.push(pick(random, &[&0xC0, &0xC2, &0xC3, &0x05, &0xF0]).to_owned()),
        2 => {
            let code = random.u8(0xCA..0xD4);
            let length = [4, 8, 1, 2, 4, 8, 1, 2, 4, 8][usize::from(code - 0xCA)];
            text.push(code);
            text.extend((0..length).map(|_| random.u8(..)));
        }
        3..=6 => {
            let content = bytes(random, 40);
            let length = content.len() as u8;
            match random.u8(..4) {
                0 => text.extend([0xD9, length]),
                1 => text.extend([0xDA, 0, length]),
                2 => text.extend([0xDB, 0, 0, 0, length]),
                _ => text.push(0xA0 | (length & 31)),
            }
            text.extend(content);
        }
        7 => text.extend([0xCA, random.u8(..), random.u8(..), 0, 0]),
        8 => text.extend([0xC4 + random.u8(..6), random.u8(..)]),
        9 | 10 => {
            match random.u8(..4) {
                0 => text.extend([0xDC, 0, count]),
                1 => text.extend([0xDD, 0, 0, 0, count]),
                _ => text.push(0x90 | count),
            }
            (0..count).for_each(|_| message(random, depth - 1, text));
        }
        _ => {
            match random.u8(..4) {
                0 => text.extend([0xDE, 0, count]),
                1 => text.extend([0xDF, 0, 0, 0, count]),
                _ => text.push(0x80 | count),
            }
            (0..2 * count).for_each(|_| message(random, depth - 1, text));
        }
    }
}

pub fn cmsgpack(random: &mut Rng) -> Vec<u8> {
    let values = |random: &mut Rng| {
        let values: Vec<_> = (0..random.u8(..4)).map(|_| value(random, 4)).collect();
        values.join(", ")
    };
    let messages = |random: &mut Rng| {
        let mut text = Vec::new();
        (0..random.u8(..4)).for_each(|_| message(random, 3, &mut text));
        if random.u8(..4) == 0 {
            damage(random, &mut text, b"\x00\x80\x90\xA0\xC0\xC1\xC4\xD9\xDC\xDF\xFF");
        }
        literal(&text)
    };
    let call = match random.u8(..8) {
        0..=2 => format!("return cmsgpack.pack({})", values(random)),
        3 | 4 => format!("return cmsgpack.unpack({})", messages(random)),
        5 => format!("return cmsgpack.unpack_one({}, {})", messages(random), random.i32(-1..9)),
        6 => format!(
            "return cmsgpack.unpack_limit({}, {}, {})",
            messages(random),
            random.i32(-1..5),
            random.i32(-1..9)
        ),
        _ => format!("return cmsgpack.unpack(cmsgpack.pack({}))", values(random)),
    };
    call.into_bytes()
}

/// A format of `struct`, mostly valid.
fn format(random: &mut Rng) -> String {
    let mut text = String::new();
    for _ in 0..random.u8(..7) {
        match random.u8(..24) {
            0 => text.push('<'),
            1 => text.push('>'),
            2 => text.push_str(pick(random, &["!", "!2", "!4", "!8", "!16", "!1", "!3", "!0"])),
            3 => text.push(' '),
            4 | 5 => text.push_str(&format!("i{}", random.u8(..20))),
            6 => text.push_str(&format!("I{}", random.u8(..40))),
            7 | 8 => text.push_str(&format!("c{}", random.u8(..6))),
            9 => text.push('s'),
            10 => text.push(char::from(random.u8(33..127))),
            _ => text.push(char::from(*b"bBhHlLTiIfdxxc".get(random.usize(..14)).unwrap())),
        }
    }
    text
}

pub fn structs(random: &mut Rng) -> Vec<u8> {
    let format = format(random);
    let argument = |random: &mut Rng, option: u8| match random.u8(..20) {
        0 => "nil".to_owned(),
        1 => "'12'".to_owned(),
        2 => string(random),
        _ if matches!(option, b'c' | b's') => string(random),
        _ => number(random),
    };
    // Arguments that fit the options, but for a few.
    let options = format.bytes().filter(|byte| b"bBhHlLTiIfdcs".contains(byte));
    let arguments: Vec<_> = options.map(|option| argument(random, option)).collect();
    let list = arguments.iter().map(|argument| format!(", {argument}")).collect::<String>();
    let call = match random.u8(..8) {
        0 => format!("return struct.size('{}')", format.replace('\\', "\\\\").replace('\'', "\\'")),
        1..=3 => format!("return struct.pack({}{list})", literal(format.as_bytes())),
        4..=6 => {
            let data = literal(&bytes(random, 80));
            let position = pick(random, &["", "", "", ", 1", ", 2", ", 7", ", 0", ", -1", ", 100"]);
            format!("return struct.unpack({}, {data}{position})", literal(format.as_bytes()))
        }
        _ => {
            let format = literal(format.as_bytes());
            format!("return struct.unpack({format}, struct.pack({format}{list}))")
        }
    };
    call.into_bytes()
}

pub fn bit(random: &mut Rng) -> Vec<u8> {
    let argument = |random: &mut Rng| match random.u8(..12) {
        0 => literal(number(random).as_bytes()),
        1 => pick(random, &["nil", "'x'", "{}", "true", "'0x1F'", "' 7 '", "''"]).to_owned(),
        2 | 3 => random.i32(-40..40).to_string(),
        4 => random.i64(-1 << 53..1 << 53).to_string(),
        5 => format!("{}.5", random.i64(-1 << 33..1 << 33)),
        _ => number(random),
    };
    let function = pick(
        random,
        &[
            "tobit", "bnot", "bswap", "band", "bor", "bxor", "lshift", "rshift", "arshift", "rol",
            "ror", "tohex",
        ],
    );
    let count = match function {
        "tobit" | "bnot" | "bswap" => random.u8(..3),
        "band" | "bor" | "bxor" => random.u8(..6),
        _ => random.u8(1..4),
    };
    let list: Vec<_> = (0..count).map(|_| argument(random)).collect();
    format!("return bit.{function}({})", list.join(", ")).into_bytes()
}

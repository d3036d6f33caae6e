//! Scripts that call random commands, and use their replies as arguments and results.
//!
//! A script is a list of statements, each of which appends a value to the table `r`. It is sent by
//! EVAL, by EVALSHA, or as a function of a library.

use super::words::{Arguments, Words};
use super::{hash_command, list_command, set_command, sorted_set_command, stream_command};

/// What each script begins with: `text` makes a string of any value, `sorted` gives replies without
/// a defined order one.
const HELPERS: &str = "\
local function text(v) \
if type(v) == 'table' then return v.ok or v.err or '#'..#v end return tostring(v) end \
local function sorted(v) \
if type(v) ~= 'table' or v.err then return v end \
local t = {} \
for k, e in pairs(v.map or v.set or v) do \
if v.map then t[#t + 1] = text(k)..'='..text(e) \
elseif v.set then t[#t + 1] = text(k) \
else t[#t + 1] = text(e) end end \
table.sort(t) return t end ";

/// Names of commands whose replies have no defined order.
const UNORDERED: [&[u8]; 7] =
    [b"SMEMBERS", b"SUNION", b"SINTER", b"SDIFF", b"HKEYS", b"HVALS", b"HGETALL"];
/// Names of commands whose replies contain times.
const TIMED: [&[u8]; 3] = [b"XPENDING", b"XINFO", b"XAUTOCLAIM"];
/// The keys that scripts declare.
const KEYS: [&str; 4] = ["a", "b", "c", "string"];

/// Generator of random scripts.
pub struct Scripts {
    pub words: Words,
    /// The family whose commands most scripts call.
    pub family: u64,
}

/// A script with the declared keys and the arguments.
struct Script {
    body: String,
    keys: Vec<&'static str>,
    argv: Vec<String>,
}

impl Scripts {
    /// The next commands to send: usually one, or a transaction.
    pub fn next(&mut self) -> Vec<Arguments> {
        let is_queued = self.words.chance(10);
        let mut lines = Vec::new();
        if is_queued {
            lines.push(vec![b"MULTI".to_vec()]);
            for _ in 0..self.words.number(1, 3) {
                lines.extend(self.sent_script());
            }
            lines.push(vec![b"EXEC".to_vec()]);
        } else {
            lines.extend(self.sent_script());
        }
        lines
    }

    fn sent_script(&mut self) -> Vec<Arguments> {
        let script = self.script();
        let way = self.words.random.below(10);
        let mut lines = Vec::new();
        let mut line: Arguments = match way {
            0..=5 => {
                let name = if self.words.chance(8) { "EVAL_RO" } else { "EVAL" };
                vec![name.into(), script.body.clone().into()]
            }
            6..=7 => {
                let flags = self.words.one(&["", "", " flags=no-writes", " flags=allow-oom"]);
                let body = format!("#!lua{flags}\n{}", script.body);
                vec![b"EVAL".to_vec(), body.into()]
            }
            _ => {
                let function = format!("function(KEYS, ARGV) {} end", script.body);
                let code = format!("#!lua name=random\nredis.register_function('f', {function})");
                let load = [b"FUNCTION", &b"LOAD"[..], b"REPLACE", code.as_bytes()];
                lines.push(load.map(<[u8]>::to_vec).to_vec());
                let name = if self.words.chance(8) { "FCALL_RO" } else { "FCALL" };
                vec![name.into(), b"F".to_vec()]
            }
        };
        line.push(script.keys.len().to_string().into());
        line.extend(script.keys.iter().map(|key| key.as_bytes().to_vec()));
        line.extend(script.argv.iter().map(|word| word.clone().into_bytes()));
        lines.push(line);
        lines
    }

    fn script(&mut self) -> Script {
        let keys: Vec<&str> = KEYS.into_iter().filter(|_| self.words.chance(60)).collect();
        let argv: Vec<String> = (0..self.words.number(0, 3)).map(|_| self.words.member()).collect();
        let mut script = Script { body: HELPERS.to_owned(), keys, argv };
        if self.words.chance(30) {
            script.body.push_str("redis.setresp(3) ");
        }
        script.body.push_str("local r = {} ");
        for _ in 0..self.words.number(1, 8) {
            let statement = self.statement(&script);
            script.body.push_str(&statement);
        }
        let end = self.words.one(&[
            "return r",
            "return r",
            "return r",
            "return r[#r]",
            "return r[1]",
            "return #r",
            "return {#r, r, text(r[1])}",
            "return {map = {only = r}}",
            "return {text(r[1]), text(r[2]), text(r[3]), text(r[4])}",
            "return redis.status_reply(text(r[1]))",
            // Redis 7.0 crashes on a table without `err`.
            "error(type(r[1]) == 'table' and r[1].err and r[1] or text(r[1]))",
            "error(text(r[1]))",
            "return",
        ]);
        script.body.push_str(end);
        script
    }

    fn statement(&mut self, script: &Script) -> String {
        let call = self.call(script);
        let append = format!("r[#r + 1] = {call} ");
        match self.words.random.below(12) {
            0 => format!("for i = 1, {} do {append}end ", self.words.number(1, 4)),
            1 => format!("if type(r[1]) == 'table' then {append}end "),
            2 => format!("if not r[#r] then {append}else r[#r + 1] = text(r[#r]) end "),
            3 => format!("local ok, e = pcall(function() return {call} end) r[#r + 1] = e "),
            4 => format!("local n = 0 while #r < 3 and n < 3 do n = n + 1 {append}end "),
            5 => format!("local v = {call} if type(v) == 'number' then r[#r + 1] = v * 2 end "),
            _ => append,
        }
    }

    /// A call of a random command, as an expression.
    fn call(&mut self, script: &Script) -> String {
        let command = self.command();
        let name = if self.words.chance(25) { "redis.call" } else { "redis.pcall" };
        let mut arguments = Vec::new();
        for (i, word) in command.iter().enumerate() {
            arguments.push(self.argument(i, word, script));
        }
        let call = format!("{name}({})", arguments.join(", "));
        match UNORDERED.contains(&&command[0][..]) {
            true => format!("sorted({call})"),
            false => call,
        }
    }

    fn command(&mut self) -> Arguments {
        loop {
            let family =
                if self.words.chance(80) { self.family } else { self.words.random.below(6) };
            let words = &mut self.words;
            let command = match family {
                0 => sorted_set_command(words),
                1 => list_command(words),
                2 => hash_command(words),
                3 => set_command(words),
                4 => stream_command(words),
                _ => string_command(words),
            };
            if !TIMED.contains(&&command[0][..]) {
                return command;
            }
        }
    }

    /// An argument as an expression: a literal, a declared key, or an earlier reply.
    fn argument(&mut self, i: usize, word: &[u8], script: &Script) -> String {
        let declared = script.keys.iter().position(|key| key.as_bytes() == word);
        if let Some(key) = declared.filter(|_| self.words.chance(80)) {
            return format!("KEYS[{}]", key + 1);
        }
        if i > 1 && self.words.chance(8) {
            let replies =
                ["text(r[1])", "text(r[#r])", "r[1]", "#r", "KEYS[1]", "ARGV[1]", "#r / 2"];
            return self.words.one(&replies).to_owned();
        }
        let number = std::str::from_utf8(word).ok().and_then(|text| text.parse::<i64>().ok());
        match number.filter(|number| number.to_string().as_bytes() == word) {
            Some(number) if self.words.chance(30) => number.to_string(),
            _ => quoted(word),
        }
    }
}

/// A literal of Lua.
fn quoted(word: &[u8]) -> String {
    let escape = |byte: &u8| match byte {
        b'"' | b'\\' | 0..=31 | 127.. => format!("\\{byte:03}"),
        plain => char::from(*plain).to_string(),
    };
    format!("\"{}\"", word.iter().map(escape).collect::<String>())
}

fn string_command(words: &mut Words) -> Arguments {
    use super::words::Line;
    let choice = words.random.below(20);
    let line = Line { words, line: Vec::new() };
    let line = match choice {
        0..=3 => line.add("SET").key().several(1, Words::member).perhaps(20, "NX"),
        4..=6 => line.add("GET").key(),
        7..=8 => line.chosen(&["INCR", "DECR", "STRLEN", "GETDEL", "TYPE"]).key(),
        9 => line.chosen(&["INCRBY", "DECRBY"]).key().several(1, Words::rank),
        10 => line.add("APPEND").key().several(1, Words::member),
        11 => line.add("GETRANGE").key().twice(Words::rank),
        12 => line.chosen(&["MGET", "EXISTS"]).several(3, Words::key),
        13..=14 => line.chosen(&["DEL", "UNLINK"]).several(2, Words::key),
        15 => line.chosen(&["RENAME", "RENAMENX", "COPY"]).key().key(),
        16 => line.chosen(&["PERSIST", "TTL", "EXPIRETIME", "OBJECT"]).key(),
        17 => line.add("SETBIT").key().several(1, Words::rank).chosen(&["0", "1", "2"]),
        18 => line.chosen(&["NOSUCH", "MULTI", "SUBSCRIBE", "EVAL", "PING", "ECHO"]).key(),
        _ => line.add("EXPIRE").key().chosen(&["-1", "100000", "x"]).perhaps(20, "NX"),
    };
    line.line
}

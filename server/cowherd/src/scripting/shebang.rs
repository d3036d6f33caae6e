//! The first line of a script or of a library: `#!lua name=mylib flags=no-writes,allow-stale`.

use cowherd_lua::interpreter::FunctionFlags;

use crate::config::split_words;

/// What the first line says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shebang {
    /// The engine, such as `lua`.
    pub engine: Vec<u8>,
    /// The other words.
    pub words: Vec<Vec<u8>>,
}

/// Splits the first line of code that begins with `#!`; `None` for other code. Words may be quoted
/// as in redis.conf.
pub fn parse_shebang(code: &[u8]) -> Option<Result<Shebang, ()>> {
    if !code.starts_with(b"#!") {
        return None;
    }
    let Some(end) = code.iter().position(|byte| *byte == b'\n') else { return Some(Err(())) };
    let Ok(mut words) = split_words(&code[..end]) else { return Some(Err(())) };
    let engine = words.remove(0).split_off("#!".len());
    Some(Ok(Shebang { engine, words }))
}

impl Shebang {
    /// The flags of a script of EVAL.
    ///
    /// # Errors
    /// The error reply for another engine, option or flag.
    pub fn script_flags(&self) -> Result<FunctionFlags, Vec<u8>> {
        let refused = |problem: &[u8], word: &[u8]| Err([problem, word].concat());
        if self.engine != b"lua" {
            return refused(b"ERR Unexpected engine in script shebang: #!", &self.engine);
        }
        let mut flags = FunctionFlags::default();
        for word in &self.words {
            let Some(names) = word.strip_prefix(b"flags=") else {
                return refused(b"ERR Unknown lua shebang option: ", word);
            };
            if names.is_empty() {
                continue;
            }
            for name in names.split(|byte| *byte == b',') {
                if !flags.set(name) {
                    return refused(b"ERR Unexpected flag in script shebang: ", name);
                }
            }
        }
        Ok(flags)
    }

    /// The name of a library.
    ///
    /// # Errors
    /// The error reply.
    pub fn library_name(&self) -> Result<&[u8], Vec<u8>> {
        const TWICE: &[u8] = b"ERR Invalid metadata value, name argument was given multiple times";
        let mut name = None;
        for word in &self.words {
            let mut parts = word.splitn(2, |byte| *byte == b'=');
            let (key, value) = (parts.next().unwrap_or_default(), parts.next());
            let Some(value) = value.filter(|_| key.eq_ignore_ascii_case(b"name")) else {
                return Err([b"ERR Invalid metadata value given: ", word.as_slice()].concat());
            };
            if name.replace(value).is_some() {
                return Err(TWICE.to_vec());
            }
        }
        name.ok_or_else(|| b"ERR Library name was not given".to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_split_into_words() {
        assert_eq!(parse_shebang(b"return 1"), None);
        assert_eq!(parse_shebang(b"#!lua"), Some(Err(())));
        let line = parse_shebang(b"#!lua flags=no-writes,allow-oom\nreturn 1").unwrap().unwrap();
        assert_eq!(line.engine, b"lua");
        let flags = line.script_flags().unwrap();
        assert!(flags.no_writes && flags.allow_oom && !flags.allow_stale);
        let line = parse_shebang(b"#!lua name=mylib \n").unwrap().unwrap();
        assert_eq!(line.library_name(), Ok(&b"mylib"[..]));
        assert!(line.script_flags().is_err());
        let line = parse_shebang(b"#! name=a\n").unwrap().unwrap();
        assert_eq!(line.engine, b"");
        let line = parse_shebang(b"#!lua \"NAME=a b\"\n").unwrap().unwrap();
        assert_eq!(line.library_name(), Ok(&b"a b"[..]));
        assert_eq!(parse_shebang(b"#!lua 'name=a\n"), Some(Err(())));
        let line = parse_shebang(b"#!\xff \xfe=1\n").unwrap().unwrap();
        let error = b"ERR Unexpected engine in script shebang: #!\xff".to_vec();
        assert_eq!(line.script_flags(), Err(error));
        let error = b"ERR Invalid metadata value given: \xfe=1".to_vec();
        assert_eq!(line.library_name(), Err(error));
        let flags = |text: &[u8]| parse_shebang(text).unwrap().unwrap().script_flags();
        assert!(flags(b"#!lua flags=\n").is_ok());
        assert!(flags(b"#!lua flags=no-writes,\n").is_err());
    }
}

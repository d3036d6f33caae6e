//! Libraries of functions as a payload, which other servers accept and make too.

use std::collections::HashSet;
use std::sync::Arc;

use cowherd_lua::interpreter::Interpreter;
use cowherd_rdb::{FormatVersion, Libraries, RdbError, seal, unseal, write_library};

use super::functions::Library;

/// What happens to the libraries that are there when others are restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestorePolicy {
    /// They stay, and none may be among the restored ones.
    Append,
    /// Those of the same names are replaced.
    Replace,
    /// They are removed.
    Flush,
}

/// The payload of libraries, in the oldest version of the format that has functions.
pub fn dump_libraries(libraries: &[Arc<Library>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for library in libraries {
        write_library(&mut payload, &library.code);
    }
    seal(&mut payload, FormatVersion::REDIS_7_0);
    payload
}

/// The libraries of a payload; their code runs in an interpreter. All of it together has
/// `max_bytes` at most.
///
/// # Errors
/// The error reply.
pub fn load_payload(
    interpreter: &Interpreter,
    payload: &[u8],
    max_bytes: u64,
) -> Result<Vec<Library>, Vec<u8>> {
    let payload = unseal(payload).map_err(error_reply)?;
    let (mut libraries, mut left) = (Vec::<Library>::new(), max_bytes);
    let (mut names, mut functions) = (HashSet::new(), HashSet::new());
    for code in Libraries::new(payload.body) {
        let code = code.map_err(error_reply)?;
        let fits = left.checked_sub(code.len() as u64);
        left = fits.ok_or_else(|| b"ERR The libraries are larger than maxmemory".to_vec())?;
        let library = Library::load(interpreter, &code)?;
        if !names.insert(library.name.clone()) {
            return Err(format!("ERR Library '{}' already exists", library.name).into_bytes());
        }
        for name in library.function_names() {
            if !functions.insert(name.to_ascii_lowercase()) {
                return Err(format!("ERR Function {name} already exists").into_bytes());
            }
        }
        libraries.push(library);
    }
    Ok(libraries)
}

fn error_reply(error: RdbError) -> Vec<u8> {
    let text: &[u8] = match error {
        RdbError::NoFooter { .. }
        | RdbError::UnsupportedVersion { .. }
        | RdbError::WrongChecksum { .. } => b"ERR DUMP payload version or checksum are wrong",
        RdbError::PreReleaseFunctions { .. } => b"ERR Pre-GA function format not supported",
        RdbError::UnexpectedOpcode { .. } => b"ERR given type is not a function",
        RdbError::Truncated { .. }
        | RdbError::UnknownLength { .. }
        | RdbError::UnknownEncoding { .. }
        | RdbError::NotALength { .. }
        | RdbError::TooLong { .. }
        | RdbError::Lzf { .. } => b"ERR Failed loading library payload",
    };
    text.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cowherd_lua::interpreter::Versions;

    use crate::scripting::{FunctionRegistry, ScriptRuntime};

    fn code(library: &str, function: &str) -> Vec<u8> {
        format!("#!lua name={library}\nredis.register_function('{function}', function() end)")
            .into_bytes()
    }

    fn payload(codes: &[Vec<u8>]) -> Vec<u8> {
        let mut payload = Vec::new();
        codes.iter().for_each(|code| write_library(&mut payload, code));
        seal(&mut payload, FormatVersion::REDIS_7_0);
        payload
    }

    fn load(payload: &[u8]) -> Result<Vec<Library>, String> {
        let runtime =
            ScriptRuntime::new(0, Versions { text: "7.4.0", number: 0x0007_0400 }).unwrap();
        load_payload(runtime.interpreter(), payload, 1 << 20)
            .map_err(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn libraries_come_back() {
        let codes = [code("a", "f"), code("b", "g")];
        let loaded = load(&payload(&codes)).unwrap();
        let loaded: Vec<_> = loaded.into_iter().map(Arc::new).collect();
        assert_eq!(dump_libraries(&loaded), payload(&codes));
        assert!(load(&payload(&[])).unwrap().is_empty());
    }

    #[test]
    fn every_byte_of_a_payload_counts() {
        let mut bytes = payload(&[code("a", "f")]);
        for i in 0..bytes.len() {
            let expected = "ERR DUMP payload version or checksum are wrong";
            assert_eq!(load(&bytes[..i]).unwrap_err(), expected);
            bytes[i] ^= 1;
            assert_eq!(load(&bytes).unwrap_err(), expected);
            bytes[i] ^= 1;
        }
    }

    #[test]
    fn what_is_no_library_is_refused_by_name() {
        let sealed = |body: &[u8]| {
            let mut body = body.to_vec();
            seal(&mut body, FormatVersion::REDIS_7_0);
            load(&body).unwrap_err()
        };
        assert_eq!(sealed(b"\x00\x01x"), "ERR given type is not a function");
        assert_eq!(sealed(b"\xf6\x01x"), "ERR Pre-GA function format not supported");
        assert_eq!(sealed(b"\xf5\x05x"), "ERR Failed loading library payload");
        assert_eq!(sealed(b"\xf5\xc0\x05"), "ERR Missing library metadata");
        let same = payload(&[code("a", "f"), code("a", "g")]);
        assert_eq!(load(&same).unwrap_err(), "ERR Library 'a' already exists");
        let same = payload(&[code("a", "f"), code("b", "f")]);
        assert_eq!(load(&same).unwrap_err(), "ERR Function f already exists");
        let case = payload(&[code("a", "f"), code("A", "F")]);
        assert_eq!(load(&case).unwrap_err(), "ERR Function F already exists");
        let large = payload(&[vec![b'x'; 2 << 20]]);
        assert_eq!(load(&large).unwrap_err(), "ERR The libraries are larger than maxmemory");
    }

    #[test]
    fn each_policy_refuses_names_that_are_taken() {
        let registry = FunctionRegistry::default();
        registry.restore(load(&payload(&[code("a", "f")])).unwrap(), RestorePolicy::Append);
        let check = |codes: &[Vec<u8>], policy| {
            registry.check_restore(&load(&payload(codes)).unwrap(), policy)
        };
        use RestorePolicy::{Append, Flush, Replace};
        let same = [code("a", "g")];
        assert_eq!(check(&same, Append), Err("ERR Library a already exists".to_owned()));
        assert_eq!((check(&same, Replace), check(&same, Flush)), (Ok(()), Ok(())));
        let function = [code("b", "f")];
        let taken = Err("ERR Function f already exists".to_owned());
        assert_eq!((check(&function, Append), check(&function, Replace)), (taken.clone(), taken));
        assert_eq!(check(&function, Flush), Ok(()));
        let taken = Err("ERR Function F already exists".to_owned());
        assert_eq!(check(&[code("b", "F")], Replace), taken);
        // The function moves to another library.
        assert_eq!(check(&[code("a", "g"), code("b", "f")], Replace), Ok(()));
    }
}

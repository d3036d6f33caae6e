//! Libraries of functions, as FUNCTION LOAD registers them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use cowherd_lua::interpreter::{
    FunctionFlags, Host, Interpreter, LibraryError, LogLevel, RegisteredFunction, is_valid_name,
};
use cowherd_resp::{Args, ReplyWriter};
use parking_lot::Mutex;

use crate::clock;

use super::cache::code_of;
use super::payload::RestorePolicy;
use super::shebang::parse_shebang;

/// Longest time for the code of a library to run.
const LOAD_TIME_NS: u64 = 500_000_000;
/// The same when a worker loads a library that was accepted before.
pub(super) const RELOAD_TIME_NS: u64 = 10 * LOAD_TIME_NS;

/// A library.
#[derive(Debug)]
pub struct Library {
    /// Its name.
    pub name: String,
    /// Its code, with the first line.
    pub code: Box<[u8]>,
    /// Its functions in the order of their names.
    pub functions: Vec<FunctionInfo>,
}

/// A function of a library.
#[derive(Clone, Debug)]
pub struct FunctionInfo {
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: Option<Vec<u8>>,
    /// Its flags.
    pub flags: FunctionFlags,
    /// Whether it has touched a key of a shard that its keys do not name.
    pub has_undeclared_keys: Arc<AtomicBool>,
}

/// All libraries.
#[derive(Debug, Default)]
pub struct FunctionRegistry {
    libraries: Mutex<BTreeMap<String, Arc<Library>>>,
    generation: AtomicU64,
}

/// What loading code may do: write to the log, for half a second.
struct LoadingHost {
    deadline: u64,
}

impl Host for LoadingHost {
    fn call(&mut self, _: &Args<'_>, reply: &mut ReplyWriter) {
        reply.error("ERR no command can be called while a library is loaded");
    }

    fn may_call(&mut self, _: &Args<'_>) -> Option<bool> {
        None
    }

    fn replied_error(&mut self, _: &[u8], _: bool) {}

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        log(level, text);
    }

    fn poll(&mut self) -> Result<(), &'static str> {
        if clock::monotonic_ns() < self.deadline {
            return Ok(());
        }
        Err("ERR FUNCTION LOAD timeout")
    }
}

/// Writes a message of a script to the log.
pub fn log(level: LogLevel, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    match level {
        LogLevel::Debug => tracing::debug!("{text}"),
        LogLevel::Verbose | LogLevel::Notice => tracing::info!("{text}"),
        LogLevel::Warning => tracing::warn!("{text}"),
    }
}

/// Runs the code of a library in an interpreter; returns its functions.
///
/// # Errors
/// The error reply.
pub(super) fn compile_library(
    interpreter: &Interpreter,
    code: &[u8],
    nanoseconds: u64,
) -> Result<Vec<RegisteredFunction>, Vec<u8>> {
    let mut host = LoadingHost { deadline: clock::monotonic_ns() + nanoseconds };
    interpreter.load_library(code_of(code), &mut host).map_err(|error| {
        let (prefix, text) = match error {
            LibraryError::Syntax(text) => (&b"ERR Error compiling function: "[..], text),
            LibraryError::Failed(text) => (&b"ERR Error registering functions: "[..], text),
        };
        [prefix, &text].concat()
    })
}

impl Library {
    /// The name of a library from the first line of its code.
    ///
    /// # Errors
    /// The error reply.
    pub fn name_of(code: &[u8]) -> Result<String, Vec<u8>> {
        let line = match parse_shebang(code) {
            None => return Err(b"ERR Missing library metadata".to_vec()),
            Some(Err(())) => return Err(b"ERR Invalid library metadata".to_vec()),
            Some(Ok(line)) => line,
        };
        let name = line.library_name()?;
        if !is_valid_name(name) {
            let text = "ERR Library names can only contain letters, numbers, or underscores(_) and \
                        must be at least one character long";
            return Err(text.as_bytes().to_vec());
        }
        if !line.engine.eq_ignore_ascii_case(b"lua") {
            return Err([b"ERR Engine '", line.engine.as_slice(), b"' not found"].concat());
        }
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// A library from its code, which runs in an interpreter.
    ///
    /// # Errors
    /// The error reply.
    pub fn load(interpreter: &Interpreter, code: &[u8]) -> Result<Self, Vec<u8>> {
        let name = Self::name_of(code)?;
        let compiled = compile_library(interpreter, code, LOAD_TIME_NS)?;
        let mut functions = Vec::new();
        for RegisteredFunction { name, description, flags, function } in compiled {
            interpreter.release(function);
            let has_undeclared_keys = Arc::default();
            functions.push(FunctionInfo { name, description, flags, has_undeclared_keys });
        }
        if functions.is_empty() {
            return Err(b"ERR No functions registered".to_vec());
        }
        functions.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { name, code: code.into(), functions })
    }

    /// The memory that it takes beside its code in the keyspace.
    fn bytes(&self) -> u64 {
        let function = |function: &FunctionInfo| {
            let description = function.description.as_ref().map_or(0, Vec::len);
            size_of::<FunctionInfo>() + function.name.len() + description
        };
        let functions: usize = self.functions.iter().map(function).sum();
        (size_of::<Self>() + 2 * self.name.len() + self.code.len() + functions) as u64
    }

    /// The names of its functions.
    pub fn function_names(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().map(|function| &*function.name)
    }
}

impl FunctionRegistry {
    /// Changes whenever libraries change.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// The generation and the libraries.
    pub fn snapshot(&self) -> (u64, Vec<Arc<Library>>) {
        let libraries = self.libraries.lock();
        (self.generation(), libraries.values().cloned().collect())
    }

    /// Whether there is a library of a name.
    pub fn has(&self, name: &str) -> bool {
        self.libraries.lock().contains_key(name)
    }

    /// The flags of a function, whose name may be given in any case.
    pub fn flags_of(&self, name: &[u8]) -> Option<FunctionFlags> {
        let libraries = self.libraries.lock();
        let mut functions = libraries.values().flat_map(|library| &library.functions);
        functions
            .find(|function| function.name.as_bytes().eq_ignore_ascii_case(name))
            .map(|function| function.flags)
    }

    /// Checks that the name of a library is free.
    ///
    /// # Errors
    /// The error reply.
    pub fn check_name(&self, name: &str, replaces: bool) -> Result<(), String> {
        match !replaces && self.has(name) {
            true => Err(format!("ERR Library '{name}' already exists")),
            false => Ok(()),
        }
    }

    /// Checks that a library can be added to the others.
    ///
    /// # Errors
    /// The error reply: the name of the library, or one of a function, is taken.
    pub fn check(&self, library: &Library, replaces: bool) -> Result<(), String> {
        self.check_name(&library.name, replaces)?;
        let libraries = self.libraries.lock();
        let others = libraries.values().filter(|other| other.name != library.name);
        for function in others.flat_map(|other| &other.functions) {
            let is_same = |own: &&FunctionInfo| own.name.eq_ignore_ascii_case(&function.name);
            if let Some(own) = library.functions.iter().find(is_same) {
                return Err(format!("ERR Function {} already exists", own.name));
            }
        }
        Ok(())
    }

    /// Checks that libraries, all of whose names differ, can be added. Names of functions that
    /// differ in case only are the same.
    ///
    /// # Errors
    /// The error reply: the name of a library or of a function is taken.
    pub fn check_restore(&self, added: &[Library], policy: RestorePolicy) -> Result<(), String> {
        if policy == RestorePolicy::Flush {
            return Ok(());
        }
        let libraries = self.libraries.lock();
        let taken = added.iter().find(|library| libraries.contains_key(&library.name));
        if let (RestorePolicy::Append, Some(taken)) = (policy, taken) {
            return Err(format!("ERR Library {} already exists", taken.name));
        }
        let is_added = |name: &str| added.iter().any(|library| library.name == name);
        let kept = libraries.values().filter(|library| !is_added(&library.name));
        let lowercase = |name: &str| name.to_ascii_lowercase();
        let kept = kept.flat_map(|library| library.function_names()).map(lowercase);
        let kept: HashSet<String> = kept.collect();
        let mut names = added.iter().flat_map(Library::function_names);
        match names.find(|name| kept.contains(&lowercase(name))) {
            Some(taken) => Err(format!("ERR Function {taken} already exists")),
            None => Ok(()),
        }
    }

    /// Adds libraries, in place of those of the same names or of all others.
    pub fn restore(&self, added: Vec<Library>, policy: RestorePolicy) {
        let mut libraries = self.libraries.lock();
        if policy == RestorePolicy::Flush {
            libraries.clear();
        }
        let named = |library: Library| (library.name.clone(), Arc::new(library));
        libraries.extend(added.into_iter().map(named));
        self.generation.fetch_add(1, Relaxed);
    }

    /// The library of a name.
    pub fn find(&self, name: &str) -> Option<Arc<Library>> {
        self.libraries.lock().get(name).cloned()
    }

    /// Adds a library, in place of one of the same name.
    pub fn add(&self, library: Library) {
        let mut libraries = self.libraries.lock();
        libraries.insert(library.name.clone(), Arc::new(library));
        self.generation.fetch_add(1, Relaxed);
    }

    /// Removes a library; tells whether it was there.
    pub fn remove(&self, name: &str) -> bool {
        let removed = self.libraries.lock().remove(name).is_some();
        self.generation.fetch_add(1, Relaxed);
        removed
    }

    /// Removes all libraries.
    pub fn clear(&self) {
        self.libraries.lock().clear();
        self.generation.fetch_add(1, Relaxed);
    }

    /// Numbers of libraries and functions, and the memory that they take.
    pub fn size(&self) -> (u64, u64, u64) {
        let libraries = self.libraries.lock();
        let functions = libraries.values().map(|library| library.functions.len() as u64).sum();
        let bytes = libraries.values().map(|library| library.bytes()).sum();
        (libraries.len() as u64, functions, bytes)
    }
}

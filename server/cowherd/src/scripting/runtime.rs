//! A worker's interpreter, and the scripts and functions that it has compiled.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use cowherd_lua::interpreter::{
    CodeKind, Function, FunctionFlags, Interpreter, RegisteredFunction, Versions, sha1_hex,
};

use super::cache::{Script, ScriptCache, Sha};
use super::functions::{FunctionRegistry, RELOAD_TIME_NS, compile_library};
use super::interpreter_memory::{InterpreterMemory, PublishedBytes};

/// The compiler's text when the memory limit is reached.
const OUT_OF_MEMORY: &[u8] = b"not enough memory";

/// A worker's interpreter.
#[derive(Debug)]
pub struct ScriptRuntime {
    interpreter: Interpreter,
    scripts: HashMap<Sha, Rc<Runnable>, BuildHasherDefault<ShaHasher>>,
    /// By their names in lower case.
    functions: HashMap<String, Rc<Runnable>>,
    /// The generation of the registry whose functions are compiled.
    generation: u64,
    memory_limit: u64,
    published: PublishedBytes,
}

/// A hasher of SHA-1s, whose digits are as good as random.
#[derive(Default)]
struct ShaHasher(u64);

impl Hasher for ShaHasher {
    fn write(&mut self, bytes: &[u8]) {
        for digits in bytes.chunks_exact(8) {
            let digits = u64::from_le_bytes(digits.try_into().unwrap_or_default());
            self.0 = self.0.rotate_left(7) ^ digits.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A script or function that can run.
#[derive(Debug)]
pub struct Runnable {
    /// The compiled code.
    pub function: Function,
    /// Script or function.
    pub kind: CodeKind,
    /// The SHA-1 of the script, or the name under which the function is registered.
    pub name: String,
    /// Its flags; `None` for a script that declares none.
    pub flags: Option<FunctionFlags>,
    /// The script of EVAL.
    pub script: Option<Arc<Script>>,
    /// Whether it has touched a key of a shard that its keys do not name, on any worker.
    pub has_undeclared_keys: Arc<AtomicBool>,
}

impl Runnable {
    /// Whether it is a script that has left the cache.
    fn is_dropped(&self) -> bool {
        self.script.as_ref().is_some_and(|script| script.is_dropped.load(Relaxed))
    }
}

fn memory_size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl ScriptRuntime {
    /// A new interpreter. `versions`: what scripts see as the version of the server.
    ///
    /// # Errors
    /// The error reply: the memory limit is too low.
    pub fn new(memory_limit: u64, versions: Versions) -> Result<Self, String> {
        let interpreter = Interpreter::new(memory_size(memory_limit), versions)
            .map_err(|error| format!("ERR no interpreter for scripts: {error}"))?;
        let (scripts, functions) = (HashMap::default(), HashMap::new());
        let published = PublishedBytes::default();
        Ok(Self { interpreter, scripts, functions, generation: 0, memory_limit, published })
    }

    /// Has its memory counted with that of the other interpreters.
    pub fn publish_to(&self, all: &InterpreterMemory) {
        all.add(&self.published);
        self.publish_memory();
    }

    /// Publishes the memory that it takes at present.
    #[inline]
    pub fn publish_memory(&self) {
        self.published.set(self.interpreter.used_memory());
    }

    /// Changes the limit of its memory; 0: none.
    #[inline]
    pub fn set_memory_limit(&mut self, memory_limit: u64) {
        if memory_limit != self.memory_limit {
            self.change_memory_limit(memory_limit);
        }
    }

    #[cold]
    fn change_memory_limit(&mut self, memory_limit: u64) {
        self.memory_limit = memory_limit;
        // Lua collects no garbage when it meets the limit.
        self.interpreter.collect_garbage();
        self.interpreter.set_memory_limit(memory_size(memory_limit));
    }

    /// The interpreter.
    pub const fn interpreter(&self) -> &Interpreter {
        &self.interpreter
    }

    /// The compiled script of a SHA-1, if it is still in the cache.
    #[inline]
    fn current(&self, cache: &ScriptCache, sha: &Sha) -> Option<Rc<Runnable>> {
        let found = self.scripts.get(sha).filter(|found| !found.is_dropped())?;
        if let Some(script) = &found.script {
            cache.touch(script);
        }
        Some(Rc::clone(found))
    }

    /// The script of a text of EVAL.
    ///
    /// # Errors
    /// The error reply.
    pub fn script_of(&mut self, cache: &ScriptCache, body: &[u8]) -> Result<Rc<Runnable>, Vec<u8>> {
        let sha = sha1_hex(body);
        match self.current(cache, &sha) {
            Some(found) => Ok(found),
            None => self.compile(cache, cache.add(body, sha, false)?),
        }
    }

    /// The script of a SHA-1; `None` if the cache has none.
    ///
    /// # Errors
    /// The error reply.
    pub fn script_by_sha(
        &mut self,
        cache: &ScriptCache,
        sha: &[u8],
    ) -> Result<Option<Rc<Runnable>>, Vec<u8>> {
        let Ok(mut sha) = Sha::try_from(sha) else { return Ok(None) };
        sha.make_ascii_lowercase();
        if let Some(found) = self.current(cache, &sha) {
            return Ok(Some(found));
        }
        cache.find(&sha).map(|script| self.compile(cache, script)).transpose()
    }

    /// Adds a script of SCRIPT LOAD; returns its SHA-1.
    ///
    /// # Errors
    /// The error reply.
    pub fn load(&mut self, cache: &ScriptCache, body: &[u8]) -> Result<Sha, Vec<u8>> {
        let sha = sha1_hex(body);
        let script = cache.add(body, sha, true)?;
        if self.current(cache, &sha).is_none() {
            self.compile(cache, script)?;
        }
        Ok(sha)
    }

    fn compile(
        &mut self,
        cache: &ScriptCache,
        script: Arc<Script>,
    ) -> Result<Rc<Runnable>, Vec<u8>> {
        self.release_dropped();
        let mut compiled = self.interpreter.compile(script.code());
        if compiled.as_ref().is_err_and(|text| text == OUT_OF_MEMORY) {
            // The cache has the texts of all scripts, which are compiled again when they run.
            for (_, old) in std::mem::take(&mut self.scripts) {
                self.release(old);
            }
            self.interpreter.collect_garbage();
            compiled = self.interpreter.compile(script.code());
        }
        let function = compiled.map_err(|text| {
            cache.drop_script(&script);
            [&b"ERR Error compiling script (new function): "[..], &text].concat()
        })?;
        let (sha, flags) = (script.sha, script.flags);
        let name = String::from_utf8_lossy(&sha).into_owned();
        let has_undeclared_keys = Arc::clone(&script.has_undeclared_keys);
        let (kind, script) = (CodeKind::Script, Some(script));
        let runnable =
            Rc::new(Runnable { function, kind, name, flags, script, has_undeclared_keys });
        if let Some(old) = self.scripts.insert(sha, Rc::clone(&runnable)) {
            self.release(old);
        }
        Ok(runnable)
    }

    /// Releases compiled scripts that have left the cache.
    fn release_dropped(&mut self) {
        let is_dropped = |(_, compiled): &(&Sha, &Rc<Runnable>)| compiled.is_dropped();
        let dropped: Vec<Sha> =
            self.scripts.iter().filter(is_dropped).map(|(sha, _)| *sha).collect();
        for sha in dropped {
            if let Some(old) = self.scripts.remove(&sha) {
                self.release(old);
            }
        }
    }

    /// Releases compiled code, unless it runs just now, in which case Lua keeps it.
    fn release(&self, old: Rc<Runnable>) {
        if let Ok(old) = Rc::try_unwrap(old) {
            self.interpreter.release(old.function);
        }
    }

    /// The function of a name; `None` if no library has it.
    ///
    /// # Errors
    /// The error reply: a library cannot be compiled.
    pub fn function(
        &mut self,
        registry: &FunctionRegistry,
        name: &[u8],
    ) -> Result<Option<Rc<Runnable>>, Vec<u8>> {
        if registry.generation() != self.generation {
            self.compile_functions(registry)?;
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        Ok(self.functions.get(&name).cloned())
    }

    /// Compiles the libraries of the registry anew.
    #[cold]
    fn compile_functions(&mut self, registry: &FunctionRegistry) -> Result<(), Vec<u8>> {
        for (_, old) in std::mem::take(&mut self.functions) {
            self.release(old);
        }
        let (generation, libraries) = registry.snapshot();
        for library in libraries {
            let compiled = compile_library(&self.interpreter, &library.code, RELOAD_TIME_NS);
            let registered = compiled.unwrap_or_else(|text| {
                let text = String::from_utf8_lossy(&text);
                tracing::error!("The library '{}' cannot be loaded: {text}", library.name);
                Vec::new()
            });
            for registered in registered {
                let RegisteredFunction { name, flags, function, .. } = registered;
                let (kind, flags) = (CodeKind::Library, Some(flags));
                let key = name.to_ascii_lowercase();
                let info = library.functions.iter().find(|info| info.name == name);
                let has_undeclared_keys =
                    info.map(|info| Arc::clone(&info.has_undeclared_keys)).unwrap_or_default();
                let runnable =
                    Runnable { function, kind, name, flags, script: None, has_undeclared_keys };
                self.functions.insert(key, Rc::new(runnable));
            }
        }
        self.generation = generation;
        Ok(())
    }
}

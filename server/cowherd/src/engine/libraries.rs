//! Libraries of functions, many at a time: those of a payload, which are all kept or none, and
//! those of an image, for `cowherd check`.

use std::fmt;

use crate::commands::{ErrorReply, Shared};
use crate::config::Config;
use crate::keyspace::{Keyspace, OutOfMemory, Shards};
use crate::scripting::{FunctionRegistry, Library, RestorePolicy, ScriptRuntime, load_payload};

use super::script;

/// Runs the code of the libraries in a payload and stores them in the keyspace, at a time and under
/// the locks of a transaction, which are all, or under those that are taken here.
///
/// # Errors
/// The error reply; nothing has changed.
pub(super) fn restore(
    shared: &Shared,
    runtime: &ScriptRuntime,
    payload: &[u8],
    policy: RestorePolicy,
    (now, held): (i64, Option<&mut Shards<'_>>),
) -> Result<(), Vec<u8>> {
    let capacity = shared.keyspace.arena().capacity();
    let added = load_payload(runtime.interpreter(), payload, capacity);
    runtime.publish_memory();
    let added = added?;
    let functions = &shared.scripting.functions;
    // The registry changes under the locks too, so that two clients do not add the same.
    let store = |shards: &mut Shards<'_>| {
        functions.check_restore(&added, policy).map_err(String::into_bytes)?;
        store_all(shards, functions, &added)
            .map_err(|_| ErrorReply::OUT_OF_MEMORY.as_bytes().to_vec())?;
        if policy == RestorePolicy::Flush {
            remove_others(shards, functions, &added);
        }
        functions.restore(added, policy);
        shards.libraries_changed();
        Ok(())
    };
    match held {
        Some(held) => store(held),
        None => store(&mut script::lock_all(shared, now)?),
    }
}

/// Stores the code of libraries in place of those of the same names: all, or none.
fn store_all(
    shards: &mut Shards<'_>,
    functions: &FunctionRegistry,
    added: &[Library],
) -> Result<(), OutOfMemory> {
    for (i, library) in added.iter().enumerate() {
        if let Err(error) = shards.store_library(library.name.as_bytes(), &library.code) {
            undo(shards, functions, &added[..i]);
            return Err(error);
        }
    }
    Ok(())
}

/// Puts the libraries of the registry back in place of those that were stored.
fn undo(shards: &mut Shards<'_>, functions: &FunctionRegistry, stored: &[Library]) {
    for library in stored {
        shards.remove_library(library.name.as_bytes());
    }
    for old in stored.iter().filter_map(|library| functions.find(&library.name)) {
        // The memory that it had is free again, and all shards are locked.
        if shards.store_library(old.name.as_bytes(), &old.code).is_err() {
            tracing::error!("The library '{}' is lost to images: no memory for it", old.name);
        }
    }
}

fn remove_others(shards: &mut Shards<'_>, functions: &FunctionRegistry, added: &[Library]) {
    for old in functions.snapshot().1 {
        if added.iter().all(|library| library.name != old.name) {
            shards.remove_library(old.name.as_bytes());
        }
    }
}

/// What is in the libraries of an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct FunctionCounts {
    pub libraries: usize,
    pub functions: usize,
}

/// Libraries that cannot be loaded: name, and error reply.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct BrokenLibraries(Vec<(Vec<u8>, Vec<u8>)>);

/// The findings on one line.
impl fmt::Display for BrokenLibraries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, text)) in self.0.iter().enumerate() {
            let text = text.strip_prefix(b"ERR ").unwrap_or(text);
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}'{}' ({})", name.escape_ascii(), OneLine(text))?;
        }
        Ok(())
    }
}

/// Text without control characters.
struct OneLine<'a>(&'a [u8]);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(self.0);
        text.chars().try_for_each(|letter| match letter.is_control() {
            true => write!(f, "{}", letter.escape_default()),
            false => write!(f, "{letter}"),
        })
    }
}

/// Compiles the libraries in a keyspace, as a server does that has restored it.
///
/// # Errors
/// The libraries that cannot be loaded.
pub(crate) fn check(keyspace: &Keyspace) -> Result<FunctionCounts, BrokenLibraries> {
    let (mut broken, mut registry) = (Vec::new(), FunctionRegistry::default());
    let libraries = keyspace.libraries();
    if libraries.is_empty() {
        return Ok(FunctionCounts::default());
    }
    for (name, code) in libraries {
        if let Err(text) = check_library(&mut registry, &name, &code) {
            broken.push((name, text));
        }
    }
    if !broken.is_empty() {
        return Err(BrokenLibraries(broken));
    }
    let (_, libraries) = registry.snapshot();
    let functions = libraries.iter().map(|library| library.functions.len()).sum();
    Ok(FunctionCounts { libraries: libraries.len(), functions })
}

/// Loads a library in an interpreter of its own, so that none takes the memory of another.
fn check_library(registry: &mut FunctionRegistry, name: &[u8], code: &[u8]) -> Result<(), Vec<u8>> {
    let limit = Config::default().lua_memory_limit;
    let runtime = ScriptRuntime::new(limit, script::VERSIONS).map_err(String::into_bytes)?;
    let library = Library::load(runtime.interpreter(), code)?;
    if library.name.as_bytes() != name {
        return Err(format!("its code has the name '{}'", library.name).into_bytes());
    }
    registry.check(&library, false).map_err(String::into_bytes)?;
    registry.add(library);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::ShardSet;
    use cowherd_arena::{PageKind, ReservedArena};

    #[test]
    fn libraries_that_cannot_be_loaded_are_named_on_one_line() {
        let arena = ReservedArena::reserve(PageKind::Small, 32 << 20).unwrap();
        let keyspace = Keyspace::create(arena, 7).unwrap();
        assert_eq!(check(&keyspace), Ok(FunctionCounts::default()));
        let store = |name: &str, code: &str| {
            let mut shards = keyspace.lock(ShardSet::ALL, 0);
            shards.store_library(name.as_bytes(), code.as_bytes()).unwrap();
        };
        let function = |name: &str| format!("redis.register_function('{name}', function() end)");
        store("good", &format!("#!lua name=good\n{}\n{}", function("f"), function("g")));
        assert_eq!(check(&keyspace), Ok(FunctionCounts { libraries: 1, functions: 2 }));
        store("a", "#!lua name=a\nlocal =");
        store("other", &format!("#!lua name=moved\n{}", function("h")));
        store("taken", &format!("#!lua name=taken\n{}", function("g")));
        store("x\ny", "no library");
        let expected = "'a' (Error compiling function: user_function:2: '<name>' expected near \
                        '='); \
                        'other' (its code has the name 'moved'); \
                        'taken' (Function g already exists); \
                        'x\\ny' (Missing library metadata)";
        assert_eq!(check(&keyspace).unwrap_err().to_string(), expected);
        let error = BrokenLibraries(vec![(b"n".to_vec(), b"ERR two\nlines".to_vec())]);
        assert_eq!(error.to_string(), "'n' (two\\nlines)");
    }
}

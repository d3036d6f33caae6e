//! The scripts that EVALSHA finds, by the SHA-1 of their text.
//!
//! A script that came with EVAL stays until 500 others have come since it was used; one that came
//! with SCRIPT LOAD stays until SCRIPT FLUSH.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use cowherd_lua::interpreter::FunctionFlags;
use parking_lot::Mutex;

use super::shebang::parse_shebang;

/// The SHA-1 of a script in lower-case hexadecimal digits.
pub type Sha = [u8; 40];

/// Scripts of EVAL that are kept.
const KEPT_SCRIPTS: usize = 500;

/// A script.
#[derive(Debug)]
pub struct Script {
    /// Its SHA-1.
    pub sha: Sha,
    /// Its text.
    pub body: Box<[u8]>,
    /// Its flags; `None` without a first line that declares any.
    pub flags: Option<FunctionFlags>,
    /// Whether it has touched a key of a shard that its keys do not name.
    pub has_undeclared_keys: Arc<AtomicBool>,
    /// Whether it has left the cache.
    pub is_dropped: AtomicBool,
    /// Whether SCRIPT LOAD keeps it.
    is_loaded: AtomicBool,
    last_use: AtomicU64,
}

/// All scripts.
#[derive(Debug, Default)]
pub struct ScriptCache {
    scripts: Mutex<HashMap<Sha, Arc<Script>>>,
    /// Memory of the scripts.
    bytes: AtomicU64,
    uses: AtomicU64,
    evicted: AtomicU64,
}

impl Script {
    /// Code of a script whose first line starts with `#!`: the line is left empty, so that line
    /// numbers stay.
    pub fn code(&self) -> &[u8] {
        code_of(&self.body)
    }

    /// The memory that it takes.
    fn bytes(&self) -> u64 {
        (size_of::<Self>() + size_of::<Sha>() + self.body.len()) as u64
    }
}

/// Code without its first line if that starts with `#!`; the line end stays.
pub(super) fn code_of(body: &[u8]) -> &[u8] {
    if !body.starts_with(b"#!") {
        return body;
    }
    let end = body.iter().position(|byte| *byte == b'\n').unwrap_or(body.len());
    &body[end..]
}

impl ScriptCache {
    /// The script of a SHA-1, if there is one.
    pub fn find(&self, sha: &Sha) -> Option<Arc<Script>> {
        self.scripts.lock().get(sha).cloned()
    }

    /// Notes that a script is used.
    #[inline]
    pub fn touch(&self, script: &Script) {
        script.last_use.store(self.uses.fetch_add(1, Relaxed), Relaxed);
    }

    /// The script of a text, which is added if it is new; `is_loaded`: it stays until all are
    /// flushed.
    ///
    /// # Errors
    /// The error reply for a first line that is wrong.
    pub fn add(&self, body: &[u8], sha: Sha, is_loaded: bool) -> Result<Arc<Script>, Vec<u8>> {
        let mut scripts = self.scripts.lock();
        if let Some(script) = scripts.get(&sha) {
            if is_loaded {
                script.is_loaded.store(true, Relaxed);
            }
            return Ok(Arc::clone(script));
        }
        let flags = match parse_shebang(body) {
            None => None,
            Some(Err(())) => return Err(b"ERR Invalid script shebang".to_vec()),
            Some(Ok(line)) => Some(line.script_flags()?),
        };
        let script = Arc::new(Script {
            sha,
            body: body.into(),
            flags,
            has_undeclared_keys: Arc::default(),
            is_dropped: AtomicBool::new(false),
            is_loaded: AtomicBool::new(is_loaded),
            last_use: AtomicU64::new(self.uses.fetch_add(1, Relaxed)),
        });
        self.bytes.fetch_add(script.bytes(), Relaxed);
        scripts.insert(sha, Arc::clone(&script));
        if !is_loaded {
            self.evict(&mut scripts);
        }
        Ok(script)
    }

    /// Drops a script that cannot be compiled.
    pub fn drop_script(&self, script: &Script) {
        script.is_dropped.store(true, Relaxed);
        if let Some(script) = self.scripts.lock().remove(&script.sha) {
            self.bytes.fetch_sub(script.bytes(), Relaxed);
        }
    }

    /// Drops the scripts of EVAL that were not used for longest, if there are too many.
    fn evict(&self, scripts: &mut HashMap<Sha, Arc<Script>>) {
        let evictable = |script: &Arc<Script>| !script.is_loaded.load(Relaxed);
        if scripts.values().filter(|script| evictable(script)).count() <= KEPT_SCRIPTS {
            return;
        }
        let candidates = scripts.values().filter(|script| evictable(script));
        let oldest = candidates.min_by_key(|script| script.last_use.load(Relaxed));
        if let Some(sha) = oldest.map(|script| script.sha)
            && let Some(script) = scripts.remove(&sha)
        {
            script.is_dropped.store(true, Relaxed);
            self.bytes.fetch_sub(script.bytes(), Relaxed);
            self.evicted.fetch_add(1, Relaxed);
        }
    }

    /// Drops all scripts.
    pub fn flush(&self) {
        for (_, script) in self.scripts.lock().drain() {
            script.is_dropped.store(true, Relaxed);
            self.bytes.fetch_sub(script.bytes(), Relaxed);
        }
    }

    /// Number of scripts, and the memory that they take.
    pub fn size(&self) -> (u64, u64) {
        let count = self.scripts.lock().len() as u64;
        (count, self.bytes.load(Relaxed))
    }

    /// Number of scripts that were dropped for newer ones.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(cache: &ScriptCache, text: &str, is_loaded: bool) -> Arc<Script> {
        let sha = cowherd_lua::interpreter::sha1_hex(text.as_bytes());
        cache.add(text.as_bytes(), sha, is_loaded).unwrap()
    }

    #[test]
    fn scripts_of_eval_leave_by_age() {
        let cache = ScriptCache::default();
        let loaded = add(&cache, "return 'loaded'", true);
        let used = add(&cache, "return 'used'", false);
        let old = add(&cache, "return 'old'", false);
        for i in 0..KEPT_SCRIPTS - 1 {
            cache.touch(&used);
            add(&cache, &format!("return {i}"), false);
        }
        assert!(cache.find(&loaded.sha).is_some() && cache.find(&used.sha).is_some());
        assert!(cache.find(&old.sha).is_none() && old.is_dropped.load(Relaxed));
        assert_eq!((cache.size().0, cache.evicted()), (KEPT_SCRIPTS as u64 + 1, 1));
        assert!(cache.size().1 > KEPT_SCRIPTS as u64 * size_of::<Script>() as u64);
        cache.drop_script(&used);
        cache.drop_script(&old);
        cache.flush();
        assert_eq!(cache.size(), (0, 0));
    }
}

//! Checking a whole keyspace: every structure that can be reached, and that nothing else is there.
//!
//! An image is untrusted input. Until this has passed, no offset, length or tag in it is believed.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::arena::{Audit, Broken, Mem, Offset, SHARDS, ShardIndex, ShardSet, Summary};
use crate::collections::dict::{Root, check};

use super::entry::{Encoding, HEAD, Shape};
use super::{DATABASES, DbIndex, GARBAGE, Keyspace, MAX_VALUE, db_root, garbage_of};

/// What a keyspace holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    /// Keys in all databases.
    pub keys: u64,
    /// Keys with an expiry.
    pub expires: u64,
    /// What the arena holds.
    pub arena: Summary,
}

impl Keyspace {
    /// Checks every invariant of the arena, the dictionaries and the entries, on `threads`
    /// threads, with all shards locked.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub fn verify(&self, threads: usize) -> Result<Contents, Broken> {
        let mut held = self.arena.lock(ShardSet::ALL);
        let audit = Audit::begin(&mut held)?;
        let next = AtomicUsize::new(0);
        let work = || -> Result<Contents, Broken> {
            let mut contents = Contents::default();
            while let Some(shard) = ShardIndex::new(next.fetch_add(1, Ordering::Relaxed)) {
                verify_shard(&audit, shard, &mut contents)?;
            }
            Ok(contents)
        };
        let mut all = Contents::default();
        std::thread::scope(|scope| -> Result<(), Broken> {
            let others: Vec<_> = (1..threads.clamp(1, SHARDS)).map(|_| scope.spawn(work)).collect();
            let mut results = vec![work()];
            for other in others {
                results.push(other.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
            }
            for result in results {
                let part = result?;
                all.keys += part.keys;
                all.expires += part.expires;
            }
            Ok(())
        })?;
        all.arena = audit.finish()?;
        Ok(all)
    }
}

fn verify_shard(
    audit: &Audit<'_>,
    shard: ShardIndex,
    contents: &mut Contents,
) -> Result<(), Broken> {
    for db in 0..DATABASES {
        let keys = Offset::<Root>::new(db_root(shard, db).raw());
        let expires = Offset::<Root>::new(keys.raw() + size_of::<Root>() as u64);
        let (keys, expiring) = verify_pair(audit, shard, keys, expires, Some(db))?;
        contents.keys += keys;
        contents.expires += expiring;
    }
    for slot in 0..GARBAGE {
        let (keys, expires) = garbage_of(shard, slot);
        verify_pair(audit, shard, keys, expires, None)?;
    }
    Ok(())
}

/// Checks a database, or a flushed one (`db` is none), whose `expires` may be freed in part.
fn verify_pair(
    audit: &Audit<'_>,
    shard: ShardIndex,
    keys: Offset<Root>,
    expires: Offset<Root>,
    db: Option<DbIndex>,
) -> Result<(u64, u64), Broken> {
    let mem = audit.mem(shard);
    let mut expiring = Vec::new();
    let root = check(&mem, audit, keys, |at| {
        let (shape, hash) = verify_entry(&mem, audit, at, shard)?;
        if shape.has_expiry {
            expiring.push(at);
        }
        Ok(hash)
    })?;
    expiring.sort_unstable();
    let expires = check(&mem, audit, expires, |at| {
        if expiring.binary_search(&at).is_err() {
            let reason = format!("`expires` refers to {at:#x}, which has no expiry");
            return Err(Broken::at(at, reason));
        }
        Ok(super::entry::hash(mem.arena(), Shape::load(&mem, at).key(&mem, at)))
    })?;
    let complete = expires.len == expiring.len() as u64;
    if db.is_some() && (!complete || root.drained > 0 || expires.drained > 0) {
        let reason =
            format!("{} keys have an expiry, but `expires` has {}", expiring.len(), expires.len);
        return Err(Broken::at(keys.raw(), reason));
    }
    Ok((root.len, expires.len))
}

/// Claims and checks an entry and its value; returns its shape and its key's hash.
fn verify_entry(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    at: u64,
    shard: ShardIndex,
) -> Result<(Shape, u64), Broken> {
    let broken = |reason: String| Err(Broken::at(at, format!("entry at {at:#x}: {reason}")));
    if at.checked_add(HEAD).is_none_or(|end| end > mem.arena().capacity()) {
        return Err(Broken::at(0, format!("an entry at {at:#x}, outside the arena")));
    }
    let Some(shape) = Shape::decode(mem, at) else {
        return broken("unknown type or encoding".into());
    };
    if shape.key_len > MAX_VALUE || shape.value_len > MAX_VALUE {
        return broken(format!("key of {} and value of {}", shape.key_len, shape.value_len));
    }
    audit.claim(at, shape.len(), shard)?;
    match shape.encoding {
        Encoding::External => {
            let (object, reserved) = shape.object(mem, at);
            if reserved < shape.value_len || reserved > MAX_VALUE {
                return broken(format!("{} bytes in {reserved}", shape.value_len));
            }
            audit.claim(object, reserved, shard)?;
        }
        Encoding::Int if shape.value_len != 0 => {
            return broken(format!("a number of {} bytes", shape.value_len));
        }
        Encoding::Int | Encoding::Inline => {}
    }
    let hash = super::entry::hash(mem.arena(), shape.key(mem, at));
    if ShardIndex::of_hash(hash) != shard {
        return broken(format!("its key belongs to shard {}", ShardIndex::of_hash(hash).get()));
    }
    Ok((shape, hash))
}

//! Checking a whole keyspace: every structure that can be reached, and that nothing else is there.
//!
//! An image is untrusted input. Until this has passed, no offset, length or tag in it is believed.

use std::sync::atomic::{AtomicUsize, Ordering};

use cowherd_arena::containers::dict::{Checked, check};
use cowherd_arena::{Audit, AuditSummary, Corruption, Mem, Offset, SHARDS, ShardIndex, ShardSet};

use super::entry::{Encoding, HEAD, Shape, ValueKind};
use super::strays::Stray;
use super::values;
use super::{DATABASES, DbRoot, Keyspace, MAX_VALUE, Side, db_root, garbage_of, keys_at};

/// What a keyspace holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    /// Keys in all databases.
    pub keys: u64,
    /// Keys with an expiry.
    pub expires: u64,
    /// What the arena holds.
    pub arena: AuditSummary,
}

impl Keyspace {
    /// Checks every invariant of the arena, the dictionaries and the entries, on `threads`
    /// threads, with all shards locked.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub fn verify(&self, threads: usize) -> Result<Contents, Corruption> {
        let mut held = self.arena.lock(ShardSet::ALL);
        let audit = Audit::begin(&mut held)?;
        let next = AtomicUsize::new(0);
        let work = || -> Result<(Contents, Vec<Stray>), Corruption> {
            let (mut contents, mut strays) = (Contents::default(), Vec::new());
            while let Some(shard) = ShardIndex::new(next.fetch_add(1, Ordering::Relaxed)) {
                verify_shard(&audit, shard, &mut contents, &mut strays)?;
            }
            Ok((contents, strays))
        };
        let (mut all, mut strays) = (Contents::default(), Vec::new());
        std::thread::scope(|scope| -> Result<(), Corruption> {
            let others: Vec<_> = (1..threads.clamp(1, SHARDS)).map(|_| scope.spawn(work)).collect();
            let mut results = vec![work()];
            for other in others {
                results.push(other.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
            }
            for result in results {
                let (part, mut found) = result?;
                all.keys += part.keys;
                all.expires += part.expires;
                strays.append(&mut found);
            }
            Ok(())
        })?;
        all.arena = audit.finish()?;
        self.learn_strays(&held, &strays)?;
        Ok(all)
    }
}

fn verify_shard(
    audit: &Audit<'_>,
    shard: ShardIndex,
    contents: &mut Contents,
    strays: &mut Vec<Stray>,
) -> Result<(), Corruption> {
    for db in 0..DATABASES {
        let database = verify_database(audit, shard, db_root(shard, db), false)?;
        contents.keys += database.keys;
        contents.expires += database.expiring;
        strays.extend(database.strays.into_iter().map(|hash| (db, hash, shard)));
    }
    // What is flushed is not looked for, wherever it is.
    for slot in garbage_of(shard) {
        verify_database(audit, shard, slot, true)?;
    }
    values::verify_garbage(&audit.mem(shard), audit)
}

/// What one shard has of a database.
struct Found {
    keys: u64,
    expiring: u64,
    /// Hashes of the keys whose home is another shard.
    strays: Vec<u64>,
}

/// Checks a database, or a flushed one, whose dictionaries may be freed in part.
fn verify_database(
    audit: &Audit<'_>,
    shard: ShardIndex,
    root: Offset<DbRoot>,
    is_garbage: bool,
) -> Result<Found, Corruption> {
    let mem = audit.mem(shard);
    let aside = [Vec::new(), Vec::new()];
    let mut entries = Entries { mem: &mem, audit, aside, strays: Vec::new() };
    let keys = check(&mem, audit, Offset::new(keys_at(root).place()), &mut entries)?;
    let mut drained = keys.drained > 0;
    let Entries { mut aside, strays, .. } = entries;
    for (side, entries) in Side::ALL.into_iter().zip(&mut aside) {
        entries.sort_unstable();
        // A dictionary that passes has no key twice, hence no entry twice: it refers to as many
        // different entries as it has items, and if all of them belong there and the numbers
        // agree, to each that does.
        let place = Offset::new(side.at(root).place());
        let dict = check(&mem, audit, place, &mut Aside { mem: &mem, side, entries })?;
        drained |= dict.drained > 0;
        if !is_garbage && (dict.len != entries.len() as u64) {
            let reason =
                format!("{} keys should be in {side:?}, but {} are", entries.len(), dict.len);
            return Err(Corruption::at(root.raw(), reason));
        }
    }
    if !is_garbage && drained {
        return Err(Corruption::at(root.raw(), "a database that is freed in part".into()));
    }
    Ok(Found { keys: keys.len, expiring: aside[0].len() as u64, strays })
}

fn has_same_key(mem: &Mem<'_>, one: u64, other: u64) -> bool {
    Shape::load(mem, one).key(mem, one) == Shape::load(mem, other).key(mem, other)
}

/// The items of `keys`: each entry is claimed.
struct Entries<'a, 'h> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
    /// Those of them that belong aside.
    aside: [Vec<u64>; Side::ALL.len()],
    /// Hashes of those whose home is another shard.
    strays: Vec<u64>,
}

impl Checked for Entries<'_, '_> {
    #[inline]
    fn prefetch(&self, item: u64) {
        self.audit.prefetch(item);
    }

    #[inline]
    fn check(&mut self, item: u64) -> Result<u64, Corruption> {
        let (shape, hash) = verify_entry(self.mem, self.audit, item, self.mem.shard())?;
        for (side, entries) in Side::ALL.into_iter().zip(&mut self.aside) {
            if shape.is_in(side) {
                entries.push(item);
            }
        }
        if ShardIndex::of_hash(hash) != self.mem.shard() {
            self.strays.push(hash);
        }
        Ok(hash)
    }

    fn is_same_key(&self, one: u64, other: u64) -> bool {
        has_same_key(self.mem, one, other)
    }
}

/// The items of a dictionary aside, which are entries of `keys`.
struct Aside<'a, 'h> {
    mem: &'a Mem<'h>,
    side: Side,
    /// The entries that belong there, in ascending order.
    entries: &'a [u64],
}

impl Checked for Aside<'_, '_> {
    #[inline]
    fn prefetch(&self, item: u64) {
        self.mem.arena().prefetch(item);
    }

    fn check(&mut self, item: u64) -> Result<u64, Corruption> {
        if self.entries.binary_search(&item).is_err() {
            let reason =
                format!("{:?} refers to {item:#x}, which does not belong there", self.side);
            return Err(Corruption::at(item, reason));
        }
        let key = Shape::load(self.mem, item).key(self.mem, item);
        Ok(super::entry::hash(self.mem.arena(), key))
    }

    fn is_same_key(&self, one: u64, other: u64) -> bool {
        has_same_key(self.mem, one, other)
    }
}

/// Claims and checks an entry and its value; returns its shape and its key's hash.
fn verify_entry(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    at: u64,
    shard: ShardIndex,
) -> Result<(Shape, u64), Corruption> {
    let broken = |reason: String| Err(Corruption::at(at, format!("entry at {at:#x}: {reason}")));
    if at.checked_add(HEAD).is_none_or(|end| end > mem.arena().capacity()) {
        return Err(Corruption::at(0, format!("an entry at {at:#x}, outside the arena")));
    }
    let Some(shape) = Shape::decode(mem, at) else {
        return broken("unknown type or encoding".into());
    };
    if shape.key_len > MAX_VALUE || shape.value_len > MAX_VALUE {
        return broken(format!("key of {} and value of {}", shape.key_len, shape.value_len));
    }
    if shape.kind == ValueKind::String
        && (shape.form, shape.count, shape.is_large()) != (0, 0, false)
        || shape.kind != ValueKind::String && (shape.was_edited || shape.encoding == Encoding::Int)
        || shape.is_large() && (shape.count, shape.value_len) != (0, 0)
    {
        return broken(format!("its parts do not go together: {shape:?}"));
    }
    audit.claim(at, shape.len(), shard)?;
    match shape.encoding {
        Encoding::External => {
            let (object, reserved) = shape.object(mem, at);
            if reserved < shape.value_len || reserved > MAX_VALUE || shape.value_len == 0 {
                return broken(format!("{} bytes in {reserved}", shape.value_len));
            }
            audit.claim(object, reserved, shard)?;
        }
        Encoding::Int if shape.value_len != 0 => {
            return broken(format!("a number of {} bytes", shape.value_len));
        }
        Encoding::Large => values::verify_large(mem, audit, &shape, shape.header(mem, at))?,
        Encoding::Int | Encoding::Inline => {}
    }
    if shape.is_compact() {
        values::verify_compact(mem, at, &shape)?;
    }
    let hash = super::entry::hash(mem.arena(), shape.key(mem, at));
    Ok((shape, hash))
}

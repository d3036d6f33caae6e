//! Verification of a whole keyspace: every structure that can be reached is sound, and no memory is
//! in use besides.
//!
//! An image is untrusted input: until it is verified, no offset, length or tag in it is relied on.

use std::sync::atomic::{AtomicUsize, Ordering};

use cowherd_arena::containers::dict::{CheckDictItem, check};
use cowherd_arena::{Audit, AuditSummary, Corruption, Mem, Offset, SHARDS, ShardIndex, ShardSet};

use super::entry::{EntryHeader, MAX_HEAD, ValueStorage, ValueType};
use super::relocation::RelocatedKey;
use super::roots::{DATABASES, DbRoot, SecondaryIndex, db_root, flushed_slots, keys_at};
use super::{Keyspace, MAX_VALUE, values};

/// Totals of a verified keyspace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    /// Keys in all databases.
    pub keys: u64,
    /// Keys with an expiry.
    pub expires: u64,
    /// Totals of the arena.
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
        let work = || -> Result<(Contents, Vec<RelocatedKey>), Corruption> {
            let (mut contents, mut relocated) = (Contents::default(), Vec::new());
            while let Some(shard) = ShardIndex::new(next.fetch_add(1, Ordering::Relaxed)) {
                verify_shard(&audit, shard, &mut contents, &mut relocated)?;
            }
            Ok((contents, relocated))
        };
        let (mut all, mut relocated) = (Contents::default(), Vec::new());
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
                relocated.append(&mut found);
            }
            Ok(())
        })?;
        all.arena = audit.finish()?;
        self.load_forwarding(&held, &relocated)?;
        Ok(all)
    }
}

fn verify_shard(
    audit: &Audit<'_>,
    shard: ShardIndex,
    contents: &mut Contents,
    relocated: &mut Vec<RelocatedKey>,
) -> Result<(), Corruption> {
    for db in 0..DATABASES {
        let database = verify_database(audit, shard, db_root(shard, db), false)?;
        contents.keys += database.keys;
        contents.expires += database.expiring;
        relocated.extend(database.relocated.into_iter().map(|hash| (db, hash, shard)));
    }
    // Keys of flushed databases are not looked up any more, so it does not matter where they live.
    for slot in flushed_slots(shard) {
        verify_database(audit, shard, slot, true)?;
    }
    values::verify_lazy_free(&audit.mem(shard), audit)
}

/// What was found of a database in one shard.
struct DatabaseFindings {
    keys: u64,
    expiring: u64,
    /// Hashes of relocated keys.
    relocated: Vec<u64>,
}

/// Checks a database; with `is_deferred` a flushed one, whose dictionaries may be freed in part.
fn verify_database(
    audit: &Audit<'_>,
    shard: ShardIndex,
    root: Offset<DbRoot>,
    is_deferred: bool,
) -> Result<DatabaseFindings, Corruption> {
    let mem = audit.mem(shard);
    let indexed = [Vec::new(), Vec::new()];
    let mut entries = EntryChecker { mem: &mem, audit, indexed, relocated: Vec::new() };
    let keys = check(&mem, audit, Offset::new(keys_at(root).place()), &mut entries)?;
    let mut drained = keys.drained > 0;
    let EntryChecker { mut indexed, relocated, .. } = entries;
    for (index, entries) in SecondaryIndex::ALL.into_iter().zip(&mut indexed) {
        entries.sort_unstable();
        // A dictionary that passes has no key twice, hence no entry twice. So if all its items
        // belong into the index, and there are as many as entries that belong there, none is
        // missing.
        let place = Offset::new(index.at(root).place());
        let dict = check(&mem, audit, place, &mut IndexChecker { mem: &mem, index, entries })?;
        drained |= dict.drained > 0;
        if !is_deferred && (dict.len != entries.len() as u64) {
            let reason =
                format!("{} keys should be in {index:?}, but {} are", entries.len(), dict.len);
            return Err(Corruption::at(root.raw(), reason));
        }
    }
    if !is_deferred && drained {
        return Err(Corruption::at(root.raw(), "a database that is freed in part".into()));
    }
    Ok(DatabaseFindings { keys: keys.len, expiring: indexed[0].len() as u64, relocated })
}

fn has_same_key(mem: &Mem<'_>, one: u64, other: u64) -> bool {
    EntryHeader::load(mem, one).key(mem, one) == EntryHeader::load(mem, other).key(mem, other)
}

/// Checks the items of `keys`; claims each entry.
struct EntryChecker<'a, 'h> {
    mem: &'a Mem<'h>,
    audit: &'a Audit<'h>,
    /// The entries that belong into each secondary index.
    indexed: [Vec<u64>; SecondaryIndex::ALL.len()],
    /// Hashes of relocated keys.
    relocated: Vec<u64>,
}

impl CheckDictItem for EntryChecker<'_, '_> {
    #[inline]
    fn prefetch(&self, item: u64) {
        self.audit.prefetch(item);
    }

    #[inline]
    fn check(&mut self, item: u64) -> Result<u64, Corruption> {
        let (head, hash) = verify_entry(self.mem, self.audit, item, self.mem.shard())?;
        for (index, entries) in SecondaryIndex::ALL.into_iter().zip(&mut self.indexed) {
            if head.is_indexed_by(index) {
                entries.push(item);
            }
        }
        if ShardIndex::of_hash(hash) != self.mem.shard() {
            self.relocated.push(hash);
        }
        Ok(hash)
    }

    fn is_same_key(&self, one: u64, other: u64) -> bool {
        has_same_key(self.mem, one, other)
    }
}

/// Checks the items of a secondary index, which are entries of `keys` too.
struct IndexChecker<'a, 'h> {
    mem: &'a Mem<'h>,
    index: SecondaryIndex,
    /// The entries that belong into the index, in ascending order.
    entries: &'a [u64],
}

impl CheckDictItem for IndexChecker<'_, '_> {
    #[inline]
    fn prefetch(&self, item: u64) {
        self.mem.arena().prefetch(item);
    }

    fn check(&mut self, item: u64) -> Result<u64, Corruption> {
        if self.entries.binary_search(&item).is_err() {
            let reason =
                format!("{:?} refers to {item:#x}, which does not belong there", self.index);
            return Err(Corruption::at(item, reason));
        }
        let key = EntryHeader::load(self.mem, item).key(self.mem, item);
        Ok(super::entry::hash(self.mem.arena(), key))
    }

    fn is_same_key(&self, one: u64, other: u64) -> bool {
        has_same_key(self.mem, one, other)
    }
}

/// Claims and checks an entry and its value; returns the header and the key's hash.
fn verify_entry(
    mem: &Mem<'_>,
    audit: &Audit<'_>,
    at: u64,
    shard: ShardIndex,
) -> Result<(EntryHeader, u64), Corruption> {
    let broken = |reason: String| Err(Corruption::at(at, format!("entry at {at:#x}: {reason}")));
    if at.checked_add(MAX_HEAD).is_none_or(|end| end > mem.arena().capacity()) {
        return Err(Corruption::at(0, format!("an entry at {at:#x}, outside the arena")));
    }
    let Some(head) = EntryHeader::decode(mem, at) else {
        return broken("unknown type or encoding".into());
    };
    if head.key_len > MAX_VALUE || head.value_len > MAX_VALUE {
        return broken(format!("key of {} and value of {}", head.key_len, head.value_len));
    }
    if head.kind == ValueType::String
        && (head.encoding, head.count, head.is_large()) != (0, 0, false)
        || head.kind != ValueType::String && (head.is_raw || head.storage == ValueStorage::Int)
        || head.is_large() && (head.count, head.value_len) != (0, 0)
    {
        return broken(format!("its parts do not go together: {head:?}"));
    }
    audit.claim(at, head.len(), shard)?;
    match head.storage {
        ValueStorage::External => {
            let (object, reserved) = head.object(mem, at);
            if reserved < head.value_len || reserved > MAX_VALUE || head.value_len == 0 {
                return broken(format!("{} bytes in {reserved}", head.value_len));
            }
            audit.claim(object, reserved, shard)?;
        }
        ValueStorage::Int if head.value_len != 0 => {
            return broken(format!("a number of {} bytes", head.value_len));
        }
        ValueStorage::Large => values::verify_large(mem, audit, &head, head.large_header(mem, at))?,
        ValueStorage::Int | ValueStorage::Inline => {}
    }
    if head.is_compact() {
        values::verify_compact(mem, at, &head)?;
    }
    let hash = super::entry::hash(mem.arena(), head.key(mem, at));
    Ok((head, hash))
}

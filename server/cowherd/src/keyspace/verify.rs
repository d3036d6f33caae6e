//! Verification of a whole keyspace: every structure that can be reached is sound, and no memory is
//! in use besides.
//!
//! An image is untrusted input: until it is verified, no offset, length or tag in it is relied on.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

use cowherd_arena::containers::dict::{CheckDictItem, ShortHash, check};
use cowherd_arena::{
    Audit, AuditSummary, Corruption, Mem, ObjectInspector, ObjectNotes, Offset, SHARDS, ShardIndex,
    ShardSet, SlabObject,
};

use super::entry::{EntryHeader, MAX_HEAD, ValueStorage, ValueType, hash_with_seed};
use super::relocation::RelocatedKey;
use super::roots::{
    ALL_DATABASES, DATABASES, DbRoot, SecondaryIndex, db_root, flushed_slots, keys_at,
};
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
        self.verify_restored(threads, None)
    }

    /// As [`Self::verify`], of a keyspace that has just been restored. `notes` are those of an
    /// [`EntryInspector`] that saw its chunks.
    ///
    /// # Errors
    /// As [`Self::verify`], the same with and without notes.
    pub fn verify_restored(
        &self,
        threads: usize,
        notes: Option<ObjectNotes>,
    ) -> Result<Contents, Corruption> {
        let mut held = self.arena.lock(ShardSet::ALL);
        let audit = Audit::begin_with(&mut held, notes)?;
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
    for db in 0..ALL_DATABASES {
        let database = verify_database(audit, shard, db_root(shard, db), false)?;
        if db < DATABASES {
            contents.keys += database.keys;
            contents.expires += database.expiring;
        }
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
        let dict =
            check(&mem, audit, place, &mut IndexChecker { mem: &mem, audit, index, entries })?;
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
    fn prefetch_note(&self, item: u64) {
        self.audit.prefetch_note(item);
    }

    #[inline]
    fn is_noted(&self, item: u64) -> bool {
        self.audit.note(item).is_some()
    }

    #[inline]
    fn check_noted(&mut self, item: u64) -> Result<Option<ShortHash>, Corruption> {
        let note = self.audit.claim_noted(item, self.mem.shard())?.map(EntryNote::from_word);
        let [expiring, _] = &mut self.indexed;
        if note.is_some_and(|note| note.has_expiry) {
            expiring.push(item);
        }
        Ok(note.map(|note| note.hash))
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
    audit: &'a Audit<'h>,
    index: SecondaryIndex,
    /// The entries that belong into the index, in ascending order.
    entries: &'a [u64],
}

impl CheckDictItem for IndexChecker<'_, '_> {
    #[inline]
    fn prefetch(&self, item: u64) {
        self.mem.arena().prefetch(item);
    }

    #[inline]
    fn prefetch_note(&self, item: u64) {
        self.audit.prefetch_note(item);
    }

    #[inline]
    fn is_noted(&self, item: u64) -> bool {
        self.audit.note(item).is_some()
    }

    /// The entry is claimed already, by its place in `keys`.
    fn check_noted(&mut self, item: u64) -> Result<Option<ShortHash>, Corruption> {
        let note = self.audit.note(item).filter(|_| self.entries.binary_search(&item).is_ok());
        Ok(note.map(|note| EntryNote::from_word(note).hash))
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

/// Whether the parts of a header go together.
fn has_consistent_parts(head: &EntryHeader) -> bool {
    let is_string = head.kind == ValueType::String;
    !(is_string && (head.encoding, head.count, head.is_large()) != (0, 0, false)
        || !is_string && (head.is_raw || head.storage == ValueStorage::Int)
        || head.is_large() && (head.count, head.value_len) != (0, 0))
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
    if !has_consistent_parts(&head) {
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

/// What is noted of an entry while its image is read: where it belongs in `keys`, and whether it
/// belongs into `expires`.
///
/// ```text
/// | has expiry 1 | hash 30 |
/// ```
#[derive(Clone, Copy)]
struct EntryNote {
    hash: ShortHash,
    has_expiry: bool,
}

const NOTED_EXPIRY: u32 = 1 << ShortHash::BITS;

impl EntryNote {
    /// The note as a number. `None` if that would be 0, which means that there is no note.
    fn word(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.hash.bits() | if self.has_expiry { NOTED_EXPIRY } else { 0 })
    }

    #[inline]
    fn from_word(word: NonZeroU32) -> Self {
        let hash = ShortHash::from_bits(word.get());
        Self { hash, has_expiry: word.get() & NOTED_EXPIRY != 0 }
    }
}

/// Checks entries while their image is read: the bytes of each, not the references to it.
///
/// It notes an entry that [`verify_entry`] would accept, if that would claim no other object, and
/// if its header and its key say all that the dictionaries have to agree with.
pub struct EntryInspector;

impl ObjectInspector for EntryInspector {
    fn inspect(&self, object: &SlabObject<'_>) -> Option<NonZeroU32> {
        let head = EntryHeader::decode_bytes(*object.bytes.first_chunk()?, || Some(object.class))?;
        let is_alone = match head.storage {
            ValueStorage::Inline => true,
            ValueStorage::Int => head.value_len == 0,
            ValueStorage::External | ValueStorage::Large => false,
        };
        let is_indexed = head.is_indexed_by(SecondaryIndex::Volatile);
        if !is_alone || is_indexed || !has_consistent_parts(&head) || !object.has_len(head.len()) {
            return None;
        }
        let part = |at: u64, len: u64| {
            let (at, len) = (usize::try_from(at).ok()?, usize::try_from(len).ok()?);
            object.bytes.get(at..at.checked_add(len)?)
        };
        if head.is_compact() {
            let value = part(head.value_at(), head.value_len)?;
            values::verify_compact_bytes(&head, value).ok()?;
        }
        let hash = hash_with_seed(object.hash_seed, part(head.key_at(), head.key_len)?);
        // The whole hash of a relocated key is needed.
        let is_home = ShardIndex::of_hash(hash) == object.shard;
        let note = EntryNote { hash: ShortHash::of(hash), has_expiry: head.has_expiry };
        note.word().filter(|_| is_home)
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;

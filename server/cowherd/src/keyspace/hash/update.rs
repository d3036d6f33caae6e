//! Setting and removing fields of hashes.

use crate::keyspace::compact::{CompactLimits, MAX_BYTES, ValueDescription};
use crate::keyspace::entry::{EntryHeader, VOLATILE, ValueType, hash};
use crate::keyspace::shards::Entry;
use crate::keyspace::{DbIndex, Expiry, Key, Shards};
use cowherd_arena::containers::packed::Encoded;
use cowherd_arena::{Mem, OutOfMemory};

use super::compact::HashBuilder;
use super::is_alive;
use super::large::{FieldHeader, FieldReplacement, LargeHash};

/// The limits for changes that add no elements: a compact hash stays compact.
pub(super) const UNLIMITED: CompactLimits = CompactLimits { entries: u64::MAX, value: u64::MAX };

/// The expiry of a field after it was set; `old` is its present one.
fn expiry_after(expiry: Expiry, old: Option<i64>) -> Option<i64> {
    match expiry {
        Expiry::Keep => old,
        Expiry::None => None,
        Expiry::At(at) => Some(at),
    }
}

impl Shards<'_> {
    /// Sets fields of a hash that was looked up, or of a new one. Of a field that is named twice
    /// the last value counts. Returns the number of new fields. Counts as a change for each field.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn hash_set<'p>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        pairs: impl Iterator<Item = (&'p [u8], &'p [u8])> + Clone,
        expiry: Expiry,
        limits: &CompactLimits,
    ) -> Result<u64, OutOfMemory> {
        let mut rest = pairs.clone();
        let Some(first) = rest.next() else { return Ok(0) };
        let single = rest.next().is_none().then_some(first);
        let added = match (old, single) {
            (Some(old), Some(pair)) if old.head.is_large() => {
                self.volatile_if(matches!(expiry, Expiry::At(_)), db, key, old, |shards, entry| {
                    shards.set_in_large(entry, pair, expiry)
                })?
            }
            (Some(old), None) if old.head.is_large() => {
                self.volatile_if(matches!(expiry, Expiry::At(_)), db, key, old, |shards, entry| {
                    shards.set_all_in_large(entry, pairs.clone(), expiry)
                })?
            }
            (Some(old), Some(pair)) => {
                match self.set_in_compact(db, key, old, pair, expiry, limits)? {
                    Some(added) => added,
                    None => {
                        let pair = std::iter::once(pair);
                        self.set_in_builder(db, key, Some(old), pair, expiry, limits)?
                    }
                }
            }
            _ => self.set_in_builder(db, key, old, pairs.clone(), expiry, limits)?,
        };
        let count = if single.is_some() { 1 } else { pairs.count() as u64 };
        self.touched_times(db, key, count);
        Ok(added)
    }

    /// Changes a large hash; before that, if `needed`, changes its encoding to the one whose fields
    /// may expire. On error nothing has changed.
    pub(super) fn volatile_if<T>(
        &mut self,
        needed: bool,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        change: impl FnOnce(&mut Self, &Entry) -> Result<T, OutOfMemory>,
    ) -> Result<T, OutOfMemory> {
        if !needed || entry.head.encoding == VOLATILE {
            return change(self, entry);
        }
        let head = EntryHeader { encoding: VOLATILE, ..entry.head };
        let rewritten = self.rewrite_header(db, key.hash, entry, head)?;
        let outcome = change(self, &rewritten);
        if outcome.is_err() {
            self.rewrite_header(db, key.hash, &rewritten, entry.head)?;
        }
        outcome
    }

    /// [`Self::hash_set`] for one field of a large hash.
    #[inline]
    fn set_in_large(
        &mut self,
        entry: &Entry,
        (name, value): (&[u8], &[u8]),
        expiry: Expiry,
    ) -> Result<u64, OutOfMemory> {
        let (large, now) = (self.large_hash(entry), self.now);
        let mut mem = self.held.mem(entry.shard);
        let hash = hash(mem.arena(), name);
        let found = large.find_hashed(&mem, name, hash);
        let old = found.map(|found| FieldHeader::load(&mem, found.item).expiry(&mem, found.item));
        let old = old.filter(|expiry| is_alive(*expiry, now));
        let expiry = expiry_after(expiry, old.flatten());
        let is_written =
            found.is_some_and(|found| large.overwrite(&mut mem, found.item, value, expiry));
        if !is_written {
            let put = large.put(&mut mem, name, value, expiry, hash, found)?;
            large.commit(&mut mem, &put);
        }
        Ok(u64::from(old.is_none()))
    }

    /// [`Self::hash_set`] for several fields of a large hash.
    fn set_all_in_large<'p>(
        &mut self,
        entry: &Entry,
        pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>,
        expiry: Expiry,
    ) -> Result<u64, OutOfMemory> {
        let (large, now) = (self.large_hash(entry), self.now);
        let mut added = 0;
        self.put_all(entry, |mem, puts| {
            for (name, value) in pairs {
                let hash = hash(mem.arena(), name);
                let found = large.find_hashed(mem, name, hash);
                let old =
                    found.map(|found| FieldHeader::load(mem, found.item).expiry(mem, found.item));
                let old = old.filter(|expiry| is_alive(*expiry, now));
                let expiry = expiry_after(expiry, old.flatten());
                puts.push(large.put(mem, name, value, expiry, hash, found)?);
                added += u64::from(old.is_none());
            }
            Ok(())
        })?;
        Ok(added)
    }

    /// Puts fields of a large hash, or none of them if memory is short.
    pub(super) fn put_all(
        &mut self,
        entry: &Entry,
        change: impl FnOnce(&mut Mem<'_>, &mut Vec<FieldReplacement>) -> Result<(), OutOfMemory>,
    ) -> Result<(), OutOfMemory> {
        let large = self.large_hash(entry);
        let mut mem = self.held.mem(entry.shard);
        let mut puts = Vec::new();
        let outcome = change(&mut mem, &mut puts);
        match outcome {
            Ok(()) => puts.iter().for_each(|put| large.commit(&mut mem, put)),
            Err(_) => puts.iter().rev().for_each(|put| large.undo(&mut mem, put)),
        }
        outcome
    }

    /// [`Self::hash_set`] for one field of a compact hash, if one splice does it; otherwise `None`.
    #[inline]
    fn set_in_compact(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        (name, value): (&[u8], &[u8]),
        expiry: Expiry,
        limits: &CompactLimits,
    ) -> Result<Option<u64>, OutOfMemory> {
        let may = limits.allow_len(name.len()) && limits.allow_len(value.len());
        if !may || matches!(expiry, Expiry::At(_)) {
            return Ok(None);
        }
        let (name, value) = (Encoded::of(name), Encoded::of(value));
        let count = entry.head.count;
        if let Some(place) = self.pairs(entry).find(&name) {
            let keeps = place.expiry.is_none()
                || expiry == Expiry::Keep && is_alive(place.expiry, self.now);
            let len = entry.head.value_len + value.len() as u64;
            if !keeps || len > MAX_BYTES {
                return Ok(None);
            }
            self.splice(db, key.hash, entry, place.value, &value.pieces(), count)?;
            return Ok(Some(0));
        }
        let end = entry.head.value_len;
        let len = end + (name.len() + value.len()) as u64 + 2;
        if !limits.allow_count(count + 1) || len > MAX_BYTES {
            return Ok(None);
        }
        let none = Encoded::int(0);
        let ([a, b, c], [d, e, f], [g, _, h]) = (name.pieces(), value.pieces(), none.pieces());
        let pieces = [a, b, c, d, e, f, g, h];
        let pieces = if entry.head.encoding == VOLATILE { &pieces[..] } else { &pieces[..6] };
        let end = usize::try_from(end).expect("invariant: a compact value has at most 1 MiB");
        self.splice(db, key.hash, entry, end..end, pieces, count + 1)?;
        Ok(Some(1))
    }

    /// A builder that starts with a compact hash, or empty.
    pub(super) fn hash_builder(&self, entry: Option<&Entry>) -> HashBuilder {
        entry.map_or_else(HashBuilder::default, |entry| {
            HashBuilder::of(self.run(entry), entry.head.count, entry.head.encoding == VOLATILE)
        })
    }

    /// [`Self::hash_set`] for all other cases.
    fn set_in_builder<'p>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>,
        expiry: Expiry,
        limits: &CompactLimits,
    ) -> Result<u64, OutOfMemory> {
        let (mut builder, mut added) = (self.hash_builder(old), 0);
        for (name, value) in pairs {
            let there = builder.expiry(name).filter(|expiry| is_alive(*expiry, self.now));
            builder.set(name, value, expiry_after(expiry, there.flatten()), limits);
            added += u64::from(there.is_none());
        }
        self.store_built(db, key, old, &mut builder, limits)?;
        Ok(added)
    }

    /// Sets a key to the hash that was built; removes the key if that has no fields.
    pub(super) fn store_built(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        builder: &mut HashBuilder,
        limits: &CompactLimits,
    ) -> Result<(), OutOfMemory> {
        let encoding = if builder.is_volatile { VOLATILE } else { 0 };
        let new = ValueDescription { kind: ValueType::Hash, encoding, count: builder.count };
        if builder.count == 0 {
            if let Some(old) = old {
                self.unlink(db, key.hash, old);
                self.free(old);
            }
        } else if let Some(run) = builder.compact(limits) {
            self.put_compact(db, key, old, new, &[run], Expiry::Keep)?;
        } else {
            let header = builder.large(&mut self.held.mem(key.shard))?;
            let new = ValueDescription { count: 0, ..new };
            self.put_large(db, key, old, new, header, Expiry::Keep)?;
        }
        Ok(())
    }

    /// Removes fields of a hash, and the key with its last field. Returns the number of fields that
    /// existed. Counts as a change for each of them.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn hash_remove<'p>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        fields: impl Iterator<Item = &'p [u8]> + Clone,
    ) -> Result<u64, OutOfMemory> {
        let removed = if entry.head.is_large() {
            self.remove_in_large(db, key, entry, fields)
        } else {
            self.remove_in_compact(db, key, entry, fields)?
        };
        if removed > 0 {
            self.touched_times(db, key, removed);
        }
        Ok(removed)
    }

    fn remove_in_large<'p>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        fields: impl Iterator<Item = &'p [u8]>,
    ) -> u64 {
        let (large, now) = (self.large_hash(entry), self.now);
        let mut mem = self.held.mem(entry.shard);
        let mut removed = 0;
        for name in fields {
            let hash = hash(mem.arena(), name);
            let Some(found) = large.find_hashed(&mem, name, hash) else { continue };
            if is_alive(FieldHeader::load(&mem, found.item).expiry(&mem, found.item), now) {
                large.remove(&mut mem, hash, found);
                removed += 1;
            }
        }
        self.remove_if_empty(db, key, entry, large);
        removed
    }

    /// Removes the key of a large hash if no fields are left; tells whether that was so.
    pub(super) fn remove_if_empty(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        large: LargeHash,
    ) -> bool {
        let is_empty = large.fields().is_empty(&self.held.mem(entry.shard));
        if is_empty {
            self.unlink(db, key.hash, entry);
            self.free(entry);
        }
        is_empty
    }

    fn remove_in_compact<'p>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        fields: impl Iterator<Item = &'p [u8]> + Clone,
    ) -> Result<u64, OutOfMemory> {
        let mut rest = fields.clone();
        if let (Some(name), None) = (rest.next(), rest.next()) {
            let place = self.pairs(entry).find(&Encoded::of(name));
            let Some(place) = place.filter(|place| is_alive(place.expiry, self.now)) else {
                return Ok(0);
            };
            if entry.head.count == 1 {
                self.unlink(db, key.hash, entry);
                self.free(entry);
            } else {
                self.splice(db, key.hash, entry, place.all, &[], entry.head.count - 1)?;
            }
            return Ok(1);
        }
        let (mut builder, mut removed) = (self.hash_builder(Some(entry)), 0);
        for name in fields {
            let there = builder.expiry(name).filter(|expiry| is_alive(*expiry, self.now));
            if there.is_some() {
                builder.remove(name);
                removed += 1;
            }
        }
        if removed > 0 {
            self.store_built(db, key, Some(entry), &mut builder, &UNLIMITED)?;
        }
        Ok(removed)
    }
}

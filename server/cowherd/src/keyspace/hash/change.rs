//! Setting and removing fields.

use crate::keyspace::compact::{CompactLimits, Description, MAX_BYTES};
use crate::keyspace::entry::{Shape, VOLATILE, ValueKind, hash};
use crate::keyspace::shards::Entry;
use crate::keyspace::{DbIndex, Expiry, Key, Shards};
use cowherd_arena::OutOfMemory;
use cowherd_arena::containers::packed::Encoded;

use super::draft::Draft;
use super::field;
use super::is_alive;
use super::large::{FieldReplacement, Large};

/// For changes that add no elements.
pub(super) const UNLIMITED: CompactLimits = CompactLimits { entries: u64::MAX, value: u64::MAX };

/// What a field's expiry is after the field was set. `old`: the one of the field if it is there.
fn expiry_after(wish: Expiry, old: Option<i64>) -> Option<i64> {
    match wish {
        Expiry::Keep => old,
        Expiry::None => None,
        Expiry::At(at) => Some(at),
    }
}

impl Shards<'_> {
    /// Sets fields of a hash that was looked up, or of a new one; of a field that is named twice
    /// the last value counts. Returns how many fields are new. Counts as a change for each.
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
            (Some(old), Some(pair)) if old.shape.is_large() => {
                self.volatile_if(matches!(expiry, Expiry::At(_)), db, key, old, |shards, entry| {
                    shards.set_in_large(entry, pair, expiry)
                })?
            }
            (Some(old), None) if old.shape.is_large() => {
                self.volatile_if(matches!(expiry, Expiry::At(_)), db, key, old, |shards, entry| {
                    shards.set_all_in_large(entry, pairs.clone(), expiry)
                })?
            }
            (Some(old), Some(pair)) => {
                match self.set_in_compact(db, key, old, pair, expiry, limits)? {
                    Some(added) => added,
                    None => {
                        let pair = std::iter::once(pair);
                        self.set_in_draft(db, key, Some(old), pair, expiry, limits)?
                    }
                }
            }
            _ => self.set_in_draft(db, key, old, pairs.clone(), expiry, limits)?,
        };
        let count = if single.is_some() { 1 } else { pairs.count() as u64 };
        self.hash_changed(db, key, count);
        Ok(added)
    }

    /// Lets fields of a large hash expire from now on, if `needed`, and changes it; on error it is
    /// as it was.
    pub(super) fn volatile_if<T>(
        &mut self,
        needed: bool,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        change: impl FnOnce(&mut Self, &Entry) -> Result<T, OutOfMemory>,
    ) -> Result<T, OutOfMemory> {
        if !needed || entry.shape.form == VOLATILE {
            return change(self, entry);
        }
        let shape = Shape { form: VOLATILE, ..entry.shape };
        let reshaped = self.reshape(db, key.hash, entry, shape)?;
        let outcome = change(self, &reshaped);
        if outcome.is_err() {
            self.reshape(db, key.hash, &reshaped, entry.shape)?;
        }
        outcome
    }

    /// Counts changes of a hash.
    pub(super) fn hash_changed(&mut self, db: DbIndex, key: &Key<'_>, count: u64) {
        self.changed_times(key.shard, count);
        self.tell(db, key);
    }

    /// As [`Self::hash_set`] with one field of a large hash.
    #[inline]
    fn set_in_large(
        &mut self,
        entry: &Entry,
        (name, value): (&[u8], &[u8]),
        wish: Expiry,
    ) -> Result<u64, OutOfMemory> {
        let (large, now) = (self.large_hash(entry), self.now);
        let mut mem = self.held.mem(entry.shard);
        let hash = hash(mem.arena(), name);
        let found = large.find_hashed(&mem, name, hash);
        let old = found.map(|found| field::Shape::load(&mem, found.item).expiry(&mem, found.item));
        let old = old.filter(|expiry| is_alive(*expiry, now));
        let expiry = expiry_after(wish, old.flatten());
        let is_written =
            found.is_some_and(|found| large.overwrite(&mut mem, found.item, value, expiry));
        if !is_written {
            let put = large.put(&mut mem, name, value, expiry, hash, found)?;
            large.commit(&mut mem, &put);
        }
        Ok(u64::from(old.is_none()))
    }

    /// As [`Self::hash_set`] with fields of a large hash.
    fn set_all_in_large<'p>(
        &mut self,
        entry: &Entry,
        pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>,
        wish: Expiry,
    ) -> Result<u64, OutOfMemory> {
        let (large, now) = (self.large_hash(entry), self.now);
        let mut added = 0;
        self.put_all(entry, |mem, puts| {
            for (name, value) in pairs {
                let hash = hash(mem.arena(), name);
                let found = large.find_hashed(mem, name, hash);
                let old =
                    found.map(|found| field::Shape::load(mem, found.item).expiry(mem, found.item));
                let old = old.filter(|expiry| is_alive(*expiry, now));
                let expiry = expiry_after(wish, old.flatten());
                puts.push(large.put(mem, name, value, expiry, hash, found)?);
                added += u64::from(old.is_none());
            }
            Ok(())
        })?;
        Ok(added)
    }

    /// Puts fields of a large hash, all or none.
    pub(super) fn put_all(
        &mut self,
        entry: &Entry,
        change: impl FnOnce(
            &mut cowherd_arena::Mem<'_>,
            &mut Vec<FieldReplacement>,
        ) -> Result<(), OutOfMemory>,
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

    /// As [`Self::hash_set`] with one field of a compact hash; `None` if that takes more than a
    /// splice.
    #[inline]
    fn set_in_compact(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        (name, value): (&[u8], &[u8]),
        wish: Expiry,
        limits: &CompactLimits,
    ) -> Result<Option<u64>, OutOfMemory> {
        let may = limits.allow_len(name.len()) && limits.allow_len(value.len());
        if !may || matches!(wish, Expiry::At(_)) {
            return Ok(None);
        }
        let (name, value) = (Encoded::of(name), Encoded::of(value));
        let count = entry.shape.count;
        if let Some(place) = self.pairs(entry).find(&name) {
            let keeps =
                place.expiry.is_none() || wish == Expiry::Keep && is_alive(place.expiry, self.now);
            let len = entry.shape.value_len + value.len() as u64;
            if !keeps || len > MAX_BYTES {
                return Ok(None);
            }
            self.splice(db, key.hash, entry, place.value, &value.pieces(), count)?;
            return Ok(Some(0));
        }
        let end = entry.shape.value_len;
        let len = end + (name.len() + value.len()) as u64 + 2;
        if !limits.allow_count(count + 1) || len > MAX_BYTES {
            return Ok(None);
        }
        let none = Encoded::int(0);
        let ([a, b, c], [d, e, f], [g, _, h]) = (name.pieces(), value.pieces(), none.pieces());
        let pieces = [a, b, c, d, e, f, g, h];
        let pieces = if entry.shape.form == VOLATILE { &pieces[..] } else { &pieces[..6] };
        let end = usize::try_from(end).unwrap_or(usize::MAX);
        self.splice(db, key.hash, entry, end..end, pieces, count + 1)?;
        Ok(Some(1))
    }

    /// The draft of a compact hash, or of a new one.
    pub(super) fn draft(&self, entry: Option<&Entry>) -> Draft {
        entry.map_or_else(Draft::default, |entry| {
            Draft::of(self.run(entry), entry.shape.count, entry.shape.form == VOLATILE)
        })
    }

    /// As [`Self::hash_set`], for all else.
    fn set_in_draft<'p>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>,
        wish: Expiry,
        limits: &CompactLimits,
    ) -> Result<u64, OutOfMemory> {
        let (mut draft, mut added) = (self.draft(old), 0);
        for (name, value) in pairs {
            let there = draft.expiry(name).filter(|expiry| is_alive(*expiry, self.now));
            draft.set(name, value, expiry_after(wish, there.flatten()), limits);
            added += u64::from(there.is_none());
        }
        self.store_draft(db, key, old, &mut draft, limits)?;
        Ok(added)
    }

    /// Lets a key have the hash that was drafted, or be gone if it has no fields.
    pub(super) fn store_draft(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        draft: &mut Draft,
        limits: &CompactLimits,
    ) -> Result<(), OutOfMemory> {
        let form = if draft.is_volatile { VOLATILE } else { 0 };
        let new = Description { kind: ValueKind::Hash, form, count: draft.count };
        if draft.count == 0 {
            if let Some(old) = old {
                self.unlink(db, key.hash, old);
                self.free(old);
            }
        } else if let Some(run) = draft.compact(limits) {
            self.put_compact(db, key, old, new, &[run], Expiry::Keep)?;
        } else {
            let large = draft.large(&mut self.held.mem(key.shard))?;
            let new = Description { count: 0, ..new };
            if let Err(full) = self.put_large(db, key, old, new, large.header(), Expiry::Keep) {
                large.free(&mut self.held.mem(key.shard));
                return Err(full);
            }
        }
        Ok(())
    }

    /// Removes fields of a hash, and the key with the last of them; returns how many were there.
    /// Counts as a change for each.
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
        let removed = if entry.shape.is_large() {
            self.remove_in_large(db, key, entry, fields)
        } else {
            self.remove_in_compact(db, key, entry, fields)?
        };
        if removed > 0 {
            self.hash_changed(db, key, removed);
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
            if is_alive(field::Shape::load(&mem, found.item).expiry(&mem, found.item), now) {
                large.remove(&mut mem, hash, found);
                removed += 1;
            }
        }
        self.remove_if_empty(db, key, entry, large);
        removed
    }

    /// Removes a key whose large hash has no fields any more; tells whether it had none.
    pub(super) fn remove_if_empty(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        large: Large,
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
            if entry.shape.count == 1 {
                self.unlink(db, key.hash, entry);
                self.free(entry);
            } else {
                self.splice(db, key.hash, entry, place.all, &[], entry.shape.count - 1)?;
            }
            return Ok(1);
        }
        let (mut draft, mut removed) = (self.draft(Some(entry)), 0);
        for name in fields {
            let there = draft.expiry(name).filter(|expiry| is_alive(*expiry, self.now));
            if there.is_some() {
                draft.remove(name);
                removed += 1;
            }
        }
        if removed > 0 {
            self.store_draft(db, key, Some(entry), &mut draft, &UNLIMITED)?;
        }
        Ok(removed)
    }
}

//! Fields that expire: setting and taking away expiries, and removing what has expired.

use crate::keyspace::entry::{self, ByPlace};
use crate::keyspace::events::KeyspaceEvent;
use crate::keyspace::expiry::CleaningSlice;
use crate::keyspace::shards::Entry;
use crate::keyspace::{DbIndex, ExpireRule, Key, Shards, Side, keys_of};
use cowherd_arena::containers::dict::{Cursor, Hashed as _};
use cowherd_arena::{Mem, OutOfMemory, ShardIndex};

use super::change::UNLIMITED;
use super::field;
use super::is_alive;
use super::large::FieldReplacement;

/// Fields that are removed at most when a hash is looked up.
const AT_ONCE: usize = 64;

/// What became of a field whose expiry was to be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldExpiryOutcome {
    /// There is no such field.
    Missing,
    /// It had no expiry that could be taken away.
    HadNone,
    /// The rule did not allow it.
    Refused,
    /// It was changed.
    Changed,
    /// It expired at once, and is gone.
    Gone,
}

impl Shards<'_> {
    /// Gives fields of a hash an expiry, or removes them if that is not in the future; with the
    /// last field the key goes. Counts as a change for each.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn hash_expire<'p>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        fields: impl Iterator<Item = &'p [u8]> + Clone,
        at: i64,
        rule: ExpireRule,
    ) -> Result<Vec<FieldExpiryOutcome>, OutOfMemory> {
        let is_past = at <= self.now;
        let decide = |old: Option<i64>| match () {
            () if !rule.allows(old, at) => FieldExpiryOutcome::Refused,
            () if is_past => FieldExpiryOutcome::Gone,
            () => FieldExpiryOutcome::Changed,
        };
        // What removes only does not make a hash one whose fields may expire.
        self.change_expiries(db, key, entry, fields, (!is_past).then_some(at), decide)
    }

    /// Takes the expiries of fields away. Counts as a change for each.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn hash_persist<'p>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        fields: impl Iterator<Item = &'p [u8]> + Clone,
    ) -> Result<Vec<FieldExpiryOutcome>, OutOfMemory> {
        let decide = |old: Option<i64>| match old {
            Some(_) => FieldExpiryOutcome::Changed,
            None => FieldExpiryOutcome::HadNone,
        };
        self.change_expiries(db, key, entry, fields, None, decide)
    }

    /// Does to each field what `decide` says of its expiry.
    fn change_expiries<'p>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        fields: impl Iterator<Item = &'p [u8]> + Clone,
        expiry: Option<i64>,
        decide: impl Fn(Option<i64>) -> FieldExpiryOutcome,
    ) -> Result<Vec<FieldExpiryOutcome>, OutOfMemory> {
        let outcomes = if entry.shape.is_large() {
            self.change_in_large(db, key, entry, fields, expiry, decide)?
        } else {
            self.change_in_compact(db, key, entry, fields, expiry, decide)?
        };
        let changed = outcomes.iter().filter(|outcome| outcome.is_change()).count();
        if changed > 0 {
            self.hash_changed(db, key, changed as u64);
        }
        Ok(outcomes)
    }

    fn change_in_compact<'p>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        fields: impl Iterator<Item = &'p [u8]>,
        expiry: Option<i64>,
        decide: impl Fn(Option<i64>) -> FieldExpiryOutcome,
    ) -> Result<Vec<FieldExpiryOutcome>, OutOfMemory> {
        let (mut draft, mut outcomes) = (self.draft(Some(entry)), Vec::new());
        for name in fields {
            let there = draft.expiry(name).filter(|old| is_alive(*old, self.now));
            let outcome = there.map_or(FieldExpiryOutcome::Missing, &decide);
            match outcome {
                FieldExpiryOutcome::Gone => {
                    draft.remove(name);
                }
                FieldExpiryOutcome::Changed => {
                    draft.make_volatile();
                    draft.set_expiry(name, expiry);
                }
                _ => {}
            }
            outcomes.push(outcome);
        }
        if outcomes.iter().any(|outcome| outcome.is_change()) {
            self.store_draft(db, key, Some(entry), &mut draft, &UNLIMITED)?;
        }
        Ok(outcomes)
    }

    fn change_in_large<'p>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        fields: impl Iterator<Item = &'p [u8]> + Clone,
        expiry: Option<i64>,
        decide: impl Fn(Option<i64>) -> FieldExpiryOutcome,
    ) -> Result<Vec<FieldExpiryOutcome>, OutOfMemory> {
        let (large, now) = (self.large_hash(entry), self.now);
        let (mut outcomes, mut gone) = (Vec::new(), Vec::new());
        let put = |mem: &mut Mem<'_>, puts: &mut Vec<FieldReplacement>| {
            for name in fields {
                let found = large.find(mem, name).filter(|found| !gone.contains(&found.item));
                let old = found.map(|found| {
                    (found, field::Shape::load(mem, found.item).expiry(mem, found.item))
                });
                let old = old.filter(|(_, old)| is_alive(*old, now));
                let outcome = old.map_or(FieldExpiryOutcome::Missing, |(_, old)| decide(old));
                match (outcome, old) {
                    (FieldExpiryOutcome::Changed, Some((found, _))) => {
                        puts.push(large.put_copy(mem, found.item, expiry)?);
                    }
                    (FieldExpiryOutcome::Gone, Some((found, _))) => gone.push(found.item),
                    _ => {}
                }
                outcomes.push(outcome);
            }
            Ok(())
        };
        self.volatile_if(expiry.is_some(), db, key, entry, |shards, entry| {
            shards.put_all(entry, put)
        })?;
        if !gone.is_empty() {
            let mut mem = self.held.mem(entry.shard);
            gone.into_iter().for_each(|item| large.remove_at(&mut mem, item));
            // Its form may have changed.
            if let Some(entry) = self.find(db, key) {
                self.remove_if_empty(db, key, &entry, large);
            }
        }
        Ok(outcomes)
    }

    /// No field of a hash expires before this.
    fn earliest_expiry(&self, entry: &Entry) -> i64 {
        if entry.shape.is_large() {
            let mem = self.held.view(entry.shard);
            self.large_hash(entry).earliest(&mem).map_or(i64::MAX, |(at, _)| at)
        } else {
            self.pairs(entry).earliest()
        }
    }

    /// A hash whose fields may expire, without some of those that have; none if none was left.
    #[inline]
    pub(super) fn without_expired(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Entry,
    ) -> Option<Entry> {
        if self.earliest_expiry(&entry) > self.now {
            return Some(entry);
        }
        self.remove_expired(db, key, &entry, AT_ONCE).then(|| self.find(db, key)).flatten()
    }

    /// Removes about `most` fields that have expired, and the key with the last of its fields;
    /// tells whether the key is still there. Without room for what is left of a compact hash it
    /// stays as it is.
    #[cold]
    fn remove_expired(&mut self, db: DbIndex, key: &Key<'_>, entry: &Entry, most: usize) -> bool {
        let now = self.now;
        let (removed, is_left) = if entry.shape.is_large() {
            let large = self.large_hash(entry);
            let mut mem = self.held.mem(entry.shard);
            let mut removed = 0;
            while removed < most
                && let Some((at, item)) = large.earliest(&mem)
                && at <= now
            {
                large.remove_at(&mut mem, item);
                removed += 1;
            }
            (removed as u64, !self.remove_if_empty(db, key, entry, large))
        } else {
            let mut draft = self.draft(Some(entry));
            draft.remove_expired(now);
            match self.store_draft(db, key, Some(entry), &mut draft, &UNLIMITED) {
                Ok(()) => (entry.shape.count - draft.count, draft.count > 0),
                Err(OutOfMemory) => (0, true),
            }
        };
        if removed > 0 {
            self.hash_changed(db, key, removed);
            let events = self.space.events();
            if events.is_enabled(KeyspaceEvent::FieldsExpired) {
                events.emit(KeyspaceEvent::FieldsExpired, db, key.bytes);
            }
            if !is_left && events.is_enabled(KeyspaceEvent::HashExpired) {
                events.emit(KeyspaceEvent::HashExpired, db, key.bytes);
            }
        }
        is_left
    }

    /// A slice of background work: looks at about `most` hashes whose fields may expire, and
    /// removes about as many fields of each that has some that did.
    pub(in crate::keyspace) fn expire_fields(
        &mut self,
        shard: ShardIndex,
        db: DbIndex,
        cursor: &mut Cursor,
        most: usize,
        slice: &mut CleaningSlice,
    ) {
        let volatile = Side::Volatile.of(shard, db);
        if volatile.is_empty(&self.held.mem(shard)) {
            return;
        }
        let mut hashes = Vec::new();
        let next = volatile.scan(&self.held.view(shard), *cursor, most, |at| hashes.push(at));
        *cursor = next.unwrap_or_default();
        hashes.sort_unstable();
        hashes.dedup();
        slice.looked_at += hashes.len();
        for at in hashes {
            let mem = self.held.mem(shard);
            let shape = entry::Shape::load(&mem, at);
            let hash = entry::ByHash.hash(&mem, at);
            let found = keys_of(shard, db).find(&mem, hash, &ByPlace(at));
            let Some(found) = found else { continue };
            let entry = Entry { at, shape, found, shard };
            if self.earliest_expiry(&entry) <= self.now {
                slice.expired += 1;
                let name = shape.key(&self.held.view(shard), at).to_vec();
                let key = Key { bytes: &name, hash, shard };
                self.remove_expired(db, &key, &entry, most);
            }
        }
    }
}

impl FieldExpiryOutcome {
    const fn is_change(self) -> bool {
        matches!(self, Self::Changed | Self::Gone)
    }
}

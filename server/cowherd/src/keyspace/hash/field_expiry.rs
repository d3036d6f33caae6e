//! Expiry of hash fields: setting and removing it, and removal of expired fields.

use crate::keyspace::counters::Counter;
use crate::keyspace::events::KeyspaceEvent;
use crate::keyspace::shards::Entry;
use crate::keyspace::{DbIndex, ExpireRule, Key, Shards};
use cowherd_arena::{Mem, OutOfMemory};

use super::is_alive;
use super::large::{FieldHeader, FieldReplacement};
use super::update::UNLIMITED;

/// Expired fields that a lookup of their hash removes at most, so that it does not take long.
const REMOVED_BY_LOOKUP: usize = 64;

/// The result of changing the expiry of one field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldExpiryOutcome {
    /// There is no such field.
    Missing,
    /// The field had no expiry that could be removed.
    HadNone,
    /// The rule did not allow the change.
    Refused,
    /// The expiry was changed.
    Changed,
    /// The new expiry was not in the future, and the field was removed.
    Gone,
}

impl Shards<'_> {
    /// Sets the expiry of fields, or removes the fields if it is not in the future, and the key
    /// with its last field. Counts as a change for each field.
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
        // Removing fields does not change the encoding to the one whose fields may expire.
        self.change_expiries(db, key, entry, fields, (!is_past).then_some(at), decide)
    }

    /// Removes the expiries of fields. Counts as a change for each field.
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

    /// Changes each field as `decide` says of its present expiry.
    fn change_expiries<'p>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        fields: impl Iterator<Item = &'p [u8]> + Clone,
        expiry: Option<i64>,
        decide: impl Fn(Option<i64>) -> FieldExpiryOutcome,
    ) -> Result<Vec<FieldExpiryOutcome>, OutOfMemory> {
        let outcomes = if entry.head.is_large() {
            self.change_in_large(db, key, entry, fields, expiry, decide)?
        } else {
            self.change_in_compact(db, key, entry, fields, expiry, decide)?
        };
        let changed = outcomes.iter().filter(|outcome| outcome.is_change()).count();
        if changed > 0 {
            self.touched_times(db, key, changed as u64);
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
        let (mut builder, mut outcomes) = (self.hash_builder(Some(entry)), Vec::new());
        for name in fields {
            let there = builder.expiry(name).filter(|old| is_alive(*old, self.now));
            let outcome = there.map_or(FieldExpiryOutcome::Missing, &decide);
            match outcome {
                FieldExpiryOutcome::Gone => {
                    builder.remove(name);
                }
                FieldExpiryOutcome::Changed => {
                    builder.make_volatile();
                    builder.set_expiry(name, expiry);
                }
                _ => {}
            }
            outcomes.push(outcome);
        }
        if outcomes.iter().any(|outcome| outcome.is_change()) {
            self.store_built(db, key, Some(entry), &mut builder, &UNLIMITED)?;
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
                    (found, FieldHeader::load(mem, found.item).expiry(mem, found.item))
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
            // Looked up again, since the header may have changed.
            if let Some(entry) = self.find(db, key) {
                self.remove_if_empty(db, key, &entry, large);
            }
        }
        Ok(outcomes)
    }

    /// No field of a hash expires earlier than this.
    fn earliest_expiry(&self, entry: &Entry) -> i64 {
        if entry.head.is_large() {
            let mem = self.held.view(entry.shard);
            self.large_hash(entry).earliest(&mem).map_or(i64::MAX, |(at, _)| at)
        } else {
            self.pairs(entry).earliest()
        }
    }

    /// A hash after some of its expired fields were removed; `None` if no field was left.
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
        self.remove_expired(db, key, &entry, REMOVED_BY_LOOKUP)
            .then(|| self.find(db, key))
            .flatten()
    }

    /// Removes about `most` expired fields, and the key with its last field; tells whether the key
    /// still exists. A compact hash is left as it is if there is no memory for its new bytes.
    #[cold]
    fn remove_expired(&mut self, db: DbIndex, key: &Key<'_>, entry: &Entry, most: usize) -> bool {
        let now = self.now;
        let (removed, is_left) = if entry.head.is_large() {
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
            let mut builder = self.hash_builder(Some(entry));
            builder.remove_expired(now);
            match self.store_built(db, key, Some(entry), &mut builder, &UNLIMITED) {
                Ok(()) => (entry.head.count - builder.count, builder.count > 0),
                // The next lookup tries again.
                Err(OutOfMemory) => (0, true),
            }
        };
        if removed > 0 {
            self.count(key.shard, Counter::ExpiredFields, removed);
            self.touched_times(db, key, 0);
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

    /// Removes about `most` expired fields of a hash for background cleaning; tells whether there
    /// were any.
    pub(in crate::keyspace) fn expire_fields(
        &mut self,
        db: DbIndex,
        hash: u64,
        entry: &Entry,
        most: usize,
    ) -> bool {
        if self.earliest_expiry(entry) > self.now {
            return false;
        }
        let name = entry.head.key(&self.held.view(entry.shard), entry.at).to_vec();
        let key = Key { bytes: &name, hash, shard: entry.shard };
        self.remove_expired(db, &key, entry, most);
        true
    }
}

impl FieldExpiryOutcome {
    const fn is_change(self) -> bool {
        matches!(self, Self::Changed | Self::Gone)
    }
}

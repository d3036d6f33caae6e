//! Expiry of keys: setting and removing it, and removal of entries that have expired.

use cowherd_arena::containers::dict::Hashed as _;
use cowherd_arena::{OutOfMemory, ShardIndex, allocated_size};

use super::entry::{ByOffset, EntryHasher, EntryHeader};
use super::roots::{DbIndex, keys_of};
use super::shards::Entry;
use super::{Key, Shards};

/// Bytes of an expiry in an entry.
const EXPIRY: usize = size_of::<i64>();

/// What happens to a key's expiry when its value is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// The expiry stays.
    Keep,
    /// The key has no expiry afterwards.
    None,
    /// The expiry is this wall clock time in milliseconds.
    At(i64),
}

/// The condition under which an expiry is set: NX, XX, GT, LT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExpireRule {
    /// Only if there is no expiry yet.
    pub if_none: bool,
    /// Only if there is an expiry already.
    pub if_some: bool,
    /// Only if the new expiry is later; no expiry is the latest of all.
    pub if_later: bool,
    /// Only if the new expiry is earlier; no expiry is the latest of all.
    pub if_earlier: bool,
}

impl ExpireRule {
    pub(super) fn allows(self, old: Option<i64>, new: i64) -> bool {
        !(self.if_none && old.is_some()
            || self.if_some && old.is_none()
            || self.if_later && old.is_none_or(|old| new <= old)
            || self.if_earlier && old.is_some_and(|old| new >= old))
    }
}

impl Shards<'_> {
    /// The expiry of an entry, wall clock in milliseconds.
    pub fn expiry(&self, entry: &Entry) -> Option<i64> {
        entry.head.expiry(&self.held.view(entry.shard), entry.at)
    }

    /// The expiry that a key has after its value was set.
    pub(super) fn resolve_expiry(&self, old: Option<&Entry>, expiry: Expiry) -> Option<i64> {
        match expiry {
            Expiry::Keep => old.and_then(|old| self.expiry(old)),
            Expiry::None => None,
            Expiry::At(at) => Some(at),
        }
    }

    /// Sets a key's expiry, or deletes the key if the expiry is not in the future. Tells whether
    /// the key exists and the rule allowed the change. Counts as a change.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn expire_at(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        at: i64,
        rule: ExpireRule,
    ) -> Result<bool, OutOfMemory> {
        let Some(entry) = self.lookup(db, key) else { return Ok(false) };
        if !rule.allows(self.expiry(&entry), at) {
            return Ok(false);
        }
        if at <= self.now {
            self.remove(db, key);
            return Ok(true);
        }
        self.set_expiry(db, key, &entry, Some(at))?;
        Ok(true)
    }

    /// Removes a key's expiry; tells whether there was one.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn persist(&mut self, db: DbIndex, key: &Key<'_>) -> Result<bool, OutOfMemory> {
        match self.lookup(db, key) {
            Some(entry) if entry.head.has_expiry => {
                self.set_expiry(db, key, &entry, None)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Sets or removes the expiry of an entry. Counts as a change.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn set_expiry(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        expiry: Option<i64>,
    ) -> Result<(), OutOfMemory> {
        let mut mem = self.held.mem(key.shard);
        if let (true, Some(expiry)) = (entry.head.has_expiry, expiry) {
            entry.head.set_expiry(&mut mem, entry.at, expiry);
            self.touched(db, key);
            return Ok(());
        }
        if entry.head.has_expiry == expiry.is_some() {
            return Ok(());
        }
        let head = EntryHeader { has_expiry: expiry.is_some(), ..entry.head.for_new_object() };
        let at = match (head.allocate_entry(&mut mem, expiry), expiry) {
            (Ok(at), _) => at,
            (Err(_), None) => return self.remove_expiry_in_place(db, key, entry, head),
            (Err(full), Some(_)) => return Err(full),
        };
        // All that follows the expiry is the same.
        let from = entry.at + entry.head.body_at();
        mem.copy(from, at + head.body_at(), head.len() - head.body_at());
        if let Err(full) = self.relink(db, key.hash, entry, at, &head) {
            self.mem(key.shard).release(at, head.len());
            return Err(full);
        }
        self.mem(key.shard).release(entry.at, entry.head.len());
        self.touched(db, key);
        Ok(())
    }

    /// Removes the expiry of an entry that stays in its object, because there is no memory for a
    /// smaller one.
    #[cold]
    fn remove_expiry_in_place(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        head: EntryHeader,
    ) -> Result<(), OutOfMemory> {
        // The header keeps its length, so that all behind the expiry moves by its bytes.
        let EntryHeader { is_wide, .. } = entry.head.for_change_in_place();
        let head = EntryHeader { is_wide, ..head };
        let (head_len, len) = (head.head_len(), head.len());
        let object = allocated_size(entry.head.len());
        // Fails for an entry whose key alone is longer than any slab object: such an object has no
        // size class that the header could name.
        let head = head.in_object(object).ok_or(OutOfMemory)?;
        self.rewrite_header(db, key.hash, entry, head)?;
        let mut mem = self.held.mem(key.shard);
        let after_head = mem.bytes_mut(entry.at + head_len, EXPIRY as u64 + len - head_len);
        after_head.copy_within(EXPIRY.., 0);
        let end = after_head.len() - EXPIRY;
        after_head[end..].fill(0);
        self.touched(db, key);
        Ok(())
    }

    /// Removes the expired entry at an offset.
    pub(super) fn expire_entry(&mut self, shard: ShardIndex, db: DbIndex, at: u64) {
        let mem = self.held.mem(shard);
        let hash = EntryHasher.hash(&mem, at);
        let found = keys_of(shard, db).find(&mem, hash, &ByOffset(at));
        let found = found.expect("invariant: an entry that was just read is linked");
        let entry = Entry { at, head: EntryHeader::load(&mem, at), found, shard };
        self.expire(db, hash, &entry);
    }
}

//! Keys that move: RENAME, COPY, MOVE, also from one shard to another.

use crate::arena::{OutOfMemory, ShardIndex};

use super::entry::{Encoding, Shape};
use super::shards::{Entry, free_entry};
use super::{DbIndex, Key, Shards};

impl Shards<'_> {
    /// Gives a key's value and expiry to another key of the same database, which loses what it
    /// had. Both shards are locked; the keys differ. Tells whether the key was there.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn rename(
        &mut self,
        db: DbIndex,
        from: &Key<'_>,
        to: &Key<'_>,
    ) -> Result<bool, OutOfMemory> {
        let Some(source) = self.lookup(db, from) else { return Ok(false) };
        let object = self.transferable(&source, to.shard);
        let at = self.duplicate(&source, to, object)?;
        self.adopt(db, to, at, object.is_some())?;
        self.space.clocks.follow(source.at, at);
        // Adding the new key may have moved the old one's slot.
        if let Some(source) = self.peek(db, from) {
            self.unlink(db, from.hash, &source);
            if let Some((_, len)) = object {
                if from.shard != to.shard {
                    self.mem(from.shard).give(to.shard, len);
                }
                self.mem(from.shard).release(source.at, source.shape.len());
            } else {
                self.free(&source);
            }
        }
        self.changed(from.shard);
        self.changed(to.shard);
        Ok(true)
    }

    /// Copies a key's value and expiry to a key of this or another database, which loses what it
    /// had. Tells whether the key was there.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn copy(
        &mut self,
        from_db: DbIndex,
        from: &Key<'_>,
        to_db: DbIndex,
        to: &Key<'_>,
    ) -> Result<bool, OutOfMemory> {
        let Some(source) = self.lookup(from_db, from) else { return Ok(false) };
        let at = self.duplicate(&source, to, None)?;
        self.adopt(to_db, to, at, false)?;
        self.changed(to.shard);
        Ok(true)
    }

    /// Moves a key to another database, where it is not yet. Tells whether it was there and could
    /// be moved.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn move_key(
        &mut self,
        from: DbIndex,
        key: &Key<'_>,
        to: DbIndex,
    ) -> Result<bool, OutOfMemory> {
        if self.peek(to, key).is_some() {
            return Ok(false);
        }
        let Some(entry) = self.lookup(from, key) else { return Ok(false) };
        self.link(to, key.hash, entry.at, entry.shape.has_expiry)?;
        self.unlink(from, key.hash, &entry);
        self.changed(key.shard);
        Ok(true)
    }

    /// The object of an entry, if an entry of shard `to` may take it over as it is.
    fn transferable(&mut self, entry: &Entry, to: ShardIndex) -> Option<(u64, u64)> {
        if !entry.shape.is_external() {
            return None;
        }
        let mem = self.mem(entry.shard);
        let (object, len) = entry.shape.object(&mem, entry.at);
        (entry.shard == to || len > crate::arena::MAX_SLAB_OBJECT).then_some((object, len))
    }

    /// An entry for `key` with the value and expiry of `source`, that nothing refers to yet. It
    /// takes `object` over if there is one.
    fn duplicate(
        &mut self,
        source: &Entry,
        key: &Key<'_>,
        object: Option<(u64, u64)>,
    ) -> Result<u64, OutOfMemory> {
        let shape = Shape { key_len: key.bytes.len() as u64, ..source.shape };
        let from = self.mem(source.shard);
        let expiry = source.shape.expiry(&from, source.at);
        let number = (shape.encoding == Encoding::Int).then(|| shape.number(&from, source.at));
        let value = (number.is_none() && object.is_none())
            .then(|| source.shape.value_place(&from, source.at));
        let mut mem = self.mem(key.shard);
        let at = mem.allocate(shape.len())?;
        if shape.is_external() {
            let (place, len) = match object {
                Some(object) => object,
                None => match mem.allocate(shape.value_len) {
                    Ok(place) => (place, shape.value_len),
                    Err(full) => {
                        mem.release(at, shape.len());
                        return Err(full);
                    }
                },
            };
            shape.set_object(&mut mem, at, place, len);
        }
        shape.store(&mut mem, at);
        if let Some(expiry) = expiry {
            shape.set_expiry(&mut mem, at, expiry);
        }
        if let Some(number) = number {
            shape.set_number(&mut mem, at, number);
        }
        mem.bytes_mut(at + shape.key_at(), shape.key_len).copy_from_slice(key.bytes);
        if let Some(value) = value {
            // Both shards are locked, so that either's memory may be used to copy.
            let place = shape.value_place(&mem, at);
            mem.copy(value, place, shape.value_len);
        }
        Ok(at)
    }

    /// Links a new entry under a key, in place of what the key had. `shares_object`: on error the
    /// entry's object is somebody else's still.
    fn adopt(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        at: u64,
        shares_object: bool,
    ) -> Result<(), OutOfMemory> {
        let old = self.peek(db, key);
        let shape = Shape::load(&self.mem(key.shard), at);
        let linked = match &old {
            Some(old) => self.relink(db, key.hash, old, at, shape.has_expiry),
            None => self.link(db, key.hash, at, shape.has_expiry),
        };
        match linked {
            Ok(()) => {
                if let Some(old) = old {
                    self.free(&old);
                    // The clock is that of a new key, not of the one whose place it took.
                    self.space.clocks.start(at, self.now);
                }
                Ok(())
            }
            Err(full) => {
                let mut mem = self.mem(key.shard);
                if shares_object {
                    mem.release(at, shape.len());
                } else {
                    free_entry(&mut mem, at);
                }
                Err(full)
            }
        }
    }
}

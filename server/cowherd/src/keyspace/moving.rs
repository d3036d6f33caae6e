//! Keys that move: RENAME, COPY, MOVE, also from one shard to another.
//!
//! No move takes longer for a value of more elements, but for a copy: a value of many stays in its
//! shard, and its key goes there (see `strays`).

use cowherd_arena::{Mem, OutOfMemory, ShardIndex};

use super::entry::{Encoding, Shape};
use super::shards::{Entry, free_entry};
use super::{DbIndex, Key, Shards, values};

/// What an entry may hand over to another as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Handed {
    /// Nothing: the value is to be copied.
    Nothing,
    /// An object, with its reserved length.
    Object(u64, u64),
    /// The header of a large value.
    Header(u64),
}

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
        let stays = self.is_heavy(&source) && self.may_settle(db, to, source.shard);
        let target = Key { shard: if stays { source.shard } else { to.shard }, ..*to };
        let handed = self.transferable(&source, target.shard);
        let at = self.duplicate(&source, &target, handed)?;
        self.adopt(db, to, target.shard, at, handed != Handed::Nothing)?;
        self.space.clocks.follow(source.at, at);
        // Adding the new key may have moved the old one's slot.
        if let Some(source) = self.peek(db, from) {
            self.unlink(db, from.hash, &source);
            if handed == Handed::Nothing {
                self.free(&source);
            } else {
                if let Handed::Object(at, len) = handed
                    && from.shard != target.shard
                {
                    self.mem(from.shard).transfer_ownership(at, target.shard, len);
                }
                self.mem(from.shard).release(source.at, source.shape.len());
            }
        }
        self.touched(db, from);
        self.touched(db, &target);
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
        let at = self.duplicate(&source, to, Handed::Nothing)?;
        self.adopt(to_db, to, to.shard, at, false)?;
        self.touched(to_db, to);
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
        let there = self.space.key_of(to, key.bytes, key.hash);
        if self.peek(to, &there).is_some() {
            return Ok(false);
        }
        let Some(entry) = self.lookup(from, key) else { return Ok(false) };
        if !self.may_settle(to, &there, entry.shard) {
            self.copy(from, key, to, &there)?;
            self.delete(from, key, &entry);
            return Ok(true);
        }
        self.link(to, key, entry.at, &entry.shape)?;
        self.unlink(from, key.hash, &entry);
        self.touched(from, key);
        self.tell(to, key);
        Ok(true)
    }

    /// What an entry of shard `to` may take over of an entry as it is.
    fn transferable(&mut self, entry: &Entry, to: ShardIndex) -> Handed {
        let mem = self.mem(entry.shard);
        let is_here = entry.shard == to;
        match entry.shape.encoding {
            Encoding::External => {
                let (object, len) = entry.shape.object(&mem, entry.at);
                match is_here || len > cowherd_arena::MAX_SLAB_OBJECT {
                    true => Handed::Object(object, len),
                    false => Handed::Nothing,
                }
            }
            Encoding::Large if is_here => Handed::Header(entry.shape.header(&mem, entry.at)),
            _ => Handed::Nothing,
        }
    }

    /// An entry for `key` with the value and expiry of `source`, that nothing refers to yet. It
    /// takes over what is handed to it.
    fn duplicate(
        &mut self,
        source: &Entry,
        key: &Key<'_>,
        handed: Handed,
    ) -> Result<u64, OutOfMemory> {
        let shape = Shape { key_len: key.bytes.len() as u64, held: None, ..source.shape };
        let expiry = shape.expiry(&self.mem(source.shard), source.at);
        // Both shards are locked, so that either's memory may be used to read the other's.
        let mut mem = self.mem(key.shard);
        let at = mem.allocate(shape.len())?;
        if let Err(full) = fill(&mut mem, at, &shape, source, handed) {
            mem.release(at, shape.len());
            return Err(full);
        }
        shape.store(&mut mem, at);
        if let Some(expiry) = expiry {
            shape.set_expiry(&mut mem, at, expiry);
        }
        mem.bytes_mut(at + shape.key_at(), shape.key_len).copy_from_slice(key.bytes);
        Ok(at)
    }

    /// Links a new entry of a shard under a key, in place of what the key had, wherever that was.
    /// `shares_value`: on error the entry's value is somebody else's still.
    fn adopt(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        shard: ShardIndex,
        at: u64,
        shares_value: bool,
    ) -> Result<(), OutOfMemory> {
        let old = self.peek(db, key);
        let shape = Shape::load(&self.mem(shard), at);
        let target = Key { shard, ..*key };
        let linked = match &old {
            Some(old) if old.shard == shard => self.relink(db, key.hash, old, at, &shape),
            Some(_) => self.link_no_event(db, &target, at, &shape),
            None => self.link(db, &target, at, &shape),
        };
        if let Err(full) = linked {
            let mut mem = self.mem(shard);
            if shares_value {
                mem.release(at, shape.len());
            } else {
                free_entry(&mut mem, at);
            }
            return Err(full);
        }
        if let Some(old) = old {
            if old.shard != shard {
                self.unlink(db, key.hash, &old);
            }
            self.free(&old);
            self.announce(super::KeyspaceEvent::New, db, shard, at);
            // The clock is that of a new key, not of the one whose place it took.
            self.space.clocks.start(at, self.now);
        }
        Ok(())
    }

    /// Whether an entry's value is large, and too large to be copied in passing.
    fn is_heavy(&self, entry: &Entry) -> bool {
        let mem = self.held.view(entry.shard);
        let shape = &entry.shape;
        shape.is_large() && !values::is_small(&mem, shape, shape.header(&mem, entry.at))
    }
}

/// Writes the value of a new entry at `at`: that of `source`, or what is handed over of it.
fn fill(
    mem: &mut Mem<'_>,
    at: u64,
    shape: &Shape,
    source: &Entry,
    handed: Handed,
) -> Result<(), OutOfMemory> {
    let old = &source.shape;
    match (shape.encoding, handed) {
        (_, Handed::Object(object, len)) => shape.set_object(mem, at, object, len),
        (_, Handed::Header(header)) => shape.set_header(mem, at, header),
        (Encoding::Large, _) => {
            let header = values::copy(mem, shape.kind, old.header(mem, source.at))?;
            shape.set_header(mem, at, header);
        }
        (Encoding::Int, _) => {
            let number = old.number(mem, source.at);
            shape.set_number(mem, at, number);
        }
        (Encoding::External, _) => {
            let object = mem.allocate(shape.value_len)?;
            shape.set_object(mem, at, object, shape.value_len);
            mem.copy(old.value_place(mem, source.at), object, shape.value_len);
        }
        (Encoding::Inline, _) => {
            mem.copy(old.value_place(mem, source.at), at + shape.value_at(), shape.value_len);
        }
    }
    Ok(())
}

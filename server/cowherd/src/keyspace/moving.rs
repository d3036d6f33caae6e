//! RENAME, COPY and MOVE, within a shard and from one shard to another.
//!
//! RENAME and MOVE take no longer for a value of more elements: a large value stays in its shard,
//! and the key is relocated there (see `relocation`).

use cowherd_arena::{Mem, OutOfMemory, ShardIndex};

use super::entry::{EntryHeader, ValueStorage};
use super::events::KeyspaceEvent;
use super::shards::{Entry, free_unlinked};
use super::{DbIndex, Key, Shards, values};

/// What of an entry's value another entry takes over, instead of a copy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transfer {
    /// Nothing: the value is copied.
    Nothing,
    /// The external object, with its reserved length.
    Object(u64, u64),
    /// The header of a large value.
    Header(u64),
}

impl Shards<'_> {
    /// Moves a key's value and expiry to another key of the same database, whose old value is
    /// removed. Both shards are locked; the keys differ. Tells whether the key exists.
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
        let stays = self.is_slow_to_copy(&source) && self.may_live_in(db, to, source.shard);
        let target = Key { shard: if stays { source.shard } else { to.shard }, ..*to };
        let transfer = self.transferable(&source, target.shard);
        let at = self.duplicate(&source, &target, transfer)?;
        self.adopt(db, to, target.shard, at, transfer != Transfer::Nothing)?;
        self.space.clocks.copy(source.at, at);
        // Looked up again, since adding the new key may have moved the old one's slot.
        let source =
            self.find(db, from).expect("invariant: the source exists until it is unlinked");
        self.unlink(db, from.hash, &source);
        if transfer == Transfer::Nothing {
            self.free(&source);
        } else {
            if let Transfer::Object(object, len) = transfer
                && from.shard != target.shard
            {
                self.mem(from.shard).transfer_ownership(object, target.shard, len);
            }
            self.mem(from.shard).release(source.at, source.head.len());
        }
        self.touched_times(db, from, 0);
        self.touched(db, &target);
        Ok(true)
    }

    /// Copies a key's value and expiry to a key of this or another database, whose old value is
    /// removed. Tells whether the key exists.
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
        let at = self.duplicate(&source, to, Transfer::Nothing)?;
        self.adopt(to_db, to, to.shard, at, false)?;
        self.touched(to_db, to);
        Ok(true)
    }

    /// Moves a key to another database. Tells whether the key exists here and did not exist there.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn move_key(
        &mut self,
        from: DbIndex,
        key: &Key<'_>,
        to: DbIndex,
    ) -> Result<bool, OutOfMemory> {
        let target = self.space.key_of(to, key.bytes, key.hash);
        if self.peek(to, &target).is_some() {
            return Ok(false);
        }
        let Some(entry) = self.lookup(from, key) else { return Ok(false) };
        if !self.may_live_in(to, &target, entry.shard) {
            self.copy(from, key, to, &target)?;
            self.delete(from, key, &entry, 0);
            return Ok(true);
        }
        self.link(to, key, entry.at, &entry.head)?;
        self.unlink(from, key.hash, &entry);
        self.touched(from, key);
        self.notify(to, key);
        Ok(true)
    }

    /// What an entry in shard `to` may take over of an entry's value.
    fn transferable(&mut self, entry: &Entry, to: ShardIndex) -> Transfer {
        let mem = self.mem(entry.shard);
        let is_here = entry.shard == to;
        match entry.head.storage {
            ValueStorage::External => {
                let (object, len) = entry.head.object(&mem, entry.at);
                match is_here || len > cowherd_arena::MAX_SLAB_OBJECT {
                    true => Transfer::Object(object, len),
                    false => Transfer::Nothing,
                }
            }
            ValueStorage::Large if is_here => {
                Transfer::Header(entry.head.large_header(&mem, entry.at))
            }
            _ => Transfer::Nothing,
        }
    }

    /// Creates an unlinked entry for `key` with the value and expiry of `source`: a copy of the
    /// value, or what is transferred of it.
    fn duplicate(
        &mut self,
        source: &Entry,
        key: &Key<'_>,
        transfer: Transfer,
    ) -> Result<u64, OutOfMemory> {
        let key_len = key.bytes.len() as u64;
        let head = EntryHeader { key_len, ..source.head.for_new_object() };
        let expiry = source.head.expiry(&self.mem(source.shard), source.at);
        let mut mem = self.held.mem_reading(key.shard, source.shard);
        let at = match transfer {
            Transfer::Nothing => head.allocate(&mut mem, head.value_len, expiry)?,
            Transfer::Object(..) | Transfer::Header(_) => head.allocate_entry(&mut mem, expiry)?,
        };
        if let Err(full) = fill(&mut mem, at, &head, source, transfer) {
            mem.release(at, head.len());
            return Err(full);
        }
        mem.bytes_mut(at + head.key_at(), head.key_len).copy_from_slice(key.bytes);
        Ok(at)
    }

    /// Links a new entry in a shard, in place of what the key had in whichever shard. On error the
    /// new entry is freed, and its value too unless `shares_value`: then it is still the source's.
    fn adopt(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        shard: ShardIndex,
        at: u64,
        shares_value: bool,
    ) -> Result<(), OutOfMemory> {
        let old = self.peek(db, key);
        let head = EntryHeader::load(&self.mem(shard), at);
        let target = Key { shard, ..*key };
        let linked = match &old {
            Some(old) if old.shard == shard => self.relink(db, key.hash, old, at, &head),
            Some(_) => self.link_no_event(db, &target, at, &head),
            None => self.link(db, &target, at, &head),
        };
        if let Err(full) = linked {
            let mut mem = self.mem(shard);
            if shares_value {
                mem.release(at, head.len());
            } else {
                free_unlinked(&mut mem, at);
            }
            return Err(full);
        }
        if let Some(old) = old {
            if old.shard != shard {
                self.unlink(db, key.hash, &old);
            }
            self.free(&old);
            self.emit_event(KeyspaceEvent::New, db, shard, at);
            // The key is a new one: the access clock that `relink` has copied does not apply.
            self.space.clocks.start(at, self.now);
        }
        Ok(())
    }

    /// Whether copying an entry's value would take longer than other commands.
    fn is_slow_to_copy(&self, entry: &Entry) -> bool {
        let mem = self.held.view(entry.shard);
        let head = &entry.head;
        head.is_large() && !values::is_small(&mem, head, head.large_header(&mem, entry.at))
    }
}

/// Writes the value of a new entry at `at`: a copy of that of `source`, or what is transferred. On
/// error nothing of the value is allocated.
fn fill(
    mem: &mut Mem<'_>,
    at: u64,
    head: &EntryHeader,
    source: &Entry,
    transfer: Transfer,
) -> Result<(), OutOfMemory> {
    let old = &source.head;
    match (head.storage, transfer) {
        (_, Transfer::Object(object, len)) => head.set_object(mem, at, object, len),
        (_, Transfer::Header(header)) => head.set_large_header(mem, at, header),
        (ValueStorage::Large, _) => {
            let header = values::copy(mem, head.kind, old.large_header(mem, source.at))?;
            head.set_large_header(mem, at, header);
        }
        (ValueStorage::Int, _) => {
            let number = old.number(mem, source.at);
            head.set_number(mem, at, number);
        }
        (ValueStorage::External, _) => {
            mem.copy(old.value_offset(mem, source.at), head.object(mem, at).0, head.value_len);
        }
        (ValueStorage::Inline, _) => {
            mem.copy(old.value_offset(mem, source.at), at + head.value_at(), head.value_len);
        }
    }
    Ok(())
}

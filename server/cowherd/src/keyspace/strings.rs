//! String values: an integer is kept in the entry, a short value behind the key, a long value in an
//! object of its own.

use std::ops::Range;

use cowherd_arena::containers::packed::as_number;
use cowherd_arena::{Mem, OutOfMemory, allocated_size};
use smallvec::SmallVec;

use super::entry::{EntryHeader, ValueStorage, ValueType};
use super::events::KeyspaceEvent;
use super::shards::{Entry, free_unlinked};
use super::{DbIndex, Expiry, Key, PREFETCH_GROUP, Shards, values};

/// The longest value, in bytes.
pub const MAX_VALUE: u64 = 1 << 30;
/// Longer entries are replaced rather than saved and overwritten when several keys are set.
const SAVED_BYTES: u64 = 1 << 10;
/// Longer values get a fourth more when they grow, so that repeated APPEND is not quadratic.
const SLACK_FROM: u64 = 16 << 10;

/// A string, an element, a field or a member, as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Value<'m> {
    /// An integer that is stored as a number.
    Int(i64),
    /// Bytes.
    Bytes(&'m [u8]),
}

impl<'m> Value<'m> {
    /// The bytes of the value; a number is formatted into `buffer`.
    pub fn bytes<'b>(self, buffer: &'b mut itoa::Buffer) -> &'b [u8]
    where
        'm: 'b,
    {
        match self {
            Self::Int(number) => buffer.format(number).as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The length of the value in bytes.
    pub fn size(self) -> u64 {
        self.bytes(&mut itoa::Buffer::new()).len() as u64
    }
}

/// Why a string cannot be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StringError {
    /// The arena is full.
    #[error(transparent)]
    Full(#[from] OutOfMemory),
    /// The value is not a string.
    #[error("the value has another type")]
    WrongType,
    /// The result would be longer than [`MAX_VALUE`].
    #[error("the value would be longer than 1 GB")]
    TooLong,
}

/// A string that is to be stored.
#[derive(Clone, Copy)]
enum NewString<'v> {
    Int(i64),
    Bytes(&'v [u8]),
    /// As `Bytes`, marked as if it had been edited.
    Raw(&'v [u8]),
}

impl<'v> NewString<'v> {
    /// A number if it reads as one.
    #[inline]
    fn of(value: &'v [u8]) -> Self {
        as_number(value).map_or(Self::Bytes(value), Self::Int)
    }

    const fn len(&self) -> u64 {
        match self {
            Self::Int(_) => 0,
            Self::Bytes(bytes) | Self::Raw(bytes) => bytes.len() as u64,
        }
    }

    const fn is_raw(&self) -> bool {
        matches!(self, Self::Raw(_))
    }
}

/// What [`Shards::undo`] needs to know of a key that was set.
enum UndoRecord {
    /// The key is new; its entry is at `at`.
    Added { at: u64 },
    /// A new entry is in the place of this one.
    Replaced { old: Entry },
    /// The entry at `at` was overwritten; the bytes of its object were saved.
    Overwritten { at: u64, saved: Range<usize> },
}

/// Creates an entry for a key, without linking it.
fn create(
    mem: &mut Mem<'_>,
    key: &Key<'_>,
    new: &NewString<'_>,
    expiry: Option<i64>,
) -> Result<(u64, EntryHeader), OutOfMemory> {
    let mut head = EntryHeader::new(ValueType::String, key.bytes, expiry.is_some());
    head.value_len = new.len();
    head.is_raw = new.is_raw();
    if matches!(new, NewString::Int(_)) {
        head.storage = ValueStorage::Int;
    } else if head.is_too_long() {
        head.storage = ValueStorage::External;
    }
    let at = head.allocate(mem, head.value_len, expiry)?;
    mem.bytes_mut(at + head.key_at(), head.key_len).copy_from_slice(key.bytes);
    match new {
        NewString::Int(number) => head.set_number(mem, at, *number),
        NewString::Bytes(bytes) | NewString::Raw(bytes) => {
            let value = head.value_offset(mem, at);
            mem.bytes_mut(value, bytes.len() as u64).copy_from_slice(bytes);
        }
    }
    Ok((at, head))
}

impl Shards<'_> {
    /// The value of a string entry.
    ///
    /// # Errors
    /// The value is not a string.
    #[inline]
    pub fn string(&self, entry: &Entry) -> Result<Value<'_>, StringError> {
        let Entry { at, head, shard, .. } = *entry;
        if head.kind != ValueType::String {
            return Err(StringError::WrongType);
        }
        let mem = self.held.view(shard);
        Ok(match head.storage {
            ValueStorage::Int => Value::Int(head.number(&mem, at)),
            _ => Value::Bytes(mem.slice(head.value_offset(&mem, at), head.value_len)),
        })
    }

    /// Sets a key to a string, whatever its value was. Counts as one change.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    #[inline]
    pub fn set(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        value: &[u8],
        expiry: Expiry,
    ) -> Result<(), OutOfMemory> {
        let new = as_number(value).map_or(NewString::Bytes(value), NewString::Int);
        let old = self.peek(db, key);
        self.put(db, key, old.as_ref(), new, expiry)
    }

    /// As [`Self::set`], for a key that was looked up.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn replace(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        value: &[u8],
        expiry: Expiry,
    ) -> Result<(), OutOfMemory> {
        let new = as_number(value).map_or(NewString::Bytes(value), NewString::Int);
        self.put(db, key, old, new, expiry)
    }

    /// As [`Self::set`], but the value is stored as bytes, with the encoding of an edited one.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn set_raw(&mut self, db: DbIndex, key: &Key<'_>, value: &[u8]) -> Result<(), OutOfMemory> {
        let old = self.peek(db, key);
        self.put(db, key, old.as_ref(), NewString::Raw(value), Expiry::None)
    }

    /// As [`Self::replace`], but stores the value as bytes even if it is an integer.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn replace_text(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        value: &[u8],
        expiry: Expiry,
    ) -> Result<(), OutOfMemory> {
        self.put(db, key, old, NewString::Bytes(value), expiry)
    }

    /// Sets a key that was looked up to an integer. Counts as one change.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    #[inline]
    pub fn replace_number(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        number: i64,
        expiry: Expiry,
    ) -> Result<(), OutOfMemory> {
        self.put(db, key, old, NewString::Int(number), expiry)
    }

    /// Sets a key that was looked up to bytes with the encoding of an edited value, and keeps its
    /// expiry. Counts as `changes` changes, at least one.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn rewrite(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        value: &[u8],
        changes: u64,
    ) -> Result<(), OutOfMemory> {
        self.put(db, key, old, NewString::Raw(value), Expiry::Keep)?;
        if changes > 1 {
            self.changed_times(key.shard, changes - 1);
        }
        Ok(())
    }

    fn put(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        new: NewString<'_>,
        expiry: Expiry,
    ) -> Result<(), OutOfMemory> {
        let expiry = self.resolve_expiry(old, expiry);
        let mut mem = self.held.mem(key.shard);
        if let Some(old) = old
            && overwrite(&mut mem, old, &new, expiry)
        {
            self.space.clocks.touch(old.at, self.now);
            self.touched(db, key);
            return Ok(());
        }
        let (at, head) = create(&mut mem, key, &new, expiry)?;
        self.install(db, key, old, at, head)?;
        if old.is_some() {
            self.space.clocks.touch(at, self.now);
        }
        self.touched(db, key);
        Ok(())
    }

    /// Sets several keys, or none of them if memory is short, and calls `set` for each. Each counts
    /// as a change.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn set_all<'k>(
        &mut self,
        db: DbIndex,
        mut pairs: impl Iterator<Item = (Key<'k>, &'k [u8])>,
        mut set: impl FnMut(&Key<'k>),
    ) -> Result<(), OutOfMemory> {
        let (mut done, mut saved) = (Vec::new(), Vec::new());
        loop {
            let group: SmallVec<[_; PREFETCH_GROUP]> =
                pairs.by_ref().take(PREFETCH_GROUP).collect();
            if group.is_empty() {
                break;
            }
            self.space.prefetch(db, group.iter().map(|(key, _)| key.hash));
            for (key, value) in group {
                let new = NewString::of(value);
                match self.set_reversibly(db, &key, &new, &mut saved) {
                    Ok(record) => done.push((key, record)),
                    Err(full) => {
                        self.undo(db, done, &saved);
                        return Err(full);
                    }
                }
            }
        }
        for (key, record) in done {
            match record {
                UndoRecord::Overwritten { at, .. } => self.space.clocks.touch(at, self.now),
                UndoRecord::Replaced { old } => {
                    self.unindex(db, key.hash, &old);
                    self.free(&old);
                }
                UndoRecord::Added { at } => {
                    self.emit_event(KeyspaceEvent::New, db, key.shard, at);
                }
            }
            self.touched(db, &key);
            set(&key);
        }
        Ok(())
    }

    /// Sets a key so that [`Self::undo`] can undo it. The object of an entry that is overwritten is
    /// appended to `saved` before.
    fn set_reversibly(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        new: &NewString<'_>,
        saved: &mut Vec<u8>,
    ) -> Result<UndoRecord, OutOfMemory> {
        let old = self.peek(db, key);
        let mut mem = self.held.mem(key.shard);
        if let Some(old) = &old
            && old.head.kind == ValueType::String
            && old.head.storage != ValueStorage::External
            && old.head.len() <= SAVED_BYTES
        {
            let start = saved.len();
            // With the slack, which the new value may use.
            saved.extend_from_slice(mem.bytes(old.at, allocated_size(old.head.len())));
            if overwrite(&mut mem, old, new, None) {
                return Ok(UndoRecord::Overwritten { at: old.at, saved: start..saved.len() });
            }
            saved.truncate(start);
        }
        let (at, head) = create(&mut mem, key, new, None)?;
        let Some(old) = old else {
            self.link_no_event(db, key, at, &head)
                .inspect_err(|_| free_unlinked(&mut self.held.mem(key.shard), at))?;
            return Ok(UndoRecord::Added { at });
        };
        self.swap_entry(db, &old, at);
        Ok(UndoRecord::Replaced { old })
    }

    /// Undoes the first part of [`Self::set_all`], the last key first: the same key may be set
    /// twice.
    fn undo(&mut self, db: DbIndex, done: Vec<(Key<'_>, UndoRecord)>, saved: &[u8]) {
        for (key, record) in done.into_iter().rev() {
            if let UndoRecord::Overwritten { at, saved: part } = record {
                let object = &saved[part];
                let mut mem = self.held.mem(key.shard);
                mem.bytes_mut(at, object.len() as u64).copy_from_slice(object);
                continue;
            }
            let new = self.find(db, &key).expect("invariant: a key that was set is found");
            match record {
                UndoRecord::Replaced { old } => self.swap_entry(db, &new, old.at),
                _ => self.unlink(db, key.hash, &new),
            }
            self.free(&new);
        }
    }

    /// Writes `data` at byte `at` of a string, which is extended with zeros as needed; creates a
    /// missing key. Returns the new length. Counts as one change.
    ///
    /// # Errors
    /// The value is not a string, would be too long, or the arena is full; nothing has changed.
    pub fn write_at(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        at: u64,
        data: &[u8],
    ) -> Result<u64, StringError> {
        let end = at.checked_add(data.len() as u64).filter(|end| *end <= MAX_VALUE);
        let end = end.ok_or(StringError::TooLong)?;
        let entry = self.reserve(db, key, old, end)?;
        self.overlay(&entry, at, data);
        self.touched(db, key);
        Ok(entry.head.value_len)
    }

    /// Extends a string with zeros to at least `len` bytes, and makes it editable; creates a
    /// missing key. The entry stays valid while it is only edited. Must be followed by
    /// [`Self::edited`] if the string grew.
    ///
    /// # Errors
    /// The value is not a string, would be too long, or the arena is full; nothing has changed.
    pub fn grow(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        len: u64,
    ) -> Result<Entry, StringError> {
        if len > MAX_VALUE {
            return Err(StringError::TooLong);
        }
        self.reserve(db, key, old, len)
    }

    /// Writes `data` at byte `at` of an entry that [`Self::grow`] returned. Must be followed by
    /// [`Self::edited`].
    ///
    /// # Panics
    /// The value is stored as a number, or `data` does not fit into it.
    pub fn edit(&mut self, entry: &Entry, at: u64, data: &[u8]) {
        let end = at + data.len() as u64;
        assert!(entry.head.storage != ValueStorage::Int && end <= entry.head.value_len);
        self.overlay(entry, at, data);
    }

    /// Notifies the watchers of a key that was edited, which counts as so many changes.
    pub fn edited(&mut self, db: DbIndex, key: &Key<'_>, changes: u64) {
        self.touched_times(db, key, changes);
    }

    fn overlay(&mut self, entry: &Entry, at: u64, data: &[u8]) {
        let mut mem = self.held.mem(entry.shard);
        let place = entry.head.value_offset(&mem, entry.at);
        if !data.is_empty() {
            mem.bytes_mut(place + at, data.len() as u64).copy_from_slice(data);
        }
    }

    /// The string of a key, or a new one, as [`Self::editable`] returns it.
    fn reserve(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        len: u64,
    ) -> Result<Entry, StringError> {
        match old {
            Some(old) if old.head.kind != ValueType::String => Err(StringError::WrongType),
            Some(old) => Ok(self.editable(db, key, old, len)?),
            None => Ok(self.reserve_new(db, key, len)?),
        }
    }

    /// A new key with a string of zeros; on error there is no key.
    fn reserve_new(&mut self, db: DbIndex, key: &Key<'_>, len: u64) -> Result<Entry, OutOfMemory> {
        let mut mem = self.held.mem(key.shard);
        let (created, head) = create(&mut mem, key, &NewString::Bytes(&[]), None)?;
        if let Err(full) = self.link_no_event(db, key, created, &head) {
            free_unlinked(&mut self.mem(key.shard), created);
            return Err(full);
        }
        let empty = self.installed(db, key, None, created, head);
        let grown = self.editable(db, key, &empty, len).inspect_err(|_| {
            self.unlink(db, key.hash, &empty);
            self.free(&empty);
        })?;
        self.emit_event(KeyspaceEvent::New, db, key.shard, grown.at);
        Ok(grown)
    }

    /// The entry of a string that is stored as bytes, at least `len` of them; those behind the old
    /// length are zero. Replaces the entry if necessary.
    fn editable(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: &Entry,
        len: u64,
    ) -> Result<Entry, OutOfMemory> {
        let mut mem = self.held.mem(key.shard);
        let mut number = itoa::Buffer::new();
        let digits: &[u8] = match old.head.storage {
            ValueStorage::Int => number.format(old.head.number(&mem, old.at)).as_bytes(),
            _ => &[],
        };
        let old_len = match old.head.storage {
            ValueStorage::Int => digits.len() as u64,
            _ => old.head.value_len,
        };
        let len = len.max(old_len);
        let mut head = EntryHeader {
            storage: ValueStorage::Inline,
            value_len: len,
            is_raw: true,
            ..old.head.for_change_in_place()
        };
        if head.is_too_long() || old.head.storage == ValueStorage::External {
            head.storage = ValueStorage::External;
        }
        if head.storage == old.head.storage
            && head.agrees_with(&old.head)
            && old.head.value_capacity(&mem, old.at) >= len
            && allocated_size(head.len()) == allocated_size(old.head.len())
        {
            if len > old_len {
                let place = old.head.value_offset(&mem, old.at);
                mem.bytes_mut(place + old_len, len - old_len).fill(0);
            }
            if head != old.head {
                head.store(&mut mem, old.at);
            }
            return Ok(Entry { head, ..*old });
        }
        let head = head.for_new_object();
        let reserved = if len > SLACK_FROM && old_len > 0 { len + len / 4 } else { len };
        let expiry = old.head.expiry(&mem, old.at);
        let at = head.allocate(&mut mem, reserved.min(MAX_VALUE), expiry)?;
        mem.copy(old.at + old.head.key_at(), at + head.key_at(), head.key_len);
        let place = head.value_offset(&mem, at);
        if old.head.storage == ValueStorage::Int {
            mem.bytes_mut(place, old_len).copy_from_slice(digits);
        } else {
            mem.copy(old.head.value_offset(&mem, old.at), place, old_len);
        }
        mem.bytes_mut(place + old_len, len - old_len).fill(0);
        self.replace_entry(db, key.hash, old, at, head)
    }
}

/// Writes a new value over an old one if it needs an object of the same size; tells whether it did.
#[inline]
fn overwrite(mem: &mut Mem<'_>, old: &Entry, new: &NewString<'_>, expiry: Option<i64>) -> bool {
    if let NewString::Bytes(bytes) | NewString::Raw(bytes) = new
        && old.head.storage == ValueStorage::External
        && old.head.has_expiry == expiry.is_some()
    {
        return overwrite_object(mem, old, bytes, new.is_raw(), expiry);
    }
    let storage = match new {
        NewString::Int(_) => ValueStorage::Int,
        NewString::Bytes(_) | NewString::Raw(_) => ValueStorage::Inline,
    };
    if old.head.kind != ValueType::String
        || old.head.storage != storage
        || old.head.has_expiry != expiry.is_some()
    {
        return false;
    }
    let in_place = old.head.for_change_in_place();
    let head = EntryHeader { value_len: new.len(), is_raw: new.is_raw(), ..in_place };
    if allocated_size(head.len()) != allocated_size(old.head.len())
        || !head.agrees_with(&old.head)
        || head.is_too_long()
    {
        return false;
    }
    if head != old.head {
        head.store(mem, old.at);
    }
    if let Some(expiry) = expiry {
        head.set_expiry(mem, old.at, expiry);
    }
    match new {
        NewString::Int(number) => head.set_number(mem, old.at, *number),
        NewString::Bytes(bytes) | NewString::Raw(bytes) => {
            values::overwrite(mem, old.at + head.value_at(), old.head.value_len, bytes);
        }
    }
    true
}

/// As [`overwrite`], for an external value.
fn overwrite_object(
    mem: &mut Mem<'_>,
    old: &Entry,
    bytes: &[u8],
    is_raw: bool,
    expiry: Option<i64>,
) -> bool {
    let (object, reserved) = old.head.object(mem, old.at);
    let len = bytes.len() as u64;
    if len > reserved
        || allocated_size(len) != allocated_size(reserved)
        || old.head.kind != ValueType::String
    {
        return false;
    }
    let head = EntryHeader { value_len: len, is_raw, ..old.head };
    if head != old.head {
        head.store(mem, old.at);
    }
    if let Some(expiry) = expiry {
        head.set_expiry(mem, old.at, expiry);
    }
    values::overwrite(mem, object, old.head.value_len, bytes);
    true
}

//! String values: numbers in their entry, short ones behind the key, long ones in an object of
//! their own.

use cowherd_arena::containers::packed::as_number;
use cowherd_arena::{Mem, OutOfMemory, allocated_size};

use super::entry::{Encoding, HEAD, MAX_INLINE, Shape, ValueKind};
use super::events::KeyspaceEvent;
use super::shards::Entry;
use super::{DbIndex, Key, Shards};

/// The longest value, in bytes.
pub const MAX_VALUE: u64 = 512 << 20;
/// Objects above this size are made larger than needed, so that appending is not quadratic.
const SLACK_FROM: u64 = 16 << 10;
/// Bytes that stay in an entry whose key alone is longer than entries should be.
const MAX_BESIDE_KEY: u64 = 64;

/// A string value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Value<'m> {
    /// A number, kept as one.
    Int(i64),
    /// Bytes.
    Bytes(&'m [u8]),
}

impl<'m> Value<'m> {
    /// The value's bytes; a number is written into `buffer`.
    pub fn bytes<'b>(self, buffer: &'b mut itoa::Buffer) -> &'b [u8]
    where
        'm: 'b,
    {
        match self {
            Self::Int(number) => buffer.format(number).as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// Number of the value's bytes.
    pub fn size(self) -> u64 {
        self.bytes(&mut itoa::Buffer::new()).len() as u64
    }
}

/// What happens to a key's expiry when its value is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// It stays as it is.
    Keep,
    /// There is none afterwards.
    None,
    /// Wall clock in milliseconds.
    At(i64),
}

/// Why a string cannot be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StringError {
    /// No room.
    #[error(transparent)]
    Full(#[from] OutOfMemory),
    /// The value is no string.
    #[error("the value has another type")]
    WrongType,
    /// The result would be longer than [`MAX_VALUE`].
    #[error("the value would be longer than 512 MB")]
    TooLong,
}

/// What is to be stored.
#[derive(Clone, Copy)]
enum New<'v> {
    Int(i64),
    Bytes(&'v [u8]),
}

impl New<'_> {
    const fn len(&self) -> u64 {
        match self {
            Self::Int(_) => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

impl Shape {
    /// The shape of an entry for a new value.
    fn of(key: &Key<'_>, new: &New<'_>, has_expiry: bool) -> Self {
        let mut shape = Self {
            kind: ValueKind::String,
            encoding: Encoding::Inline,
            has_expiry,
            was_edited: false,
            form: 0,
            count: 0,
            key_len: key.bytes.len() as u64,
            value_len: new.len(),
            held: None,
        };
        if matches!(new, New::Int(_)) {
            shape.encoding = Encoding::Int;
        } else if shape.is_too_long() {
            shape.encoding = Encoding::External;
        }
        shape
    }

    /// Whether an inline entry of this shape is longer than entries may be: its value is to be an
    /// object of its own. What is short stays behind the key, however long that is: an object is
    /// never empty.
    pub(super) const fn is_too_long(&self) -> bool {
        let beside_key = HEAD + self.key_len + MAX_BESIDE_KEY;
        self.len() > if beside_key > MAX_INLINE { beside_key } else { MAX_INLINE }
    }
}

/// Makes an entry that nothing refers to yet.
fn create(
    mem: &mut Mem<'_>,
    key: &Key<'_>,
    new: &New<'_>,
    expiry: Option<i64>,
) -> Result<(u64, Shape), OutOfMemory> {
    let shape = Shape::of(key, new, expiry.is_some());
    let at = mem.allocate(shape.len())?;
    if shape.encoding == Encoding::External {
        match mem.allocate(shape.value_len) {
            Ok(object) => {
                shape.set_object(mem, at, object, shape.value_len);
            }
            Err(full) => {
                mem.release(at, shape.len());
                return Err(full);
            }
        }
    }
    shape.store(mem, at);
    if let Some(expiry) = expiry {
        shape.set_expiry(mem, at, expiry);
    }
    mem.bytes_mut(at + shape.key_at(), shape.key_len).copy_from_slice(key.bytes);
    match new {
        New::Int(number) => shape.set_number(mem, at, *number),
        New::Bytes(bytes) => {
            let place = shape.value_place(mem, at);
            mem.bytes_mut(place, bytes.len() as u64).copy_from_slice(bytes);
        }
    }
    Ok((at, shape))
}

impl Shards<'_> {
    /// The value of a string entry.
    ///
    /// # Errors
    /// It is no string.
    #[inline]
    pub fn string(&self, entry: &Entry) -> Result<Value<'_>, StringError> {
        let Entry { at, shape, shard, .. } = *entry;
        if shape.kind != ValueKind::String {
            return Err(StringError::WrongType);
        }
        let mem = self.held.view(shard);
        Ok(match shape.encoding {
            Encoding::Int => Value::Int(shape.number(&mem, at)),
            _ => Value::Bytes(mem.slice(shape.value_place(&mem, at), shape.value_len)),
        })
    }

    /// Sets a key to a string, whatever it was before. Counts as one change.
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
        let new = as_number(value).map_or(New::Bytes(value), New::Int);
        let old = self.peek(db, key);
        self.put(db, key, old.as_ref(), new, expiry)
    }

    /// As [`Self::set`], for a key that was looked up already.
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
        let new = as_number(value).map_or(New::Bytes(value), New::Int);
        self.put(db, key, old, new, expiry)
    }

    /// As [`Self::replace`], but the value is kept as bytes even if it reads as a number.
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
        self.put(db, key, old, New::Bytes(value), expiry)
    }

    /// As [`Self::set_number`], for a key that was looked up already.
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
        self.put(db, key, old, New::Int(number), expiry)
    }

    fn put(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        new: New<'_>,
        expiry: Expiry,
    ) -> Result<(), OutOfMemory> {
        let mut mem = self.held.mem(key.shard);
        let expiry = match expiry {
            Expiry::Keep => old.and_then(|old| old.shape.expiry(&mem, old.at)),
            Expiry::None => None,
            Expiry::At(at) => Some(at),
        };
        if let Some(old) = old
            && overwrite(&mut mem, old, &new, expiry)
        {
            self.space.clocks.touch(old.at, self.now);
            self.touched(db, key);
            return Ok(());
        }
        let (at, shape) = create(&mut mem, key, &new, expiry)?;
        let linked = match old {
            Some(old) => self.relink(db, key.hash, old, at, &shape),
            None => self.link(db, key, at, &shape),
        };
        if let Err(full) = linked {
            super::shards::free_entry(&mut self.mem(key.shard), at);
            return Err(full);
        }
        if let Some(old) = old {
            self.free(old);
            self.space.clocks.touch(at, self.now);
        }
        self.touched(db, key);
        Ok(())
    }

    /// Sets several keys, all or none, and calls `set` for each. Each counts as a change.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn set_all<'k>(
        &mut self,
        db: DbIndex,
        pairs: impl Iterator<Item = (Key<'k>, &'k [u8])> + Clone,
        mut set: impl FnMut(&Key<'k>),
    ) -> Result<(), OutOfMemory> {
        let mut done: Vec<(Key<'k>, Option<Entry>, u64)> = Vec::new();
        for (key, value) in pairs {
            let new = as_number(value).map_or(New::Bytes(value), New::Int);
            let old = self.peek(db, &key);
            let mut mem = self.held.mem(key.shard);
            let outcome = create(&mut mem, &key, &new, None).and_then(|(at, shape)| {
                let linked = match &old {
                    Some(old) => {
                        self.swap(db, old, at);
                        Ok(())
                    }
                    None => self.link_no_event(db, &key, at, &shape),
                };
                linked.map(|()| at).inspect_err(|_| {
                    super::shards::free_entry(&mut self.mem(key.shard), at);
                })
            });
            match outcome {
                Ok(at) => done.push((key, old, at)),
                Err(full) => {
                    self.undo(db, done);
                    return Err(full);
                }
            }
        }
        for (key, old, at) in done {
            if let Some(old) = old {
                self.forget_aside(db, key.hash, &old);
                self.free(&old);
            } else {
                self.announce(super::KeyspaceEvent::New, db, key.shard, at);
            }
            self.touched(db, &key);
            set(&key);
        }
        Ok(())
    }

    /// Lets the keys refer to what they referred to before, last one first.
    fn undo(&mut self, db: DbIndex, done: Vec<(Key<'_>, Option<Entry>, u64)>) {
        for (key, old, at) in done.into_iter().rev() {
            let Some(new) = self.peek(db, &key) else { continue };
            debug_assert_eq!(new.at, at);
            match old {
                Some(old) => self.swap(db, &new, old.at),
                None => self.unlink(db, key.hash, &new),
            }
            self.free(&new);
        }
    }

    /// Writes `data` at byte `at` of a string, which grows as needed, zeros between; a key that is
    /// not there becomes a string. Returns the new length. Counts as one change.
    ///
    /// # Errors
    /// The value is no string, would be too long, or the arena is full; nothing has changed.
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
        Ok(entry.shape.value_len)
    }

    /// Makes a key a string that can be edited, of `len` bytes or more, new ones zero; what it had
    /// stays. Counts as a change if it grew. The entry stays good while it is only edited.
    ///
    /// # Errors
    /// The value is no string, would be too long, or the arena is full; nothing has changed.
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
        let grows = match old {
            Some(old) => self.string(old)?.size() < len,
            None => true,
        };
        let entry = self.reserve(db, key, old, len)?;
        if grows {
            self.touched(db, key);
        }
        Ok(entry)
    }

    /// Writes `data` at byte `at` of an entry that [`Self::grow`] returned, within its length.
    /// Counts as one change.
    ///
    /// # Panics
    /// The value is no bytes, or `data` does not fit.
    pub fn edit(&mut self, db: DbIndex, key: &Key<'_>, entry: &Entry, at: u64, data: &[u8]) {
        let end = at + data.len() as u64;
        assert!(entry.shape.encoding != Encoding::Int && end <= entry.shape.value_len);
        self.overlay(entry, at, data);
        self.touched(db, key);
    }

    fn overlay(&mut self, entry: &Entry, at: u64, data: &[u8]) {
        let mut mem = self.held.mem(entry.shard);
        let place = entry.shape.value_place(&mem, entry.at);
        if !data.is_empty() {
            mem.bytes_mut(place + at, data.len() as u64).copy_from_slice(data);
        }
    }

    /// The string of a key, or a new one, as [`Self::editable`] makes it.
    fn reserve(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        len: u64,
    ) -> Result<Entry, StringError> {
        match old {
            Some(old) if old.shape.kind != ValueKind::String => Err(StringError::WrongType),
            Some(old) => Ok(self.editable(db, key, old, len)?),
            None => Ok(self.reserve_new(db, key, len)?),
        }
    }

    /// A new string of zeros; without room for it there is no key.
    fn reserve_new(&mut self, db: DbIndex, key: &Key<'_>, len: u64) -> Result<Entry, OutOfMemory> {
        let mut mem = self.held.mem(key.shard);
        let (created, shape) = create(&mut mem, key, &New::Bytes(&[]), None)?;
        if let Err(full) = self.link_no_event(db, key, created, &shape) {
            super::shards::free_entry(&mut self.mem(key.shard), created);
            return Err(full);
        }
        let Some(empty) = self.peek(db, key) else { return Err(OutOfMemory) };
        let grown = self.editable(db, key, &empty, len).inspect_err(|_| {
            self.unlink(db, key.hash, &empty);
            self.free(&empty);
        })?;
        self.announce(KeyspaceEvent::New, db, key.shard, grown.at);
        Ok(grown)
    }

    /// The entry as bytes (not as a number) with room for `len` bytes; bytes beyond the old length
    /// are zero.
    fn editable(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: &Entry,
        len: u64,
    ) -> Result<Entry, OutOfMemory> {
        let mut mem = self.held.mem(key.shard);
        let mut number = itoa::Buffer::new();
        let digits: &[u8] = match old.shape.encoding {
            Encoding::Int => number.format(old.shape.number(&mem, old.at)).as_bytes(),
            _ => &[],
        };
        let old_len = match old.shape.encoding {
            Encoding::Int => digits.len() as u64,
            _ => old.shape.value_len,
        };
        let len = len.max(old_len);
        let mut shape = Shape {
            encoding: Encoding::Inline,
            value_len: len,
            was_edited: true,
            held: None,
            ..old.shape
        };
        if shape.is_too_long() || old.shape.encoding == Encoding::External {
            shape.encoding = Encoding::External;
        }
        if shape.encoding == old.shape.encoding
            && room(&mem, old) >= len
            && allocated_size(shape.len()) == allocated_size(old.shape.len())
        {
            if len > old_len {
                let place = old.shape.value_place(&mem, old.at);
                mem.bytes_mut(place + old_len, len - old_len).fill(0);
            }
            if shape != old.shape {
                shape.store(&mut mem, old.at);
            }
            return Ok(Entry { shape, ..*old });
        }
        let at = mem.allocate(shape.len())?;
        if shape.encoding == Encoding::External {
            let reserved = if len > SLACK_FROM && old_len > 0 { len + len / 4 } else { len };
            let reserved = reserved.min(MAX_VALUE);
            match mem.allocate(reserved) {
                Ok(object) => shape.set_object(&mut mem, at, object, reserved),
                Err(full) => {
                    mem.release(at, shape.len());
                    return Err(full);
                }
            }
        }
        shape.store(&mut mem, at);
        if let Some(expiry) = old.shape.expiry(&mem, old.at) {
            shape.set_expiry(&mut mem, at, expiry);
        }
        mem.copy(old.at + old.shape.key_at(), at + shape.key_at(), shape.key_len);
        let place = shape.value_place(&mem, at);
        if old.shape.encoding == Encoding::Int {
            mem.bytes_mut(place, old_len).copy_from_slice(digits);
        } else {
            mem.copy(old.shape.value_place(&mem, old.at), place, old_len);
        }
        mem.bytes_mut(place + old_len, len - old_len).fill(0);
        if let Err(full) = self.relink(db, key.hash, old, at, &shape) {
            super::shards::free_entry(&mut self.mem(key.shard), at);
            return Err(full);
        }
        self.free(old);
        Ok(Entry { at, shape, found: old.found.replaced(at), shard: old.shard })
    }
}

/// Bytes that an entry's value can have where it is.
pub(super) fn room(mem: &Mem<'_>, entry: &Entry) -> u64 {
    match entry.shape.encoding {
        Encoding::External => entry.shape.object(mem, entry.at).1,
        Encoding::Int | Encoding::Large => 0,
        Encoding::Inline => allocated_size(entry.shape.len()) - entry.shape.value_at(),
    }
}

/// Writes a new value over an old one, if it takes the same place; tells whether it did.
#[inline]
fn overwrite(mem: &mut Mem<'_>, old: &Entry, new: &New<'_>, expiry: Option<i64>) -> bool {
    if let New::Bytes(bytes) = new
        && old.shape.encoding == Encoding::External
        && old.shape.has_expiry == expiry.is_some()
    {
        return overwrite_object(mem, old, bytes, expiry);
    }
    let encoding = match new {
        New::Int(_) => Encoding::Int,
        New::Bytes(_) => Encoding::Inline,
    };
    if old.shape.kind != ValueKind::String
        || old.shape.encoding != encoding
        || old.shape.has_expiry != expiry.is_some()
    {
        return false;
    }
    let shape = Shape { value_len: new.len(), was_edited: false, held: None, ..old.shape };
    if allocated_size(shape.len()) != allocated_size(old.shape.len()) || shape.is_too_long() {
        return false;
    }
    if shape != old.shape {
        shape.store(mem, old.at);
    }
    if let Some(expiry) = expiry {
        shape.set_expiry(mem, old.at, expiry);
    }
    match new {
        New::Int(number) => shape.set_number(mem, old.at, *number),
        New::Bytes(bytes) => {
            mem.bytes_mut(old.at + shape.value_at(), bytes.len() as u64).copy_from_slice(bytes);
        }
    }
    true
}

/// As [`overwrite`], for a value in an object of its own.
fn overwrite_object(mem: &mut Mem<'_>, old: &Entry, bytes: &[u8], expiry: Option<i64>) -> bool {
    let (object, reserved) = old.shape.object(mem, old.at);
    let len = bytes.len() as u64;
    if len > reserved
        || allocated_size(len) != allocated_size(reserved)
        || old.shape.kind != ValueKind::String
    {
        return false;
    }
    let shape = Shape { value_len: len, was_edited: false, ..old.shape };
    if shape != old.shape {
        shape.store(mem, old.at);
    }
    if let Some(expiry) = expiry {
        shape.set_expiry(mem, old.at, expiry);
    }
    mem.bytes_mut(object, len).copy_from_slice(bytes);
    true
}

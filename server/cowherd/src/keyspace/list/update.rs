//! Adding, changing and removing elements of lists.

use crate::keyspace::entry::{EntryHeader, MAX_COUNT};
use crate::keyspace::shards::Entry;
use crate::keyspace::{DbIndex, Expiry, Key, Shards};
use cowherd_arena::OutOfMemory;
use cowherd_arena::containers::packed::{self, Encoded};

use super::read::{short, wanted};
use super::{COMPACT_BYTES, LISTPACK, ListEnd, ListLimits, description};

/// Whether a list of so many bytes and elements may be compact.
fn is_compact(limits: &ListLimits, bytes: u64, count: u64) -> bool {
    bytes <= COMPACT_BYTES && count <= MAX_COUNT && limits.allow(bytes, count)
}

impl Shards<'_> {
    /// Adds elements at an end of a list that was looked up, or of a new one; the last of them ends
    /// up outermost. Returns the new number of elements. Counts as a change for each.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    #[inline]
    pub fn list_push<'e, I>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Option<&Entry>,
        end: ListEnd,
        elements: I,
        limits: &ListLimits,
    ) -> Result<u64, OutOfMemory>
    where
        I: DoubleEndedIterator<Item = &'e [u8]> + ExactSizeIterator + Clone,
    {
        let count = elements.len() as u64;
        let len = match entry {
            Some(entry) if entry.head.is_large() => {
                self.push_to_large(entry, end, elements, limits)?
            }
            _ => self.push_to_compact(db, key, entry, end, elements, limits)?,
        };
        self.touched_times(db, key, count);
        Ok(len)
    }

    #[inline]
    fn push_to_large<'e>(
        &mut self,
        entry: &Entry,
        end: ListEnd,
        elements: impl Iterator<Item = &'e [u8]>,
        limits: &ListLimits,
    ) -> Result<u64, OutOfMemory> {
        let deque = self.large_list(entry);
        let mut mem = self.held.mem(entry.shard);
        for (pushed, element) in elements.enumerate() {
            let element = Encoded::of(element);
            let outcome = match end {
                ListEnd::Front => deque.push_front(&mut mem, &element, limits.nodes()),
                ListEnd::Back => deque.push_back(&mut mem, &element, limits.nodes()),
            };
            if let Err(full) = outcome {
                match end {
                    ListEnd::Front => deque.remove_front(&mut mem, pushed as u64),
                    ListEnd::Back => deque.remove_back(&mut mem, pushed as u64),
                }
                return Err(full);
            }
        }
        let len = deque.len(&mem);
        self.after_growth(entry, limits);
        Ok(len)
    }

    fn push_to_compact<'e, I>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Option<&Entry>,
        end: ListEnd,
        elements: I,
        limits: &ListLimits,
    ) -> Result<u64, OutOfMemory>
    where
        I: DoubleEndedIterator<Item = &'e [u8]> + ExactSizeIterator + Clone,
    {
        let has = entry.map_or(0, |entry| entry.head.value_len);
        let count = entry.map_or(0, |entry| entry.head.count) + elements.len() as u64;
        let new: u64 = elements.clone().map(|bytes| Encoded::of(bytes).len() as u64).sum();
        if !is_compact(limits, has + new, count) {
            let Some(old) = entry else {
                let encoded = elements.map(Encoded::of);
                match end {
                    ListEnd::Front => {
                        self.put_elements(db, key, None, encoded.rev(), Expiry::None, limits)?
                    }
                    ListEnd::Back => {
                        self.put_elements(db, key, None, encoded, Expiry::None, limits)?
                    }
                };
                return Ok(count);
            };
            let large = self.make_large(db, key, old, limits)?;
            return self.push_to_large(&large, end, elements, limits);
        }
        let mut first = elements.clone();
        match (first.next(), first.next()) {
            (Some(only), None) => {
                let element = Encoded::of(only);
                self.splice_end(db, key, entry, end, &element.pieces(), count)?;
            }
            _ => {
                let mut run = Vec::with_capacity(short(new));
                match end {
                    ListEnd::Front => {
                        elements.rev().for_each(|bytes| Encoded::of(bytes).push_to(&mut run));
                    }
                    ListEnd::Back => {
                        elements.for_each(|bytes| Encoded::of(bytes).push_to(&mut run));
                    }
                }
                self.splice_end(db, key, entry, end, &[&run], count)?;
            }
        }
        Ok(count)
    }

    /// Adds pieces at an end of a compact list, or of a new one.
    fn splice_end(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Option<&Entry>,
        end: ListEnd,
        pieces: &[&[u8]],
        count: u64,
    ) -> Result<(), OutOfMemory> {
        match entry {
            None => {
                let new = description(LISTPACK, count);
                self.put_compact(db, key, None, new, pieces, Expiry::None)?;
            }
            Some(old) => {
                let at = match end {
                    ListEnd::Front => 0,
                    ListEnd::Back => short(old.head.value_len),
                };
                self.splice(db, key.hash, old, at..at, pieces, count)?;
            }
        }
        Ok(())
    }

    /// Removes `count` elements from an end of a list, and the key with the last one. Tells whether
    /// the key was removed. Counts as a change for each.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn list_pop(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        end: ListEnd,
        count: u64,
        limits: &ListLimits,
    ) -> Result<bool, OutOfMemory> {
        match end {
            ListEnd::Front => self.list_trim(db, key, entry, (count, 0), limits),
            ListEnd::Back => self.list_trim(db, key, entry, (0, count), limits),
        }
    }

    /// Removes so many elements from the front and from the back of a list, and the key with the
    /// last one. Tells whether the key was removed. Counts as a change for each.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn list_trim(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        (front, back): (u64, u64),
        limits: &ListLimits,
    ) -> Result<bool, OutOfMemory> {
        let len = self.list_len(entry);
        let gone = front.saturating_add(back).min(len);
        if gone == len {
            self.delete(db, key, entry, len);
            return Ok(true);
        }
        if entry.head.is_large() {
            let deque = self.large_list(entry);
            let mut mem = self.held.mem(entry.shard);
            if front > 0 {
                deque.remove_front(&mut mem, front);
            }
            if back > 0 {
                deque.remove_back(&mut mem, back);
            }
            self.after_loss(db, key, entry, limits);
        } else if gone > 0 {
            self.trim_compact(db, key, entry, (front, back), len - gone)?;
        }
        self.touched_times(db, key, gone);
        Ok(false)
    }

    fn trim_compact(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        (front, back): (u64, u64),
        left: u64,
    ) -> Result<(), OutOfMemory> {
        let run = self.run(entry);
        let start = packed::nth(run, short(front));
        let start = start.expect("invariant: fewer elements are removed than there are");
        let end = match back.checked_sub(1) {
            None => run.len(),
            Some(back) => packed::nth_back(run, short(back))
                .expect("invariant: fewer elements are removed than there are"),
        };
        let len = run.len();
        if end == len {
            self.splice(db, key.hash, entry, 0..start, &[], left)?;
        } else if start == 0 {
            self.splice(db, key.hash, entry, end..len, &[], left)?;
        } else {
            let rest = run[start..end].to_vec();
            self.splice(db, key.hash, entry, 0..len, &[&rest], left)?;
        }
        Ok(())
    }

    /// Replaces the element at `index`; tells whether the list has one.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn list_set(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        index: u64,
        element: &[u8],
        limits: &ListLimits,
    ) -> Result<bool, OutOfMemory> {
        if index >= self.list_len(entry) {
            return Ok(false);
        }
        let element = Encoded::of(element);
        let mut entry = *entry;
        if !entry.head.is_large() {
            let run = self.run(&entry);
            let at =
                packed::nth(run, short(index)).expect("invariant: `index` is below the length");
            let end = packed::next(run, at);
            let bytes = (run.len() - (end - at) + element.len()) as u64;
            let count = entry.head.count;
            if is_compact(limits, bytes, count) {
                self.splice(db, key.hash, &entry, at..end, &element.pieces(), count)?;
                self.touched(db, key);
                return Ok(true);
            }
            entry = self.make_large(db, key, &entry, limits)?;
        }
        let deque = self.large_list(&entry);
        let mut mem = self.held.mem(entry.shard);
        let cursor = deque.seek(&mem, index).expect("invariant: `index` is below the length");
        deque.set(&mut mem, cursor, &element, limits.nodes())?;
        self.after_growth(&entry, limits);
        // `after_growth` may have changed the header.
        let head = EntryHeader::load(&self.held.view(entry.shard), entry.at);
        self.after_loss(db, key, &Entry { head, ..entry }, limits);
        self.touched(db, key);
        Ok(true)
    }

    /// Adds an element before or behind the first one that equals `pivot`. Returns the new number
    /// of elements; `None` if no element equals `pivot`.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn list_insert(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        (pivot, before): (&[u8], bool),
        element: &[u8],
        limits: &ListLimits,
    ) -> Result<Option<u64>, OutOfMemory> {
        let mut index = None;
        self.list_find(entry, pivot, ListEnd::Front, u64::MAX, |found| {
            index = Some(found);
            false
        });
        let Some(index) = index else { return Ok(None) };
        let element = Encoded::of(element);
        let count = self.list_len(entry) + 1;
        let mut entry = *entry;
        if !entry.head.is_large() {
            let run = self.run(&entry);
            if is_compact(limits, (run.len() + element.len()) as u64, count) {
                let position = index + u64::from(!before);
                let at = packed::nth(run, short(position)).unwrap_or(run.len());
                self.splice(db, key.hash, &entry, at..at, &element.pieces(), count)?;
                self.touched(db, key);
                return Ok(Some(count));
            }
            entry = self.make_large(db, key, &entry, limits)?;
        }
        let deque = self.large_list(&entry);
        let mut mem = self.held.mem(entry.shard);
        let cursor = deque.seek(&mem, index).expect("invariant: the pivot was found at `index`");
        if before {
            deque.insert_before(&mut mem, cursor, &element, limits.nodes())?;
        } else {
            deque.insert_after(&mut mem, cursor, &element, limits.nodes())?;
        }
        self.after_growth(&entry, limits);
        self.touched(db, key);
        Ok(Some(count))
    }

    /// Removes up to `most` elements that equal `bytes`, from an end inwards, and the key with the
    /// last one. Returns the number of removed elements, each of which counts as a change.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn list_remove(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        bytes: &[u8],
        (end, most): (ListEnd, u64),
        limits: &ListLimits,
    ) -> Result<u64, OutOfMemory> {
        let len = self.list_len(entry);
        let removed = if entry.head.is_large() {
            let removed = self.remove_from_large(entry, bytes, end, most);
            if removed > 0 && removed < len {
                self.after_loss(db, key, entry, limits);
            }
            removed
        } else {
            self.remove_from_compact(db, key, entry, bytes, end, most)?
        };
        if removed == len {
            self.delete(db, key, entry, len);
        } else if removed > 0 {
            self.touched_times(db, key, removed);
        }
        Ok(removed)
    }

    fn remove_from_large(&mut self, entry: &Entry, bytes: &[u8], end: ListEnd, most: u64) -> u64 {
        let (deque, wanted) = (self.large_list(entry), wanted(bytes));
        let mut mem = self.held.mem(entry.shard);
        let mut cursor = match end {
            ListEnd::Front => deque.first(&mem),
            ListEnd::Back => deque.last(&mem),
        };
        let mut removed = 0;
        while let Some(here) = cursor
            && removed < most
        {
            let is_it = deque.get(&mem, here) == wanted;
            cursor = match (is_it, end) {
                (false, ListEnd::Front) => deque.next(&mem, here),
                (false, ListEnd::Back) => deque.previous(&mem, here),
                (true, ListEnd::Front) => deque.remove(&mut mem, here),
                (true, ListEnd::Back) => match deque.remove(&mut mem, here) {
                    Some(behind) => deque.previous(&mem, behind),
                    None => deque.last(&mem),
                },
            };
            removed += u64::from(is_it);
        }
        removed
    }

    /// [`Self::list_remove`] for a compact list, except that elements stay if all would be removed:
    /// then the caller removes the key.
    fn remove_from_compact(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        bytes: &[u8],
        end: ListEnd,
        most: u64,
    ) -> Result<u64, OutOfMemory> {
        let mut found = Vec::new();
        self.list_find(entry, bytes, end, u64::MAX, |index| {
            found.push(index);
            (found.len() as u64) < most
        });
        let (removed, count) = (found.len() as u64, entry.head.count);
        if removed == 0 || removed == count {
            return Ok(removed);
        }
        found.sort_unstable();
        let run = self.run(entry);
        let mut rest = Vec::with_capacity(run.len());
        let (mut at, mut index, mut found) = (0, 0, found.into_iter().peekable());
        while at < run.len() {
            let next = packed::next(run, at);
            if found.next_if_eq(&index).is_none() {
                rest.extend_from_slice(&run[at..next]);
            }
            (at, index) = (next, index + 1);
        }
        let len = run.len();
        self.splice(db, key.hash, entry, 0..len, &[&rest], count - removed)?;
        Ok(removed)
    }

    /// Sets a key to a list of at least one element, whatever its value was. Counts as a change for
    /// each element.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn list_put(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        elements: &[Vec<u8>],
        limits: &ListLimits,
    ) -> Result<(), OutOfMemory> {
        let old = self.peek(db, key);
        let encoded = || elements.iter().map(|bytes| Encoded::of(bytes));
        let (bytes, count) = (encoded().map(|e| e.len() as u64).sum(), elements.len() as u64);
        if is_compact(limits, bytes, count) {
            let mut run = Vec::with_capacity(short(bytes));
            encoded().for_each(|element| element.push_to(&mut run));
            let new = description(LISTPACK, count);
            self.put_compact(db, key, old.as_ref(), new, &[&run], Expiry::None)?;
        } else {
            self.put_elements(db, key, old.as_ref(), encoded(), Expiry::None, limits)?;
        }
        self.touched_times(db, key, count);
        Ok(())
    }
}

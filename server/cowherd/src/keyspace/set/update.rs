//! Adding members to sets, removing them, and storing whole sets.

use std::collections::HashSet;
use std::iter::once;
use std::ops::Range;

use crate::keyspace::collection::build_large;
use crate::keyspace::compact::{MAX_BYTES, ValueDescription};
use crate::keyspace::entry::{EntryHeader, ValueType};
use crate::keyspace::shards::Entry;
use crate::keyspace::{DbIndex, Expiry, Key, Shards, Value};
use cowherd_arena::OutOfMemory;
use cowherd_arena::containers::packed::{self, Encoded, as_number};

use super::compact::{Ints, MemberList, SetBuilder, encoding_for, most_ints, width};
use super::large::{self, LargeSet};
use super::{RUN, Set, SetLimits, value};

const LARGE: ValueDescription = ValueDescription { kind: ValueType::Set, encoding: RUN, count: 0 };

/// The range of a member in the bytes of a compact set.
#[inline]
fn range_of(head: &EntryHeader, bytes: &[u8], member: &[u8]) -> Option<Range<usize>> {
    if head.encoding == RUN {
        let at = packed::find(bytes, &Encoded::of(member), 0, 1)?;
        return Some(at..packed::next(bytes, at));
    }
    let at = Ints::of(head, bytes).find(as_number(member)?).ok()?;
    Some(range_of_int(head, at))
}

#[inline]
const fn range_of_int(head: &EntryHeader, nth: usize) -> Range<usize> {
    let width = width(head.encoding);
    nth * width..(nth + 1) * width
}

impl Shards<'_> {
    /// Adds members to a set that was looked up, or to a new one. Returns the number of new
    /// members, each of which counts as a change.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn set_add<'m>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Option<&Entry>,
        members: impl ExactSizeIterator<Item = &'m [u8]> + Clone,
        limits: &SetLimits,
    ) -> Result<u64, OutOfMemory> {
        let mut first = members.clone();
        let added = match (entry, first.next(), first.len()) {
            (Some(entry), ..) if entry.head.is_large() => self.add_to_large(entry, members)?,
            (Some(entry), Some(member), 0) => self.add_one(db, key, entry, member, limits)?,
            _ => self.add_many(db, key, entry, members, limits)?,
        };
        if added > 0 {
            self.touched_times(db, key, added);
        }
        Ok(added)
    }

    fn add_to_large<'m>(
        &mut self,
        entry: &Entry,
        members: impl ExactSizeIterator<Item = &'m [u8]>,
    ) -> Result<u64, OutOfMemory> {
        let large = self.large_set(entry);
        let mut mem = self.held.mem(entry.shard);
        // The new members, which are removed again if memory runs out.
        let (mut new, is_one) = (Vec::new(), members.len() == 1);
        for member in members {
            match large.add(&mut mem, member) {
                Ok(None) => {}
                Ok(Some(_)) if is_one => return Ok(1),
                Ok(Some(item)) => new.push(item),
                Err(full) => {
                    new.iter().rev().for_each(|item| large.remove_at(&mut mem, *item));
                    return Err(full);
                }
            }
        }
        Ok(new.len() as u64)
    }

    fn add_one(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        member: &[u8],
        limits: &SetLimits,
    ) -> Result<u64, OutOfMemory> {
        let (head, run) = (entry.head, self.run(entry));
        let count = head.count + 1;
        if head.encoding == RUN {
            let encoded = Encoded::of(member);
            if packed::find(run, &encoded, 0, 1).is_some() {
                return Ok(0);
            }
            let end = run.len();
            if limits.run.allow_count(count)
                && limits.run.allow_len(member.len())
                && (end + encoded.len()) as u64 <= MAX_BYTES
            {
                self.splice(db, key.hash, entry, end..end, &encoded.pieces(), count)?;
                return Ok(1);
            }
        } else if let Some(number) = as_number(member) {
            let Err(place) = Ints::of(&head, run).find(number) else { return Ok(0) };
            if encoding_for(number) <= head.encoding && count <= most_ints(limits) {
                let (at, bytes) = (range_of_int(&head, place).start, number.to_le_bytes());
                let bytes = &bytes[..width(head.encoding)];
                self.splice(db, key.hash, entry, at..at, &[bytes], count)?;
                return Ok(1);
            }
        }
        self.add_many(db, key, Some(entry), once(member), limits)
    }

    /// Adds members to a compact set, which may become a large one, or to a new set.
    fn add_many<'m>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Option<&Entry>,
        members: impl ExactSizeIterator<Item = &'m [u8]> + Clone,
        limits: &SetLimits,
    ) -> Result<u64, OutOfMemory> {
        let hint = members.len() as u64;
        let builder = match entry {
            Some(entry) => SetBuilder::of(&entry.head, self.run(entry), hint, limits),
            None => SetBuilder::new(members.clone().next().unwrap_or_default(), hint, limits),
        };
        if let Some(mut builder) = builder {
            let add = |added, member| builder.add(member, limits).map(|new| added + u64::from(new));
            if let Some(added) = members.clone().try_fold(0, add) {
                if added > 0 {
                    let (bytes, what) = (&builder.bytes, builder.description());
                    self.put_compact(db, key, entry, what, &[bytes], Expiry::Keep)?;
                }
                return Ok(added);
            }
        }
        let mut old = MemberList::default();
        if let Some(entry) = entry {
            self.set_each(entry, |member| old.push(member));
        }
        let mut mem = self.held.mem(key.shard);
        let header = build_large::<Set>(&mut mem, |mem, header| {
            let large = LargeSet::at(header);
            for member in old.iter() {
                large.add(mem, member.bytes(&mut itoa::Buffer::new()))?;
            }
            for member in members {
                large.add(mem, member)?;
            }
            Ok(())
        })?;
        let added = LargeSet::at(header).members().len(&mem) - old.len();
        self.put_large(db, key, entry, LARGE, header, Expiry::Keep)?;
        Ok(added)
    }

    /// Removes members, and the key with the last member. Returns the number of members that the
    /// set had, and whether the key was removed.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn set_remove<'m>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        members: impl Iterator<Item = &'m [u8]>,
    ) -> Result<(u64, bool), OutOfMemory> {
        if entry.head.is_large() {
            let large = self.large_set(entry);
            let mut mem = self.held.mem(entry.shard);
            let removed = members.filter(|member| large.remove(&mut mem, member)).count() as u64;
            return Ok((removed, self.after_removal(db, key, entry, removed)));
        }
        let (head, run) = (entry.head, self.run(entry));
        let mut ranges: Vec<Range<usize>> =
            members.filter_map(|member| range_of(&head, run, member)).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup();
        let is_removed = self.cut_ranges(db, key, entry, &ranges)?;
        Ok((ranges.len() as u64, is_removed))
    }

    /// Removes the key of a large set if no members are left; tells whether that was so. Counts the
    /// removed members as changes.
    fn after_removal(&mut self, db: DbIndex, key: &Key<'_>, entry: &Entry, removed: u64) -> bool {
        if self.set_len(entry) == 0 {
            self.delete(db, key, entry, removed);
            return true;
        }
        if removed > 0 {
            self.touched_times(db, key, removed);
        }
        false
    }

    /// Removes the members in these ascending ranges of a compact set, and the key with the last
    /// member; tells whether the key was removed. Counts as a change for each.
    fn cut_ranges(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        ranges: &[Range<usize>],
    ) -> Result<bool, OutOfMemory> {
        let removed = ranges.len() as u64;
        let count = entry.head.count - removed;
        match ranges {
            [] => return Ok(false),
            _ if count == 0 => {
                self.delete(db, key, entry, removed);
                return Ok(true);
            }
            [range] => {
                self.splice(db, key.hash, entry, range.clone(), &[], count)?;
            }
            [first, .., last] => {
                let run = self.run(entry);
                let mut kept = Vec::with_capacity(last.start - first.end);
                for pair in ranges.windows(2) {
                    kept.extend_from_slice(&run[pair[0].end..pair[1].start]);
                }
                let part = first.start..last.end;
                self.splice(db, key.hash, entry, part, &[&kept], count)?;
            }
        }
        self.touched_times(db, key, removed);
        Ok(false)
    }

    /// Removes up to `count` random members, and the key with the last member; calls `each` with
    /// each of them. Tells whether the key was removed.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn set_pop(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        count: u64,
        mut random: impl FnMut() -> u64,
        mut each: impl FnMut(Value<'_>),
    ) -> Result<bool, OutOfMemory> {
        let len = self.set_len(entry);
        if count >= len {
            self.set_each(entry, each);
            self.delete(db, key, entry, len);
            return Ok(true);
        }
        if entry.head.is_large() {
            let large = self.large_set(entry);
            for _ in 0..count {
                let mem = self.held.view(entry.shard);
                let item = large.members().random(&mem, &mut random);
                let item = item.unwrap_or_else(|| super::empty(entry.at));
                each(large::value(&mem, item));
                large.remove_at(&mut self.held.mem(entry.shard), item);
            }
            return Ok(self.after_removal(db, key, entry, count));
        }
        self.pop_compact(db, key, entry, count, random, each)
    }

    fn pop_compact(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        count: u64,
        mut random: impl FnMut() -> u64,
        mut each: impl FnMut(Value<'_>),
    ) -> Result<bool, OutOfMemory> {
        let (head, run) = (entry.head, self.run(entry));
        let chosen = choose(head.count, count, &mut random);
        let (mut ranges, mut at, mut nth) = (Vec::with_capacity(chosen.len()), 0, 0);
        for wanted in chosen {
            if head.encoding != RUN {
                each(Value::Int(Ints::of(&head, run).get(wanted)));
                ranges.push(range_of_int(&head, wanted));
                continue;
            }
            while nth < wanted {
                at = packed::next(run, at);
                nth += 1;
            }
            let (element, next) = packed::get(run, at);
            each(value(element));
            ranges.push(at..next);
            (at, nth) = (next, nth + 1);
        }
        self.cut_ranges(db, key, entry, &ranges)
    }

    /// Sets a key to a set of these members, whatever its value was; removes the key if there are
    /// no members. Tells whether anything has changed.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn set_store(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        members: &MemberList,
        limits: &SetLimits,
    ) -> Result<bool, OutOfMemory> {
        if members.is_empty() {
            return Ok(self.remove(db, key));
        }
        let old = self.peek(db, key);
        if let Some((what, bytes)) = members.compact(limits) {
            self.put_compact(db, key, old.as_ref(), what, &[&bytes], Expiry::None)?;
            self.touched(db, key);
            return Ok(true);
        }
        let header = build_large::<Set>(&mut self.held.mem(key.shard), |mem, header| {
            members.iter().try_for_each(|member| {
                LargeSet::at(header).add(mem, member.bytes(&mut itoa::Buffer::new())).map(drop)
            })
        })?;
        self.put_large(db, key, old.as_ref(), LARGE, header, Expiry::None)?;
        self.touched(db, key);
        Ok(true)
    }
}

/// `count` different random indices below `len`, which is larger, in ascending order.
fn choose(len: u64, count: u64, random: &mut impl FnMut() -> u64) -> Vec<usize> {
    if count == 1 {
        return vec![super::below(random(), len)];
    }
    // Floyd's algorithm (Bentley and Floyd, CACM 1987): all combinations are equally likely.
    let mut chosen = HashSet::new();
    for most in len - count..len {
        let other = super::below(random(), most + 1);
        if !chosen.insert(other) {
            chosen.insert(usize::try_from(most).expect("invariant: a number of members in memory"));
        }
    }
    let mut chosen: Vec<usize> = chosen.into_iter().collect();
    chosen.sort_unstable();
    chosen
}

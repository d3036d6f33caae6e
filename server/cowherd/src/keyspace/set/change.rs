//! Changing sets.

use std::collections::HashSet;
use std::iter::once;
use std::ops::Range;

use crate::keyspace::compact::{Description, MAX_BYTES};
use crate::keyspace::entry::{Shape, ValueKind};
use crate::keyspace::shards::Entry;
use crate::keyspace::{DbIndex, Expiry, Key, Shards, Value};
use cowherd_arena::OutOfMemory;
use cowherd_arena::containers::packed::{self, Encoded, as_number};

use super::draft::{Draft, MemberList, most_ints};
use super::ints::{Ints, form_for, width};
use super::large::{self, Large};
use super::{RUN, SetLimits, value};

const LARGE: Description = Description { kind: ValueKind::Set, form: RUN, count: 0 };

/// Where a member is in the bytes of a compact set.
#[inline]
fn place_of(shape: &Shape, bytes: &[u8], member: &[u8]) -> Option<Range<usize>> {
    if shape.form == RUN {
        let at = packed::find(bytes, &Encoded::of(member), 0, 1)?;
        return Some(at..packed::next(bytes, at));
    }
    let at = Ints::of(shape, bytes).find(as_number(member)?).ok()?;
    Some(place_of_int(shape, at))
}

#[inline]
const fn place_of_int(shape: &Shape, nth: usize) -> Range<usize> {
    let width = width(shape.form);
    nth * width..(nth + 1) * width
}

impl Shards<'_> {
    /// Adds members to the set of a key, which is made if it is not there. Returns how many are
    /// new.
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
            (Some(entry), ..) if entry.shape.is_large() => self.add_to_large(entry, members)?,
            (Some(entry), Some(member), 0) => self.add_one(db, key, entry, member, limits)?,
            _ => self.add_many(db, key, entry, members, limits)?,
        };
        if added > 0 {
            self.touched(db, key);
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
        // So that they can be taken back.
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
        let (shape, run) = (entry.shape, self.run(entry));
        let count = shape.count + 1;
        if shape.form == RUN {
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
            let Err(place) = Ints::of(&shape, run).find(number) else { return Ok(0) };
            if form_for(number) <= shape.form && count <= most_ints(limits) {
                let (at, bytes) = (place_of_int(&shape, place).start, number.to_le_bytes());
                let bytes = &bytes[..width(shape.form)];
                self.splice(db, key.hash, entry, at..at, &[bytes], count)?;
                return Ok(1);
            }
        }
        self.add_many(db, key, Some(entry), once(member), limits)
    }

    /// Adds members to a compact set, or to one that is not there yet; it may become a large one.
    fn add_many<'m>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Option<&Entry>,
        members: impl ExactSizeIterator<Item = &'m [u8]> + Clone,
        limits: &SetLimits,
    ) -> Result<u64, OutOfMemory> {
        let hint = members.len() as u64;
        let draft = match entry {
            Some(entry) => Draft::of(&entry.shape, self.run(entry), hint, limits),
            None => Draft::new(members.clone().next().unwrap_or_default(), hint, limits),
        };
        if let Some(mut draft) = draft {
            let add = |added, member| draft.add(member, limits).map(|new| added + u64::from(new));
            if let Some(added) = members.clone().try_fold(0, add) {
                if added > 0 {
                    let (bytes, what) = (&draft.bytes, draft.description());
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
        let large = Large::create(&mut mem)?;
        let add_all = || -> Result<(), OutOfMemory> {
            for member in old.iter() {
                large.add(&mut mem, member.bytes(&mut itoa::Buffer::new()))?;
            }
            for member in members {
                large.add(&mut mem, member)?;
            }
            Ok(())
        };
        let outcome = add_all();
        let added = large.members().len(&mem).saturating_sub(old.len());
        outcome.and_then(|()| self.put_set(db, key, entry, large)).inspect_err(|_| {
            large.free(&mut self.held.mem(key.shard));
        })?;
        Ok(added)
    }

    fn put_set(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Option<&Entry>,
        large: Large,
    ) -> Result<(), OutOfMemory> {
        self.put_large(db, key, entry, LARGE, large.header(), Expiry::Keep).map(drop)
    }

    /// Removes members of a set, and its key with the last of them. Returns how many were there,
    /// and whether the key is gone.
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
        if entry.shape.is_large() {
            let large = self.large_set(entry);
            let mut mem = self.held.mem(entry.shard);
            let removed = members.filter(|member| large.remove(&mut mem, member)).count() as u64;
            return Ok((removed, self.after_removal(db, key, entry, removed)));
        }
        let (shape, run) = (entry.shape, self.run(entry));
        let mut places: Vec<Range<usize>> =
            members.filter_map(|member| place_of(&shape, run, member)).collect();
        places.sort_unstable_by_key(|place| place.start);
        places.dedup();
        let gone = self.cut_places(db, key, entry, &places)?;
        Ok((places.len() as u64, gone))
    }

    /// What follows when members of a large set were removed; tells whether the key is gone.
    fn after_removal(&mut self, db: DbIndex, key: &Key<'_>, entry: &Entry, removed: u64) -> bool {
        if self.set_len(entry) == 0 {
            self.delete(db, key, entry);
            return true;
        }
        if removed > 0 {
            self.touched(db, key);
        }
        false
    }

    /// Removes the members at ascending places of a compact set; tells whether the key is gone.
    fn cut_places(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        places: &[Range<usize>],
    ) -> Result<bool, OutOfMemory> {
        let count = entry.shape.count - places.len() as u64;
        match places {
            [] => return Ok(false),
            _ if count == 0 => {
                self.delete(db, key, entry);
                return Ok(true);
            }
            [place] => {
                self.splice(db, key.hash, entry, place.clone(), &[], count)?;
            }
            [first, .., last] => {
                let run = self.run(entry);
                let mut kept = Vec::with_capacity(last.start - first.end);
                for pair in places.windows(2) {
                    kept.extend_from_slice(&run[pair[0].end..pair[1].start]);
                }
                let part = first.start..last.end;
                self.splice(db, key.hash, entry, part, &[&kept], count)?;
            }
        }
        self.touched(db, key);
        Ok(false)
    }

    /// Takes up to `count` members out of a set, chosen by `random`, and hands them to `each`; the
    /// key is gone with the last. Tells whether it is.
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
            self.delete(db, key, entry);
            return Ok(true);
        }
        if entry.shape.is_large() {
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
        let (shape, run) = (entry.shape, self.run(entry));
        let chosen = choose(shape.count, count, &mut random);
        let (mut places, mut at, mut nth) = (Vec::with_capacity(chosen.len()), 0, 0);
        for wanted in chosen {
            if shape.form != RUN {
                each(Value::Int(Ints::of(&shape, run).get(wanted)));
                places.push(place_of_int(&shape, wanted));
                continue;
            }
            while nth < wanted {
                at = packed::next(run, at);
                nth += 1;
            }
            let (element, next) = packed::get(run, at);
            each(value(element));
            places.push(at..next);
            (at, nth) = (next, nth + 1);
        }
        self.cut_places(db, key, entry, &places)
    }

    /// Sets a key to a set of these members, whatever it was before; without members the key is
    /// gone. Tells whether anything has changed.
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
        let mut mem = self.held.mem(key.shard);
        let large = Large::create(&mut mem)?;
        let mut all = members.iter();
        let outcome = all.try_for_each(|member| {
            large.add(&mut mem, member.bytes(&mut itoa::Buffer::new())).map(drop)
        });
        let put = outcome.and_then(|()| {
            let header = large.header();
            self.put_large(db, key, old.as_ref(), LARGE, header, Expiry::None)
        });
        put.inspect_err(|_| large.free(&mut self.held.mem(key.shard)))?;
        self.touched(db, key);
        Ok(true)
    }
}

/// `count` different numbers below `len`, which is more, in ascending order.
fn choose(len: u64, count: u64, random: &mut impl FnMut() -> u64) -> Vec<usize> {
    if count == 1 {
        return vec![super::below(random(), len)];
    }
    // Of the ways to choose, each is as likely (Floyd's algorithm).
    let mut chosen = HashSet::new();
    for most in len - count..len {
        let other = super::below(random(), most + 1);
        if !chosen.insert(other) {
            chosen.insert(usize::try_from(most).unwrap_or(usize::MAX));
        }
    }
    let mut chosen: Vec<usize> = chosen.into_iter().collect();
    chosen.sort_unstable();
    chosen
}

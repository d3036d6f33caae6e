//! Changing sorted sets: a member at a time, ranges of ranks, and whole ones.

use std::collections::HashMap;

use crate::keyspace::compact::{CompactLimits, Description, MAX_BYTES};
use crate::keyspace::entry::{ByPlace, ValueKind, hash};
use crate::keyspace::shards::Entry;
use crate::keyspace::values::discard;
use crate::keyspace::{DbIndex, Expiry, Key, Shards};
use cowherd_arena::containers::packed::{self, Element, Encoded};
use cowherd_arena::{Mem, OutOfMemory};

use super::element::{self, ByMember};
use super::{members_of, pair_at, pairs, push_pair, scores_of};

/// What became of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberChange {
    /// It was not there and is now.
    Added,
    /// Its score is another one now.
    Changed,
    /// Nothing.
    Nothing,
}

/// Bytes that several members take at most, in nodes, segments and a directory.
const ROOM: u64 = 64 << 10;
/// Bytes that one more of them takes at most, itself apart.
const ROOM_FOR_ONE: u64 = 2 << 10;
/// Bytes that are looked for in one piece: what a slab of small objects takes at most.
const PIECE: u64 = 64 << 10;

const fn description(count: u64) -> Description {
    Description { kind: ValueKind::SortedSet, form: 0, count }
}

impl Shards<'_> {
    /// Gives a member of a key's sorted set the score that `decide` makes of its old one; `None`
    /// leaves things as they are. Makes key and member if they are not there. Returns the entry,
    /// if the key is there afterwards.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn put_member(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Option<Entry>,
        member: &[u8],
        limits: &CompactLimits,
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Result<(Option<Entry>, MemberChange), OutOfMemory> {
        let Some(entry) = entry else {
            let Some(score) = decide(None) else { return Ok((None, MemberChange::Nothing)) };
            let entry = self.put_pairs(db, key, None, &[(member, score)], limits, Expiry::None)?;
            self.touched(db, key);
            return Ok((Some(entry), MemberChange::Added));
        };
        let (entry, put) = match entry.shape.is_large() {
            true => (entry, self.put_into_large(&entry, member, decide)?),
            false => self.put_into_compact(db, key, &entry, member, limits, decide)?,
        };
        if put != MemberChange::Nothing {
            self.touched(db, key);
        }
        Ok((Some(entry), put))
    }

    /// As [`Self::put_member`], for several members with what `decide` makes of their places in
    /// `members` and their old scores. Returns how many were added, and how many changed.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn put_members(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Option<Entry>,
        members: &[&[u8]],
        limits: &CompactLimits,
        mut decide: impl FnMut(usize, Option<f64>) -> Option<f64>,
    ) -> Result<(u64, u64), OutOfMemory> {
        match entry {
            Some(entry) if entry.shape.is_large() => {
                self.put_all_into_large(db, key, &entry, members, &mut decide)
            }
            entry => self.put_all_at_once(db, key, entry.as_ref(), members, limits, &mut decide),
        }
    }

    /// Puts members into a sorted set that is compact or not there: all of it is made anew.
    fn put_all_at_once(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Option<&Entry>,
        members: &[&[u8]],
        limits: &CompactLimits,
        decide: &mut impl FnMut(usize, Option<f64>) -> Option<f64>,
    ) -> Result<(u64, u64), OutOfMemory> {
        let run = entry.map(|entry| self.run(entry).to_vec()).unwrap_or_default();
        let old: Vec<(Vec<u8>, f64)> = owned(&run);
        let mut scores: HashMap<&[u8], f64> =
            old.iter().map(|(member, score)| (member.as_slice(), *score)).collect();
        let (mut added, mut changed) = (0, 0);
        for (i, member) in members.iter().enumerate() {
            let before = scores.get(member).copied();
            let Some(score) = decide(i, before).filter(|score| Some(*score) != before) else {
                continue;
            };
            scores.insert(member, score);
            if before.is_some() {
                changed += 1;
            } else {
                added += 1;
            }
        }
        if added + changed > 0 {
            let mut pairs: Vec<_> = scores.into_iter().collect();
            sort(&mut pairs);
            self.put_pairs(db, key, entry, &pairs, limits, Expiry::Keep)?;
            self.changed_times(key.shard, added + changed);
            self.tell(db, key);
        }
        Ok((added, changed))
    }

    fn put_all_into_large(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        members: &[&[u8]],
        decide: &mut impl FnMut(usize, Option<f64>) -> Option<f64>,
    ) -> Result<(u64, u64), OutOfMemory> {
        let mut done = Vec::new();
        let mut reserve = ROOM;
        for member in members {
            reserve += ROOM_FOR_ONE + member.len() as u64;
        }
        // So that it fails, if it does, before anything is done.
        let mut mem = self.held.mem(entry.shard);
        let mut pieces = Vec::new();
        let there_is = (0..reserve.div_ceil(PIECE))
            .try_for_each(|_| mem.allocate(PIECE).map(|place| pieces.push(place)));
        for place in pieces {
            mem.release(place, PIECE);
        }
        there_is?;
        let (mut added, mut changed) = (0, 0);
        for (i, member) in members.iter().enumerate() {
            let mut before = None;
            let put = self.put_into_large(entry, member, |old| {
                before = old;
                decide(i, old)
            });
            match put {
                Ok(MemberChange::Added) => added += 1,
                Ok(MemberChange::Changed) => changed += 1,
                Ok(MemberChange::Nothing) => continue,
                Err(full) => {
                    self.take_back(entry, &done);
                    return Err(full);
                }
            }
            done.push((*member, before));
        }
        if added + changed > 0 {
            self.changed_times(entry.shard, added + changed);
            self.tell(db, key);
        }
        Ok((added, changed))
    }

    /// Takes back what was put, the last first.
    #[cold]
    fn take_back(&mut self, entry: &Entry, done: &[(&[u8], Option<f64>)]) {
        let mut mem = self.held.mem(entry.shard);
        let header = entry.shape.header(&mem, entry.at);
        for (member, before) in done.iter().rev() {
            match before {
                None => {
                    remove_from_large(&mut mem, header, member);
                }
                // It fits: all that came after it is taken back, so there is room where it stood.
                Some(score) => {
                    let put = self.put_into_large(entry, member, |_| Some(*score));
                    debug_assert!(put.is_ok());
                    mem = self.held.mem(entry.shard);
                }
            }
        }
    }

    fn put_into_large(
        &mut self,
        entry: &Entry,
        member: &[u8],
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Result<MemberChange, OutOfMemory> {
        let mut mem = self.held.mem(entry.shard);
        let header = entry.shape.header(&mem, entry.at);
        let member_hash = hash(mem.arena(), member);
        let found = members_of(header).find(&mem, member_hash, &ByMember(member));
        let Some(found) = found else {
            let Some(score) = decide(None) else { return Ok(MemberChange::Nothing) };
            super::add(&mut mem, header, member, member_hash, score)?;
            return Ok(MemberChange::Added);
        };
        let old = element::score(&mem, found.item);
        let Some(score) = decide(Some(old)).filter(|score| *score != old) else {
            return Ok(MemberChange::Nothing);
        };
        let (from, to) = (element::order(old), element::order(score));
        scores_of(header).rekey(&mut mem, from, &ByMember(member), to)?;
        element::set_score(&mut mem, found.item, score);
        Ok(MemberChange::Changed)
    }

    fn put_into_compact(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        member: &[u8],
        limits: &CompactLimits,
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Result<(Entry, MemberChange), OutOfMemory> {
        let run = self.run(entry);
        let old = packed::find(run, &Encoded::of(member), 0, 2).map(|at| {
            let (_, score, next) = pair_at(run, at);
            (at..next, score)
        });
        let old_score = old.as_ref().map(|(_, score)| *score);
        let Some(score) = decide(old_score).filter(|score| Some(*score) != old_score) else {
            return Ok((*entry, MemberChange::Nothing));
        };
        let count = entry.shape.count + u64::from(old.is_none());
        let is_small = limits.allow_count(count)
            && limits.allow_len(member.len())
            && (run.len() + member.len()) as u64 <= MAX_BYTES;
        let put = if old.is_some() { MemberChange::Changed } else { MemberChange::Added };
        if !is_small && old.is_none() {
            let large = self.enlarge(db, key, entry)?;
            self.put_into_large(&large, member, |_| Some(score))?;
            return Ok((large, put));
        }
        let place = place_of(run, member, score);
        let mut pair = Vec::with_capacity(member.len() + 24);
        push_pair(&mut pair, member, score);
        // What is between the old place and the new one moves by the length of the pair.
        let (part, between) = match old {
            None => (place..place, Vec::new()),
            Some((old, _)) if place <= old.start => {
                let between = run[place..old.start].to_vec();
                (place..old.end, between)
            }
            Some((old, _)) => {
                let between = run[old.end..place].to_vec();
                let entry =
                    self.splice(db, key.hash, entry, old.start..place, &[&between, &pair], count)?;
                return Ok((entry, put));
            }
        };
        let entry = self.splice(db, key.hash, entry, part, &[&pair, &between], count)?;
        Ok((entry, put))
    }

    /// Makes a compact sorted set a large one.
    fn enlarge(&mut self, db: DbIndex, key: &Key<'_>, entry: &Entry) -> Result<Entry, OutOfMemory> {
        let owned = owned(self.run(entry));
        let all = owned.iter().map(|(member, score)| (member.as_slice(), *score));
        let mut mem = self.held.mem(key.shard);
        let header = super::build(&mut mem, all)?;
        self.put_header(db, key, Some(entry), header, Expiry::Keep)
    }

    fn put_header(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        header: u64,
        expiry: Expiry,
    ) -> Result<Entry, OutOfMemory> {
        let put = self.put_large(db, key, old, description(0), header, expiry);
        put.inspect_err(|_| discard(&mut self.held.mem(key.shard), ValueKind::SortedSet, header))
    }

    /// Sets a key to a sorted set of these members, which are all different and in order.
    fn put_pairs(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        pairs: &[(&[u8], f64)],
        limits: &CompactLimits,
        expiry: Expiry,
    ) -> Result<Entry, OutOfMemory> {
        let count = pairs.len() as u64;
        let is_small = limits.allow_count(count)
            && pairs.iter().all(|(member, _)| limits.allow_len(member.len()))
            && pairs.iter().map(|(member, _)| member.len() as u64 + 24).sum::<u64>() <= MAX_BYTES;
        if is_small {
            let mut run = Vec::new();
            pairs.iter().for_each(|(member, score)| push_pair(&mut run, member, *score));
            return self.put_compact(db, key, old, description(count), &[&run], expiry);
        }
        let mut mem = self.held.mem(key.shard);
        let header = super::build(&mut mem, pairs.iter().copied())?;
        self.put_header(db, key, old, header, expiry)
    }

    /// Sets a key to a sorted set of these members, which are all different, whatever it was
    /// before; without members the key is gone. Tells whether anything has changed.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn store_sorted_set(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        pairs: &mut [(&[u8], f64)],
        limits: &CompactLimits,
    ) -> Result<bool, OutOfMemory> {
        if pairs.is_empty() {
            return Ok(self.remove(db, key));
        }
        sort(pairs);
        let old = self.peek(db, key);
        self.put_pairs(db, key, old.as_ref(), pairs, limits, Expiry::None)?;
        self.touched(db, key);
        Ok(true)
    }

    /// Removes a member; tells whether it was there, and returns the entry unless the key is gone
    /// with its last member.
    ///
    /// # Errors
    /// The arena is full; nothing has changed. (A compact one may have to move to a smaller place.)
    pub fn remove_member(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Entry,
        member: &[u8],
    ) -> Result<(bool, Option<Entry>), OutOfMemory> {
        if !entry.shape.is_large() {
            let run = self.run(&entry);
            let Some(at) = packed::find(run, &Encoded::of(member), 0, 2) else {
                return Ok((false, Some(entry)));
            };
            let next = pair_at(run, at).2;
            return Ok((true, self.cut_pairs(db, key, &entry, at..next, 1)?));
        }
        let mut mem = self.held.mem(entry.shard);
        let header = entry.shape.header(&mem, entry.at);
        if !remove_from_large(&mut mem, header, member) {
            return Ok((false, Some(entry)));
        }
        Ok((true, self.unless_empty(db, key, entry, header)))
    }

    /// Removes `count` members from a rank on, or those of them that are there; returns the entry
    /// unless the key is gone with its last member.
    ///
    /// # Errors
    /// The arena is full; nothing has changed. (A compact one may have to move to a smaller place.)
    pub fn remove_ranks(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Entry,
        rank: u64,
        count: u64,
    ) -> Result<Option<Entry>, OutOfMemory> {
        let len = self.sorted_set(&entry).len();
        let count = count.min(len.saturating_sub(rank));
        if count == 0 {
            return Ok(Some(entry));
        }
        if count == len {
            self.delete(db, key, &entry);
            return Ok(None);
        }
        if !entry.shape.is_large() {
            let run = self.run(&entry);
            let skip =
                |from: usize, pairs: u64| (0..pairs * 2).fold(from, |at, _| packed::next(run, at));
            let start = skip(0, rank);
            let end = skip(start, count);
            return self.cut_pairs(db, key, &entry, start..end, count);
        }
        let mut mem = self.held.mem(entry.shard);
        let header = entry.shape.header(&mem, entry.at);
        for _ in 0..count {
            remove_nth(&mut mem, header, rank);
        }
        Ok(self.unless_empty(db, key, entry, header))
    }

    /// Removes a part of a compact one, of `count` pairs.
    fn cut_pairs(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        part: std::ops::Range<usize>,
        count: u64,
    ) -> Result<Option<Entry>, OutOfMemory> {
        if count == entry.shape.count {
            self.delete(db, key, entry);
            return Ok(None);
        }
        let left = entry.shape.count - count;
        let entry = self.splice(db, key.hash, entry, part, &[], left)?;
        self.touched(db, key);
        Ok(Some(entry))
    }

    fn unless_empty(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Entry,
        header: u64,
    ) -> Option<Entry> {
        if scores_of(header).is_empty(&self.held.mem(entry.shard)) {
            self.delete(db, key, &entry);
            return None;
        }
        self.touched(db, key);
        Some(entry)
    }
}

/// Removes a member from a large one; tells whether it was there.
fn remove_from_large(mem: &mut Mem<'_>, header: u64, member: &[u8]) -> bool {
    let (member_hash, by_member) = (hash(mem.arena(), member), ByMember(member));
    let Some(found) = members_of(header).find(mem, member_hash, &by_member) else { return false };
    let score = element::order(element::score(mem, found.item));
    scores_of(header).remove(mem, score, &by_member);
    members_of(header).remove(mem, member_hash, found);
    element::release(mem, found.item);
    true
}

/// Puts pairs into the order of a sorted set.
fn sort(pairs: &mut [(&[u8], f64)]) {
    let order = |pair: &(&[u8], f64)| element::order(pair.1);
    pairs.sort_unstable_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.0.cmp(b.0)));
}

/// The pairs of a run as bytes of their own.
fn owned(run: &[u8]) -> Vec<(Vec<u8>, f64)> {
    let bytes = |member: Element<'_>| member.bytes(&mut itoa::Buffer::new()).to_vec();
    pairs(run).map(|(member, score)| (bytes(member), score)).collect()
}

/// Removes the member of a rank from a large one.
fn remove_nth(mem: &mut Mem<'_>, header: u64, rank: u64) {
    let Some(entry) = scores_of(header).remove_nth(mem, rank) else { return };
    let member_hash = hash(mem.arena(), element::member(mem, entry.item));
    if let Some(found) = members_of(header).find(mem, member_hash, &ByPlace(entry.item)) {
        members_of(header).remove(mem, member_hash, found);
    }
    element::release(mem, entry.item);
}

/// Where in a run a pair belongs.
fn place_of(run: &[u8], member: &[u8], score: f64) -> usize {
    let (mut at, mut digits) = (0, itoa::Buffer::new());
    while at < run.len() {
        let (other, other_score, next) = pair_at(run, at);
        if other_score > score || other_score == score && other.bytes(&mut digits) >= member {
            break;
        }
        at = next;
    }
    at
}

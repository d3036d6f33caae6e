//! Adding, changing and removing members of sorted sets, and storing whole sets.

use std::collections::HashMap;

use crate::keyspace::compact::{CompactLimits, MAX_BYTES, ValueDescription};
use crate::keyspace::entry::{ByOffset, ValueType, hash};
use crate::keyspace::shards::Entry;
use crate::keyspace::{DbIndex, Expiry, Key, Shards};
use cowherd_arena::containers::packed::{self, Element, Encoded};
use cowherd_arena::{Mem, OutOfMemory};

use super::element::{self, BySortedMember};
use super::{members_of, pair_at, pairs, push_pair, scores_of};

/// What has changed of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberChange {
    /// The member was added.
    Added,
    /// The score was changed.
    Changed,
    /// Nothing has changed.
    Nothing,
}

/// Bytes that adding members takes at most in tree nodes, segments and a directory.
const STRUCTURE_BYTES: u64 = 64 << 10;
/// Bytes that each of them takes at most, without the member itself.
const BYTES_FOR_ONE: u64 = 2 << 10;
/// Bytes of each trial allocation: the size of the largest slab of small objects.
const PIECE: u64 = 64 << 10;

const fn description(count: u64) -> ValueDescription {
    ValueDescription { kind: ValueType::SortedSet, encoding: 0, count }
}

impl Shards<'_> {
    /// Sets the score of a member to what `decide` makes of its present score; `None` changes
    /// nothing. Creates key and member if they do not exist. Returns the entry, if the key exists
    /// afterwards.
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
        let (entry, put) = match entry.head.is_large() {
            true => (entry, self.put_into_large(&entry, member, decide)?),
            false => self.put_into_compact(db, key, &entry, member, limits, decide)?,
        };
        if put != MemberChange::Nothing {
            self.touched(db, key);
        }
        Ok((Some(entry), put))
    }

    /// As [`Self::put_member`], for several members; `decide` gets the index in `members` and the
    /// present score. Returns the number of members that were added, and of those that changed.
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
            Some(entry) if entry.head.is_large() => {
                self.put_all_into_large(db, key, &entry, members, &mut decide)
            }
            entry => {
                self.put_all_into_compact(db, key, entry.as_ref(), members, limits, &mut decide)
            }
        }
    }

    /// Puts members into a compact sorted set or a new one, all of which is written anew.
    fn put_all_into_compact(
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
        let (mut added, mut changed, mut is_compact) = (0, 0, true);
        for (i, member) in members.iter().enumerate() {
            let before = scores.get(member).copied();
            let Some(score) = decide(i, before).filter(|score| Some(*score) != before) else {
                continue;
            };
            let count = scores.len() as u64 + u64::from(before.is_none());
            is_compact &= limits.allow_count(count) && limits.allow_len(member.len());
            // A negative zero becomes 0 in a compact sorted set, also if the members behind make it
            // large.
            scores.insert(member, if is_compact { score + 0.0 } else { score });
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
            self.touched_times(db, key, added + changed);
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
        let mut reserve = STRUCTURE_BYTES;
        for member in members {
            reserve += BYTES_FOR_ONE + member.len() as u64;
        }
        // Trial allocations, so that a lack of memory almost always shows before anything has
        // changed.
        let mut mem = self.held.mem(entry.shard);
        let mut pieces = Vec::new();
        let has_memory = (0..reserve.div_ceil(PIECE))
            .try_for_each(|_| mem.allocate(PIECE).map(|piece| pieces.push(piece)));
        for piece in pieces {
            mem.release(piece, PIECE);
        }
        has_memory?;
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
                    self.undo_puts(entry, &done);
                    return Err(full);
                }
            }
            done.push((*member, before));
        }
        if added + changed > 0 {
            self.touched_times(db, key, added + changed);
        }
        Ok((added, changed))
    }

    /// Undoes puts, the last one first.
    #[cold]
    fn undo_puts(&mut self, entry: &Entry, done: &[(&[u8], Option<f64>)]) {
        let mut mem = self.held.mem(entry.shard);
        let header = entry.head.large_header(&mem, entry.at);
        for (member, before) in done.iter().rev() {
            match before {
                None => {
                    remove_from_large(&mut mem, header, member);
                }
                // The leaf of the old score has a free slot, since all later puts are undone. Only
                // if the leaf was freed meanwhile, and another shard took its memory, does this
                // fail, and the member keeps its new score.
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
        let header = entry.head.large_header(&mem, entry.at);
        let member_hash = hash(mem.arena(), member);
        let found = members_of(header).find(&mem, member_hash, &BySortedMember(member));
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
        scores_of(header).rekey(&mut mem, from, &BySortedMember(member), to)?;
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
        let count = entry.head.count + u64::from(old.is_none());
        let is_small = limits.allow_count(count)
            && limits.allow_len(member.len())
            && (run.len() + member.len()) as u64 <= MAX_BYTES;
        let put = if old.is_some() { MemberChange::Changed } else { MemberChange::Added };
        if !is_small && old.is_none() {
            let large = self.enlarge(db, key, entry)?;
            self.put_into_large(&large, member, |_| Some(score))?;
            return Ok((large, put));
        }
        let to = position_of(run, member, score);
        let mut pair = Vec::with_capacity(member.len() + 24);
        push_pair(&mut pair, member, score);
        // The pairs between the old position and the new one move by the length of the pair.
        let (part, between) = match old {
            None => (to..to, Vec::new()),
            Some((old, _)) if to <= old.start => {
                let between = run[to..old.start].to_vec();
                (to..old.end, between)
            }
            Some((old, _)) => {
                let between = run[old.end..to].to_vec();
                let entry =
                    self.splice(db, key.hash, entry, old.start..to, &[&between, &pair], count)?;
                return Ok((entry, put));
            }
        };
        let entry = self.splice(db, key.hash, entry, part, &[&pair, &between], count)?;
        Ok((entry, put))
    }

    /// Replaces a compact sorted set by a large one.
    fn enlarge(&mut self, db: DbIndex, key: &Key<'_>, entry: &Entry) -> Result<Entry, OutOfMemory> {
        let owned = owned(self.run(entry));
        let all = owned.iter().map(|(member, score)| (member.as_slice(), *score));
        let mut mem = self.held.mem(key.shard);
        let header = super::build(&mut mem, all)?;
        self.put_large(db, key, Some(entry), description(0), header, Expiry::Keep)
    }

    /// Sets a key to a sorted set of different members in order.
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
        self.put_large(db, key, old, description(0), header, expiry)
    }

    /// Sets a key to a sorted set of different members, whatever its value was; removes the key if
    /// there are no members. Tells whether anything has changed. Counts as `changes` changes, or as
    /// one if the key is removed.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn store_sorted_set(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        pairs: &mut [(&[u8], f64)],
        limits: &CompactLimits,
        changes: u64,
    ) -> Result<bool, OutOfMemory> {
        if pairs.is_empty() {
            return Ok(self.remove(db, key));
        }
        sort(pairs);
        let old = self.peek(db, key);
        self.put_pairs(db, key, old.as_ref(), pairs, limits, Expiry::None)?;
        self.touched_times(db, key, changes);
        Ok(true)
    }

    /// Removes a member, and the key with the last one. Tells whether the set had the member, and
    /// returns the entry unless the key was removed.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn remove_member(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Entry,
        member: &[u8],
    ) -> Result<(bool, Option<Entry>), OutOfMemory> {
        if !entry.head.is_large() {
            let run = self.run(&entry);
            let Some(at) = packed::find(run, &Encoded::of(member), 0, 2) else {
                return Ok((false, Some(entry)));
            };
            let next = pair_at(run, at).2;
            return Ok((true, self.cut_pairs(db, key, &entry, at..next, 1)?));
        }
        let mut mem = self.held.mem(entry.shard);
        let header = entry.head.large_header(&mem, entry.at);
        if !remove_from_large(&mut mem, header, member) {
            return Ok((false, Some(entry)));
        }
        Ok((true, self.unless_empty(db, key, entry, header, 1)))
    }

    /// Removes up to `count` members from a rank on, and the key with the last one. Returns the
    /// entry unless the key was removed.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
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
            self.delete(db, key, &entry, count);
            return Ok(None);
        }
        if !entry.head.is_large() {
            let run = self.run(&entry);
            let skip =
                |from: usize, pairs: u64| (0..pairs * 2).fold(from, |at, _| packed::next(run, at));
            let start = skip(0, rank);
            let end = skip(start, count);
            return self.cut_pairs(db, key, &entry, start..end, count);
        }
        let mut mem = self.held.mem(entry.shard);
        let header = entry.head.large_header(&mem, entry.at);
        for _ in 0..count {
            remove_nth(&mut mem, header, rank);
        }
        Ok(self.unless_empty(db, key, entry, header, count))
    }

    /// Removes `count` pairs of a compact sorted set, and the key with the last one. Counts as a
    /// change for each.
    fn cut_pairs(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        part: std::ops::Range<usize>,
        count: u64,
    ) -> Result<Option<Entry>, OutOfMemory> {
        if count == entry.head.count {
            self.delete(db, key, entry, count);
            return Ok(None);
        }
        let left = entry.head.count - count;
        let entry = self.splice(db, key.hash, entry, part, &[], left)?;
        self.touched_times(db, key, count);
        Ok(Some(entry))
    }

    /// Removes the key of a large sorted set if no members are left; otherwise returns the entry.
    /// Counts the `removed` members as changes.
    fn unless_empty(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: Entry,
        header: u64,
        removed: u64,
    ) -> Option<Entry> {
        if scores_of(header).is_empty(&self.held.mem(entry.shard)) {
            self.delete(db, key, &entry, removed);
            return None;
        }
        self.touched_times(db, key, removed);
        Some(entry)
    }
}

/// Removes a member from a large sorted set; tells whether the set had it.
fn remove_from_large(mem: &mut Mem<'_>, header: u64, member: &[u8]) -> bool {
    let (member_hash, by_member) = (hash(mem.arena(), member), BySortedMember(member));
    let Some(found) = members_of(header).find(mem, member_hash, &by_member) else { return false };
    let score = element::order(element::score(mem, found.item));
    scores_of(header).remove(mem, score, &by_member);
    members_of(header).remove(mem, member_hash, found);
    element::release(mem, found.item);
    true
}

/// Sorts pairs into the order of a sorted set.
fn sort(pairs: &mut [(&[u8], f64)]) {
    let order = |pair: &(&[u8], f64)| element::order(pair.1);
    pairs.sort_unstable_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.0.cmp(b.0)));
}

/// Copies of the pairs of a run.
fn owned(run: &[u8]) -> Vec<(Vec<u8>, f64)> {
    let bytes = |member: Element<'_>| member.bytes(&mut itoa::Buffer::new()).to_vec();
    pairs(run).map(|(member, score)| (bytes(member), score)).collect()
}

/// Removes the member of a rank from a large sorted set.
fn remove_nth(mem: &mut Mem<'_>, header: u64, rank: u64) {
    let entry = scores_of(header).remove_nth(mem, rank);
    let entry = entry.expect("invariant: the rank is below the number of members");
    let member_hash = hash(mem.arena(), element::member(mem, entry.item));
    let found = members_of(header).find(mem, member_hash, &ByOffset(entry.item));
    let found = found.expect("invariant: dictionary and tree refer to the same elements");
    members_of(header).remove(mem, member_hash, found);
    element::release(mem, entry.item);
}

/// The offset in a run at which a pair belongs.
fn position_of(run: &[u8], member: &[u8], score: f64) -> usize {
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

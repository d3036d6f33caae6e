//! A compact hash that is put together before it is stored: what the changes do that touch more
//! than one value.

use crate::keyspace::compact::{CompactLimits, MAX_BYTES};
use crate::keyspace::entry::hash;
use cowherd_arena::containers::packed::{Encoded, next};
use cowherd_arena::{Mem, OutOfMemory};

use super::compact::{EARLIEST, Pairs};
use super::large::Large;

/// Fields, values and expiries, outside the arena.
#[derive(Default)]
pub(super) struct Draft {
    /// As in the arena; of a volatile hash, `earliest` may be out of date.
    run: Vec<u8>,
    pub count: u64,
    pub is_volatile: bool,
    /// Whether an element was longer than the limits allow.
    is_too_long: bool,
}

impl Draft {
    /// What a compact hash has.
    pub fn of(bytes: &[u8], count: u64, is_volatile: bool) -> Self {
        Self { run: bytes.to_vec(), count, is_volatile, is_too_long: false }
    }

    pub fn pairs(&self) -> Pairs<'_> {
        Pairs::new(&self.run, self.is_volatile)
    }

    /// Lets fields have expiries.
    pub fn make_volatile(&mut self) {
        if self.is_volatile {
            return;
        }
        let mut run = i64::MAX.to_le_bytes().to_vec();
        let none = Encoded::int(0);
        let mut at = 0;
        while at < self.run.len() {
            let end = next(&self.run, next(&self.run, at));
            run.extend_from_slice(&self.run[at..end]);
            none.push_to(&mut run);
            at = end;
        }
        self.run = run;
        self.is_volatile = true;
    }

    /// Sets a field, which then expires or does not.
    pub fn set(&mut self, field: &[u8], value: &[u8], expiry: Option<i64>, limits: &CompactLimits) {
        self.is_too_long |= !limits.allow_len(field.len()) || !limits.allow_len(value.len());
        if expiry.is_some() {
            self.make_volatile();
        }
        let (name, value) = (Encoded::of(field), Encoded::of(value));
        match self.pairs().find(&name) {
            Some(place) => {
                let mut tail = Vec::with_capacity(value.len() + 10);
                value.push_to(&mut tail);
                self.push_expiry(&mut tail, expiry);
                self.run.splice(place.value.start..place.all.end, tail);
            }
            None => {
                name.push_to(&mut self.run);
                value.push_to(&mut self.run);
                let mut run = std::mem::take(&mut self.run);
                self.push_expiry(&mut run, expiry);
                self.run = run;
                self.count += 1;
            }
        }
    }

    fn push_expiry(&self, run: &mut Vec<u8>, expiry: Option<i64>) {
        if self.is_volatile {
            Encoded::int(expiry.unwrap_or(0)).push_to(run);
        }
    }

    /// Changes the expiry of a field that is there, of a volatile hash.
    pub fn set_expiry(&mut self, field: &[u8], expiry: Option<i64>) {
        debug_assert!(self.is_volatile);
        if let Some(place) = self.pairs().find(&Encoded::of(field)) {
            let mut tail = Vec::with_capacity(10);
            self.push_expiry(&mut tail, expiry);
            self.run.splice(place.value.end..place.all.end, tail);
        }
    }

    /// The expiry of a field, if that is there.
    pub fn expiry(&self, field: &[u8]) -> Option<Option<i64>> {
        self.pairs().find(&Encoded::of(field)).map(|place| place.expiry)
    }

    /// Removes a field; tells whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        let Some(place) = self.pairs().find(&Encoded::of(field)) else { return false };
        self.run.drain(place.all);
        self.count -= 1;
        true
    }

    /// Keeps the fields whose expiry is none or after `now`.
    pub fn remove_expired(&mut self, now: i64) {
        let mut kept = Self { is_volatile: true, ..Self::default() };
        kept.run.extend_from_slice(&i64::MAX.to_le_bytes());
        let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
        for (field, value, expiry) in self.pairs().iter() {
            if super::is_alive(expiry, now) {
                for text in [field.bytes(&mut a), value.bytes(&mut b)] {
                    Encoded::of(text).push_to(&mut kept.run);
                }
                Encoded::int(expiry.unwrap_or(0)).push_to(&mut kept.run);
                kept.count += 1;
            }
        }
        *self = kept;
    }

    /// The bytes, if they may be those of a compact hash.
    pub fn compact(&mut self, limits: &CompactLimits) -> Option<&[u8]> {
        let may = !self.is_too_long
            && limits.allow_count(self.count)
            && self.run.len() as u64 <= MAX_BYTES;
        if may && self.is_volatile {
            let earliest = self.pairs().iter().filter_map(|(_, _, expiry)| expiry).min();
            self.run[..EARLIEST].copy_from_slice(&earliest.unwrap_or(i64::MAX).to_le_bytes());
        }
        may.then_some(&self.run)
    }

    /// The same as a large hash.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn large(&self, mem: &mut Mem<'_>) -> Result<Large, OutOfMemory> {
        let large = Large::create(mem)?;
        let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
        for (field, value, expiry) in self.pairs().iter() {
            let (field, value) = (field.bytes(&mut a), value.bytes(&mut b));
            let hash = hash(mem.arena(), field);
            if let Err(full) = large.put(mem, field, value, expiry, hash, None) {
                large.free(mem);
                return Err(full);
            }
        }
        Ok(large)
    }
}

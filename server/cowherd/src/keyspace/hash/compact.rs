//! Compact hashes: reading them, and building the bytes of one outside the arena.

use std::ops::Range;

use crate::keyspace::Value;
use crate::keyspace::collection::build_large;
use crate::keyspace::compact::{CompactLimits, MAX_BYTES};
use crate::keyspace::entry::{EntryHeader, VOLATILE, hash};
use cowherd_arena::containers::packed::{self, Element, Encoded};
use cowherd_arena::{Mem, OutOfMemory};

use super::large::LargeHash;
use super::{FieldValue, Hash, is_alive};

/// Bytes of the earliest expiry, before the first field of a volatile hash.
const EARLIEST: usize = 8;

/// The bytes of a compact hash, as fields with values and expiries.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'m> {
    run: &'m [u8],
    is_volatile: bool,
}

/// The bytes of one field in those of a compact hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FieldSpan {
    /// Field, value and expiry.
    pub all: Range<usize>,
    /// The value.
    pub value: Range<usize>,
    /// The field's expiry.
    pub expiry: Option<i64>,
}

impl<'m> Pairs<'m> {
    /// The fields of an entry with this header.
    #[inline]
    pub fn of(head: &EntryHeader, bytes: &'m [u8]) -> Self {
        Self::new(bytes, head.encoding == VOLATILE)
    }

    #[inline]
    pub const fn new(run: &'m [u8], is_volatile: bool) -> Self {
        Self { run, is_volatile }
    }

    /// Offset of the first field.
    #[inline]
    const fn start(&self) -> usize {
        if self.is_volatile { EARLIEST } else { 0 }
    }

    /// Packed elements for each field.
    #[inline]
    const fn step(&self) -> usize {
        if self.is_volatile { 3 } else { 2 }
    }

    /// No field expires earlier than this.
    pub fn earliest(&self) -> i64 {
        match (self.is_volatile, self.run.first_chunk()) {
            (true, Some(earliest)) => i64::from_le_bytes(*earliest),
            _ => i64::MAX,
        }
    }

    #[inline]
    pub fn find(&self, field: &Encoded<'_>) -> Option<FieldSpan> {
        let at = packed::find(self.run, field, self.start(), self.step())?;
        let value = packed::next(self.run, at);
        let behind = packed::next(self.run, value);
        let (expiry, end) = self.expiry_at(behind);
        Some(FieldSpan { all: at..end, value: value..behind, expiry })
    }

    /// Reads the expiry at `at`, if the hash has expiries; returns where the next field begins too.
    #[inline]
    fn expiry_at(&self, at: usize) -> (Option<i64>, usize) {
        if !self.is_volatile {
            return (None, at);
        }
        match packed::get(self.run, at) {
            (Element::Int(expiry), end) if expiry != 0 => (Some(expiry), end),
            (_, end) => (None, end),
        }
    }

    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<FieldValue<'m>> {
        let place = self.find(&Encoded::of(field))?;
        Some((Value::from(packed::get(self.run, place.value.start).0), place.expiry))
    }

    pub fn iter(self) -> impl Iterator<Item = (Element<'m>, Element<'m>, Option<i64>)> {
        let mut at = self.start();
        std::iter::from_fn(move || {
            if at >= self.run.len() {
                return None;
            }
            let (field, value_at) = packed::get(self.run, at);
            let (value, behind) = packed::get(self.run, value_at);
            let (expiry, end) = self.expiry_at(behind);
            at = end;
            Some((field, value, expiry))
        })
    }
}

/// Checks the bytes of a compact hash; the error says what is wrong.
pub(super) fn verify(head: &EntryHeader, bytes: &[u8]) -> Result<(), String> {
    if head.encoding > VOLATILE {
        return Err(format!("encoding {}", head.encoding));
    }
    let pairs = Pairs::of(head, bytes);
    let run = bytes.get(pairs.start()..).ok_or("it is too short")?;
    let elements = packed::check(run).ok_or("damaged elements")? as u64;
    if elements != head.count * pairs.step() as u64 {
        return Err(format!("{elements} elements for {} fields", head.count));
    }
    if pairs.is_volatile {
        let bad = packed::iter(run).skip(2).step_by(3).find(|expiry| match expiry {
            Element::Int(at) => *at < 0 || *at != 0 && *at < pairs.earliest(),
            Element::Bytes(_) => true,
        });
        if let Some(bad) = bad {
            return Err(format!("expiry {bad:?}, the earliest being {}", pairs.earliest()));
        }
    }
    let mut fields: Vec<Vec<u8>> =
        pairs.iter().map(|pair| pair.0.bytes(&mut itoa::Buffer::new()).to_vec()).collect();
    fields.sort_unstable();
    if let Some(twice) = fields.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("field {:?} is there twice", String::from_utf8_lossy(&twice[0])));
    }
    Ok(())
}

/// Builds the bytes of a compact hash outside the arena: for changes of more than one value.
#[derive(Default)]
pub(super) struct HashBuilder {
    /// The bytes as in the arena. `earliest` of a volatile hash is out of date until
    /// [`Self::compact`].
    run: Vec<u8>,
    pub count: u64,
    pub is_volatile: bool,
    /// Whether an element is longer than the limits allow.
    is_too_long: bool,
}

impl HashBuilder {
    /// Starts with the fields of a compact hash.
    pub fn of(bytes: &[u8], count: u64, is_volatile: bool) -> Self {
        Self { run: bytes.to_vec(), count, is_volatile, is_too_long: false }
    }

    pub fn pairs(&self) -> Pairs<'_> {
        Pairs::new(&self.run, self.is_volatile)
    }

    /// Changes the encoding to the one with expiries.
    pub fn make_volatile(&mut self) {
        if self.is_volatile {
            return;
        }
        let mut run = i64::MAX.to_le_bytes().to_vec();
        let none = Encoded::int(0);
        let mut at = 0;
        while at < self.run.len() {
            let end = packed::next(&self.run, packed::next(&self.run, at));
            run.extend_from_slice(&self.run[at..end]);
            none.push_to(&mut run);
            at = end;
        }
        self.run = run;
        self.is_volatile = true;
    }

    /// Sets a field's value and expiry.
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

    /// Changes the expiry of an existing field; the encoding has expiries.
    pub fn set_expiry(&mut self, field: &[u8], expiry: Option<i64>) {
        debug_assert!(self.is_volatile);
        if let Some(place) = self.pairs().find(&Encoded::of(field)) {
            let mut tail = Vec::with_capacity(10);
            self.push_expiry(&mut tail, expiry);
            self.run.splice(place.value.end..place.all.end, tail);
        }
    }

    /// The expiry of a field; `None` if there is no such field.
    pub fn expiry(&self, field: &[u8]) -> Option<Option<i64>> {
        self.pairs().find(&Encoded::of(field)).map(|place| place.expiry)
    }

    /// Removes a field; tells whether it existed.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        let Some(place) = self.pairs().find(&Encoded::of(field)) else { return false };
        self.run.drain(place.all);
        self.count -= 1;
        true
    }

    /// Removes the fields that have expired at `now`.
    pub fn remove_expired(&mut self, now: i64) {
        let mut kept = Self { is_volatile: true, ..Self::default() };
        kept.run.extend_from_slice(&i64::MAX.to_le_bytes());
        let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
        for (field, value, expiry) in self.pairs().iter() {
            if is_alive(expiry, now) {
                for text in [field.bytes(&mut a), value.bytes(&mut b)] {
                    Encoded::of(text).push_to(&mut kept.run);
                }
                Encoded::int(expiry.unwrap_or(0)).push_to(&mut kept.run);
                kept.count += 1;
            }
        }
        *self = kept;
    }

    /// The finished bytes; `None` if the limits do not allow a compact hash.
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

    /// Builds a large hash of the same fields; returns its header.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn large(&self, mem: &mut Mem<'_>) -> Result<u64, OutOfMemory> {
        build_large::<Hash>(mem, |mem, header| {
            let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
            for (field, value, expiry) in self.pairs().iter() {
                let (field, value) = (field.bytes(&mut a), value.bytes(&mut b));
                let hash = hash(mem.arena(), field);
                LargeHash::at(header).put(mem, field, value, expiry, hash, None)?;
            }
            Ok(())
        })
    }
}

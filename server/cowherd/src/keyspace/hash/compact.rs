//! Reading compact hashes.

use std::ops::Range;

use crate::keyspace::Value;
use crate::keyspace::entry::{self, VOLATILE};
use cowherd_arena::containers::packed::{self, Element, Encoded};

use super::FieldValue;

/// Bytes before the first field of a volatile hash.
pub(super) const EARLIEST: usize = 8;

/// The fields of a compact hash.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'m> {
    run: &'m [u8],
    is_volatile: bool,
}

/// Where a field is in the bytes of a compact hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Field, value and expiry.
    pub all: Range<usize>,
    /// The value.
    pub value: Range<usize>,
    /// The field's expiry.
    pub expiry: Option<i64>,
}

impl<'m> Pairs<'m> {
    /// The bytes of an entry of this shape.
    #[inline]
    pub fn of(shape: &entry::Shape, bytes: &'m [u8]) -> Self {
        Self::new(bytes, shape.form == VOLATILE)
    }

    /// The bytes of a compact hash.
    #[inline]
    pub const fn new(run: &'m [u8], is_volatile: bool) -> Self {
        Self { run, is_volatile }
    }

    /// Offset of the first field.
    #[inline]
    const fn start(&self) -> usize {
        if self.is_volatile { EARLIEST } else { 0 }
    }

    /// Elements a field.
    #[inline]
    const fn step(&self) -> usize {
        if self.is_volatile { 3 } else { 2 }
    }

    /// No field expires before this.
    pub fn earliest(&self) -> i64 {
        match (self.is_volatile, self.run.first_chunk()) {
            (true, Some(earliest)) => i64::from_le_bytes(*earliest),
            _ => i64::MAX,
        }
    }

    /// Where a field is.
    #[inline]
    pub fn find(&self, field: &Encoded<'_>) -> Option<Place> {
        let at = packed::find(self.run, field, self.start(), self.step())?;
        let value = packed::next(self.run, at);
        let behind = packed::next(self.run, value);
        let (expiry, end) = self.expiry_at(behind);
        Some(Place { all: at..end, value: value..behind, expiry })
    }

    /// The expiry that stands at `at`, if expiries do, and where the next field begins.
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

    /// The value and expiry of a field.
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<FieldValue<'m>> {
        let place = self.find(&Encoded::of(field))?;
        Some((Value::from(packed::get(self.run, place.value.start).0), place.expiry))
    }

    /// All fields with their values and expiries.
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

/// Checks the bytes of a compact hash; says what is wrong.
pub(super) fn check(shape: &entry::Shape, bytes: &[u8]) -> Result<(), String> {
    if shape.form > VOLATILE {
        return Err(format!("form {}", shape.form));
    }
    let pairs = Pairs::of(shape, bytes);
    let run = bytes.get(pairs.start()..).ok_or("it is too short")?;
    let elements = packed::check(run).ok_or("damaged elements")? as u64;
    if elements != shape.count * pairs.step() as u64 {
        return Err(format!("{elements} elements for {} fields", shape.count));
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

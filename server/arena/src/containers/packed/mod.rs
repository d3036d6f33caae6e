//! A sequence of elements in one run of bytes: for values of few and small elements.
//!
//! ```text
//! +---------+---------+-----+---------+
//! | element | element | ... | element |            nothing before, between or behind them
//! +---------+---------+-----+---------+
//!
//! element:  | head 1, 3 or 5 | data | back 1 or 5 |
//! ```
//!
//! | first byte of the head | what it is | data |
//! |---|---|---|
//! | 0 to 191 | a string of so many bytes | its bytes |
//! | 192 to 199 | a whole number of 1 to 8 bytes | the number, signed, little-endian |
//! | 200 | a string; 2 bytes follow that say its length | its bytes |
//! | 201 | a string; 4 bytes follow that say its length | its bytes |
//! | 208 to 255 | a number from 0 to 47 | none |
//!
//! `back` is the number of bytes of head and data, for walking backwards: one byte up to 254; above
//! that four bytes with the number and one byte 255 behind them.
//!
//! Invariants:
//! 1. A string that is the one way to write a 64-bit integer is kept as that number; each head and
//!    number is of the smallest kind that holds it. So equal elements are equal bytes.
//! 2. An element begins where the one before it ends.
//!
//! The functions here work on plain bytes. They trust invariant 2, and panic rather than read
//! outside of the bytes if it does not hold; what comes from elsewhere must pass [`check`] first.

mod encode;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

pub use encode::{Encoded, as_number};

/// The longest string that is kept in an element.
pub const MAX_STRING: usize = u32::MAX as usize >> 1;

/// Up to this length the head is the length itself.
const SHORT: u8 = 191;
/// Less one: the head of a number of so many bytes.
const NUMBER: u8 = 192;
const STRING16: u8 = 200;
const STRING32: u8 = 201;
/// The head of the number 0; those up to [`MOST_TINY`] follow.
const TINY: u8 = 208;
const MOST_TINY: u8 = 47;
/// Ends a `back` of five bytes.
const LONG_BACK: u8 = 255;

/// An element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Element<'b> {
    /// A whole number.
    Int(i64),
    /// Bytes that are not the one way to write a whole number.
    Bytes(&'b [u8]),
}

impl<'b> Element<'b> {
    /// The element's bytes; a number is written into `buffer`.
    #[inline]
    pub fn bytes<'s>(self, buffer: &'s mut itoa::Buffer) -> &'s [u8]
    where
        'b: 's,
    {
        match self {
            Self::Int(number) => buffer.format(number).as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// Number of the element's bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Int(number) => itoa::Buffer::new().format(number).len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// The order of two elements as bytes.
    pub fn compare_bytes(self, other: Element<'_>) -> Ordering {
        let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
        self.bytes(&mut a).cmp(other.bytes(&mut b))
    }
}

/// What a head says: what is in the data, where in the element it is, and how long it is.
struct Head {
    is_number: bool,
    at: usize,
    len: usize,
}

/// Reads the head of the element at `at`; `None` if there is none.
#[inline]
fn head(run: &[u8], at: usize) -> Option<Head> {
    let first = *run.get(at)?;
    Some(match first {
        0..=SHORT => Head { is_number: false, at: 1, len: usize::from(first) },
        NUMBER..STRING16 => Head { is_number: true, at: 1, len: usize::from(first - NUMBER) + 1 },
        STRING16 => {
            let len = run.get(at + 1..at + 3)?.try_into().ok()?;
            Head { is_number: false, at: 3, len: usize::from(u16::from_le_bytes(len)) }
        }
        STRING32 => {
            let len: [u8; 4] = run.get(at + 1..at + 5)?.try_into().ok()?;
            Head { is_number: false, at: 5, len: usize::try_from(u32::from_le_bytes(len)).ok()? }
        }
        TINY.. => Head { is_number: true, at: 1, len: 0 },
        _ => return None,
    })
}

/// Bytes of a `back` that says `len`.
#[inline]
const fn back_len(len: usize) -> usize {
    if len < LONG_BACK as usize { 1 } else { 5 }
}

/// Bytes of the element at the beginning of `bytes`, of which the first five are looked at. `None`
/// if there is none. It need not be whole.
#[inline]
pub fn size(bytes: &[u8]) -> Option<usize> {
    let head = head(bytes, 0)?;
    let len = head.at.checked_add(head.len)?;
    len.checked_add(back_len(len))
}

#[cold]
fn no_element(at: usize) -> ! {
    panic!("packed: there is no element at {at}")
}

/// Where the element behind the one at `at` begins, or the run ends.
///
/// # Panics
/// There is no element at `at`.
#[inline]
pub fn next(run: &[u8], at: usize) -> usize {
    let Some(head) = head(run, at) else { no_element(at) };
    let len = head.at + head.len;
    at + len + back_len(len)
}

/// Where the element before the one at `at` begins; `None` if that is the first. `at` may be the
/// end of the run.
///
/// # Panics
/// No element ends at `at`.
#[inline]
pub fn previous(run: &[u8], at: usize) -> Option<usize> {
    let last = *run.get(at.checked_sub(1)?)?;
    let len = match last {
        LONG_BACK => {
            let back = at.checked_sub(5).and_then(|from| run.get(from..at - 1)?.try_into().ok());
            u32::from_le_bytes(back.unwrap_or_else(|| no_element(at))) as usize + 5
        }
        short => usize::from(short) + 1,
    };
    Some(at.checked_sub(len).unwrap_or_else(|| no_element(at)))
}

/// The element at `at`, and where the next one begins.
///
/// # Panics
/// There is no element at `at`.
#[inline]
pub fn get(run: &[u8], at: usize) -> (Element<'_>, usize) {
    let Some(head) = head(run, at) else { no_element(at) };
    let (from, len) = (at + head.at, head.at + head.len);
    let Some(data) = run.get(from..from + head.len) else { no_element(at) };
    let element = match (head.is_number, data) {
        (false, data) => Element::Bytes(data),
        (true, []) => Element::Int(i64::from(run[at] - TINY)),
        (true, data) => Element::Int(number(data)),
    };
    (element, at + len + back_len(len))
}

/// Overwrites the data of the element at `at` with data that says nothing: a string with zeros, a
/// number with the lowest one of as many bytes. Head and length stay, and so does invariant 1.
/// Returns where the next element begins.
///
/// # Panics
/// There is no element at `at`.
pub fn erase(run: &mut [u8], at: usize) -> usize {
    let Some(head) = head(run, at) else { no_element(at) };
    let end = at + head.at + head.len;
    let Some(data) = run.get_mut(at + head.at..end) else { no_element(at) };
    data.fill(0);
    match (head.is_number, data) {
        (false, _) => {}
        (true, []) => run[at] = TINY,
        (true, [one]) => *one = MOST_TINY + 1,
        // The highest bit of the byte below, which would be the sign there.
        (true, [.., below, _]) => *below = 0x80,
    }
    end + back_len(end - at)
}

/// The signed number in 1 to 8 bytes.
#[inline]
fn number(data: &[u8]) -> i64 {
    let mut bytes = [0; 8];
    bytes[8 - data.len()..].copy_from_slice(data);
    i64::from_le_bytes(bytes) >> (64 - 8 * data.len())
}

/// Where the element number `n` begins, from the front; `None` if there are not so many.
pub fn nth(run: &[u8], n: usize) -> Option<usize> {
    let mut at = 0;
    for _ in 0..n {
        if at == run.len() {
            return None;
        }
        at = next(run, at);
    }
    (at < run.len()).then_some(at)
}

/// Where the element number `n` from the back begins, 0 being the last; `None` if there are not so
/// many.
pub fn nth_back(run: &[u8], n: usize) -> Option<usize> {
    let mut at = previous(run, run.len())?;
    for _ in 0..n {
        at = previous(run, at)?;
    }
    Some(at)
}

/// Where the first element that equals `wanted` begins, looking at every `step`th from the one at
/// `from` on; `from` may be the end. After each that is looked at come `step - 1` more at least.
#[inline]
pub fn find(run: &[u8], wanted: &Encoded<'_>, from: usize, step: usize) -> Option<usize> {
    let (head, data) = (wanted.head(), wanted.data());
    let mut at = from;
    while at < run.len() {
        let rest = &run[at..];
        if rest.starts_with(head) && rest[head.len()..].starts_with(data) {
            return Some(at);
        }
        for _ in 0..step {
            at = next(run, at);
        }
    }
    None
}

/// The elements of a run, from either end.
#[derive(Clone, Debug)]
pub struct Iter<'b> {
    run: &'b [u8],
    front: usize,
    back: usize,
}

/// The elements of a run.
pub const fn iter(run: &[u8]) -> Iter<'_> {
    Iter { run, front: 0, back: run.len() }
}

impl<'b> Iter<'b> {
    /// Where the element that [`Iterator::next`] returns begins, or the run ends.
    pub const fn at(&self) -> usize {
        self.front
    }
}

impl<'b> Iterator for Iter<'b> {
    type Item = Element<'b>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        let (element, next) = get(self.run, self.front);
        self.front = next;
        Some(element)
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        self.back = previous(self.run, self.back)?;
        Some(get(self.run, self.back).0)
    }
}

/// Number of elements, each of them checked: whether it is whole, ends where it says and is kept in
/// the one way that it may be. `None` if the run is damaged.
pub fn check(run: &[u8]) -> Option<usize> {
    let (mut at, mut count) = (0, 0);
    while at < run.len() {
        let head = head(run, at)?;
        let from = at + head.at;
        let data = run.get(from..from.checked_add(head.len)?)?;
        let mut digits = itoa::Buffer::new();
        let text = match (head.is_number, data) {
            (false, data) => data,
            (true, []) => digits.format(run[at] - TINY).as_bytes(),
            (true, data) => digits.format(number(data)).as_bytes(),
        };
        let encoded = Encoded::of(text);
        let rest = &run[at..];
        let back = rest.get(encoded.head().len() + encoded.data().len()..)?;
        let is_it = rest.starts_with(encoded.head())
            && rest[encoded.head().len()..].starts_with(encoded.data())
            && back.starts_with(encoded.back());
        if !is_it {
            return None;
        }
        at += encoded.len();
        count += 1;
    }
    Some(count)
}

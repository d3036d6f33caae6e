//! Compact sets: integers of one width in ascending order or a packed run, and building the bytes
//! of one outside the arena.

use crate::keyspace::Value;
use crate::keyspace::compact::{MAX_BYTES, ValueDescription};
use crate::keyspace::entry::{EntryHeader, MAX_COUNT, ValueType};
use cowherd_arena::containers::packed::{self, Encoded, as_number};

use super::{RUN, SetLimits};

/// The encoding of the narrowest integers that hold a number: 1, 2 and 3 have 2, 4 and 8 bytes.
#[inline]
pub(super) fn encoding_for(number: i64) -> u8 {
    match (i16::try_from(number), i32::try_from(number)) {
        (Ok(_), _) => 1,
        (_, Ok(_)) => 2,
        _ => 3,
    }
}

/// Bytes of each integer in an encoding.
#[inline]
pub(super) const fn width(encoding: u8) -> usize {
    1 << encoding
}

/// The bytes of a compact set of integers: found by binary search, without overhead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ints<'b> {
    bytes: &'b [u8],
    width: usize,
}

impl<'b> Ints<'b> {
    /// The integers of an entry with this header.
    #[inline]
    pub fn of(head: &EntryHeader, bytes: &'b [u8]) -> Self {
        Self::new(head.encoding, bytes)
    }

    #[inline]
    pub const fn new(encoding: u8, bytes: &'b [u8]) -> Self {
        Self { bytes, width: width(encoding) }
    }

    pub const fn len(&self) -> usize {
        self.bytes.len() / self.width
    }

    /// The integer at index `i`.
    ///
    /// # Panics
    /// The index is not below [`Self::len`].
    #[inline]
    pub fn get(&self, i: usize) -> i64 {
        let from = i * self.width;
        let mut wide = [0; 8];
        wide[8 - self.width..].copy_from_slice(&self.bytes[from..from + self.width]);
        i64::from_le_bytes(wide) >> (64 - 8 * self.width)
    }

    /// The index of a number; the error is the index at which to insert it.
    #[inline]
    pub fn find(&self, number: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.get(middle).cmp(&number) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    pub fn iter(self) -> impl Iterator<Item = i64> + 'b {
        (0..self.len()).map(move |i| self.get(i))
    }

    /// Checks the bytes of a set of `count` integers; the error says what is wrong.
    pub fn verify(&self, count: u64) -> Result<(), String> {
        if self.bytes.len() as u64 != count * self.width as u64 {
            return Err(format!("{count} numbers in {} bytes", self.bytes.len()));
        }
        match (1..self.len()).find(|i| self.get(i - 1) >= self.get(*i)) {
            Some(i) => Err(format!("number {i} is not above the one before it")),
            None => Ok(()),
        }
    }
}

/// Appends integers in an encoding that holds them all.
fn write_ints(bytes: &mut Vec<u8>, encoding: u8, numbers: impl Iterator<Item = i64>) {
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes()[..width(encoding)]);
    }
}

/// Builds the bytes of a compact set outside the arena.
#[derive(Clone, Debug)]
pub(super) struct SetBuilder {
    encoding: u8,
    count: u64,
    pub bytes: Vec<u8>,
}

/// The most members of a compact set of integers.
#[inline]
pub(super) fn most_ints(limits: &SetLimits) -> u64 {
    limits.ints.min(MAX_COUNT)
}

impl SetBuilder {
    /// Starts empty for a set with `first` among its members, and `hint` members in all. `None` if
    /// so many need a large set.
    pub fn new(first: &[u8], hint: u64, limits: &SetLimits) -> Option<Self> {
        let is_number = as_number(first).is_some();
        let encoding = match is_number && hint <= most_ints(limits) {
            true => 1,
            false if limits.run.allow_count(hint) => RUN,
            false => return None,
        };
        Some(Self { encoding, count: 0, bytes: Vec::new() })
    }

    /// Starts with the members of a compact set, to which `hint` members are to be added. `None` if
    /// so many need a large set.
    pub fn of(head: &EntryHeader, bytes: &[u8], hint: u64, limits: &SetLimits) -> Option<Self> {
        let fits = match head.encoding {
            RUN => limits.run.allow_count(hint),
            _ => hint <= most_ints(limits),
        };
        fits.then(|| Self { encoding: head.encoding, count: head.count, bytes: bytes.to_vec() })
    }

    pub const fn description(&self) -> ValueDescription {
        ValueDescription { kind: ValueType::Set, encoding: self.encoding, count: self.count }
    }

    /// Adds a member; tells whether it is new. `None` if the limits then ask for a large set.
    pub fn add(&mut self, member: &[u8], limits: &SetLimits) -> Option<bool> {
        if self.encoding != RUN {
            match as_number(member) {
                Some(number) => return self.add_number(number, limits),
                None => self.become_run(limits)?,
            }
        }
        let encoded = Encoded::of(member);
        if packed::find(&self.bytes, &encoded, 0, 1).is_some() {
            return Some(false);
        }
        let fits = limits.run.allow_count(self.count + 1)
            && limits.run.allow_len(member.len())
            && (self.bytes.len() + encoded.len()) as u64 <= MAX_BYTES;
        fits.then(|| {
            encoded.push_to(&mut self.bytes);
            self.count += 1;
            true
        })
    }

    fn add_number(&mut self, number: i64, limits: &SetLimits) -> Option<bool> {
        let Err(place) = Ints::new(self.encoding, &self.bytes).find(number) else {
            return Some(false);
        };
        if self.count >= most_ints(limits) {
            return None;
        }
        let encoding = encoding_for(number);
        if encoding > self.encoding {
            let mut wider = Vec::new();
            write_ints(&mut wider, encoding, Ints::new(self.encoding, &self.bytes).iter());
            (self.bytes, self.encoding) = (wider, encoding);
        }
        let width = width(self.encoding);
        let at = place * width;
        self.bytes.splice(at..at, number.to_le_bytes().into_iter().take(width));
        self.count += 1;
        Some(true)
    }

    /// Changes the encoding from integers to a packed run; `None` if that cannot take one more
    /// member.
    fn become_run(&mut self, limits: &SetLimits) -> Option<()> {
        let numbers = Ints::new(self.encoding, &self.bytes);
        let longest = numbers.iter().map(|number| itoa::Buffer::new().format(number).len()).max();
        let fits = limits.run.allow_count(self.count + 1)
            && longest.is_none_or(|longest| limits.run.allow_len(longest));
        if !fits {
            return None;
        }
        let mut run = Vec::new();
        numbers.iter().for_each(|number| Encoded::int(number).push_to(&mut run));
        (self.bytes, self.encoding) = (run, RUN);
        Some(())
    }
}

/// Different members outside the arena, of which a set is to be made.
#[derive(Clone, Debug)]
pub struct MemberList {
    /// The members as a packed run.
    pub(super) run: Vec<u8>,
    pub(super) count: u64,
    only_numbers: bool,
    longest: usize,
}

impl Default for MemberList {
    fn default() -> Self {
        Self { run: Vec::new(), count: 0, only_numbers: true, longest: 0 }
    }
}

impl MemberList {
    /// Adds a member, which must not be in the list yet.
    pub fn push(&mut self, member: Value<'_>) {
        match member {
            Value::Int(number) => Encoded::int(number).push_to(&mut self.run),
            Value::Bytes(bytes) => {
                let encoded = Encoded::of(bytes);
                self.only_numbers = self.only_numbers && as_number(bytes).is_some();
                encoded.push_to(&mut self.run);
            }
        }
        if self.longest < LONGEST_NUMBER {
            self.longest = self.longest.max(member.bytes(&mut itoa::Buffer::new()).len());
        } else if let Value::Bytes(bytes) = member {
            self.longest = self.longest.max(bytes.len());
        }
        self.count += 1;
    }

    /// Number of members.
    pub const fn len(&self) -> u64 {
        self.count
    }

    /// Whether the list has no members.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The members in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = Value<'_>> {
        packed::iter(&self.run).map(super::value)
    }

    /// The members as a compact set; `None` if the limits do not allow that.
    pub(super) fn compact(&self, limits: &SetLimits) -> Option<(ValueDescription, Vec<u8>)> {
        let count = self.count;
        if self.only_numbers && count <= most_ints(limits) {
            let mut numbers: Vec<i64> = self.iter().filter_map(number_of).collect();
            numbers.sort_unstable();
            let encoding = numbers.iter().map(|number| encoding_for(*number)).max().unwrap_or(1);
            let mut bytes = Vec::new();
            write_ints(&mut bytes, encoding, numbers.into_iter());
            return Some((ValueDescription { kind: ValueType::Set, encoding, count }, bytes));
        }
        let fits = limits.run.allow_count(count)
            && limits.run.allow_len(self.longest)
            && self.run.len() as u64 <= MAX_BYTES;
        fits.then(|| {
            (ValueDescription { kind: ValueType::Set, encoding: RUN, count }, self.run.clone())
        })
    }
}

/// The longest text of an integer, with its sign.
const LONGEST_NUMBER: usize = 20;

const fn number_of(member: Value<'_>) -> Option<i64> {
    match member {
        Value::Int(number) => Some(number),
        Value::Bytes(_) => None,
    }
}

//! What is to become the bytes of a compact set, outside of the arena.

use crate::keyspace::Value;
use crate::keyspace::compact::{Description, MAX_BYTES};
use crate::keyspace::entry::{MAX_COUNT, Shape, ValueKind};
use cowherd_arena::containers::packed::{self, Encoded, as_number};

use super::ints::{self, Ints, form_for, width};
use super::{RUN, SetLimits};

/// The bytes of a compact set that grows.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    form: u8,
    count: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// How many numbers a compact set may have.
#[inline]
pub(super) fn most_ints(limits: &SetLimits) -> u64 {
    limits.ints.min(MAX_COUNT)
}

impl Draft {
    /// An empty one, of which `first` will be the first member and `hint` more may follow. `None`
    /// if so many should be a large set.
    pub fn new(first: &[u8], hint: u64, limits: &SetLimits) -> Option<Self> {
        let is_number = as_number(first).is_some();
        let form = match is_number && hint <= most_ints(limits) {
            true => 1,
            false if limits.run.allow_count(hint) => RUN,
            false => return None,
        };
        Some(Self { form, count: 0, bytes: Vec::new() })
    }

    /// The bytes of a set that is there, to which `hint` members may be added. `None` if so many
    /// should be a large set.
    pub fn of(shape: &Shape, bytes: &[u8], hint: u64, limits: &SetLimits) -> Option<Self> {
        let fits = match shape.form {
            RUN => limits.run.allow_count(hint),
            _ => hint <= most_ints(limits),
        };
        fits.then(|| Self { form: shape.form, count: shape.count, bytes: bytes.to_vec() })
    }

    /// What the entry is to say of it.
    pub const fn description(&self) -> Description {
        Description { kind: ValueKind::Set, form: self.form, count: self.count }
    }

    /// Adds a member; tells whether it is new. `None` if with it the set would be a large one.
    pub fn add(&mut self, member: &[u8], limits: &SetLimits) -> Option<bool> {
        if self.form != RUN {
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
        let Err(place) = Ints::new(self.form, &self.bytes).find(number) else { return Some(false) };
        if self.count >= most_ints(limits) {
            return None;
        }
        let form = form_for(number);
        if form > self.form {
            let mut wider = Vec::new();
            ints::write(&mut wider, form, Ints::new(self.form, &self.bytes).iter());
            (self.bytes, self.form) = (wider, form);
        }
        let width = width(self.form);
        let at = place * width;
        self.bytes.splice(at..at, number.to_le_bytes().into_iter().take(width));
        self.count += 1;
        Some(true)
    }

    /// Numbers become a packed run, if one more member may be in it.
    fn become_run(&mut self, limits: &SetLimits) -> Option<()> {
        let numbers = Ints::new(self.form, &self.bytes);
        let longest = numbers.iter().map(|number| itoa::Buffer::new().format(number).len()).max();
        let fits = limits.run.allow_count(self.count + 1)
            && longest.is_none_or(|longest| limits.run.allow_len(longest));
        if !fits {
            return None;
        }
        let mut run = Vec::new();
        numbers.iter().for_each(|number| Encoded::int(number).push_to(&mut run));
        (self.bytes, self.form) = (run, RUN);
        Some(())
    }
}

/// Members that are to become a set, all different, outside of the arena.
#[derive(Clone, Debug)]
pub struct MemberList {
    /// A packed run.
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
    /// Adds a member that is not there yet.
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

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The members.
    pub fn iter(&self) -> impl Iterator<Item = Value<'_>> {
        packed::iter(&self.run).map(super::value)
    }

    /// As a compact set, if it may be one.
    pub(super) fn compact(&self, limits: &SetLimits) -> Option<(Description, Vec<u8>)> {
        let count = self.count;
        if self.only_numbers && count <= most_ints(limits) {
            let mut numbers: Vec<i64> = self.iter().filter_map(number_of).collect();
            numbers.sort_unstable();
            let form = numbers.iter().map(|number| form_for(*number)).max().unwrap_or(1);
            let mut bytes = Vec::new();
            ints::write(&mut bytes, form, numbers.into_iter());
            return Some((Description { kind: ValueKind::Set, form, count }, bytes));
        }
        let fits = limits.run.allow_count(count)
            && limits.run.allow_len(self.longest)
            && self.run.len() as u64 <= MAX_BYTES;
        fits.then(|| (Description { kind: ValueKind::Set, form: RUN, count }, self.run.clone()))
    }
}

/// Digits of the longest number, with its sign.
const LONGEST_NUMBER: usize = 20;

const fn number_of(member: Value<'_>) -> Option<i64> {
    match member {
        Value::Int(number) => Some(number),
        Value::Bytes(_) => None,
    }
}

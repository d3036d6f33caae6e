//! Reading elements.

use std::ops::{ControlFlow, RangeInclusive};

use crate::keyspace::entry::Shape;
use crate::keyspace::shards::Entry;
use crate::keyspace::{Shards, Value};
use cowherd_arena::Mem;
use cowherd_arena::containers::deque::Deque;
use cowherd_arena::containers::packed::{self, Element};

use super::{ListEnd, deque_of};

/// Where the elements of a list are.
#[derive(Clone, Copy)]
pub(super) enum Place<'m> {
    /// In a run of so many.
    Run(&'m [u8], u64),
    /// In a deque.
    Deque(Deque),
}

impl<'m> Place<'m> {
    /// Where the elements of an entry are.
    #[inline]
    pub fn of(mem: &'m Mem<'_>, at: u64, shape: &Shape) -> Self {
        if shape.is_large() {
            return Self::Deque(deque_of(shape.header(mem, at)));
        }
        Self::Run(mem.bytes(shape.value_place(mem, at), shape.value_len), shape.count)
    }

    /// Hands all elements to `each`.
    pub fn each(self, mem: &'m Mem<'_>, mut each: impl FnMut(Element<'m>)) {
        let _: ControlFlow<()> = self.walk(mem, 0, u64::MAX, |element| {
            each(element);
            ControlFlow::Continue(())
        });
    }

    /// Number of elements.
    #[inline]
    pub fn len(self, mem: &Mem<'_>) -> u64 {
        match self {
            Self::Run(_, count) => count,
            Self::Deque(deque) => deque.len(mem),
        }
    }

    /// Hands up to `count` elements from `index` on to `each`, until it breaks.
    fn walk<B>(
        self,
        mem: &'m Mem<'_>,
        index: u64,
        count: u64,
        mut each: impl FnMut(Element<'m>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let run = match self {
            Self::Deque(deque) => return deque.walk(mem, index, count, each),
            Self::Run(run, _) => run,
        };
        let Some(mut at) = packed::nth(run, short(index)) else {
            return ControlFlow::Continue(());
        };
        let mut left = count;
        while left > 0 && at < run.len() {
            let (element, next) = packed::get(run, at);
            each(element)?;
            (at, left) = (next, left - 1);
        }
        ControlFlow::Continue(())
    }

    /// As [`Self::walk`], from the element number `index` from the back, 0 being the last, towards
    /// the first.
    fn walk_back<B>(
        self,
        mem: &'m Mem<'_>,
        index: u64,
        count: u64,
        mut each: impl FnMut(Element<'m>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        match self {
            Self::Deque(deque) => match deque.len(mem).checked_sub(index + 1) {
                Some(index) => deque.walk_back(mem, index, count, each),
                None => ControlFlow::Continue(()),
            },
            Self::Run(run, _) => {
                let all = packed::iter(run).rev().skip(short(index)).take(short(count));
                for element in all {
                    each(element)?;
                }
                ControlFlow::Continue(())
            }
        }
    }
}

/// A number of elements, of which a compact list has few.
pub(super) fn short(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// An element as it is to be compared with others.
pub(super) fn wanted(bytes: &[u8]) -> Element<'_> {
    packed::as_number(bytes).map_or(Element::Bytes(bytes), Element::Int)
}

const fn value(element: Element<'_>) -> Value<'_> {
    match element {
        Element::Int(number) => Value::Int(number),
        Element::Bytes(bytes) => Value::Bytes(bytes),
    }
}

impl Shards<'_> {
    /// Number of elements of a list.
    #[inline]
    pub fn list_len(&self, entry: &Entry) -> u64 {
        let mem = self.held.view(entry.shard);
        Place::of(&mem, entry.at, &entry.shape).len(&mem)
    }

    /// The element at an end of a list.
    #[inline]
    pub fn list_end(&self, entry: &Entry, end: ListEnd) -> Option<Value<'_>> {
        let mem = self.held.view(entry.shard);
        let (run, at) = if entry.shape.is_large() {
            let deque = deque_of(entry.shape.header(&mem, entry.at));
            let cursor = match end {
                ListEnd::Front => deque.first(&mem),
                ListEnd::Back => deque.last(&mem),
            };
            let (run, len, at) = cursor?.place();
            (mem.slice(run, len), at)
        } else {
            let run = self.run(entry);
            match end {
                ListEnd::Front => (run, 0),
                ListEnd::Back => (run, packed::previous(run, run.len())?),
            }
        };
        Some(value(packed::get(run, at).0))
    }

    /// The element number `index` of a list.
    pub fn list_get(&self, entry: &Entry, index: u64) -> Option<Value<'_>> {
        let mem = self.held.view(entry.shard);
        if entry.shape.is_large() {
            let deque = deque_of(entry.shape.header(&mem, entry.at));
            let (run, len, at) = deque.seek(&mem, index)?.place();
            return Some(value(packed::get(mem.slice(run, len), at).0));
        }
        let run = self.run(entry);
        if index >= entry.shape.count {
            return None;
        }
        let at = match index < entry.shape.count / 2 {
            true => packed::nth(run, short(index)),
            false => packed::nth_back(run, short(entry.shape.count - 1 - index)),
        };
        at.map(|at| value(packed::get(run, at).0))
    }

    /// Hands the elements of a range that is within the list to `each`.
    pub fn list_range(
        &self,
        entry: &Entry,
        range: &RangeInclusive<u64>,
        mut each: impl FnMut(Value<'_>),
    ) {
        let mem = self.held.view(entry.shard);
        let count = range.end() - range.start() + 1;
        let place = Place::of(&mem, entry.at, &entry.shape);
        let _: ControlFlow<()> = place.walk(&mem, *range.start(), count, |element| {
            each(value(element));
            ControlFlow::Continue(())
        });
    }

    /// Hands up to `count` elements from an end of a list inwards to `each`.
    pub fn list_from(
        &self,
        entry: &Entry,
        end: ListEnd,
        skip: u64,
        count: u64,
        mut each: impl FnMut(Value<'_>),
    ) {
        let mem = self.held.view(entry.shard);
        let place = Place::of(&mem, entry.at, &entry.shape);
        let each = |element| {
            each(value(element));
            ControlFlow::<()>::Continue(())
        };
        let _: ControlFlow<()> = match end {
            ListEnd::Front => place.walk(&mem, skip, count, each),
            ListEnd::Back => place.walk_back(&mem, skip, count, each),
        };
    }

    /// Looks from an end of a list inwards, at `most` elements, for some that equal `bytes`. Hands
    /// their numbers, counted from the front, to `each`, until that is false.
    pub fn list_find(
        &self,
        entry: &Entry,
        bytes: &[u8],
        end: ListEnd,
        most: u64,
        mut each: impl FnMut(u64) -> bool,
    ) {
        let mem = self.held.view(entry.shard);
        let place = Place::of(&mem, entry.at, &entry.shape);
        let (wanted, len) = (wanted(bytes), place.len(&mem));
        let mut seen = 0;
        let look = |element: Element<'_>| {
            let index = if end == ListEnd::Front { seen } else { len - 1 - seen };
            seen += 1;
            match element == wanted && !each(index) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let _: ControlFlow<()> = match end {
            ListEnd::Front => place.walk(&mem, 0, most, look),
            ListEnd::Back => place.walk_back(&mem, 0, most, look),
        };
    }
}

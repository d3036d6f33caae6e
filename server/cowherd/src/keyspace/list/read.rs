//! Reading elements of lists.

use std::ops::{ControlFlow, RangeInclusive};

use crate::keyspace::entry::{EntryHeader, ValueType};
use crate::keyspace::shards::Entry;
use crate::keyspace::{Shards, Value};
use cowherd_arena::Mem;
use cowherd_arena::containers::deque::Deque;
use cowherd_arena::containers::packed::{self, Element};

use super::{ListEnd, deque_of};

/// The elements of a list, compact or large.
#[derive(Clone, Copy)]
pub(super) enum ListElements<'m> {
    /// A packed run, and the number of its elements.
    Run(&'m [u8], u64),
    /// A deque.
    Deque(Deque),
}

impl<'m> ListElements<'m> {
    /// The elements of an entry.
    #[inline]
    pub fn of(mem: &'m Mem<'_>, at: u64, head: &EntryHeader) -> Self {
        if head.is_large() {
            return Self::Deque(deque_of(head.large_header(mem, at)));
        }
        Self::Run(mem.bytes(head.value_offset(mem, at), head.value_len), head.count)
    }

    /// Calls `each` with all elements.
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

    /// Calls `each` with up to `count` elements from `index` on, until it breaks.
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

    /// As [`Self::walk`], towards the front; `index` counts from the back, 0 is the last element.
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

/// A number from a client as a number of elements to skip or take: a saturated one is beyond the
/// end of any list, too.
pub(super) fn short(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Bytes as the element that equals them in a run.
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
        ListElements::of(&mem, entry.at, &entry.head).len(&mem)
    }

    /// The element at an end of a list.
    #[inline]
    pub fn list_end(&self, entry: &Entry, end: ListEnd) -> Option<Value<'_>> {
        let mem = self.held.view(entry.shard);
        let (run, at) = if entry.head.is_large() {
            let deque = deque_of(entry.head.large_header(&mem, entry.at));
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

    /// The element at `index` of a list.
    pub fn list_get(&self, entry: &Entry, index: u64) -> Option<Value<'_>> {
        let mem = self.held.view(entry.shard);
        if entry.head.is_large() {
            let deque = deque_of(entry.head.large_header(&mem, entry.at));
            let (run, len, at) = deque.seek(&mem, index)?.place();
            return Some(value(packed::get(mem.slice(run, len), at).0));
        }
        let run = self.run(entry);
        if index >= entry.head.count {
            return None;
        }
        let at = match index < entry.head.count / 2 {
            true => packed::nth(run, short(index)),
            false => packed::nth_back(run, short(entry.head.count - 1 - index)),
        };
        at.map(|at| value(packed::get(run, at).0))
    }

    /// The nodes of a large list, and their bytes; `None` for another value.
    pub fn list_nodes(&self, entry: &Entry) -> Option<(u64, u64)> {
        if entry.head.kind != ValueType::List || !entry.head.is_large() {
            return None;
        }
        let mem = self.held.view(entry.shard);
        let deque = deque_of(entry.head.large_header(&mem, entry.at));
        Some((deque.root(&mem).nodes, deque.size(&mem, 0)))
    }

    /// Calls `each` with the elements of a range, which is within the list.
    pub fn list_range(
        &self,
        entry: &Entry,
        range: &RangeInclusive<u64>,
        mut each: impl FnMut(Value<'_>),
    ) {
        let mem = self.held.view(entry.shard);
        let count = range.end() - range.start() + 1;
        let elements = ListElements::of(&mem, entry.at, &entry.head);
        let _: ControlFlow<()> = elements.walk(&mem, *range.start(), count, |element| {
            each(value(element));
            ControlFlow::Continue(())
        });
    }

    /// Skips `skip` elements from an end of a list inwards, then calls `each` with up to `count`.
    pub fn list_from(
        &self,
        entry: &Entry,
        end: ListEnd,
        skip: u64,
        count: u64,
        mut each: impl FnMut(Value<'_>),
    ) {
        let mem = self.held.view(entry.shard);
        let elements = ListElements::of(&mem, entry.at, &entry.head);
        let each = |element| {
            each(value(element));
            ControlFlow::<()>::Continue(())
        };
        let _: ControlFlow<()> = match end {
            ListEnd::Front => elements.walk(&mem, skip, count, each),
            ListEnd::Back => elements.walk_back(&mem, skip, count, each),
        };
    }

    /// Compares up to `most` elements, from an end of a list inwards, with `bytes`. Calls `each`
    /// with the indices of those that are equal, counted from the front, until it returns false.
    pub fn list_find(
        &self,
        entry: &Entry,
        bytes: &[u8],
        end: ListEnd,
        most: u64,
        mut each: impl FnMut(u64) -> bool,
    ) {
        let mem = self.held.view(entry.shard);
        let elements = ListElements::of(&mem, entry.at, &entry.head);
        let (wanted, len) = (wanted(bytes), elements.len(&mem));
        let mut seen = 0;
        let compare = |element: Element<'_>| {
            let index = if end == ListEnd::Front { seen } else { len - 1 - seen };
            seen += 1;
            match element == wanted && !each(index) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let _: ControlFlow<()> = match end {
            ListEnd::Front => elements.walk(&mem, 0, most, compare),
            ListEnd::Back => elements.walk_back(&mem, 0, most, compare),
        };
    }
}

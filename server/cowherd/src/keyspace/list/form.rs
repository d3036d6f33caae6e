//! From compact to large and back, and what clients are told of it.

use crate::keyspace::entry::{Shape, ValueKind};
use crate::keyspace::shards::Entry;
use crate::keyspace::values::{Common, Type};
use crate::keyspace::{DbIndex, Expiry, Key, Shards};
use cowherd_arena::containers::deque::{Deque, Root};
use cowherd_arena::containers::packed::{self, Element, Encoded};
use cowherd_arena::{Mem, Offset, OutOfMemory};

use super::{Header, LISTPACK, List, ListLimits, QUICKLIST, SMALL_BYTES, deque_of, description};

/// A header of a list without elements.
pub(super) fn create_header(mem: &mut Mem<'_>) -> Result<u64, OutOfMemory> {
    let at = mem.allocate(List::HEADER)?;
    mem.write(Offset::new(at), Header { common: Common::new(ValueKind::List), root: Root::EMPTY });
    Ok(at)
}

/// Frees a list that nothing refers to, with its header.
fn release(mem: &mut Mem<'_>, header: u64) {
    while !deque_of(header).drain(mem, usize::MAX) {}
    mem.release(header, List::HEADER);
}

/// An element of a run, to stand in another one.
fn encoded(element: Element<'_>) -> Encoded<'_> {
    match element {
        Element::Int(number) => Encoded::int(number),
        Element::Bytes(bytes) => Encoded::of(bytes),
    }
}

/// A deque of the elements of a run; returns its header.
fn large_of<'e>(
    mem: &mut Mem<'_>,
    elements: impl Iterator<Item = Encoded<'e>>,
    limits: &ListLimits,
) -> Result<u64, OutOfMemory> {
    let header = create_header(mem)?;
    for element in elements {
        if let Err(full) = deque_of(header).push_back(mem, &element, limits.nodes()) {
            release(mem, header);
            return Err(full);
        }
    }
    Ok(header)
}

impl Shards<'_> {
    /// The elements of a large list.
    #[inline]
    pub(super) fn large_list(&self, entry: &Entry) -> Deque {
        let mem = self.held.view(entry.shard);
        deque_of(entry.shape.header(&mem, entry.at))
    }

    /// A large list in place of a compact one.
    pub(super) fn make_large(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: &Entry,
        limits: &ListLimits,
    ) -> Result<Entry, OutOfMemory> {
        let run = self.run(old).to_vec();
        let elements = packed::iter(&run).map(encoded);
        self.put_elements(db, key, Some(old), elements, Expiry::Keep, limits)
    }

    /// Sets a key to a large list of some elements, of which there is one at least.
    pub(super) fn put_elements<'e>(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        old: Option<&Entry>,
        elements: impl Iterator<Item = Encoded<'e>>,
        expiry: Expiry,
        limits: &ListLimits,
    ) -> Result<Entry, OutOfMemory> {
        let mut mem = self.held.mem(key.shard);
        let header = large_of(&mut mem, elements, limits)?;
        let deque = deque_of(header);
        let form = if is_listpack(&mem, deque, limits) { LISTPACK } else { QUICKLIST };
        self.put_large(db, key, old, description(form, 0), header, expiry)
            .inspect_err(|_| release(&mut self.held.mem(key.shard), header))
    }

    /// Looks at a large list that has got more elements or larger ones.
    #[inline]
    pub(super) fn after_growth(&mut self, entry: &Entry, limits: &ListLimits) {
        if entry.shape.form == QUICKLIST {
            return;
        }
        let deque = self.large_list(entry);
        let mut mem = self.held.mem(entry.shard);
        if !is_listpack(&mem, deque, limits) {
            Shape { form: QUICKLIST, ..entry.shape }.store(&mut mem, entry.at);
        }
    }

    /// Looks at a large list that has got fewer elements or smaller ones: it may be a listpack
    /// again, or compact. Without room for that it stays as it is.
    #[inline]
    pub(super) fn after_loss(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        limits: &ListLimits,
    ) {
        let deque = self.large_list(entry);
        let mut mem = self.held.mem(entry.shard);
        let root = deque.root(&mem);
        if root.nodes != 1 {
            return;
        }
        let bytes = deque.bytes_of_few(&mem, 1).unwrap_or(u64::MAX);
        let mut form = entry.shape.form;
        if form == QUICKLIST && limits.is_few(bytes, root.len) {
            form = LISTPACK;
            Shape { form, ..entry.shape }.store(&mut mem, entry.at);
        }
        if form == LISTPACK && bytes <= SMALL_BYTES {
            let Some(run) = deque.single_run(&mem).map(<[u8]>::to_vec) else { return };
            let entry = Entry { shape: Shape { form, ..entry.shape }, ..*entry };
            let new = description(LISTPACK, root.len);
            // It is as good as it was if there is no room.
            let _ = self.put_compact(db, key, Some(&entry), new, &[&run], Expiry::Keep);
        }
    }
}

/// Whether a large list is within the limits of a listpack.
fn is_listpack(mem: &Mem<'_>, deque: Deque, limits: &ListLimits) -> bool {
    // A listpack's elements are in few nodes, unless many were inserted.
    let bytes = deque.bytes_of_few(mem, 8);
    bytes.is_some_and(|bytes| limits.allow(bytes, deque.len(mem)))
}

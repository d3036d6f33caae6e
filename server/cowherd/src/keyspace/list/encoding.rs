//! The encodings of lists: from compact to large and back, and between "listpack" and "quicklist".

use crate::keyspace::collection::build_large;
use crate::keyspace::entry::EntryHeader;
use crate::keyspace::shards::Entry;
use crate::keyspace::{DbIndex, Expiry, Key, Shards};
use cowherd_arena::containers::deque::Deque;
use cowherd_arena::containers::packed::{self, Element, Encoded};
use cowherd_arena::{Mem, OutOfMemory};

use super::{LISTPACK, List, ListLimits, QUICKLIST, SMALL_BYTES, deque_of, description};

/// An element of a run, encoded for another run.
fn encoded(element: Element<'_>) -> Encoded<'_> {
    match element {
        Element::Int(number) => Encoded::int(number),
        Element::Bytes(bytes) => Encoded::of(bytes),
    }
}

impl Shards<'_> {
    #[inline]
    pub(super) fn large_list(&self, entry: &Entry) -> Deque {
        let mem = self.held.view(entry.shard);
        deque_of(entry.head.large_header(&mem, entry.at))
    }

    /// Replaces a compact list by a large one.
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

    /// Sets a key to a large list of at least one element.
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
        let header = build_large::<List>(&mut mem, |mem, header| {
            let mut elements = elements;
            elements.try_for_each(|e| deque_of(header).push_back(mem, &e, limits.nodes()))
        })?;
        let deque = deque_of(header);
        let encoding = if is_listpack(&mem, deque, limits) { LISTPACK } else { QUICKLIST };
        self.put_large(db, key, old, description(encoding, 0), header, expiry)
    }

    /// Adjusts the encoding of a large list that has grown.
    #[inline]
    pub(super) fn after_growth(&mut self, entry: &Entry, limits: &ListLimits) {
        if entry.head.encoding == QUICKLIST {
            return;
        }
        let deque = self.large_list(entry);
        let mut mem = self.held.mem(entry.shard);
        if !is_listpack(&mem, deque, limits) {
            EntryHeader { encoding: QUICKLIST, ..entry.head }.store(&mut mem, entry.at);
        }
    }

    /// Adjusts the encoding of a large list that has shrunk: it may become a listpack again, or
    /// compact if there is memory for that.
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
        let mut encoding = entry.head.encoding;
        if encoding == QUICKLIST && limits.is_few(bytes, root.len) {
            encoding = LISTPACK;
            EntryHeader { encoding, ..entry.head }.store(&mut mem, entry.at);
        }
        if encoding == LISTPACK && bytes <= SMALL_BYTES {
            let Some(run) = deque.single_run(&mem).map(<[u8]>::to_vec) else { return };
            let entry = Entry { head: EntryHeader { encoding, ..entry.head }, ..*entry };
            let new = description(LISTPACK, root.len);
            // A list that stays large for lack of memory is correct, too.
            let _ = self.put_compact(db, key, Some(&entry), new, &[&run], Expiry::Keep);
        }
    }
}

/// Whether the limits allow a large list to be a listpack.
fn is_listpack(mem: &Mem<'_>, deque: Deque, limits: &ListLimits) -> bool {
    // Elements of so few bytes are in few nodes, unless many were inserted in the middle.
    let bytes = deque.bytes_of_few(mem, 8);
    bytes.is_some_and(|bytes| limits.allow(bytes, deque.len(mem)))
}

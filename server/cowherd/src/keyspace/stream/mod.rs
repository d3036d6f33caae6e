//! Streams: entries in the order of their ids, and groups of consumers that read them.
//!
//! A stream is always large, because it may be empty. Its entries are in nodes, some in each; the
//! nodes are in a tree by the ids of their first entries. A group has a tree of *pending* entries,
//! which were delivered and not acknowledged; each pending entry is in a tree of its consumer too.
//!
//! ```text
//! header:    | large header 16 | nodes: tree 24 | length | last id | last deleted | added | tail |
//!            | groups: tree 24 |         |                                                 |
//!                   |                    +--> node, node, ...  <---------------------------+
//!                   v
//! group:     | name len | last id | read | pending: tree 24 | consumers: tree 24 | name
//!                                                |                  |
//! consumer:  | name len | seen | active | pending: tree 24 | name  <-+
//!                                     |          |
//! pending:   | id | delivered at | deliveries | consumer |  <- both trees
//! ```
//!
//! Groups and consumers are in the order of their names.
//!
//! Invariants:
//! 1. Ids ascend, and none is above the last id.
//! 2. `tail` is the last node. Each node has an entry that is not deleted.
//! 3. The trees of a group's consumers together hold the entries of the group's tree, each in that
//!    of its consumer.
//!
//! | file | what |
//! |---|---|
//! | this one | the type, ids, the header |
//! | `node` | the bytes of a node |
//! | `entries` | adding, reading, deleting, trimming |
//! | `groups`, `pending` | groups and consumers; pending entries |
//! | `evacuate` | compaction: objects that move |
//! | `verify` | verification of an image |

mod entries;
mod evacuate;
mod groups;
mod node;
mod pending;
#[cfg(test)]
mod tests;
mod verify;

use std::cmp::Ordering;
use std::fmt;
use std::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use cowherd_arena::containers::tree::{self, TieOrder, Tree};
use cowherd_arena::{Audit, Corruption, Mem, Offset, OutOfMemory, allocated_size};

use super::collection::{
    CollectionType, ElementView, LargeHeader, ValueCursor, ValueDigest, WrongType, build_large,
};
use super::entry::{EntryHeader, ValueType};
use super::shards::Entry;

use super::{DbIndex, Key, Shards};

pub use entries::{StreamInfo, StreamLimits, StreamTrim};
pub use groups::{Consumer, ConsumerInfo, Group, GroupInfo};
use node::Node;
pub use node::StreamFields;
pub use pending::{PendingClaim, PendingEntry, PendingReservation};

/// The stream type.
pub(super) struct Stream;

/// The header of a stream.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
#[repr(C)]
struct StreamHeader {
    large: LargeHeader,
    nodes: tree::TreeRoot,
    /// Entries that are not deleted.
    length: u64,
    last: StreamId,
    /// The highest id that XDEL has deleted.
    deleted: StreamId,
    /// Entries ever added.
    added: u64,
    tail: u64,
    groups: tree::TreeRoot,
}

const _: () = assert!(size_of::<StreamHeader>() == 120);

/// An entry's id: a time in milliseconds and a number among those of one millisecond.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct StreamId {
    /// The time in milliseconds.
    pub ms: u64,
    /// The number among the ids of that millisecond.
    pub seq: u64,
}

impl StreamId {
    /// The lowest id, which no entry has.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// The highest id.
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };

    /// The next id; `None` for the highest.
    pub const fn next(self) -> Option<Self> {
        match (self.seq.checked_add(1), self.ms.checked_add(1)) {
            (Some(seq), _) => Some(Self { ms: self.ms, seq }),
            (None, Some(ms)) => Some(Self { ms, seq: 0 }),
            (None, None) => None,
        }
    }

    /// The previous id; `None` for the lowest.
    pub const fn previous(self) -> Option<Self> {
        match (self.seq.checked_sub(1), self.ms.checked_sub(1)) {
            (Some(seq), _) => Some(Self { ms: self.ms, seq }),
            (None, Some(ms)) => Some(Self { ms, seq: u64::MAX }),
            (None, None) => None,
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// Orders items that begin with an id of one millisecond by the number.
struct BySeq(u64);

impl TieOrder for BySeq {
    #[inline]
    fn compare(&self, mem: &Mem<'_>, item: u64) -> Ordering {
        let id: StreamId = mem.read(Offset::new(item));
        self.0.cmp(&id.seq)
    }
}

/// A stream, by its header.
#[derive(Clone, Copy, Debug)]
struct StreamRoot {
    at: u64,
}

impl StreamRoot {
    #[inline]
    fn load(self, mem: &Mem<'_>) -> StreamHeader {
        mem.read(Offset::new(self.at))
    }

    #[inline]
    const fn nodes(self) -> Tree {
        Tree::at(Offset::new(self.at + offset_of!(StreamHeader, nodes) as u64))
    }

    #[inline]
    const fn length(self) -> Offset<u64> {
        Offset::new(self.at + offset_of!(StreamHeader, length) as u64)
    }

    const fn last(self) -> Offset<StreamId> {
        Offset::new(self.at + offset_of!(StreamHeader, last) as u64)
    }

    const fn deleted(self) -> Offset<StreamId> {
        Offset::new(self.at + offset_of!(StreamHeader, deleted) as u64)
    }

    const fn added(self) -> Offset<u64> {
        Offset::new(self.at + offset_of!(StreamHeader, added) as u64)
    }

    const fn tail(self) -> Offset<u64> {
        Offset::new(self.at + offset_of!(StreamHeader, tail) as u64)
    }

    #[inline]
    const fn groups(self) -> Tree {
        Tree::at(Offset::new(self.at + offset_of!(StreamHeader, groups) as u64))
    }

    /// Frees about `most` nodes, consumers and pending entries; tells whether that was all.
    fn free_some(self, mem: &mut Mem<'_>, most: usize) -> bool {
        self.nodes().drain(mem, most, |mem, entry| Node::load(mem, entry.item).release(mem))
            && groups::free_some(mem, self, most)
    }

    /// Copies nodes and groups of another stream into this empty one.
    fn fill(self, mem: &mut Mem<'_>, source: Self) -> Result<(), OutOfMemory> {
        let old = source.load(mem);
        let nodes: Vec<u64> = source.nodes().ascending(mem, 0).map(|entry| entry.item).collect();
        for node in nodes {
            let node = Node::load(mem, node).copy(mem)?;
            let first = node.head.first;
            let put = self.nodes().insert(mem, first.ms, node.at, &BySeq(first.seq));
            put.inspect_err(|_| node.release(mem))?;
            mem.write(self.tail(), node.at);
        }
        mem.write(self.length(), old.length);
        mem.write(self.last(), old.last);
        mem.write(self.deleted(), old.deleted);
        mem.write(self.added(), old.added);
        groups::copy(mem, source, self)
    }
}

impl CollectionType for Stream {
    const HEADER: u64 = size_of::<StreamHeader>() as u64;

    fn init_large(mem: &mut Mem<'_>, header: u64) {
        let empty = StreamHeader {
            large: LargeHeader::new(ValueType::Stream),
            nodes: tree::TreeRoot::EMPTY,
            length: 0,
            last: StreamId::MIN,
            deleted: StreamId::MIN,
            added: 0,
            tail: 0,
            groups: tree::TreeRoot::EMPTY,
        };
        mem.write(Offset::new(header), empty);
    }

    fn encoding_name(_: &EntryHeader) -> &'static str {
        "stream"
    }

    fn verify_compact(_: &EntryHeader, _: &[u8]) -> Result<(), String> {
        Err("a stream without a header".into())
    }

    fn verify_large(
        mem: &Mem<'_>,
        audit: &Audit<'_>,
        head: Option<&EntryHeader>,
        header: u64,
        is_deferred: bool,
    ) -> Result<(), Corruption> {
        if head.is_some_and(|head| head.encoding != 0) {
            return Err(Corruption::at(
                header,
                format!("a stream of a wrong encoding at {header:#x}"),
            ));
        }
        verify::verify(mem, audit, StreamRoot { at: header }, is_deferred)
    }

    fn each_element(
        mem: &Mem<'_>,
        at: u64,
        head: &EntryHeader,
        each: &mut dyn FnMut(ElementView<'_>),
    ) {
        let root = StreamRoot { at: head.large_header(mem, at) };
        entries::ascend(mem, root, StreamId::MIN, StreamId::MAX, |entry| {
            each(ElementView::Entry { id: entry.id, fields: entry.fields });
            true
        });
    }

    fn digest(mem: &Mem<'_>, at: u64, head: &EntryHeader, digest: &mut ValueDigest) {
        Self::each_element(mem, at, head, &mut |element| digest.add_element(&element));
        let root = StreamRoot { at: head.large_header(mem, at) };
        entries::digest(mem, root, digest);
        groups::digest(mem, root, digest);
    }

    fn evacuate_some(
        mem: &mut Mem<'_>,
        header: u64,
        cursor: ValueCursor,
        most: usize,
    ) -> Option<ValueCursor> {
        evacuate::evacuate_some(mem, StreamRoot { at: header }, cursor, most)
    }

    fn copy_large(mem: &mut Mem<'_>, header: u64) -> Result<u64, OutOfMemory> {
        build_large::<Self>(mem, |mem, copy| {
            StreamRoot { at: copy }.fill(mem, StreamRoot { at: header })
        })
    }

    fn free_some(mem: &mut Mem<'_>, header: u64, most: usize) -> bool {
        StreamRoot { at: header }.free_some(mem, most)
    }

    fn len(mem: &Mem<'_>, header: u64) -> u64 {
        let root = StreamRoot { at: header };
        // A group may have many pending entries.
        if root.groups().is_empty(mem) { mem.read(root.length()) } else { u64::MAX }
    }

    fn usage(mem: &Mem<'_>, header: u64, samples: usize) -> u64 {
        /// Bytes of an entry in a tree, with its share of a leaf that is two thirds full.
        const LEAF: u64 = 24;
        let root = StreamRoot { at: header };
        let most = if samples == 0 { usize::MAX } else { samples };
        let (mut seen, mut bytes) = (0, 0);
        for entry in root.nodes().ascending(mem, 0).take(most) {
            seen += 1;
            bytes += allocated_size(Node::load(mem, entry.item).size());
        }
        let len = root.nodes().len(mem);
        let nodes = (u128::from(bytes) * u128::from(len)).checked_div(seen).unwrap_or(0);
        u64::try_from(nodes).unwrap_or(u64::MAX) + len * LEAF + groups::usage(mem, root)
    }
}

impl Shards<'_> {
    /// The stream of a key; `None` if there is no such key. Updates the access clock.
    ///
    /// # Errors
    /// The value is not a stream.
    #[inline]
    pub fn stream(&mut self, db: DbIndex, key: &Key<'_>) -> Result<Option<Entry>, WrongType> {
        self.lookup_kind(db, key, ValueType::Stream)
    }

    #[inline]
    fn stream_root(&self, entry: &Entry) -> StreamRoot {
        StreamRoot { at: entry.head.large_header(&self.held.view(entry.shard), entry.at) }
    }
}

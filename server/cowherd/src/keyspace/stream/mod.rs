//! Streams: entries in the order of their ids, and groups of consumers that read them.
//!
//! A stream is always large: it may be empty. Its entries stand in nodes, some in each, that are in
//! a tree by the id of their first one. A group knows what it has handed out and nobody has
//! acknowledged: a tree of *pending* entries, which stand in a tree of their consumer's too.
//!
//! ```text
//! header:    | common 16 | nodes: tree 24 | length | last id | last deleted | added | tail |
//!            | groups: tree 24 |   |                                                  |
//!                   |              +--> node, node, ...  <----------------------------+
//!                   v
//! group:     | name len | last id | read | pending: tree 24 | consumers: tree 24 | name
//!                                                |                  |
//! consumer:  | name len | seen | pending: tree 24 | name    <-------+
//!                                     |          |
//! pending:   | id | delivered at | deliveries | consumer |  <- both trees
//! ```
//!
//! Groups and consumers are in the order of their names.
//!
//! Invariants:
//! 1. Ids ascend, and none is above the last id.
//! 2. `tail` is the last node. No node is without an entry that is not deleted.
//! 3. The trees of a group's consumers hold together what its own holds, each under its consumer.

mod check;
mod entries;
mod groups;
mod id;
mod node;
mod pending;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use cowherd_arena::containers::tree::{self, Ties, Tree};
use cowherd_arena::{Audit, Corruption, Mem, Offset, OutOfMemory, allocated_size};

use super::entry::{Shape, ValueKind};
use super::shards::Entry;
use super::values::{Common, Digest, Type, WrongType};
use super::{DbIndex, Key, Shards};

pub use entries::{StreamInfo, StreamLimits, StreamTrim};
pub use groups::{Consumer, ConsumerInfo, Group, GroupInfo};
pub use id::StreamId;
use node::Node;
pub use node::StreamFields;
pub use pending::{PendingClaim, PendingEntry, PendingReservation};

/// Streams.
pub(super) struct Stream;

/// The header of a stream.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
#[repr(C)]
struct Header {
    common: Common,
    nodes: tree::Root,
    /// Entries that are not deleted.
    length: u64,
    last: StreamId,
    /// The highest id that was deleted by name.
    deleted: StreamId,
    /// Entries ever added.
    added: u64,
    tail: u64,
    groups: tree::Root,
}

const _: () = assert!(size_of::<Header>() == 120);

/// Finds, among items that begin with an id, the one with this number.
struct BySeq(u64);

impl Ties for BySeq {
    #[inline]
    fn compare(&self, mem: &Mem<'_>, item: u64) -> Ordering {
        let id: StreamId = mem.read(Offset::new(item));
        self.0.cmp(&id.seq)
    }
}

/// A stream, by its header.
#[derive(Clone, Copy, Debug)]
struct Root {
    at: u64,
}

impl Root {
    #[inline]
    fn load(self, mem: &Mem<'_>) -> Header {
        mem.read(Offset::new(self.at))
    }

    #[inline]
    const fn nodes(self) -> Tree {
        Tree::at(Offset::new(self.at + offset_of!(Header, nodes) as u64))
    }

    #[inline]
    const fn length(self) -> Offset<u64> {
        Offset::new(self.at + offset_of!(Header, length) as u64)
    }

    const fn last(self) -> Offset<StreamId> {
        Offset::new(self.at + offset_of!(Header, last) as u64)
    }

    const fn deleted(self) -> Offset<StreamId> {
        Offset::new(self.at + offset_of!(Header, deleted) as u64)
    }

    const fn added(self) -> Offset<u64> {
        Offset::new(self.at + offset_of!(Header, added) as u64)
    }

    const fn tail(self) -> Offset<u64> {
        Offset::new(self.at + offset_of!(Header, tail) as u64)
    }

    #[inline]
    const fn groups(self) -> Tree {
        Tree::at(Offset::new(self.at + offset_of!(Header, groups) as u64))
    }

    /// An empty stream.
    fn create(mem: &mut Mem<'_>) -> Result<Self, OutOfMemory> {
        let at = mem.allocate(Stream::HEADER)?;
        let header = Header {
            common: Common::new(ValueKind::Stream),
            nodes: tree::Root::EMPTY,
            length: 0,
            last: StreamId::MIN,
            deleted: StreamId::MIN,
            added: 0,
            tail: 0,
            groups: tree::Root::EMPTY,
        };
        mem.write(Offset::new(at), header);
        Ok(Self { at })
    }

    /// Frees all of a stream that nothing refers to.
    fn free(self, mem: &mut Mem<'_>) {
        while !self.free_some(mem, usize::MAX) {}
        mem.release(self.at, Stream::HEADER);
    }

    /// Frees about `most` nodes, consumers or pending entries; tells whether that was all.
    fn free_some(self, mem: &mut Mem<'_>, most: usize) -> bool {
        self.nodes().drain(mem, most, |mem, entry| Node::load(mem, entry.item).release(mem))
            && groups::free_some(mem, self, most)
    }

    fn copy(self, mem: &mut Mem<'_>) -> Result<Self, OutOfMemory> {
        let copy = Self::create(mem)?;
        copy.fill(mem, self).inspect_err(|_| copy.free(mem))?;
        Ok(copy)
    }

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

impl Type for Stream {
    const HEADER: u64 = size_of::<Header>() as u64;

    fn encoding_name(_: &Shape) -> &'static str {
        "stream"
    }

    fn verify_compact(_: &Shape, _: &[u8]) -> Result<(), String> {
        Err("a stream without a header".into())
    }

    fn verify_large(
        mem: &Mem<'_>,
        audit: &Audit<'_>,
        shape: Option<&Shape>,
        header: u64,
        is_garbage: bool,
    ) -> Result<(), Corruption> {
        if shape.is_some_and(|shape| shape.form != 0) {
            return Err(Corruption::at(header, format!("a stream of a wrong form at {header:#x}")));
        }
        check::check(mem, audit, Root { at: header }, is_garbage)
    }

    fn digest(mem: &Mem<'_>, at: u64, shape: &Shape, digest: &mut Digest) {
        let root = Root { at: shape.header(mem, at) };
        entries::digest(mem, root, digest);
        groups::digest(mem, root, digest);
    }

    fn copy_large(mem: &mut Mem<'_>, header: u64) -> Result<u64, OutOfMemory> {
        Root { at: header }.copy(mem).map(|copy| copy.at)
    }

    fn free_some(mem: &mut Mem<'_>, header: u64, most: usize) -> bool {
        Root { at: header }.free_some(mem, most)
    }

    fn len(mem: &Mem<'_>, header: u64) -> u64 {
        let root = Root { at: header };
        // Groups may have many entries pending.
        if root.groups().is_empty(mem) { mem.read(root.length()) } else { u64::MAX }
    }

    fn usage(mem: &Mem<'_>, header: u64, samples: usize) -> u64 {
        /// An entry in a tree, with room for others.
        const LEAF: u64 = 24;
        let root = Root { at: header };
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
    /// The stream of a key; none if the key is not there. Counts as a use.
    ///
    /// # Errors
    /// The value is no stream.
    #[inline]
    pub fn stream(&mut self, db: DbIndex, key: &Key<'_>) -> Result<Option<Entry>, WrongType> {
        self.lookup_kind(db, key, ValueKind::Stream)
    }

    #[inline]
    fn stream_root(&self, entry: &Entry) -> Root {
        Root { at: entry.shape.header(&self.held.view(entry.shard), entry.at) }
    }
}

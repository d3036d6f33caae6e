//! Consumer groups of streams, and their consumers.

use std::cmp::Ordering;
use std::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::keyspace::collection::ValueDigest;
use crate::keyspace::shards::Entry;
use crate::keyspace::{DbIndex, Key, Shards};
use cowherd_arena::containers::tree::{self, TieOrder, Tree};
use cowherd_arena::{Mem, Offset, OutOfMemory, allocated_size};

use super::pending::{self, PENDING_RECORD, PendingEntry, PendingRecord};
use super::{StreamId, StreamRoot};

/// A group of a stream. Valid until the group is destroyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group(pub(super) u64);

/// A consumer of a group. Valid until the consumer is deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Consumer(pub(super) u64);

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct GroupHead {
    pub name_len: u64,
    pub last: StreamId,
    /// Number of entries that were read; below 0 if it is unknown.
    pub read: i64,
    pub pending: tree::TreeRoot,
    pub consumers: tree::TreeRoot,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ConsumerHead {
    pub name_len: u64,
    pub seen: i64,
    /// Below 0 for never.
    pub active: i64,
    pub pending: tree::TreeRoot,
}

pub(super) const GROUP: u64 = size_of::<GroupHead>() as u64;
pub(super) const CONSUMER: u64 = size_of::<ConsumerHead>() as u64;

const _: () = assert!(GROUP == 80 && CONSUMER == 48);
const _: () = assert!(offset_of!(GroupHead, name_len) == 0);
const _: () = assert!(offset_of!(ConsumerHead, name_len) == 0);

/// The time of what has never happened.
const NEVER: i64 = -1;

/// The properties of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupInfo {
    /// The group.
    pub group: Group,
    /// The id of the last entry that was delivered.
    pub last: StreamId,
    /// Number of entries that were read, if that is known.
    pub read: Option<u64>,
    /// Number of pending entries.
    pub pending: u64,
    /// Number of consumers.
    pub consumers: u64,
}

/// The properties of a consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConsumerInfo {
    /// The consumer.
    pub consumer: Consumer,
    /// When the consumer last tried to read or claim entries, or was created, wall clock in
    /// milliseconds.
    pub seen: i64,
    /// When the consumer last got an entry that is pending since, likewise; `None` for never.
    pub active: Option<i64>,
    /// Number of pending entries.
    pub pending: u64,
}

/// The key of a group or consumer in its tree: the first 8 bytes of the name.
pub(super) fn name_key(name: &[u8]) -> u64 {
    let mut key = [0; 8];
    let len = name.len().min(8);
    key[..len].copy_from_slice(&name[..len]);
    u64::from_be_bytes(key)
}

/// The name of a group or consumer, behind a header of `head` bytes.
pub(super) fn name_at<'m>(mem: &'m Mem<'_>, at: u64, head: u64) -> &'m [u8] {
    let len: u64 = mem.read(Offset::new(at));
    mem.bytes(at + head, len)
}

/// Finds a group or consumer by its name.
struct ByGroupName<'n> {
    name: &'n [u8],
    /// Bytes of the header before the name.
    head: u64,
}

impl TieOrder for ByGroupName<'_> {
    fn compare(&self, mem: &Mem<'_>, item: u64) -> Ordering {
        self.name.cmp(name_at(mem, item, self.head))
    }
}

fn find(mem: &Mem<'_>, tree: Tree, name: &[u8], head: u64) -> Option<u64> {
    let rank = tree.find(mem, name_key(name), &ByGroupName { name, head })?;
    tree.nth(mem, rank).map(|entry| entry.item)
}

impl Group {
    pub(super) fn load(self, mem: &Mem<'_>) -> GroupHead {
        mem.read(Offset::new(self.0))
    }

    pub(super) const fn pending(self) -> Tree {
        Tree::at(Offset::new(self.0 + offset_of!(GroupHead, pending) as u64))
    }

    pub(super) const fn consumers(self) -> Tree {
        Tree::at(Offset::new(self.0 + offset_of!(GroupHead, consumers) as u64))
    }

    fn name<'m>(self, mem: &'m Mem<'_>) -> &'m [u8] {
        name_at(mem, self.0, GROUP)
    }

    fn set(self, mem: &mut Mem<'_>, last: StreamId, read: Option<u64>) {
        mem.write(Offset::new(self.0 + offset_of!(GroupHead, last) as u64), last);
        mem.write(Offset::new(self.0 + offset_of!(GroupHead, read) as u64), stored_read(read));
    }
}

impl Consumer {
    pub(super) fn load(self, mem: &Mem<'_>) -> ConsumerHead {
        mem.read(Offset::new(self.0))
    }

    pub(super) const fn pending(self) -> Tree {
        Tree::at(Offset::new(self.0 + offset_of!(ConsumerHead, pending) as u64))
    }

    fn name<'m>(self, mem: &'m Mem<'_>) -> &'m [u8] {
        name_at(mem, self.0, CONSUMER)
    }

    fn release(self, mem: &mut Mem<'_>) {
        let size = CONSUMER + self.load(mem).name_len;
        mem.release(self.0, size);
    }
}

fn groups<'m>(mem: &'m Mem<'_>, root: StreamRoot) -> impl Iterator<Item = Group> + use<'m> {
    root.groups().ascending(mem, 0).map(|entry| Group(entry.item))
}

fn consumers<'m>(mem: &'m Mem<'_>, group: Group) -> impl Iterator<Item = Consumer> + use<'m> {
    group.consumers().ascending(mem, 0).map(|entry| Consumer(entry.item))
}

/// Writes the name of a group or consumer behind its header of `head` bytes, and adds it to its
/// tree. On error the object is freed.
fn create_named(
    mem: &mut Mem<'_>,
    tree: Tree,
    at: u64,
    head: u64,
    name: &[u8],
) -> Result<(), OutOfMemory> {
    let len = name.len() as u64;
    mem.bytes_mut(at + head, len).copy_from_slice(name);
    let put = tree.insert(mem, name_key(name), at, &ByGroupName { name, head });
    put.inspect_err(|_| mem.release(at, head + len))
}

fn create_group(
    mem: &mut Mem<'_>,
    root: StreamRoot,
    name: &[u8],
    last: StreamId,
    read: i64,
) -> Result<Group, OutOfMemory> {
    let name_len = name.len() as u64;
    let at = mem.allocate(GROUP + name_len)?;
    let (pending, consumers) = (tree::TreeRoot::EMPTY, tree::TreeRoot::EMPTY);
    mem.write(Offset::new(at), GroupHead { name_len, last, read, pending, consumers });
    create_named(mem, root.groups(), at, GROUP, name)?;
    Ok(Group(at))
}

/// Creates a group that has read `read` entries, if that is known.
pub(super) fn create(
    mem: &mut Mem<'_>,
    root: StreamRoot,
    name: &[u8],
    last: StreamId,
    read: Option<u64>,
) -> Result<(), OutOfMemory> {
    create_group(mem, root, name, last, stored_read(read)).map(|_| ())
}

/// The stored form of a number of entries that were read.
fn stored_read(read: Option<u64>) -> i64 {
    read.and_then(|read| i64::try_from(read).ok()).unwrap_or(-1)
}

fn create_consumer(
    mem: &mut Mem<'_>,
    group: Group,
    name: &[u8],
    (seen, active): (i64, i64),
) -> Result<Consumer, OutOfMemory> {
    let name_len = name.len() as u64;
    let at = mem.allocate(CONSUMER + name_len)?;
    let pending = tree::TreeRoot::EMPTY;
    mem.write(Offset::new(at), ConsumerHead { name_len, seen, active, pending });
    create_named(mem, group.consumers(), at, CONSUMER, name)?;
    Ok(Consumer(at))
}

/// Frees about `most` consumers and pending entries of the group of a rank, and then the group;
/// tells whether the group was freed.
fn free_group(mem: &mut Mem<'_>, root: StreamRoot, rank: u64, group: Group, most: usize) -> bool {
    let mut left = most;
    while let Some(last) = group.consumers().last(mem) {
        let consumer = Consumer(last.item);
        let pending = usize::try_from(consumer.pending().len(mem))
            .expect("invariant: a number of objects in memory");
        if left == 0 || !consumer.pending().drain(mem, left, |_, _| {}) {
            return false;
        }
        left = left.saturating_sub(pending.saturating_add(1));
        group.consumers().remove_nth(mem, group.consumers().len(mem) - 1);
        consumer.release(mem);
    }
    if !group
        .pending()
        .drain(mem, left.max(1), |mem, entry| mem.release(entry.item, PENDING_RECORD))
    {
        return false;
    }
    root.groups().remove_nth(mem, rank);
    let size = GROUP + group.load(mem).name_len;
    mem.release(group.0, size);
    true
}

/// Frees about `most` consumers and pending entries of a stream's last group, and then the group;
/// tells whether no group is left.
pub(super) fn free_some(mem: &mut Mem<'_>, root: StreamRoot, most: usize) -> bool {
    let Some(last) = root.groups().last(mem) else { return true };
    let rank = root.groups().len(mem) - 1;
    free_group(mem, root, rank, Group(last.item), most) && rank == 0
}

/// Copies all groups to a stream without groups.
pub(super) fn copy(
    mem: &mut Mem<'_>,
    source: StreamRoot,
    to: StreamRoot,
) -> Result<(), OutOfMemory> {
    let all: Vec<Group> = groups(mem, source).collect();
    for old in all {
        let head = old.load(mem);
        let name = old.name(mem).to_vec();
        let group = create_group(mem, to, &name, head.last, head.read)?;
        let all: Vec<Consumer> = consumers(mem, old).collect();
        for old in all {
            let head = old.load(mem);
            let name = old.name(mem).to_vec();
            let consumer = create_consumer(mem, group, &name, (head.seen, head.active))?;
            let records: Vec<PendingRecord> = old
                .pending()
                .ascending(mem, 0)
                .map(|entry| mem.read(Offset::new(entry.item)))
                .collect();
            for record in records {
                pending::put(mem, group, &PendingRecord { consumer: consumer.0, ..record })?;
            }
        }
    }
    Ok(())
}

/// Bytes of all groups.
pub(super) fn usage(mem: &Mem<'_>, root: StreamRoot) -> u64 {
    /// Bytes of an entry in a tree, with its share of a leaf that is two thirds full.
    const LEAF: u64 = 24;
    let of_group = |group: Group| {
        let own = allocated_size(GROUP + group.load(mem).name_len) + LEAF;
        let of_consumer = |c: Consumer| allocated_size(CONSUMER + c.load(mem).name_len) + LEAF;
        let pending = group.pending().len(mem) * (allocated_size(PENDING_RECORD) + 2 * LEAF);
        own + consumers(mem, group).map(of_consumer).sum::<u64>() + pending
    };
    groups(mem, root).map(of_group).sum()
}

/// Adds a stream's groups to a digest.
pub(super) fn digest(mem: &Mem<'_>, root: StreamRoot, digest: &mut ValueDigest) {
    for group in groups(mem, root) {
        let head = group.load(mem);
        digest.add(group.name(mem));
        for number in [head.last.ms, head.last.seq] {
            digest.add_number(number.cast_signed());
        }
        digest.add_number(head.read);
        for consumer in consumers(mem, group) {
            let head = consumer.load(mem);
            digest.add(consumer.name(mem));
            digest.add_number(head.seen);
            digest.add_number(head.active);
            for entry in consumer.pending().ascending(mem, 0) {
                let record: PendingRecord = mem.read(Offset::new(entry.item));
                digest.add_number(record.id.ms.cast_signed());
                digest.add_number(record.id.seq.cast_signed());
                digest.add_number(record.time);
                digest.add_number(record.count.cast_signed());
            }
        }
    }
}

fn group_info(mem: &Mem<'_>, group: Group) -> GroupInfo {
    let head = group.load(mem);
    GroupInfo {
        group,
        last: head.last,
        read: u64::try_from(head.read).ok(),
        pending: head.pending.len,
        consumers: head.consumers.len,
    }
}

impl Shards<'_> {
    /// A group by its name.
    pub fn stream_group(&self, entry: &Entry, name: &[u8]) -> Option<GroupInfo> {
        let mem = self.held.view(entry.shard);
        let group = find(&mem, self.stream_root(entry).groups(), name, GROUP)?;
        Some(group_info(&mem, Group(group)))
    }

    /// Calls `with` with the name of a group.
    pub fn group_name<R>(&self, entry: &Entry, group: Group, with: impl FnOnce(&[u8]) -> R) -> R {
        with(group.name(&self.held.view(entry.shard)))
    }

    /// All groups, in the order of their names.
    pub fn stream_groups(&self, entry: &Entry) -> Vec<GroupInfo> {
        let mem = self.held.view(entry.shard);
        groups(&mem, self.stream_root(entry)).map(|group| group_info(&mem, group)).collect()
    }

    /// Creates a group with a new name. Does not notify watchers.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn group_create(
        &mut self,
        entry: &Entry,
        name: &[u8],
        last: StreamId,
        read: Option<u64>,
    ) -> Result<(), OutOfMemory> {
        let root = self.stream_root(entry);
        create(&mut self.held.mem(entry.shard), root, name, last, read)?;
        self.changed(entry.shard);
        Ok(())
    }

    /// Sets the last delivered entry of a group, and the number of entries that it has read. Does
    /// not notify watchers.
    pub fn group_set(&mut self, entry: &Entry, group: Group, last: StreamId, read: Option<u64>) {
        group.set(&mut self.held.mem(entry.shard), last, read);
        self.changed(entry.shard);
    }

    /// Destroys a group; tells whether it existed. Notifies blocked clients, but no watchers.
    pub fn group_destroy(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        name: &[u8],
    ) -> bool {
        let groups = self.stream_root(entry).groups();
        let mut mem = self.held.mem(entry.shard);
        let Some(rank) = groups.find(&mem, name_key(name), &ByGroupName { name, head: GROUP })
        else {
            return false;
        };
        let Some(group) = groups.nth(&mem, rank).map(|entry| Group(entry.item)) else {
            return false;
        };
        let root = StreamRoot { at: entry.head.large_header(&mem, entry.at) };
        while !free_group(&mut mem, root, rank, group, usize::MAX) {}
        self.changed(entry.shard);
        self.notify_waiters(db, key);
        true
    }

    /// All consumers of a group, in the order of their names.
    pub fn group_consumers(&self, entry: &Entry, group: Group) -> Vec<ConsumerInfo> {
        let mem = self.held.view(entry.shard);
        let info = |consumer: Consumer| {
            let head = consumer.load(&mem);
            ConsumerInfo {
                consumer,
                seen: head.seen,
                active: Some(head.active).filter(|active| *active >= 0),
                pending: head.pending.len,
            }
        };
        consumers(&mem, group).map(info).collect()
    }

    /// A consumer by its name.
    pub fn consumer(&self, entry: &Entry, group: Group, name: &[u8]) -> Option<Consumer> {
        let mem = self.held.view(entry.shard);
        find(&mem, group.consumers(), name, CONSUMER).map(Consumer)
    }

    /// Calls `with` with the name of a consumer.
    pub fn consumer_name<R>(
        &self,
        entry: &Entry,
        consumer: Consumer,
        with: impl FnOnce(&[u8]) -> R,
    ) -> R {
        with(consumer.name(&self.held.view(entry.shard)))
    }

    /// Creates a consumer with a new name. Does not notify watchers.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn consumer_create(
        &mut self,
        entry: &Entry,
        group: Group,
        name: &[u8],
    ) -> Result<Consumer, OutOfMemory> {
        let now = self.now;
        let made = create_consumer(&mut self.held.mem(entry.shard), group, name, (now, NEVER))?;
        self.changed(entry.shard);
        Ok(made)
    }

    /// Creates a consumer with a new name and the times of another one. Does not notify watchers.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn consumer_restore(
        &mut self,
        entry: &Entry,
        group: Group,
        name: &[u8],
        other: &ConsumerInfo,
    ) -> Result<Consumer, OutOfMemory> {
        let made = create_consumer(
            &mut self.held.mem(entry.shard),
            group,
            name,
            (other.seen, other.active.unwrap_or(NEVER)),
        )?;
        self.changed(entry.shard);
        Ok(made)
    }

    /// Records that a consumer tries to read or claim entries now.
    pub fn consumer_seen(&mut self, entry: &Entry, consumer: Consumer) {
        let seen = consumer.0 + offset_of!(ConsumerHead, seen) as u64;
        let now = self.now;
        self.held.mem(entry.shard).write(Offset::new(seen), now);
    }

    /// Records that a consumer gets entries now that are pending from then on.
    pub fn consumer_active(&mut self, entry: &Entry, consumer: Consumer) {
        let active = consumer.0 + offset_of!(ConsumerHead, active) as u64;
        let now = self.now;
        self.held.mem(entry.shard).write(Offset::new(active), now);
    }

    /// Deletes a consumer and its pending entries; returns their number. Does not notify watchers.
    pub fn consumer_delete(&mut self, entry: &Entry, group: Group, consumer: Consumer) -> u64 {
        let mut mem = self.held.mem(entry.shard);
        let pending = consumer.pending().len(&mem);
        while let Some(last) = consumer.pending().last(&mem) {
            let id = PendingEntry::load(&mem, last.item).id;
            pending::remove(&mut mem, group, id);
        }
        let name = consumer.name(&mem).to_vec();
        let by_name = ByGroupName { name: &name, head: CONSUMER };
        group.consumers().remove(&mut mem, name_key(&name), &by_name);
        consumer.release(&mut mem);
        self.changed(entry.shard);
        pending
    }
}

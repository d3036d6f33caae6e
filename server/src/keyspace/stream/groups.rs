//! Groups of consumers.

use std::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::arena::{Mem, Offset, OutOfMemory, rounded};
use crate::collections::tree::{self, Tree};
use crate::keyspace::shards::Entry;
use crate::keyspace::values::Digest;
use crate::keyspace::{DbIndex, Key, Shards};

use super::pending::{self, Claim, NOTE, Note, Pending};
use super::{Root, StreamId};

/// A group of a stream. Good until it is destroyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group(pub(super) u64);

/// A consumer of a group. Good until it is deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Consumer(pub(super) u64);

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct GroupHead {
    pub next: u64,
    pub last: StreamId,
    /// Entries that were read; below 0 if nobody knows.
    pub read: i64,
    pub pending: tree::Root,
    pub consumers: u64,
    pub name_len: u64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ConsumerHead {
    pub next: u64,
    pub seen: i64,
    /// Below 0 if it never was.
    pub active: i64,
    pub pending: tree::Root,
    pub name_len: u64,
}

pub(super) const GROUP: u64 = size_of::<GroupHead>() as u64;
pub(super) const CONSUMER: u64 = size_of::<ConsumerHead>() as u64;

/// What a group is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupInfo {
    /// The group.
    pub group: Group,
    /// Its name.
    pub name: Vec<u8>,
    /// The last entry that was handed out.
    pub last: StreamId,
    /// How many were, if that is known.
    pub read: Option<u64>,
    /// Pending entries.
    pub pending: u64,
}

/// What a consumer is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerInfo {
    /// The consumer.
    pub consumer: Consumer,
    /// Its name.
    pub name: Vec<u8>,
    /// When it last asked, wall clock in milliseconds.
    pub seen: i64,
    /// When it last got something.
    pub active: Option<i64>,
    /// Pending entries.
    pub pending: u64,
}

impl Group {
    pub(super) fn load(self, mem: &Mem<'_>) -> GroupHead {
        mem.read(Offset::new(self.0))
    }

    pub(super) const fn pending(self) -> Tree {
        Tree::at(Offset::new(self.0 + offset_of!(GroupHead, pending) as u64))
    }

    const fn consumers(self) -> Offset<u64> {
        Offset::new(self.0 + offset_of!(GroupHead, consumers) as u64)
    }

    fn name<'m>(self, mem: &'m Mem<'_>) -> &'m [u8] {
        mem.bytes(self.0 + GROUP, self.load(mem).name_len)
    }

    fn set(self, mem: &mut Mem<'_>, last: StreamId, read: Option<u64>) {
        let read = read.and_then(|read| i64::try_from(read).ok()).unwrap_or(-1);
        mem.write(Offset::new(self.0 + offset_of!(GroupHead, last) as u64), last);
        mem.write(Offset::new(self.0 + offset_of!(GroupHead, read) as u64), read);
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
        mem.bytes(self.0 + CONSUMER, self.load(mem).name_len)
    }

    fn release(self, mem: &mut Mem<'_>) {
        let size = CONSUMER + self.load(mem).name_len;
        mem.release(self.0, size);
    }
}

/// The places in a list that is linked through the first word of each.
pub(super) fn linked<'m>(mem: &'m Mem<'_>, first: u64) -> impl Iterator<Item = u64> + 'm {
    let mut at = first;
    std::iter::from_fn(move || {
        let here = at;
        (here != 0).then(|| {
            at = mem.read(Offset::new(here));
            here
        })
    })
}

fn groups<'m>(mem: &'m Mem<'_>, root: Root) -> impl Iterator<Item = Group> + 'm {
    linked(mem, mem.read(root.groups())).map(Group)
}

fn consumers<'m>(mem: &'m Mem<'_>, group: Group) -> impl Iterator<Item = Consumer> + 'm {
    linked(mem, mem.read(group.consumers())).map(Consumer)
}

/// Number of groups.
pub(super) fn count(mem: &Mem<'_>, root: Root) -> u64 {
    groups(mem, root).count() as u64
}

/// Puts an object into a list before the first that `is_behind` it.
fn link(mem: &mut Mem<'_>, list: Offset<u64>, at: u64, is_behind: impl Fn(&Mem<'_>, u64) -> bool) {
    let mut link = list;
    loop {
        let next = mem.read(link);
        if next == 0 || is_behind(mem, next) {
            mem.write(Offset::new(at), next);
            mem.write(link, at);
            return;
        }
        link = Offset::new(next);
    }
}

/// Takes an object out of a list.
fn unlink(mem: &mut Mem<'_>, list: Offset<u64>, at: u64) {
    let mut link = list;
    while mem.read(link) != at {
        link = Offset::new(mem.read(link));
    }
    let next: u64 = mem.read(Offset::new(at));
    mem.write(link, next);
}

fn create_group(
    mem: &mut Mem<'_>,
    root: Root,
    name: &[u8],
    last: StreamId,
    read: i64,
) -> Result<Group, OutOfMemory> {
    let name_len = name.len() as u64;
    let at = mem.allocate(GROUP + name_len)?;
    let pending = tree::Root::EMPTY;
    mem.write(Offset::new(at), GroupHead { next: 0, last, read, pending, consumers: 0, name_len });
    mem.bytes_mut(at + GROUP, name_len).copy_from_slice(name);
    link(mem, root.groups(), at, |mem, other| Group(other).name(mem) > name);
    Ok(Group(at))
}

fn create_consumer(
    mem: &mut Mem<'_>,
    group: Group,
    name: &[u8],
    seen: i64,
    active: i64,
) -> Result<Consumer, OutOfMemory> {
    let name_len = name.len() as u64;
    let at = mem.allocate(CONSUMER + name_len)?;
    let pending = tree::Root::EMPTY;
    mem.write(Offset::new(at), ConsumerHead { next: 0, seen, active, pending, name_len });
    mem.bytes_mut(at + CONSUMER, name_len).copy_from_slice(name);
    link(mem, group.consumers(), at, |mem, other| Consumer(other).name(mem) > name);
    Ok(Consumer(at))
}

/// Frees about `most` pending entries of a group, and the group with the last; tells whether it is
/// gone.
fn free_group(mem: &mut Mem<'_>, root: Root, group: Group, most: usize) -> bool {
    let mut consumer = mem.read(group.consumers());
    while consumer != 0 {
        let here = Consumer(consumer);
        if !here.pending().drain(mem, most, |_, _| {}) {
            return false;
        }
        consumer = here.load(mem).next;
        mem.write(group.consumers(), consumer);
        here.release(mem);
    }
    if !group.pending().drain(mem, most, |mem, entry| mem.release(entry.item, NOTE)) {
        return false;
    }
    unlink(mem, root.groups(), group.0);
    let size = GROUP + group.load(mem).name_len;
    mem.release(group.0, size);
    true
}

/// Frees about `most` pending entries of a stream, and its groups with them; tells whether all are
/// gone.
pub(super) fn free_some(mem: &mut Mem<'_>, root: Root, most: usize) -> bool {
    match mem.read(root.groups()) {
        0 => true,
        first => free_group(mem, root, Group(first), most) && mem.read(root.groups()) == 0,
    }
}

/// Copies all groups to a stream without groups.
pub(super) fn copy(mem: &mut Mem<'_>, source: Root, to: Root) -> Result<(), OutOfMemory> {
    let all: Vec<Group> = groups(mem, source).collect();
    for old in all {
        let head = old.load(mem);
        let name = old.name(mem).to_vec();
        let group = create_group(mem, to, &name, head.last, head.read)?;
        let all: Vec<Consumer> = consumers(mem, old).collect();
        for old in all {
            let head = old.load(mem);
            let name = old.name(mem).to_vec();
            let consumer = create_consumer(mem, group, &name, head.seen, head.active)?;
            let notes: Vec<Pending> = old
                .pending()
                .ascending(mem, 0)
                .map(|entry| Pending::load(mem, entry.item))
                .collect();
            for note in notes {
                let (delivered_at, deliveries) = (note.delivered_at, note.deliveries);
                let claim = Claim { consumer, delivered_at, deliveries };
                pending::put(mem, group, note.id, &claim)?;
            }
        }
    }
    Ok(())
}

/// Bytes of all groups.
pub(super) fn usage(mem: &Mem<'_>, root: Root) -> u64 {
    /// Entries in two trees.
    const LEAVES: u64 = 48;
    let of_group = |group: Group| {
        let own = rounded(GROUP + group.load(mem).name_len);
        let names = consumers(mem, group).map(|c| rounded(CONSUMER + c.load(mem).name_len));
        own + names.sum::<u64>() + group.pending().len(mem) * (rounded(NOTE) + LEAVES)
    };
    groups(mem, root).map(of_group).sum()
}

/// Adds what a stream's groups are.
pub(super) fn digest(mem: &Mem<'_>, root: Root, digest: &mut Digest) {
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
                let note: Note = mem.read(Offset::new(entry.item));
                digest.add_number(note.id.ms.cast_signed());
                digest.add_number(note.id.seq.cast_signed());
                digest.add_number(note.time);
                digest.add_number(note.count.cast_signed());
            }
        }
    }
}

fn group_info(mem: &Mem<'_>, group: Group) -> GroupInfo {
    let head = group.load(mem);
    GroupInfo {
        group,
        name: group.name(mem).to_vec(),
        last: head.last,
        read: u64::try_from(head.read).ok(),
        pending: head.pending.len,
    }
}

impl Shards<'_> {
    /// A group by its name.
    pub fn stream_group(&self, entry: &Entry, name: &[u8]) -> Option<GroupInfo> {
        let mem = self.held.view(entry.shard);
        let group = groups(&mem, self.stream_root(entry)).find(|group| group.name(&mem) == name)?;
        Some(group_info(&mem, group))
    }

    /// All groups, in the order of their names.
    pub fn stream_groups(&self, entry: &Entry) -> Vec<GroupInfo> {
        let mem = self.held.view(entry.shard);
        groups(&mem, self.stream_root(entry)).map(|group| group_info(&mem, group)).collect()
    }

    /// Makes a group whose name is new.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn group_create(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        entry: &Entry,
        name: &[u8],
        last: StreamId,
        read: Option<u64>,
    ) -> Result<(), OutOfMemory> {
        let root = self.stream_root(entry);
        let read = read.and_then(|read| i64::try_from(read).ok()).unwrap_or(-1);
        create_group(&mut self.held.mem(entry.shard), root, name, last, read)?;
        self.touched(db, key);
        Ok(())
    }

    /// Sets the last entry that a group was handed, and how many there were.
    pub fn group_set(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        group: Group,
        last: StreamId,
        read: Option<u64>,
    ) {
        group.set(&mut self.held.mem(key.shard), last, read);
        self.touched(db, key);
    }

    /// Destroys a group.
    pub fn group_destroy(&mut self, db: DbIndex, key: &Key<'_>, entry: &Entry, group: Group) {
        let root = self.stream_root(entry);
        let mut mem = self.held.mem(entry.shard);
        while !free_group(&mut mem, root, group, usize::MAX) {}
        self.touched(db, key);
    }

    /// All consumers of a group, in the order of their names.
    pub fn group_consumers(&self, entry: &Entry, group: Group) -> Vec<ConsumerInfo> {
        let mem = self.held.view(entry.shard);
        let info = |consumer: Consumer| {
            let head = consumer.load(&mem);
            ConsumerInfo {
                consumer,
                name: consumer.name(&mem).to_vec(),
                seen: head.seen,
                active: (head.active >= 0).then_some(head.active),
                pending: head.pending.len,
            }
        };
        consumers(&mem, group).map(info).collect()
    }

    /// A consumer by its name.
    pub fn consumer(&self, entry: &Entry, group: Group, name: &[u8]) -> Option<Consumer> {
        let mem = self.held.view(entry.shard);
        consumers(&mem, group).find(|consumer| consumer.name(&mem) == name)
    }

    /// The name of a consumer.
    pub fn consumer_name(&self, entry: &Entry, consumer: Consumer) -> Vec<u8> {
        consumer.name(&self.held.view(entry.shard)).to_vec()
    }

    /// Makes a consumer whose name is new in its group.
    ///
    /// # Errors
    /// The arena is full; nothing has changed.
    pub fn consumer_create(
        &mut self,
        key: &Key<'_>,
        group: Group,
        name: &[u8],
    ) -> Result<Consumer, OutOfMemory> {
        let now = self.now;
        let made = create_consumer(&mut self.held.mem(key.shard), group, name, now, -1)?;
        self.changed(key.shard);
        Ok(made)
    }

    /// Notes that a consumer asked, and if it `is_active` that it got something.
    pub fn consumer_seen(&mut self, key: &Key<'_>, consumer: Consumer, is_active: bool) {
        let now = self.now;
        let mut mem = self.held.mem(key.shard);
        let (seen, active) = (offset_of!(ConsumerHead, seen), offset_of!(ConsumerHead, active));
        mem.write(Offset::new(consumer.0 + seen as u64), now);
        if is_active {
            mem.write(Offset::new(consumer.0 + active as u64), now);
        }
    }

    /// Deletes a consumer and what is pending for it; returns how many entries that were.
    pub fn consumer_delete(
        &mut self,
        db: DbIndex,
        key: &Key<'_>,
        group: Group,
        consumer: Consumer,
    ) -> u64 {
        let mut mem = self.held.mem(key.shard);
        let ids: Vec<StreamId> = consumer
            .pending()
            .ascending(&mem, 0)
            .map(|entry| Pending::load(&mem, entry.item).id)
            .collect();
        for id in &ids {
            pending::remove(&mut mem, group, *id);
        }
        unlink(&mut mem, group.consumers(), consumer.0);
        consumer.release(&mut mem);
        self.touched(db, key);
        ids.len() as u64
    }
}

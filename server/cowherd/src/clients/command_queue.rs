//! The commands that a connection has queued since MULTI, and the type of its watched keys.
//!
//! Requests are copied into one buffer, since the read buffer they came in is reused.
//!
//! Invariant: [`CommandQueue::shards`] returns the shards of all queued commands' keys. They are
//! computed again if keys have been relocated to other shards since the first command was queued.

use std::collections::BTreeSet;

use crate::keyspace::{DbIndex, Keyspace, ShardSet};
use cowherd_resp::{ArgSpan, Args};

/// The keys that a connection watches.
pub(super) type WatchedKeys = BTreeSet<(DbIndex, Box<[u8]>)>;

/// The commands that a connection has queued since MULTI.
#[derive(Debug, Default)]
pub(crate) struct CommandQueue {
    bytes: Vec<u8>,
    spans: Vec<ArgSpan>,
    commands: Vec<QueueEntry>,
    flags: u32,
    shards: ShardSet,
    /// The keyspace's relocation count when the shards of the first command were computed.
    relocations: u64,
    aborted: bool,
}

#[derive(Clone, Copy, Debug)]
struct QueueEntry {
    row: usize,
    /// End of the entry's range in `spans`; the range begins at the end of the entry before.
    end: usize,
    first_hash: Option<u64>,
}

/// A queued command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueuedCommand<'q> {
    /// Number of its row in the command table.
    pub(crate) row: usize,
    /// The arguments; the name is argument 0.
    pub(crate) args: Args<'q>,
    /// Hash of the first key.
    pub(crate) first_hash: Option<u64>,
}

impl CommandQueue {
    /// Appends a command with the given flag bits, which locks `shards`, as computed when the
    /// keyspace had counted `relocations`.
    pub(crate) fn push(
        &mut self,
        command: QueuedCommand<'_>,
        flags: u32,
        shards: ShardSet,
        relocations: u64,
    ) {
        // The count of the first command is the oldest: it is out of date first.
        if self.commands.is_empty() {
            self.relocations = relocations;
        }
        for arg in command.args {
            self.spans.push(ArgSpan { start: self.bytes.len(), len: arg.len() });
            self.bytes.extend_from_slice(arg);
        }
        self.flags |= flags;
        self.shards = self.shards | shards;
        let QueuedCommand { row, first_hash, .. } = command;
        self.commands.push(QueueEntry { row, end: self.spans.len(), first_hash });
    }

    /// Marks the transaction as aborted because a command was refused.
    pub(crate) const fn abort(&mut self) {
        self.aborted = true;
    }

    /// Whether a command was refused, so that EXEC has to fail.
    pub(crate) const fn is_aborted(&self) -> bool {
        self.aborted
    }

    /// Number of commands.
    pub(crate) const fn len(&self) -> usize {
        self.commands.len()
    }

    /// Total size of all arguments in bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of memory that the queue has allocated.
    pub(crate) const fn memory(&self) -> usize {
        self.bytes.capacity()
            + self.spans.capacity() * size_of::<ArgSpan>()
            + self.commands.capacity() * size_of::<QueueEntry>()
    }

    /// Union of the flag bits of all commands.
    pub(crate) const fn flag_bits(&self) -> u32 {
        self.flags
    }

    /// The shards that all commands lock now. `shards_of` computes those of one command.
    pub(crate) fn shards(
        &self,
        keyspace: &Keyspace,
        shards_of: impl FnMut(QueuedCommand<'_>) -> ShardSet,
    ) -> ShardSet {
        if keyspace.relocations() == self.relocations {
            return self.shards;
        }
        self.iter().map(shards_of).collect()
    }

    /// The commands in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = QueuedCommand<'_>> {
        let mut begin = 0;
        self.commands.iter().map(move |entry| {
            let spans = &self.spans[begin..entry.end];
            begin = entry.end;
            let args = Args::new(&self.bytes, spans);
            QueuedCommand { row: entry.row, args, first_hash: entry.first_hash }
        })
    }
}

//! The commands that a connection has queued since MULTI, and the keys that it watches.
//!
//! Invariant: `CommandQueue::shards` returns the shards of all queued commands' keys. They are
//! computed again if keys have moved to other shards meanwhile.

use std::collections::BTreeSet;

use crate::keyspace::{DbIndex, Keyspace, ShardSet};
use cowherd_resp::{ArgSpan, Args};

/// Keys that a connection watches.
pub(super) type WatchedKeys = BTreeSet<(DbIndex, Box<[u8]>)>;

/// The commands that a connection has queued since MULTI.
#[derive(Debug, Default)]
pub struct CommandQueue {
    bytes: Vec<u8>,
    spans: Vec<ArgSpan>,
    commands: Vec<QueueEntry>,
    /// Union of the flags of all commands, as bits that the command table defines.
    flags: u32,
    shards: ShardSet,
    /// How often keys had moved when the shards of the first command were found.
    moves: u64,
    /// A command was refused: EXEC will be too.
    aborted: bool,
}

#[derive(Clone, Copy, Debug)]
struct QueueEntry {
    row: usize,
    /// Where its spans end; they begin where those of the one before end.
    end: usize,
    /// Hash of its first key.
    first_hash: Option<u64>,
}

/// A queued command.
#[derive(Clone, Copy, Debug)]
pub struct QueuedCommand<'q> {
    /// Number of its row in the table.
    pub row: usize,
    /// Its arguments.
    pub args: Args<'q>,
    /// Hash of its first key.
    pub first_hash: Option<u64>,
}

impl CommandQueue {
    /// Adds a command that locks `shards`, as was planned after `moves` moves of keys.
    pub fn push(&mut self, command: QueuedCommand<'_>, flags: u32, shards: ShardSet, moves: u64) {
        // What was planned first counts: it may be out of date first.
        if self.commands.is_empty() {
            self.moves = moves;
        }
        for arg in command.args {
            self.spans.push(ArgSpan { start: self.bytes.len(), len: arg.len() });
            self.bytes.extend_from_slice(arg);
        }
        self.flags |= flags;
        self.shards = self.shards | shards;
        self.commands.push(QueueEntry {
            row: command.row,
            end: self.spans.len(),
            first_hash: command.first_hash,
        });
    }

    /// Notes that a command was refused.
    pub const fn abort(&mut self) {
        self.aborted = true;
    }

    /// Number of commands.
    pub const fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether there is no command.
    pub const fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Bytes of all arguments.
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of memory that the queue takes.
    pub const fn memory(&self) -> usize {
        self.bytes.capacity()
            + self.spans.capacity() * size_of::<ArgSpan>()
            + self.commands.capacity() * size_of::<QueueEntry>()
    }

    /// Whether a command was refused, so that EXEC has to fail.
    pub const fn is_aborted(&self) -> bool {
        self.aborted
    }

    /// Union of the flags of all commands, as bits that the command table defines.
    pub const fn flag_bits(&self) -> u32 {
        self.flags
    }

    /// The shards of all commands, as keys live now. `shards_of` computes those of one command.
    pub fn shards(
        &self,
        keyspace: &Keyspace,
        shards_of: impl FnMut(QueuedCommand<'_>) -> ShardSet,
    ) -> ShardSet {
        if keyspace.relocations() == self.moves {
            return self.shards;
        }
        self.iter().map(shards_of).collect()
    }

    /// The commands in order.
    pub fn iter(&self) -> impl Iterator<Item = QueuedCommand<'_>> {
        let mut begin = 0;
        self.commands.iter().map(move |queued| {
            let spans = &self.spans[begin..queued.end];
            begin = queued.end;
            let args = Args::new(&self.bytes, spans);
            QueuedCommand { row: queued.row, args, first_hash: queued.first_hash }
        })
    }
}

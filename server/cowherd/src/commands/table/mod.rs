//! The command table: one [`Command`] row per command and subcommand, and the [`CommandTable`] that
//! a running server looks requests up in.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | the row, and the lookup by name |
//! | `flags` | the properties of a command |
//! | `key_positions` | which arguments are keys, and how a command uses them |

mod flags;
mod key_positions;

use std::collections::HashMap;
use std::mem::offset_of;

use crate::keyspace::{Keyspace, ShardSet};
use cowherd_resp::Args;

use super::call::Call;
use super::error_reply::{CommandResult, ErrorReply};

pub use flags::CommandFlags;
pub use key_positions::{KeyCountError, KeyPositions, KeyUse, KeyWords, OptionKey, after_streams};

/// The function that executes a command.
pub type Handler = fn(&mut Call<'_>) -> CommandResult;

/// Which shards the engine locks for a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockScope {
    /// The shards of the command's keys.
    Keys,
    /// All shards.
    All,
    /// No shard: the handler locks what it needs.
    Handler,
}

/// The part of the documentation that a command belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandGroup {
    /// Bits of strings.
    Bitmap,
    /// Clusters, which the server cannot be part of.
    Cluster,
    /// Connections and clients.
    Connection,
    /// Keys of any type.
    Generic,
    /// Positions on the globe.
    Geo,
    /// Hashes.
    Hash,
    /// Sketches that estimate the number of elements.
    HyperLogLog,
    /// Lists.
    List,
    /// Publish/subscribe.
    PubSub,
    /// Scripts and functions.
    Scripting,
    /// Administration.
    Server,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// Streams.
    Stream,
    /// Strings.
    String,
    /// Commands of unit tests.
    #[cfg(test)]
    Testing,
    /// Transactions.
    Transactions,
}

impl CommandGroup {
    /// The name for COMMAND DOCS.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bitmap => "bitmap",
            Self::Cluster => "cluster",
            Self::Connection => "connection",
            Self::Generic => "generic",
            Self::Geo => "geo",
            Self::Hash => "hash",
            Self::HyperLogLog => "hyperloglog",
            Self::List => "list",
            Self::PubSub => "pubsub",
            Self::Scripting => "scripting",
            Self::Server => "server",
            Self::Set => "set",
            Self::SortedSet => "sorted-set",
            Self::Stream => "stream",
            Self::String => "string",
            #[cfg(test)]
            Self::Testing => "testing",
            Self::Transactions => "transactions",
        }
    }

    /// The ACL category that the commands of a group are in, unless a row names others.
    const fn categories(self) -> &'static [&'static str] {
        match self {
            Self::Bitmap => &["@bitmap"],
            Self::Connection => &["@connection"],
            Self::Generic => &["@keyspace"],
            Self::Geo => &["@geo"],
            Self::Hash => &["@hash"],
            Self::HyperLogLog => &["@hyperloglog"],
            Self::List => &["@list"],
            Self::Scripting => &["@scripting"],
            Self::Set => &["@set"],
            Self::SortedSet => &["@sortedset"],
            Self::Stream => &["@stream"],
            Self::String => &["@string"],
            Self::Transactions => &["@transaction"],
            // The category of publish/subscribe follows from `CommandFlags::PUBSUB`.
            Self::PubSub | Self::Cluster | Self::Server => &[],
            #[cfg(test)]
            Self::Testing => &[],
        }
    }
}

/// All properties of a command or a subcommand: a row of the table.
///
/// A row is made by [`Command::new`] and the `const` methods, in a family's `COMMANDS`. The fields
/// that every request reads stand first and fill one cache line; the fields behind them serve
/// COMMAND and the logs.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Command {
    /// The function that executes the command.
    pub handler: Handler,
    /// The positions of its keys.
    pub keys: KeyPositions,
    /// The number of arguments with the name, and with the command's name for a subcommand;
    /// negative: the least number.
    pub arity: isize,
    /// Its properties.
    pub flags: CommandFlags,
    /// The shards that the engine locks for it.
    pub locks: LockScope,

    /// The name in lower case, of a subcommand without the command's name.
    pub name: &'static str,
    /// The subcommands; the handler executes only requests that name none of them.
    pub subcommands: &'static [Command],
    /// The group in the documentation.
    pub group: CommandGroup,
    /// The first version of Redis that has the command.
    pub since: &'static str,
    /// One sentence for COMMAND DOCS.
    pub summary: &'static str,
    /// The arguments after the name, in the notation of `command/syntax.rs`.
    pub syntax: &'static str,
    /// How the command uses its keys, or the first or uncounted ones.
    pub key_use: KeyUse,
    /// How the command uses its other keys, if differently.
    pub other_key_use: Option<KeyUse>,
    /// How a request with these arguments uses its first key, where options decide.
    pub key_use_of: Option<fn(&Args<'_>) -> KeyUse>,
    /// Keys that options name, beside those at [`Self::keys`]. The engine does not lock their
    /// shards by itself: a command that has some locks all shards.
    pub option_keys: &'static [OptionKey],
    /// ACL categories in place of those of the group.
    categories: Option<&'static [&'static str]>,
    /// Hints for clients and proxies.
    pub hints: &'static [&'static str],
    /// The version of Redis that discourages its use, and what replaces it.
    pub deprecated: Option<(&'static str, &'static str)>,
    /// Whether it serves other servers or tests, and no ordinary clients.
    pub is_system: bool,
}

const _: () = assert!(offset_of!(Command, name) == 64, "the hot fields fill one cache line");

impl Command {
    /// A command without keys; other properties are added by the methods below.
    pub const fn new(
        name: &'static str,
        arity: isize,
        flags: CommandFlags,
        handler: Handler,
    ) -> Self {
        Self {
            handler,
            keys: KeyPositions::NONE,
            arity,
            flags,
            locks: LockScope::Keys,
            name,
            subcommands: &[],
            group: CommandGroup::Generic,
            since: "",
            summary: "",
            syntax: "",
            key_use: KeyUse::READ,
            other_key_use: None,
            key_use_of: None,
            option_keys: &[],
            categories: None,
            hints: &[],
            deprecated: None,
            is_system: false,
        }
    }

    /// A command that does nothing without one of its subcommands, and is in no ACL category.
    pub const fn container(name: &'static str) -> Self {
        Self::new(name, -2, CommandFlags::NONE, no_subcommand).categories(&[])
    }

    /// Sets the positions of the keys and their use.
    pub const fn keys(mut self, keys: KeyPositions, key_use: KeyUse) -> Self {
        self.keys = keys;
        self.key_use = key_use;
        self
    }

    /// Sets the use of all keys but the first, or of the counted ones.
    pub const fn other_keys(mut self, key_use: KeyUse) -> Self {
        self.other_key_use = Some(key_use);
        self
    }

    /// Sets the function that finds how a request uses its first key.
    pub const fn key_use_of(mut self, key_use_of: fn(&Args<'_>) -> KeyUse) -> Self {
        self.key_use_of = Some(key_use_of);
        self
    }

    /// Sets the keys that options name, and locks all shards.
    pub const fn option_keys(mut self, option_keys: &'static [OptionKey]) -> Self {
        self.option_keys = option_keys;
        self.locking(LockScope::All)
    }

    /// Sets the locked shards, which are those of the keys otherwise.
    pub const fn locking(mut self, locks: LockScope) -> Self {
        self.locks = locks;
        self
    }

    /// Sets the subcommands.
    pub const fn subcommands(mut self, subcommands: &'static [Self]) -> Self {
        self.subcommands = subcommands;
        self
    }

    /// Sets the ACL categories, in place of those of the group.
    pub const fn categories(mut self, categories: &'static [&'static str]) -> Self {
        self.categories = Some(categories);
        self
    }

    /// Sets the hints for clients and proxies.
    pub const fn hints(mut self, hints: &'static [&'static str]) -> Self {
        self.hints = hints;
        self
    }

    /// Discourages the use since a version of Redis.
    pub const fn deprecated(mut self, since: &'static str, replaced_by: &'static str) -> Self {
        self.deprecated = Some((since, replaced_by));
        self
    }

    /// Marks a command that serves other servers or tests.
    pub const fn system(mut self) -> Self {
        self.is_system = true;
        self
    }

    /// Sets the arguments.
    pub const fn syntax(mut self, syntax: &'static str) -> Self {
        self.syntax = syntax;
        self
    }

    /// Sets the documentation.
    pub const fn doc(
        mut self,
        group: CommandGroup,
        since: &'static str,
        summary: &'static str,
    ) -> Self {
        self.group = group;
        self.since = since;
        self.summary = summary;
        self
    }

    /// Whether the positions of the keys depend on the values of arguments.
    pub const fn has_movable_keys(&self) -> bool {
        self.keys.is_movable() || !self.option_keys.is_empty()
    }

    /// The ACL categories that do not follow from the flags.
    pub fn acl_categories(&self) -> &'static [&'static str] {
        self.categories.unwrap_or_else(|| self.group.categories())
    }

    /// Whether a request may have this number of arguments, names included.
    #[inline]
    pub const fn accepts(&self, arguments: usize) -> bool {
        if self.arity >= 0 {
            arguments == self.arity.unsigned_abs()
        } else {
            arguments >= self.arity.unsigned_abs()
        }
    }

    /// The shards to lock for a call with these arguments. `first_hash` is the hash of the first
    /// key, if that is known already.
    #[inline]
    pub fn shards(
        &self,
        keyspace: &Keyspace,
        args: &Args<'_>,
        first_hash: Option<u64>,
    ) -> ShardSet {
        match self.locks {
            LockScope::Handler => ShardSet::NONE,
            LockScope::All => ShardSet::ALL,
            LockScope::Keys => {
                let first = first_hash.map_or(ShardSet::NONE, |hash| keyspace.shards_of(hash));
                let keys = self.keys;
                let one = !keys.is_movable() && keys.last == keys.first.cast_signed();
                if keys.first == 0 && !keys.is_movable() || one && first_hash.is_some() {
                    return first;
                }
                let others = keys.positions(args).skip(usize::from(first_hash.is_some()));
                others.fold(first, |set, i| set | keyspace.shards_of(keyspace.hash(args.at(i))))
            }
        }
    }
}

/// The handler of a container.
fn no_subcommand(call: &mut Call<'_>) -> CommandResult {
    Err(ErrorReply::unknown_subcommand(&call.args))
}

/// A command or a subcommand under the name that clients of this server use.
#[derive(Debug)]
pub struct CommandRow {
    /// The command.
    pub command: &'static Command,
    /// The full name after any renaming, such as `get` or `client|list`.
    pub name: String,
    /// The index in the table, by which statistics are kept.
    pub number: usize,
    /// The indexes of the subcommands' rows.
    pub subcommands: Vec<usize>,
}

impl CommandRow {
    /// The error for a request with too few or too many arguments.
    pub fn wrong_arity(&self) -> ErrorReply {
        ErrorReply::text(format!("ERR wrong number of arguments for '{}' command", self.name))
    }
}

/// The commands of a running server by name: an open-addressing hash table over the rows.
#[derive(Debug)]
pub struct CommandTable {
    rows: Vec<CommandRow>,
    slots: Box<[u16]>,
    by_name: HashMap<String, usize>,
}

/// More than ten times the number of commands, so that a lookup hits its first slot nearly always.
const SLOTS: usize = 4096;
const EMPTY: u16 = u16::MAX;
/// No command has a longer name; a longer one is not hashed.
const MAX_NAME: usize = 64;

/// A hash of a name that ignores the case of letters (FNV-1a).
#[inline]
fn slot_of(name: &[u8]) -> usize {
    let mut hash = 0x811c_9dc5u32;
    for byte in name {
        hash = (hash ^ u32::from(byte | 0x20)).wrapping_mul(0x0100_0193);
    }
    (hash >> 12) as usize % SLOTS
}

impl CommandTable {
    /// The table of all `commands` after `renames`, pairs of an old and a new name; an empty new
    /// name removes the command.
    ///
    /// # Errors
    /// An old name that no command has, or a new one that another command has.
    pub fn new(
        commands: impl Iterator<Item = &'static Command>,
        renames: &[(String, String)],
    ) -> Result<Self, String> {
        let mut named: Vec<(String, &'static Command)> =
            commands.map(|command| (command.name.to_owned(), command)).collect();
        for (from, to) in renames {
            let from = from.to_ascii_lowercase();
            let to = to.to_ascii_lowercase();
            let Some(at) = named.iter().position(|(name, _)| *name == from) else {
                return Err(format!("rename-command: there is no command '{from}'"));
            };
            if to.is_empty() {
                named.remove(at);
            } else if named.iter().any(|(name, _)| *name == to) {
                return Err(format!("rename-command: '{to}' is the name of another command"));
            } else {
                named[at].0 = to;
            }
        }
        let mut table =
            Self { rows: Vec::new(), slots: vec![EMPTY; SLOTS].into(), by_name: HashMap::new() };
        for (name, command) in named {
            let row = table.push(name.clone(), command);
            for sub in command.subcommands {
                let sub_row = table.push(format!("{name}|{}", sub.name), sub);
                table.rows[row].subcommands.push(sub_row);
            }
            table.insert(&name, row);
        }
        Ok(table)
    }

    fn push(&mut self, name: String, command: &'static Command) -> usize {
        let number = self.rows.len();
        self.by_name.insert(name.clone(), number);
        self.rows.push(CommandRow { command, name, number, subcommands: Vec::new() });
        number
    }

    fn insert(&mut self, name: &str, row: usize) {
        let mut slot = slot_of(name.as_bytes());
        while self.slots[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        self.slots[slot] = u16::try_from(row).unwrap_or(EMPTY);
    }

    /// All rows; the subcommands follow their command.
    pub fn rows(&self) -> &[CommandRow] {
        &self.rows
    }

    /// The row of a full name in lower case, such as `client|list`.
    pub fn by_full_name(&self, name: &str) -> Option<&CommandRow> {
        self.by_name.get(name).map(|row| &self.rows[*row])
    }

    /// The row of a command's name in any case.
    #[inline]
    pub fn command(&self, name: &[u8]) -> Option<&CommandRow> {
        if name.len() > MAX_NAME {
            return None;
        }
        let mut slot = slot_of(name);
        loop {
            let row = self.slots[slot];
            if row == EMPTY {
                return None;
            }
            let row = &self.rows[usize::from(row)];
            if row.name.as_bytes().eq_ignore_ascii_case(name) {
                return Some(row);
            }
            slot = (slot + 1) % SLOTS;
        }
    }

    /// The row that executes a request: the subcommand's, if the request names one.
    #[inline]
    pub fn resolve(&self, args: &Args<'_>) -> Option<&CommandRow> {
        let row = self.command(args.get(0)?)?;
        if row.subcommands.is_empty() {
            return Some(row);
        }
        let Some(sub) = args.get(1) else { return Some(row) };
        let mut subs = row.subcommands.iter().map(|i| &self.rows[*i]);
        let found = subs.find(|r| r.command.name.as_bytes().eq_ignore_ascii_case(sub));
        Some(found.unwrap_or(row))
    }
}

//! The command table: what the engine has to know of a command before it runs it, and what clients
//! can ask about it.

use std::collections::HashMap;
use std::ops::BitOr;

use crate::keyspace::{Keyspace, ShardSet};
use cowherd_resp::{Args, parse_u64};

use super::call::Call;
use super::error_reply::CommandResult;

/// What runs a command.
pub type Handler = fn(&mut Call<'_>) -> CommandResult;

/// Properties of a command, a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CommandFlags(u32);

impl CommandFlags {
    /// None.
    pub const NONE: Self = Self(0);
    /// May change keys.
    pub const WRITE: Self = Self(1);
    /// Reads keys and changes none.
    pub const READONLY: Self = Self(1 << 1);
    /// May need memory: refused when there is none.
    pub const DENYOOM: Self = Self(1 << 2);
    /// For administrators.
    pub const ADMIN: Self = Self(1 << 3);
    /// Takes constant or logarithmic time.
    pub const FAST: Self = Self(1 << 4);
    /// Works while data is being loaded.
    pub const LOADING: Self = Self(1 << 5);
    /// Works while data may be out of date.
    pub const STALE: Self = Self(1 << 6);
    /// Works without a password.
    pub const NO_AUTH: Self = Self(1 << 7);
    /// Must not stand in a script.
    pub const NOSCRIPT: Self = Self(1 << 8);
    /// Not allowed in a transaction.
    pub const NO_MULTI: Self = Self(1 << 9);
    /// Runs while clients are paused.
    pub const UNPAUSED: Self = Self(1 << 10);
    /// Is about messages.
    pub const PUBSUB: Self = Self(1 << 13);
    /// May wait for a key.
    pub const BLOCKING: Self = Self(1 << 14);

    /// Runs at once in a transaction instead of being queued.
    pub const UNQUEUED: Self = Self(1 << 11);
    /// Runs what was queued: needs what that needs, and is not slow itself.
    pub const RUNS_QUEUE: Self = Self(1 << 12);

    /// These as bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The flags of bits that [`Self::bits`] returned.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether all of `other` are among these.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`; `|` in constants.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The names that COMMAND INFO answers.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        const NAMES: [(CommandFlags, &str); 13] = [
            (CommandFlags::WRITE, "write"),
            (CommandFlags::READONLY, "readonly"),
            (CommandFlags::DENYOOM, "denyoom"),
            (CommandFlags::ADMIN, "admin"),
            (CommandFlags::PUBSUB, "pubsub"),
            (CommandFlags::NOSCRIPT, "noscript"),
            (CommandFlags::BLOCKING, "blocking"),
            (CommandFlags::LOADING, "loading"),
            (CommandFlags::STALE, "stale"),
            (CommandFlags::FAST, "fast"),
            (CommandFlags::RUNS_QUEUE, "skip_slowlog"),
            (CommandFlags::NO_AUTH, "no_auth"),
            (CommandFlags::NO_MULTI, "no_multi"),
        ];
        NAMES.into_iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| name)
    }
}

impl BitOr for CommandFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

/// Where a command's keys stand among its arguments; the name is argument 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyPositions {
    /// The first key; 0 if there is none, or none before those that are counted.
    pub first: usize,
    /// The last key; below zero it counts from the end, -1 being the last argument.
    pub last: isize,
    /// From one key to the next.
    pub step: usize,
    /// The argument that says how many of those behind it are keys, too; 0 if there is none.
    pub count: usize,
    /// The first argument that the word STREAMS may be; 0 if it does not. The first half of what is
    /// behind it are keys.
    pub streams: usize,
}

impl KeyPositions {
    /// No keys.
    pub const NONE: Self = Self::spread(0, 0, 0);
    /// Argument 1.
    pub const ONE: Self = Self::spread(1, 1, 1);
    /// Arguments 1 and 2.
    pub const TWO: Self = Self::spread(1, 2, 1);
    /// All arguments from 1 on.
    pub const ALL: Self = Self::spread(1, -1, 1);
    /// Every other argument from 1 on.
    pub const PAIRS: Self = Self::spread(1, -1, 2);
    /// Argument 2, behind a subcommand.
    pub const SECOND: Self = Self::spread(2, 2, 1);
    /// As many as argument 1 says, behind it.
    pub const COUNTED: Self = Self { count: 1, ..Self::NONE };
    /// Argument 1, and as many as argument 2 says, behind that.
    pub const ONE_AND_COUNTED: Self = Self { count: 2, ..Self::ONE };

    /// From `first` to `last` in steps.
    pub const fn spread(first: usize, last: isize, step: usize) -> Self {
        Self { first, last, step, count: 0, streams: 0 }
    }

    /// Those behind the word STREAMS, before which stand the options of XREAD and XREADGROUP from
    /// argument `from` on.
    pub const fn streams(from: usize) -> Self {
        Self { streams: from, ..Self::NONE }
    }

    /// Whether there may be any.
    #[inline]
    pub const fn are_there(self) -> bool {
        self.first != 0 || self.moves()
    }

    /// Whether where they are depends on the arguments.
    #[inline]
    pub const fn moves(self) -> bool {
        self.count != 0 || self.streams != 0
    }

    /// The positions of the keys among arguments. Those that are counted are none if their number
    /// is none, or more than there are arguments.
    #[inline]
    pub fn positions(self, args: &Args<'_>) -> impl Iterator<Item = usize> + Clone + use<> {
        let len = args.len();
        let last = match self.last {
            last if last >= 0 => last.unsigned_abs().min(len.saturating_sub(1)),
            back => len.saturating_sub(back.unsigned_abs()),
        };
        let end = if self.first == 0 { 0 } else { last + 1 };
        let counted = match (self.count, self.streams) {
            (0, 0) => 0..0,
            (0, from) => streams(args, from),
            (count, _) => count + 1..count + 1 + counted(args, count),
        };
        (self.first..end).step_by(self.step.max(1)).chain(counted)
    }
}

/// The first half of what is behind the word STREAMS, where that is no value of an option. What is
/// locked hangs on it, so it agrees to the letter with how the handlers read their options.
fn streams(args: &Args<'_>, from: usize) -> std::ops::Range<usize> {
    let mut i = from;
    while let Some(word) = args.get(i) {
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        match () {
            () if is(b"streams") => return i + 1..i + 1 + (args.len() - i - 1) / 2,
            () if is(b"block") || is(b"count") => i += 2,
            () if is(b"group") => i += 3,
            () if is(b"noack") => i += 1,
            () => break,
        }
    }
    0..0
}

/// How many keys follow argument `at`, which says so.
fn counted(args: &Args<'_>, at: usize) -> usize {
    let rest = args.len().saturating_sub(at + 1);
    let number = args.get(at).and_then(parse_u64).and_then(|number| usize::try_from(number).ok());
    number.filter(|number| *number <= rest).unwrap_or(0)
}

/// Which shards the engine locks for a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockScope {
    /// Those of its keys.
    KeyPositions,
    /// All.
    All,
    /// None: the handler locks what it needs.
    Handler,
}

/// A command, or a subcommand.
#[derive(Debug)]
pub struct Command {
    /// Name in lower case, of a subcommand without that of its command.
    pub name: &'static str,
    /// Number of arguments with the name, and with that of the command above; below zero it is
    /// the least number.
    pub arity: isize,
    /// Properties.
    pub flags: CommandFlags,
    /// Where the keys stand.
    pub keys: KeyPositions,
    /// Which shards are locked.
    pub locks: LockScope,
    /// What runs it.
    pub handler: Handler,
    /// Its subcommands; with these, the handler answers only what names none of them.
    pub subcommands: &'static [Command],
    /// Group in the documentation.
    pub group: &'static str,
    /// Version of Redis that had it first.
    pub since: &'static str,
    /// One sentence.
    pub summary: &'static str,
}

/// A subcommand without keys in the group `server`.
pub(super) const fn server_sub(
    name: &'static str,
    arity: isize,
    flags: CommandFlags,
    handler: Handler,
    since: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, flags, KeyPositions::NONE, handler).doc("server", since, summary)
}

impl Command {
    /// The shards that a call with these arguments locks. `first_hash` is the hash of its first
    /// key, if that is known.
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
            LockScope::KeyPositions => {
                let first = first_hash.map_or(ShardSet::NONE, |hash| keyspace.shards_of(hash));
                let keys = self.keys;
                let one = !keys.moves() && keys.last == keys.first.cast_signed();
                if keys.first == 0 && !keys.moves() || one && first_hash.is_some() {
                    return first;
                }
                let others = keys.positions(args).skip(usize::from(first_hash.is_some()));
                others.fold(first, |set, i| set | keyspace.shards_of(keyspace.hash(args.at(i))))
            }
        }
    }

    /// A command that locks the shards of its keys.
    pub const fn new(
        name: &'static str,
        arity: isize,
        flags: CommandFlags,
        keys: KeyPositions,
        handler: Handler,
    ) -> Self {
        Self {
            name,
            arity,
            flags,
            keys,
            locks: LockScope::KeyPositions,
            handler,
            subcommands: &[],
            group: "generic",
            since: "1.0.0",
            summary: "",
        }
    }

    /// With other locks.
    pub const fn locking(mut self, locks: LockScope) -> Self {
        self.locks = locks;
        self
    }

    /// With subcommands.
    pub const fn with(mut self, subcommands: &'static [Command]) -> Self {
        self.subcommands = subcommands;
        self
    }

    /// With documentation.
    pub const fn doc(
        mut self,
        group: &'static str,
        since: &'static str,
        summary: &'static str,
    ) -> Self {
        self.group = group;
        self.since = since;
        self.summary = summary;
        self
    }

    /// Whether a request may have this many arguments.
    #[inline]
    pub const fn accepts(&self, arguments: usize) -> bool {
        if self.arity >= 0 {
            arguments == self.arity.unsigned_abs()
        } else {
            arguments >= self.arity.unsigned_abs()
        }
    }
}

/// A row of the running server's table.
#[derive(Debug)]
pub struct CommandRow {
    /// The command.
    pub command: &'static Command,
    /// Full name as clients know it, such as `get` or `client|list`, after any renaming.
    pub name: String,
    /// Position in the table; statistics are kept by it.
    pub number: usize,
    /// Rows of its subcommands.
    pub subcommands: Vec<usize>,
}

/// The table of a running server: commands by the names that clients use.
#[derive(Debug)]
pub struct CommandTable {
    rows: Vec<CommandRow>,
    slots: Box<[u16]>,
    by_name: HashMap<String, usize>,
}

const SLOTS: usize = 4096;
const EMPTY: u16 = u16::MAX;
/// Longer names are nobody's.
const MAX_NAME: usize = 64;

/// A cheap hash of a name, whatever its case.
#[inline]
fn slot_of(name: &[u8]) -> usize {
    let mut hash = 0x811c_9dc5u32;
    for byte in name {
        hash = (hash ^ u32::from(byte | 0x20)).wrapping_mul(0x0100_0193);
    }
    (hash >> 12) as usize % SLOTS
}

impl CommandTable {
    /// The table of all `commands`, some renamed: (old name, new name or nothing).
    ///
    /// # Errors
    /// A name that no command has, or a new one that some command has.
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

    /// All rows, subcommands after their commands.
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

    /// The row that a request is for: the subcommand's, if it names one.
    #[inline]
    pub fn resolve(&self, args: &Args<'_>) -> Option<&CommandRow> {
        let row = self.command(args.get(0)?)?;
        if row.subcommands.is_empty() {
            return Some(row);
        }
        let Some(sub) = args.get(1) else { return Some(row) };
        let found = row.subcommands.iter().map(|i| &self.rows[*i]);
        Some(
            found
                .into_iter()
                .find(|r| r.command.name.as_bytes().eq_ignore_ascii_case(sub))
                .unwrap_or(row),
        )
    }
}

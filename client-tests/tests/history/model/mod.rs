//! The sequential model: the effect of each command on the keys of a group when nothing else runs.
//!
//! [`State::run`] executes one command and returns the reply of a correct server. The model has no
//! encodings, shards or memory limits; a family of commands is a plain function over standard
//! collections. A command that chooses (`SPOP`, `XADD *`) takes its choice from the reply of the
//! server, if that is a possible one.
//!
//! | file | commands |
//! |---|---|
//! | `keys` | of any type: DEL, RENAME, COPY, expiry |
//! | `strings`, `lists`, `hashes`, `sets`, `sorted_sets`, `streams` | of one type |
//!
//! Time does not pass in the model: a key expires in the far future or at once.

mod hashes;
mod keys;
mod lists;
mod sets;
mod sorted_sets;
mod streams;
mod strings;
#[cfg(test)]
mod tests;

use crate::reply::{Reply, Word, line};
use client_tests::wire::show;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

pub use lists::can_serve;
pub use sorted_sets::SortedSet;
pub use streams::{Stream, parse_id};

pub type Bytes = Vec<u8>;
pub type List = VecDeque<Word>;
pub type Hash = BTreeMap<Word, Word>;
pub type Set = BTreeSet<Word>;

/// The keys of a group with their entries.
pub type Keys = BTreeMap<Word, Arc<Entry>>;

/// A reply, or the error reply of a command that has changed nothing.
type Answer = Result<Reply, Reply>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    String(Bytes),
    List(List),
    Hash(Hash),
    Set(Set),
    SortedSet(SortedSet),
    Stream(Stream),
}

/// Hashes a part of the content, which is enough to distinguish most states of a history: states
/// are hashed far more often than compared, and comparing two references to one value is cheap.
impl std::hash::Hash for Value {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        (self.type_name(), self.len()).hash(hasher);
        match self {
            Self::String(bytes) => bytes[bytes.len().saturating_sub(32)..].hash(hasher),
            Self::List(list) => (list.front(), list.back()).hash(hasher),
            Self::Hash(hash) => (hash.first_key_value(), hash.last_key_value()).hash(hasher),
            Self::Set(set) => (set.first(), set.last()).hash(hasher),
            Self::SortedSet(set) => (set.first_key_value(), set.last_key_value()).hash(hasher),
            Self::Stream(stream) => (stream.last, stream.added, stream.deleted).hash(hasher),
        }
    }
}

impl Value {
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Hash(_) => "hash",
            Self::Set(_) => "set",
            Self::SortedSet(_) => "zset",
            Self::Stream(_) => "stream",
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::String(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Hash(hash) => hash.len(),
            Self::Set(set) => set.len(),
            Self::SortedSet(set) => set.len(),
            Self::Stream(stream) => stream.entries.len(),
        }
    }

    /// Whether the key is removed: with its last element, but not for strings and streams.
    fn is_over(&self) -> bool {
        self.len() == 0 && !matches!(self, Self::String(_) | Self::Stream(_))
    }
}

/// A type of value.
trait ValueType: Clone + Default + Into<Value> {
    fn of(value: &Value) -> Option<&Self>;
    fn of_mut(value: &mut Value) -> Option<&mut Self>;
}

macro_rules! value_type {
    ($variant:ident, $type:ty) => {
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value)
            }
        }
        impl ValueType for $type {
            fn of(value: &Value) -> Option<&Self> {
                if let Value::$variant(value) = value { Some(value) } else { None }
            }
            fn of_mut(value: &mut Value) -> Option<&mut Self> {
                if let Value::$variant(value) = value { Some(value) } else { None }
            }
        }
    };
}

value_type!(String, Bytes);
value_type!(List, List);
value_type!(Hash, Hash);
value_type!(Set, Set);
value_type!(SortedSet, SortedSet);
value_type!(Stream, Stream);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub value: Value,
    /// Unix time in seconds.
    pub expires: Option<i64>,
}

impl fmt::Display for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts =
            |words: &mut dyn Iterator<Item = &Word>| line(&words.cloned().collect::<Vec<_>>());
        let content = match &self.value {
            Value::String(bytes) => show(bytes),
            Value::List(list) => texts(&mut list.iter()),
            Value::Hash(hash) => texts(&mut hash.iter().flat_map(|(field, value)| [field, value])),
            Value::Set(set) => texts(&mut set.iter()),
            Value::SortedSet(set) => {
                let members = set.iter().map(|(member, score)| format!("{score} {}", show(member)));
                members.take(12).collect::<Vec<_>>().join(", ")
            }
            Value::Stream(stream) => {
                let ids = stream.entries.keys().map(|(time, number)| format!("{time}-{number}"));
                let ids = ids.take(12).collect::<Vec<_>>().join(" ");
                format!("{ids}, last {:?}, added {}", stream.last, stream.added)
            }
        };
        write!(out, "{} ({}): {content}", self.value.type_name(), self.value.len())?;
        self.expires.map_or(Ok(()), |time| write!(out, ", expires at {time}"))
    }
}

/// Whether a watched key has changed since `WATCH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WatchState {
    Clean,
    /// A command named the key and left its value: the server may count that as a change or not.
    MaybeDirty,
    Dirty,
}

/// The watched keys of one client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Watch {
    keys: Vec<Word>,
    state: WatchState,
}

/// A group of keys at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    keys: Keys,
    /// By the number of the client.
    watches: BTreeMap<usize, Watch>,
}

/// The arguments of a command, parsed as the workload writes them.
#[derive(Clone, Copy)]
struct Args<'w>(&'w [Word]);

impl<'w> Args<'w> {
    fn name(self) -> &'w str {
        self.text(0)
    }

    fn len(self) -> usize {
        self.0.len()
    }

    fn word(self, i: usize) -> &'w Word {
        &self.0[i]
    }

    fn from(self, i: usize) -> &'w [Word] {
        &self.0[i..]
    }

    fn text(self, i: usize) -> &'w str {
        text(&self.0[i])
    }

    fn int(self, i: usize) -> i64 {
        int(&self.0[i]).expect("the workload writes a number here")
    }

    fn count(self, i: usize) -> usize {
        usize::try_from(self.int(i)).expect("the workload writes a positive number here")
    }

    fn is(self, i: usize, option: &str) -> bool {
        self.0.get(i).is_some_and(|word| word[..] == *option.as_bytes())
    }

    /// Whether an option is at `i` or later.
    fn has(self, i: usize, option: &str) -> bool {
        (i..self.len()).any(|i| self.is(i, option))
    }
}

fn text(word: &[u8]) -> &str {
    std::str::from_utf8(word).unwrap_or_default()
}

/// A number written in the one way that Redis accepts.
fn int(word: &[u8]) -> Option<i64> {
    let number = text(word).parse::<i64>().ok()?;
    (number.to_string().as_bytes() == word).then_some(number)
}

fn wrong_type() -> Reply {
    Reply::error("WRONGTYPE Operation against a key holding the wrong kind of value")
}

fn not_an_integer() -> Reply {
    Reply::error("ERR value is not an integer or out of range")
}

/// The reply of the model when the choice of the server is impossible.
fn impossible(why: &str) -> Reply {
    Reply::error(&format!("MODEL no correct server chooses this: {why}"))
}

/// The positions that a Redis range names; negative numbers count from the end.
fn range(first: i64, last: i64, length: usize) -> std::ops::Range<usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_end = |at: i64| if at < 0 { at + length } else { at };
    let (first, last) = (from_end(first).max(0), from_end(last).min(length - 1));
    let end = if first > last { first } else { last + 1 };
    let position = |at: i64| usize::try_from(at).unwrap_or_default();
    position(first.min(length))..position(end.min(length))
}

impl State {
    pub fn new(keys: Keys) -> Self {
        Self { keys, watches: BTreeMap::new() }
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The keys of this state that a command names.
    pub fn named_by(&self, words: &[Word]) -> Vec<Word> {
        let arguments = words.iter().skip(1);
        let named = arguments.filter(|word| self.keys.contains_key(*word)).cloned();
        named.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Removes a key as eviction does.
    pub fn evict(&mut self, key: &Word) {
        if self.keys.remove(key).is_some() {
            self.mark_watches(
                |watched| if watched == key { WatchState::Dirty } else { WatchState::Clean },
            );
        }
    }

    /// Replaces the keys, as eviction of some of them does.
    pub fn with_keys(&self, keys: Keys) -> Self {
        let mut state = self.clone();
        let before = std::mem::replace(&mut state.keys, keys);
        state.compare(&before, &[]);
        state
    }

    /// Executes a command of a client. `seen` is the reply of the server, if it is known.
    pub fn run(&mut self, client: usize, words: &[Word], seen: Option<&Reply>) -> Reply {
        let args = Args(words);
        match args.name() {
            "WATCH" => {
                let fresh = Watch { keys: Vec::new(), state: WatchState::Clean };
                let watch = self.watches.entry(client).or_insert(fresh);
                watch.keys.extend_from_slice(args.from(1));
                watch.keys.sort();
                watch.keys.dedup();
                return Reply::ok();
            }
            "UNWATCH" => {
                self.watches.remove(&client);
                return Reply::ok();
            }
            _ => {}
        }
        if self.watches.is_empty() {
            return self.answer(args, seen).unwrap_or_else(|error| error);
        }
        let before = self.keys.clone();
        let reply = self.answer(args, seen).unwrap_or_else(|error| error);
        self.compare(&before, words);
        reply
    }

    /// Ends the watch of a client, as EXEC does, and returns its state.
    pub fn end_watch(&mut self, client: usize) -> Option<WatchState> {
        self.watches.remove(&client).map(|watch| watch.state)
    }

    /// Marks the watches of keys that a command has changed, or may have.
    fn compare(&mut self, before: &Keys, words: &[Word]) {
        let keys = std::mem::take(&mut self.keys);
        let is_write = words.first().is_none_or(|name| !is_read(text(name)));
        self.mark_watches(|key| match () {
            () if before.get(key) != keys.get(key) => WatchState::Dirty,
            () if is_write && words.contains(key) => WatchState::MaybeDirty,
            () => WatchState::Clean,
        });
        self.keys = keys;
    }

    fn mark_watches(&mut self, of: impl Fn(&Word) -> WatchState) {
        for watch in self.watches.values_mut() {
            let state = watch.keys.iter().map(&of).max().unwrap_or(WatchState::Clean);
            watch.state = watch.state.max(state);
        }
    }

    fn answer(&mut self, args: Args<'_>, seen: Option<&Reply>) -> Answer {
        let families = [
            keys::run,
            strings::run,
            lists::run,
            hashes::run,
            sets::run,
            sorted_sets::run,
            streams::run,
        ];
        let mut answers = families.iter().filter_map(|run| run(self, args, seen));
        answers.next().unwrap_or_else(|| panic!("the model lacks the command {}", args.name()))
    }

    fn entry(&self, key: &Word) -> Option<&Entry> {
        self.keys.get(key).map(|entry| &**entry)
    }

    fn has(&self, key: &Word) -> bool {
        self.keys.contains_key(key)
    }

    /// A key's value of type `T`, to be read.
    fn read<T: ValueType>(&self, key: &Word) -> Result<Option<&T>, Reply> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        T::of(&entry.value).map(Some).ok_or_else(wrong_type)
    }

    /// As [`Self::read`]; an empty value, if there is no key.
    fn read_or_empty<T: ValueType>(&self, key: &Word) -> Result<Cow<'_, T>, Reply> {
        Ok(self.read::<T>(key)?.map_or_else(|| Cow::Owned(T::default()), Cow::Borrowed))
    }

    /// Changes a key's value of type `T`, which is created if there is none, and removed if it is
    /// empty afterwards.
    fn change<T: ValueType, R>(
        &mut self,
        key: &Word,
        edit: impl FnOnce(&mut T) -> R,
    ) -> Result<R, Reply> {
        self.read::<T>(key)?;
        let fresh = || Arc::new(Entry { value: T::default().into(), expires: None });
        let entry = self.keys.entry(key.clone()).or_insert_with(fresh);
        let value = &mut Arc::make_mut(entry).value;
        let result = edit(T::of_mut(value).expect("its type was checked"));
        if value.is_over() {
            self.keys.remove(key);
        }
        Ok(result)
    }

    /// Gives a key a new value without an expiry; an empty collection removes the key.
    fn store(&mut self, key: &Word, value: impl Into<Value>) {
        let value = value.into();
        if value.is_over() {
            self.keys.remove(key);
        } else {
            self.keys.insert(key.clone(), Arc::new(Entry { value, expires: None }));
        }
    }
}

/// Whether a command never changes a key.
fn is_read(name: &str) -> bool {
    const READS: [&str; 37] = [
        "EXISTS",
        "TYPE",
        "EXPIRETIME",
        "TOUCH",
        "GET",
        "MGET",
        "STRLEN",
        "GETRANGE",
        "LLEN",
        "LRANGE",
        "LINDEX",
        "HGET",
        "HMGET",
        "HLEN",
        "HEXISTS",
        "HGETALL",
        "HKEYS",
        "SISMEMBER",
        "SCARD",
        "SMEMBERS",
        "SRANDMEMBER",
        "SINTER",
        "SUNION",
        "SDIFF",
        "ZSCORE",
        "ZCARD",
        "ZRANK",
        "ZRANGE",
        "ZCOUNT",
        "XLEN",
        "XRANGE",
        "XREVRANGE",
        "XREAD",
        "WATCH",
        "UNWATCH",
        "HSTRLEN",
        "LPOS",
    ];
    READS.contains(&name)
}

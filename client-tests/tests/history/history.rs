//! Histories: operations with the interval in which each took effect.
//!
//! A [`Clock`] is one atomic counter for the whole process. A client takes a tick before it sends a
//! request and another after it has received the reply, so that an operation which ended before
//! another began has the lower ticks. No wall clock is read.

use crate::model::Keys;
use crate::reply::{Reply, Word, Words, line, word, words};
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// A position in the order of all events.
pub type Tick = u64;

#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    pub fn tick(&self) -> Tick {
        self.0.fetch_add(1, SeqCst)
    }
}

/// An atomic step of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Command(Words),
    /// The commands between MULTI and EXEC.
    Transaction(Vec<Words>),
    /// The commands that a script calls one after the other.
    Script(Script),
}

/// A script that returns the replies of its commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The keys that the request declares: some of those that the commands name, or others.
    pub declared: Vec<Word>,
    /// Scripts of different numbers have different texts.
    pub number: u64,
    pub commands: Vec<Words>,
}

impl Script {
    /// The arguments of the script: for each command its number of words and the words.
    const BODY: &str = "local replies, at = {}, 1
while ARGV[at] do
    local words = tonumber(ARGV[at])
    replies[#replies + 1] = redis.pcall(unpack(ARGV, at + 1, at + words))
    at = at + words + 1
end
return replies";

    /// The request.
    pub fn words(&self) -> Words {
        let body = format!("{}\n-- {}", Self::BODY, self.number);
        let mut words = words(["EVAL", &body, &self.declared.len().to_string()]);
        words.extend(self.declared.iter().cloned());
        for command in &self.commands {
            words.push(word(command.len().to_string()));
            words.extend(command.iter().cloned());
        }
        words
    }
}

impl Request {
    pub fn commands(&self) -> &[Words] {
        match self {
            Self::Command(words) => std::slice::from_ref(words),
            Self::Transaction(commands) | Self::Script(Script { commands, .. }) => commands,
        }
    }

    /// Whether the state alone determines the outcome, so that it is known without a reply.
    pub fn is_deterministic(&self) -> bool {
        let chooses = |words: &Words| match &words[0][..] {
            b"SPOP" => true,
            b"XADD" => words.contains(&word("*")),
            _ => false,
        };
        !self.commands().iter().any(chooses)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(words) => out.write_str(&line(words)),
            Self::Transaction(commands) => write!(out, "MULTI; {}; EXEC", lines(commands)),
            Self::Script(Script { declared, number, commands }) => {
                write!(out, "script {number} of {} for {}", lines(commands), line(declared))
            }
        }
    }
}

fn lines(commands: &[Words]) -> String {
    commands.iter().map(|words| line(words)).collect::<Vec<_>>().join("; ")
}

/// A request of a client and the reply.
#[derive(Clone, Debug)]
pub struct Operation {
    pub client: usize,
    /// Before the request was sent.
    pub invoked: Tick,
    /// After the reply was received, and the reply; `None` when the connection ended before.
    pub answer: Option<(Tick, Reply)>,
    pub request: Request,
    /// The invocation of the operation before this one in the same pipeline and group.
    pub after: Option<Tick>,
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, invoked, request, .. } = self;
        match &self.answer {
            Some((tick, reply)) => {
                write!(out, "{invoked:>8} .. {tick:<8} client {client}: {request} -> {reply}")
            }
            None => write!(out, "{invoked:>8} ..          client {client}: {request} -> no reply"),
        }
    }
}

/// The keys of a group as an image or an idle server holds them.
#[derive(Clone, Debug)]
pub struct Cut {
    /// For reports.
    pub name: String,
    /// The instant of the image lies between these ticks.
    pub from: Tick,
    pub to: Tick,
    pub keys: Keys,
}

/// The operations on one group of keys, and its content in each image.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub operations: Vec<Operation>,
    pub cuts: Vec<Cut>,
}

/// One end of an operation or a cut, by its position in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Invoked(usize),
    Answered(usize),
    CutOpened(usize),
    CutClosed(usize),
}

impl History {
    /// All events in the order in which they happened.
    pub fn events(&self) -> Vec<(Tick, Event)> {
        let mut events = Vec::new();
        for (number, operation) in self.operations.iter().enumerate() {
            events.push((operation.invoked, Event::Invoked(number)));
            if let Some((tick, _)) = operation.answer {
                events.push((tick, Event::Answered(number)));
            }
        }
        for (number, cut) in self.cuts.iter().enumerate() {
            events.push((cut.from, Event::CutOpened(number)));
            events.push((cut.to, Event::CutClosed(number)));
        }
        events.sort_unstable_by_key(|(tick, _)| *tick);
        events
    }

    /// Ends the history where an operation was invoked that chooses and has no reply: the state
    /// after it is unknown.
    pub fn end_at_unknown_outcome(&mut self) {
        let unknown = |operation: &&Operation| {
            operation.answer.is_none() && !operation.request.is_deterministic()
        };
        let first = self.operations.iter().filter(unknown).map(|operation| operation.invoked).min();
        let Some(first) = first else { return };
        self.operations.retain(|operation| operation.invoked < first);
        self.cuts.retain(|cut| cut.to < first);
        for operation in &mut self.operations {
            operation.answer.take_if(|(tick, _)| *tick > first);
        }
    }

    /// One line for each operation and cut, by invocation.
    pub fn to_text(&self) -> String {
        let mut lines = Vec::new();
        for operation in &self.operations {
            lines.push((operation.invoked, operation.to_string()));
        }
        for cut in &self.cuts {
            lines.push((cut.from, cut.to_string()));
        }
        lines.sort();
        let mut text = String::new();
        for (_, line) in lines {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:>8} .. {:<8} {} holds {}", self.from, self.to, self.name, show(&self.keys))
    }
}

/// Keys and values in one line.
pub fn show(keys: &Keys) -> String {
    let texts =
        keys.iter().map(|(key, entry)| format!("{} = {entry}", client_tests::wire::show(key)));
    let texts = texts.collect::<Vec<_>>().join("; ");
    if texts.is_empty() { "no key".to_owned() } else { texts }
}

/// The keys that differ between two states.
pub fn differences(one: &Keys, other: &Keys) -> Vec<Word> {
    let keys = one.keys().chain(other.keys()).collect::<std::collections::BTreeSet<_>>();
    keys.into_iter().filter(|key| one.get(*key) != other.get(*key)).cloned().collect()
}

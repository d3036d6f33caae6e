//! One command being run: what a handler gets, and what it can pass up.

use std::borrow::Cow;
use std::time::Duration;

use crate::config::Config;
use crate::keyspace::{Key, Keyspace, ShardSet, Shards};
use cowherd_resp::{Args, ReplyWriter, parse_i64};

use super::error_reply::ErrorReply;
use super::shared::Shared;
use super::table::CommandRow;
use crate::clients::BlockingMode;
use crate::clients::Session;

/// One command being run. The fields are for handlers to borrow one by one.
pub struct Call<'c> {
    /// The arguments; the name is argument 0.
    pub args: Args<'c>,
    /// Where the reply goes.
    pub reply: &'c mut ReplyWriter,
    /// The connection's state.
    pub session: &'c mut Session,
    /// What all connections share.
    pub shared: &'c Shared,
    /// The configuration as it was when the batch began.
    pub config: &'c Config,
    /// The shards of the command's keys, locked; with them there may be more.
    pub shards: Shards<'c>,
    /// Whether the command may wait for a key.
    pub blocking_mode: BlockingMode,
    /// The command's row in the table.
    pub row: &'c CommandRow,
    /// Hash of the first key, if the engine has it already.
    pub first_hash: Option<u64>,
    /// The wall clock in milliseconds.
    pub now: i64,
    /// What only the engine or the connection can do.
    pub effect: Effect,
}

impl<'c> Call<'c> {
    /// Argument `i` as a key of the selected database.
    #[inline]
    pub fn key(&self, i: usize) -> Key<'c> {
        let (db, keyspace, bytes) = (self.session.db, &self.shared.keyspace, self.args.at(i));
        match self.first_hash {
            Some(hash) if i == self.row.command.keys.first => keyspace.key_of(db, bytes, hash),
            _ => keyspace.key(db, bytes),
        }
    }

    /// Runs something with some shards locked: here and now, or already if this is part of a
    /// transaction. For commands whose row lets the engine lock nothing. What the keyspace says of
    /// where keys live holds still then.
    pub fn locked<R>(
        &mut self,
        named: impl Fn(&Keyspace) -> ShardSet,
        run: impl FnOnce(&mut Shards<'_>, &mut ReplyWriter) -> R,
    ) -> R {
        if self.session.in_exec {
            run(&mut self.shards, self.reply)
        } else {
            let keyspace = &self.shared.keyspace;
            run(&mut keyspace.lock_named(self.now, || named(keyspace)), self.reply)
        }
    }

    /// Argument `i` as a whole number.
    ///
    /// # Errors
    /// It is none.
    pub fn integer(&self, i: usize) -> Result<i64, ErrorReply> {
        parse_i64(self.args.at(i)).ok_or(ErrorReply::NOT_INTEGER)
    }

    /// Whether argument `i` is `word`, whatever its case.
    pub fn is(&self, i: usize, word: &str) -> bool {
        self.args.get(i).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Argument `i` as text; bytes that are none become replacement characters. Empty if there is
    /// no such argument.
    pub fn text(&self, i: usize) -> Cow<'c, str> {
        String::from_utf8_lossy(self.args.get(i).unwrap_or_default())
    }

    /// Answers HELP of a command with subcommands: a head, `lines`, and HELP itself. A line that
    /// explains is indented by four blanks.
    pub fn help(&mut self, lines: &[&str]) {
        let name = self.text(0).to_uppercase();
        self.reply.array(lines.len() + 3);
        self.reply
            .simple(&format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
        for line in lines.iter().chain(&["HELP", "    Prints this help."]) {
            self.reply.simple(line);
        }
    }
}

/// What a handler asks of those above it. The reply of a save or a shutdown is theirs too.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Effect {
    /// Nothing.
    #[default]
    None,
    /// Close the connection once the reply is sent.
    Close,
    /// Run nothing more of this connection before its wait has ended; see `blocking`.
    Block,
    /// Write a checkpoint.
    Save(SaveKind),
    /// Stop the server.
    Shutdown(Shutdown),
    /// Hold up this connection for a while; with every shard locked, if `all`.
    Sleep {
        /// How long.
        time: Duration,
        /// Hold up everybody.
        all: bool,
    },
    /// Save, forget everything and load it again.
    Reload,
    /// Run the commands that the session has queued.
    RunQueue,
}

/// How to write a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaveKind {
    /// Here and now, while all clients wait.
    Foreground,
    /// By a child.
    Background {
        /// If a save is running, start when it ends.
        schedule: bool,
    },
    /// Stop the child that is running.
    Cancel,
}

/// How to stop the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Shutdown {
    /// Save first, do not, or, if there is no word on it, as the save points are set.
    pub save: Option<bool>,
    /// Stop even if the save fails.
    pub force: bool,
}

//! One command being run: what a handler gets, and the effects that it can ask for.

use std::borrow::Cow;
use std::time::Duration;

use crate::clients::{BlockingMode, Session};
use crate::config::Config;
use crate::keyspace::{Key, Keyspace, ShardSet, Shards};
use crate::scripting::RestorePolicy;
use cowherd_resp::{Args, ReplyWriter, parse_i64};

use super::error_reply::ErrorReply;
use super::scripting::ScriptCall;
use super::shared::Shared;
use super::table::{CommandFlags, CommandRow};

/// One command being run. The fields are public so that handlers borrow them one by one.
pub struct Call<'c> {
    /// The arguments; the name is argument 0.
    pub args: Args<'c>,
    /// The writer of the reply.
    pub reply: &'c mut ReplyWriter,
    /// The session of the connection.
    pub session: &'c mut Session,
    /// The state that all connections share.
    pub shared: &'c Shared,
    /// The configuration at the begin of the batch.
    pub config: &'c Config,
    /// The locked shards: those of the command's keys, and possibly more.
    pub shards: Shards<'c>,
    /// Whether the command may block.
    pub blocking_mode: BlockingMode,
    /// The command's row in the table.
    pub row: &'c CommandRow,
    /// Hash of the first key, if the engine has computed it.
    pub first_hash: Option<u64>,
    /// The wall clock in milliseconds.
    pub now: i64,
    /// What the engine does after the handler; set by the handler.
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

    /// Calls `run` with the shards that `named` returns locked, for commands with
    /// [`LockScope::Handler`](super::table::LockScope). In a transaction all shards that its
    /// commands need are locked already. Under the locks the keys that `named` looked at stay in
    /// these shards.
    ///
    /// # Errors
    /// A script holds them for too long.
    pub fn locked<R>(
        &mut self,
        named: impl Fn(&Keyspace) -> ShardSet,
        run: impl FnOnce(&mut Shards<'_>, &mut ReplyWriter) -> R,
    ) -> Result<R, ErrorReply> {
        if self.session.in_exec {
            return Ok(run(&mut self.shards, self.reply));
        }
        let (keyspace, running) = (&self.shared.keyspace, &self.shared.scripting.running);
        let gives_up = || running.is_any_busy();
        let named = || named(keyspace);
        match keyspace.lock_with_retry(self.now, named, |set| set, gives_up) {
            Some(mut shards) => Ok(run(&mut shards, self.reply)),
            None => Err(ErrorReply::new(running.busy_reply())),
        }
    }

    /// Remembers which keys the command has read, if its client tracks reads. Called after the
    /// handler, while the shards are locked.
    #[inline]
    pub fn remember_reads(&self) {
        if self.session.read_tracking.is_on() {
            self.remember_keys();
        }
    }

    #[inline(never)]
    fn remember_keys(&self) {
        let command = self.row.command;
        if !command.flags.contains(CommandFlags::READONLY) {
            return;
        }
        let client = self.session.client.id;
        for i in command.keys.positions(&self.args).filter(|i| *i < self.args.len()) {
            let key = self.key(i);
            self.shared.tracking.remember(client, key.bytes, key.hash);
        }
    }

    /// Argument `i` as an integer.
    ///
    /// # Errors
    /// The argument is not an integer, or does not fit 64 bits.
    pub fn integer(&self, i: usize) -> Result<i64, ErrorReply> {
        parse_i64(self.args.at(i)).ok_or(ErrorReply::NOT_INTEGER)
    }

    /// Whether argument `i` is `word`, in any case.
    pub fn is(&self, i: usize, word: &str) -> bool {
        self.args.get(i).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Argument `i` as text: invalid UTF-8 becomes replacement characters. Empty if there is no
    /// such argument.
    pub fn text(&self, i: usize) -> Cow<'c, str> {
        String::from_utf8_lossy(self.args.get(i).unwrap_or_default())
    }

    /// Replies to HELP of a container command: a heading, `lines`, and HELP itself. Explanations
    /// are indented by four blanks.
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

/// What a handler asks the engine or the connection to do. The engine also writes the reply of a
/// checkpoint, a shutdown and EXEC.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Effect {
    /// No effect.
    #[default]
    None,
    /// Close the connection after the reply is sent.
    Close,
    /// Run no further request of this connection before the pending reply; see `blocking`.
    Block,
    /// Take or cancel a checkpoint.
    Checkpoint(CheckpointAction),
    /// Stop the server.
    Shutdown(ShutdownOptions),
    /// DEBUG SLEEP: block the worker thread.
    Sleep {
        /// Time to sleep.
        time: Duration,
        /// Whether all shards are locked meanwhile, so that no client is served.
        all: bool,
    },
    /// DEBUG RELOAD: load the keys of the image.
    Reload(ReloadOptions),
    /// Run the queued commands of the session.
    RunQueue,
    /// Run a script or a function.
    RunScript(ScriptCall),
    /// SCRIPT LOAD: compile a script and keep it.
    LoadScript,
    /// FUNCTION LOAD: run the code of a library and keep it.
    LoadLibrary {
        /// Whether it may replace one of the same name.
        replaces: bool,
    },
    /// FUNCTION RESTORE: run the code of the libraries of a payload and keep them.
    RestoreLibraries(RestorePolicy),
}

impl Effect {
    /// Whether the engine waits for the locks of all shards when it applies the effect.
    #[inline]
    pub const fn waits_for_locks(&self) -> bool {
        matches!(
            self,
            Self::Checkpoint(CheckpointAction::Foreground)
                | Self::Shutdown(_)
                | Self::Reload(_)
                | Self::Sleep { all: true, .. }
        )
    }

    /// Whether an interpreter of scripts applies the effect.
    #[inline]
    pub const fn needs_interpreter(&self) -> bool {
        matches!(
            self,
            Self::RunScript(_)
                | Self::LoadScript
                | Self::LoadLibrary { .. }
                | Self::RestoreLibraries(_)
        )
    }
}

/// What to do about a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckpointAction {
    /// SAVE: take a checkpoint while no command runs.
    Foreground,
    /// BGSAVE: take a checkpoint in a child process.
    Background {
        /// Whether to start later if a checkpoint is running, instead of an error.
        schedule: bool,
    },
    /// BGSAVE CANCEL: stop the running child.
    Cancel,
}

/// The options of SHUTDOWN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShutdownOptions {
    /// SAVE or NOSAVE; `None` takes a checkpoint if any save point is configured.
    pub save: Option<bool>,
    /// FORCE: stop even if the checkpoint fails.
    pub force: bool,
}

/// The options of DEBUG RELOAD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReloadOptions {
    /// Whether a checkpoint is taken first, so that the image has the keys that are there.
    pub saves: bool,
    /// Whether the keys that are there are removed.
    pub flushes: bool,
    /// Whether a key of the image replaces one that is there; otherwise that is an error.
    pub merges: bool,
}

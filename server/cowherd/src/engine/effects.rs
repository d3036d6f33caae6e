//! Applies the effects that command handlers return: handlers run under shard locks and must not
//! fork, stop the server or wait, so they return an [`Effect`] for the engine.

use std::sync::Arc;

use crate::clients::{DeferredReply, PendingReply, Session};
use crate::commands::{CheckpointAction, Effect};
use cowherd_arena::ShardSet;
use cowherd_resp::ReplyWriter;

use super::checkpoint_scheduler::CheckpointRequest;
use super::{Engine, reload};

/// How a batch of requests ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BatchOutcome {
    /// Every request has run.
    Done,
    /// Requests from this index on have not run: send the replies first.
    Flush(usize),
    /// Requests from this index on are held by CLIENT PAUSE until this wall-clock time in
    /// milliseconds.
    Paused(usize, i64),
    /// Requests from this index on wait until the one before has its reply: see
    /// [`Session::pending_reply`].
    Blocked(usize),
    /// The request of this index and those behind have not run: they run scripts, for which the
    /// worker needs a [`Suspender`](super::Suspender).
    RunsScript(usize),
    /// Requests from this index on wait until the script ends that keeps the worker busy.
    AwaitsScript(usize),
    /// Send the replies and close the connection.
    Close,
}

impl BatchOutcome {
    /// The outcome of a batch of which the request of this index ended so.
    pub(super) fn at(self, index: usize) -> Self {
        match self {
            Self::Paused(_, until) => Self::Paused(index, until),
            Self::Blocked(_) => Self::Blocked(index + 1),
            Self::RunsScript(_) => Self::RunsScript(index),
            Self::AwaitsScript(_) => Self::AwaitsScript(index),
            other => other,
        }
    }
}

impl Engine {
    /// Applies the effect of a command and writes its reply; returns what follows and whether the
    /// command failed. Requires that the calling thread holds no shard lock.
    #[cold]
    pub(super) fn apply_effect(
        &self,
        effect: Effect,
        session: &mut Session,
        reply: &mut ReplyWriter,
    ) -> (BatchOutcome, bool) {
        let answer = match effect {
            // `transaction` runs queues.
            Effect::None | Effect::RunQueue => return (BatchOutcome::Done, false),
            Effect::RunScript(_)
            | Effect::LoadScript
            | Effect::LoadLibrary { .. }
            | Effect::RestoreLibraries(_) => {
                unreachable!("the worker runs scripts")
            }
            Effect::Close => return (BatchOutcome::Close, false),
            Effect::Block => return (BatchOutcome::Blocked(0), false),
            Effect::Checkpoint(CheckpointAction::Background { schedule }) => {
                let deferred = DeferredReply::new(&session.client);
                let answer = Arc::clone(&deferred);
                let forked = move |result| answer.complete(result);
                match self.checkpoint_scheduler.start_background(schedule, forked) {
                    Ok(CheckpointRequest::Scheduled) => {
                        Ok("Background saving scheduled".to_owned())
                    }
                    // The reply is deferred until the fork, and the worker goes on meanwhile.
                    Ok(CheckpointRequest::Accepted) => {
                        session.pending_reply = Some(PendingReply::Deferred(deferred));
                        return (BatchOutcome::Blocked(0), false);
                    }
                    Err(error) => Err(error),
                }
            }
            Effect::Checkpoint(CheckpointAction::Foreground) => {
                self.checkpoint_scheduler.run_foreground(&self.shared).map(|()| "OK".to_owned())
            }
            Effect::Checkpoint(CheckpointAction::Cancel) => {
                self.checkpoint_scheduler.cancel(&self.shared)
            }
            Effect::Shutdown(options) => match self.shut_down(options) {
                Ok(()) => return (BatchOutcome::Close, false),
                Err(_) => Err("ERR Errors trying to SHUTDOWN. Check logs.".to_owned()),
            },
            Effect::Sleep { time, all } => {
                let set = if all { ShardSet::ALL } else { ShardSet::NONE };
                let _shards = self.shared.keyspace.lock(set, 0);
                std::thread::sleep(time);
                return (BatchOutcome::Done, false);
            }
            Effect::Reload(options) => {
                reload::reload(&self.checkpoint_scheduler, &self.shared, options)
                    .map(|()| "OK".to_owned())
            }
        };
        match &answer {
            Ok(text) => reply.simple(text),
            Err(text) => reply.error(text),
        }
        (BatchOutcome::Done, answer.is_err())
    }
}

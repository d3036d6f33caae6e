//! How a handler waits for a key.
//!
//! A blocking command is written as one that does not block. Where it would answer that there is
//! nothing, it says what to wait for:
//!
//! ```text
//! fn blpop(call: &mut Call<'_>) -> Answer {
//!     let last = call.args.len() - 1;
//!     let timeout = call.timeout_seconds(last)?;      // the errors are Redis's
//!     for i in 1..last {
//!         if let Some(value) = pop(call, i)? {        // WRONGTYPE and so on
//!             ... reply key and value
//!             return Ok(());
//!         }
//!     }
//!     let condition = WakeCondition { kind: ValueKind::List, wake_on_delete: false };
//!     call.wait((1..last).collect(), condition, timeout, TimeoutReply::NullArray)
//! }
//! ```
//!
//! The row has the flag `BLOCKING` and names all keys, those that the command writes to as well:
//! their shards are locked when it runs again. What `wait` does:
//!
//! - The first time it queues the client for the keys, and passes up [`Effect::Block`]. The
//!   connection then reads no further request until there is a reply.
//! - When a key is touched (`Shards::touched`) and `condition` is met, the handler runs again, on
//!   the thread that touched the key, with the same arguments, database and protocol version. If
//!   the handler calls `wait` once more, the client keeps its place in the queue.
//! - In a transaction nothing waits: the reply is `timeout_reply` at once.
//!
//! So a handler must come to `wait` without having changed anything or written any reply. The
//! timeout is parsed each time, and counts from the first.
//!
//! A stream command that is told to wait for entries behind the last one (`$`) gives the number
//! that this is now to [`Call::wait_replacing`]: the argument is replaced before it is kept.

use std::sync::Arc;
use std::time::Duration;

use crate::clients::{
    BlockedClient, BlockingMode, OwnedRequest, TimeoutReply, WaitState, WakeCondition,
};
use crate::clock;
use cowherd_resp::{parse_f64, parse_i64};

use super::call::{Call, Effect};
use super::error_reply::{CommandResult, ErrorReply};

const NOT_A_FLOAT: ErrorReply = ErrorReply::new("ERR timeout is not a float or out of range");
const NOT_AN_INTEGER: ErrorReply = ErrorReply::new("ERR timeout is not an integer or out of range");
const OUT_OF_RANGE: ErrorReply = ErrorReply::new("ERR timeout is out of range");
const NEGATIVE: ErrorReply = ErrorReply::new("ERR timeout is negative");

/// How long a command waits; for ever, if there is no time.
pub type Timeout = Option<Duration>;

impl Call<'_> {
    /// Argument `i` as a number of seconds, 0 for ever.
    ///
    /// # Errors
    /// It is none, is negative, or is too large.
    pub fn timeout_seconds(&self, i: usize) -> Result<Timeout, ErrorReply> {
        let seconds = parse_f64(self.args.at(i)).ok_or(NOT_A_FLOAT)?;
        let milliseconds = (seconds * 1000.0).ceil();
        if milliseconds >= i64::MAX as f64 {
            return Err(OUT_OF_RANGE);
        }
        if seconds < 0.0 {
            return Err(NEGATIVE);
        }
        let time = Duration::try_from_secs_f64(milliseconds / 1000.0).map_err(|_| OUT_OF_RANGE)?;
        self.bounded(time)
    }

    /// Argument `i` as a number of milliseconds, 0 for ever.
    ///
    /// # Errors
    /// It is none, is negative, or is too large.
    pub fn timeout_milliseconds(&self, i: usize) -> Result<Timeout, ErrorReply> {
        let milliseconds = parse_i64(self.args.at(i)).ok_or(NOT_AN_INTEGER)?;
        self.bounded(Duration::from_millis(u64::try_from(milliseconds).map_err(|_| NEGATIVE)?))
    }

    /// A time that ends before the wall clock does, counted from now.
    fn bounded(&self, time: Duration) -> Result<Timeout, ErrorReply> {
        let milliseconds = i64::try_from(time.as_millis()).map_err(|_| OUT_OF_RANGE)?;
        self.now.checked_add(milliseconds).ok_or(OUT_OF_RANGE)?;
        Ok((!time.is_zero()).then_some(time))
    }

    /// Lets the client wait for one of the keys at the given positions; see the module's head.
    ///
    /// # Errors
    /// None; it is the last thing that a handler does.
    pub fn wait(
        &mut self,
        keys: Vec<usize>,
        condition: WakeCondition,
        timeout: Timeout,
        timeout_reply: TimeoutReply,
    ) -> CommandResult {
        self.wait_replacing(keys, condition, timeout, timeout_reply, &[])
    }

    /// As [`Self::wait`]; the arguments at some positions, which ascend, are replaced before they
    /// are kept.
    ///
    /// # Errors
    /// None.
    pub fn wait_replacing(
        &mut self,
        keys: Vec<usize>,
        condition: WakeCondition,
        timeout: Timeout,
        timeout_reply: TimeoutReply,
        replaced: &[(usize, Vec<u8>)],
    ) -> CommandResult {
        match self.blocking_mode {
            BlockingMode::Denied => match timeout_reply {
                TimeoutReply::Null => self.reply.null(),
                TimeoutReply::NullArray => self.reply.null_array(),
            },
            BlockingMode::Retrying => self.effect = Effect::Block,
            BlockingMode::Allowed => {
                let request = OwnedRequest::new(&self.args, replaced);
                let blocked = self.blocked_client(request, keys, condition, timeout, timeout_reply);
                let pending = self.shared.blocked_clients.add(&mut self.shards, blocked);
                self.session.pending_reply = Some(pending);
                self.effect = Effect::Block;
            }
        }
        Ok(())
    }

    fn blocked_client(
        &self,
        request: OwnedRequest,
        keys: Vec<usize>,
        condition: WakeCondition,
        timeout: Timeout,
        timeout_reply: TimeoutReply,
    ) -> BlockedClient {
        let (session, keyspace) = (&self.session, &self.shared.keyspace);
        let positions = self.row.command.keys.positions(&self.args);
        let hashes: Vec<_> = positions.map(|i| keyspace.hash(self.args.at(i))).collect();
        let needed = hashes.iter().map(|hash| keyspace.shards_of(*hash)).collect();
        BlockedClient {
            client: Arc::clone(&session.client),
            row: self.row.number,
            request,
            db: session.db,
            no_touch: session.no_touch,
            hashes,
            needed,
            sequence: self.shared.blocked_clients.next_sequence(),
            deadline: timeout.map(|time| clock::monotonic_us().saturating_add(clock::micros(time))),
            keys,
            condition,
            timeout_reply,
            is_reply_off: session.is_reply_off(),
            state: WaitState::default(),
        }
    }
}

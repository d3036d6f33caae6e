//! How a handler blocks its client until a key changes.
//!
//! A blocking command is written like one that does not block. Where the reply would be empty, the
//! handler names the keys and the change to wait for:
//!
//! ```text
//! fn blpop(call: &mut Call<'_>) -> CommandResult {
//!     let last = call.args.len() - 1;
//!     let timeout = call.timeout_seconds(last)?;
//!     for i in 1..last {
//!         if let Some(value) = pop(call, i)? {        // WRONGTYPE and so on
//!             ... reply key and value
//!             return Ok(());
//!         }
//!     }
//!     let condition = WakeCondition { kind: ValueType::List, wake_on_delete: false };
//!     call.wait((1..last).collect(), condition, timeout, TimeoutReply::NullArray)
//! }
//! ```
//!
//! The row has the flag `BLOCKING` and names all keys, including those that the command writes:
//! their shards are locked when the handler runs again. What `wait` does depends on
//! [`BlockingMode`]:
//!
//! - `Allowed`: `wait` adds the client to the queues of the keys and sets [`Effect::Block`]. The
//!   connection runs no further request before the reply. When a key is written and `condition` is
//!   met, the handler runs again on the thread of the writer, with the same arguments, database and
//!   protocol version.
//! - `Retrying`: the handler runs again. A second `wait` leaves the client at its place in the
//!   queues.
//! - `Denied`: in a transaction `wait` replies `timeout_reply` at once.
//!
//! A handler calls `wait` before it replies anything; a change that it has made stays (the consumer
//! that XREADGROUP creates), and the next run finds it. The timeout argument is parsed in
//! each run, but the deadline is that of the first.
//!
//! XREAD with the ID `$` waits for entries after the last one at the time of the command. The
//! handler passes that ID to [`Call::wait_replacing`], which replaces the argument in the copy of
//! the request.

use std::sync::Arc;
use std::time::Duration;

use crate::clients::{
    BlockedClient, BlockingMode, OwnedRequest, TimeoutReply, WaitState, WakeCondition,
};
use crate::clock;
use cowherd_resp::{parse_f64, parse_i64};

use super::call::{Call, Effect};
use super::error_reply::{CommandResult, ErrorReply};
use super::strings::extended::Extended;

const NOT_A_FLOAT: ErrorReply = ErrorReply::new("ERR timeout is not a float or out of range");
const NOT_AN_INTEGER: ErrorReply = ErrorReply::new("ERR timeout is not an integer or out of range");
const OUT_OF_RANGE: ErrorReply = ErrorReply::new("ERR timeout is out of range");
const NEGATIVE: ErrorReply = ErrorReply::new("ERR timeout is negative");

/// How long a command blocks; `None` for ever.
pub type Timeout = Option<Duration>;

impl Call<'_> {
    /// Argument `i` as a timeout in seconds; 0 means for ever.
    ///
    /// # Errors
    /// The argument is not a number, is negative, or is too large.
    pub fn timeout_seconds(&self, i: usize) -> Result<Timeout, ErrorReply> {
        let text = self.args.at(i);
        // Redis reads 80-bit floats.
        let beyond_doubles = || Extended::parse(text).map(Extended::clamp_to_f64);
        let seconds = parse_f64(text).or_else(beyond_doubles).ok_or(NOT_A_FLOAT)?;
        let milliseconds = (seconds * 1000.0).ceil();
        if milliseconds >= i64::MAX as f64 {
            return Err(OUT_OF_RANGE);
        }
        if seconds < 0.0 {
            return Err(NEGATIVE);
        }
        let time = Duration::try_from_secs_f64(milliseconds / 1000.0).map_err(|_| OUT_OF_RANGE)?;
        self.checked_timeout(time)
    }

    /// Argument `i` as a timeout in milliseconds; 0 means for ever.
    ///
    /// # Errors
    /// The argument is not an integer, is negative, or is too large.
    pub fn timeout_milliseconds(&self, i: usize) -> Result<Timeout, ErrorReply> {
        let milliseconds = parse_i64(self.args.at(i)).ok_or(NOT_AN_INTEGER)?;
        self.checked_timeout(Duration::from_millis(
            u64::try_from(milliseconds).map_err(|_| NEGATIVE)?,
        ))
    }

    /// A timeout whose end is a valid wall clock time in milliseconds.
    fn checked_timeout(&self, time: Duration) -> Result<Timeout, ErrorReply> {
        let milliseconds = i64::try_from(time.as_millis()).map_err(|_| OUT_OF_RANGE)?;
        self.now.checked_add(milliseconds).ok_or(OUT_OF_RANGE)?;
        Ok((!time.is_zero()).then_some(time))
    }

    /// Blocks the client until one of the keys at the given positions changes; see the head of this
    /// file.
    ///
    /// # Errors
    /// Never; the result is that of the handler.
    pub fn wait(
        &mut self,
        keys: Vec<usize>,
        condition: WakeCondition,
        timeout: Timeout,
        timeout_reply: TimeoutReply,
    ) -> CommandResult {
        self.wait_replacing(keys, condition, timeout, timeout_reply, &[])
    }

    /// As [`Self::wait`]; arguments at the ascending positions in `replaced` are replaced in the
    /// copy of the request.
    ///
    /// # Errors
    /// Never.
    pub fn wait_replacing(
        &mut self,
        keys: Vec<usize>,
        condition: WakeCondition,
        timeout: Timeout,
        timeout_reply: TimeoutReply,
        replaced: &[(usize, Vec<u8>)],
    ) -> CommandResult {
        match self.blocking_mode {
            BlockingMode::Denied => {
                let version = self.reply.version;
                self.reply.out.extend_from_slice(timeout_reply.encode(version));
            }
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
            read_tracking: session.read_tracking,
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

#[cfg(test)]
#[path = "blocking_tests.rs"]
mod tests;

//! Bytes on the wire: RESP2 and RESP3 requests in, replies out.
//!
//! - [`request`] cuts a read buffer into requests without copying or allocating.
//! - [`reply`] appends answers to an output buffer in the version the client speaks.
//! - [`number`] and [`glob`] read and write the small texts that the protocol is full of:
//!   integers, doubles, `KEYS` patterns.
//!
//! Nothing here knows a socket, a key or a command. Everything is iterative, and every length that
//! a client claims is held against a limit before it is believed.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::cast_possible_truncation))]

pub mod glob;
pub mod number;
pub mod reply;
pub mod request;

pub use glob::glob_match;
pub use number::{DoubleText, format_double, parse_f64, parse_i64, parse_u64};
pub use reply::{DeferredAggregate, ProtocolVersion, ReplyWriter};
pub use request::{ArgSpan, Args, Batch, ProtocolError, RequestLimits, RequestParser};

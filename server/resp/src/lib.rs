#![doc = include_str!("../README.md")]
//!
//! # Modules
//!
//! - [`request`]: the request parser and the read loop around it.
//! - [`reply`]: the reply writer.
//! - [`client`]: the request writer and the reply parser.
//! - [`number`], [`glob`]: numbers and patterns.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::cast_possible_truncation))]

pub mod client;
pub mod glob;
pub mod number;
pub mod reply;
pub mod request;

pub use client::{InvalidReply, Reply, ReplyScanner, parse_reply, write_request};
pub use glob::glob_match;
pub use number::{
    DoubleText, before_zero, format_double, format_general, parse_f64, parse_i64, parse_u64,
    parse_u64_loose,
};
pub use reply::{DeferredAggregate, ProtocolVersion, ReplyWriter};
pub use request::{ArgSpan, Args, Batch, ProtocolError, RequestLimits, RequestParser};

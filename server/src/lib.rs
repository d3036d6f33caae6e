//! Cowherd: a Redis-compatible in-memory key-value server whose whole keyspace lives in one arena.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::cast_possible_truncation))]

pub mod arena;
pub mod checkpoint;
pub mod config;
pub mod protocol;

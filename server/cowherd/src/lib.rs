//! Cowherd: a Redis-compatible in-memory key-value server whose whole keyspace lives in one arena.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::cast_possible_truncation))]

mod clients;
pub mod clock;
pub mod commands;
pub mod config;
pub mod engine;
pub mod keyspace;
pub mod net;
pub mod server;
pub mod telemetry;

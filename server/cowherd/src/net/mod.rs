//! Network front end: accepts connections and moves bytes between sockets and the engine.
//!
//! ```text
//! listeners -> acceptor -> handoff -> worker 0..n: one task per connection
//!                                       read -> parse -> engine::Worker::run -> write
//! ```
//!
//! Each worker is one thread with a single-threaded runtime. A connection stays on its worker for
//! its whole life, so that the buffers of [`connection`] need no lock. The acceptor is a task on
//! the first worker's runtime and deals sockets out round robin.
//!
//! Invariants:
//! 1. No keyspace lock is held across an await: every call into the engine returns before the next
//!    await.
//! 2. Memory per connection is bounded: by the parser's limits, by the limit on the bytes of one
//!    request, and because a connection reads nothing more before the engine has run what was read.
//! 3. A connection with more requests yields to the other connections of its worker after each read
//!    that filled the buffer and after each megabyte of replies.
//! 4. A socket is shut down before it is closed, because the child of a running checkpoint holds a
//!    copy of the file descriptor.

mod acceptor;
mod client_socket;
mod connection;
mod handoff;
mod query_buffer;
mod wake_queue;
mod worker_pool;

pub(crate) use acceptor::Listeners;
pub(crate) use worker_pool::{StopSignal, WorkerPool};

#[cfg(test)]
mod tests;

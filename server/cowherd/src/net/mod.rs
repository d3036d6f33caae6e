//! Sockets: accepting connections, and moving bytes between them and the engine.
//!
//! Every worker is a thread with a runtime of its own; a connection stays on the worker that it was
//! given to. One acceptor hands sockets out in turn.
//!
//! Invariants:
//! 1. No lock of the keyspace is held across an await: the engine is called and returns between
//!    two of them.
//! 2. What a connection sends is bounded before it is kept: by the parser's limits, by the limit of
//!    one request's bytes, and by reading no more before what was read has been answered.
//! 3. A connection that has more to run lets the others of its worker go first, after each read
//!    that filled the buffer and after each megabyte of replies.
//! 4. A socket is shut down before it is closed: a checkpoint's child has it too.

mod acceptor;
mod client_socket;
mod connection;
mod query_buffer;
mod wake_queue;
mod worker_pool;

pub use acceptor::{BindError, Listeners};
pub use worker_pool::{StopSignal, WorkerPool};

#[cfg(test)]
mod tests;

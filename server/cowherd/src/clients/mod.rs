//! Clients: the state of each connection that is not a key, and all ways in which one client
//! reaches another. Nothing here is in the arena: clients end with the process.
//!
//! ```text
//! worker thread of the connection             any other thread
//!   Session --Arc--> Client <--Arc-- ClientRegistry: CLIENT LIST, KILL, PAUSE
//!                    | output buffer <-- push -- PubSub, Notifications, BlockedClients
//!                    | signals, wake <-- complete -- DeferredReply
//!                    | blocked entry: a sequence number, the key of BlockedClients
//! ```
//!
//! | file | content |
//! |---|---|
//! | `session` | `Session`: state that only the connection's own thread uses |
//! | `command_queue` | `CommandQueue`: the commands queued since MULTI |
//! | `subscriptions` | `Subscriptions`: the channels and patterns of one connection |
//! | `deferred` | `DeferredReply`, `PendingReply`: replies that arrive after the command has run |
//! | `client` | `Client`: the state that other threads see; `ConnectionHandle` |
//! | `signals` | signal bits of a client |
//! | `output_buffer` | output pushed by other threads, and the output buffer limits |
//! | `registry` | `ClientRegistry`: all connected clients, CLIENT PAUSE |
//! | `pubsub` | `PubSub`: channels, patterns and their subscribers |
//! | `notifications` | keyspace events published as messages |
//! | `tracking` | `ClientTracking`: messages about changed keys for the caches of clients |
//! | `monitors` | `Monitors`: clients that are shown the requests of all others |
//! | `blocked` | `BlockedClients`: clients whose command waits for a key |
//!
//! Invariants:
//! 1. Nothing here names a command. A command is the number of its row in the command table, and
//!    its properties are bits that the table defines; `commands` holds what needs a `Call`.
//! 2. A connection's [`Session`] belongs to the connection's thread, and only that thread writes
//!    the counters of its [`Client`]. To run a blocked command again, another thread uses a session
//!    of its own (`engine/serve_blocked`).
//! 3. Ownership has no cycle: `Session`, `ClientRegistry`, `PubSub`, `BlockedClient` and
//!    `DeferredReply` own a `Client`; a `Client` owns none of them. It refers to its entry in
//!    [`BlockedClients`] by sequence number.
//! 4. Locks are taken in this order: shards of the keyspace; the state of a blocked client; the
//!    queues of one home shard; a part of the table of blocked clients; the trackers; a part of the
//!    tracked keys; the tracked prefixes; a part of the channels; the patterns; the monitors; an
//!    output buffer. The registry, the names and the connection handle are leaves: nothing is
//!    locked under them. A thread that holds one of these locks blocks on nothing but the next one.

mod blocked;
mod client;
mod command_queue;
mod deferred;
mod monitors;
mod notifications;
mod output_buffer;
mod pubsub;
mod registry;
mod session;
mod signals;
mod subscriptions;
mod tracking;

pub(crate) use blocked::WaitState;
pub(crate) use blocked::{
    BlockedClient, BlockedClients, BlockingMode, OwnedRequest, TimeoutReply, WakeCondition,
};
pub(crate) use client::{Client, ConnectionHandle, Origin};
pub(crate) use command_queue::{CommandQueue, QueuedCommand};
pub(crate) use deferred::{DeferredReply, PendingReply};
pub(crate) use monitors::{MonitorLines, RequestSource};
pub(crate) use notifications::{EventClass, EventSink, Notifications};
pub(crate) use pubsub::PubSub;
pub(crate) use registry::ClientRegistry;
pub(crate) use session::{ReplyMode, Session};
pub(crate) use signals::{KILLED, OUTPUT_PENDING};
pub(crate) use subscriptions::SubscriptionKind;
pub(crate) use tracking::{ClientTracking, Prefix, ReadTracking, Tracker, TrackingOptions};

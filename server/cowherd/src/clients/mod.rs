//! Clients: what the server keeps of each connection, outside the arena.
//!
//! | file | content |
//! |---|---|
//! | `session` | state that only the connection's own thread uses |
//! | `client` | state that other threads see, signals, the registry of clients |
//! | `output` | output that other threads have pushed, and the output buffer limits |
//! | `command_queue` | the commands queued since MULTI |
//! | `pubsub` | channels, patterns and their subscribers |
//! | `notifications` | keyspace events published as messages |
//! | `blocked` | clients whose command waits for a key |
//! | `deferred` | replies that another thread completes |

mod blocked;
mod client;
mod command_queue;
mod deferred;
mod notifications;
mod output;
mod pubsub;
mod session;

pub(crate) use blocked::End;
pub use blocked::{
    BlockedClient, BlockedClients, BlockingMode, OwnedRequest, TimeoutReply, WakeCondition,
};
pub use client::{Client, ClientRegistry, ConnectionHandle, KILLED, OUTPUT_PENDING, Origin};
pub use command_queue::{CommandQueue, QueuedCommand};
pub use deferred::{DeferredReply, PendingReply};
pub use notifications::{EventClass, EventSink, Notifications};
pub use pubsub::{PubSub, SubscriptionKind};
pub use session::{ReplyMode, Session};

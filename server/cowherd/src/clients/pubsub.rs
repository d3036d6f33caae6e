//! Publish/subscribe: channels, patterns and their subscribers.
//!
//! ```text
//! channel --hash--> one of 64 parts: { channel -> subscribers }      a lock each
//! patterns:         { pattern -> subscribers }                       one lock, read to publish
//! ```
//!
//! Invariants:
//! 1. A channel or pattern has an entry exactly while it has subscribers.
//! 2. `publish` returns after the message is in the output buffers of all subscribers, so messages
//!    of one publisher arrive in order. The channel's part stays locked meanwhile, so all
//!    subscribers of a channel receive its messages in the same order.
//! 3. Locks are taken in the order part, patterns, output buffer. They may be taken while shards of
//!    the keyspace are locked.

use std::array;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::config::OutputLimits;
use cowherd_resp::{ReplyWriter, glob_match};

use super::client::Client;
use super::session::Session;
use super::subscriptions::{ChannelName, SubscriptionKind};

/// Number of locks over the channels: several per worker thread, so that publishers to different
/// channels seldom contend.
const PARTS: usize = 64;

type Subscribers = Vec<Arc<Client>>;

/// Channels, or shard channels, and their subscribers.
struct ChannelMap {
    parts: [Mutex<HashMap<ChannelName, Subscribers>>; PARTS],
    hasher: RandomState,
    /// Number of channels in all parts.
    len: AtomicU64,
}

impl Default for ChannelMap {
    fn default() -> Self {
        Self {
            parts: array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            len: AtomicU64::new(0),
        }
    }
}

impl ChannelMap {
    fn part(&self, channel: &[u8]) -> &Mutex<HashMap<ChannelName, Subscribers>> {
        let hash = self.hasher.hash_one(channel).to_le_bytes();
        &self.parts[usize::from(hash[0]) % PARTS]
    }

    fn add(&self, channel: &[u8], client: &Arc<Client>) {
        let mut part = self.part(channel).lock();
        if let Some(subscribers) = part.get_mut(channel) {
            subscribers.push(Arc::clone(client));
        } else {
            part.insert(channel.into(), vec![Arc::clone(client)]);
            self.len.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn remove(&self, channel: &[u8], client: &Client) {
        let mut part = self.part(channel).lock();
        let Some(subscribers) = part.get_mut(channel) else { return };
        remove_subscriber(subscribers, client);
        if subscribers.is_empty() {
            part.remove(channel);
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Calls `with` with the subscribers of a channel, while its part is locked.
    fn with_subscribers<T>(&self, channel: &[u8], with: impl FnOnce(&[Arc<Client>]) -> T) -> T {
        let part = self.part(channel).lock();
        with(part.get(channel).map_or(&[], Vec::as_slice))
    }

    fn names(&self, pattern: Option<&[u8]>) -> Vec<ChannelName> {
        let matches =
            |name: &&ChannelName| pattern.is_none_or(|pattern| glob_match(pattern, name, false));
        let mut names = Vec::new();
        for part in &self.parts {
            names.extend(part.lock().keys().filter(matches).cloned());
        }
        names
    }
}

fn remove_subscriber(subscribers: &mut Subscribers, client: &Client) {
    if let Some(at) = subscribers.iter().position(|subscriber| subscriber.id == client.id) {
        subscribers.swap_remove(at);
    }
}

/// All subscriptions of all clients.
#[derive(Default)]
pub(crate) struct PubSub {
    channels: ChannelMap,
    shard_channels: ChannelMap,
    patterns: RwLock<BTreeMap<ChannelName, Subscribers>>,
    /// Copy of `patterns.len()`, for readers that do not lock.
    patterns_len: AtomicU64,
    clients: AtomicU64,
}

impl PubSub {
    /// Adds a subscription, unless the connection has it already.
    pub(crate) fn subscribe(&self, session: &mut Session, kind: SubscriptionKind, name: &[u8]) {
        let first = session.subscriptions.is_none();
        let subscriptions = session.subscriptions.get_or_insert_default();
        if !subscriptions.of_mut(kind).insert(name.into()) {
            return;
        }
        if first {
            self.clients.fetch_add(1, Ordering::Relaxed);
        }
        store_count(session, kind);
        match kind {
            SubscriptionKind::Channel => self.channels.add(name, &session.client),
            SubscriptionKind::Shard => self.shard_channels.add(name, &session.client),
            SubscriptionKind::Pattern => {
                let mut patterns = self.patterns.write();
                patterns.entry(name.into()).or_default().push(Arc::clone(&session.client));
                self.patterns_len.store(patterns.len() as u64, Ordering::Relaxed);
            }
        }
    }

    /// Removes a subscription, if the connection has it. No message of the subscription is pushed
    /// after the return.
    pub(crate) fn unsubscribe(&self, session: &mut Session, kind: SubscriptionKind, name: &[u8]) {
        let Some(subscriptions) = &mut session.subscriptions else { return };
        if !subscriptions.of_mut(kind).remove(name) {
            return;
        }
        if subscriptions.is_empty() {
            session.subscriptions = None;
            self.clients.fetch_sub(1, Ordering::Relaxed);
        }
        store_count(session, kind);
        match kind {
            SubscriptionKind::Channel => self.channels.remove(name, &session.client),
            SubscriptionKind::Shard => self.shard_channels.remove(name, &session.client),
            SubscriptionKind::Pattern => {
                let mut patterns = self.patterns.write();
                if let Some(subscribers) = patterns.get_mut(name) {
                    remove_subscriber(subscribers, &session.client);
                    if subscribers.is_empty() {
                        patterns.remove(name);
                    }
                }
                self.patterns_len.store(patterns.len() as u64, Ordering::Relaxed);
            }
        }
    }

    /// Removes all subscriptions of a connection.
    pub(crate) fn unsubscribe_all(&self, session: &mut Session) {
        for kind in SubscriptionKind::ALL {
            for name in session.subscription_names(kind) {
                self.unsubscribe(session, kind, &name);
            }
        }
    }

    /// Pushes a message to the subscribers of its channel and of all patterns that match the
    /// channel. Returns the number of copies.
    pub(crate) fn publish(&self, limits: &OutputLimits, channel: &[u8], message: &[u8]) -> usize {
        self.channels.with_subscribers(channel, |subscribers| {
            for client in subscribers {
                client.push_output(limits, |reply| {
                    write_message(reply, &[b"message", channel, message]);
                });
            }
            let mut copies = subscribers.len();
            if self.patterns_len.load(Ordering::Relaxed) > 0 {
                copies += self.publish_by_pattern(limits, channel, message);
            }
            copies
        })
    }

    fn publish_by_pattern(&self, limits: &OutputLimits, channel: &[u8], message: &[u8]) -> usize {
        let mut copies = 0;
        for (pattern, subscribers) in self.patterns.read().iter() {
            if glob_match(pattern, channel, false) {
                for client in subscribers {
                    let parts = [b"pmessage", &pattern[..], channel, message];
                    client.push_output(limits, |reply| write_message(reply, &parts));
                }
                copies += subscribers.len();
            }
        }
        copies
    }

    /// Pushes a message to the subscribers of its shard channel. Returns their number.
    pub(crate) fn publish_shard(
        &self,
        limits: &OutputLimits,
        channel: &[u8],
        message: &[u8],
    ) -> usize {
        self.shard_channels.with_subscribers(channel, |subscribers| {
            for client in subscribers {
                client.push_output(limits, |reply| {
                    write_message(reply, &[b"smessage", channel, message]);
                });
            }
            subscribers.len()
        })
    }

    /// Whether there is any subscription but to shard channels.
    #[inline]
    pub(crate) fn has_listeners(&self) -> bool {
        self.channels() > 0 || self.patterns() > 0
    }

    /// The channels, or shard channels, with subscribers, filtered by a pattern if there is one.
    pub(crate) fn active(&self, kind: SubscriptionKind, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        match kind {
            SubscriptionKind::Shard => self.shard_channels.names(pattern),
            _ => self.channels.names(pattern),
        }
    }

    /// Number of subscribers of a channel or shard channel, without those of patterns.
    pub(crate) fn subscribers(&self, kind: SubscriptionKind, channel: &[u8]) -> usize {
        match kind {
            SubscriptionKind::Shard => self.shard_channels.with_subscribers(channel, <[_]>::len),
            _ => self.channels.with_subscribers(channel, <[_]>::len),
        }
    }

    /// Number of channels with subscribers.
    pub(crate) fn channels(&self) -> u64 {
        self.channels.len.load(Ordering::Relaxed)
    }

    /// Number of shard channels with subscribers.
    pub(crate) fn shard_channels(&self) -> u64 {
        self.shard_channels.len.load(Ordering::Relaxed)
    }

    /// Number of distinct patterns with subscribers.
    pub(crate) fn patterns(&self) -> u64 {
        self.patterns_len.load(Ordering::Relaxed)
    }

    /// Number of clients with any subscription.
    pub(crate) fn clients(&self) -> u64 {
        self.clients.load(Ordering::Relaxed)
    }
}

/// Writes an out-of-band message.
fn write_message(reply: &mut ReplyWriter, parts: &[&[u8]]) {
    reply.push(parts.len());
    parts.iter().for_each(|part| reply.bulk(part));
}

/// Copies the number of subscriptions of a kind to the counter that other threads read.
fn store_count(session: &Session, kind: SubscriptionKind) {
    let count = session.subscriptions.as_ref().map_or(0, |all| all.of(kind).len());
    let client = &session.client;
    let counter = match kind {
        SubscriptionKind::Channel => &client.channels,
        SubscriptionKind::Pattern => &client.patterns,
        SubscriptionKind::Shard => &client.shard_channels,
    };
    counter.store(count as u64, Ordering::Relaxed);
}

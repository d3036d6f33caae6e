//! Who subscribes to what. It stands outside the arena: subscriptions end with their connections.
//!
//! ```text
//! channel --hash--> one of 64 parts: { channel -> subscribers }      a lock each
//! patterns:         { pattern -> subscribers }                       one lock, read to publish
//! ```
//!
//! Invariants:
//! 1. A channel or pattern is there exactly if somebody subscribes to it.
//! 2. A message is in the mail of all subscribers before the publisher goes on, so what one client
//!    publishes arrives in its order. The part stays locked meanwhile, so that all subscribers of
//!    a channel see its messages in the same order.
//! 3. Locks are taken in the order part, patterns, mail; none of them while one waits for anything
//!    else. They may be taken while shards are locked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::config::OutputLimits;
use cowherd_resp::{ReplyWriter, glob_match};

use super::client::Client;
use super::session::Session;

/// Parts of a space of channels, so that publishers of different channels do not meet.
const PARTS: usize = 64;

type Name = Box<[u8]>;
type Subscribers = Vec<Arc<Client>>;

/// Kinds of subscriptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubscriptionKind {
    /// To a channel.
    Channel,
    /// To all channels that a pattern matches.
    Pattern,
    /// To a shard channel.
    Shard,
}

impl SubscriptionKind {
    /// All.
    pub const ALL: [Self; 3] = [Self::Channel, Self::Pattern, Self::Shard];
}

/// What a connection subscribes to.
#[derive(Debug, Default)]
pub struct Subscriptions {
    channels: BTreeSet<Name>,
    patterns: BTreeSet<Name>,
    shard_channels: BTreeSet<Name>,
}

impl Subscriptions {
    fn of(&mut self, kind: SubscriptionKind) -> &mut BTreeSet<Name> {
        match kind {
            SubscriptionKind::Channel => &mut self.channels,
            SubscriptionKind::Pattern => &mut self.patterns,
            SubscriptionKind::Shard => &mut self.shard_channels,
        }
    }

    fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shard_channels.is_empty()
    }
}

/// Channels and their subscribers.
#[derive(Default)]
struct Channels {
    parts: [Part; PARTS / 4],
    hasher: RandomState,
    len: AtomicU64,
}

/// Four parts: arrays have defaults up to a length of 32.
#[derive(Default)]
struct Part([Mutex<HashMap<Name, Subscribers>>; 4]);

impl Channels {
    fn part(&self, channel: &[u8]) -> &Mutex<HashMap<Name, Subscribers>> {
        let hash = self.hasher.hash_one(channel).to_le_bytes();
        let index = usize::from(hash[0]) % PARTS;
        &self.parts[index / 4].0[index % 4]
    }

    fn all(&self) -> impl Iterator<Item = &Mutex<HashMap<Name, Subscribers>>> {
        self.parts.iter().flat_map(|part| &part.0)
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
        forget(subscribers, client);
        if subscribers.is_empty() {
            part.remove(channel);
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Holds a channel while `with` uses its subscribers.
    fn hold<T>(&self, channel: &[u8], with: impl FnOnce(&[Arc<Client>]) -> T) -> T {
        let part = self.part(channel).lock();
        with(part.get(channel).map_or(&[], Vec::as_slice))
    }

    fn names(&self, pattern: Option<&[u8]>) -> Vec<Name> {
        let mut names = Vec::new();
        for part in self.all() {
            let part = part.lock();
            let fits =
                |name: &&Name| pattern.is_none_or(|pattern| glob_match(pattern, name, false));
            names.extend(part.keys().filter(fits).cloned());
        }
        names
    }
}

fn forget(subscribers: &mut Subscribers, client: &Client) {
    if let Some(at) = subscribers.iter().position(|subscriber| subscriber.id == client.id) {
        subscribers.swap_remove(at);
    }
}

/// All subscriptions.
#[derive(Default)]
pub struct PubSub {
    channels: Channels,
    shard_channels: Channels,
    patterns: RwLock<BTreeMap<Name, Subscribers>>,
    patterns_len: AtomicU64,
    clients: AtomicU64,
}

impl PubSub {
    /// Subscribes a connection, unless it does already.
    pub fn subscribe(&self, session: &mut Session, kind: SubscriptionKind, name: &[u8]) {
        let first = session.subscriptions.is_none();
        let subscriptions = session.subscriptions.get_or_insert_default();
        if !subscriptions.of(kind).insert(name.into()) {
            return;
        }
        if first {
            self.clients.fetch_add(1, Ordering::Relaxed);
        }
        count(session, kind);
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

    /// Ends a subscription, if there is such. No message of it is delivered afterwards.
    pub fn unsubscribe(&self, session: &mut Session, kind: SubscriptionKind, name: &[u8]) {
        let Some(subscriptions) = &mut session.subscriptions else { return };
        if !subscriptions.of(kind).remove(name) {
            return;
        }
        if subscriptions.is_empty() {
            session.subscriptions = None;
            self.clients.fetch_sub(1, Ordering::Relaxed);
        }
        count(session, kind);
        match kind {
            SubscriptionKind::Channel => self.channels.remove(name, &session.client),
            SubscriptionKind::Shard => self.shard_channels.remove(name, &session.client),
            SubscriptionKind::Pattern => {
                let mut patterns = self.patterns.write();
                if let Some(subscribers) = patterns.get_mut(name) {
                    forget(subscribers, &session.client);
                    if subscribers.is_empty() {
                        patterns.remove(name);
                    }
                }
                self.patterns_len.store(patterns.len() as u64, Ordering::Relaxed);
            }
        }
    }

    /// Ends all subscriptions of a connection.
    pub fn leave(&self, session: &mut Session) {
        for kind in SubscriptionKind::ALL {
            for name in Self::names_of(session, kind) {
                self.unsubscribe(session, kind, &name);
            }
        }
    }

    /// What a connection subscribes to.
    pub fn names_of(session: &mut Session, kind: SubscriptionKind) -> Vec<Name> {
        let subscriptions = session.subscriptions.as_mut();
        subscriptions.map_or(Vec::new(), |all| all.of(kind).iter().cloned().collect())
    }

    /// Hands a message to all who subscribe to its channel, or to a pattern that matches it.
    /// Returns how many copies there were.
    pub fn publish(&self, limits: &OutputLimits, channel: &[u8], message: &[u8]) -> usize {
        self.channels.hold(channel, |subscribers| {
            for client in subscribers {
                client.push_output(limits, |reply| write(reply, &[b"message", channel, message]));
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
                    client.push_output(limits, |reply| write(reply, &parts));
                }
                copies += subscribers.len();
            }
        }
        copies
    }

    /// Hands a message to all who subscribe to its shard channel; returns how many.
    pub fn publish_shard(&self, limits: &OutputLimits, channel: &[u8], message: &[u8]) -> usize {
        self.shard_channels.hold(channel, |subscribers| {
            for client in subscribers {
                client.push_output(limits, |reply| write(reply, &[b"smessage", channel, message]));
            }
            subscribers.len()
        })
    }

    /// Whether anybody subscribes to anything but shard channels.
    #[inline]
    pub fn has_listeners(&self) -> bool {
        self.channels() > 0 || self.patterns() > 0
    }

    /// Channels, or shard channels, that somebody subscribes to.
    pub fn active(&self, kind: SubscriptionKind, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        match kind {
            SubscriptionKind::Shard => self.shard_channels.names(pattern),
            _ => self.channels.names(pattern),
        }
    }

    /// Number of subscribers of a channel or shard channel, those of patterns left out.
    pub fn subscribers(&self, kind: SubscriptionKind, channel: &[u8]) -> usize {
        match kind {
            SubscriptionKind::Shard => self.shard_channels.hold(channel, <[_]>::len),
            _ => self.channels.hold(channel, <[_]>::len),
        }
    }

    /// Number of channels with subscribers.
    pub fn channels(&self) -> u64 {
        self.channels.len.load(Ordering::Relaxed)
    }

    /// Number of shard channels with subscribers.
    pub fn shard_channels(&self) -> u64 {
        self.shard_channels.len.load(Ordering::Relaxed)
    }

    /// Number of different patterns with subscribers.
    pub fn patterns(&self) -> u64 {
        self.patterns_len.load(Ordering::Relaxed)
    }

    /// Number of clients that subscribe to anything.
    pub fn clients(&self) -> u64 {
        self.clients.load(Ordering::Relaxed)
    }
}

/// Appends an out-of-band message.
fn write(reply: &mut ReplyWriter, parts: &[&[u8]]) {
    reply.push(parts.len());
    parts.iter().for_each(|part| reply.bulk(part));
}

/// Shows others how many subscriptions of a kind a connection has.
fn count(session: &mut Session, kind: SubscriptionKind) {
    let len = session.subscriptions.as_mut().map_or(0, |all| all.of(kind).len());
    let client = &session.client;
    let figure = match kind {
        SubscriptionKind::Channel => &client.channels,
        SubscriptionKind::Pattern => &client.patterns,
        SubscriptionKind::Shard => &client.shard_channels,
    };
    figure.store(len as u64, Ordering::Relaxed);
}

//! Keyspace notifications: what commands do to keys, published as messages.
//!
//! ```text
//! __keyspace@<db>__:<key>     the name of the event     if notify-keyspace-events has K
//! __keyevent@<db>__:<event>   the key                   if it has E
//! ```
//!
//! A handler calls [`Call::notify`] once what it did is done, with the event's name in Redis. What
//! no handler sees (keys that are new, expire or are missed) the keyspace tells through its
//! listener (`keyspace/news`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

use crate::config::{Config, OutputLimits};
use crate::keyspace::{DbIndex, KeyspaceEvent};

use super::call::Call;
use super::pubsub::PubSub;
use super::shared::Shared;

/// A class of events, a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class(u32);

impl Class {
    /// `K`: publish to the channels of keys.
    const KEYSPACE: Self = Self(1);
    /// `E`: publish to the channels of events.
    const KEYEVENT: Self = Self(1 << 1);
    /// `g`: commands for keys of any type, such as DEL and RENAME.
    pub const GENERIC: Self = Self(1 << 2);
    /// `$`: strings.
    pub const STRING: Self = Self(1 << 3);
    /// `l`: lists.
    pub const LIST: Self = Self(1 << 4);
    /// `s`: sets.
    pub const SET: Self = Self(1 << 5);
    /// `h`: hashes.
    pub const HASH: Self = Self(1 << 6);
    /// `z`: sorted sets.
    pub const SORTED_SET: Self = Self(1 << 7);
    /// `x`: keys that expired.
    pub const EXPIRED: Self = Self(1 << 8);
    /// `e`: keys that were evicted.
    pub const EVICTED: Self = Self(1 << 9);
    /// `t`: streams.
    pub const STREAM: Self = Self(1 << 10);
    /// `m`: keys that were looked for in vain; not in `A`.
    pub const MISSED: Self = Self(1 << 11);
    /// `n`: keys that are new; not in `A`.
    pub const NEW: Self = Self(1 << 12);

    const LETTERS: [(char, Self); 13] = [
        ('K', Self::KEYSPACE),
        ('E', Self::KEYEVENT),
        ('g', Self::GENERIC),
        ('$', Self::STRING),
        ('l', Self::LIST),
        ('s', Self::SET),
        ('h', Self::HASH),
        ('z', Self::SORTED_SET),
        ('x', Self::EXPIRED),
        ('e', Self::EVICTED),
        ('t', Self::STREAM),
        ('m', Self::MISSED),
        ('n', Self::NEW),
    ];

    /// The classes that letters name, as bits. `A` is all of the others but `m` and `n`.
    fn read(letters: &str) -> u32 {
        let bits = |letter: char| match letter {
            'A' => Self::LETTERS[2..11].iter().map(|(_, class)| class.0).sum(),
            letter => {
                let found = Self::LETTERS.iter().find(|(known, _)| *known == letter);
                found.map_or(0, |(_, class)| class.0)
            }
        };
        letters.chars().fold(0, |all, letter| all | bits(letter))
    }
}

/// Which events are published.
#[derive(Debug, Default)]
pub struct Notifications {
    /// The classes, as bits; none unless there is a channel to publish to.
    classes: AtomicU32,
    /// What subscribers may leave unread, for events that no command tells.
    limits: RwLock<OutputLimits>,
}

impl Notifications {
    #[inline]
    fn wants(&self, class: Class) -> bool {
        self.classes.load(Ordering::Relaxed) & class.0 != 0
    }

    /// Publishes an event.
    #[cold]
    fn publish(
        &self,
        pubsub: &PubSub,
        limits: &OutputLimits,
        event: &str,
        db: DbIndex,
        key: &[u8],
    ) {
        if !pubsub.has_listeners() {
            return;
        }
        if self.wants(Class::KEYSPACE) {
            let mut channel = format!("__keyspace@{db}__:").into_bytes();
            channel.extend_from_slice(key);
            pubsub.publish(limits, &channel, event.as_bytes());
        }
        if self.wants(Class::KEYEVENT) {
            let channel = format!("__keyevent@{db}__:{event}");
            pubsub.publish(limits, channel.as_bytes(), key);
        }
    }
}

/// Publishes keyspace events for a command.
#[derive(Clone, Copy)]
pub struct Teller<'c> {
    shared: &'c Shared,
    limits: &'c OutputLimits,
}

impl Teller<'_> {
    /// Publishes that something happened to a key.
    #[inline]
    pub fn notify(self, db: DbIndex, class: Class, event: &str, key: &[u8]) {
        let notifications = &self.shared.notifications;
        if notifications.wants(class) {
            notifications.publish(&self.shared.pubsub, self.limits, event, db, key);
        }
    }
}

impl<'c> Call<'c> {
    /// Publishes that something happened to a key of the selected database.
    #[inline]
    pub fn notify(&self, class: Class, event: &str, key: &[u8]) {
        self.notify_in(self.session.db, class, event, key);
    }

    /// As [`Self::notify`], in another database.
    #[inline]
    pub fn notify_in(&self, db: DbIndex, class: Class, event: &str, key: &[u8]) {
        self.teller().notify(db, class, event, key);
    }

    /// What [`Self::notify`] needs, for those who borrow the rest.
    #[inline]
    pub fn teller(&self) -> Teller<'c> {
        Teller { shared: self.shared, limits: &self.config.client_output_buffer_limit }
    }
}

impl Shared {
    /// Publishes what the keyspace tells.
    pub(super) fn listen(&self) {
        let (pubsub, notifications) = (Arc::clone(&self.pubsub), Arc::clone(&self.notifications));
        self.keyspace.events().set_listener(move |event, db, key| {
            let name = match event {
                KeyspaceEvent::New => "new",
                KeyspaceEvent::Expired => "expired",
                KeyspaceEvent::Missed => "keymiss",
                KeyspaceEvent::Evicted => "evicted",
                KeyspaceEvent::FieldsExpired => "hexpired",
                KeyspaceEvent::HashExpired => "del",
            };
            let limits = *notifications.limits.read();
            notifications.publish(&pubsub, &limits, name, db, key);
        });
    }

    /// Brings the events that are published in line with the configuration.
    pub(super) fn apply_notifications(&self, config: &Config) {
        *self.notifications.limits.write() = config.client_output_buffer_limit;
        let mut bits = Class::read(&config.notify_keyspace_events);
        if bits & (Class::KEYSPACE.0 | Class::KEYEVENT.0) == 0 {
            bits = 0;
        }
        self.notifications.classes.store(bits, Ordering::Relaxed);
        let told = [
            (Class::NEW, KeyspaceEvent::New),
            (Class::EXPIRED, KeyspaceEvent::Expired),
            (Class::MISSED, KeyspaceEvent::Missed),
            (Class::EVICTED, KeyspaceEvent::Evicted),
            (Class::HASH, KeyspaceEvent::FieldsExpired),
            (Class::GENERIC, KeyspaceEvent::HashExpired),
        ];
        let wanted = told.iter().filter(|(class, _)| bits & class.0 != 0);
        let wanted: Vec<KeyspaceEvent> = wanted.map(|(_, event)| *event).collect();
        self.keyspace.events().set_enabled(&wanted);
    }
}

#[cfg(test)]
#[path = "notifications_tests.rs"]
mod tests;

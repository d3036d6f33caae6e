//! Keyspace notifications: events of keys, published as messages.
//!
//! ```text
//! __keyspace@<db>__:<key>     the name of the event     if notify-keyspace-events has K
//! __keyevent@<db>__:<event>   the key                   if it has E
//! ```
//!
//! Handlers publish the events of their commands through an [`EventSink`]. The events that no
//! handler sees (keys that are new, expire, are evicted or missed) come from the keyspace, through
//! the listener that [`Notifications::attach`] sets.
//!
//! An event of a class that is not enabled costs one relaxed load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

use crate::config::{Config, OutputLimits};
use crate::keyspace::{DbIndex, Keyspace, KeyspaceEvent};

use super::pubsub::PubSub;

/// A class of events, or one of the two kinds of channels: one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EventClass(u32);

impl EventClass {
    /// `K`: publish to the channel of the key.
    const KEYSPACE: Self = Self(1);
    /// `E`: publish to the channel of the event.
    const KEYEVENT: Self = Self(1 << 1);
    /// `g`: commands for keys of any type, such as DEL and RENAME.
    pub(crate) const GENERIC: Self = Self(1 << 2);
    /// `$`: strings.
    pub(crate) const STRING: Self = Self(1 << 3);
    /// `l`: lists.
    pub(crate) const LIST: Self = Self(1 << 4);
    /// `s`: sets.
    pub(crate) const SET: Self = Self(1 << 5);
    /// `h`: hashes.
    pub(crate) const HASH: Self = Self(1 << 6);
    /// `z`: sorted sets.
    pub(crate) const SORTED_SET: Self = Self(1 << 7);
    /// `x`: expired keys.
    pub(crate) const EXPIRED: Self = Self(1 << 8);
    /// `e`: evicted keys.
    pub(crate) const EVICTED: Self = Self(1 << 9);
    /// `t`: streams.
    pub(crate) const STREAM: Self = Self(1 << 10);
    /// `m`: reads of keys that do not exist; not in `A`.
    pub(crate) const MISSED: Self = Self(1 << 11);
    /// `n`: new keys; not in `A`.
    pub(crate) const NEW: Self = Self(1 << 12);

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

    /// The bits of the classes that the letters of `notify-keyspace-events` name. `A` names all
    /// classes of events but `m` and `n`. Unknown letters name none.
    fn read(letters: &str) -> u32 {
        let bits = |letter: char| match letter {
            // Without `K` and `E` in front, and `m` and `n` at the end.
            'A' => Self::LETTERS[2..11].iter().map(|(_, class)| class.0).sum(),
            letter => {
                let found = Self::LETTERS.iter().find(|(known, _)| *known == letter);
                found.map_or(0, |(_, class)| class.0)
            }
        };
        letters.chars().fold(0, |all, letter| all | bits(letter))
    }
}

/// The configuration of notifications.
#[derive(Debug, Default)]
pub(crate) struct Notifications {
    /// Bits of the enabled classes; 0 if no kind of channel is enabled.
    classes: AtomicU32,
    /// The output limits for events that come from the keyspace, where no command has a copy of
    /// the configuration.
    limits: RwLock<OutputLimits>,
}

impl Notifications {
    #[inline]
    fn is_enabled(&self, class: EventClass) -> bool {
        self.classes.load(Ordering::Relaxed) & class.0 != 0
    }

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
        if self.is_enabled(EventClass::KEYSPACE) {
            let mut channel = format!("__keyspace@{db}__:").into_bytes();
            channel.extend_from_slice(key);
            pubsub.publish(limits, &channel, event.as_bytes());
        }
        if self.is_enabled(EventClass::KEYEVENT) {
            let channel = format!("__keyevent@{db}__:{event}");
            pubsub.publish(limits, channel.as_bytes(), key);
        }
    }

    /// Publishes the keyspace's own events through `pubsub` from now on. Called once.
    pub(crate) fn attach(self: &Arc<Self>, keyspace: &Keyspace, pubsub: &Arc<PubSub>) {
        let (pubsub, notifications) = (Arc::clone(pubsub), Arc::clone(self));
        keyspace.events().set_listener(move |event, db, key| {
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

    /// Applies `notify-keyspace-events` and the output limits of a configuration.
    pub(crate) fn apply(&self, config: &Config, keyspace: &Keyspace) {
        *self.limits.write() = config.client_output_buffer_limit;
        let mut bits = EventClass::read(&config.notify_keyspace_events);
        if bits & (EventClass::KEYSPACE.0 | EventClass::KEYEVENT.0) == 0 {
            bits = 0;
        }
        self.classes.store(bits, Ordering::Relaxed);
        let classes = [
            (EventClass::NEW, KeyspaceEvent::New),
            (EventClass::EXPIRED, KeyspaceEvent::Expired),
            (EventClass::MISSED, KeyspaceEvent::Missed),
            (EventClass::EVICTED, KeyspaceEvent::Evicted),
            (EventClass::HASH, KeyspaceEvent::FieldsExpired),
            (EventClass::GENERIC, KeyspaceEvent::HashExpired),
        ];
        let enabled = classes.iter().filter(|(class, _)| bits & class.0 != 0);
        let enabled: Vec<KeyspaceEvent> = enabled.map(|(_, event)| *event).collect();
        keyspace.events().set_enabled(&enabled);
    }
}

/// What is needed to publish the events of a command: the borrowed parts of a `Call`.
#[derive(Clone, Copy)]
pub(crate) struct EventSink<'c> {
    notifications: &'c Notifications,
    pubsub: &'c PubSub,
    limits: &'c OutputLimits,
}

impl<'c> EventSink<'c> {
    /// A sink that publishes through `pubsub`.
    pub(crate) const fn new(
        notifications: &'c Notifications,
        pubsub: &'c PubSub,
        limits: &'c OutputLimits,
    ) -> Self {
        Self { notifications, pubsub, limits }
    }

    /// Publishes an event of a key, if its class is enabled.
    #[inline]
    pub(crate) fn notify(self, db: DbIndex, class: EventClass, event: &str, key: &[u8]) {
        if self.notifications.is_enabled(class) {
            self.notifications.publish(self.pubsub, self.limits, event, db, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_name_event_classes() {
        assert_eq!(EventClass::read(""), 0);
        assert_eq!(EventClass::read("KEA"), EventClass::read("KEg$lshzxet"));
        assert_eq!(EventClass::read("d"), 0, "there are no modules");
        let all = EventClass::LETTERS.iter().fold(0, |all, (_, class)| all | class.0);
        assert_eq!(EventClass::read("KEAmn"), all);
        assert_eq!(all.count_ones(), 13);
    }
}

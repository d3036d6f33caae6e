//! The channels and patterns that one connection subscribes to.

use std::collections::BTreeSet;

/// A channel or a pattern.
pub(super) type ChannelName = Box<[u8]>;

/// Kinds of subscriptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SubscriptionKind {
    /// SUBSCRIBE: a channel.
    Channel,
    /// PSUBSCRIBE: all channels that match a pattern.
    Pattern,
    /// SSUBSCRIBE: a shard channel.
    Shard,
}

impl SubscriptionKind {
    pub(super) const ALL: [Self; 3] = [Self::Channel, Self::Pattern, Self::Shard];
}

/// The subscriptions of one connection, by kind.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    channels: BTreeSet<ChannelName>,
    patterns: BTreeSet<ChannelName>,
    shard_channels: BTreeSet<ChannelName>,
}

impl Subscriptions {
    pub(super) const fn of(&self, kind: SubscriptionKind) -> &BTreeSet<ChannelName> {
        match kind {
            SubscriptionKind::Channel => &self.channels,
            SubscriptionKind::Pattern => &self.patterns,
            SubscriptionKind::Shard => &self.shard_channels,
        }
    }

    pub(super) const fn of_mut(&mut self, kind: SubscriptionKind) -> &mut BTreeSet<ChannelName> {
        match kind {
            SubscriptionKind::Channel => &mut self.channels,
            SubscriptionKind::Pattern => &mut self.patterns,
            SubscriptionKind::Shard => &mut self.shard_channels,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shard_channels.is_empty()
    }
}

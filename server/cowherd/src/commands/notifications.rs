//! Keyspace notifications on the side of a handler.
//!
//! A handler calls [`Call::notify`] after its change, with the event's name in Redis. Events that
//! no handler sees (keys that are new, expire, are evicted or missed) come from the keyspace; see
//! `clients/notifications`.

use crate::clients::{EventClass, EventSink};
use crate::keyspace::DbIndex;

use super::call::Call;

impl<'c> Call<'c> {
    /// Publishes an event of a key in the selected database.
    #[inline]
    pub fn notify(&self, class: EventClass, event: &str, key: &[u8]) {
        self.notify_in(self.session.db, class, event, key);
    }

    /// As [`Self::notify`], in another database.
    #[inline]
    pub fn notify_in(&self, db: DbIndex, class: EventClass, event: &str, key: &[u8]) {
        self.event_sink().notify(db, class, event, key);
    }

    /// The sink of [`Self::notify`], for closures that run while other fields are borrowed.
    #[inline]
    pub fn event_sink(&self) -> EventSink<'c> {
        let shared = self.shared;
        let limits = &self.config.client_output_buffer_limit;
        EventSink::new(&shared.notifications, &shared.pubsub, limits)
    }
}

#[cfg(test)]
#[path = "notifications_tests.rs"]
mod tests;

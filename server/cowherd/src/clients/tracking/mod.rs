//! Client-side caching: the server remembers which keys a client has read, and tells the client
//! when one of them changes, so that the client can drop it from its cache.
//!
//! ```text
//! GET k by client 7  --> tracked keys: k -> [7]
//! any change of k    --> k is removed from the table --> "invalidate k" is pushed to client 7
//!
//! broadcast mode:        prefixes: "user:" -> [8]
//! any change of user:1 --> "invalidate user:1" is pushed to client 8
//! ```
//!
//! The keyspace calls [`ClientTracking`] for each change as its observer, while there is a client
//! that tracks; otherwise nothing is called.
//!
//! Invariants:
//! 1. A key that a client has read is in the table until it changes or is removed from the table,
//!    and in either case the client is told. The read and the entry are made under the lock of the
//!    key's shard, as is the change, so that no change falls in between.
//! 2. A message about a key comes behind the reply of the command that read the key: a client's
//!    output is appended to its replies after the command.
//! 3. The keyspace is observed exactly while `trackers` is not empty.

mod tracked_keys;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::config::{Config, OutputLimits};
use crate::keyspace::{ChangeObserver, ClientId, Keyspace};
use cowherd_resp::{ProtocolVersion, ReplyWriter};

use super::client::Client;
use super::registry::ClientRegistry;
use super::session::Session;

use tracked_keys::TrackedKeys;

/// The channel of the messages to RESP2 clients.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// The begin of keys.
pub(crate) type Prefix = Box<[u8]>;

/// Which reads of a client are tracked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum ReadTracking {
    /// None: the client does not track, or tracks by prefixes.
    #[default]
    Off,
    /// All.
    All,
    /// OPTIN: those of the command behind CLIENT CACHING YES.
    OptIn {
        /// Whether it has been sent.
        caching: bool,
    },
    /// OPTOUT: all but those of the command behind CLIENT CACHING NO.
    OptOut {
        /// Whether it has not been sent.
        caching: bool,
    },
}

impl ReadTracking {
    /// Whether the reads of the running command are tracked.
    pub(crate) const fn is_on(self) -> bool {
        matches!(self, Self::All | Self::OptIn { caching: true } | Self::OptOut { caching: true })
    }

    /// What holds for the next command, if CLIENT CACHING is not renewed.
    pub(crate) const fn after_command(self) -> Self {
        match self {
            Self::OptIn { .. } => Self::OptIn { caching: false },
            Self::OptOut { .. } => Self::OptOut { caching: true },
            other => other,
        }
    }
}

/// The options of CLIENT TRACKING ON.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct TrackingOptions {
    /// REDIRECT: the client that gets the messages.
    pub(crate) redirect: Option<ClientId>,
    /// BCAST: messages about all keys with one of the prefixes, whether they were read or not.
    pub(crate) broadcast: bool,
    /// OPTIN.
    pub(crate) opt_in: bool,
    /// OPTOUT.
    pub(crate) opt_out: bool,
    /// NOLOOP: no messages about changes by the client itself.
    pub(crate) no_loop: bool,
    /// PREFIX; in ascending order.
    pub(crate) prefixes: Vec<Prefix>,
}

impl TrackingOptions {
    const fn read_tracking(&self) -> ReadTracking {
        match self {
            Self { broadcast: true, .. } => ReadTracking::Off,
            Self { opt_in: true, .. } => ReadTracking::OptIn { caching: false },
            Self { opt_out: true, .. } => ReadTracking::OptOut { caching: true },
            _ => ReadTracking::All,
        }
    }
}

/// A client that tracks keys.
pub(crate) struct Tracker {
    client: Arc<Client>,
    /// As the client has set them.
    pub(crate) options: TrackingOptions,
    /// Whether a message was lost, because the client of REDIRECT has disconnected.
    redirect_broken: AtomicBool,
}

impl Tracker {
    /// The number of the client that gets the messages, as replies show it: 0 for the client
    /// itself.
    pub(crate) fn redirect(&self) -> i64 {
        i64::try_from(self.options.redirect.unwrap_or(0)).unwrap_or(i64::MAX)
    }

    /// Whether a message was lost, because the client of REDIRECT has disconnected.
    pub(crate) fn is_redirect_broken(&self) -> bool {
        self.redirect_broken.load(Ordering::Relaxed)
    }
}

/// All clients that track keys, and the keys that they track.
pub(crate) struct ClientTracking {
    clients: Arc<ClientRegistry>,
    trackers: RwLock<HashMap<ClientId, Arc<Tracker>>>,
    /// The trackers in broadcast mode, by prefix.
    prefixes: RwLock<BTreeMap<Prefix, Vec<Arc<Tracker>>>>,
    keys: TrackedKeys,
    /// `tracking-table-max-keys`; `usize::MAX` without a limit.
    max_keys: AtomicUsize,
    /// The output limits: messages are made where no command has a copy of the configuration.
    limits: RwLock<OutputLimits>,
}

impl fmt::Debug for ClientTracking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTracking").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

/// Numbers of [`ClientTracking`], for INFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct TrackingCounts {
    /// Clients that track keys.
    pub(crate) clients: u64,
    /// Keys in the table.
    pub(crate) keys: u64,
    /// Pairs of a key in the table and a client that has read it.
    pub(crate) items: u64,
    /// Prefixes of clients in broadcast mode.
    pub(crate) prefixes: u64,
}

impl ClientTracking {
    pub(crate) fn new(clients: Arc<ClientRegistry>) -> Self {
        Self {
            clients,
            trackers: RwLock::default(),
            prefixes: RwLock::default(),
            keys: TrackedKeys::default(),
            max_keys: AtomicUsize::new(usize::MAX),
            limits: RwLock::default(),
        }
    }

    /// Observes the changes of a keyspace from now on, while there are trackers. Called before
    /// clients are served from the keyspace.
    pub(crate) fn attach(self: &Arc<Self>, keyspace: &Keyspace) {
        keyspace.set_change_observer(Arc::clone(self) as _);
        observe(keyspace, &self.trackers.read());
    }

    /// Applies `tracking-table-max-keys` and the output limits of a configuration.
    pub(crate) fn apply(&self, config: &Config) {
        let most = match config.tracking_table_max_keys {
            0 => usize::MAX,
            most => usize::try_from(most).unwrap_or(usize::MAX),
        };
        self.max_keys.store(most, Ordering::Relaxed);
        *self.limits.write() = config.client_output_buffer_limit;
    }

    /// What a client has set; `None` if it does not track.
    pub(crate) fn tracker(&self, client: ClientId) -> Option<Arc<Tracker>> {
        self.trackers.read().get(&client).cloned()
    }

    /// Makes a client track keys with other options than before.
    pub(crate) fn enable(
        &self,
        session: &mut Session,
        keyspace: &Keyspace,
        options: TrackingOptions,
    ) {
        session.read_tracking = options.read_tracking();
        let tracker = Arc::new(Tracker {
            client: Arc::clone(&session.client),
            options,
            redirect_broken: AtomicBool::new(false),
        });
        let mut trackers = self.trackers.write();
        let old = trackers.insert(session.client.id, Arc::clone(&tracker));
        if let Some(old) = old {
            self.remove_prefixes(&old);
        }
        let mut prefixes = self.prefixes.write();
        for prefix in &tracker.options.prefixes {
            prefixes.entry(prefix.clone()).or_default().push(Arc::clone(&tracker));
        }
        drop(prefixes);
        observe(keyspace, &trackers);
    }

    /// Ends the tracking of a client, if it tracks.
    pub(crate) fn disable(&self, session: &mut Session, keyspace: &Keyspace) {
        session.read_tracking = ReadTracking::Off;
        if self.trackers.read().is_empty() {
            return;
        }
        let mut trackers = self.trackers.write();
        let Some(tracker) = trackers.remove(&session.client.id) else { return };
        self.remove_prefixes(&tracker);
        observe(keyspace, &trackers);
        if trackers.is_empty() {
            self.keys.clear();
        }
    }

    fn remove_prefixes(&self, tracker: &Arc<Tracker>) {
        let mut prefixes = self.prefixes.write();
        for prefix in &tracker.options.prefixes {
            let Some(trackers) = prefixes.get_mut(prefix) else { continue };
            trackers.retain(|known| !Arc::ptr_eq(known, tracker));
            if trackers.is_empty() {
                prefixes.remove(prefix);
            }
        }
    }

    /// Remembers that a client has read a key; the key's shard is locked. If the table is full
    /// then, another key is removed, and the clients that have read that one are told so.
    pub(crate) fn remember(&self, client: ClientId, key: &[u8], hash: u64) {
        // The part of the table is locked before the trackers here, and behind them in `disable`.
        let is_connected =
            |reader| self.trackers.try_read().is_none_or(|known| known.contains_key(&reader));
        if self.keys.add(key, hash, client, is_connected) {
            self.trim(1);
        }
    }

    /// Removes keys from the table while it has more than `tracking-table-max-keys`, at most
    /// `most` of them.
    pub(crate) fn trim(&self, most: usize) {
        let limit = self.max_keys.load(Ordering::Relaxed);
        for _ in 0..most {
            if self.keys.len() <= limit {
                return;
            }
            let Some((key, readers)) = self.keys.remove_any(fastrand::u64(..)) else { return };
            self.tell_readers(&key, &readers, None);
        }
    }

    fn tell_readers(&self, key: &[u8], readers: &[ClientId], by: Option<ClientId>) {
        for reader in readers {
            if let Some(tracker) = self.tracker(*reader)
                && !tracker.options.broadcast
            {
                self.tell(&tracker, Some(key), by);
            }
        }
    }

    /// Pushes a message about a key, or about all keys.
    fn tell(&self, tracker: &Tracker, key: Option<&[u8]>, by: Option<ClientId>) {
        let own = &tracker.client;
        if tracker.options.no_loop && by == Some(own.id) {
            return;
        }
        let limits = *self.limits.read();
        let target = match tracker.options.redirect {
            None => Arc::clone(own),
            Some(id) => match self.clients.get(id) {
                Some(target) => target,
                None => return tell_broken_redirect(tracker, id, &limits),
            },
        };
        match target.version() {
            ProtocolVersion::Resp3 => target.push_output(&limits, |reply| {
                reply.push(2);
                reply.bulk(b"invalidate");
                write_keys(reply, key);
            }),
            // Subscribers expect messages, other clients of RESP2 only replies.
            ProtocolVersion::Resp2 => {
                if tracker.options.redirect.is_some() && target.is_subscriber() {
                    target.push_output(&limits, |reply| {
                        reply.push(3);
                        reply.bulk(b"message");
                        reply.bulk(CHANNEL);
                        write_keys(reply, key);
                    });
                }
            }
        }
    }

    /// Counts trackers, keys and prefixes.
    pub(crate) fn counts(&self) -> TrackingCounts {
        TrackingCounts {
            clients: self.trackers.read().len() as u64,
            keys: self.keys.len() as u64,
            items: self.keys.readers() as u64,
            prefixes: self.prefixes.read().len() as u64,
        }
    }
}

/// Invariant 3. The caller has locked the trackers.
fn observe(keyspace: &Keyspace, trackers: &HashMap<ClientId, Arc<Tracker>>) {
    keyspace.observe_changes(!trackers.is_empty());
}

fn write_keys(reply: &mut ReplyWriter, key: Option<&[u8]>) {
    match key {
        Some(key) => {
            reply.array(1);
            reply.bulk(key);
        }
        None => reply.null(),
    }
}

fn tell_broken_redirect(tracker: &Tracker, redirect: ClientId, limits: &OutputLimits) {
    tracker.redirect_broken.store(true, Ordering::Relaxed);
    if tracker.client.version() == ProtocolVersion::Resp3 {
        tracker.client.push_output(limits, |reply| {
            reply.push(2);
            reply.bulk(b"tracking-redir-broken");
            reply.integer(i64::try_from(redirect).unwrap_or(i64::MAX));
        });
    }
}

impl ChangeObserver for ClientTracking {
    fn key_changed(&self, key: &[u8], hash: u64, by: Option<ClientId>) {
        if let Some(readers) = self.keys.remove(key, hash) {
            self.tell_readers(key, &readers, by);
        }
        for (prefix, trackers) in self.prefixes.read().iter() {
            if key.starts_with(prefix) {
                trackers.iter().for_each(|tracker| self.tell(tracker, Some(key), by));
            }
        }
    }

    fn all_changed(&self) {
        self.keys.clear();
        let trackers: Vec<_> = self.trackers.read().values().cloned().collect();
        trackers.iter().for_each(|tracker| self.tell(tracker, None, None));
    }
}

//! Sends events to all who listen (server-sent events, as the HTML standard defines them).
//!
//! Invariants:
//! 1. At most [`LISTENERS`] at a time.
//! 2. Sending never waits. A listener that has not read its last [`BACKLOG`] events is let go; it
//!    comes back by itself and is told everything anew.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot};

/// The most listeners at a time.
pub(super) const LISTENERS: usize = 16;
/// Events that may wait for one listener: some seconds of them.
const BACKLOG: usize = 64;

/// An event with its name, in the form in which it is sent.
pub(super) fn event(name: &str, data: &impl Serialize) -> Bytes {
    // Plain structs of numbers and strings cannot fail; JSON has no line breaks of its own.
    let data = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// One that listens.
#[derive(Debug)]
struct Listener {
    events: mpsc::Sender<Bytes>,
    /// Tells the connection, by its end, that this listener was let go.
    _kept: oneshot::Sender<()>,
}

/// All who listen.
#[derive(Debug, Default)]
pub(super) struct Hub {
    listeners: Mutex<Vec<Listener>>,
    joined: Notify,
}

impl Hub {
    /// Lets one more listen, who is sent `first` before anything else. None: there are too many.
    pub(super) fn join(&self, first: impl FnOnce() -> Bytes) -> Option<(Feed, Disconnected)> {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| !listener.events.is_closed());
        if listeners.len() == LISTENERS {
            return None;
        }
        let (events, feed) = mpsc::channel(BACKLOG);
        let (kept, let_go) = oneshot::channel();
        // It is empty: there is room.
        let _ = events.try_send(first());
        listeners.push(Listener { events, _kept: kept });
        self.joined.notify_one();
        Some((Feed(feed), let_go))
    }

    /// Sends an event to everyone.
    pub(super) fn send(&self, event: &Bytes) {
        self.listeners.lock().retain(|one| one.events.try_send(event.clone()).is_ok());
    }

    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| !listener.events.is_closed());
        !listeners.is_empty()
    }

    /// Waits until somebody listens.
    pub(super) async fn heard(&self) {
        while !self.is_heard() {
            self.joined.notified().await;
        }
    }

    /// Lets everybody go.
    pub(super) fn close(&self) {
        self.listeners.lock().clear();
    }
}

/// Resolves when a listener was let go.
pub type Disconnected = oneshot::Receiver<()>;

/// The body of an answer that goes on until the listener goes or is let go.
#[derive(Debug)]
pub struct Feed(mpsc::Receiver<Bytes>);

impl Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_hears_each_event_after_the_first() {
        let hub = Hub::default();
        assert!(!hub.is_heard());
        let (mut one, _kept) = hub.join(|| event("hello", &1)).unwrap();
        hub.send(&event("second", &2));
        let (mut two, _kept) = hub.join(|| event("hello", &3)).unwrap();
        hub.send(&event("second", &4));
        let heard = |feed: &mut Feed| {
            let events = std::iter::from_fn(|| feed.0.try_recv().ok());
            events.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).collect::<String>()
        };
        let (first, second, last) = ("event: hello\ndata: ", "event: second\ndata: ", "\n\n");
        assert_eq!(heard(&mut one), format!("{first}1{last}{second}2{last}{second}4{last}"));
        assert_eq!(heard(&mut two), format!("{first}3{last}{second}4{last}"));
        drop(one);
        assert!(hub.is_heard());
        drop(two);
        assert!(!hub.is_heard());
    }

    #[test]
    fn listeners_are_limited_and_their_places_come_free() {
        let hub = Hub::default();
        let join = || hub.join(|| event("hello", &()));
        let mut all: Vec<_> = (0..LISTENERS).map(|_| join().unwrap()).collect();
        assert!(join().is_none());
        all.pop();
        assert!(join().is_some());
    }

    #[test]
    fn who_does_not_read_is_let_go() {
        let hub = Hub::default();
        let (_slow, mut slow_kept) = hub.join(|| event("hello", &())).unwrap();
        let (mut quick, mut quick_kept) = hub.join(|| event("hello", &())).unwrap();
        for number in 0..BACKLOG {
            let _ = quick.0.try_recv().unwrap();
            hub.send(&event("second", &number));
        }
        assert!(slow_kept.try_recv().is_err_and(|end| end == oneshot::error::TryRecvError::Closed));
        assert!(quick_kept.try_recv().is_err_and(|end| end == oneshot::error::TryRecvError::Empty));
        hub.close();
        assert!(
            quick_kept.try_recv().is_err_and(|end| end == oneshot::error::TryRecvError::Closed)
        );
    }
}

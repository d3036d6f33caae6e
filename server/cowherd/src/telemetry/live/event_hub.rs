//! Sends events to the connected pages (server-sent events of the HTML standard).
//!
//! Invariants:
//! 1. At most [`MAX_PAGES`] pages are connected.
//! 2. Sending never waits. A page that has not read its last [`BACKLOG`] events is disconnected;
//!    the browser reconnects by itself and receives a new `hello`.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot};

/// The most pages at a time: each gets every event, serialized once and copied per page.
pub(super) const MAX_PAGES: usize = 16;
/// Events in the queue of one page: some seconds during a checkpoint.
const BACKLOG: usize = 64;

/// An event in the format of the stream.
pub(super) fn event(name: &str, data: &impl Serialize) -> Bytes {
    // Plain structs of numbers and strings cannot fail; JSON has no line breaks of its own.
    let data = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// A connected page.
#[derive(Debug)]
struct PageConnection {
    events: mpsc::Sender<Bytes>,
    /// Dropped with the page, which resolves its [`Disconnected`].
    _kept: oneshot::Sender<()>,
}

/// The connected pages.
#[derive(Debug, Default)]
pub(super) struct EventHub {
    pages: Mutex<Vec<PageConnection>>,
    joined: Notify,
}

impl EventHub {
    /// Connects a page, which receives `first` before any other event. None: too many pages.
    pub(super) fn join(
        &self,
        first: impl FnOnce() -> Bytes,
    ) -> Option<(EventStream, Disconnected)> {
        let mut pages = self.pages.lock();
        pages.retain(|page| !page.events.is_closed());
        if pages.len() == MAX_PAGES {
            return None;
        }
        let (events, receiver) = mpsc::channel(BACKLOG);
        let (kept, disconnected) = oneshot::channel();
        // The new queue is empty and has room.
        let _ = events.try_send(first());
        pages.push(PageConnection { events, _kept: kept });
        self.joined.notify_one();
        Some((EventStream(receiver), disconnected))
    }

    /// Sends an event to all pages.
    pub(super) fn send(&self, event: &Bytes) {
        self.pages.lock().retain(|one| one.events.try_send(event.clone()).is_ok());
    }

    /// Whether any page is connected.
    pub(super) fn has_pages(&self) -> bool {
        let mut pages = self.pages.lock();
        pages.retain(|page| !page.events.is_closed());
        !pages.is_empty()
    }

    /// Waits until a page is connected.
    pub(super) async fn wait_for_page(&self) {
        while !self.has_pages() {
            self.joined.notified().await;
        }
    }

    /// Disconnects all pages.
    pub(super) fn close(&self) {
        self.pages.lock().clear();
    }
}

/// Resolves when the hub has disconnected the page.
pub(crate) type Disconnected = oneshot::Receiver<()>;

/// The body of a response that lasts until either side disconnects.
#[derive(Debug)]
pub(crate) struct EventStream(mpsc::Receiver<Bytes>);

impl Body for EventStream {
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
    fn each_page_receives_every_event_after_its_first() {
        let hub = EventHub::default();
        assert!(!hub.has_pages());
        let (mut one, _kept) = hub.join(|| event("hello", &1)).unwrap();
        hub.send(&event("second", &2));
        let (mut two, _kept) = hub.join(|| event("hello", &3)).unwrap();
        hub.send(&event("second", &4));
        let received = |stream: &mut EventStream| {
            let events = std::iter::from_fn(|| stream.0.try_recv().ok());
            events.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).collect::<String>()
        };
        let (first, second, last) = ("event: hello\ndata: ", "event: second\ndata: ", "\n\n");
        assert_eq!(received(&mut one), format!("{first}1{last}{second}2{last}{second}4{last}"));
        assert_eq!(received(&mut two), format!("{first}3{last}{second}4{last}"));
        drop(one);
        assert!(hub.has_pages());
        drop(two);
        assert!(!hub.has_pages());
    }

    #[test]
    fn pages_are_limited_and_a_closed_one_makes_room() {
        let hub = EventHub::default();
        let join = || hub.join(|| event("hello", &()));
        let mut all: Vec<_> = (0..MAX_PAGES).map(|_| join().unwrap()).collect();
        assert!(join().is_none());
        all.pop();
        assert!(join().is_some());
    }

    #[test]
    fn a_page_that_does_not_read_is_disconnected() {
        let hub = EventHub::default();
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

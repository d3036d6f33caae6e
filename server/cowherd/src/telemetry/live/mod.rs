//! The live page: latency second by second, an occupancy map of the arena, the last checkpoints.
//! Read-only.
//!
//! ```text
//!   background: Telemetry::tick --> seconds (ring of 10 minutes)
//!                                      |
//!   metrics thread: change_watcher ---- polls 10 times a second, only while a page is connected
//!                     |                |
//!                     |-- json ------ also GET /api/state, /api/checkpoints
//!                     '-- event_hub - GET /events: hello, second, map, checkpoint
//!   assets: GET /, /live/...
//! ```
//!
//! The page loads nothing from other hosts; its Content-Security-Policy forbids that.

mod assets;
mod change_watcher;
mod event_hub;
mod json;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use parking_lot::Mutex;

use super::registry::Telemetry;
use super::stats_source::StatsSource;
use change_watcher::{ChangeWatcher, Feed, poll_timer};
pub(crate) use event_hub::Disconnected;
use event_hub::{EventHub, EventStream, MAX_PAGES, event};
use json::{CheckpointList, HelloEvent, ServerState};

/// The body of a response: complete, or a stream of events.
pub(crate) type Payload = Either<Full<Bytes>, EventStream>;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// Allows only what this server sends.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Answers the requests of the page.
pub(crate) struct LivePage {
    telemetry: Arc<Telemetry>,
    stats_source: Arc<dyn StatsSource>,
    hub: EventHub,
    watcher: Mutex<ChangeWatcher>,
}

impl LivePage {
    /// StatsSource from these two.
    pub(crate) fn new(telemetry: Arc<Telemetry>, stats_source: Arc<dyn StatsSource>) -> Self {
        Self { telemetry, stats_source, hub: EventHub::default(), watcher: Mutex::default() }
    }

    /// Polls for changes while pages are connected; never returns.
    pub(crate) async fn run(&self) {
        let feed =
            Feed { telemetry: &self.telemetry, stats_source: &*self.stats_source, hub: &self.hub };
        loop {
            self.hub.wait_for_page().await;
            let mut ticks = poll_timer();
            while self.hub.has_pages() {
                self.watcher.lock().poll(&feed);
                ticks.tick().await;
            }
        }
    }

    /// Disconnects all pages.
    pub(crate) fn close(&self) {
        self.hub.close();
    }

    /// The response to a request; None: the path is not one of the page. A stream of events comes
    /// with the signal that ends the stream.
    pub(crate) fn answer(
        &self,
        method: &Method,
        path: &str,
    ) -> Option<(Response<Payload>, Option<Disconnected>)> {
        let response = match path {
            "/events" if method == Method::GET => return Some(self.connect()),
            "/events" => whole(StatusCode::OK, EVENTS, Bytes::new()),
            "/api/state" => json(&ServerState::now(&self.telemetry, &*self.stats_source)),
            "/api/checkpoints" => json(&CheckpointList::now(&self.telemetry)),
            _ => {
                let asset = assets::find(path)?;
                whole(StatusCode::OK, asset.content_type, asset.text.into())
            }
        };
        Some((response, None))
    }

    fn connect(&self) -> (Response<Payload>, Option<Disconnected>) {
        if !self.hub.has_pages() {
            *self.watcher.lock() = ChangeWatcher::new(&self.telemetry);
        }
        let hello = || event("hello", &HelloEvent::now(&self.telemetry, &*self.stats_source));
        match self.hub.join(hello) {
            Some((stream, disconnected)) => {
                (answer(StatusCode::OK, EVENTS, Either::Right(stream)), Some(disconnected))
            }
            None => {
                let text = format!("{} pages listen already; close one\n", MAX_PAGES);
                let status = StatusCode::SERVICE_UNAVAILABLE;
                (whole(status, "text/plain; charset=utf-8", text.into()), None)
            }
        }
    }
}

impl std::fmt::Debug for LivePage {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("LivePage").field("hub", &self.hub).finish_non_exhaustive()
    }
}

fn json(value: &impl serde::Serialize) -> Response<Payload> {
    match serde_json::to_vec(value) {
        Ok(body) => whole(StatusCode::OK, JSON, body.into()),
        Err(error) => {
            tracing::warn!(%error, "can't write JSON");
            whole(StatusCode::INTERNAL_SERVER_ERROR, JSON, Bytes::from_static(b"null"))
        }
    }
}

fn whole(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Payload> {
    answer(status, content_type, Either::Left(Full::new(body)))
}

fn answer(status: StatusCode, content_type: &'static str, body: Payload) -> Response<Payload> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("content-security-policy"), POLICY),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;

//! The live page: latency second by second, a map of the arena, the last saves. Read-only.
//!
//! ```text
//!   background: Telemetry::tick --> seconds (ring of 10 minutes)
//!                                      |
//!   metrics thread: watch ---- looks 10 times a second, only while somebody listens
//!                     |                |
//!                     |-- state --- JSON shapes; also GET /api/state, /api/checkpoints
//!                     '-- hub ----- GET /events: hello, second, map, save
//!   assets: GET /, /live/...
//! ```
//!
//! The page asks no other host for anything, and its Content-Security-Policy lets it ask none.

mod assets;
mod hub;
mod seconds;
mod state;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use parking_lot::Mutex;

use super::{StatsSource, Telemetry};
pub use hub::Disconnected;
use hub::{Feed, Hub};
pub(super) use seconds::SecondHistory;
use watch::Watch;

/// The body of an answer: whole, or one that goes on.
pub type Payload = Either<Full<Bytes>, Feed>;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// Only what the page itself brings along.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// What answers for the page.
pub struct LivePage {
    telemetry: Arc<Telemetry>,
    stats_source: Arc<dyn StatsSource>,
    hub: Hub,
    watch: Mutex<Watch>,
}

impl LivePage {
    /// StatsSource from these two.
    pub fn new(telemetry: Arc<Telemetry>, stats_source: Arc<dyn StatsSource>) -> Self {
        Self { telemetry, stats_source, hub: Hub::default(), watch: Mutex::default() }
    }

    /// Sends events to all who listen; never ends.
    pub async fn run(&self) {
        watch::run(self).await;
    }

    /// Lets all who listen go.
    pub fn close(&self) {
        self.hub.close();
    }

    /// Answers a request for the page; None: the path is not one of its own. An answer that goes
    /// on comes with what tells that it has to end.
    pub fn answer(
        &self,
        method: &Method,
        path: &str,
    ) -> Option<(Response<Payload>, Option<Disconnected>)> {
        let response = match path {
            "/events" if method == Method::GET => return Some(self.listen()),
            "/events" => whole(StatusCode::OK, EVENTS, Bytes::new()),
            "/api/state" => json(&state::State::now(&self.telemetry, &*self.stats_source)),
            "/api/checkpoints" => json(&state::saves(&self.telemetry)),
            _ => {
                let asset = assets::find(path)?;
                whole(StatusCode::OK, asset.content_type, asset.text.into())
            }
        };
        Some((response, None))
    }

    fn listen(&self) -> (Response<Payload>, Option<Disconnected>) {
        if !self.hub.is_heard() {
            *self.watch.lock() = Watch::new(&self.telemetry);
        }
        let hello =
            || hub::event("hello", &state::Hello::now(&self.telemetry, &*self.stats_source));
        match self.hub.join(hello) {
            Some((feed, let_go)) => {
                (answer(StatusCode::OK, EVENTS, Either::Right(feed)), Some(let_go))
            }
            None => {
                let text = format!("{} pages listen already; close one\n", hub::LISTENERS);
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

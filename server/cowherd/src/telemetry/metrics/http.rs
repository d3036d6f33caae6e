//! Serves `/metrics`, `/healthz` and the live page from one thread with a runtime of its own, so
//! that a scrape never runs on a thread that serves clients.
//!
//! Invariants:
//! 1. At most [`CONNECTIONS`] at a time; the others wait in the listen queue.
//! 2. A connection carries one request and lives for [`LIFETIME`] at most, so that a silent peer
//!    cannot hold a place. Only a listener of the live page stays longer, until it is let go; of
//!    those there are far fewer than places.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::AsRawFd as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt::TcpUserTimeout};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

use super::{Format, Source};
use crate::telemetry::live::{Disconnected, LivePage, Payload};
use crate::telemetry::{StatsSource, Telemetry};

/// Connections served at a time.
const CONNECTIONS: usize = 64;
/// The longest a connection may take.
const LIFETIME: Duration = Duration::from_secs(30);
/// How long answers may take that are under way when the server stops.
const GRACE: Duration = Duration::from_secs(1);
/// A connection ends whose peer acknowledges nothing for so long: it has gone without a word.
const SILENCE_MS: u32 = 30_000;
/// The pause after an accept that failed, for lack of descriptors most often.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";

/// Why metrics are not served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address cannot be listened on.
    #[error(
        "can't serve metrics on {address}: {source}; set metrics-bind and metrics-port to an \
         address that is free, or metrics-port to 0 for no metrics"
    )]
    Listen {
        /// The settings `metrics-bind` and `metrics-port`.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The thread cannot be started.
    #[error("can't start the thread that serves metrics: {0}; check the limit of threads")]
    Thread(io::Error),
}

/// The running server of metrics. Dropping it stops it.
#[derive(Debug)]
pub struct MetricsServer {
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests bind port 0"))]
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    #[cfg(test)]
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[cfg(test)]
    /// Takes no more requests, finishes those under way (for a second at most), and returns when
    /// the thread is gone.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        // Dropping the sender is the signal.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // An error is a panic of that thread, which has been reported already.
            let _ = thread.join();
        }
    }
}

/// Listens on an address and serves from now on. Port 0 takes any that is free.
pub fn serve(
    telemetry: Arc<Telemetry>,
    stats_source: Arc<dyn StatsSource>,
    address: SocketAddr,
) -> Result<MetricsServer, MetricsError> {
    let refused = |source| MetricsError::Listen { address, source };
    let listener = StdListener::bind(address).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(MetricsError::Thread)?;
    let listener = {
        let _inside = runtime.enter();
        TcpListener::from_std(listener).map_err(refused)?
    };
    let live = Arc::new(LivePage::new(Arc::clone(&telemetry), Arc::clone(&stats_source)));
    let routes = Arc::new(Routes { source: Source { telemetry, stats_source }, live });
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || runtime.block_on(accept(listener, routes, stopped)))
        .map_err(MetricsError::Thread)?;
    Ok(MetricsServer { address, stop: Some(stop), thread: Some(thread) })
}

async fn accept(listener: TcpListener, routes: Arc<Routes>, mut stopped: oneshot::Receiver<()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let live = Arc::clone(&routes.live);
    tokio::spawn(async move { live.run().await });
    let graceful = GracefulShutdown::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((listener.accept().await?.0, place))
        };
        let accepted = tokio::select! {
            _ = &mut stopped => break,
            accepted = next => accepted,
        };
        match accepted {
            Ok((stream, place)) => connection(stream, place, Arc::clone(&routes), &graceful),
            Err(error) => {
                tracing::debug!(%error, "can't accept a connection for metrics");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // The child of a fork has the socket too, and would listen on for as long as it lives.
    let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
    drop(listener);
    routes.live.close();
    // What is not done in time is cut off with the runtime.
    let _ = timeout(GRACE, graceful.shutdown()).await;
}

/// Serves one connection in a task of its own.
fn connection(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    routes: Arc<Routes>,
    graceful: &GracefulShutdown,
) {
    // Without it the connection just ends later.
    let _ = setsockopt(&stream, TcpUserTimeout, &SILENCE_MS);
    let (listens, mut listening) = mpsc::unbounded_channel();
    let service = service_fn(move |request| {
        let (response, let_go) = routes.answer(&request);
        // The receiver lives as long as the connection.
        let _ = let_go.map(|let_go| listens.send(let_go));
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        let mut connection = pin!(connection);
        let mut ended = timeout(LIFETIME, &mut connection).await;
        if let (Err(_), Ok(let_go)) = (&ended, listening.try_recv()) {
            ended = until(let_go, connection).await;
        }
        // Peers that go away or talk nonsense are their own affair.
        if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "a connection for metrics failed");
        }
        drop(place);
    });
}

/// Goes on with a listener's connection until it ends, or is let go and still does not end.
async fn until<C: Future>(
    let_go: Disconnected,
    mut connection: Pin<&mut C>,
) -> Result<C::Output, Elapsed> {
    tokio::select! {
        ended = &mut connection => Ok(ended),
        _ = let_go => timeout(GRACE, connection).await,
    }
}

/// What there is to ask for.
struct Routes {
    source: Source,
    live: Arc<LivePage>,
}

impl Routes {
    /// The answer, and what tells that it has to end if it goes on by itself.
    fn answer(&self, request: &Request<Incoming>) -> (Response<Payload>, Option<Disconnected>) {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            let mut refusal = response(status, PLAIN, "only GET and HEAD\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return (refusal, None);
        }
        if let Some(answer) = self.live.answer(request.method(), request.uri().path()) {
            return answer;
        }
        let response = match request.uri().path() {
            "/metrics" => self.metrics(request),
            "/healthz" if self.source.telemetry.persistence().is_loading() => {
                response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "loading\n")
            }
            "/healthz" => response(StatusCode::OK, PLAIN, "ok\n"),
            _ => response(StatusCode::NOT_FOUND, PLAIN, "not found; try / or /metrics\n"),
        };
        (response, None)
    }

    fn metrics(&self, request: &Request<Incoming>) -> Response<Payload> {
        let accepts = request.headers().get_all(ACCEPT).iter();
        let accepts: Vec<&str> = accepts.filter_map(|value| value.to_str().ok()).collect();
        let format = Format::accepted(&accepts.join(","));
        response(StatusCode::OK, format.content_type(), self.source.render(format))
    }
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Payload> {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;

//! The HTTP server of `/metrics`, `/healthz` and the live page: one thread with a runtime of its
//! own, so that a scrape never runs on a thread that serves clients.
//!
//! Invariants:
//! 1. At most [`CONNECTIONS`] at a time; the others wait in the listen queue.
//! 2. A connection carries one request and lasts for [`LIFETIME`] at most, so that a silent peer
//!    frees its permit. Only an event stream of the live page lasts longer, until the page is
//!    disconnected; streams are far fewer than [`CONNECTIONS`].

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

use super::exposition::ExpositionFormat;
use super::source::MetricsSource;
use crate::telemetry::live::{Disconnected, LivePage, Payload};
use crate::telemetry::registry::Telemetry;
use crate::telemetry::stats_source::StatsSource;

/// Connections served at a time.
const CONNECTIONS: usize = 64;
/// The longest time of one request and its response, far beyond any scrape timeout.
const LIFETIME: Duration = Duration::from_secs(30);
/// Time for responses under way when the server stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// TCP_USER_TIMEOUT: a connection ends when the peer acknowledges nothing for so long.
const ACK_TIMEOUT_MS: u32 = 30_000;
/// The pause after a failed accept, most often for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";

/// Why metrics are not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetricsError {
    /// The server cannot listen on the address.
    #[error(
        "can't serve metrics on {address}: {source}; set metrics-bind and metrics-port to an \
         address that is free, or metrics-port to 0 for no metrics"
    )]
    Listen {
        /// The settings `metrics-bind` and `metrics-port`.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The thread cannot be started.
    #[error("can't start the thread that serves metrics: {0}; check the limit of threads")]
    Thread(io::Error),
}

/// The running HTTP server. Dropping it accepts no more requests, finishes those under way (for a
/// second at most), and joins the thread.
#[derive(Debug)]
pub(crate) struct MetricsServer {
    /// The address on which the server listens.
    #[cfg(test)]
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        // Dropping the sender is the signal.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // An error is a panic of that thread, which the panic hook has reported.
            let _ = thread.join();
        }
    }
}

/// Listens on an address and starts the thread. Port 0 takes any free port.
pub(crate) fn serve(
    telemetry: Arc<Telemetry>,
    stats_source: Arc<dyn StatsSource>,
    address: SocketAddr,
) -> Result<MetricsServer, MetricsError> {
    let refused = |source| MetricsError::Listen { address, source };
    let listener = StdListener::bind(address).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    #[cfg(test)]
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
    let routes =
        Arc::new(MetricsRoutes { source: MetricsSource { telemetry, stats_source }, live });
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || runtime.block_on(accept(listener, routes, stopped)))
        .map_err(MetricsError::Thread)?;
    Ok(MetricsServer {
        #[cfg(test)]
        address,
        stop: Some(stop),
        thread: Some(thread),
    })
}

async fn accept(
    listener: TcpListener,
    routes: Arc<MetricsRoutes>,
    mut stopped: oneshot::Receiver<()>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let live = Arc::clone(&routes.live);
    tokio::spawn(async move { live.run().await });
    let graceful = GracefulShutdown::new();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((listener.accept().await?.0, permit))
        };
        let accepted = tokio::select! {
            _ = &mut stopped => break,
            accepted = next => accepted,
        };
        match accepted {
            Ok((stream, permit)) => connection(stream, permit, Arc::clone(&routes), &graceful),
            Err(error) => {
                tracing::debug!(%error, "can't accept a connection for metrics");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // A forked child inherits the socket; without the shutdown the port stays open in the child.
    let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
    drop(listener);
    routes.live.close();
    // Dropping the runtime cuts off the rest.
    let _ = timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await;
}

/// Serves one connection in a task of its own.
fn connection(
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    routes: Arc<MetricsRoutes>,
    graceful: &GracefulShutdown,
) {
    // If this fails, the connection of a lost peer ends later.
    let _ = setsockopt(&stream, TcpUserTimeout, &ACK_TIMEOUT_MS);
    let (streams, mut stream_started) = mpsc::unbounded_channel();
    let service = service_fn(move |request| {
        let (response, disconnected) = routes.answer(&request);
        // The receiver lives as long as the connection.
        let _ = disconnected.map(|disconnected| streams.send(disconnected));
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
        if let (Err(_), Ok(disconnected)) = (&ended, stream_started.try_recv()) {
            ended = serve_stream(disconnected, connection).await;
        }
        // A peer that disconnects early or sends no HTTP is no fault of the server.
        if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "a connection for metrics failed");
        }
        drop(permit);
    });
}

/// Continues an event stream until the connection ends, or for a grace period after `disconnected`.
async fn serve_stream<C: Future>(
    disconnected: Disconnected,
    mut connection: Pin<&mut C>,
) -> Result<C::Output, Elapsed> {
    tokio::select! {
        ended = &mut connection => Ok(ended),
        _ = disconnected => timeout(SHUTDOWN_TIMEOUT, connection).await,
    }
}

/// The paths of the server.
struct MetricsRoutes {
    source: MetricsSource,
    live: Arc<LivePage>,
}

impl MetricsRoutes {
    /// The response, and for an event stream the signal that ends it.
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
        let format = ExpositionFormat::accepted(&accepts.join(","));
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

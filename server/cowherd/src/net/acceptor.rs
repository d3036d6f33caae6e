//! The acceptor: listening sockets, admission of new connections, and dispatch to the workers.
//!
//! A connection beyond `maxclients`, or a remote one in protected mode, gets one error line and is
//! closed before any worker sees the socket.

use std::fs;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::clients::{ClientRegistry, Origin};
use crate::config::{Config, LiveConfig};
use crate::telemetry::Recorder;

use super::handoff::{AcceptedSocket, RoundRobin};

const MAX_CLIENTS_REACHED: &[u8] = b"-ERR max number of clients reached\r\n";
const PROTECTED_MODE: &[u8] =
    b"-DENIED Redis is running in protected mode because protected mode is \
enabled and no password is set for the default user. In this mode connections are only accepted \
from the loopback interface. To connect from other computers, set a password with requirepass, or \
set protected-mode to no if the network is trusted.\r\n";

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error(
        "cannot listen on {address}; is another server running there? Choose another address with \
         --port or --bind"
    )]
    Tcp { address: SocketAddr, source: io::Error },
    #[error("cannot listen on the Unix socket {path}")]
    Unix { path: PathBuf, source: io::Error },
    #[error("there is nothing to listen on: port is 0 and no unixsocket is set")]
    NoListener,
}

/// The sockets that the server listens on.
pub(crate) struct Listeners {
    tcp: Vec<std::net::TcpListener>,
    unix: Option<(std::os::unix::net::UnixListener, PathBuf)>,
}

impl Listeners {
    /// Listens on the addresses of `bind` and on `unixsocket`.
    ///
    /// # Errors
    /// An address without the prefix `-` (optional) cannot be bound, or nothing is configured.
    pub(crate) fn bind(config: &Config) -> Result<Self, BindError> {
        let mut tcp = Vec::new();
        if config.port != 0 {
            for bind in &config.bind {
                let address = SocketAddr::new(bind.address, config.port);
                match listen(address, config.tcp_backlog) {
                    Ok(listener) => tcp.push(listener),
                    Err(error) if bind.optional && is_unavailable(&error) => {}
                    Err(source) => return Err(BindError::Tcp { address, source }),
                }
            }
        }
        let unix = match &config.unixsocket {
            Some(path) => Some((listen_unix(path, config)?, path.clone())),
            None => None,
        };
        if tcp.is_empty() && unix.is_none() {
            return Err(BindError::NoListener);
        }
        Ok(Self { tcp, unix })
    }

    /// The bound addresses, for the log.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let tcp = self.tcp.iter().filter_map(|l| l.local_addr().ok()).map(|a| a.to_string());
        tcp.chain(self.unix.iter().map(|(_, path)| path.display().to_string())).collect()
    }

    /// Spawns one accepting task for each listener; the tasks end with the runtime.
    pub(super) fn accept(self, acceptor: &'static Acceptor) {
        for listener in self.tcp {
            tokio::task::spawn_local(accept_tcp(listener, acceptor));
        }
        if let Some((listener, path)) = self.unix {
            tokio::task::spawn_local(accept_unix(listener, path, acceptor));
        }
    }
}

fn is_unavailable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

fn listen(address: SocketAddr, backlog: u32) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn listen_unix(
    path: &PathBuf,
    config: &Config,
) -> Result<std::os::unix::net::UnixListener, BindError> {
    let failed = |source| BindError::Unix { path: path.clone(), source };
    // A killed server leaves its socket file behind, and bind fails while the file exists. A file
    // that accepts connections belongs to a live server and stays.
    if std::os::unix::net::UnixStream::connect(path).is_err() {
        let _ = fs::remove_file(path);
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
    if config.unixsocketperm != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(config.unixsocketperm))
            .map_err(failed)?;
    }
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// What the accepting tasks share.
pub(super) struct Acceptor {
    pub config: Arc<LiveConfig>,
    pub clients: Arc<ClientRegistry>,
    pub recorder: Recorder,
    pub workers: RoundRobin,
}

impl Acceptor {
    /// The error line for a connection from `peer` that is rejected; `None` admits it.
    fn refusal(&self, peer: Option<IpAddr>) -> Option<&'static [u8]> {
        let config = self.config.current();
        let is_remote = peer.is_some_and(|peer| !peer.to_canonical().is_loopback());
        if is_remote && config.protected_mode && config.requirepass.is_none() {
            return Some(PROTECTED_MODE);
        }
        (self.clients.count() >= u64::from(config.maxclients)).then_some(MAX_CLIENTS_REACHED)
    }
}

async fn accept_tcp(listener: std::net::TcpListener, acceptor: &'static Acceptor) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("cannot accept connections: {error}"),
    };
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        acceptor.recorder.connection_received();
        if let Some(refusal) = acceptor.refusal(Some(peer.ip())) {
            acceptor.recorder.connection_rejected();
            // A fresh socket's send buffer takes the line at once, unless the client has left.
            let _ = stream.try_write(refusal);
            let _ = SockRef::from(&stream).shutdown(Shutdown::Both);
            continue;
        }
        let keepalive = acceptor.config.current().tcp_keepalive;
        let local = stream.local_addr().ok();
        let Ok(stream) = stream.into_std() else { continue };
        tune(&stream, keepalive);
        let origin = Origin { peer: Some(peer), local, path: String::new(), fd: 0 };
        acceptor.workers.dispatch(AcceptedSocket::Tcp(stream, origin));
    }
}

async fn accept_unix(
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
    acceptor: &'static Acceptor,
) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("cannot accept connections: {error}"),
    };
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        acceptor.recorder.connection_received();
        if let Some(refusal) = acceptor.refusal(None) {
            acceptor.recorder.connection_rejected();
            let _ = stream.try_write(refusal);
            let _ = SockRef::from(&stream).shutdown(Shutdown::Both);
            continue;
        }
        let Ok(stream) = stream.into_std() else { continue };
        let path = path.display().to_string();
        let origin = Origin { peer: None, local: None, path, fd: 0 };
        acceptor.workers.dispatch(AcceptedSocket::Unix(stream, origin));
    }
}

/// Waits a moment after a failed accept. Without file descriptors the connection stays in the
/// backlog, so an immediate retry would spin.
async fn pause_after(error: &io::Error) {
    tracing::warn!("accepting a connection failed: {error}");
    tokio::time::sleep(Duration::from_millis(20)).await;
}

fn tune(stream: &std::net::TcpStream, keepalive: u32) {
    // Both options are optimisations: a failure costs latency or dead-peer detection only.
    let _ = stream.set_nodelay(true);
    if keepalive > 0 {
        let idle = Duration::from_secs(u64::from(keepalive));
        let probes = TcpKeepalive::new().with_time(idle).with_interval(idle / 3).with_retries(3);
        let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
    }
}

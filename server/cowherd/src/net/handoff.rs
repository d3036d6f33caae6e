//! Handoff of accepted sockets from the acceptor to the workers.
//!
//! A socket crosses threads as a standard-library socket: tokio registers a socket with the runtime
//! that creates it, and each worker has a runtime of its own.

use std::cell::Cell;
use std::io;

use tokio::sync::mpsc;

use crate::clients::Origin;

use super::client_socket::ClientSocket;

/// An accepted, non-blocking socket that no runtime has registered yet.
pub(super) enum AcceptedSocket {
    Tcp(std::net::TcpStream, Origin),
    Unix(std::os::unix::net::UnixStream, Origin),
}

impl AcceptedSocket {
    /// Registers the socket with the calling worker's runtime.
    pub(super) fn register(self) -> io::Result<(ClientSocket, Origin)> {
        Ok(match self {
            Self::Tcp(socket, origin) => {
                (ClientSocket::Tcp(tokio::net::TcpStream::from_std(socket)?), origin)
            }
            Self::Unix(socket, origin) => {
                (ClientSocket::Unix(tokio::net::UnixStream::from_std(socket)?), origin)
            }
        })
    }
}

/// The receiving end of one worker.
pub(super) type SocketReceiver = mpsc::UnboundedReceiver<AcceptedSocket>;

/// The sending ends of all workers, used in turn.
pub(super) struct RoundRobin {
    workers: Vec<mpsc::UnboundedSender<AcceptedSocket>>,
    next: Cell<usize>,
}

impl RoundRobin {
    /// Creates the sender and one receiver for each of `workers`.
    pub(super) fn new(workers: usize) -> (Self, Vec<SocketReceiver>) {
        let (workers, receivers) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        (Self { workers, next: Cell::new(0) }, receivers)
    }

    /// Sends `socket` to the next worker.
    pub(super) fn dispatch(&self, socket: AcceptedSocket) {
        let next = self.next.get();
        self.next.set((next + 1) % self.workers.len());
        // A send fails only after the worker has stopped, which happens at shutdown.
        let _ = self.workers[next].send(socket);
    }
}

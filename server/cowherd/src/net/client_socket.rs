//! TCP and Unix sockets, as one.
//!
//! Invariant: a socket is shut down before it is closed. The child of a checkpoint has inherited
//! it, and as long as that runs, closing alone would not tell the other side.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BufMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected socket.
pub(super) enum ClientSocket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl ClientSocket {
    /// Reads what is there, or asks to be woken when something is.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }

    /// Waits for bytes and appends them to `buffer`, as many as it has room for.
    pub(super) async fn read_buf(&mut self, buffer: &mut impl BufMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read_buf(buffer).await,
            Self::Unix(stream) => stream.read_buf(buffer).await,
        }
    }

    /// Writes as much as the socket takes now.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Ends one direction or both, for every process that has the socket.
    pub(super) fn shut_down(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).shutdown(how),
            Self::Unix(stream) => SockRef::from(stream).shutdown(how),
        }
    }

    /// Waits until the socket takes more.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        // The other side may have ended it already.
        let _ = self.shut_down(Shutdown::Both);
    }
}

impl AsRawFd for ClientSocket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

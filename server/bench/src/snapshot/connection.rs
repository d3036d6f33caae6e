//! Non-blocking connection of the load generator, with a queue of requests that await their reply.
//!
//! Invariant: the server answers in the order of the requests, so the next reply belongs to the
//! oldest pending request.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cowherd_resp::{InvalidReply, Reply, parse_reply, write_request};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Initial size of the input buffer, which doubles while a reply does not fit.
const INPUT_SIZE: usize = 64 << 10;

/// Failure of a connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// I/O error.
    #[error("the connection failed: {0}")]
    Failed(#[from] io::Error),
    /// The input is not RESP.
    #[error(transparent)]
    Invalid(#[from] InvalidReply),
    /// A reply arrived while no request was pending.
    #[error("the server sent a reply without a request")]
    Unsolicited,
}

/// Connection with a value of type `T` for each pending request.
#[derive(Debug)]
pub struct Connection<T> {
    stream: TcpStream,
    output: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    filled: usize,
    pending: VecDeque<T>,
}

impl<T> Connection<T> {
    /// Connects, and authenticates if there is a password.
    ///
    /// # Errors
    /// Returns an error if the connection or the authentication fails.
    pub fn open(address: SocketAddr, password: Option<&str>) -> Result<Self, ConnectionError> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            output: Vec::new(),
            written: 0,
            input: vec![0; INPUT_SIZE],
            filled: 0,
            pending: VecDeque::new(),
        };
        if let Some(password) = password {
            connection.authenticate(password)?;
        }
        connection.stream.set_nonblocking(true)?;
        Ok(connection)
    }

    fn authenticate(&mut self, password: &str) -> Result<(), ConnectionError> {
        write_request(&mut self.output, &[b"AUTH", password.as_bytes()]);
        self.stream.write_all(&self.output)?;
        self.output.clear();
        self.stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        let mut answer = [0; 256];
        let length = self.stream.read(&mut answer)?;
        if answer[..length].starts_with(b"+OK") {
            return Ok(());
        }
        let answer = String::from_utf8_lossy(&answer[..length]).trim_end().to_owned();
        Err(ConnectionError::Failed(io::Error::other(format!("AUTH was answered {answer}"))))
    }

    /// Socket, for epoll.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Pending requests, the oldest first.
    pub fn pending(&self) -> &VecDeque<T> {
        &self.pending
    }

    /// Mutable access to the pending requests, the oldest first.
    pub fn pending_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pending.iter_mut()
    }

    /// Buffers a request, which [`Connection::flush`] sends.
    pub fn queue(&mut self, words: &[&[u8]], request: T) {
        write_request(&mut self.output, words);
        self.pending.push_back(request);
    }

    /// Sends buffered requests until the socket would block.
    ///
    /// # Errors
    /// Returns an error if the connection is lost.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads until the socket would block, and calls `take` for each reply with its request.
    ///
    /// # Errors
    /// Returns an error if the connection is lost or the input is invalid.
    pub fn receive(&mut self, mut take: impl FnMut(T, &Reply<'_>)) -> Result<(), ConnectionError> {
        loop {
            let free = self.input.len() - self.filled;
            let count = match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.filled += count;
            let mut taken = 0;
            while let Some((reply, length)) = parse_reply(&self.input[taken..self.filled])? {
                taken += length;
                match self.pending.pop_front() {
                    Some(request) => take(request, &reply),
                    None => return Err(ConnectionError::Unsolicited),
                }
            }
            self.input.copy_within(taken..self.filled, 0);
            self.filled -= taken;
            if self.filled == self.input.len() {
                self.input.resize(2 * self.filled, 0);
            }
            if count < free {
                return Ok(());
            }
        }
    }
}

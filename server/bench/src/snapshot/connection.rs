//! One connection of the load: requests wait in order for their replies, nothing ever blocks.
//!
//! Invariant: the server answers in the order of the requests, so that the reply at hand belongs to
//! the oldest request that waits.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::resp::{self, NotResp, Reply};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_INPUT: usize = 64 << 10;

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// The kernel reports an error.
    #[error("the connection failed: {0}")]
    Failed(#[from] io::Error),
    /// What arrives is no RESP.
    #[error(transparent)]
    NotResp(#[from] NotResp),
}

/// A connection, with `T` for each request that waits for its reply.
#[derive(Debug)]
pub struct Connection<T> {
    stream: TcpStream,
    output: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    filled: usize,
    waiting: VecDeque<T>,
}

impl<T> Connection<T> {
    /// Connects, and says the password if there is one.
    ///
    /// # Errors
    /// When nobody listens there, or the password is wrong.
    pub fn open(address: SocketAddr, password: Option<&str>) -> Result<Self, Lost> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            output: Vec::new(),
            written: 0,
            input: vec![0; FIRST_INPUT],
            filled: 0,
            waiting: VecDeque::new(),
        };
        if let Some(password) = password {
            connection.authenticate(password)?;
        }
        connection.stream.set_nonblocking(true)?;
        Ok(connection)
    }

    fn authenticate(&mut self, password: &str) -> Result<(), Lost> {
        resp::request(&mut self.output, &[b"AUTH", password.as_bytes()]);
        self.stream.write_all(&self.output)?;
        self.output.clear();
        self.stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        let mut answer = [0; 256];
        let length = self.stream.read(&mut answer)?;
        if answer[..length].starts_with(b"+OK") {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&answer[..length]).trim_end().to_owned();
        Err(Lost::Failed(io::Error::other(format!("AUTH was answered {said}"))))
    }

    /// The socket, to be polled.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Requests without a reply, the oldest first.
    pub fn waiting(&self) -> &VecDeque<T> {
        &self.waiting
    }

    /// The same, to be marked.
    pub fn waiting_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.waiting.iter_mut()
    }

    /// Queues a request; [`Connection::flush`] sends it.
    pub fn queue(&mut self, words: &[&[u8]], waiting: T) {
        resp::request(&mut self.output, words);
        self.waiting.push_back(waiting);
    }

    /// Sends as much as the kernel takes.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn flush(&mut self) -> Result<(), Lost> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(Lost::Closed),
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

    /// Takes in what has arrived and hands each reply on with its request.
    ///
    /// # Errors
    /// When the connection is lost, or what arrives is no reply to anything.
    pub fn receive(&mut self, mut take: impl FnMut(T, &Reply<'_>)) -> Result<(), Lost> {
        loop {
            let room = self.input.len() - self.filled;
            let count = match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Err(Lost::Closed),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.filled += count;
            let mut taken = 0;
            while let Some((reply, length)) = resp::reply(&self.input[taken..self.filled])? {
                taken += length;
                match self.waiting.pop_front() {
                    Some(waiting) => take(waiting, &reply),
                    None => return Err(NotResp(b"a reply that nobody asked for".to_vec()).into()),
                }
            }
            self.input.copy_within(taken..self.filled, 0);
            self.filled -= taken;
            if self.filled == self.input.len() {
                self.input.resize(2 * self.filled, 0);
            }
            if count < room {
                return Ok(());
            }
        }
    }
}

//! RESP connection that adds no commands of its own and keeps the exact bytes of replies.

use anyhow::{Context, Result, bail, ensure};
use cowherd_resp::{ReplyScanner, write_request};
use redis::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Timeout of a read or write.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Initial size of the input buffer, which doubles while a reply does not fit.
const INPUT_SIZE: usize = 8 << 10;

/// Connection to a server on this machine.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
    input: Vec<u8>,
    /// Range of `input` that holds received bytes of unread replies.
    start: usize,
    end: usize,
}

impl RawConnection {
    /// Connects to a port of 127.0.0.1.
    ///
    /// # Errors
    /// Returns an error if the connection fails.
    pub fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))
            .with_context(|| format!("cannot connect to port {port}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, input: vec![0; INPUT_SIZE], start: 0, end: 0 })
    }

    /// Sends bytes unchanged.
    ///
    /// # Errors
    /// Returns an error if the connection is lost or blocked for 20 s.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Shuts down the sending direction.
    ///
    /// # Errors
    /// Returns an error if the connection is lost.
    pub fn finish_sending(&self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Duplicates the socket, so that another thread can write.
    ///
    /// # Errors
    /// Returns an error if no file descriptor is left.
    pub fn writer(&self) -> Result<TcpStream> {
        Ok(self.stream.try_clone()?)
    }

    /// Reads one reply with all nested elements, and returns its bytes.
    ///
    /// # Errors
    /// Returns an error if the connection ends, nothing arrives for 20 s, or the input is not RESP.
    pub fn read_reply(&mut self) -> Result<Vec<u8>> {
        let mut scanner = ReplyScanner::new();
        loop {
            let received = &self.input[self.start..self.end];
            if let Some(length) = scanner.scan(received)? {
                let reply = received[..length].to_vec();
                self.start += length;
                return Ok(reply);
            }
            ensure!(self.fill()? > 0, "the server closed the connection {}", {
                let received = &self.input[self.start..self.end];
                if received.is_empty() {
                    "before a reply".to_owned()
                } else {
                    format!("within a reply: {:?}", show(received))
                }
            });
        }
    }

    /// Reads once into the input buffer; returns the number of bytes.
    fn fill(&mut self) -> Result<usize> {
        if self.end == self.input.len() {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end > self.input.len() / 2 {
                self.input.resize(2 * self.input.len(), 0);
            }
        }
        let count = self.stream.read(&mut self.input[self.end..])?;
        self.end += count;
        Ok(count)
    }

    /// Reads until the server closes the connection, also by a reset.
    ///
    /// # Errors
    /// Returns an error if the server keeps the connection open and silent for 20 s.
    pub fn read_to_end(&mut self) -> Result<Vec<u8>> {
        let mut bytes = self.input[self.start..self.end].to_vec();
        self.start = self.end;
        match self.stream.read_to_end(&mut bytes) {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
                Err(error).with_context(|| format!("after {:?}", show(&bytes)))
            }
            _ => Ok(bytes),
        }
    }

    /// Sends one command and returns the bytes of its reply.
    ///
    /// # Errors
    /// As [`Self::read_reply`].
    pub fn exchange<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Vec<u8>> {
        self.send(&encode(arguments))?;
        self.read_reply()
    }

    /// Sends one command and returns its reply as a value.
    ///
    /// # Errors
    /// Returns an error reply as an error; else as [`Self::read_reply`].
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Value> {
        let reply = self.exchange(arguments)?;
        if let Some(b'-' | b'!') = reply.first() {
            bail!("{}", show(&reply).trim_end());
        }
        let what = || show(&reply);
        redis::parse_redis_value(&reply).with_context(what)?.extract_error().with_context(what)
    }

    /// Sends one command whose reply is text.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn text<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<String> {
        Ok(redis::from_redis_value(self.call(arguments)?)?)
    }

    /// Sends one command whose reply is an integer.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn number<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<i64> {
        Ok(redis::from_redis_value(self.call(arguments)?)?)
    }

    /// Sends one command whose reply is a string or null.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn bytes<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Option<Vec<u8>>> {
        Ok(redis::from_redis_value(self.call(arguments)?)?)
    }
}

/// The reply to a command for which there is no memory.
pub const OOM: &[u8] = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n";

/// Sends commands in pipelines, and returns how many were refused with [`OOM`].
///
/// # Errors
/// Another error reply; else as [`RawConnection::read_reply`].
pub fn send_all(
    raw: &mut RawConnection,
    commands: impl IntoIterator<Item = Vec<Vec<u8>>>,
) -> Result<u64> {
    const PIPELINE: usize = 64;
    let (mut commands, mut refused) = (commands.into_iter().peekable(), 0);
    while commands.peek().is_some() {
        let mut count = 0;
        let pipeline = commands.by_ref().take(PIPELINE).inspect(|_| count += 1);
        let bytes: Vec<u8> = pipeline.flat_map(|command| encode(&command)).collect();
        raw.send(&bytes)?;
        for _ in 0..count {
            let reply = raw.read_reply()?;
            refused += u64::from(reply == OOM);
            ensure!(reply == OOM || !reply.starts_with(b"-"), "{}", show(&reply));
        }
    }
    Ok(refused)
}

/// Encodes a command as an array of bulk strings.
#[must_use]
pub fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_request(&mut bytes, arguments);
    bytes
}

/// Escapes all bytes but printable ASCII, and truncates long input, for messages.
#[must_use]
pub fn show(bytes: &[u8]) -> String {
    let mut text = bytes[..bytes.len().min(600)].escape_ascii().to_string();
    if bytes.len() > 600 {
        text.push_str(&format!("... ({} bytes)", bytes.len()));
    }
    text
}

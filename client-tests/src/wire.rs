//! A bare RESP connection: it adds nothing of its own, and keeps each reply's very bytes.

use anyhow::{Context, Result, bail, ensure};
use redis::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(20);
const LONGEST_LINE: u64 = 1 << 20;

/// One connection.
#[derive(Debug)]
pub struct Raw {
    reader: BufReader<TcpStream>,
}

impl Raw {
    /// Connects to 127.0.0.1.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))
            .with_context(|| format!("cannot connect to port {port}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is gone or stuck.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.reader.get_mut().write_all(bytes)?)
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn finish_sending(&self) -> Result<()> {
        Ok(self.reader.get_ref().shutdown(Shutdown::Write)?)
    }

    /// Another handle on the same socket, to write from another thread.
    ///
    /// # Errors
    /// When no file descriptor is left.
    pub fn writer(&self) -> Result<TcpStream> {
        Ok(self.reader.get_ref().try_clone()?)
    }

    /// The bytes of one whole reply, however deeply nested.
    ///
    /// # Errors
    /// When the connection ends, stays silent for 20 s, or sends what is not RESP.
    pub fn read_reply(&mut self) -> Result<Vec<u8>> {
        let mut reply = Vec::new();
        let mut missing = 1_u64;
        while missing > 0 {
            missing -= 1;
            missing += self.read_frame(&mut reply)?;
        }
        Ok(reply)
    }

    /// Reads one frame without its elements; returns how many of those follow.
    fn read_frame(&mut self, reply: &mut Vec<u8>) -> Result<u64> {
        let start = reply.len();
        (&mut self.reader).take(LONGEST_LINE).read_until(b'\n', reply)?;
        let line = &reply[start..];
        ensure!(!line.is_empty(), "the server closed the connection");
        let Some(body) = line.strip_suffix(b"\r\n") else {
            bail!("a reply's line has no end: {:?}", show(line));
        };
        let count = || -> Result<Option<u64>> {
            let text = std::str::from_utf8(&body[1..])?;
            Ok(if text == "-1" { None } else { Some(text.parse().context(text.to_owned())?) })
        };
        match body.first() {
            Some(b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(') => Ok(0),
            Some(b'*' | b'~' | b'>') => Ok(count()?.unwrap_or(0)),
            Some(b'%') => Ok(2 * count()?.unwrap_or(0)),
            // Attributes come before the reply that they belong to.
            Some(b'|') => Ok(2 * count()?.unwrap_or(0) + 1),
            Some(b'$' | b'=' | b'!') => {
                if let Some(length) = count()? {
                    let wanted = length + 2;
                    let got = (&mut self.reader).take(wanted).read_to_end(reply)?;
                    ensure!(got as u64 == wanted, "the connection ended inside a bulk string");
                    ensure!(reply.ends_with(b"\r\n"), "a bulk string has no end");
                }
                Ok(0)
            }
            _ => bail!("not RESP: {:?}", show(line)),
        }
    }

    /// Everything until the server closes the connection (a reset counts as closing).
    ///
    /// # Errors
    /// When the server keeps it open and silent for 20 s.
    pub fn read_to_end(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.reader.read_to_end(&mut bytes) {
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

    /// Sends one command and returns its reply as a value; an error reply is an error.
    ///
    /// # Errors
    /// The server's, or as [`Self::read_reply`].
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Value> {
        let reply = self.exchange(arguments)?;
        if let Some(b'-' | b'!') = reply.first() {
            bail!("{}", show(&reply).trim_end());
        }
        let what = || show(&reply);
        redis::parse_redis_value(&reply).with_context(what)?.extract_error().with_context(what)
    }

    /// As [`Self::call`], for replies that are text.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn text<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<String> {
        Ok(redis::from_redis_value(self.call(arguments)?)?)
    }

    /// As [`Self::call`], for replies that are numbers.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn number<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<i64> {
        Ok(redis::from_redis_value(self.call(arguments)?)?)
    }

    /// As [`Self::call`], for bytes that may be missing.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn bytes<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Option<Vec<u8>>> {
        Ok(redis::from_redis_value(self.call(arguments)?)?)
    }
}

/// A command as an array of bulk strings.
#[must_use]
pub fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Bytes made readable: all but printable ASCII is escaped, and long ones are cut.
#[must_use]
pub fn show(bytes: &[u8]) -> String {
    let mut text = bytes[..bytes.len().min(600)].escape_ascii().to_string();
    if bytes.len() > 600 {
        text.push_str(&format!("... ({} bytes)", bytes.len()));
    }
    text
}

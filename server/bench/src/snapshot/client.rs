//! Blocking client, which identifies a server, fills it, and queries it after the measurement.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::workload::RequestGenerator;
use cowherd_resp::{Reply, parse_reply, write_request};

/// Timeout of a reply, long enough for a server that loads an image.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// Number of requests that are sent before their replies are read.
const PIPELINE_DEPTH: u64 = 256;

/// Connection that blocks until each reply.
#[derive(Debug)]
pub struct BlockingClient {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
}

impl BlockingClient {
    /// Connects, and authenticates if there is a password.
    ///
    /// # Errors
    /// Returns an error if the connection or the authentication fails.
    pub fn open(address: SocketAddr, password: Option<&str>) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .with_context(|| format!("cannot connect to {address}; is a server running there?"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        let mut client = Self { stream, input: vec![0; 64 << 10], filled: 0 };
        if let Some(password) = password {
            client.text(&["AUTH", password])?;
        }
        Ok(client)
    }

    /// Executes a command and returns the reply as text: strings and numbers, joined by spaces.
    ///
    /// # Errors
    /// Returns an error if the server replies with one, or not in time.
    pub fn text(&mut self, words: &[&str]) -> Result<String> {
        let mut request = Vec::new();
        write_request(&mut request, words);
        self.stream.write_all(&request)?;
        self.receive(|reply| flatten(reply).join(" "))
            .with_context(|| format!("the server did not carry out {}", words.join(" ")))
    }

    /// Fields of a section of INFO.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub fn info(&mut self, section: &str) -> Result<HashMap<String, String>> {
        let text = self.text(&["INFO", section])?;
        let fields = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Ok(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Value of a directive, or `None` if the server does not know the directive.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub fn directive(&mut self, name: &str) -> Result<Option<String>> {
        let answer = self.text(&["CONFIG", "GET", name])?;
        Ok(answer.split_once(' ').map(|(_, value)| value.to_owned()))
    }

    /// Creates the keys from 0 to `keys`; calls `progress` with the number of keys created.
    ///
    /// # Errors
    /// Returns an error if the server refuses a key.
    pub fn fill(
        &mut self,
        requests: &mut RequestGenerator,
        keys: u64,
        progress: impl Fn(u64),
    ) -> Result<()> {
        let mut output = Vec::new();
        for first in (0..keys).step_by(usize::try_from(PIPELINE_DEPTH)?) {
            let last = keys.min(first + PIPELINE_DEPTH);
            output.clear();
            for index in first..last {
                requests.set(index, |words| write_request(&mut output, words));
            }
            self.stream.write_all(&output)?;
            for _ in first..last {
                self.receive(|_| ()).context("the server refused a key while it was filled")?;
            }
            progress(last);
        }
        Ok(())
    }

    /// Receives one reply and passes it to `take`.
    fn receive<T>(&mut self, take: impl FnOnce(&Reply<'_>) -> T) -> Result<T> {
        loop {
            if let Some((reply, length)) = parse_reply(&self.input[..self.filled])? {
                if let Reply::Error(text) = reply {
                    bail!("it answered: {}", String::from_utf8_lossy(text));
                }
                let taken = take(&reply);
                self.input.copy_within(length..self.filled, 0);
                self.filled -= length;
                return Ok(taken);
            }
            if self.filled == self.input.len() {
                self.input.resize(2 * self.filled, 0);
            }
            let count = self.stream.read(&mut self.input[self.filled..])?;
            ensure!(count > 0, "the server closed the connection");
            self.filled += count;
        }
    }
}

/// Strings and numbers of a reply in order, without nulls.
fn flatten(reply: &Reply<'_>) -> Vec<String> {
    match reply {
        Reply::Integer(number) => vec![number.to_string()],
        Reply::Array(items) => items.iter().flat_map(flatten).collect(),
        reply => {
            let text = reply.as_bytes().map(|text| String::from_utf8_lossy(text).into_owned());
            text.into_iter().collect()
        }
    }
}

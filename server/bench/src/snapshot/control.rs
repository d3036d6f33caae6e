//! A plain, blocking client: to learn what a server is, to fill it, to ask it afterwards.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::resp::{self, Reply};
use super::schedule::Requests;

/// How long a server may take for any one answer; loading an image takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests that are sent before their replies are read.
const BATCH: u64 = 256;

/// A connection that waits for each answer.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
}

impl Client {
    /// Connects, and says the password if there is one.
    ///
    /// # Errors
    /// When nobody listens there, or the password is wrong.
    pub fn open(address: SocketAddr, password: Option<&str>) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .with_context(|| format!("cannot connect to {address}; is a server running there?"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self { stream, input: vec![0; 64 << 10], filled: 0 };
        if let Some(password) = password {
            client.text(&["AUTH", password])?;
        }
        Ok(client)
    }

    /// Sends a command; its reply as text.
    ///
    /// # Errors
    /// When the server answers with an error, or not at all.
    pub fn text(&mut self, words: &[&str]) -> Result<String> {
        let bytes = words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>();
        let mut request = Vec::new();
        resp::request(&mut request, &bytes);
        self.stream.write_all(&request)?;
        self.receive(|reply| flat(reply).join(" "))
            .with_context(|| format!("the server did not carry out {}", words.join(" ")))
    }

    /// The fields of INFO, of one section or of all.
    ///
    /// # Errors
    /// As for any command.
    pub fn info(&mut self, section: &str) -> Result<HashMap<String, String>> {
        let text = self.text(&["INFO", section])?;
        let fields = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Ok(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The value of a directive; `None` when the server does not know it.
    ///
    /// # Errors
    /// As for any command.
    pub fn directive(&mut self, name: &str) -> Result<Option<String>> {
        let answer = self.text(&["CONFIG", "GET", name])?;
        Ok(answer.split_once(' ').map(|(_, value)| value.to_owned()))
    }

    /// Creates the keys from 0 to `keys`, and tells how far it has come.
    ///
    /// # Errors
    /// When the server refuses one.
    pub fn fill(&mut self, requests: &mut Requests, keys: u64, told: impl Fn(u64)) -> Result<()> {
        let mut output = Vec::new();
        for first in (0..keys).step_by(usize::try_from(BATCH)?) {
            let last = keys.min(first + BATCH);
            output.clear();
            for index in first..last {
                requests.set(index, |words| resp::request(&mut output, words));
            }
            self.stream.write_all(&output)?;
            for _ in first..last {
                self.receive(|_| ()).context("the server refused a key while it was filled")?;
            }
            told(last);
        }
        Ok(())
    }

    fn receive<T>(&mut self, take: impl FnOnce(&Reply<'_>) -> T) -> Result<T> {
        loop {
            if let Some((reply, length)) = resp::reply(&self.input[..self.filled])? {
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

/// The strings of a reply, one after the other.
fn flat(reply: &Reply<'_>) -> Vec<String> {
    match reply {
        Reply::Line(text) | Reply::Error(text) | Reply::Bulk(Some(text)) => {
            vec![String::from_utf8_lossy(text).into_owned()]
        }
        Reply::Bulk(None) => Vec::new(),
        Reply::Array(items) => items.iter().flat_map(flat).collect(),
    }
}

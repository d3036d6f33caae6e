//! Clients that send requests and record when each began and ended.

use crate::history::{Clock, Operation, Request, Tick};
use crate::reply::{Reply, Words};
use crate::workload::Batch;
use anyhow::{Context, Result};
use client_tests::wire::{RawConnection, encode};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

/// What the threads of a round share.
#[derive(Debug, Default)]
pub struct Shared {
    pub clock: Clock,
    /// Waiting and scanning clients end.
    pub stop: AtomicBool,
    /// The server has been killed: a connection that ends is no failure.
    pub killed: AtomicBool,
}

impl Shared {
    pub fn is_stopped(&self) -> bool {
        self.stop.load(SeqCst)
    }

    /// What a thread was to return; nothing, if it failed because the server was killed.
    pub fn unless_killed<T: Default>(&self, result: Result<T>) -> Result<T> {
        if self.killed.load(SeqCst) { Ok(result.unwrap_or_default()) } else { result }
    }
}

/// The command of a client that waits for keys.
#[derive(Debug, Default)]
pub struct Waiting {
    command: Mutex<Option<Words>>,
    /// The number of its connection, for CLIENT UNBLOCK.
    pub id: std::sync::OnceLock<i64>,
}

impl Waiting {
    pub fn set(&self, command: Option<Words>) {
        *self.command.lock().unwrap_or_else(PoisonError::into_inner) = command;
    }

    pub fn get(&self) -> Option<Words> {
        self.command.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One connection with what it has seen.
pub struct Client<'s> {
    shared: &'s Shared,
    number: usize,
    raw: RawConnection,
    /// Each with its group.
    pub operations: Vec<(usize, Operation)>,
}

impl<'s> Client<'s> {
    pub const fn new(shared: &'s Shared, raw: RawConnection, number: usize) -> Self {
        Self { shared, number, raw, operations: Vec::new() }
    }

    /// Prepares for commands that wait; returns the server's number of this connection.
    pub fn expect_to_wait(&mut self) -> Result<i64> {
        // A limit of the socket, whichever handle sets it.
        self.raw.writer()?.set_read_timeout(None)?;
        self.raw.number(&["CLIENT", "ID"])
    }

    /// Sends a batch and reads the replies. False when the server was killed meanwhile.
    pub fn run(&mut self, batch: Batch) -> Result<bool> {
        if batch.is_pipelined {
            return self.exchange(batch.requests);
        }
        for request in batch.requests {
            if !self.exchange(vec![request])? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn exchange(&mut self, requests: Vec<(usize, Request)>) -> Result<bool> {
        let first = self.operations.len();
        let mut bytes = Vec::new();
        for (group, request) in requests {
            bytes.extend(encode_request(&request));
            let pipeline = &self.operations[first..];
            let before = pipeline.iter().rev().find(|(other, _)| *other == group);
            let after = before.map(|(_, operation)| operation.invoked);
            let invoked = self.shared.clock.tick();
            let operation =
                Operation { client: self.number, invoked, answer: None, request, after };
            self.operations.push((group, operation));
        }
        let result = self.raw.send(&bytes).and_then(|()| {
            for (_, operation) in &mut self.operations[first..] {
                operation.answer = Some(read(&mut self.raw, &operation.request, self.shared)?);
            }
            Ok(())
        });
        if self.shared.killed.load(SeqCst) && result.is_err() {
            return Ok(false);
        }
        let requests = || {
            let lines = self.operations[first..].iter().map(|(_, operation)| operation.to_string());
            format!("client {}: {}", self.number, lines.collect::<Vec<_>>().join("\n"))
        };
        result.with_context(requests).map(|()| true)
    }
}

fn encode_request(request: &Request) -> Vec<u8> {
    match request {
        Request::Command(words) => encode(words),
        Request::Transaction(commands) => {
            let queued = commands.iter().flat_map(|words| encode(words));
            encode(&["MULTI"]).into_iter().chain(queued).chain(encode(&["EXEC"])).collect()
        }
    }
}

/// The reply to a request and the tick after it.
fn read(raw: &mut RawConnection, request: &Request, shared: &Shared) -> Result<(Tick, Reply)> {
    let reply = match request {
        Request::Command(words) => Reply::parse(&raw.read_reply()?)?.in_order_of(words),
        Request::Transaction(commands) => {
            // MULTI's and those of the commands that were queued: a refused one aborts EXEC.
            for _ in 0..=commands.len() {
                raw.read_reply()?;
            }
            match Reply::parse(&raw.read_reply()?)? {
                Reply::Array(items) => {
                    let items = items.into_iter().zip(commands);
                    Reply::Array(items.map(|(item, words)| item.in_order_of(words)).collect())
                }
                reply => reply,
            }
        }
    };
    Ok((shared.clock.tick(), reply))
}

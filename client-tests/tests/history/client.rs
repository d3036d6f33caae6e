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
    /// Blocking and scanning clients end.
    pub stop: AtomicBool,
    /// The server was killed: the end of a connection is no failure.
    pub killed: AtomicBool,
}

impl Shared {
    pub fn is_stopped(&self) -> bool {
        self.stop.load(SeqCst)
    }

    /// The result of a thread; a failure after the server was killed counts as no result.
    pub fn unless_killed<T: Default>(&self, result: Result<T>) -> Result<T> {
        if self.killed.load(SeqCst) { Ok(result.unwrap_or_default()) } else { result }
    }
}

/// The command that a blocking client has sent, while there is no reply.
#[derive(Debug, Default)]
pub struct BlockedCommand {
    command: Mutex<Option<Words>>,
    /// The number of the connection, for CLIENT UNBLOCK.
    pub id: std::sync::OnceLock<i64>,
}

impl BlockedCommand {
    pub fn set(&self, command: Option<Words>) {
        *self.command.lock().unwrap_or_else(PoisonError::into_inner) = command;
    }

    pub fn get(&self) -> Option<Words> {
        self.command.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One connection and the operations that it has recorded.
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

    /// Removes the limit on the time of a reply; returns the server's number of this connection.
    pub fn expect_to_block(&mut self) -> Result<i64> {
        // The limit belongs to the socket, so that any handle can change it.
        self.raw.writer()?.set_read_timeout(None)?;
        self.raw.number(&["CLIENT", "ID"])
    }

    /// Sends a batch and reads the replies. False if the server was killed meanwhile.
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
        Request::Script(script) => encode(&script.words()),
    }
}

/// The reply to a request and the tick after it.
fn read(raw: &mut RawConnection, request: &Request, shared: &Shared) -> Result<(Tick, Reply)> {
    let reply = match request {
        Request::Command(words) => Reply::parse(&raw.read_reply()?)?.in_order_of(words),
        Request::Transaction(commands) => {
            // The replies to MULTI and to the queued commands. An error among them aborts EXEC.
            for _ in 0..=commands.len() {
                raw.read_reply()?;
            }
            read_replies(raw, commands)?
        }
        Request::Script(script) => read_replies(raw, &script.commands)?,
    };
    Ok((shared.clock.tick(), reply))
}

/// An array with the replies of commands, or an error.
fn read_replies(raw: &mut RawConnection, commands: &[Words]) -> Result<Reply> {
    Ok(match Reply::parse(&raw.read_reply()?)? {
        Reply::Array(items) => {
            let items = items.into_iter().zip(commands);
            Reply::Array(items.map(|(item, words)| item.in_order_of(words)).collect())
        }
        reply => reply,
    })
}

//! One connection: bytes in, requests to the engine, replies out.
//!
//! A read goes into a buffer that all connections of a worker share, and replies are written from
//! another such buffer: a connection keeps bytes of its own only while a request is incomplete or
//! the socket does not take a reply.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::ReadBuf;

use crate::clock;
use crate::engine::{Hangup, Origin, Outcome, Session, Worker};
use crate::protocol::{Batch, Limits, Parser, ProtocolError, Reply, Version};

use super::stream::Stream;

/// Bytes that one read takes at most.
const READ: usize = 64 << 10;
/// Requests that are parsed ahead of running.
const AHEAD: usize = 1024;
/// A shared buffer that has grown beyond this is given back.
const KEEP: usize = 256 << 10;
/// A request that is announced as large gets room in steps of this size.
const GROW: usize = 1 << 20;

/// What the connections of one worker share.
pub(super) struct Desk {
    /// Runs requests.
    pub worker: Worker,
    input: Vec<u8>,
    batch: Batch,
    reply: Reply,
}

impl Desk {
    pub(super) fn new(worker: Worker) -> Self {
        Self {
            worker,
            input: vec![0; READ],
            batch: Batch::new(),
            reply: Reply::new(Version::Resp2),
        }
    }
}

/// Ends a connection by shutting its socket down. The registry of clients forgets it before the
/// socket is closed, so that the number cannot be another socket's by then.
struct ShutDown(RawFd);

impl Hangup for ShutDown {
    fn hang_up(&self) {
        // It may have ended by itself.
        let _ = nix::sys::socket::shutdown(self.0, nix::sys::socket::Shutdown::Both);
    }
}

/// What a connection keeps between reads.
struct Connection {
    stream: Stream,
    session: Session,
    version: Version,
    parser: Parser,
    /// Bytes of a request that is not complete yet.
    partial: BytesMut,
    /// Replies that the socket has not taken yet.
    unsent: Vec<u8>,
}

/// What follows after some requests were run.
enum Next {
    Read,
    Continue,
    Wait(i64),
    Close,
}

/// Serves a connection until it ends.
pub(super) async fn serve(desk: Rc<RefCell<Desk>>, stream: Stream, mut origin: Origin) {
    origin.fd = stream.as_raw_fd();
    let hangup = Arc::new(ShutDown(origin.fd));
    let (client, shared) = {
        let mut desk = desk.borrow_mut();
        let authenticated = desk.worker.config().requirepass.is_none();
        let shared = Arc::clone(desk.worker.engine().shared());
        desk.worker.recorder().client_opened();
        let client = shared.clients.connect(origin, clock::wall_ms(), hangup);
        (Session::new(client, authenticated), shared)
    };
    let mut connection = Connection {
        stream,
        session: client,
        version: Version::Resp2,
        parser: Parser::new(),
        partial: BytesMut::new(),
        unsent: Vec::new(),
    };
    // However it ends, nothing is left to tell the other side.
    let _ = connection.run(&desk).await;
    shared.clients.disconnect(&connection.session.client);
    desk.borrow().worker.recorder().client_closed();
}

impl Connection {
    async fn run(&mut self, desk: &RefCell<Desk>) -> io::Result<()> {
        loop {
            let mut next = match self.receive(desk).await? {
                0 => return Ok(()),
                bytes => self.answer(desk, bytes),
            };
            loop {
                self.send().await?;
                next = match next {
                    Next::Read => break,
                    Next::Close => return Ok(()),
                    Next::Continue => self.go_on(desk),
                    Next::Wait(until) => {
                        let pause = until.saturating_sub(clock::wall_ms()).clamp(0, 50);
                        tokio::time::sleep(Duration::from_millis(pause.unsigned_abs())).await;
                        self.go_on(desk)
                    }
                };
            }
        }
    }

    /// Waits for bytes: into the worker's buffer, or behind those of an incomplete request.
    async fn receive(&mut self, desk: &RefCell<Desk>) -> io::Result<usize> {
        if !self.partial.is_empty() {
            let wanted = self.parser.wanted(self.partial.len()).clamp(READ, GROW);
            self.partial.reserve(wanted);
            return self.stream.read_buf(&mut self.partial).await;
        }
        poll_fn(|context| {
            let input = &mut desk.borrow_mut().input;
            let mut buffer = ReadBuf::new(input);
            let outcome = self.stream.poll_read(context, &mut buffer);
            outcome.map_ok(|()| buffer.filled().len())
        })
        .await
    }

    /// Answers the `bytes` that were just received.
    fn answer(&mut self, desk: &RefCell<Desk>, bytes: usize) -> Next {
        let desk = &mut *desk.borrow_mut();
        desk.worker.recorder().socket_read(bytes as u64);
        let received = &self.session.client.bytes_in;
        received.store(received.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
        if !self.partial.is_empty() {
            return self.answer_partial(desk);
        }
        let input = std::mem::take(&mut desk.input);
        let (consumed, next) = self.parse_and_run(desk, &input[..bytes]);
        if consumed < bytes {
            self.partial.extend_from_slice(&input[consumed..bytes]);
        }
        desk.input = input;
        next
    }

    fn answer_partial(&mut self, desk: &mut Desk) -> Next {
        let partial = std::mem::take(&mut self.partial);
        let (consumed, next) = self.parse_and_run(desk, &partial);
        self.partial = partial;
        self.partial.advance(consumed);
        if self.partial.is_empty() && self.partial.capacity() > KEEP {
            self.partial = BytesMut::new();
        }
        next
    }

    /// Goes on with requests that were received but not run.
    fn go_on(&mut self, desk: &RefCell<Desk>) -> Next {
        let desk = &mut *desk.borrow_mut();
        if self.partial.is_empty() { Next::Read } else { self.answer_partial(desk) }
    }

    /// Runs all complete requests in `bytes`; returns how many bytes they took.
    fn parse_and_run(&mut self, desk: &mut Desk, bytes: &[u8]) -> (usize, Next) {
        let mut done = 0;
        desk.reply.out.clear();
        desk.reply.version = self.version;
        let next = loop {
            let config = desk.worker.config();
            let limits = Limits {
                max_bulk: usize::try_from(config.proto_max_bulk_len).unwrap_or(usize::MAX),
                authenticated: self.session.authenticated,
                ..Limits::default()
            };
            desk.batch.clear();
            let parsed = self.parser.parse(&bytes[done..], &limits, &mut desk.batch, AHEAD);
            if parsed == Ok(0) {
                break Next::Read;
            }
            let outcome =
                desk.worker.run(&mut self.session, &desk.batch, &bytes[done..], 0, &mut desk.reply);
            match (outcome, parsed) {
                (Outcome::Done, Ok(consumed)) => {
                    done += consumed;
                    if done == bytes.len() {
                        break Next::Read;
                    }
                }
                (Outcome::Done, Err(error)) => {
                    refuse(&mut desk.reply, error);
                    break Next::Close;
                }
                (Outcome::Close, _) => break Next::Close,
                (Outcome::Flush(ran), _) => {
                    done += self.rewind(desk, ran);
                    break Next::Continue;
                }
                (Outcome::Wait(ran, until), _) => {
                    done += self.rewind(desk, ran);
                    break Next::Wait(until);
                }
            }
        };
        self.version = desk.reply.version;
        self.hand_over(desk);
        (done, next)
    }

    /// Forgets what was parsed behind the first `ran` requests: it is parsed again later. Returns
    /// the bytes of those that ran.
    fn rewind(&mut self, desk: &Desk, ran: usize) -> usize {
        self.parser = Parser::new();
        desk.batch.end_of(ran)
    }

    /// Sends the replies as far as the socket takes them and keeps the rest.
    fn hand_over(&mut self, desk: &mut Desk) {
        let out = &mut desk.reply.out;
        if out.is_empty() {
            return;
        }
        let total = out.len();
        let mut sent = 0;
        if self.unsent.is_empty() {
            // An error shows again when the rest is written.
            sent = self.stream.try_write(out).unwrap_or(0);
        }
        self.unsent.extend_from_slice(&out[sent..]);
        desk.worker.recorder().socket_written(total as u64);
        let counter = &self.session.client.bytes_out;
        counter.store(counter.load(Ordering::Relaxed) + total as u64, Ordering::Relaxed);
        if out.capacity() > KEEP {
            *out = Vec::new();
        }
    }

    /// Waits until the socket has taken all replies.
    async fn send(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            self.stream.writable().await?;
            match self.stream.try_write(&self.unsent[sent..]) {
                Ok(bytes) => sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if sent > 0 {
            self.unsent = Vec::new();
        }
        Ok(())
    }
}

fn refuse(reply: &mut Reply, error: ProtocolError) {
    reply.protocol_error(error);
}

//! One connection: bytes in, requests to the engine, replies out.
//!
//! A read goes into a buffer that all connections of a worker share, and replies are written from
//! another such buffer: a connection keeps bytes of its own only while a request is incomplete or
//! the socket does not take a reply.
//!
//! A connection that the server ends, after QUIT or bytes that are no request, says so, and then
//! waits a moment for the other side to do the same: closing a socket with unread bytes in it
//! resets the connection and destroys replies on their way.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::engine::{Hangup, Origin, Outcome, Session, Worker};
use crate::protocol::{Batch, Limits, Parser, Reply, Version};

use super::pending::{KEEP, Pending};
use super::stream::Stream;

/// Bytes that one read takes at most, unless a larger argument is announced.
pub(super) const READ: usize = 64 << 10;
/// Requests that are parsed ahead of running.
const AHEAD: usize = 1024;
/// A request that is announced as large gets room in steps of this size.
const GROW: usize = 1 << 20;
/// Most bytes of one request, as Redis's client-query-buffer-limit has it by default.
pub(super) const REQUEST_LIMIT: usize = 1 << 30;
/// How often a connection that has to wait looks whether it still has to.
const LOOK: Duration = Duration::from_millis(10);
/// What a connection that the server ends may still send, and for how long.
const LINGER_BYTES: usize = 64 << 10;
const LINGER: Duration = Duration::from_secs(1);

/// What the connections of one worker share.
pub(super) struct Desk {
    /// Runs requests.
    pub worker: Worker,
    /// Most bytes of one request.
    request_limit: usize,
    input: Vec<u8>,
    batch: Batch,
    reply: Reply,
}

impl Desk {
    pub(super) fn new(worker: Worker, request_limit: usize) -> Self {
        Self {
            worker,
            request_limit,
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
    partial: Pending,
    /// Replies of which the socket has taken the first `sent` bytes; empty once it has taken all.
    unsent: Vec<u8>,
    sent: usize,
}

/// What follows after some requests were run.
enum Next {
    Read,
    Continue,
    Wait(i64),
    Close,
    CutOff,
}

/// Who ended a connection.
#[derive(PartialEq, Eq)]
enum EndedBy {
    /// The server, in agreement with the client: replies are on their way.
    Server,
    /// The client, or another one's CLIENT KILL, or a limit.
    Force,
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
        partial: Pending::default(),
        unsent: Vec::new(),
        sent: 0,
    };
    // After an error nothing can be told to the other side.
    let ended_by = connection.run(&desk).await.unwrap_or(EndedBy::Force);
    shared.clients.disconnect(&connection.session.client);
    desk.borrow().worker.recorder().client_closed();
    if ended_by == EndedBy::Server {
        connection.linger(&desk).await;
    }
}

impl Connection {
    async fn run(&mut self, desk: &RefCell<Desk>) -> io::Result<EndedBy> {
        loop {
            let bytes = self.receive(desk).await?;
            if bytes == 0 || self.session.client.is_killed() {
                return Ok(EndedBy::Force);
            }
            let mut next = self.answer(desk, bytes);
            loop {
                self.send().await?;
                next = match next {
                    Next::Read => break,
                    Next::Close => return Ok(EndedBy::Server),
                    Next::CutOff => return Ok(EndedBy::Force),
                    Next::Continue => {
                        yield_now().await;
                        self.go_on(desk)
                    }
                    Next::Wait(until) => {
                        if !self.wait(desk, until).await {
                            return Ok(EndedBy::Force);
                        }
                        self.go_on(desk)
                    }
                };
            }
            // There may be more at once: the others of this worker come first.
            if bytes >= READ {
                yield_now().await;
            }
        }
    }

    /// Waits for bytes: into the worker's buffer, or behind those of an incomplete request.
    async fn receive(&mut self, desk: &RefCell<Desk>) -> io::Result<usize> {
        if !self.partial.is_empty() {
            let wanted = self.parser.wanted(self.partial.len()).clamp(READ, GROW);
            return self.stream.read_buf(&mut self.partial.room(wanted)).await;
        }
        self.read_shared(desk).await
    }

    async fn read_shared(&mut self, desk: &RefCell<Desk>) -> io::Result<usize> {
        poll_fn(|context| {
            let input = &mut desk.borrow_mut().input;
            let mut buffer = ReadBuf::new(input);
            let outcome = self.stream.poll_read(context, &mut buffer);
            outcome.map_ok(|()| buffer.filled().len())
        })
        .await
    }

    /// Waits while the pause until `until` lasts; false if the connection was killed meanwhile.
    async fn wait(&self, desk: &RefCell<Desk>, until: i64) -> bool {
        let shared = Arc::clone(desk.borrow().worker.engine().shared());
        let lasts = || {
            let now = clock::wall_ms();
            // A pause that was ended or replaced is none to wait for.
            let lasts = shared.clients.paused_until(now, true) == Some(until);
            lasts.then(|| Duration::from_millis(until.saturating_sub(now).unsigned_abs()))
        };
        while let Some(left) = lasts() {
            sleep(left.min(LOOK)).await;
            if self.session.client.is_killed() {
                return false;
            }
        }
        true
    }

    /// Says that nothing more comes, and takes what the other side had on its way.
    async fn linger(&mut self, desk: &RefCell<Desk>) {
        if self.stream.shut_down(Shutdown::Write).is_err() {
            return;
        }
        let drain = async {
            let mut left = LINGER_BYTES;
            while let Ok(bytes @ 1..) = self.read_shared(desk).await {
                left = left.saturating_sub(bytes);
                if left == 0 {
                    break;
                }
            }
        };
        // Who takes longer than that has had time to read the replies.
        let _ = timeout(LINGER, drain).await;
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
            self.partial.append(&input[consumed..bytes]);
        }
        desk.input = input;
        next
    }

    fn answer_partial(&mut self, desk: &mut Desk) -> Next {
        let partial = std::mem::take(&mut self.partial);
        let (consumed, next) = self.parse_and_run(desk, partial.as_slice());
        self.partial = partial;
        self.partial.advance(consumed);
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
                break self.keep_incomplete(desk, bytes.len() - done);
            }
            let outcome =
                desk.worker.run(&mut self.session, &desk.batch, &bytes[done..], 0, &mut desk.reply);
            match (outcome, parsed) {
                (Outcome::Done, Ok(consumed)) => {
                    self.count(desk.batch.len());
                    done += consumed;
                    if done == bytes.len() {
                        break Next::Read;
                    }
                }
                (Outcome::Done, Err(error)) => {
                    desk.reply.protocol_error(error);
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
        if self.hand_over(desk) { (done, next) } else { (done, Next::CutOff) }
    }

    /// What follows when `bytes` of an incomplete request were received.
    #[inline]
    fn keep_incomplete(&self, desk: &mut Desk, bytes: usize) -> Next {
        if bytes <= desk.request_limit {
            return Next::Read;
        }
        let client = &self.session.client;
        tracing::warn!(
            "Closing client {} at {}: it sent {bytes} bytes of one request, which may have {}",
            client.id,
            client.peer,
            desk.request_limit
        );
        desk.reply.error("ERR Protocol error: too big request");
        Next::Close
    }

    /// Counts requests that have run.
    #[inline]
    fn count(&self, ran: usize) {
        let counter = &self.session.client.commands;
        counter.store(counter.load(Ordering::Relaxed) + ran as u64, Ordering::Relaxed);
    }

    /// Forgets what was parsed behind the first `ran` requests: it is parsed again later. Returns
    /// the bytes of those that ran.
    fn rewind(&mut self, desk: &Desk, ran: usize) -> usize {
        self.count(ran);
        self.parser = Parser::new();
        desk.batch.end_of(ran)
    }

    /// Sends the replies as far as the socket takes them and keeps the rest; false if that is more
    /// than a client may leave unread.
    fn hand_over(&mut self, desk: &mut Desk) -> bool {
        let out = &mut desk.reply.out;
        if out.is_empty() {
            return true;
        }
        let total = out.len();
        // All earlier ones were sent before these were made. An error shows again when the rest is
        // written.
        let sent = self.stream.try_write(out).unwrap_or(0);
        desk.worker.recorder().socket_written(total as u64);
        let counter = &self.session.client.bytes_out;
        counter.store(counter.load(Ordering::Relaxed) + total as u64, Ordering::Relaxed);
        let fits = sent == total || self.keep_unsent(desk, sent);
        if desk.reply.out.capacity() > KEEP {
            desk.reply.out = Vec::new();
        }
        fits
    }

    /// Keeps the replies behind the first `sent` bytes; false if they are more than is allowed.
    #[cold]
    fn keep_unsent(&mut self, desk: &mut Desk, sent: usize) -> bool {
        let unsent = desk.reply.out.len() - sent;
        let limit = desk.worker.config().client_output_buffer_limit.normal.hard;
        if limit > 0 && unsent as u64 > limit {
            let client = &self.session.client;
            tracing::warn!(
                "Closing client {} at {}: {unsent} bytes of replies wait to be read, and \
                 client-output-buffer-limit allows {limit}",
                client.id,
                client.peer
            );
            return false;
        }
        if unsent > READ {
            self.unsent = std::mem::take(&mut desk.reply.out);
            self.sent = sent;
        } else {
            self.unsent.extend_from_slice(&desk.reply.out[sent..]);
        }
        true
    }

    /// Waits until the socket has taken all replies.
    async fn send(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        while self.sent < self.unsent.len() {
            self.stream.writable().await?;
            match self.stream.try_write(&self.unsent[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent = Vec::new();
        self.sent = 0;
        Ok(())
    }
}

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
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::engine::{BatchOutcome, Client, MAIL, Origin, Promise, Session, Wait, Worker};
use cowherd_resp::{Batch, ProtocolVersion, ReplyWriter, RequestLimits, RequestParser};

use super::client_socket::ClientSocket;
use super::query_buffer::{KEEP, QueryBuffer};
use super::wake_queue::{ConnectionWaker, WakeQueue};

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
pub(super) struct WorkerContext {
    /// Runs requests.
    pub worker: Worker,
    /// Where other threads leave word for the connections.
    pub wake_queue: Arc<WakeQueue>,
    /// Most bytes of one request.
    request_limit: usize,
    input: Vec<u8>,
    batch: Batch,
    reply: ReplyWriter,
}

impl WorkerContext {
    pub(super) fn new(worker: Worker, request_limit: usize) -> Self {
        Self {
            worker,
            wake_queue: Arc::default(),
            request_limit,
            input: vec![0; READ],
            batch: Batch::new(),
            reply: ReplyWriter::new(ProtocolVersion::Resp2),
        }
    }
}

/// What a connection keeps between reads.
struct Connection {
    stream: ClientSocket,
    line: Arc<ConnectionWaker>,
    session: Session,
    version: ProtocolVersion,
    parser: RequestParser,
    /// Bytes of a request that is not complete yet.
    partial: QueryBuffer,
    /// Replies of which the socket has taken the first `sent` bytes; empty once it has taken all.
    unsent: Vec<u8>,
    sent: usize,
}

/// What follows after some requests were run.
enum NextStep {
    Read,
    Continue,
    Wait(i64),
    /// Until a command has its reply that comes later.
    Blocked,
    Close,
    CutOff,
}

/// What a connection was woken for.
enum Wakeup {
    /// So many bytes were received; none, if the other side has ended the connection.
    Bytes(usize),
    /// Its signals have changed.
    Signal,
}

/// Who ended a connection.
#[derive(PartialEq, Eq)]
enum CloseMode {
    /// The server, in agreement with the client: replies are on their way.
    Server,
    /// The client, or another one's CLIENT KILL, or a limit.
    Force,
}

/// Serves a connection until it ends.
pub(super) async fn serve(
    context: Rc<RefCell<WorkerContext>>,
    stream: ClientSocket,
    mut origin: Origin,
) {
    origin.fd = stream.as_raw_fd();
    let (client, shared, line) = {
        let mut context = context.borrow_mut();
        let line = Arc::new(ConnectionWaker::new(origin.fd, Arc::clone(&context.wake_queue)));
        let authenticated = context.worker.config().requirepass.is_none();
        let shared = Arc::clone(context.worker.engine().shared());
        context.worker.recorder().client_opened();
        let client = shared.clients.connect(origin, clock::wall_ms(), Arc::clone(&line) as _);
        (Session::new(client, authenticated), shared, line)
    };
    let mut connection = Connection {
        stream,
        line,
        session: client,
        version: ProtocolVersion::Resp2,
        parser: RequestParser::new(),
        partial: QueryBuffer::default(),
        unsent: Vec::new(),
        sent: 0,
    };
    // After an error nothing can be told to the other side.
    let ended_by = connection.run(&context).await.unwrap_or(CloseMode::Force);
    connection.tell_if_cut_off();
    shared.clients.disconnect(&connection.session.client);
    context.borrow().worker.leave(&mut connection.session);
    context.borrow().worker.recorder().client_closed();
    if ended_by == CloseMode::Server {
        connection.linger(&context).await;
    }
}

impl Connection {
    async fn run(&mut self, context: &RefCell<WorkerContext>) -> io::Result<CloseMode> {
        loop {
            let word = self.receive(context).await?;
            if self.session.client.is_killed() {
                return Ok(CloseMode::Force);
            }
            let (bytes, mut next) = match word {
                Wakeup::Bytes(0) => return Ok(CloseMode::Force),
                Wakeup::Bytes(bytes) => (bytes, self.answer(context, bytes)),
                Wakeup::Signal => (0, self.send_mail(context)),
            };
            loop {
                self.send(context).await?;
                next = match next {
                    NextStep::Read => break,
                    NextStep::Close => return Ok(CloseMode::Server),
                    NextStep::CutOff => return Ok(CloseMode::Force),
                    NextStep::Continue => {
                        yield_now().await;
                        self.go_on(context)
                    }
                    NextStep::Wait(until) => {
                        if !self.wait(context, until).await {
                            return Ok(CloseMode::Force);
                        }
                        self.go_on(context)
                    }
                    NextStep::Blocked => match self.wait_for_reply(context).await? {
                        Some(ended_by) => return Ok(ended_by),
                        None => self.go_on(context),
                    },
                };
            }
            // There may be more at once: the others of this worker come first.
            if bytes == 0 || bytes >= READ {
                yield_now().await;
            }
        }
    }

    /// Waits for bytes, into the worker's buffer or behind those of an incomplete request; or for
    /// a signal.
    async fn receive(&mut self, context: &RefCell<WorkerContext>) -> io::Result<Wakeup> {
        let (client, line) = (&self.session.client, &self.line);
        if self.partial.is_empty() {
            return or_signal(client, line, read_shared(&mut self.stream, context)).await;
        }
        let wanted = self.parser.wanted(self.partial.len()).clamp(READ, GROW);
        let mut room = self.partial.room(wanted);
        or_signal(client, line, self.stream.read_buf(&mut room)).await
    }

    /// Waits until the command that ran last has its reply; what else others send is sent
    /// meanwhile, and what the client sends is kept. `Some` if the connection has ended.
    async fn wait_for_reply(
        &mut self,
        context: &RefCell<WorkerContext>,
    ) -> io::Result<Option<CloseMode>> {
        let Some(wait) = self.session.waiting.clone() else { return Ok(None) };
        loop {
            let signals = self.session.client.signals();
            if self.session.client.is_killed() {
                return Ok(Some(CloseMode::Force));
            }
            if let Wait::Reply(promise) = &wait
                && wait.is_over()
            {
                self.session.waiting = None;
                if !self.reply_late(&mut context.borrow_mut(), promise) {
                    return Ok(Some(CloseMode::Force));
                }
                self.send(context).await?;
                return Ok(None);
            }
            // Served, a wait for a key has its reply in the mail.
            if signals & MAIL != 0 {
                if matches!(self.send_mail(context), NextStep::CutOff) {
                    return Ok(Some(CloseMode::Force));
                }
                self.send(context).await?;
                yield_now().await;
            } else if wait.is_over() {
                self.session.waiting = None;
                return Ok(None);
            } else {
                match self.wait_once(context, &wait).await? {
                    None => context.borrow_mut().worker.time_out(&wait),
                    Some(Wakeup::Bytes(0)) => return Ok(Some(CloseMode::Force)),
                    Some(Wakeup::Bytes(bytes)) => {
                        self.count_received(&mut context.borrow_mut(), bytes)
                    }
                    Some(Wakeup::Signal) => {}
                }
            }
        }
    }

    /// Waits for a signal, or for bytes that are kept; nothing, once the time is over.
    async fn wait_once(
        &mut self,
        context: &RefCell<WorkerContext>,
        wait: &Wait,
    ) -> io::Result<Option<Wakeup>> {
        let is_over = poll_fn(|cx| {
            self.line.listen(cx);
            let woken = wait.is_over() || self.session.client.signals() != 0;
            if woken { Poll::Ready(()) } else { Poll::Pending }
        });
        let left = wait.until().map(|until| until.saturating_sub(clock::monotonic_us()));
        let time_is_over = async {
            match left {
                Some(micros) => sleep(Duration::from_micros(micros)).await,
                None => std::future::pending().await,
            }
        };
        let has_room = self.partial.len() <= context.borrow().request_limit;
        tokio::select! {
            biased;
            () = is_over => Ok(Some(Wakeup::Signal)),
            read = read_shared(&mut self.stream, context), if has_room => {
                let bytes = read?;
                self.partial.append(&context.borrow().input[..bytes]);
                Ok(Some(Wakeup::Bytes(bytes)))
            }
            () = time_is_over => Ok(None),
        }
    }

    /// Waits while the pause until `until` lasts; false if the connection was killed meanwhile.
    async fn wait(&self, context: &RefCell<WorkerContext>, until: i64) -> bool {
        let shared = Arc::clone(context.borrow().worker.engine().shared());
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
    async fn linger(&mut self, context: &RefCell<WorkerContext>) {
        if self.stream.shut_down(Shutdown::Write).is_err() {
            return;
        }
        let drain = async {
            let mut left = LINGER_BYTES;
            while let Ok(bytes @ 1..) = read_shared(&mut self.stream, context).await {
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
    fn answer(&mut self, context: &RefCell<WorkerContext>, bytes: usize) -> NextStep {
        let context = &mut *context.borrow_mut();
        self.count_received(context, bytes);
        if !self.partial.is_empty() {
            return self.answer_partial(context);
        }
        let input = std::mem::take(&mut context.input);
        let (consumed, next) = self.parse_and_run(context, &input[..bytes]);
        if consumed < bytes {
            self.partial.append(&input[consumed..bytes]);
        }
        context.input = input;
        next
    }

    #[inline]
    fn count_received(&self, context: &mut WorkerContext, bytes: usize) {
        context.worker.recorder().socket_read(bytes as u64);
        let received = &self.session.client.bytes_in;
        received.store(received.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
    }

    /// Sends what others have left for the client.
    #[cold]
    fn send_mail(&mut self, context: &RefCell<WorkerContext>) -> NextStep {
        let context = &mut *context.borrow_mut();
        context.reply.out.clear();
        self.session.client.take_mail(&mut context.reply.out);
        if self.hand_over(context) { NextStep::Read } else { NextStep::CutOff }
    }

    /// Sends the reply that was promised; false if the client has left too much unread.
    fn reply_late(&mut self, context: &mut WorkerContext, promise: &Promise) -> bool {
        context.reply.out.clear();
        context.worker.reply_late(&mut self.session, promise, &mut context.reply);
        self.hand_over(context)
    }

    fn answer_partial(&mut self, context: &mut WorkerContext) -> NextStep {
        let partial = std::mem::take(&mut self.partial);
        let (consumed, next) = self.parse_and_run(context, partial.as_slice());
        self.partial = partial;
        self.partial.advance(consumed);
        next
    }

    /// Goes on with requests that were received but not run.
    fn go_on(&mut self, context: &RefCell<WorkerContext>) -> NextStep {
        let context = &mut *context.borrow_mut();
        if self.partial.is_empty() { NextStep::Read } else { self.answer_partial(context) }
    }

    /// Runs all complete requests in `bytes`; returns how many bytes they took.
    fn parse_and_run(&mut self, context: &mut WorkerContext, bytes: &[u8]) -> (usize, NextStep) {
        let mut done = 0;
        context.reply.out.clear();
        context.reply.version = self.version;
        // What was delivered before these requests came is sent before their replies.
        if self.session.client.signals() & MAIL != 0 {
            self.session.client.take_mail(&mut context.reply.out);
        }
        let next = loop {
            let config = context.worker.config();
            let limits = RequestLimits {
                max_bulk: usize::try_from(config.proto_max_bulk_len).unwrap_or(usize::MAX),
                authenticated: self.session.authenticated,
                ..RequestLimits::default()
            };
            context.batch.clear();
            let parsed = self.parser.parse(&bytes[done..], &limits, &mut context.batch, AHEAD);
            if parsed == Ok(0) {
                break self.keep_incomplete(context, bytes.len() - done);
            }
            let outcome = context.worker.run(
                &mut self.session,
                &context.batch,
                &bytes[done..],
                0,
                &mut context.reply,
            );
            match (outcome, parsed) {
                (BatchOutcome::Done, Ok(consumed)) => {
                    self.count(context.batch.len());
                    done += consumed;
                    if done == bytes.len() || self.session.queued_bytes() > context.request_limit {
                        break self.keep_incomplete(context, 0);
                    }
                }
                (BatchOutcome::Done, Err(error)) => {
                    context.reply.protocol_error(error);
                    break NextStep::Close;
                }
                (BatchOutcome::Close, _) => break NextStep::Close,
                (BatchOutcome::Flush(ran), _) => {
                    done += self.rewind(context, ran);
                    break NextStep::Continue;
                }
                (BatchOutcome::Blocked(ran), _) => {
                    done += self.rewind(context, ran);
                    break NextStep::Blocked;
                }
                (BatchOutcome::Wait(ran, until), _) => {
                    done += self.rewind(context, ran);
                    break NextStep::Wait(until);
                }
            }
        };
        self.version = context.reply.version;
        if self.hand_over(context) { (done, next) } else { (done, NextStep::CutOff) }
    }

    /// What follows when `bytes` of an incomplete request were received, or none.
    #[inline]
    fn keep_incomplete(&self, context: &mut WorkerContext, bytes: usize) -> NextStep {
        // What is queued has not run either.
        let bytes = bytes + self.session.queued_bytes();
        if bytes <= context.request_limit {
            return NextStep::Read;
        }
        let client = &self.session.client;
        tracing::warn!(
            "Closing client {} at {}: it sent {bytes} bytes that have not run, which may be {}",
            client.id,
            client.peer,
            context.request_limit
        );
        context.reply.error("ERR Protocol error: too big request");
        NextStep::Close
    }

    /// Counts requests that have run.
    #[inline]
    fn count(&self, ran: usize) {
        let counter = &self.session.client.commands;
        counter.store(counter.load(Ordering::Relaxed) + ran as u64, Ordering::Relaxed);
    }

    /// Forgets what was parsed behind the first `ran` requests: it is parsed again later. Returns
    /// the bytes of those that ran.
    fn rewind(&mut self, context: &WorkerContext, ran: usize) -> usize {
        self.count(ran);
        self.parser = RequestParser::new();
        context.batch.end_of(ran)
    }

    /// Sends the replies as far as the socket takes them and keeps the rest; false if that is more
    /// than a client may leave unread.
    fn hand_over(&mut self, context: &mut WorkerContext) -> bool {
        let out = &mut context.reply.out;
        if out.is_empty() {
            return true;
        }
        let total = out.len();
        // All earlier ones were sent before these were made. An error shows again when the rest is
        // written.
        let sent = self.stream.try_write(out).unwrap_or(0);
        context.worker.recorder().socket_written(total as u64);
        let counter = &self.session.client.bytes_out;
        counter.store(counter.load(Ordering::Relaxed) + total as u64, Ordering::Relaxed);
        let fits = sent == total || self.keep_unsent(context, sent);
        if context.reply.out.capacity() > KEEP {
            context.reply.out = Vec::new();
        }
        fits
    }

    /// Keeps the replies behind the first `sent` bytes; false if they are more than is allowed.
    #[cold]
    fn keep_unsent(&mut self, context: &mut WorkerContext, sent: usize) -> bool {
        let unsent = context.reply.out.len() - sent;
        let limits = &context.worker.config().client_output_buffer_limit;
        if !self.session.client.set_unsent(limits, unsent as u64) {
            return false;
        }
        if unsent > READ {
            self.unsent = std::mem::take(&mut context.reply.out);
            self.sent = sent;
        } else {
            self.unsent.extend_from_slice(&context.reply.out[sent..]);
        }
        true
    }

    /// Logs that the client has left too much unread, if that is why it ends.
    fn tell_if_cut_off(&self) {
        let client = &self.session.client;
        if let Some(bytes) = client.cut_off_at() {
            tracing::warn!(
                "Closing client {} at {}: {bytes} bytes wait to be read, more than \
                 client-output-buffer-limit allows",
                client.id,
                client.peer
            );
        }
    }

    /// Waits until the socket has taken all replies.
    async fn send(&mut self, context: &RefCell<WorkerContext>) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        while self.sent < self.unsent.len() {
            self.stream.writable().await?;
            match self.stream.try_write(&self.unsent[self.sent..]) {
                Ok(bytes) => {
                    self.sent += bytes;
                    let left = (self.unsent.len() - self.sent) as u64;
                    let limits = context.borrow_mut().worker.config().client_output_buffer_limit;
                    self.session.client.set_unsent(&limits, left);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent = Vec::new();
        self.sent = 0;
        Ok(())
    }
}

/// Waits for `read`, or for a signal of the client's.
async fn or_signal(
    client: &Client,
    line: &ConnectionWaker,
    read: impl Future<Output = io::Result<usize>>,
) -> io::Result<Wakeup> {
    let mut read = pin!(read);
    poll_fn(|cx| {
        if let Poll::Ready(bytes) = read.as_mut().poll(cx) {
            return Poll::Ready(bytes.map(Wakeup::Bytes));
        }
        line.listen(cx);
        // Whoever signals wakes afterwards, so that either this or the waker sees it.
        if client.signals() == 0 { Poll::Pending } else { Poll::Ready(Ok(Wakeup::Signal)) }
    })
    .await
}

/// Waits for bytes, into the worker's buffer.
async fn read_shared(
    stream: &mut ClientSocket,
    context: &RefCell<WorkerContext>,
) -> io::Result<usize> {
    poll_fn(|cx| {
        let input = &mut context.borrow_mut().input;
        let mut buffer = ReadBuf::new(input);
        let outcome = stream.poll_read(cx, &mut buffer);
        outcome.map_ok(|()| buffer.filled().len())
    })
    .await
}

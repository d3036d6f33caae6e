//! One connection: reads requests, passes them to the worker in batches, writes replies.
//!
//! ```text
//!          shared by the worker's connections          own, usually empty
//! read --> WorkerContext::input ----- incomplete ----> Connection::query_buffer
//! write <- WorkerContext::reply ----- not taken -----> Connection::unsent
//! ```
//!
//! Short replies of connections that send scripts are written after the other connections that are
//! ready have run (`deferred`): the writes of all follow each other, so that a client process with
//! many connections is woken once. Batches of other commands are so short that this gains nothing.
//!
//! A connection owns buffer memory only while a request is incomplete or the socket has not taken a
//! reply, so that ten thousand idle connections cost no buffers.
//!
//! When the server ends a connection (QUIT, a protocol error), it shuts down the sending side and
//! lingers until the peer has closed too: closing a socket with unread bytes in its receive buffer
//! makes the kernel send RST, which destroys replies that are still on their way.
//!
//! Scripts run on a stack of their own, for which the worker's context is taken out of its cell and
//! a stand-in put there: when a script is suspended, since it runs for too long, the stand-in
//! serves the other connections.

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

use crate::clients::{Client, DeferredReply, OUTPUT_PENDING, Origin, PendingReply, Session};
use crate::clock;
use crate::engine::{BatchOutcome, CallStack, SuspendableCall, Suspender, Worker};
use cowherd_resp::{Batch, ProtocolVersion, ReplyWriter, RequestLimits, RequestParser};

use super::client_socket::ClientSocket;
use super::query_buffer::{MAX_IDLE_CAPACITY, QueryBuffer};
use super::wake_queue::{ConnectionWaker, WakeQueue};

/// Bytes that one read takes at most, unless the parser has announced a larger argument.
pub(super) const READ_SIZE: usize = 64 << 10;
/// Requests that are parsed before the first of them runs.
const MAX_BATCH: usize = 1024;
/// Largest step by which the query buffer grows for a request that is announced as large: memory is
/// committed as bytes arrive, not as the client announces them.
const GROWTH_STEP: usize = 1 << 20;
/// Most bytes of one request: the default of Redis's `client-query-buffer-limit`.
pub(super) const REQUEST_LIMIT: usize = 1 << 30;
/// Period at which a connection held by CLIENT PAUSE checks for the end of the pause. Nothing
/// notifies a connection of CLIENT UNPAUSE.
const PAUSE_POLL: Duration = Duration::from_millis(10);
/// Most bytes of replies that are deferred.
const MAX_DEFERRED: usize = 16 << 10;
/// Most buffers that a worker keeps for them.
const SPARE_REPLIES: usize = 64;
/// Longest time that a batch with deferred replies takes: other clients wait as long for theirs.
const MAX_DEFERRED_NS: u64 = 50_000;
/// Period at which a request that waits for the end of a script is tried again.
const SCRIPT_POLL: Duration = Duration::from_millis(1);
/// Most bytes that a lingering connection discards.
const LINGER_BYTES: usize = 64 << 10;
/// Longest time that a connection lingers.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// What the connections of one worker share.
pub(super) struct WorkerContext {
    pub worker: Worker,
    pub wake_queue: Arc<WakeQueue>,
    request_limit: usize,
    input: Vec<u8>,
    batch: Batch,
    reply: ReplyWriter,
    /// Buffers for replies, while the one of `reply` waits to be written.
    spare_replies: Vec<Vec<u8>>,
    /// What scripts need, once one has run.
    for_scripts: Option<ForScripts>,
}

/// What a worker needs to run scripts.
struct ForScripts {
    stack: CallStack,
    stand_in: Box<WorkerContext>,
}

/// The context of a worker, or its stand-in.
pub(super) type ContextCell = RefCell<Box<WorkerContext>>;

impl WorkerContext {
    pub(super) fn new(worker: Worker, request_limit: usize) -> Self {
        Self {
            worker,
            wake_queue: Arc::default(),
            request_limit,
            input: vec![0; READ_SIZE],
            batch: Batch::new(),
            reply: ReplyWriter::new(ProtocolVersion::Resp2),
            spare_replies: Vec::new(),
            for_scripts: None,
        }
    }

    /// Takes what scripts need, which is made when it is first needed.
    fn take_for_scripts(&mut self) -> io::Result<ForScripts> {
        if let Some(kept) = self.for_scripts.take() {
            return Ok(kept);
        }
        let stand_in = Self {
            wake_queue: Arc::clone(&self.wake_queue),
            ..Self::new(self.worker.stand_in(), self.request_limit)
        };
        Ok(ForScripts { stack: CallStack::new()?, stand_in: Box::new(stand_in) })
    }
}

/// The state of a connection between reads.
struct Connection {
    socket: ClientSocket,
    waker: Arc<ConnectionWaker>,
    session: Session,
    version: ProtocolVersion,
    parser: RequestParser,
    /// An incomplete request, or requests that wait behind a blocked one.
    query_buffer: QueryBuffer,
    /// Replies to scripts that are written once the connections that are ready now have run.
    deferred: Vec<u8>,
    /// Replies of which the socket has taken the first `sent` bytes; empty once all are taken.
    unsent: Vec<u8>,
    sent: usize,
    /// Whether it has sent a script: its batches run on the stack of scripts from then on.
    sends_scripts: bool,
}

/// What a connection does after a batch.
enum NextStep {
    /// Reads more requests.
    Read,
    /// Runs the rest of what was received, after the other connections had a turn.
    Continue,
    /// Waits for the end of the CLIENT PAUSE that lasts until this wall-clock time in milliseconds.
    AwaitPauseEnd(i64),
    /// Waits for the reply of the command that ran last.
    AwaitReply,
    /// Runs the first so many bytes of the worker's input, or what was received before, where
    /// scripts can be suspended.
    RunScripts(Option<usize>),
    /// Waits for the end of the script that keeps the worker busy.
    AwaitScriptEnd,
    /// Closes the connection and lingers.
    Close,
    /// Closes the connection at once: its unread replies exceed the limit.
    OutputLimit,
}

/// Why a connection woke up.
enum Wakeup {
    /// This many bytes were received; zero means that the peer has closed its sending side.
    Bytes(usize),
    /// Another thread has set a signal of the client.
    Signal,
}

/// How a connection is closed.
#[derive(PartialEq, Eq)]
enum CloseMode {
    /// By the server, with replies on their way: lingers.
    Linger,
    /// By the peer, CLIENT KILL or a limit: closes at once.
    Immediate,
}

/// Why [`Connection::run`] returns.
enum RunOutcome {
    /// The connection is to be closed.
    Close(CloseMode),
    /// As [`NextStep::RunScripts`].
    RunScripts(Option<usize>),
}

/// Serves one connection from accept to close.
pub(super) async fn serve(context: Rc<ContextCell>, socket: ClientSocket, mut origin: Origin) {
    origin.fd = socket.as_raw_fd();
    let (session, clients, waker) = {
        let mut context = context.borrow_mut();
        let waker = Arc::new(ConnectionWaker::new(origin.fd, Arc::clone(&context.wake_queue)));
        let authenticated = context.worker.config().requirepass.is_none();
        let clients = Arc::clone(&context.worker.engine().shared().clients);
        context.worker.recorder().client_opened();
        let client = clients.connect(origin, clock::wall_ms(), Arc::clone(&waker) as _);
        (Session::new(client, authenticated), clients, waker)
    };
    let mut connection = Box::new(Connection {
        socket,
        waker,
        session,
        version: ProtocolVersion::Resp2,
        parser: RequestParser::new(),
        query_buffer: QueryBuffer::default(),
        deferred: Vec::new(),
        unsent: Vec::new(),
        sent: 0,
        sends_scripts: false,
    });
    let mut next = NextStep::Read;
    let close_mode = loop {
        match connection.run(&context, next).await {
            Ok(RunOutcome::Close(close_mode)) => break close_mode,
            Ok(RunOutcome::RunScripts(bytes)) => {
                (connection, next) = run_scripts(connection, &context, bytes).await;
                // As in `Connection::run`.
                if bytes.is_none_or(|bytes| bytes >= READ_SIZE) {
                    yield_now().await;
                }
            }
            // The peer cannot be reached, so lingering is pointless.
            Err(_) => break CloseMode::Immediate,
        }
    };
    if connection.log_output_limit() {
        context.borrow().worker.recorder().output_limit_exceeded();
    }
    clients.disconnect(&connection.session.client);
    context.borrow().worker.close_session(&mut connection.session);
    context.borrow().worker.recorder().client_closed();
    if close_mode == CloseMode::Linger {
        connection.linger(&context).await;
    }
}

/// Runs requests on the stack of scripts, in the worker's own context, while a stand-in is in the
/// cell; see [`NextStep::RunScripts`].
async fn run_scripts(
    mut connection: Box<Connection>,
    cell: &ContextCell,
    bytes: Option<usize>,
) -> (Box<Connection>, NextStep) {
    let for_scripts = cell.borrow_mut().take_for_scripts();
    let ForScripts { stack, stand_in } = match for_scripts {
        Ok(for_scripts) => for_scripts,
        Err(error) => {
            tracing::warn!("No memory for the stack of a script: {error}");
            return (connection, NextStep::Close);
        }
    };
    let mut context = cell.replace(stand_in);
    let call = SuspendableCall::new(stack, move |suspender| {
        let next = match bytes {
            Some(bytes) => connection.process_input(&mut context, bytes, Some(suspender)),
            None => connection.resume(&mut context, Some(suspender)),
        };
        (connection, context, next)
    });
    let ((connection, context, next), stack) = call.await;
    let stand_in = cell.replace(context);
    cell.borrow_mut().for_scripts = Some(ForScripts { stack, stand_in });
    (connection, next)
}

/// Waits while a script is suspended on this thread, and long enough for one on another thread to
/// make progress.
async fn await_script_end(cell: &ContextCell) {
    loop {
        sleep(SCRIPT_POLL).await;
        if !cell.borrow().worker.is_stand_in() {
            return;
        }
    }
}

impl Connection {
    /// Reads and runs requests, beginning with the step `next`, until something else is to be done.
    async fn run(&mut self, context: &ContextCell, mut next: NextStep) -> io::Result<RunOutcome> {
        let mut yields = false;
        loop {
            loop {
                if !self.deferred.is_empty() {
                    run_ready_tasks().await;
                    if !self.write_deferred(context) {
                        return Ok(RunOutcome::Close(CloseMode::Immediate));
                    }
                }
                self.send(context).await?;
                next = match next {
                    NextStep::Read => break,
                    NextStep::Close => return Ok(RunOutcome::Close(CloseMode::Linger)),
                    NextStep::OutputLimit => return Ok(RunOutcome::Close(CloseMode::Immediate)),
                    // Nothing has been awaited since the read: the bytes are in the input still.
                    NextStep::RunScripts(bytes) => return Ok(RunOutcome::RunScripts(bytes)),
                    NextStep::AwaitScriptEnd => {
                        await_script_end(context).await;
                        self.resume_in(context)
                    }
                    NextStep::Continue => {
                        yield_now().await;
                        self.resume_in(context)
                    }
                    NextStep::AwaitPauseEnd(until) => {
                        if !self.await_pause_end(context, until).await? {
                            return Ok(RunOutcome::Close(CloseMode::Immediate));
                        }
                        self.resume_in(context)
                    }
                    NextStep::AwaitReply => match self.await_reply(context).await? {
                        Some(close_mode) => return Ok(RunOutcome::Close(close_mode)),
                        None => self.resume_in(context),
                    },
                };
            }
            // A full read suggests that more bytes are ready: the worker's other connections run
            // first (invariant 3 of `net`).
            if std::mem::take(&mut yields) {
                yield_now().await;
            }
            let wakeup = self.receive(context).await?;
            if self.session.client.is_killed() {
                return Ok(RunOutcome::Close(CloseMode::Immediate));
            }
            (next, yields) = match wakeup {
                Wakeup::Bytes(0) => return Ok(RunOutcome::Close(CloseMode::Immediate)),
                Wakeup::Bytes(bytes) => (self.process_input_in(context, bytes), bytes >= READ_SIZE),
                Wakeup::Signal => (self.send_pending_output(context), true),
            };
        }
    }

    /// Waits for bytes or a signal. Bytes go to the worker's buffer, or to the query buffer behind
    /// an incomplete request.
    async fn receive(&mut self, context: &ContextCell) -> io::Result<Wakeup> {
        let (client, waker) = (&self.session.client, &self.waker);
        if self.query_buffer.is_empty() {
            return read_or_signal(client, waker, read_shared(&mut self.socket, context)).await;
        }
        let wanted = self.parser.wanted(self.query_buffer.len()).clamp(READ_SIZE, GROWTH_STEP);
        let mut space = self.query_buffer.space(wanted);
        read_or_signal(client, waker, self.socket.read_buf(&mut space)).await
    }

    /// Waits until the blocked command has its reply. Meanwhile pending output is sent and received
    /// bytes are appended to the query buffer. `Some` if the connection is to be closed.
    async fn await_reply(&mut self, context: &ContextCell) -> io::Result<Option<CloseMode>> {
        let Some(wait) = self.session.pending_reply.clone() else { return Ok(None) };
        loop {
            let signals = self.session.client.signals();
            if self.session.client.is_killed() {
                return Ok(Some(CloseMode::Immediate));
            }
            if let PendingReply::Deferred(promise) = &wait
                && wait.is_over(&self.session.client)
            {
                self.session.pending_reply = None;
                if !self.send_deferred_reply(&mut context.borrow_mut(), promise) {
                    return Ok(Some(CloseMode::Immediate));
                }
                self.send(context).await?;
                return Ok(None);
            }
            // The reply of a command that was blocked on a key arrives as pending output.
            if signals & OUTPUT_PENDING != 0 {
                if matches!(self.send_pending_output(context), NextStep::OutputLimit) {
                    return Ok(Some(CloseMode::Immediate));
                }
                self.send(context).await?;
                yield_now().await;
            } else if wait.is_over(&self.session.client) {
                self.session.pending_reply = None;
                return Ok(None);
            } else {
                match self.await_wakeup(context, &wait).await? {
                    None => context.borrow_mut().worker.time_out(&wait),
                    Some(Wakeup::Bytes(0)) => return Ok(Some(CloseMode::Immediate)),
                    Some(Wakeup::Bytes(bytes)) => {
                        self.count_received(&mut context.borrow_mut(), bytes)
                    }
                    Some(Wakeup::Signal) => {}
                }
            }
        }
    }

    /// Waits for a signal or for bytes, which are appended to the query buffer; `None` at the
    /// timeout of `wait`.
    async fn await_wakeup(
        &mut self,
        context: &ContextCell,
        wait: &PendingReply,
    ) -> io::Result<Option<Wakeup>> {
        let is_over = poll_fn(|cx| {
            self.waker.register(cx);
            let woken = wait.is_over(&self.session.client) || self.session.client.signals() != 0;
            if woken { Poll::Ready(()) } else { Poll::Pending }
        });
        let remaining =
            wait.deadline().map(|deadline| deadline.saturating_sub(clock::monotonic_us()));
        let timeout = async {
            match remaining {
                Some(micros) => sleep(Duration::from_micros(micros)).await,
                None => std::future::pending().await,
            }
        };
        let below_limit = self.query_buffer.len() <= context.borrow().request_limit;
        tokio::select! {
            biased;
            () = is_over => Ok(Some(Wakeup::Signal)),
            read = read_shared(&mut self.socket, context), if below_limit => {
                let bytes = read?;
                self.query_buffer.append(&context.borrow().input[..bytes]);
                Ok(Some(Wakeup::Bytes(bytes)))
            }
            () = timeout => Ok(None),
        }
    }

    /// Waits while the CLIENT PAUSE until `until` lasts; false if the client was killed or has
    /// disconnected meanwhile. Received bytes are appended to the query buffer.
    async fn await_pause_end(&mut self, context: &ContextCell, until: i64) -> io::Result<bool> {
        let client = Arc::clone(&self.session.client);
        let clients = Arc::clone(&context.borrow().worker.engine().shared().clients);
        let remaining = || {
            let now = clock::wall_ms();
            // Another end means that CLIENT UNPAUSE or a new CLIENT PAUSE came meanwhile.
            let lasts = clients.paused_until(now, true) == Some(until);
            lasts.then(|| Duration::from_millis(until.saturating_sub(now).unsigned_abs()))
        };
        let _held = clients.hold(&client);
        while let Some(remaining) = remaining() {
            let below_limit = self.query_buffer.len() <= context.borrow().request_limit;
            tokio::select! {
                biased;
                read = read_shared(&mut self.socket, context), if below_limit => {
                    let bytes = read?;
                    if bytes == 0 {
                        return Ok(false);
                    }
                    self.query_buffer.append(&context.borrow().input[..bytes]);
                    self.count_received(&mut context.borrow_mut(), bytes);
                }
                () = sleep(remaining.min(PAUSE_POLL)) => {}
            }
            if client.is_killed() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Shuts down the sending side and discards what the peer still sends, within limits.
    async fn linger(&mut self, context: &ContextCell) {
        if self.socket.shut_down(Shutdown::Write).is_err() {
            return;
        }
        let drain = async {
            let mut budget = LINGER_BYTES;
            while let Ok(bytes @ 1..) = read_shared(&mut self.socket, context).await {
                budget = budget.saturating_sub(bytes);
                if budget == 0 {
                    break;
                }
            }
        };
        // After this time the peer has had the chance to read the replies.
        let _ = timeout(LINGER_TIME, drain).await;
    }

    /// Whether its requests run on the stack of scripts.
    fn needs_script_stack(&self, context: &WorkerContext) -> bool {
        self.sends_scripts && !context.worker.is_stand_in()
    }

    /// Runs the requests in the `bytes` that were just received.
    fn process_input_in(&mut self, cell: &ContextCell, bytes: usize) -> NextStep {
        let context = &mut *cell.borrow_mut();
        if self.needs_script_stack(context) {
            return NextStep::RunScripts(Some(bytes));
        }
        self.process_input(context, bytes, None)
    }

    /// Runs requests that were received but have not run.
    fn resume_in(&mut self, cell: &ContextCell) -> NextStep {
        let context = &mut *cell.borrow_mut();
        if self.needs_script_stack(context) {
            return NextStep::RunScripts(None);
        }
        self.resume(context, None)
    }

    fn process_input(
        &mut self,
        context: &mut WorkerContext,
        bytes: usize,
        suspender: Option<&Suspender<'_>>,
    ) -> NextStep {
        self.count_received(context, bytes);
        if !self.query_buffer.is_empty() {
            return self.process_query_buffer(context, suspender);
        }
        let input = std::mem::take(&mut context.input);
        let (consumed, next) = self.parse_and_run(context, &input[..bytes], suspender);
        if consumed < bytes {
            self.query_buffer.append(&input[consumed..bytes]);
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

    /// Sends pending output: messages and replies that other threads pushed for the client.
    #[cold]
    fn send_pending_output(&mut self, context: &ContextCell) -> NextStep {
        let context = &mut *context.borrow_mut();
        context.reply.out.clear();
        self.session.client.drain_output(&mut context.reply.out);
        if self.write_reply(context) { NextStep::Read } else { NextStep::OutputLimit }
    }

    /// Sends a deferred reply; false if the output limit is exceeded.
    fn send_deferred_reply(
        &mut self,
        context: &mut WorkerContext,
        promise: &DeferredReply,
    ) -> bool {
        context.reply.out.clear();
        context.worker.write_deferred_reply(&mut self.session, promise, &mut context.reply);
        self.write_reply(context)
    }

    fn process_query_buffer(
        &mut self,
        context: &mut WorkerContext,
        suspender: Option<&Suspender<'_>>,
    ) -> NextStep {
        // Taken out for the call, which borrows the connection mutably.
        let buffer = std::mem::take(&mut self.query_buffer);
        let (consumed, next) = self.parse_and_run(context, buffer.as_slice(), suspender);
        self.query_buffer = buffer;
        self.query_buffer.advance(consumed);
        next
    }

    fn resume(
        &mut self,
        context: &mut WorkerContext,
        suspender: Option<&Suspender<'_>>,
    ) -> NextStep {
        if self.query_buffer.is_empty() {
            NextStep::Read
        } else {
            self.process_query_buffer(context, suspender)
        }
    }

    /// Runs the complete requests in `bytes`; returns how many bytes were consumed.
    fn parse_and_run(
        &mut self,
        context: &mut WorkerContext,
        bytes: &[u8],
        suspender: Option<&Suspender<'_>>,
    ) -> (usize, NextStep) {
        let mut done = 0;
        let begun = suspender.map(|_| clock::monotonic_ns());
        context.reply.out.clear();
        context.reply.version = self.version;
        // Messages pushed before these requests arrived precede their replies.
        if self.session.client.signals() & OUTPUT_PENDING != 0 {
            self.session.client.drain_output(&mut context.reply.out);
        }
        let next = loop {
            let config = context.worker.config();
            let limits = RequestLimits {
                max_bulk: usize::try_from(config.proto_max_bulk_len)
                    .map_or(context.request_limit, |limit| limit.min(context.request_limit)),
                authenticated: self.session.authenticated,
                ..RequestLimits::default()
            };
            context.batch.clear();
            let parsed = self.parser.parse(&bytes[done..], &limits, &mut context.batch, MAX_BATCH);
            if parsed == Ok(0) {
                break self.check_request_limit(context, bytes.len() - done);
            }
            let outcome = context.worker.run(
                &mut self.session,
                &context.batch,
                &bytes[done..],
                &mut context.reply,
                suspender,
            );
            match (outcome, parsed) {
                (BatchOutcome::Done, Ok(consumed)) => {
                    self.count_commands(context.batch.len());
                    done += consumed;
                    if done == bytes.len() || self.session.queued_bytes() > context.request_limit {
                        break self.check_request_limit(context, 0);
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
                    break NextStep::AwaitReply;
                }
                (BatchOutcome::RunsScript(ran), _) => {
                    done += self.rewind(context, ran);
                    self.sends_scripts = true;
                    break NextStep::RunScripts(None);
                }
                (BatchOutcome::AwaitsScript(ran), _) => {
                    done += self.rewind(context, ran);
                    break NextStep::AwaitScriptEnd;
                }
                (BatchOutcome::Paused(ran, until), _) => {
                    done += self.rewind(context, ran);
                    break NextStep::AwaitPauseEnd(until);
                }
            }
        };
        self.version = context.reply.version;
        let size = context.reply.out.len();
        let is_short = |begun| clock::monotonic_ns().saturating_sub(begun) <= MAX_DEFERRED_NS;
        if (1..=MAX_DEFERRED).contains(&size) && begun.is_some_and(is_short) {
            let spare = context.spare_replies.pop().unwrap_or_default();
            self.deferred = std::mem::replace(&mut context.reply.out, spare);
            return (done, next);
        }
        if self.write_reply(context) { (done, next) } else { (done, NextStep::OutputLimit) }
    }

    /// Writes the deferred replies and keeps what the socket does not take; false if the rest
    /// exceeds the output limit.
    fn write_deferred(&mut self, cell: &ContextCell) -> bool {
        let context = &mut *cell.borrow_mut();
        let kept = std::mem::replace(&mut context.reply.out, std::mem::take(&mut self.deferred));
        let fits = self.write_reply(context);
        let mut spare = std::mem::replace(&mut context.reply.out, kept);
        if context.spare_replies.len() < SPARE_REPLIES && spare.capacity() <= 2 * MAX_DEFERRED {
            spare.clear();
            context.spare_replies.push(spare);
        }
        fits
    }

    /// Closes the connection if `bytes` of an incomplete request, together with the commands queued
    /// by MULTI, exceed the limit of one request.
    #[inline]
    fn check_request_limit(&self, context: &mut WorkerContext, bytes: usize) -> NextStep {
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
        context.worker.recorder().query_limit_exceeded();
        context.reply.error("ERR Protocol error: too big request");
        NextStep::Close
    }

    #[inline]
    fn count_commands(&self, ran: usize) {
        let counter = &self.session.client.commands;
        counter.store(counter.load(Ordering::Relaxed) + ran as u64, Ordering::Relaxed);
    }

    /// Discards the parsed requests behind the first `ran`, which are parsed again later. Returns
    /// the bytes of those that ran.
    fn rewind(&mut self, context: &WorkerContext, ran: usize) -> usize {
        self.count_commands(ran);
        self.parser = RequestParser::new();
        context.batch.end_of(ran)
    }

    /// Writes the worker's reply buffer to the socket and keeps what the socket does not take;
    /// false if the rest exceeds the output limit.
    ///
    /// Requires that `unsent` is empty.
    fn write_reply(&mut self, context: &mut WorkerContext) -> bool {
        let out = &mut context.reply.out;
        if out.is_empty() {
            return true;
        }
        let total = out.len();
        // An error reappears when `send` writes the rest.
        let sent = self.socket.try_write(out).unwrap_or(0);
        context.worker.recorder().socket_written(total as u64);
        let counter = &self.session.client.bytes_out;
        counter.store(counter.load(Ordering::Relaxed) + total as u64, Ordering::Relaxed);
        let fits = sent == total || self.keep_unsent(context, sent);
        if context.reply.out.capacity() > MAX_IDLE_CAPACITY {
            context.reply.out = Vec::new();
        }
        fits
    }

    /// Keeps the replies behind the first `sent` bytes; false if they exceed the output limit.
    #[cold]
    fn keep_unsent(&mut self, context: &mut WorkerContext, sent: usize) -> bool {
        let unsent = context.reply.out.len() - sent;
        let limits = &context.worker.config().client_output_buffer_limit;
        if !self.session.client.set_unsent(limits, unsent as u64) {
            return false;
        }
        if unsent > READ_SIZE {
            self.unsent = std::mem::take(&mut context.reply.out);
            self.sent = sent;
        } else {
            self.unsent.extend_from_slice(&context.reply.out[sent..]);
        }
        true
    }

    /// Logs a client that exceeded its output limit; tells whether it did.
    fn log_output_limit(&self) -> bool {
        let client = &self.session.client;
        let Some(bytes) = client.output_overflow() else { return false };
        tracing::warn!(
            "Closing client {} at {}: {bytes} bytes wait to be read, more than \
             client-output-buffer-limit allows",
            client.id,
            client.peer
        );
        true
    }

    /// Writes the unsent replies; returns once the socket has taken all of them.
    async fn send(&mut self, context: &ContextCell) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        while self.sent < self.unsent.len() {
            self.socket.writable().await?;
            match self.socket.try_write(&self.unsent[self.sent..]) {
                Ok(bytes) => {
                    self.sent += bytes;
                    let unsent = (self.unsent.len() - self.sent) as u64;
                    let limits = context.borrow_mut().worker.config().client_output_buffer_limit;
                    self.session.client.set_unsent(&limits, unsent);
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

/// Lets the tasks run that are ready, without a look for others: the calling task goes behind them
/// in the queue of the runtime.
async fn run_ready_tasks() {
    let mut is_queued = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut is_queued, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Waits for `read` or for a signal of the client.
async fn read_or_signal(
    client: &Client,
    waker: &ConnectionWaker,
    read: impl Future<Output = io::Result<usize>>,
) -> io::Result<Wakeup> {
    let mut read = pin!(read);
    poll_fn(|cx| {
        if let Poll::Ready(bytes) = read.as_mut().poll(cx) {
            return Poll::Ready(bytes.map(Wakeup::Bytes));
        }
        waker.register(cx);
        // Signals are set before the waker is called and read after it is registered, so no signal
        // is lost between the two.
        if client.signals() == 0 { Poll::Pending } else { Poll::Ready(Ok(Wakeup::Signal)) }
    })
    .await
}

/// Reads into the worker's buffer. The buffer is borrowed only while the read is polled, so that
/// other connections can use the buffer between polls.
async fn read_shared(socket: &mut ClientSocket, context: &ContextCell) -> io::Result<usize> {
    poll_fn(|cx| {
        let input = &mut context.borrow_mut().input;
        let mut buffer = ReadBuf::new(input);
        socket.poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
    })
    .await
}

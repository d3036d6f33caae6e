//! Tests of connections against an engine without a server process: over socket pairs on the test's
//! thread, where the order of events is fixed, and over real listeners.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::task::LocalSet;

use crate::clients::{Client, Origin};
use crate::clock;
use crate::config::{Config, LiveConfig};
use crate::engine::{CheckpointScheduler, Engine, KeylessState, LoadingPhase, Shared, Worker};
use crate::keyspace::Keyspace;
use crate::telemetry::StatsSource as _;
use cowherd_arena::{PageKind, ReservedArena};

use super::client_socket::ClientSocket;
use super::connection::{READ_SIZE, REQUEST_LIMIT, WorkerContext, serve};
use super::{Listeners, StopSignal, WorkerPool};

mod blocked_on_keys;
mod blocked_on_streams;

/// No operation here takes this long, so a test that would hang fails instead.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// An engine with a small arena.
struct TestEngine {
    engine: Arc<Engine>,
    state: KeylessState,
    checkpoint_thread: Option<JoinHandle<()>>,
    _folder: TempDir,
}

impl TestEngine {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = TempDir::new().unwrap();
        let mut config = Config { dir: folder.path().to_owned(), ..Config::default() };
        config.save = Vec::new();
        change(&mut config);
        let blank = ReservedArena::reserve(PageKind::Small, 64 << 20).unwrap();
        let keyspace = Keyspace::create(blank, 1).unwrap();
        let live = Arc::new(LiveConfig::new(config, None));
        let state = KeylessState::new(live, 3, clock::wall_ms()).unwrap();
        let shared = Arc::new(Shared::serving(&state, keyspace));
        let (scheduler, thread) = CheckpointScheduler::start(&shared).unwrap();
        let engine = Engine::new(shared, scheduler);
        Self { engine, state, checkpoint_thread: Some(thread), _folder: folder }
    }

    fn shared(&self) -> &Shared {
        self.engine.shared()
    }

    /// Serves `sockets` on this thread, in this order, until all are closed.
    fn serve(&self, request_limit: usize, sockets: Vec<UnixStream>) {
        let recorder = self.shared().telemetry.recorder(0).unwrap();
        let worker = Worker::new(Arc::clone(&self.engine), recorder);
        let context =
            Rc::new(std::cell::RefCell::new(Box::new(WorkerContext::new(worker, request_limit))));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            tokio::task::spawn_local(Arc::clone(&context.borrow().wake_queue).run());
            let mut tasks = Vec::new();
            for socket in sockets {
                socket.set_nonblocking(true).unwrap();
                let socket = tokio::net::UnixStream::from_std(socket).unwrap();
                let origin = Origin { peer: None, local: None, path: "test".into(), fd: 0 };
                let served = serve(Rc::clone(&context), ClientSocket::Unix(socket), origin);
                tasks.push(tokio::task::spawn_local(served));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
    }

    /// Sends `input`, shuts down the sending side, and returns all bytes up to the end of file.
    fn exchange(&self, request_limit: usize, input: &[u8]) -> io::Result<Vec<u8>> {
        let (ours, theirs) = pair();
        std::thread::scope(|scope| {
            let mut writer = ours.try_clone().unwrap();
            scope.spawn(move || {
                // The server may have closed the connection already.
                let _ = writer.write_all(input);
                let _ = writer.shutdown(Shutdown::Write);
            });
            let reader = scope.spawn(move || read_all(ours));
            self.serve(request_limit, vec![theirs]);
            reader.join().unwrap()
        })
    }

    fn ask(&self, input: &str) -> String {
        let bytes = self.exchange(REQUEST_LIMIT, input.as_bytes()).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

impl Drop for TestEngine {
    fn drop(&mut self) {
        // A test that fails during a checkpoint must not wait for the child.
        if let Some(pid) = self.shared().telemetry.persistence().checkpoint_pid() {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        }
        self.engine.checkpoint_scheduler().close();
        self.checkpoint_thread.take().unwrap().join().unwrap();
    }
}

/// A [`TestEngine`] with two workers that serve TCP and a Unix socket.
struct TestServer {
    pool: Option<WorkerPool>,
    stop: StopSignal,
    port: u16,
    path: PathBuf,
    engine: TestEngine,
}

impl TestServer {
    fn new() -> Self {
        // Another process may take the free port before this one listens on it.
        (0..10).find_map(|_| Self::try_new()).expect("a free port")
    }

    fn try_new() -> Option<Self> {
        let mut port = 0;
        let mut path = PathBuf::new();
        let engine = TestEngine::with(|config| {
            port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            path = config.dir.join("socket");
            config.port = port;
            config.unixsocket = Some(path.clone());
        });
        let listeners = Listeners::bind(&engine.shared().config.current()).ok()?;
        let recorders = (0..3).map(|i| engine.shared().telemetry.recorder(i).unwrap()).collect();
        let stop = StopSignal::new();
        let loading = LoadingPhase::begin(&engine.state, 64 << 20, || {}).unwrap();
        loading.publish(|| Ok::<_, ()>(Arc::clone(&engine.engine))).unwrap();
        let pool = WorkerPool::start(&loading, listeners, recorders, &stop).unwrap();
        Some(Self { pool: Some(pool), stop, port, path, engine })
    }

    fn tcp(&self) -> TestClient<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        TestClient(BufReader::new(stream))
    }

    fn unix(&self) -> TestClient<UnixStream> {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        TestClient(BufReader::new(stream))
    }

    /// Waits until the client called `name` satisfies `holds`.
    fn client(&self, name: &str, holds: impl Fn(&Client) -> bool) -> Arc<Client> {
        let since = Instant::now();
        loop {
            let clients = self.engine.shared().clients.list();
            let found = clients.into_iter().find(|c| c.names.lock().name == name && holds(c));
            if let Some(client) = found {
                return client;
            }
            assert!(since.elapsed() < TEST_TIMEOUT, "client {name} did not get there");
            std::thread::yield_now();
        }
    }

    fn wait_until(&self, holds: impl Fn(&Shared) -> bool) {
        let since = Instant::now();
        while !holds(self.shared()) {
            assert!(since.elapsed() < TEST_TIMEOUT, "the condition did not come to hold");
            std::thread::yield_now();
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.stop();
        self.pool.take().unwrap().join();
    }
}

/// The client side of a connection, which exchanges lines.
struct TestClient<S: Read>(BufReader<S>);

impl<S: Read + Write> TestClient<S> {
    fn send(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    /// The next line of a reply, without CRLF; empty at the end of file.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.line()
    }
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    (ours, theirs)
}

fn read_all(mut stream: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes `piece` repeatedly until the send buffer is full; returns the number of complete pieces.
fn fill(stream: &mut UnixStream, piece: &[u8]) -> usize {
    let many = piece.repeat(8192 / piece.len());
    let mut written = 0;
    stream.set_nonblocking(true).unwrap();
    while let Ok(bytes) = stream.write(&many[written % many.len()..]) {
        written += bytes;
    }
    stream.set_nonblocking(false).unwrap();
    written / piece.len()
}

#[test]
fn a_long_pipeline_is_answered_in_order() {
    let input: String = (0..5000).map(|i| format!("ECHO {i}\r\n")).collect();
    let mut expected = String::new();
    for i in 0..5000 {
        let text = i.to_string();
        expected += &format!("${}\r\n{text}\r\n", text.len());
    }
    assert_eq!(TestEngine::new().ask(&input), expected);
}

#[test]
fn requests_behind_quit_do_not_run() {
    let engine = TestEngine::new();
    assert_eq!(engine.ask("PING\r\nQUIT\r\nSET a 1\r\nPING\r\n"), "+PONG\r\n+OK\r\n");
    assert_eq!(engine.ask("EXISTS a\r\n"), ":0\r\n");
}

#[test]
fn a_client_that_disconnects_inside_a_request_is_removed() {
    let engine = TestEngine::new();
    assert_eq!(engine.ask("PING\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100\r\nabc"), "+PONG\r\n");
    assert_eq!(engine.shared().clients.count(), 0);
    assert_eq!(engine.ask("EXISTS a\r\n"), ":0\r\n");
}

/// Closing a socket with unread bytes reset the connection: the client got ECONNRESET instead of
/// the error reply.
#[test]
fn a_reply_survives_unread_requests() {
    let engine = TestEngine::new();
    for (first, reply) in
        [("QUIT\r\n", "+OK\r\n"), ("*1\r\n!\r\n", "-ERR Protocol error: expected '$', got '!'\r\n")]
    {
        let (mut ours, theirs) = pair();
        ours.write_all(first.as_bytes()).unwrap();
        // One byte more than a read takes, and less than the connection discards while lingering.
        ours.write_all(&vec![b'\n'; READ_SIZE + 1]).unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        engine.serve(REQUEST_LIMIT, vec![theirs]);
        assert_eq!(read_all(ours).unwrap(), reply.as_bytes(), "after {first:?}");
    }
}

/// The size of a request was not limited: a million arguments of 100 MB each were buffered.
#[test]
fn a_request_beyond_the_limit_closes_the_connection() {
    let limit = 1 << 20;
    let engine = TestEngine::new();
    let argument = [&b"$100000\r\n"[..], &[b'x'; 100_000], b"\r\n"].concat();
    let mut input = b"PING\r\n*1000\r\n".to_vec();
    while input.len() <= limit + 100 {
        input.extend_from_slice(&argument);
    }
    input.truncate(limit + 100);
    let reply = engine.exchange(limit, &input).unwrap();
    assert_eq!(
        reply.escape_ascii().to_string(),
        "+PONG\\r\\n-ERR Protocol error: too big request\\r\\n"
    );
    assert_eq!(engine.shared().clients.count(), 0);
    assert_eq!(engine.shared().telemetry.totals().query_limit_disconnects, 1);
}

#[test]
fn a_request_below_the_limit_runs_and_so_do_those_behind_it() {
    let limit = 1 << 20;
    let value = "v".repeat(limit - 100);
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${}\r\n{value}\r\n", value.len());
    let input = format!("{set}STRLEN a\r\n{set}PING\r\n");
    let reply = TestEngine::new().exchange(limit, input.as_bytes()).unwrap();
    let expected = format!("+OK\r\n:{}\r\n+OK\r\n+PONG\r\n", value.len());
    assert_eq!(String::from_utf8(reply).unwrap(), expected);
}

/// A client whose next requests had always arrived already starved the other clients of its worker.
#[test]
fn a_flooding_client_does_not_starve_others() {
    let engine = TestEngine::new();
    let (mut flood, flooded) = pair();
    flood.write_all(b"CLIENT REPLY OFF\r\n").unwrap();
    let sent = fill(&mut flood, b"INCR n\r\n");
    let per_read = READ_SIZE / b"INCR n\r\n".len();
    assert!(sent > 2 * per_read, "the socket took only {sent} requests");
    flood.shutdown(Shutdown::Write).unwrap();
    let (mut other, others) = pair();
    other.write_all(b"GET n\r\n").unwrap();
    other.shutdown(Shutdown::Write).unwrap();
    engine.serve(REQUEST_LIMIT, vec![flooded, others]);
    let reply = String::from_utf8(read_all(other).unwrap()).unwrap();
    let before: usize = reply.lines().nth(1).unwrap_or("0").parse().unwrap();
    assert!(before > 0, "the flood did not run first, so the test proves nothing");
    assert!(before <= per_read, "{before} of {sent} requests ran before another client's");
    assert_eq!(read_all(flood).unwrap(), b"");
}

#[test]
fn a_reply_larger_than_the_send_buffer_arrives_complete() {
    let engine = TestEngine::new();
    let len = 5 << 20;
    let reply = engine.ask(&format!("SETRANGE a {} xyz\r\nGET a\r\nPING\r\nGET a\r\n", len - 3));
    let value = "\0".repeat(len - 3) + "xyz";
    let bulk = format!("${len}\r\n{value}\r\n");
    assert!(reply == format!(":{len}\r\n{bulk}+PONG\r\n{bulk}"), "{} bytes", reply.len());
}

#[test]
fn a_client_beyond_its_output_limit_is_disconnected() {
    let engine = TestEngine::with(|config| config.client_output_buffer_limit.normal.hard = 1 << 20);
    let small = engine.ask("SETRANGE a 999999 x\r\nGET a\r\n");
    assert_eq!(small.len(), ":1000000\r\n$1000000\r\n\r\n".len() + 1_000_000);
    // The send buffer of a Unix socket holds a fraction of this reply.
    let large = engine.ask("SETRANGE a 7999999 x\r\nGET a\r\nSET later 1\r\n");
    assert!(large.starts_with(":8000000\r\n$8000000\r\n"));
    assert!(large.len() < 7_000_000, "{} bytes came", large.len());
    assert_eq!(engine.ask("EXISTS later\r\n"), ":0\r\n");
}

#[test]
fn requests_are_counted() {
    let engine = TestEngine::new();
    let (mut ours, theirs) = pair();
    ours.write_all(b"PING\r\nNOSUCH\r\nPING\r\nCLIENT SETNAME me\r\nPING\r\n").unwrap();
    std::thread::scope(|scope| {
        let clients = &engine.shared().clients;
        let counted = scope.spawn(move || {
            let mut client = TestClient(BufReader::new(ours));
            for _ in 0..5 {
                client.line();
            }
            assert_eq!(client.ask("PING"), "+PONG");
            // A command is counted before its reply is sent.
            clients.list()[0].commands.load(Ordering::Relaxed)
        });
        engine.serve(REQUEST_LIMIT, vec![theirs]);
        assert_eq!(counted.join().unwrap(), 6);
    });
}

#[test]
fn tcp_and_unix_sockets_are_served_alike() {
    fn check(mut client: TestClient<impl Read + Write>, key: &str) {
        assert_eq!(client.ask("PING"), "+PONG");
        assert_eq!(client.ask(&format!("SETRANGE {key} 299999 x")), ":300000");
        assert_eq!(client.ask(&format!("GET {key}")), "$300000");
        let mut value = vec![1; 300_002];
        client.0.read_exact(&mut value).unwrap();
        assert!(value.ends_with(b"\0x\r\n"));
        assert_eq!(client.ask("*1\r\n$-5"), "-ERR Protocol error: invalid bulk length");
        assert_eq!(client.line(), "");
    }
    let server = TestServer::new();
    check(server.tcp(), "tcp");
    check(server.unix(), "unix");
    assert_eq!(server.unix().ask("DBSIZE"), ":2");
}

/// A connection held by CLIENT PAUSE ignored CLIENT KILL and CLIENT UNPAUSE.
#[test]
fn a_pause_ends_with_unpause_and_with_kill() {
    let server = TestServer::new();
    let mut admin = server.tcp();
    let mut waits = server.tcp();
    let mut dies = server.unix();
    let mut leaves = server.tcp();
    waits.named("waits");
    dies.named("dies");
    leaves.named("leaves");
    assert_eq!(admin.ask("CLIENT PAUSE 86400000 ALL"), "+OK");
    let arrived = |name| {
        let before = server.client(name, |_| true).bytes_in.load(Ordering::Relaxed);
        move |client: &Client| client.bytes_in.load(Ordering::Relaxed) > before
    };
    let (waits_arrived, dies_arrived) = (arrived("waits"), arrived("dies"));
    waits.send("ECHO late");
    dies.send("SET a 1");
    server.client("waits", waits_arrived);
    let id = server.client("dies", dies_arrived).id;
    server.client("waits", Client::is_blocked);
    server.client("dies", Client::is_blocked);
    assert_eq!(server.shared().stats_snapshot().clients.blocked, 2);
    assert_eq!(admin.ask(&format!("CLIENT KILL ID {id}")), ":1");
    assert_eq!(dies.line(), "");
    // A client that disconnects is not held either, and takes no place until the pause ends.
    leaves.send("ECHO never");
    server.client("leaves", Client::is_blocked);
    drop(leaves);
    server.wait_until(|shared| shared.clients.held() == 1);
    assert_eq!(admin.ask("CLIENT UNPAUSE"), "+OK");
    assert_eq!((waits.line(), waits.line()), ("$4".to_owned(), "late".to_owned()));
    assert_eq!(admin.ask("EXISTS a"), ":0");
}

trait Named {
    fn named(&mut self, name: &str);
}

impl<S: Read + Write> Named for TestClient<S> {
    fn named(&mut self, name: &str) {
        assert_eq!(self.ask(&format!("CLIENT SETNAME {name}")), "+OK");
    }
}

/// The child of a checkpoint holds copies of the sockets, so that closing one did not end the
/// connection for the client until the child had exited.
#[test]
fn a_connection_closes_while_a_checkpoint_runs() {
    let server = TestServer::new();
    let mut admin = server.tcp();
    let (mut tcp, mut unix, mut killed) = (server.tcp(), server.unix(), server.tcp());
    assert_eq!(admin.ask("SET a 1"), "+OK");
    assert_eq!((tcp.ask("PING"), unix.ask("PING")), ("+PONG".to_owned(), "+PONG".to_owned()));
    killed.named("killed");
    let shared = server.engine.shared();
    // Longer than any timeout of the test.
    shared.hooks.checkpoint_delay.store(600_000_000, Ordering::Relaxed);
    assert_eq!(admin.ask("BGSAVE"), "+Background saving started");
    for ended in [(tcp.ask("QUIT"), tcp.line()), (unix.ask("QUIT"), unix.line())] {
        assert_eq!(ended, ("+OK".to_owned(), String::new()));
    }
    let id = server.client("killed", |_| true).id;
    assert_eq!(admin.ask(&format!("CLIENT KILL ID {id}")), ":1");
    assert_eq!(killed.line(), "");
    assert!(
        shared.telemetry.persistence().checkpoint_pid().is_some(),
        "the checkpoint ended too early"
    );
    assert!(admin.ask("BGSAVE CANCEL").starts_with('+'));
}

/// An idle connection costs a small task and no buffers, so that ten thousand of them fit.
#[test]
fn an_idle_connection_is_small() {
    fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }
    let bytes = size(serve);
    assert!(bytes < 2048, "{bytes} bytes");
}

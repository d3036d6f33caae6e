//! Tests of the time before the keyspace is published: which commands run, what a session keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cowherd_arena::{PageKind, ReservedArena};
use cowherd_resp::{Batch, ProtocolVersion, ReplyWriter, RequestLimits, RequestParser};

use super::{
    BatchOutcome, CheckpointScheduler, Engine, KeylessState, LoadingPhase, Shared, Suspender,
    Worker,
};
use crate::clients::{ConnectionHandle, Origin, Session};
use crate::clock;
use crate::commands::{CommandFlags, all};
use crate::config::{Config, LiveConfig};
use crate::keyspace::{Expiry, Keyspace};
use crate::telemetry::StatsSource as _;

const LOADING: &str = "-LOADING Redis is loading the dataset in memory\r\n";
const CAPACITY: u64 = 64 << 20;

struct NoConnection;

impl ConnectionHandle for NoConnection {
    fn close(&self) {}
}

/// A worker with one client that waits for the keyspace.
struct LoadingServer {
    state: KeylessState,
    phase: Arc<LoadingPhase>,
    worker: Worker,
    session: Session,
    /// Calls of the callback that ends the process.
    ended: Arc<AtomicU32>,
    checkpoint_thread: Option<(Arc<Engine>, std::thread::JoinHandle<()>)>,
}

impl LoadingServer {
    fn new(config: Config) -> Self {
        let authenticated = config.requirepass.is_none();
        let live = Arc::new(LiveConfig::new(config, None));
        let state = KeylessState::new(live, 1, clock::wall_ms()).unwrap();
        let ended = Arc::new(AtomicU32::new(0));
        let calls = Arc::clone(&ended);
        let phase = LoadingPhase::begin(&state, CAPACITY, move || {
            calls.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        let worker = Worker::with_loading(&phase, state.telemetry.recorder(0).unwrap());
        let origin = Origin { peer: None, local: None, path: "test".into(), fd: 7 };
        let client = state.clients.connect(origin, clock::wall_ms(), Arc::new(NoConnection));
        let session = Session::new(client, authenticated);
        Self { state, phase, worker, session, ended, checkpoint_thread: None }
    }

    fn run(&mut self, lines: &str) -> (String, BatchOutcome) {
        let mut batch = Batch::new();
        RequestParser::new()
            .parse(lines.as_bytes(), &RequestLimits::default(), &mut batch, 1000)
            .unwrap();
        let mut reply = ReplyWriter::new(ProtocolVersion::Resp2);
        let outcome = self.worker.run(
            &mut self.session,
            &batch,
            lines.as_bytes(),
            &mut reply,
            Some(&Suspender::NEVER),
        );
        (String::from_utf8(reply.out).unwrap(), outcome)
    }

    fn ask(&mut self, line: &str) -> String {
        self.run(&format!("{line}\r\n")).0
    }

    /// Publishes a keyspace in which `a` is 1.
    fn publish(&mut self) {
        let blank = ReservedArena::reserve(PageKind::Small, CAPACITY).unwrap();
        let keyspace = Keyspace::create(blank, 7).unwrap();
        let (a, now) = (keyspace.key(0, b"a"), clock::wall_ms());
        keyspace.lock(cowherd_arena::ShardSet::ALL, now).set(0, &a, b"1", Expiry::None).unwrap();
        let mut thread = None;
        let engine = self.phase.publish(|| {
            let shared = Arc::new(Shared::serving(&self.state, keyspace));
            let (scheduler, started) = CheckpointScheduler::start(&shared)?;
            thread = Some(started);
            Ok::<_, std::io::Error>(Engine::new(shared, scheduler))
        });
        self.checkpoint_thread = Some((engine.unwrap(), thread.unwrap()));
    }
}

impl Drop for LoadingServer {
    fn drop(&mut self) {
        if let Some((engine, thread)) = self.checkpoint_thread.take() {
            engine.checkpoint_scheduler().close();
            thread.join().unwrap();
        }
    }
}

#[test]
fn data_commands_are_refused_and_others_run() {
    let mut server = LoadingServer::new(Config::default());
    for line in ["PING", "GET a", "SET a 1", "DBSIZE", "SAVE", "BGSAVE", "FLUSHALL", "WATCH a"] {
        assert_eq!(server.ask(line), LOADING, "{line}");
    }
    for line in ["DEBUG SLEEP 0", "EVAL 1 0", "KEYS *", "MEMORY STATS", "RANDOMKEY", "BLPOP a 0"] {
        assert!(
            matches!(
                &*server.ask(line),
                LOADING
                    | "-ERR unknown command 'EVAL', with args \
                 beginning with: '1' '0' \r\n"
            ),
            "{line}"
        );
    }
    assert_eq!(server.ask("SELECT 3"), "+OK\r\n");
    assert_eq!(server.ask("ECHO a"), "$1\r\na\r\n");
    assert_eq!(server.ask("CLIENT SETNAME me"), "+OK\r\n");
    assert_eq!(server.ask("CONFIG GET maxclients"), "*2\r\n$10\r\nmaxclients\r\n$5\r\n10000\r\n");
    assert!(server.ask("COMMAND COUNT").starts_with(':'));
    assert!(server.ask("HELLO 3").starts_with('%'));
    // Errors come in the order in which they come later.
    let arity = server.ask("GET");
    assert_eq!(arity, "-ERR wrong number of arguments for 'get' command\r\n");
    assert!(server.ask("NOSUCH").starts_with("-ERR unknown command"));
}

/// Redis's flag decides, but for commands that name keys or look at them.
#[test]
fn the_flag_of_redis_decides() {
    let mut refused = Vec::new();
    let mut visit = |command: &crate::commands::Command| {
        let flagged = command.flags.contains(CommandFlags::LOADING);
        if flagged && !super::admission::runs_while_loading(command) {
            refused.push(command.name);
        }
        assert!(flagged || !super::admission::runs_while_loading(command), "{}", command.name);
    };
    for command in all() {
        visit(command);
        command.subcommands.iter().for_each(&mut visit);
    }
    assert_eq!(refused, ["watch", "debug"]);
}

#[test]
fn a_client_without_a_password_learns_nothing() {
    let config = Config { requirepass: Some("secret".into()), ..Config::default() };
    let mut server = LoadingServer::new(config);
    assert_eq!(server.ask("GET a"), "-NOAUTH Authentication required.\r\n");
    assert_eq!(server.ask("INFO"), "-NOAUTH Authentication required.\r\n");
    assert_eq!(server.ask("AUTH secret"), "+OK\r\n");
    assert_eq!(server.ask("GET a"), LOADING);
}

#[test]
fn info_shows_the_progress() {
    let mut server = LoadingServer::new(Config { maxmemory: CAPACITY, ..Config::default() });
    let persistence = server.state.telemetry.persistence();
    persistence.loading_started(crate::clock::Timestamp::now());
    persistence.loading_progress(cowherd_arena::checkpoint::RestoreProgress {
        read_bytes: 1 << 20,
        total_bytes: 4 << 20,
        chunks: 2,
        total_chunks: 8,
    });
    let info = server.ask("INFO");
    for line in [
        "loading:1",
        "loading_total_bytes:4194304",
        "loading_loaded_bytes:1048576",
        "loading_loaded_perc:25.00",
        "loading_rdb_used_mem:16777216",
        "maxmemory:67108864",
        "cowherd_arena_capacity:67108864",
    ] {
        assert!(info.contains(&format!("\r\n{line}\r\n")), "{line} in {info}");
    }
    let used = server.phase.stats_snapshot().memory;
    assert!(used.used >= (4 << 20) && used.used > used.overhead, "{used:?}");
    assert_eq!(server.ask("CONFIG SET maxmemory 32mb"), "+OK\r\n");
    assert!(server.ask("CONFIG SET maxmemory 65mb").contains("cannot grow"));
}

#[test]
fn a_session_goes_on_when_the_keyspace_is_published() {
    let mut server = LoadingServer::new(Config::default());
    assert_eq!(server.ask("GET a"), LOADING);
    assert_eq!(server.ask("CONFIG SET maxmemory-samples 9"), "+OK\r\n");
    assert_eq!(server.ask("CLIENT SETNAME early"), "+OK\r\n");
    assert_eq!(server.ask("MULTI"), "+OK\r\n");
    assert_eq!(server.ask("ECHO queued"), "+QUEUED\r\n");
    server.publish();
    assert_eq!(server.ask("GET a"), "+QUEUED\r\n");
    assert_eq!(server.ask("EXEC"), "*2\r\n$6\r\nqueued\r\n$1\r\n1\r\n");
    assert_eq!(server.ask("CLIENT GETNAME"), "$5\r\nearly\r\n");
    assert!(server.ask("CONFIG GET maxmemory-samples").ends_with("$1\r\n9\r\n"));
    assert_eq!(server.ask("DBSIZE"), ":1\r\n");
    assert_eq!(server.ask("WATCH a"), "+OK\r\n");
    assert_eq!(server.state.clients.count(), 1);
}

/// The empty keyspace takes 2 MiB, which a server that serves has no use for.
#[test]
fn the_interim_engine_goes_with_the_last_worker() {
    let mut server = LoadingServer::new(Config::default());
    let interim = match &*server.phase.phase() {
        super::loading::Phase::Loading(interim) => Arc::downgrade(interim),
        super::loading::Phase::Serving(_) => panic!("there is no keyspace yet"),
    };
    server.publish();
    assert_eq!(interim.strong_count(), 1, "the worker has not seen the new engine yet");
    server.ask("PING");
    assert_eq!(interim.strong_count(), 0);
}

#[test]
fn a_transaction_with_a_refused_command_fails() {
    let mut server = LoadingServer::new(Config::default());
    assert_eq!(server.ask("MULTI"), "+OK\r\n");
    assert_eq!(server.ask("GET a"), LOADING);
    server.publish();
    let exec = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    assert_eq!(server.ask("EXEC"), exec);
    assert_eq!(server.ask("GET a"), "$1\r\n1\r\n");
}

/// A pipelined request waits for no other: each gets its own reply, in order.
#[test]
fn a_pipeline_gets_every_reply() {
    let mut server = LoadingServer::new(Config::default());
    let (reply, outcome) = server.run("PING\r\nECHO x\r\nGET a\r\nECHO y\r\n");
    assert_eq!(reply, format!("{LOADING}$1\r\nx\r\n{LOADING}$1\r\ny\r\n"));
    assert_eq!(outcome, BatchOutcome::Done);
}

/// Whatever the options: a checkpoint now would replace the image by an empty one.
#[test]
fn shutdown_ends_the_process_without_a_checkpoint() {
    for (n, line) in ["SHUTDOWN NOSAVE", "SHUTDOWN SAVE", "SHUTDOWN"].into_iter().enumerate() {
        let folder = tempfile::TempDir::new().unwrap();
        let config = Config { dir: folder.path().to_owned(), ..Config::default() };
        let mut server = LoadingServer::new(config);
        let (reply, outcome) = server.run(&format!("{line}\r\nGET a\r\n"));
        assert_eq!((reply.as_str(), outcome), ("", BatchOutcome::Close), "{line}");
        assert_eq!(server.ended.load(Ordering::Relaxed), 1);
        assert_eq!(server.phase.shut_down(super::ShutdownOptions::default()), Ok(()));
        assert_eq!(server.ended.load(Ordering::Relaxed), 2);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{n}");
    }
}

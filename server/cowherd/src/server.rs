//! One server, from its configuration to its end.

use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as SocketAddrUnix, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::{self, Timestamp};
use crate::config::{Config, LiveConfig, OomScoreAdj, Supervised};
use crate::engine::{
    BackgroundThread, CheckpointScheduler, Engine, OpenedKeyspace, Shared, Shutdown, open,
};
use crate::net::{Listeners, StopSignal, WorkerPool};
use crate::telemetry::{RestoreReport, StatsSource, Telemetry, logging, metrics};

/// A second signal means it only after so long: tools send one to a process and again to its group.
const INSIST: Duration = Duration::from_secs(2);
/// Files that are open besides clients' sockets: listeners, event loops, the log, a save.
const OTHER_FILES: u64 = 64;

/// Runs a server until it is told to stop.
///
/// # Errors
/// It cannot start; the text says what to do.
pub fn run(config: Config, file: Option<std::path::PathBuf>) -> anyhow::Result<()> {
    let logging = logging::init(&config)?;
    for note in config.notes() {
        tracing::warn!("{note}");
    }
    let config = with_absolute_dir(config)?;
    raise_file_limit(&config);
    let listeners = Listeners::bind(&config)?;
    let now = Timestamp::now();
    let OpenedKeyspace { keyspace, restored, lock } = open(&config)?;
    let live = Arc::new(LiveConfig::new(config.clone(), file));
    let shared = Shared::new(keyspace, live, config.threads + 1, clock::wall_ms())
        .map_err(anyhow::Error::msg)?;
    let shared = Arc::new(shared);
    // Nobody else has set it: `shared` is new.
    let _ = shared.logging.set(logging);
    set_oom_score(&config);
    if let Some(restored) = restored {
        tell_restored(&config, &shared.telemetry, &restored, now);
    }
    let (saver, saver_thread) = CheckpointScheduler::start(&shared)?;
    let engine = Engine::new(Arc::clone(&shared), saver);
    let background = BackgroundThread::start(&engine)?;
    let addresses = listeners.addresses().join(", ");
    let recorders: Option<Vec<_>> =
        (0..=config.threads).map(|i| shared.telemetry.recorder(i)).collect();
    // A signal that comes as soon as a client is answered must find its handler.
    let stop = StopSignal::new();
    let stopper = stop.clone();
    engine.on_stop(move || stopper.stop());
    watch_signals(&engine)?;
    let pool = WorkerPool::start(&engine, listeners, recorders.unwrap_or_default(), &stop)?;
    let metrics = match config.metrics_port {
        0 => None,
        port => {
            let address = SocketAddr::new(config.metrics_bind, port);
            let figures = Arc::clone(&shared) as Arc<dyn StatsSource>;
            Some(metrics::serve(Arc::clone(&shared.telemetry), figures, address)?)
        }
    };
    write_pid_file(&config);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pages = shared.keyspace.arena().page_kind().name(),
        maxmemory = shared.keyspace.arena().capacity(),
        threads = config.threads,
        "Ready to accept connections on {addresses}"
    );
    notify_systemd(&config, "READY=1");
    pool.join();
    notify_systemd(&config, "STOPPING=1");
    drop(metrics);
    background.stop();
    engine.checkpoint_scheduler().close();
    if saver_thread.join().is_err() {
        tracing::error!("the saver ended by a panic");
    }
    if let Some(path) = &config.pidfile {
        let _ = std::fs::remove_file(path);
    }
    if let Some(path) = &config.unixsocket {
        let _ = std::fs::remove_file(path);
    }
    drop(lock);
    Ok(())
}

fn with_absolute_dir(mut config: Config) -> anyhow::Result<Config> {
    config.dir = std::path::absolute(&config.dir)?;
    anyhow::ensure!(
        Path::new(&config.dir).is_dir(),
        "the directory {} does not exist: create it, or set another with --dir",
        config.dir.display()
    );
    Ok(config)
}

fn tell_restored(
    config: &Config,
    telemetry: &Telemetry,
    restored: &crate::engine::RestoredImage,
    begun: Timestamp,
) {
    let stats = &restored.stats;
    tracing::info!(
        keys = restored.contents.keys,
        image_bytes = stats.image.image_bytes,
        read_seconds = stats.duration.as_secs_f64(),
        verify_seconds = restored.verified_in.as_secs_f64(),
        "Restored {}",
        config.dir.join(&config.dbfilename).display()
    );
    let persistence = telemetry.persistence();
    persistence.loading_started(stats.image.image_bytes, begun);
    let report = RestoreReport {
        keys_loaded: restored.contents.keys,
        image_bytes: stats.image.image_bytes,
        digest: restored.digest.clone(),
        ..RestoreReport::default()
    };
    persistence.loading_finished(Timestamp::now(), report);
}

/// Lets the process open as many files as `maxclients` may need.
fn raise_file_limit(config: &Config) {
    let wanted = u64::from(config.maxclients) + OTHER_FILES;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft >= wanted {
        return;
    }
    let limit = wanted.min(hard);
    let raised = setrlimit(Resource::RLIMIT_NOFILE, limit, hard);
    if raised.is_err() || limit < wanted {
        tracing::warn!(
            "maxclients {} needs {wanted} open files, but the limit is {}: raise it with ulimit -n \
             or LimitNOFILE, or lower maxclients",
            config.maxclients,
            if raised.is_err() { soft } else { limit }
        );
    }
}

/// Tells systemd how far the server is (sd_notify(3)), if it asked to be told.
fn notify_systemd(config: &Config, state: &str) {
    let asked = matches!(config.supervised, Supervised::Systemd | Supervised::Auto);
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|_| asked) else { return };
    let sent = UnixDatagram::unbound().and_then(|socket| match path.as_encoded_bytes() {
        [b'@', name @ ..] => {
            socket.send_to_addr(state.as_bytes(), &SocketAddrUnix::from_abstract_name(name)?)
        }
        _ => socket.send_to(state.as_bytes(), &path),
    });
    if let Err(error) = sent {
        tracing::warn!("cannot notify systemd at {}: {error}", path.display());
    }
}

/// Makes the kernel's OOM killer take this process later or sooner than others, if asked to. A
/// checkpoint's child always goes first.
fn set_oom_score(config: &Config) {
    let path = "/proc/self/oom_score_adj";
    let score = match config.oom_score_adj {
        OomScoreAdj::No => return,
        OomScoreAdj::Absolute => config.oom_score_adj_values.server,
        OomScoreAdj::Relative => {
            let now = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
            now.unwrap_or(0) + config.oom_score_adj_values.server
        }
    };
    if let Err(error) = std::fs::write(path, score.clamp(-1000, 1000).to_string()) {
        tracing::warn!("cannot set {path} to {score}: {error}");
    }
}

fn write_pid_file(config: &Config) {
    if let Some(path) = &config.pidfile
        && let Err(error) = std::fs::write(path, format!("{}\n", std::process::id()))
    {
        tracing::warn!("cannot write the pid file {}: {error}", path.display());
    }
}

/// SIGTERM and SIGINT shut the server down as SHUTDOWN does; a second one while that goes on ends
/// it at once, without a save.
fn watch_signals(engine: &Arc<Engine>) -> anyhow::Result<()> {
    let engine = Arc::clone(engine);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let streams = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
            let (Ok(mut terminate), Ok(mut interrupt)) = streams else {
                return tracing::error!("cannot watch for signals");
            };
            let _ = ready.send(());
            let stopping = Arc::new(AtomicBool::new(false));
            let mut asked = Instant::now();
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if stopping.load(Ordering::Relaxed) && asked.elapsed() < INSIST {
                    continue;
                }
                if stopping.swap(true, Ordering::Relaxed) {
                    tracing::warn!("A second signal: the server ends at once, without a save");
                    std::process::exit(1);
                }
                asked = Instant::now();
                tracing::info!("A signal asks the server to stop");
                shut_down(Arc::clone(&engine), Arc::clone(&stopping));
            }
        });
    })?;
    let _ = is_ready.recv();
    Ok(())
}

/// Shuts down on a thread of its own, so that signals are still seen.
fn shut_down(engine: Arc<Engine>, stopping: Arc<AtomicBool>) {
    let asked = Arc::clone(&stopping);
    let spawned = std::thread::Builder::new().name("shutdown".into()).spawn(move || {
        if engine.shut_down(Shutdown::default()).is_err() {
            stopping.store(false, Ordering::Relaxed);
            tracing::error!(
                "The server goes on, so that nothing is lost. Mend what keeps it from saving, or \
                 use SHUTDOWN NOSAVE"
            );
        }
    });
    if let Err(error) = spawned {
        asked.store(false, Ordering::Relaxed);
        tracing::error!("cannot shut down: {error}");
    }
}

//! Life cycle of the server: starts the parts in their order, serves until a shutdown, stops the
//! parts in reverse. Also what the process has of its own: signals, limits, pid file, systemd.

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
    BackgroundThread, CheckpointScheduler, Engine, OpenedKeyspace, Shared, ShutdownOptions,
    StockKeeper, open,
};
use crate::net::{Listeners, StopSignal, WorkerPool};
use crate::telemetry::{RestoreReport, StatsSource, Telemetry, logging, metrics};

/// A second signal within this time is ignored: some tools signal a process and then its group.
const SIGNAL_DEBOUNCE: Duration = Duration::from_secs(2);
/// File descriptors besides the clients' sockets: listeners, event loops, the log, an image.
const OTHER_FILES: u64 = 64;

/// Runs a server until a client or a signal stops it. `file` is the configuration file, which
/// CONFIG REWRITE changes.
///
/// # Errors
/// The server cannot start; the text says what to do.
pub(crate) fn run(config: Config, file: Option<std::path::PathBuf>) -> anyhow::Result<()> {
    let logging = logging::init(&config)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let config = with_absolute_dir(config)?;
    raise_file_limit(&config);
    let listeners = Listeners::bind(&config)?;
    let restore_began = Timestamp::now();
    let OpenedKeyspace { keyspace, restored, lock } = open(&config)?;
    let live = Arc::new(LiveConfig::new(config.clone(), file));
    let shared = Shared::new(keyspace, live, config.threads + 1, clock::wall_ms())
        .map_err(anyhow::Error::msg)?;
    let shared = Arc::new(shared);
    // Cannot fail: `shared` is new.
    let _ = shared.logging.set(logging);
    set_oom_score(&config);
    if let Some(restored) = restored {
        report_restored(&config, &shared.telemetry, &restored, restore_began);
    }
    let (checkpoint_scheduler, checkpoint_thread) = CheckpointScheduler::start(&shared)?;
    let engine = Engine::new(Arc::clone(&shared), checkpoint_scheduler);
    let stock_keeper = StockKeeper::start(&engine)?;
    let background = BackgroundThread::start(&engine)?;
    let addresses = listeners.addresses().join(", ");
    let recorders: Option<Vec<_>> =
        (0..=config.threads).map(|i| shared.telemetry.recorder(i)).collect();
    // Before the workers start: a client that has a reply may send a signal at once.
    let stop = StopSignal::new();
    let stopper = stop.clone();
    engine.on_stop(move || stopper.stop());
    watch_signals(&engine)?;
    let pool = WorkerPool::start(&engine, listeners, recorders.unwrap_or_default(), &stop)?;
    let metrics = match config.metrics_port {
        0 => None,
        port => {
            let address = SocketAddr::new(config.metrics_bind, port);
            let stats = Arc::clone(&shared) as Arc<dyn StatsSource>;
            Some(metrics::serve(Arc::clone(&shared.telemetry), stats, address)?)
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
    if let Some(keeper) = stock_keeper {
        keeper.stop();
    }
    engine.checkpoint_scheduler().close();
    if checkpoint_thread.join().is_err() {
        tracing::error!("the checkpoint thread ended by a panic");
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

fn report_restored(
    config: &Config,
    telemetry: &Telemetry,
    restored: &crate::engine::RestoredImage,
    begun_at: Timestamp,
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
    persistence.loading_started(stats.image.image_bytes, begun_at);
    let report = RestoreReport {
        keys_loaded: restored.contents.keys,
        image_bytes: stats.image.image_bytes,
        digest: restored.digest.clone(),
        ..RestoreReport::default()
    };
    persistence.loading_finished(Timestamp::now(), report);
}

/// Raises the soft limit on open files to what `maxclients` needs, up to the hard limit.
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

/// Notifies systemd of the server's state (sd_notify(3)), if `supervised` says so.
fn notify_systemd(config: &Config, state: &str) {
    let enabled = matches!(config.supervised, Supervised::Systemd | Supervised::Auto);
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|_| enabled) else { return };
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

/// Sets the process's OOM score by `oom-score-adj`. A checkpoint's child raises its own score, so
/// that the OOM killer takes the child first.
fn set_oom_score(config: &Config) {
    let path = "/proc/self/oom_score_adj";
    let score = match config.oom_score_adj {
        OomScoreAdj::No => return,
        OomScoreAdj::Absolute => config.oom_score_adj_values.server,
        OomScoreAdj::Relative => {
            let inherited = std::fs::read_to_string(path).ok();
            let inherited = inherited.and_then(|text| text.trim().parse().ok());
            inherited.unwrap_or(0) + config.oom_score_adj_values.server
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

/// Starts the thread that handles SIGTERM and SIGINT: the first signal shuts the server down like
/// SHUTDOWN, a second one during the shutdown exits at once without a checkpoint.
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
            let mut first = Instant::now();
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if stopping.load(Ordering::Relaxed) && first.elapsed() < SIGNAL_DEBOUNCE {
                    continue;
                }
                if stopping.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "A second signal: the server ends at once, without a checkpoint"
                    );
                    std::process::exit(1);
                }
                first = Instant::now();
                tracing::info!("A signal asks the server to stop");
                shut_down(Arc::clone(&engine), Arc::clone(&stopping));
            }
        });
    })?;
    let _ = is_ready.recv();
    Ok(())
}

/// Shuts down on a thread of its own, so that a second signal is handled meanwhile.
fn shut_down(engine: Arc<Engine>, stopping: Arc<AtomicBool>) {
    let spawn_failed = Arc::clone(&stopping);
    let spawned = std::thread::Builder::new().name("shutdown".into()).spawn(move || {
        if engine.shut_down(ShutdownOptions::default()).is_err() {
            stopping.store(false, Ordering::Relaxed);
            tracing::error!(
                "The server continues, so that no data is lost. Fix the cause of the failed \
                 checkpoint, or use SHUTDOWN NOSAVE"
            );
        }
    });
    if let Err(error) = spawned {
        spawn_failed.store(false, Ordering::Relaxed);
        tracing::error!("cannot shut down: {error}");
    }
}

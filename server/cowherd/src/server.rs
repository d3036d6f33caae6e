//! Life cycle of the server: starts the parts in their order, serves until a shutdown, stops the
//! parts in reverse. Also what the process has of its own: signals, limits, pid file, systemd.

use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as SocketAddrUnix, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::{self, Timestamp};
use crate::config::{Config, LiveConfig, OomScoreAdj, Supervised};
use crate::engine::{
    BackgroundThread, CheckpointScheduler, DirLock, Engine, KeylessState, LoadingPhase,
    OpenedKeyspace, RestoredImage, Shared, ShutdownOptions, StockKeeper, load_libraries,
    lock_directory, open,
};
use crate::net::{Listeners, StopSignal, WorkerPool};
use crate::telemetry::{RestoreReport, StatsSource, Telemetry, logging, metrics};

/// A second signal within this time is ignored: some tools signal a process and then its group.
const SIGNAL_DEBOUNCE: Duration = Duration::from_secs(2);
/// A restore that is over in this time is not worth an error: the clients' first requests wait for
/// it in the listen queue.
const HEAD_START: Duration = Duration::from_millis(50);
/// Period of the telemetry samples during a restore: that of the background thread.
const LOADING_TICK: Duration = Duration::from_millis(100);
/// Period of the notices to systemd during a restore.
const NOTIFY_INTERVAL: Duration = Duration::from_secs(5);
/// systemd waits for this many periods without a notice before the start counts as failed.
const NOTIFIES_PER_TIMEOUT: u32 = 12;
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
    // Before the pid file, which another server in this directory may have written.
    let lock = lock_directory(&config)?;
    let live = Arc::new(LiveConfig::new(config.clone(), file));
    let mut state = KeylessState::new(live, config.threads + 1, clock::wall_ms())
        .map_err(anyhow::Error::msg)?;
    state.logging = Some(logging);
    set_oom_score(&config);
    let ended = config.clone();
    let loading = LoadingPhase::begin(&state, config.effective_maxmemory(), move || {
        notify_systemd(&ended, "STOPPING=1");
        remove_run_files(&ended);
        std::process::exit(0);
    })?;
    // Before the workers start: a client that has a reply may send a signal at once.
    watch_signals(&loading)?;
    let metrics = match config.metrics_port {
        0 => None,
        port => {
            let address = SocketAddr::new(config.metrics_bind, port);
            let stats = Arc::clone(&loading) as Arc<dyn StatsSource>;
            Some(metrics::serve(Arc::clone(&state.telemetry), stats, address)?)
        }
    };
    write_pid_file(&config);
    let addresses = listeners.addresses().join(", ");
    let stop = StopSignal::new();
    let mut workers =
        UnstartedWorkers { loading: &loading, listeners: Some(listeners), stop: &stop };
    let (opened, early_pool) =
        load(&config, lock, &state, &mut workers).inspect_err(|_| remove_run_files(&config))?;
    let OpenedKeyspace { keyspace, restored, lock } = opened;
    let mut threads = None;
    let engine = loading.publish(|| {
        let shared = Arc::new(Shared::serving(&state, keyspace));
        load_libraries(&shared);
        let (checkpoint_scheduler, thread) = CheckpointScheduler::start(&shared)?;
        let engine = Engine::new(shared, checkpoint_scheduler);
        let stock_keeper = StockKeeper::start(&engine)?;
        let background = BackgroundThread::start(&engine)?;
        threads = Some((thread, background, stock_keeper));
        let stopper = stop.clone();
        engine.on_stop(move || stopper.stop());
        report_restored(&config, &state.telemetry, restored.as_ref());
        anyhow::Ok(engine)
    })?;
    let pool = match early_pool {
        Some(pool) => pool,
        None => workers.start()?,
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pages = engine.shared().keyspace.arena().page_kind().name(),
        maxmemory = engine.shared().keyspace.arena().capacity(),
        threads = config.threads,
        "Ready to accept connections on {addresses}"
    );
    notify_systemd(&config, "READY=1\nSTATUS=Ready to accept connections");
    pool.join();
    notify_systemd(&config, "STOPPING=1");
    drop(metrics);
    let (checkpoint_thread, background, stock_keeper) =
        threads.expect("invariant: `publish` has run the closure that starts them");
    background.stop();
    if let Some(keeper) = stock_keeper {
        keeper.stop();
    }
    engine.checkpoint_scheduler().close();
    if checkpoint_thread.join().is_err() {
        tracing::error!("the checkpoint thread ended by a panic");
    }
    remove_run_files(&config);
    drop(lock);
    Ok(())
}

/// The workers, until they are started.
struct UnstartedWorkers<'a> {
    loading: &'a Arc<LoadingPhase>,
    listeners: Option<Listeners>,
    stop: &'a StopSignal,
}

impl UnstartedWorkers<'_> {
    fn start(&mut self) -> anyhow::Result<WorkerPool> {
        let state = self.loading.state();
        let threads = state.config.current().threads;
        let recorders: Option<Vec<_>> =
            (0..=threads).map(|i| state.telemetry.recorder(i)).collect();
        let listeners = self.listeners.take();
        let (listeners, recorders) = listeners
            .zip(recorders)
            .expect("invariant: the workers start once, and no other thread takes their recorders");
        Ok(WorkerPool::start(self.loading, listeners, recorders, self.stop)?)
    }
}

/// Opens the keyspace on a thread of its own. If that takes longer than [`HEAD_START`], the workers
/// are started meanwhile, and answer clients that the server is loading.
fn load(
    config: &Config,
    lock: DirLock,
    state: &KeylessState,
    workers: &mut UnstartedWorkers<'_>,
) -> anyhow::Result<(OpenedKeyspace, Option<WorkerPool>)> {
    let (sender, opened) = std::sync::mpsc::sync_channel(1);
    let (config_of_thread, telemetry) = (config.clone(), Arc::clone(&state.telemetry));
    telemetry.persistence().loading_started(Timestamp::now());
    std::thread::Builder::new().name("loading".into()).spawn(move || {
        let observe = |progress| telemetry.persistence().loading_progress(progress);
        // The receiver is gone if the workers could not be started: the process ends.
        let _ = sender.send(open(&config_of_thread, lock, &observe));
    })?;
    let ended = || anyhow::anyhow!("the thread that reads the image ended by a panic");
    match opened.recv_timeout(HEAD_START) {
        Ok(opened) => return Ok((opened?, None)),
        Err(RecvTimeoutError::Timeout) => {}
        Err(RecvTimeoutError::Disconnected) => return Err(ended()),
    }
    let pool = workers.start()?;
    tracing::info!("Loading: clients are connected and get -LOADING until the data is there");
    let mut notified = None;
    loop {
        match opened.recv_timeout(LOADING_TICK) {
            Ok(opened) => return Ok((opened?, Some(pool))),
            Err(RecvTimeoutError::Disconnected) => return Err(ended()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // The background thread does this once there is a keyspace.
        let used = workers.loading.stats_snapshot().memory.used;
        state.telemetry.tick(clock::monotonic_us(), used);
        if notified.is_none_or(|at: Instant| at.elapsed() >= NOTIFY_INTERVAL) {
            notified = Some(Instant::now());
            notify_loading(config, &state.telemetry);
        }
    }
}

/// Notifies systemd of the progress, and that the start takes longer.
fn notify_loading(config: &Config, telemetry: &Telemetry) {
    let status = telemetry.persistence().status(Timestamp::now(), 0);
    let percent = status.loading.map_or(0.0, |loading| loading.share() * 100.0);
    let extend = NOTIFY_INTERVAL.as_micros() * u128::from(NOTIFIES_PER_TIMEOUT);
    let text = format!("STATUS=Loading, {percent:.0} % is read\nEXTEND_TIMEOUT_USEC={extend}");
    notify_systemd(config, &text);
}

/// Removes what [`write_pid_file`] and the listeners have made.
fn remove_run_files(config: &Config) {
    for path in [&config.pidfile, &config.unixsocket].into_iter().flatten() {
        let _ = std::fs::remove_file(path);
    }
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

/// Reports the end of the restore: `restored` is `None` if there was no image.
fn report_restored(config: &Config, telemetry: &Telemetry, restored: Option<&RestoredImage>) {
    let persistence = telemetry.persistence();
    let Some(restored) = restored else { return persistence.loading_skipped() };
    let stats = &restored.stats;
    tracing::info!(
        keys = restored.contents.keys,
        image_bytes = stats.image.image_bytes,
        read_seconds = stats.duration.as_secs_f64(),
        verify_seconds = restored.verified_in.as_secs_f64(),
        "Restored {}",
        config.dir.join(&config.dbfilename).display()
    );
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

/// Starts the thread that handles SIGTERM and SIGINT. The first signal shuts the server down like
/// SHUTDOWN, with the words of `shutdown-on-sigterm` or `shutdown-on-sigint`; a second one during
/// the shutdown exits at once without a checkpoint.
fn watch_signals(loading: &Arc<LoadingPhase>) -> anyhow::Result<()> {
    let loading = Arc::clone(loading);
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
                let is_interrupt = tokio::select! {
                    _ = terminate.recv() => false,
                    _ = interrupt.recv() => true,
                };
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
                let config = loading.state().config.current();
                let words = match is_interrupt {
                    true => config.shutdown_on_sigint,
                    false => config.shutdown_on_sigterm,
                };
                let options = ShutdownOptions { save: words.save, force: words.force };
                shut_down(Arc::clone(&loading), Arc::clone(&stopping), options);
            }
        });
    })?;
    let _ = is_ready.recv();
    Ok(())
}

/// Shuts down on a thread of its own, so that a second signal is handled meanwhile.
fn shut_down(loading: Arc<LoadingPhase>, stopping: Arc<AtomicBool>, options: ShutdownOptions) {
    let spawn_failed = Arc::clone(&stopping);
    let spawned = std::thread::Builder::new().name("shutdown".into()).spawn(move || {
        if loading.shut_down(options).is_err() {
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

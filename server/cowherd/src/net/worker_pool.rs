//! Worker threads: each runs a single-threaded runtime and serves the connections handed to it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::engine::{KeylessState, LoadingPhase, Worker};
use crate::telemetry::Recorder;

use super::acceptor::{Acceptor, Listeners};
use super::connection::{REQUEST_LIMIT, WorkerContext, serve};
use super::handoff::{RoundRobin, SocketReceiver};

/// Stops all workers; clones signal the same workers.
#[derive(Clone)]
pub(crate) struct StopSignal(Arc<watch::Sender<bool>>);

impl StopSignal {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }

    /// Makes each worker close its connections and end.
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// The running worker threads.
pub(crate) struct WorkerPool {
    threads: Vec<JoinHandle<()>>,
}

impl WorkerPool {
    /// Starts one worker for each of `recorders` but the last, which counts accepted connections.
    /// The workers serve the keyspace once `loading` has published one.
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub(crate) fn start(
        loading: &Arc<LoadingPhase>,
        listeners: Listeners,
        mut recorders: Vec<Recorder>,
        stop: &StopSignal,
    ) -> io::Result<Self> {
        let acceptor_recorder = recorders.pop();
        let (workers, receivers) = RoundRobin::new(recorders.len());
        let KeylessState { config, clients, .. } = loading.state().clone();
        let mut acceptor = acceptor_recorder
            .map(|recorder| (listeners, Acceptor { config, clients, recorder, workers }));
        let mut threads = Vec::new();
        for (number, (recorder, sockets)) in recorders.into_iter().zip(receivers).enumerate() {
            let worker = WorkerThread {
                loading: Arc::clone(loading),
                recorder,
                sockets,
                acceptor: acceptor.take(),
                stopped: stop.0.subscribe(),
            };
            let name = format!("worker-{number}");
            threads.push(std::thread::Builder::new().name(name).spawn(move || worker.run())?);
        }
        Ok(Self { threads })
    }

    /// Waits until all workers have ended.
    pub(crate) fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }
}

/// What one worker thread owns.
struct WorkerThread {
    loading: Arc<LoadingPhase>,
    recorder: Recorder,
    sockets: SocketReceiver,
    /// Present on the first worker only.
    acceptor: Option<(Listeners, Acceptor)>,
    stopped: watch::Receiver<bool>,
}

impl WorkerThread {
    fn run(self) {
        let runtime = match Builder::new_current_thread().enable_io().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!("a worker has no runtime: {error}"),
        };
        LocalSet::new().block_on(&runtime, self.serve_sockets());
    }

    async fn serve_sockets(mut self) {
        self.recorder.serves_clients();
        if let Some((listeners, acceptor)) = self.acceptor {
            // Leaked, so that the accepting tasks can share it; it lives as long as the process.
            listeners.accept(Box::leak(Box::new(acceptor)));
        }
        let worker = Worker::with_loading(&self.loading, self.recorder);
        let context = Rc::new(RefCell::new(Box::new(WorkerContext::new(worker, REQUEST_LIMIT))));
        tokio::task::spawn_local(Arc::clone(&context.borrow().wake_queue).run());
        loop {
            tokio::select! {
                socket = self.sockets.recv() => match socket.map(|socket| socket.register()) {
                    Some(Ok((socket, origin))) => {
                        tokio::task::spawn_local(serve(Rc::clone(&context), socket, origin));
                    }
                    Some(Err(error)) => tracing::warn!("a connection was lost: {error}"),
                    None => break,
                },
                _ = self.stopped.wait_for(|stop| *stop) => break,
            }
        }
    }
}

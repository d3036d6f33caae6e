//! The workers: threads with a runtime each, that serve the connections they are given.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::engine::{Engine, Origin, Worker};
use crate::telemetry::Recorder;

use super::acceptor::{Accepting, Listeners};
use super::client_socket::ClientSocket;
use super::connection::{REQUEST_LIMIT, WorkerContext, serve};

/// An accepted socket on its way to its worker.
pub(super) enum AcceptedSocket {
    Tcp(std::net::TcpStream, Origin),
    Unix(std::os::unix::net::UnixStream, Origin),
}

/// Hands sockets to the workers in turn.
pub(super) struct WorkerQueues {
    boxes: Vec<mpsc::UnboundedSender<AcceptedSocket>>,
    next: Cell<usize>,
}

impl WorkerQueues {
    pub(super) fn deliver(&self, delivery: AcceptedSocket) {
        let next = self.next.get();
        self.next.set((next + 1) % self.boxes.len());
        // A worker that is gone is so because the server stops.
        let _ = self.boxes[next].send(delivery);
    }
}

/// Tells all workers to stop.
#[derive(Clone)]
pub struct StopSignal(Arc<watch::Sender<bool>>);

impl StopSignal {
    /// Something that can be told.
    #[expect(clippy::new_without_default, reason = "it is made once, on purpose")]
    pub fn new() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }

    /// Tells them.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// The running workers.
pub struct WorkerPool {
    threads: Vec<JoinHandle<()>>,
}

impl WorkerPool {
    /// Starts a worker for each of `recorders` but the last, which counts what is accepted.
    ///
    /// # Errors
    /// There is no thread or no runtime to be had.
    pub fn start(
        engine: &Arc<Engine>,
        listeners: Listeners,
        mut recorders: Vec<Recorder>,
        stop: &StopSignal,
    ) -> io::Result<Self> {
        let acceptor = recorders.pop();
        let (boxes, mails): (Vec<_>, Vec<_>) =
            recorders.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let mut accept = acceptor.map(|recorder| (listeners, recorder, boxes));
        let mut threads = Vec::new();
        for (number, (recorder, mail)) in recorders.into_iter().zip(mails).enumerate() {
            let (engine, stopped, accept) = (Arc::clone(engine), stop.0.subscribe(), accept.take());
            threads.push(
                std::thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .spawn(move || work(engine, recorder, mail, accept, stopped))?,
            );
        }
        Ok(Self { threads })
    }

    /// Waits until the workers have ended.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }
}

type Accept = (Listeners, Recorder, Vec<mpsc::UnboundedSender<AcceptedSocket>>);

fn work(
    engine: Arc<Engine>,
    recorder: Recorder,
    mut mail: mpsc::UnboundedReceiver<AcceptedSocket>,
    accept: Option<Accept>,
    mut stopped: watch::Receiver<bool>,
) {
    let runtime = match Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!("a worker has no runtime: {error}"),
    };
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        if let Some((listeners, recorder, boxes)) = accept {
            let mailboxes = WorkerQueues { boxes, next: Cell::new(0) };
            let shared = Arc::clone(engine.shared());
            // Accepting goes on as long as the process does.
            listeners.accept(Box::leak(Box::new(Accepting { shared, recorder, mailboxes })));
        }
        let context =
            Rc::new(RefCell::new(WorkerContext::new(Worker::new(engine, recorder), REQUEST_LIMIT)));
        tokio::task::spawn_local(Arc::clone(&context.borrow().wake_queue).attend());
        loop {
            tokio::select! {
                delivery = mail.recv() => match delivery.map(open) {
                    Some(Ok((stream, origin))) => {
                        tokio::task::spawn_local(serve(Rc::clone(&context), stream, origin));
                    }
                    Some(Err(error)) => tracing::warn!("a connection was lost: {error}"),
                    None => break,
                },
                _ = stopped.wait_for(|stop| *stop) => break,
            }
        }
    });
}

fn open(delivery: AcceptedSocket) -> io::Result<(ClientSocket, Origin)> {
    Ok(match delivery {
        AcceptedSocket::Tcp(stream, origin) => {
            (ClientSocket::Tcp(tokio::net::TcpStream::from_std(stream)?), origin)
        }
        AcceptedSocket::Unix(stream, origin) => {
            stream.set_nonblocking(true)?;
            (ClientSocket::Unix(tokio::net::UnixStream::from_std(stream)?), origin)
        }
    })
}

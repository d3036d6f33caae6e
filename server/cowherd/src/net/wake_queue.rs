//! Wakes connections from other threads.
//!
//! ```text
//! any thread                              the worker's thread
//!   ConnectionWaker::wake                 WakeQueue::run: for each waker in the queue
//!     push the waker into the queue         wake the connection's task
//!     queue was empty? notify     --->
//! ```
//!
//! The queue batches: a sleeping worker is woken by one system call for all of its connections that
//! have pending output, not by one for each connection.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clients::ConnectionHandle;

/// The connections of one worker that are to be woken.
#[derive(Default)]
pub(super) struct WakeQueue {
    wakers: Mutex<Vec<Arc<ConnectionWaker>>>,
    notify: Notify,
}

impl WakeQueue {
    fn push(&self, waker: Arc<ConnectionWaker>) {
        let mut wakers = self.wakers.lock();
        let was_empty = wakers.is_empty();
        wakers.push(waker);
        drop(wakers);
        if was_empty {
            self.notify.notify_one();
        }
    }

    /// Wakes queued connections until the runtime ends. Runs as a task of the worker.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            self.notify.notified().await;
            let wakers = std::mem::take(&mut *self.wakers.lock());
            for waker in wakers {
                // Cleared before the wake: a later `wake` queues again and cannot be lost.
                waker.queued.store(false, Ordering::Release);
                if let Some(task) = &*waker.task.lock() {
                    task.wake_by_ref();
                }
            }
        }
    }
}

/// Wakes or shuts down one connection from any thread.
pub(super) struct ConnectionWaker {
    /// The socket. The client registry drops its reference to this value before the socket is
    /// closed, so the kernel cannot have reused the number for another socket.
    fd: RawFd,
    queue: Arc<WakeQueue>,
    task: Mutex<Option<Waker>>,
    queued: AtomicBool,
}

impl ConnectionWaker {
    pub(super) fn new(fd: RawFd, queue: Arc<WakeQueue>) -> Self {
        Self { fd, queue, task: Mutex::new(None), queued: AtomicBool::new(false) }
    }

    /// Makes `ConnectionHandle::wake` wake the task of `cx` from now on.
    pub(super) fn register(&self, cx: &Context<'_>) {
        let mut task = self.task.lock();
        match &*task {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *task = Some(cx.waker().clone()),
        }
    }
}

impl ConnectionHandle for ConnectionWaker {
    fn close(&self) {
        // Fails if the peer has closed the connection, which is as good.
        let _ = nix::sys::socket::shutdown(self.fd, nix::sys::socket::Shutdown::Both);
    }

    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let queue = Arc::clone(&self.queue);
            queue.push(self);
        }
    }
}

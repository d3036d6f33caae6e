//! Waking connections from other threads.
//!
//! ```text
//! any thread                         the worker's thread
//!   ConnectionWaker::wake                         postman: for each line in the box
//!     line into the box                  wake the line's task
//!     box was empty? ring      --->
//! ```
//!
//! A worker that sleeps is woken once for all of its connections that have mail, not once for
//! each: that takes a system call.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::engine::Hangup;

/// The connections of one worker that are to be woken.
#[derive(Default)]
pub(super) struct WakeQueue {
    lines: Mutex<Vec<Arc<ConnectionWaker>>>,
    bell: Notify,
}

impl WakeQueue {
    fn put(&self, line: Arc<ConnectionWaker>) {
        let mut lines = self.lines.lock();
        let was_empty = lines.is_empty();
        lines.push(line);
        drop(lines);
        if was_empty {
            self.bell.notify_one();
        }
    }

    /// Wakes the connections, until the runtime ends.
    pub(super) async fn attend(self: Arc<Self>) {
        loop {
            self.bell.notified().await;
            let lines = std::mem::take(&mut *self.lines.lock());
            for line in lines {
                line.in_box.store(false, Ordering::Release);
                if let Some(waker) = &*line.waker.lock() {
                    waker.wake_by_ref();
                }
            }
        }
    }
}

/// How other threads reach one connection.
pub(super) struct ConnectionWaker {
    /// The socket. The registry of clients forgets the line before the socket is closed, so that
    /// the number cannot be another socket's by then.
    fd: RawFd,
    wake_queue: Arc<WakeQueue>,
    waker: Mutex<Option<Waker>>,
    in_box: AtomicBool,
}

impl ConnectionWaker {
    pub(super) fn new(fd: RawFd, wake_queue: Arc<WakeQueue>) -> Self {
        Self { fd, wake_queue, waker: Mutex::new(None), in_box: AtomicBool::new(false) }
    }

    /// Wakes the task of `context` from now on.
    pub(super) fn listen(&self, context: &Context<'_>) {
        let mut waker = self.waker.lock();
        match &*waker {
            Some(known) if known.will_wake(context.waker()) => {}
            _ => *waker = Some(context.waker().clone()),
        }
    }
}

impl Hangup for ConnectionWaker {
    fn hang_up(&self) {
        // It may have ended by itself.
        let _ = nix::sys::socket::shutdown(self.fd, nix::sys::socket::Shutdown::Both);
    }

    fn wake(self: Arc<Self>) {
        if !self.in_box.swap(true, Ordering::AcqRel) {
            let wake_queue = Arc::clone(&self.wake_queue);
            wake_queue.put(self);
        }
    }
}

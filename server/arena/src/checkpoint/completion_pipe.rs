//! `CompletionPipe`: the child's notice that it no longer needs its memory, some milliseconds
//! before the kernel has freed it: one byte through a pipe. From then on a write of the parent may
//! copy nothing.
//!
//! A child that is killed sends no byte: its end of the pipe closes when its memory is freed.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

/// The pipe of one child.
pub(super) struct CompletionPipe {
    rx: PipeReader,
    tx: Option<PipeWriter>,
}

impl CompletionPipe {
    /// A pipe, to be made before the fork.
    pub(super) fn new() -> io::Result<Self> {
        let (rx, tx) = io::pipe()?;
        Ok(Self { rx, tx: Some(tx) })
    }

    /// Sends the notice. Async-signal-safe.
    pub(super) fn notify(&self) {
        if let Some(tx) = &self.tx {
            // Without a reader there is no parent to notify.
            let _ = write(tx.as_fd(), b".");
        }
    }

    /// Closes the parent's copy of the sending end after the fork.
    pub(super) fn close_tx(&mut self) {
        self.tx = None;
    }

    /// Waits up to `timeout` for the notice, or for the pipe to close. False on timeout, and when a
    /// signal interrupts the wait.
    pub(super) fn wait(&mut self, timeout: Duration) -> bool {
        let limit = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.rx.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, limit) {
            Ok(0) | Err(Errno::EINTR) => false,
            // After any other error the parent reaps the child, which ends the wait too.
            Ok(_) | Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_and_a_closed_pipe_both_end_the_wait() {
        let timeout = Duration::from_secs(60);
        let mut completion = CompletionPipe::new().unwrap();
        assert!(!completion.wait(Duration::ZERO));
        completion.notify();
        assert!(completion.wait(timeout));
        let mut closed = CompletionPipe::new().unwrap();
        closed.close_tx();
        assert!(closed.wait(timeout));
        closed.notify();
    }
}

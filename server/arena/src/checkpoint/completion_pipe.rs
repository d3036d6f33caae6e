//! How a child says that it needs its memory no more, some milliseconds before the kernel has taken
//! it apart: a byte through a pipe. From then on a write of the parent's may copy nothing.
//!
//! A child that is killed says nothing. Its end of the pipe closes then, after its memory went.

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

    /// The child's last words. Async-signal-safe.
    pub(super) fn notify(&self) {
        if let Some(tx) = &self.tx {
            // If nobody listens there is nobody to tell.
            let _ = write(tx.as_fd(), b".");
        }
    }

    /// The parent's side after the fork: only the child holds the other end.
    pub(super) fn close_tx(&mut self) {
        self.tx = None;
    }

    /// Waits for the child's last words, or its end, but no longer than `poll_interval`; tells whether
    /// it rx any.
    pub(super) fn wait(&mut self, poll_interval: Duration) -> bool {
        let timeout = PollTimeout::try_from(poll_interval).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.rx.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) | Err(Errno::EINTR) => false,
            // Other errors show again as silence: whoever waits reaps the child then.
            Ok(_) | Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_silence_both_end_the_waiting() {
        let poll_interval = Duration::from_secs(60);
        let mut completion = CompletionPipe::new().unwrap();
        assert!(!completion.wait(Duration::ZERO));
        completion.notify();
        assert!(completion.wait(poll_interval));
        let mut silent = CompletionPipe::new().unwrap();
        silent.close_tx();
        assert!(silent.wait(poll_interval));
        silent.notify();
    }
}

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
pub(super) struct Farewell {
    heard: PipeReader,
    said: Option<PipeWriter>,
}

impl Farewell {
    /// A pipe, to be made before the fork.
    pub(super) fn new() -> io::Result<Self> {
        let (heard, said) = io::pipe()?;
        Ok(Self { heard, said: Some(said) })
    }

    /// The child's last words. Async-signal-safe.
    pub(super) fn say(&self) {
        if let Some(said) = &self.said {
            // If nobody listens there is nobody to tell.
            let _ = write(said.as_fd(), b".");
        }
    }

    /// The parent's side after the fork: only the child holds the other end.
    pub(super) fn only_listen(&mut self) {
        self.said = None;
    }

    /// Waits for the child's last words, or its end, but no longer than `patience`; tells whether
    /// it heard any.
    pub(super) fn wait(&mut self, patience: Duration) -> bool {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let mut ears = [PollFd::new(self.heard.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ears, timeout) {
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
        let patience = Duration::from_secs(60);
        let mut farewell = Farewell::new().unwrap();
        assert!(!farewell.wait(Duration::ZERO));
        farewell.say();
        assert!(farewell.wait(patience));
        let mut silent = Farewell::new().unwrap();
        silent.only_listen();
        assert!(silent.wait(patience));
        silent.say();
    }
}

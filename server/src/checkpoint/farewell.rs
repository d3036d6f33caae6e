//! How a child says that it needs its memory no more, some milliseconds before the kernel has taken
//! it apart: a byte through a pipe. From then on a write of the parent's may copy nothing.
//!
//! A child that is killed says nothing. Its end of the pipe closes then, after its memory went.

use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::fd::AsFd as _;

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

    /// Waits for the child's last words, or its end.
    pub(super) fn wait(&mut self) {
        // A pipe fails in no other way than by a signal, after which `read` tries again.
        let _ = self.heard.read(&mut [0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_silence_both_end_the_waiting() {
        let mut farewell = Farewell::new().unwrap();
        farewell.say();
        farewell.wait();
        farewell.only_listen();
        farewell.wait();
        farewell.say();
    }
}

//! The memory of the interpreters, each of which belongs to its worker's thread: the thread
//! publishes the bytes, any thread sums them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

/// The bytes of all interpreters.
#[derive(Debug, Default)]
pub struct InterpreterMemory {
    published: Mutex<Vec<Arc<AtomicU64>>>,
}

/// The bytes of one interpreter, as its thread publishes them; 0 once it is dropped.
#[derive(Debug, Default)]
pub struct PublishedBytes(Arc<AtomicU64>);

impl InterpreterMemory {
    /// Adds an interpreter.
    pub fn add(&self, interpreter: &PublishedBytes) {
        let mut published = self.published.lock();
        // What only this list holds belongs to an interpreter that is gone.
        published.retain(|bytes| Arc::strong_count(bytes) > 1);
        published.push(Arc::clone(&interpreter.0));
    }

    /// The bytes of all interpreters.
    pub fn bytes(&self) -> u64 {
        self.published.lock().iter().map(|bytes| bytes.load(Relaxed)).sum()
    }
}

impl PublishedBytes {
    /// Publishes the bytes.
    #[inline]
    pub fn set(&self, bytes: usize) {
        self.0.store(bytes as u64, Relaxed);
    }
}

impl Drop for PublishedBytes {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_count_until_they_are_dropped() {
        let all = InterpreterMemory::default();
        let (first, second) = (PublishedBytes::default(), PublishedBytes::default());
        for one in [&first, &second] {
            all.add(one);
            one.set(10);
        }
        second.set(5);
        assert_eq!(all.bytes(), 15);
        drop(first);
        assert_eq!(all.bytes(), 5);
        all.add(&PublishedBytes::default());
        assert_eq!(all.published.lock().len(), 2);
    }
}

//! Epochs for readers without a lock: memory is returned to the kernel only when no reader that may
//! have seen it is still reading.
//!
//! A reader enters a *read section*: it adds itself to the counter of the current epoch's parity.
//! The reclaimer first makes the memory unfindable (clears `present`), then advances the epoch and
//! waits until the counters of the previous parity are zero. Readers that enter after the advance
//! cannot find the memory; readers that entered before it are counted in the previous parity.
//!
//! ```text
//!   reader                                     reclaimer (one at a time)
//!   loop seen = epoch                          clear `present`
//!        readers[seen & 1] += 1                e = epoch;  epoch = e + 1
//!        fence                                 fence
//!        if epoch == seen: break               wait until all readers[e & 1] == 0
//!        readers[seen & 1] -= 1                return the memory
//!   is it present? read it
//!   readers[seen & 1] -= 1
//! ```
//!
//! The two sequentially consistent fences have an order. If the reader's is first, the reclaimer
//! sees the reader in its counter and waits. If the reclaimer's is first, the reader sees the new
//! epoch, and the memory as not present. The second look at the epoch also makes a reader step
//! back that was delayed between its first look and its addition, when the parity belongs to a
//! later epoch. `reader_epochs_tests.rs` has a model that tries all interleavings, and finds a
//! reader of returned memory as soon as a fence or the second look is taken away.
//!
//! Counters are striped over cache lines, so that readers on different threads do not contend.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// Stripes of the counters; threads are assigned to them in turn.
const STRIPES: usize = 16;

/// Atomic words: the machine's, or those of a model that tries all interleavings.
trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn add(&self, value: u64);
    fn sub(&self, value: u64);
    /// A sequentially consistent fence.
    fn fence();
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        Self::load(self, order)
    }

    #[inline]
    fn add(&self, value: u64) {
        self.fetch_add(value, Ordering::Relaxed);
    }

    #[inline]
    fn sub(&self, value: u64) {
        // What the reader has read comes before this.
        self.fetch_sub(value, Ordering::Release);
    }

    #[inline]
    fn fence() {
        std::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// Adds a reader; returns the counter that holds it.
#[inline]
fn enter<'a, W: Word>(epoch: &W, readers: &'a [W; 2]) -> &'a W {
    loop {
        let seen = epoch.load(Ordering::Relaxed);
        let counter = &readers[usize::from(seen % 2 == 1)];
        counter.add(1);
        W::fence();
        if epoch.load(Ordering::Relaxed) == seen {
            return counter;
        }
        counter.sub(1);
    }
}

/// Advances the epoch; returns the parity of the readers that may have found what was hidden
/// before.
fn advance<W: Word>(epoch: &W) -> usize {
    let parity = usize::from(epoch.load(Ordering::Relaxed) % 2 == 1);
    epoch.add(1);
    W::fence();
    parity
}

/// The epoch and the readers of both parities.
#[derive(Default)]
pub(crate) struct ReaderEpochs {
    epoch: CachePadded<AtomicU64>,
    readers: [CachePadded<[AtomicU64; 2]>; STRIPES],
}

/// A read section of one thread; it ends on drop.
pub(crate) struct ReadSection<'a> {
    counter: &'a AtomicU64,
    not_send: PhantomData<*const ()>,
}

impl Drop for ReadSection<'_> {
    #[inline]
    fn drop(&mut self) {
        self.counter.sub(1);
    }
}

thread_local! {
    static STRIPE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES
    };
}

impl ReaderEpochs {
    /// Enters a read section. Two atomic additions in all: one here, one when it ends.
    #[inline]
    pub(crate) fn enter(&self) -> ReadSection<'_> {
        let stripe = STRIPE.with(|stripe| *stripe);
        let counter = enter(&*self.epoch, &self.readers[stripe]);
        ReadSection { counter, not_send: PhantomData }
    }

    /// Waits until every reader that entered before this call has left. The caller has hidden the
    /// memory before, and calls of this function exclude each other.
    pub(crate) fn wait_for_readers(&self) {
        let parity = advance(&*self.epoch);
        for stripe in &self.readers {
            // A read section takes microseconds, unless its thread has lost the processor.
            while stripe[parity].load(Ordering::Acquire) != 0 {
                std::thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
#[path = "reader_epochs_tests.rs"]
mod tests;

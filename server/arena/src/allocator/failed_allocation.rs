//! What the arena has refused to the calling thread: how large an object has to be made room for.

use std::cell::Cell;

thread_local! {
    static REFUSED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Notes that there was no room for an object of `len` bytes.
pub(crate) fn note(len: u64) {
    REFUSED.set(Some(len));
}

/// Bytes of the object that was refused to the calling thread last, since it last asked. `None`: it
/// was refused nothing, so that whatever has failed did not fail for want of room.
pub fn take_last_failed_allocation() -> Option<u64> {
    REFUSED.take()
}

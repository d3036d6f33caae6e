//! `Held`: the locked shards of one command, and access to their memory.
//!
//! Invariants that unsafe code cites:
//! 1. A [`Held`] has locked every shard of its set and unlocks them on drop. A reborrowed `Held`
//!    unlocks nothing, and the `Held` that it borrows from cannot be used before it is dropped.
//! 2. Bytes reachable from the root of shard `s` are accessed only through a `Held` whose set
//!    contains `s`. No byte is reachable from two shards: an audit checks it after every restore,
//!    and builds with debug assertions check it on every access ([`super::owners`]).
//! 3. No two threads wait for each other. A thread that holds no shard requests several in
//!    ascending order, in one call. Only the owner of the [`OutOfOrderPermit`], of which there is
//!    one, waits for further shards while it holds some; while it waits, every request that holds
//!    shards and waits for others gives up what it holds and begins again.
//! 4. A `Held` is dropped on the thread that made it: it is not `Send`, as parking_lot's locks may
//!    only be unlocked by the thread that locked them.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::Arena;
use super::mem::{Mem, ReadOnly};
use super::safepoint::Safepoint;
use crate::shard::{ShardIndex, ShardSet};

/// The locked shards of one command. Everything that touches the arena starts here.
pub struct Held<'a> {
    arena: &'a Arena,
    set: ShardSet,
    /// Whether another owner unlocks the shards, after this value is dropped.
    lent: bool,
    not_send: PhantomData<*const ()>,
}

/// A request for a lock looks this often whether it should give up.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// A request that has given up its shards looks this often whether it may begin again.
const RETRY_INTERVAL: Duration = Duration::from_micros(50);

/// What makes waiting out of order safe.
pub(super) struct OutOfOrder {
    owner: Mutex<()>,
    is_waiting: AtomicBool,
}

impl OutOfOrder {
    pub(super) const fn new() -> Self {
        Self { owner: Mutex::new(()), is_waiting: AtomicBool::new(false) }
    }
}

/// Tells the other requests that the owner of the permit waits, until it is dropped.
struct WaitAnnouncement<'a>(&'a AtomicBool);

impl<'a> WaitAnnouncement<'a> {
    fn new(is_waiting: &'a AtomicBool) -> Self {
        is_waiting.store(true, Relaxed);
        Self(is_waiting)
    }
}

impl Drop for WaitAnnouncement<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// The right to wait for shards while others are held; see [`Held::extend`].
pub struct OutOfOrderPermit<'a> {
    arena: &'a Arena,
    _owner: MutexGuard<'a, ()>,
}

impl Arena {
    /// Locks shards, in ascending order, until the result is dropped.
    #[inline]
    pub fn lock(&self, set: ShardSet) -> Held<'_> {
        Held::lock(self, set)
    }

    /// As [`Self::lock`], but returns `None` when `gives_up` returns true while the request waits.
    #[inline]
    pub fn lock_unless(&self, set: ShardSet, gives_up: impl Fn() -> bool) -> Option<Held<'_>> {
        Held::lock_unless(self, set, gives_up)
    }

    /// The right to wait for shards out of order, if no other thread has it.
    pub fn try_out_of_order_permit(&self) -> Option<OutOfOrderPermit<'_>> {
        let owner = self.out_of_order.owner.try_lock()?;
        Some(OutOfOrderPermit { arena: self, _owner: owner })
    }

    /// Whether the owner of the permit waits for a shard.
    pub fn has_out_of_order_waiter(&self) -> bool {
        self.out_of_order.is_waiting.load(Relaxed)
    }

    /// Locks a shard until the result is dropped; `None` if the shard is locked.
    pub fn try_lock(&self, shard: ShardIndex) -> Option<Held<'_>> {
        Held::try_lock(self, shard)
    }
}

impl<'a> Held<'a> {
    #[inline]
    pub(crate) fn lock(arena: &'a Arena, set: ShardSet) -> Self {
        Self::lock_unless(arena, set, || false)
            .expect("invariant: a request that never gives up succeeds")
    }

    #[inline]
    fn lock_unless(arena: &'a Arena, set: ShardSet, gives_up: impl Fn() -> bool) -> Option<Self> {
        let mut held = Self { arena, set: ShardSet::NONE, lent: false, not_send: PhantomData };
        for shard in set.iter() {
            if !arena.locks.try_lock(shard) && !held.wait_in_order(set, shard, &gives_up) {
                return None;
            }
            held.set = held.set | ShardSet::one(shard);
        }
        Some(held)
    }

    /// Waits for `shard`, the next of `set`, after those that are held. Gives those up and locks
    /// them again if the owner of the permit waits for a shard. False if the request gives up.
    #[cold]
    fn wait_in_order(
        &mut self,
        set: ShardSet,
        shard: ShardIndex,
        gives_up: &dyn Fn() -> bool,
    ) -> bool {
        loop {
            if self.arena.locks.try_lock_for(shard, POLL_INTERVAL) {
                return true;
            }
            if gives_up() {
                return false;
            }
            if !self.arena.has_out_of_order_waiter() || self.set.is_empty() {
                continue;
            }
            let before =
                set.iter().take_while(|earlier| *earlier != shard).map(ShardSet::one).collect();
            self.unlock_all();
            while self.arena.has_out_of_order_waiter() {
                if gives_up() {
                    return false;
                }
                std::thread::sleep(RETRY_INTERVAL);
            }
            match Self::lock_unless(self.arena, before, gives_up) {
                Some(mut again) => self.set = std::mem::replace(&mut again.set, ShardSet::NONE),
                None => return false,
            }
        }
    }

    fn unlock_all(&mut self) {
        for shard in std::mem::replace(&mut self.set, ShardSet::NONE).iter() {
            // SAFETY: this `Held` locked the shard (invariant 1).
            unsafe { self.arena.locks.unlock(shard) };
        }
    }

    /// Locks further shards, without waiting; false, and nothing has changed, if another thread
    /// holds one of them.
    pub fn try_extend(&mut self, further: ShardSet) -> bool {
        let (arena, not_send) = (self.arena, PhantomData);
        let mut taken = Self { arena, set: ShardSet::NONE, lent: false, not_send };
        for shard in further.iter().filter(|shard| !self.set.has(*shard)) {
            if !self.arena.locks.try_lock(shard) {
                return false;
            }
            taken.set = taken.set | ShardSet::one(shard);
        }
        self.set = self.set | std::mem::replace(&mut taken.set, ShardSet::NONE);
        true
    }

    /// Locks further shards, and waits for them as long as it takes. `while_waiting` is called
    /// about once a millisecond.
    pub fn extend(
        &mut self,
        permit: &OutOfOrderPermit<'_>,
        further: ShardSet,
        mut while_waiting: impl FnMut(),
    ) {
        assert!(std::ptr::eq(self.arena, permit.arena), "the permit of another arena");
        for shard in further.iter() {
            if self.set.has(shard) {
                continue;
            }
            if !self.arena.locks.try_lock(shard) {
                let _announced = WaitAnnouncement::new(&self.arena.out_of_order.is_waiting);
                while !self.arena.locks.try_lock_for(shard, POLL_INTERVAL) {
                    while_waiting();
                }
            }
            self.set = self.set | ShardSet::one(shard);
        }
    }

    pub(crate) fn try_lock(arena: &'a Arena, shard: ShardIndex) -> Option<Self> {
        // One that has not locked its shards must not be made: it would unlock them (invariant 1).
        let locked = arena.locks.try_lock(shard);
        locked.then(|| Self {
            arena,
            set: ShardSet::one(shard),
            lent: false,
            not_send: PhantomData,
        })
    }

    /// The same locked shards, for a while.
    pub const fn reborrow(&mut self) -> Held<'_> {
        Held { arena: self.arena, set: self.set, lent: true, not_send: PhantomData }
    }

    /// The memory of one locked shard.
    ///
    /// # Panics
    /// The shard is not in the set.
    #[inline]
    pub fn mem(&mut self, shard: ShardIndex) -> Mem<'_> {
        assert!(self.set.has(shard), "shard {} is not locked", shard.get());
        Mem::new(self.arena, shard)
    }

    /// The memory of one locked shard, with read access to another: for copying between shards.
    ///
    /// # Panics
    /// One of the shards is not in the set.
    #[inline]
    pub fn mem_reading(&mut self, shard: ShardIndex, source: ShardIndex) -> Mem<'_> {
        assert!(self.set.has(shard), "shard {} is not locked", shard.get());
        assert!(self.set.has(source), "shard {} is not locked", source.get());
        Mem::reading(self.arena, shard, source)
    }

    /// The memory of one locked shard, to be read.
    ///
    /// # Panics
    /// The shard is not in the set.
    #[inline]
    pub fn view(&self, shard: ShardIndex) -> ReadOnly<'_> {
        assert!(self.set.has(shard), "shard {} is not locked", shard.get());
        ReadOnly::new(self.arena, shard)
    }

    /// The locked shards.
    pub const fn set(&self) -> ShardSet {
        self.set
    }

    /// The arena.
    pub const fn arena(&self) -> &'a Arena {
        self.arena
    }

    /// Proof that every shard is locked; `None` if one is not.
    pub fn safepoint(&mut self) -> Option<Safepoint<'_>> {
        (self.set == ShardSet::ALL).then(|| Safepoint::of(self.arena))
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.lent {
            self.unlock_all();
        }
    }
}

#[cfg(test)]
#[path = "held_tests.rs"]
mod tests;

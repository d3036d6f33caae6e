//! A stack of its own for a call that may be suspended: a script that runs for too long gives its
//! thread back to the event loop, and goes on when the loop comes round.
//!
//! ```text
//! event loop --poll--> Call --resume--> stack of the call: Lua --> Host::poll --> Suspender
//!            <-Pending-     <-suspend-------------------------------------------------'
//! ```
//!
//! The stack is switched, not copied: Lua's C frames and the locks of the script stay where they
//! are. A call never changes its thread.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

/// Bytes of a stack; the kernel commits what is touched. Lua allows 200 nested calls of C
/// functions, and `cjson` 1,000 nested tables: the deepest takes 300 KiB.
const STACK_SIZE: usize = 2 << 20;

/// How a suspended call goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resumption {
    /// It goes on.
    Continue,
    /// It is to end: nothing waits for its result.
    Cancel,
}

/// The stack of a call, kept for the next one.
pub struct CallStack(DefaultStack);

impl CallStack {
    /// A new stack, with a guard page below.
    ///
    /// # Errors
    /// The kernel refuses the mapping.
    pub fn new() -> io::Result<Self> {
        DefaultStack::new(STACK_SIZE).map(Self)
    }
}

/// Suspends the call to which it was given.
pub struct Suspender<'y>(Option<&'y Yielder<Resumption, ()>>);

impl Suspender<'_> {
    /// For a call on an ordinary stack, which keeps its thread until it ends.
    pub const NEVER: Self = Self(None);

    /// Gives the thread to the event loop until the call is polled again.
    pub fn suspend(&self) -> Resumption {
        self.0.map_or(Resumption::Continue, |yielder| yielder.suspend(()))
    }
}

/// A call on a stack of its own: a future that is ready when the call has ended. Dropped before,
/// the call is resumed with [`Resumption::Cancel`] until it ends.
#[must_use = "the call begins when it is polled"]
pub struct Call<R>(Option<Coroutine<Resumption, (), R>>);

impl<R: 'static> Call<R> {
    /// A call of `function` on `stack`.
    pub fn new(stack: CallStack, function: impl FnOnce(&Suspender<'_>) -> R + 'static) -> Self {
        Self(Some(Coroutine::with_stack(stack.0, |yielder, _| function(&Suspender(Some(yielder))))))
    }
}

impl<R> Future for Call<R> {
    type Output = (R, CallStack);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let coroutine = self.0.as_mut().expect("invariant: a future is not polled after its end");
        match coroutine.resume(Resumption::Continue) {
            CoroutineResult::Yield(()) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            CoroutineResult::Return(result) => {
                let stack = self.0.take().map(Coroutine::into_stack);
                Poll::Ready((result, CallStack(stack.expect("invariant: it was there above"))))
            }
        }
    }
}

impl<R> Drop for Call<R> {
    fn drop(&mut self) {
        let Some(coroutine) = &mut self.0 else { return };
        if !coroutine.started() {
            return;
        }
        // Unwinding would go through C frames.
        while !coroutine.done() {
            coroutine.resume(Resumption::Cancel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::task::Waker;

    use super::*;

    fn poll<R>(call: &mut Call<R>) -> Poll<(R, CallStack)> {
        Pin::new(call).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_call_goes_on_where_it_was_suspended() {
        let mut stack = CallStack::new().unwrap();
        for _ in 0..3 {
            let mut call = Call::new(stack, |suspender| {
                let mut sum = 0;
                for i in 1..=3 {
                    sum += i;
                    assert_eq!(suspender.suspend(), Resumption::Continue);
                }
                sum
            });
            for _ in 0..3 {
                assert!(poll(&mut call).is_pending());
            }
            let Poll::Ready((sum, back)) = poll(&mut call) else { panic!("it ends") };
            assert_eq!(sum, 6);
            stack = back;
        }
    }

    #[test]
    fn a_dropped_call_is_cancelled_and_ends() {
        let ended = Rc::new(Cell::new(0));
        let seen = Rc::clone(&ended);
        let mut call = Call::new(CallStack::new().unwrap(), move |suspender| {
            while suspender.suspend() == Resumption::Continue {}
            suspender.suspend();
            seen.set(1);
        });
        assert!(poll(&mut call).is_pending() && ended.get() == 0);
        drop(call);
        assert_eq!(ended.get(), 1);
        drop(Call::new(CallStack::new().unwrap(), |_| panic!("it has not begun")));
    }

    #[test]
    fn an_ordinary_stack_is_never_suspended() {
        assert_eq!(Suspender::NEVER.suspend(), Resumption::Continue);
    }
}

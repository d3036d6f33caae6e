//! A result that grows in a block of Lua's memory, so that Lua's memory limit covers it and an
//! error that jumps out of the function leaks nothing.
//!
//! The block is on the stack while a call uses it. Between calls it is an upvalue of the function,
//! which saves its allocation for the next call. A call that fails leaves the upvalue empty.

use crate::stack::Stack;
use std::ffi::c_int;

/// Size of the first block of a function.
const FIRST_BLOCK: usize = 1 << 10;

/// Largest block that is kept between calls.
const MAX_KEPT_BLOCK: usize = 1 << 16;

/// Longest result. Lua's memory limit is the bound in practice: a result needs up to four times its
/// length at the end, in the old block, the new one of twice the size, and the string.
const MAX_LENGTH: usize = i32::MAX as usize;

/// Growing bytes.
pub(crate) struct Buffer<'call> {
    stack: Stack<'call>,
    block: &'call mut [u8],
    length: usize,
    slot: c_int,
    upvalue: c_int,
}

impl<'call> Buffer<'call> {
    /// Pushes the block kept in `upvalue`, or a new one. Needs room for two values.
    pub(crate) fn take(stack: Stack<'call>, upvalue: c_int) -> Self {
        stack.push_upvalue(upvalue);
        let block = match stack.block() {
            Some(block) => {
                // Another call of the function cannot take the block before this one is done.
                stack.push_nil();
                stack.set_upvalue(upvalue);
                block
            }
            None => {
                stack.pop(1);
                stack.push_block(FIRST_BLOCK)
            }
        };
        Self { stack, block, length: 0, slot: stack.top(), upvalue }
    }

    /// As [`Self::take`], with the block below all other values, which move up.
    pub(crate) fn take_below(stack: Stack<'call>, upvalue: c_int) -> Self {
        let buffer = Self::take(stack, upvalue);
        stack.insert(1);
        Self { slot: 1, ..buffer }
    }

    /// Appends one byte.
    #[inline]
    pub(crate) fn push(&mut self, byte: u8) {
        if self.length == self.block.len() {
            self.grow(1);
        }
        self.block[self.length] = byte;
        self.length += 1;
    }

    /// Appends bytes.
    #[inline]
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        if bytes.len() > self.block.len() - self.length {
            self.grow(bytes.len());
        }
        let end = self.length + bytes.len();
        self.block[self.length..end].copy_from_slice(bytes);
        self.length = end;
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, needed: usize) {
        // Only at the limit of nesting can the stack have no room.
        self.stack.require_stack(1, "no room for the result");
        let length = self.length.saturating_add(needed);
        if length > MAX_LENGTH {
            self.stack.raise(format_args!("not enough memory"));
        }
        let block = self.stack.push_block(length.max(self.block.len() * 2));
        block[..self.length].copy_from_slice(&self.block[..self.length]);
        self.stack.replace(self.slot);
        self.block = block;
    }

    /// Drops what is above the block, pushes the bytes as a string, and keeps the block for the
    /// next call if `keep`.
    pub(crate) fn finish(self, keep: bool) {
        let Self { stack, block, length, slot, upvalue } = self;
        stack.set_top(slot);
        stack.push_bytes(&block[..length]);
        if keep && block.len() <= MAX_KEPT_BLOCK {
            stack.push_copy(slot);
            stack.set_upvalue(upvalue);
        }
    }
}

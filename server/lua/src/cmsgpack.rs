//! The library `cmsgpack`: MessagePack, as lua-cmsgpack 0.4.0 in Redis.
//!
//! - A number that is an integer of 64 bits is packed as the shortest integer; any other as a float
//!   of 32 bits if that is exact, else of 64 bits.
//! - A table with the keys 1 to n and no others is an array, also an empty one; any other is a map.
//! - Tables below the 16th level, functions, threads and userdata are packed as nil.
//! - The types `bin` and `ext` are refused. Unsigned integers from 2^63 on become negative.
//! - Nested containers are unpacked up to the 8,000 slots of Lua's stack for one call, without
//!   recursion.

mod pack;
mod unpack;

use crate::stack::Stack;

/// Pushes the library.
pub(crate) fn push_library(stack: Stack<'_>) {
    stack.push_table();
    // The buffer that `pack` keeps.
    stack.push_nil();
    stack.push_function(pack::pack, 1);
    stack.set_field(c"pack");
    stack.push_function(unpack::unpack, 0);
    stack.set_field(c"unpack");
    stack.push_function(unpack::unpack_one, 0);
    stack.set_field(c"unpack_one");
    stack.push_function(unpack::unpack_limit, 0);
    stack.set_field(c"unpack_limit");
    stack.push_bytes(b"cmsgpack");
    stack.set_field(c"_NAME");
    stack.push_bytes(b"lua-cmsgpack 0.4.0");
    stack.set_field(c"_VERSION");
    stack.push_bytes(b"Copyright (C) 2012, Salvatore Sanfilippo");
    stack.set_field(c"_COPYRIGHT");
    stack.push_bytes(b"MessagePack C implementation for Lua");
    stack.set_field(c"_DESCRIPTION");
}

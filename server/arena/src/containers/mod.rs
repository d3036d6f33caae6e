//! How things are linked in the arena, in offsets: containers that know nothing of what their items
//! mean, nor of any protocol.

pub mod deque;
pub mod dict;
pub mod packed;
pub mod tree;

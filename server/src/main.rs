//! The `cowherd` binary.

fn main() {}

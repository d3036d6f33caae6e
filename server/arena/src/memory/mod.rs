//! Memory of the operating system: page kinds, the arena's mapping, tables beside the arena, and
//! the kernel's page tables.
//!
//! | file | content |
//! |---|---|
//! | `pages` | page kinds, what the machine can give, isolation of a child, remedies |
//! | `mapping` | the reservation: one mapping of the arena's capacity |
//! | `side_tables` | atomic words beside the arena, shared with a child or hidden from it |
//! | `pagemap` | `/proc/<pid>/pagemap`: which pages are present, shared, huge |
//! | `prefetch` | cache line prefetch |

#![expect(unsafe_code, reason = "raw memory; each file lists its invariants")]

pub(crate) mod mapping;
pub(crate) mod pagemap;
pub mod pages;
pub(crate) mod prefetch;
pub(crate) mod side_tables;

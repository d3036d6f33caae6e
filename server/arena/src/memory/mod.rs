//! The arena's memory: its reservation, its pages, and access to its bytes by offset.

#![expect(unsafe_code, reason = "raw memory; see the invariants above")]

pub(crate) mod access;
pub(crate) mod backing;
pub(crate) mod mapping;
pub mod occupancy;
pub(crate) mod page_scan;
pub(crate) mod pagemap;
pub mod pages;
pub(crate) mod side_tables;

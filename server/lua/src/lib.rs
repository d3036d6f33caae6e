#![doc = include_str!("../README.md")]
//!
//! # Modules
//!
//! - [`mod@cjson`], [`mod@cmsgpack`], [`struct_lib`], [`mod@bit`]: the libraries, with what each
//!   does in the corners that no manual describes.
//! - [`interpreter`]: scripts and functions, and what they find.
//! - [`fiber`]: the stack of a call that may be suspended.
//! - `stack`: Lua's stack during a call, the only unsafe code.
//! - `buffer`: results that grow in memory of Lua.
//! - `number`: numbers as text, and C's conversions.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::cast_possible_truncation))]

pub mod bit;
mod buffer;
pub mod cjson;
pub mod cmsgpack;
pub mod fiber;
pub mod interpreter;
mod number;
mod stack;
pub mod struct_lib;

use mlua::{Lua, Result, Table};

/// The tables of the four libraries.
#[derive(Debug, Clone)]
pub struct Libraries {
    /// JSON.
    pub cjson: Table,
    /// MessagePack.
    pub cmsgpack: Table,
    /// Structs of C. The global is named `struct`.
    pub struct_: Table,
    /// Operations on 32-bit integers.
    pub bit: Table,
}

impl Libraries {
    /// The tables under the names of their globals.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &Table); 4] {
        [
            ("cjson", &self.cjson),
            ("cmsgpack", &self.cmsgpack),
            ("struct", &self.struct_),
            ("bit", &self.bit),
        ]
    }
}

/// Creates all four libraries in `lua`. Globals stay as they are.
///
/// # Errors
/// Returns an error if the memory limit of `lua` is reached.
pub fn open(lua: &Lua) -> Result<Libraries> {
    Ok(Libraries {
        cjson: cjson(lua)?,
        cmsgpack: cmsgpack(lua)?,
        struct_: struct_(lua)?,
        bit: bit(lua)?,
    })
}

/// Creates the library `cjson` with default settings.
///
/// # Errors
/// Returns an error if the memory limit of `lua` is reached.
pub fn cjson(lua: &Lua) -> Result<Table> {
    stack::build(lua, cjson::push_library)
}

/// Creates the library `cmsgpack`.
///
/// # Errors
/// Returns an error if the memory limit of `lua` is reached.
pub fn cmsgpack(lua: &Lua) -> Result<Table> {
    stack::build(lua, cmsgpack::push_library)
}

/// Creates the library `struct`.
///
/// # Errors
/// Returns an error if the memory limit of `lua` is reached.
pub fn struct_(lua: &Lua) -> Result<Table> {
    stack::build(lua, struct_lib::push_library)
}

/// Creates the library `bit`.
///
/// # Errors
/// Returns an error if the memory limit of `lua` is reached.
pub fn bit(lua: &Lua) -> Result<Table> {
    stack::build(lua, bit::push_library)
}

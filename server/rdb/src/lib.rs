#![doc = include_str!("../README.md")]
//!
//! # Modules
//!
//! - [`reader`], [`writer`]: lengths and strings.
//! - [`lzf`]: compressed strings.
//! - [`payload`]: the footer of DUMP payloads.
//! - [`functions`]: libraries of functions.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::cast_possible_truncation))]

mod error;
pub mod functions;
pub mod lzf;
pub mod payload;
pub mod reader;
pub mod writer;

pub use error::{LzfFault, RdbError};
pub use functions::{Libraries, write_library};
pub use payload::{FormatVersion, Payload, crc64, seal, unseal};
pub use reader::{LengthOrEncoding, Reader, StringEncoding};
pub use writer::{write_length, write_raw_string, write_string};

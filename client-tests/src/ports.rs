//! Free TCP ports on the loopback interface.
//!
//! They come from below the range that the kernel hands to outgoing connections (32768 and up), so
//! that no client of another test takes a port between this check and the server's `bind`.

use anyhow::{Result, bail};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port on 127.0.0.1 that nobody listens on now, and that no other call here returns soon.
///
/// # Errors
/// When every port of the range is taken.
pub fn free() -> Result<u16> {
    // Test programs that run side by side start at different places.
    let start = std::process::id().wrapping_mul(101);
    for _ in 0..COUNT {
        let step = start.wrapping_add(NEXT.fetch_add(1, Relaxed));
        let port = u16::try_from(FIRST + step % COUNT)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

//! Free TCP ports on the loopback interface.
//!
//! The ports are below the range of outgoing connections (32768 and up), so that no client takes a
//! port between the check here and the server's `bind`. Each test program takes ports from a block
//! of its own, which it holds by a lock on a file, so that programs can run side by side.

use anyhow::{Result, bail};
use std::fs::File;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

const FIRST: u16 = 12_000;
/// Number of ports in a block.
const BLOCK: u16 = 500;
const BLOCKS: u16 = 40;

/// First port of this program's block and the locked file, which stays open until the program ends.
static OWN_BLOCK: Mutex<Option<(u16, File)>> = Mutex::new(None);
static NEXT: AtomicU16 = AtomicU16::new(0);

/// Returns a port of 127.0.0.1 on which no process listens, and that later calls do not return
/// soon.
///
/// # Errors
/// Returns an error if all blocks are locked or all ports of the block are in use.
pub fn free() -> Result<u16> {
    let first = own_block()?;
    for _ in 0..BLOCK {
        let port = first + NEXT.fetch_add(1, Relaxed) % BLOCK;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {first} and {}", first + BLOCK)
}

fn own_block() -> Result<u16> {
    let mut own = OWN_BLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((first, _)) = *own {
        return Ok(first);
    }
    for block in 0..BLOCKS {
        let path = std::env::temp_dir().join(format!("cowherd-tests-ports-{block}.lock"));
        // A file of another user cannot be opened, and counts as locked.
        if let Ok(file) = File::create(path)
            && file.try_lock().is_ok()
        {
            let first = FIRST + block * BLOCK;
            *own = Some((first, file));
            return Ok(first);
        }
    }
    bail!("all {BLOCKS} blocks of ports are locked by other test programs")
}

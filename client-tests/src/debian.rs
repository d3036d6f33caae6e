//! A bare Debian in a folder, made of packages from the network.

use crate::tools;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Deadline of the installation, which downloads some 100 MB.
const DEADLINE: Duration = Duration::from_secs(900);

/// Name of this machine's release, such as `bookworm`. Programs built on this machine find their
/// libraries in it.
///
/// # Errors
/// Returns an error if `/etc/os-release` names no release.
pub fn release() -> Result<String> {
    let text = std::fs::read_to_string("/etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("/etc/os-release has no VERSION_CODENAME")?.trim_matches('"').to_owned())
}

/// Installs the essential packages of a release into the folder `root`, and `more` (names separated
/// by commas). Needs root, debootstrap and a network.
///
/// # Errors
/// Returns an error if one of these is missing or the disk is full.
pub fn bootstrap(release: &str, more: &str, root: &Path) -> Result<()> {
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.arg("--variant=minbase");
    if !more.is_empty() {
        debootstrap.arg(format!("--include={more}"));
    }
    debootstrap.arg(release).arg(root);
    tools::run(&mut debootstrap, b"", DEADLINE)?.success()?;
    Ok(())
}

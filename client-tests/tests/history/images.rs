//! Images taken during the load, and their content as a second server restores it.

use crate::client::Shared;
use crate::contents;
use crate::history::Tick;
use crate::model::Keys;
use crate::scans::{self, Scan};
use crate::workload::Group;
use anyhow::{Context, Result, ensure};
use client_tests::random::Random;
use client_tests::server::{IMAGE, Server};
use client_tests::wire::RawConnection;

/// An image and its content.
#[derive(Debug)]
pub struct Image {
    pub name: String,
    /// The cut lies between these: SAVE and BGSAVE are answered after it.
    pub from: Tick,
    pub to: Tick,
    pub digest: String,
    pub contents: Contents,
}

/// The content of a server, read while nothing changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// By group.
    pub groups: Vec<Keys>,
    /// The elements of each container of `scans`.
    pub listings: Vec<Scan>,
}

impl Contents {
    pub fn read(raw: &mut RawConnection, groups: &[Group], from: Tick, to: Tick) -> Result<Self> {
        let read = |group: &Group| contents::read(raw, &group.keys);
        let groups = groups.iter().map(read).collect::<Result<_>>()?;
        let listings = scans::list(raw, from, to)?;
        Ok(Self { groups, listings })
    }
}

/// Sets the switches that apply to the next checkpoint.
fn prepare(server: &Server, random: &mut Random) -> Result<()> {
    /// In microseconds after each chunk, so that many writes happen before the child is done.
    const LONGEST_DELAY: u64 = 15_000;
    server.text(&["DEBUG", "CHECKPOINT-DIGEST", "yes"])?;
    // A watched server exits if a byte changes around the write barrier. It also captures blocks
    // that the child has already read, which it does not otherwise: half of the images go without.
    let watched = if random.below(2) == 0 { "yes" } else { "no" };
    server.text(&["DEBUG", "CHECKPOINT-WATCH", watched])?;
    server.delay_checkpoints(random.below(LONGEST_DELAY))
}

/// Takes an image, mostly in the background, and lets a second server restore it.
pub fn save_and_restore(
    server: &Server,
    shared: &Shared,
    groups: &[Group],
    name: String,
    random: &mut Random,
) -> Result<Image> {
    prepare(server, random)?;
    let from = shared.clock.tick();
    match random.below(8) {
        0 => server.text(&["SAVE"]).map(drop)?,
        _ => server.bgsave()?,
    }
    let to = shared.clock.tick();
    if let Err(reason) = server.wait_checkpoint()? {
        anyhow::bail!("{name}: the save failed: {reason}; the log:\n{}", server.log());
    }
    let digest = server.info("cowherd_last_checkpoint_digest")?;
    let folder = tempfile::tempdir()?;
    std::fs::copy(server.image(), folder.path().join(IMAGE)).context("cannot copy the image")?;
    // Enough memory, so that nothing is evicted.
    let restored = Server::builder().arg("--maxmemory", "512mb").dir(folder.path()).start();
    let restored = restored.with_context(|| name.clone())?;
    let found = restored.digest()?;
    ensure!(found == digest, "{name}: saved {digest}, but restored {found}");
    restored.text(&["DEBUG", "VERIFY"]).with_context(|| name.clone())?;
    let contents = Contents::read(&mut restored.raw()?, groups, from, to)?;
    Ok(Image { name, from, to, digest, contents })
}

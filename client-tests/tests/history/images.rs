//! Images taken amid writes, and what a second server restores from each.

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

/// What an image holds.
#[derive(Debug)]
pub struct Image {
    pub name: String,
    /// The cut lies between these: SAVE and BGSAVE are answered after it.
    pub from: Tick,
    pub to: Tick,
    pub digest: String,
    pub contents: Contents,
}

/// Everything that one server holds, read while nothing changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// By group.
    pub groups: Vec<Keys>,
    /// Which elements are there, by container.
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
    /// The child sleeps so long after a chunk, at most: many writes meet it at work.
    const LONGEST_DELAY: u64 = 15_000;
    server.text(&["DEBUG", "CHECKPOINT-DIGEST", "yes"])?;
    // A watched server ends itself if a byte changes around the write barrier. It also announces
    // changes of what the child has read already, which it never does otherwise.
    let watched = if random.below(2) == 0 { "yes" } else { "no" };
    server.text(&["DEBUG", "CHECKPOINT-WATCH", watched])?;
    server.delay_checkpoints(random.below(LONGEST_DELAY))
}

/// Saves, mostly in the background, and returns what a second server restores from the image.
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
    // Room for whatever the first server holds, and no eviction of it.
    let restored = Server::builder().arg("--maxmemory", "512mb").dir(folder.path()).start();
    let restored = restored.with_context(|| name.clone())?;
    let found = restored.digest()?;
    ensure!(found == digest, "{name}: saved {digest}, but restored {found}");
    restored.text(&["DEBUG", "VERIFY"]).with_context(|| name.clone())?;
    let contents = Contents::read(&mut restored.raw()?, groups, from, to)?;
    Ok(Image { name, from, to, digest, contents })
}

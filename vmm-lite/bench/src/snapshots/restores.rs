//! A restored store: from exec to the first correct reply to a client that requests a value stored
//! before.

use std::path::{Path, PathBuf};

use serde::Serialize;
use vmm_lite_lab::{
    Result,
    site::Site,
    stats::{Summary, summary},
};

use super::{BLOCK, LIMIT_MS, client::Client, saves::size};
use crate::{
    load::{self, KEPT, Load, kv_address},
    options::Options,
    system::{GUEST_MAC, Guest, Restore, System},
};

/// One way to restore.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// The command.
    pub name: String,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// From exec until the guest ran, as the system itself reports.
    pub runs_ns: Summary,
    /// From exec until the client received its answer.
    pub first_reply_ns: Summary,
    /// All of these, in order: for the plots.
    pub first_replies_ns: Vec<u64>,
}

/// A system with its own file, and the samples of each way to restore it.
struct Turn {
    system: Box<dyn System>,
    file: PathBuf,
    samples: Vec<(Restore, Samples)>,
}

#[derive(Default)]
struct Samples {
    runs: Vec<u64>,
    replies: Vec<u64>,
}

/// Saves a store with each system and restores it in every way, alternately.
pub fn run(options: &Options, site: &Site, dir: &Path) -> Result<Vec<Figures>> {
    // Both have the same address: the network need not find out each time which one has it.
    let ip = crate::system::GUEST_IP;
    site.client.ip([
        "neigh",
        "replace",
        ip,
        "lladdr",
        GUEST_MAC,
        "dev",
        "eth0",
        "nud",
        "permanent",
    ])?;
    let guest = Load::KvIdle.guest()?;
    let mut turns = Vec::new();
    for which in options.systems() {
        let mut system = which.on(site)?;
        let file = dir.join(format!("kv.{}", which.key()));
        system.start(&guest)?;
        load::fill(site)?;
        system.save(&file, LIMIT_MS)?;
        system.stop()?;
        let samples = system.ways().iter().map(|way| (*way, Samples::default())).collect();
        turns.push(Turn { system, file, samples });
    }
    let mut left = options.snapshots;
    while left > 0 {
        let count = left.min(BLOCK);
        for turn in &mut turns {
            for (way, samples) in &mut turn.samples {
                for _ in 0..count {
                    one(site, &guest, turn.system.as_mut(), &turn.file, *way, samples)?;
                }
            }
        }
        left -= count;
        eprintln!("restores: {} of {}", options.snapshots - left, options.snapshots);
    }
    site.client.ip(["neigh", "del", ip, "dev", "eth0"])?;
    let mut figures = Vec::new();
    for turn in &turns {
        for (way, samples) in &turn.samples {
            figures.push(Figures {
                name: name(turn.system.as_ref(), *way),
                file_bytes: size(&turn.file)?,
                runs_ns: summary(&samples.runs),
                first_reply_ns: summary(&samples.replies),
                first_replies_ns: samples.replies.clone(),
            });
        }
    }
    Ok(figures)
}

fn one(
    site: &Site,
    guest: &Guest,
    system: &mut dyn System,
    file: &Path,
    way: Restore,
    samples: &mut Samples,
) -> Result<()> {
    let client = Client::begin(&site.client, kv_address(), KEPT);
    let started = system.restore(guest, file, "tap0", way)?;
    let answered = client.answered()?;
    samples.runs.push(started.took_ns());
    samples.replies.push(answered.saturating_sub(started.exec).as_nanos() as u64);
    system.stop()
}

/// The name of a system's way to restore.
pub fn name(system: &dyn System, way: Restore) -> String {
    match (system.ways().len(), way) {
        (1, _) => format!("{} -incoming", system.name()),
        (_, Restore::Eager) => format!("{} restore", system.name()),
        (_, Restore::Lazy) => format!("{} restore --lazy", system.name()),
    }
}

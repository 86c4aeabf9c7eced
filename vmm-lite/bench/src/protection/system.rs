//! The systems, all of them stores of keys and values.

use std::net::SocketAddr;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use vmm_lite_lab::{
    Result,
    error::Doing,
    images::{image, workspace},
    process::Process,
    site::Site,
    vmm::Vmm,
};

use super::{
    colo::Colo,
    pair::Pair,
    sentinel::{self, PORT, Replicated},
    writers::Finds,
};
use crate::{options::Options, system::GUEST_IP};

/// What runs, and how safe a write is once it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum System {
    /// kv, and nothing else.
    Kv,
    /// kv that is recorded; the kernel writes the journal when it likes.
    Recorded,
    /// kv whose answers wait for the disk.
    Journaled,
    /// kv with a standby.
    Protected,
    /// redis-server, and nothing else.
    Redis,
    /// redis-server whose answers wait for the disk.
    RedisAppend,
    /// redis-server with a replica and Sentinel.
    Sentinel,
    /// The same with `WAIT 1 0` after each write.
    SentinelWait,
    /// kv under QEMU's COLO.
    Colo,
}

impl System {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Kv,
        Self::Recorded,
        Self::Journaled,
        Self::Protected,
        Self::Redis,
        Self::RedisAppend,
        Self::Sentinel,
        Self::SentinelWait,
        Self::Colo,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv, unprotected",
            Self::Recorded => "kv, recorded (`--journal`, `--sync never`)",
            Self::Journaled => "kv, journaled (`--sync always`)",
            Self::Protected => "kv, protected",
            Self::Redis => "redis-server alone",
            Self::RedisAppend => "redis-server, `appendfsync always`",
            Self::Sentinel => "redis-server, replica, Sentinel",
            Self::SentinelWait => "the same, `WAIT 1 0` after each write",
            Self::Colo => "kv, QEMU's COLO",
        }
    }

    /// Whether a write is acknowledged only when `WAIT` after it is.
    pub fn waits(self) -> bool {
        self == Self::SentinelWait
    }

    /// Starts it.
    pub fn start(self, site: &Site, options: &Options) -> Result<Running> {
        // Where images are built: on a disk, which a directory for temporary files may not be.
        let dir = tempfile::tempdir_in(workspace().join("target")).doing("make a directory")?;
        let redis = |args: &[&str]| sentinel::server(&site.hosts[0].ns, dir.path(), args);
        let part = match self {
            Self::Kv => kv(site, &dir, None)?,
            Self::Recorded => kv(site, &dir, Some("never"))?,
            Self::Journaled => kv(site, &dir, Some("always"))?,
            Self::Protected => {
                let mut pair = Pair::start(site, options)?;
                pair.protect()?;
                Part::Pair(Box::new(pair))
            }
            Self::Redis => Part::Alone(redis(&[])?, None),
            Self::RedisAppend => {
                Part::Alone(redis(&["--appendonly", "yes", "--appendfsync", "always"])?, None)
            }
            Self::Sentinel | Self::SentinelWait => {
                Part::Replicated(Replicated::start(site, options.down_after)?)
            }
            Self::Colo => Part::Colo(Box::new(Colo::start(site)?)),
        };
        let address = match self {
            Self::Redis | Self::RedisAppend | Self::Sentinel | Self::SentinelWait => {
                &site.hosts[0].data_ip
            }
            _ => GUEST_IP,
        };
        Ok(Running { address: sentinel::address(address, PORT), part, _dir: dir })
    }
}

fn kv(site: &Site, dir: &TempDir, sync: Option<&str>) -> Result<Part> {
    let vmm = Vmm::on(&site.hosts[0])?;
    let (cidr, journal) = (format!("{GUEST_IP}/24"), dir.path().join("journal"));
    let journal = journal.to_string_lossy();
    let mut args = vec!["--name", "kv", "--memory", "64M", "--tap", "tap0", "--ip", &cidr];
    if let Some(sync) = sync {
        args.extend(["--journal", &*journal, "--sync", sync]);
    }
    Ok(Part::Alone(vmm.run(&image("kv")?, &args)?, Some(vmm)))
}

/// A system that runs until it is dropped.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    part: Part,
    _dir: TempDir,
}

enum Part {
    /// A process on the first host, with what it needs.
    Alone(Process, #[expect(dead_code, reason = "held for its directory")] Option<Vmm>),
    Pair(Box<Pair>),
    Replicated(Replicated),
    Colo(Box<Colo>),
}

impl Running {
    /// Its processes on both hosts.
    pub fn pids(&self) -> [Vec<u32>; 2] {
        match &self.part {
            Part::Alone(process, _) => [vec![process.pid()], Vec::new()],
            Part::Pair(pair) => pair.pids().map(|pid| pid.into_iter().collect()),
            Part::Replicated(replicated) => replicated.pids(),
            Part::Colo(colo) => colo.pids(),
        }
    }

    /// If it is a protected VM: what `stats` says of that; `Null` if it does not run where it did.
    pub fn protection(&self) -> Option<Value> {
        match &self.part {
            Part::Pair(pair) => Some(pair.protection()),
            _ => None,
        }
    }

    /// How often a protected VM took silence for death, with nothing dead.
    pub fn false_alarms(&self) -> u32 {
        match &self.part {
            Part::Pair(pair) => pair.false_alarms(),
            _ => 0,
        }
    }

    /// How clients find it, also after its primary's death.
    pub fn finds(&self) -> Finds {
        match &self.part {
            // The nearest first, which does not die.
            Part::Replicated(replicated) => {
                let sentinels = replicated.sentinels().iter().rev().copied();
                Finds::Sentinels(self.address, sentinels.collect())
            }
            _ => Finds::Address(self.address),
        }
    }

    /// Whether its Sentinels have taken its master for dead, if it has any, as `site`'s clients see
    /// it.
    pub fn taken_for_dead(&self, site: &Site) -> Result<bool> {
        let (finds, first) = (self.finds(), self.address);
        Ok(site.client.enter(move || finds.now())?.doing("ask for the master")? != first)
    }

    /// Kills its primary; with `host`, everything that runs on that host.
    pub fn kill_primary(&mut self, host: bool) -> Result<()> {
        match &mut self.part {
            Part::Alone(process, _) => process.signal(Signal::SIGKILL),
            Part::Pair(pair) => pair.kill_primary(),
            Part::Replicated(replicated) => replicated.kill_primary(host),
            Part::Colo(colo) => colo.kill_primary(),
        }
    }
}

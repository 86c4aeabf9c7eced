//! Planned swaps of a protected VM's roles: the blackout, and what a client sees.

use std::time::{Duration, Instant};

use serde::Serialize;
use vmm_lite_lab::{
    Result,
    probe::Connection,
    site::Site,
    stats::{Summary, summary},
    vmm::TIMEOUT,
};

use super::pair::{LOOK, Pair};
use crate::{
    load::{Load, kv_address},
    options::Options,
    watch::{self, Watch},
};

/// How long a standby may take to be one again; if it does not, the protection was lost.
const GRACE: Duration = Duration::from_secs(2);

/// All swaps under one load.
#[derive(Clone, Debug, Serialize)]
pub struct Swaps {
    /// The load.
    pub load: String,
    /// By vmm-lite's own account: from the request to stop the guest until the other host has said
    /// that it runs, ns.
    pub blackout_ns: Summary,
    /// How often silence was taken for death; the VM was protected again then.
    pub false_alarms: u32,
    /// What a client saw.
    #[serde(flatten)]
    pub watch: watch::Figures,
}

/// Swaps roles, with no client but the watching one and under redis-benchmark.
pub fn run(site: &Site, options: &Options) -> Result<Vec<Swaps>> {
    [Load::KvIdle, Load::KvLoaded].into_iter().map(|load| swaps(site, options, load)).collect()
}

fn swaps(site: &Site, options: &Options, load: Load) -> Result<Swaps> {
    let mut pair = Pair::start(site, options)?;
    drop(Connection::open_when_up(&site.client, kv_address(), TIMEOUT)?);
    pair.protect()?;
    let clients = load.clients(site)?;
    let (mut watch, mut seen) = (Watch::begin(site, load)?, watch::Samples::default());
    let mut blackouts = Vec::new();
    while blackouts.len() < options.swaps as usize {
        match in_sync(&pair).and_then(|()| watch.during(|| pair.swap())) {
            Ok(blackout) => blackouts.push(blackout),
            Err(e) if pair.is_protected() => return Err(e),
            Err(_) => pair.protect_again()?,
        }
    }
    watch.end(&mut seen)?;
    drop(clients);
    eprintln!("protection: {} swaps: {}", options.swaps, load.name());
    let (blackout_ns, watch) = (summary(&blackouts), seen.figures());
    Ok(Swaps { load: load.name(), blackout_ns, false_alarms: pair.false_alarms(), watch })
}

/// Waits until the old primary has become a standby in sync.
fn in_sync(pair: &Pair) -> Result<()> {
    let end = Instant::now() + GRACE;
    while !pair.is_protected() {
        if Instant::now() > end {
            return Err(pair.timeout("standby in sync after a swap"));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

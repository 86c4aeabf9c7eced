//! A protected store beside what a user would take instead: redis-server with a replica and
//! Sentinel. What it costs while nothing happens, how soon it answers again after its host died,
//! and which acknowledged writes are lost then.
//!
//! The systems take turns, round after round, under the same clients on the same test bed.
//!
//! - [`system`]: the systems; [`pair`], [`sentinel`] and [`colo`] start those of two hosts
//! - [`closed_loop`]: the clients that measure throughput and latency; [`cpu`]: what they cost
//! - [`load`]: one round of one system
//! - [`recovery`]: the primary is killed; [`writers`] are the clients that know what was
//!   acknowledged, [`steady`] is one that does not wait for answers
//! - [`swaps`]: planned swaps
//! - [`table`]: the results

mod closed_loop;
mod colo;
mod cpu;
mod load;
mod pair;
mod recovery;
mod sentinel;
mod steady;
mod swaps;
mod system;
mod table;
mod writers;

use serde::Serialize;
use vmm_lite_lab::{Error, Result, images::installed, site::Site};

use crate::options::Options;
use load::Loaded;
use recovery::Fault;
use system::System;

/// Rounds of all systems under load.
const ROUNDS: usize = 3;

/// All that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Protection {
    /// CPUs of the machine, which hosts, clients and network share.
    pub cpus: usize,
    /// `protect --heartbeat`, ms.
    pub heartbeat_ms: u32,
    /// `protect --misses`.
    pub misses: u32,
    /// Sentinel's down-after-milliseconds.
    pub down_after_ms: u32,
    /// Systems that could not run here, and why.
    pub skipped: Vec<(String, String)>,
    /// Throughput, latency and CPU time, in each round.
    pub load: Vec<Loaded>,
    /// After the primary was killed.
    pub recovery: Vec<recovery::Recovered>,
    /// Planned swaps.
    pub swaps: Vec<swaps::Swaps>,
}

/// Measures all of it.
pub fn run(options: &Options) -> Result<Protection> {
    installed("redis-server", "redis-server")?;
    installed("redis-cli", "redis-tools")?;
    let site = Site::new()?;
    let mut systems = System::ALL.to_vec();
    let (mut skipped, mut load) = (Vec::new(), Vec::new());
    if let Err(why) = System::Colo.start(&site, options).map(drop) {
        skip(&mut systems, &mut skipped, &why);
    }
    for round in 1..=ROUNDS {
        for system in systems.clone() {
            match load::measure(&site, options, system) {
                Ok(loaded) => load.push(loaded),
                Err(why) if system == System::Colo => skip(&mut systems, &mut skipped, &why),
                Err(e) => return Err(e),
            }
            eprintln!("protection: load, round {round} of {ROUNDS}: {}", system.name());
        }
    }
    let swaps = swaps::run(&site, options)?;
    let mut recovery = Vec::new();
    for fault in [Fault::Process, Fault::Host] {
        for system in systems.clone() {
            match recovery::run(&site, options, fault, system) {
                Ok(recovered) => recovery.extend(recovered),
                Err(why) if system == System::Colo => skip(&mut systems, &mut skipped, &why),
                Err(e) => return Err(e),
            }
        }
    }
    Ok(Protection {
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        heartbeat_ms: options.heartbeat_ms,
        misses: options.misses,
        down_after_ms: options.down_after,
        skipped,
        load,
        recovery,
        swaps,
    })
}

/// QEMU's COLO does not run everywhere: leaves it out from here on, and says so.
fn skip(systems: &mut Vec<System>, skipped: &mut Vec<(String, String)>, why: &Error) {
    systems.retain(|system| *system != System::Colo);
    eprintln!("protection: SKIPPED: {}: {why}", System::Colo.name());
    skipped.push((System::Colo.name().into(), why.to_string()));
}

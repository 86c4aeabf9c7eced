//! A protected store beside what a user would take instead: redis-server with a replica and
//! Sentinel. What it costs while nothing happens, how soon it answers again after its host died,
//! and which acknowledged writes are lost then.
//!
//! The systems take turns, round after round, under the same clients on the same test bed.
//!
//! - [`system`]: the systems; [`pair`] and [`sentinel`] start those of two hosts
//! - [`closed_loop`]: the clients that measure throughput and latency; [`cpu`]: what they cost
//! - [`load`]: one round of one system
//! - [`recovery`]: the primary is killed; [`writers`] are the clients that know what was
//!   acknowledged
//! - [`swaps`]: planned swaps
//! - [`table`]: the results

mod closed_loop;
mod cpu;
mod load;
mod pair;
mod recovery;
mod sentinel;
mod swaps;
mod system;
mod table;
mod writers;

use serde::Serialize;
use vmm_lite_lab::{Result, images::installed, site::Site};

use crate::options::Options;
use load::Loaded;
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
    let mut load = Vec::new();
    for round in 1..=ROUNDS {
        for system in System::ALL {
            load.push(load::measure(&site, options, system)?);
            eprintln!("protection: load, round {round} of {ROUNDS}: {}", system.name());
        }
    }
    let swaps = swaps::run(&site, options)?;
    let recovery = recovery::run(&site, options)?;
    Ok(Protection {
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        heartbeat_ms: options.heartbeat_ms,
        misses: options.misses,
        down_after_ms: options.down_after,
        load,
        recovery,
        swaps,
    })
}

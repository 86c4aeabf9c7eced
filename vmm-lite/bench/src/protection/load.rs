//! One round of one system under load: by many clients, then by one.

use serde::Serialize;
use vmm_lite_lab::{Result, probe::Connection, site::Site, vmm::TIMEOUT};

use super::{
    closed_loop::{Load, Seen},
    cpu,
    system::{Running, System},
};
use crate::options::Options;

/// The larger number of clients.
pub const MANY: usize = 50;
/// The one client sends so many times fewer requests.
const FEWER: u32 = 20;
/// How often the way to the standby is looked at while one client writes.
const LOOKS: usize = 5;

/// After so many a round is not repeated.
const MOST_FALSE_ALARMS: u32 = 5;

/// One round of one system.
#[derive(Clone, Debug, Serialize)]
pub struct Loaded {
    /// The system.
    pub system: String,
    /// By [`MANY`] clients.
    pub many: Cost,
    /// By one.
    pub one: Cost,
    /// For a protected VM: whether it still was after the round.
    pub protected: Option<bool>,
    /// How often silence was taken for death; after such a round it was repeated.
    pub false_alarms: u32,
    /// For a protected VM, with one client: from sending records until the standby's ack, ns.
    pub round_trips_ns: Vec<u64>,
}

/// What clients saw of a number of writes, and what these cost.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cost {
    /// What the clients saw.
    #[serde(flatten)]
    pub seen: Seen,
    /// CPU time of the processes on each host for a write, µs.
    pub cpu_us: [f64; 2],
    /// CPU time of the whole machine for a write, clients and network included, µs.
    pub machine_us: f64,
    /// Bytes of the input log for a write, if a standby gets it.
    pub log_bytes: Option<f64>,
}

/// Starts a system, measures it, ends it. A protected VM is measured again if it did not stay
/// protected, as what was measured then is something else.
pub fn measure(site: &Site, options: &Options, system: System) -> Result<Loaded> {
    let mut false_alarms = 0;
    loop {
        let measured = measure_once(site, options, system)?;
        if measured.protected != Some(false) || false_alarms >= MOST_FALSE_ALARMS {
            let false_alarms = false_alarms + measured.false_alarms;
            return Ok(Loaded { false_alarms, ..measured });
        }
        false_alarms += 1 + measured.false_alarms;
        eprintln!("protection: silence was taken for death; measured again");
    }
}

fn measure_once(site: &Site, options: &Options, system: System) -> Result<Loaded> {
    let running = system.start(site, options)?;
    drop(Connection::open_when_up(&site.client, running.address, TIMEOUT)?);
    let load = |clients, requests| Load { clients, requests, wait: system.waits() };
    let few = (options.requests / FEWER).max(1);
    // Everything is touched once before it is measured.
    load(MANY, few).run(&site.client, running.address)?;
    let many = cost(site, &running, load(MANY, options.requests))?;
    let one = cost(site, &running, load(1, few))?;
    let round_trips_ns = round_trips(site, &running, load(1, few))?;
    let protected = running.protection().map(|p| p["standbys"][0]["in_sync"] == true);
    let system = system.name().into();
    let false_alarms = running.false_alarms();
    Ok(Loaded { system, many, one, protected, false_alarms, round_trips_ns })
}

fn cost(site: &Site, running: &Running, load: Load) -> Result<Cost> {
    let (log, cpu) = (log_bytes(running), cpu(running));
    let machine = cpu::of_machine()?;
    let seen = load.run(&site.client, running.address)?;
    let machine = cpu::of_machine()? - machine;
    let (cpu_after, log_after) = (self::cpu(running), log_bytes(running));
    let each = |all: f64| all / f64::from(load.requests);
    Ok(Cost {
        seen,
        cpu_us: [0, 1].map(|host| each(cpu_after[host] - cpu[host])),
        machine_us: each(machine),
        log_bytes: log.zip(log_after).map(|(before, after)| each(after - before)),
    })
}

/// CPU time so far on both hosts, µs.
fn cpu(running: &Running) -> [f64; 2] {
    let mut us = [0.0; 2];
    for (us, pids) in us.iter_mut().zip(running.pids()) {
        for pid in pids {
            // A fenced process ends.
            *us += cpu::of_tree(pid).unwrap_or_default();
        }
    }
    us
}

fn log_bytes(running: &Running) -> Option<f64> {
    running.protection().and_then(|protection| protection["log_bytes"].as_f64())
}

/// Looks at the way to the standby while `load` runs, which is not measured.
fn round_trips(site: &Site, running: &Running, load: Load) -> Result<Vec<u64>> {
    if running.protection().is_none() {
        return Ok(Vec::new());
    }
    let (client, address) = (site.client.clone(), running.address);
    let clients = std::thread::spawn(move || load.run(&client, address));
    let mut all = Vec::new();
    for _ in 0..LOOKS {
        let protection = running.protection().unwrap_or_default();
        all.extend(protection["standbys"][0]["round_trip_ns"].as_u64());
    }
    clients.join().expect("clients do not panic")?;
    Ok(all)
}

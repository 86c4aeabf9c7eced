//! Many stores from a running one. QEMU has no fork; the closest is to start as many from one file,
//! one after the other.

use std::{net::SocketAddr, path::Path};

use nix::sys::signal::Signal;
use serde::Serialize;
use serde_json::Value;
use vmm_lite_lab::{
    Error, Result,
    exec::{Exec, monotonic},
    images::image,
    probe::Connection,
    process::Process,
    site::Site,
    stats::{Summary, summary},
    vmm::{TIMEOUT, Vmm},
};

use super::{LIMIT_MS, idle};
use crate::{
    load::{self, KEPT, KV_PORT, Load},
    options::Options,
    system::{KV_MEMORY_MIB, Qemu, System, VmmLite, Which},
};

/// How often everything is repeated.
const ROUNDS: usize = 5;
/// QEMU makes this many times fewer.
const FEWER: u32 = 10;
/// The first of the clones' addresses in the guests' network.
const FIRST_IP: u32 = 101;

/// One system's measurements.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// What was done.
    pub name: String,
    /// How many are made at a time.
    pub count: u32,
    /// From exec until the last of them ran.
    pub all_run_ns: Summary,
    /// How long the original was stopped for it.
    pub pause_ns: Option<Summary>,
    /// Number made per second, at the median.
    pub per_second: f64,
    /// Memory that an idle clone does not share, bytes.
    pub idle_private_bytes: Option<Summary>,
}

impl Figures {
    fn new(name: &str, count: u32, samples: &Samples) -> Self {
        let all_run_ns = summary(&samples.all_run);
        Self {
            name: name.into(),
            count,
            all_run_ns,
            pause_ns: (!samples.pause.is_empty()).then(|| summary(&samples.pause)),
            idle_private_bytes: (!samples.private.is_empty()).then(|| summary(&samples.private)),
            per_second: f64::from(count) * 1e9 / all_run_ns.median.max(1) as f64,
        }
    }
}

/// Measures them.
pub fn run(options: &Options, site: &Site, dir: &Path) -> Result<Vec<Figures>> {
    // Each is on the network, with a device and an address of its own.
    for n in 1..=options.clones {
        site.hosts[0].tap(&format!("tap{n}"))?;
    }
    let mut figures = Vec::new();
    for which in options.systems() {
        match which {
            Which::VmmLite => {
                figures.extend([fork_alone(options, site)?, fork(options, site)?]);
            }
            Which::Qemu => figures.push(incoming(options, site, dir)?),
        }
    }
    Ok(figures)
}

/// Forks a store without a network, which shows what the network costs.
fn fork_alone(options: &Options, site: &Site) -> Result<Figures> {
    const NAME: &str = "alone";
    let vmm = Vmm::on(&site.hosts[0])?;
    let memory = format!("{KV_MEMORY_MIB}M");
    let mut parent = vmm.run(&image("kv")?, &["--name", NAME, "--memory", &memory])?;
    parent.wait_for_line("ready", TIMEOUT)?;
    let mut samples = Samples::default();
    for _ in 0..ROUNDS {
        let (clones, pids) = samples.fork(&vmm, NAME, options.clones, &[])?;
        samples.private.extend(idle::private(&pids)?);
        end(clones)?;
    }
    vmm.json(&["stop", NAME, "--json"])?;
    parent.wait(TIMEOUT)?;
    Ok(Figures::new("vmm-lite fork, no network", options.clones, &samples))
}

fn fork(options: &Options, site: &Site) -> Result<Figures> {
    let mut system = VmmLite::new(site)?;
    system.start(&Load::KvIdle.guest()?)?;
    load::fill(site)?;
    let mut samples = Samples::default();
    let first = format!("10.0.0.{FIRST_IP}/24");
    let network = ["--tap", "tap%d", "--ip", &first];
    for round in 1..=ROUNDS {
        let (clones, pids) =
            samples.fork(system.vmm(), system.guest(), options.clones, &network)?;
        samples.private.extend(idle::private(&pids)?);
        for n in [0, options.clones - 1] {
            has_the_data(site, FIRST_IP + n)?;
        }
        end(clones)?;
        eprintln!("forks: {round} of {ROUNDS}");
    }
    system.stop()?;
    Ok(Figures::new("vmm-lite fork", options.clones, &samples))
}

#[derive(Default)]
struct Samples {
    all_run: Vec<u64>,
    pause: Vec<u64>,
    private: Vec<u64>,
}

impl Samples {
    /// Forks the VM `name` and adds how long that took. The clones then run, in processes with
    /// these numbers.
    fn fork(
        &mut self,
        vmm: &Vmm,
        name: &str,
        count: u32,
        more: &[&str],
    ) -> Result<(Process, Vec<u64>)> {
        let mut command = vmm.command(&["fork", name, "--json"])?;
        command.args(["--count", &count.to_string()]).args(more);
        let exec = Exec::of(&mut command)?;
        let process = Process::start(command)?;
        let line = process.wait_for_line("\"clones\"", TIMEOUT)?;
        let wrong = || Error::Protocol { what: "vmm-lite fork".into(), said: line.clone() };
        let report: Value = serde_json::from_str(&line).map_err(|_| wrong())?;
        let clones = report["clones"].as_array().ok_or_else(wrong)?;
        let last = clones.iter().filter_map(|c| c["entered_ns"].as_u64()).max();
        let last = last.filter(|_| clones.len() == count as usize).ok_or_else(wrong)?;
        self.all_run.push(last.saturating_sub(exec.at()?.as_nanos() as u64));
        self.pause.push(report["fork"]["pause_ns"].as_u64().ok_or_else(wrong)?);
        let pids: Vec<u64> = clones.iter().filter_map(|c| c["pid"].as_u64()).collect();
        if pids.len() != clones.len() {
            return Err(wrong());
        }
        Ok((process, pids))
    }
}

/// Ends clones, by ending the process that started them.
fn end(mut clones: Process) -> Result<()> {
    clones.signal(Signal::SIGINT)?;
    clones.wait(TIMEOUT).map(drop)
}

fn has_the_data(site: &Site, host: u32) -> Result<()> {
    let (key, value) = KEPT;
    let address: SocketAddr = format!("10.0.0.{host}:{KV_PORT}").parse().expect("an address");
    let io = |source| Error::Io { what: format!("ask the clone at {address}"), source };
    let mut clone = Connection::open_when_up(&site.client, address, TIMEOUT)?;
    match clone.bulk(&format!("GET {key}\r\n")).map_err(io)? {
        Some(got) if got == value => Ok(()),
        got => Err(Error::Protocol {
            what: format!("the clone at {address}"),
            said: format!("{got:?}"),
        }),
    }
}

fn incoming(options: &Options, site: &Site, dir: &Path) -> Result<Figures> {
    let (guest, file) = (Load::KvIdle.guest()?, dir.join("fork.qemu"));
    let mut system = Qemu::new(site);
    system.start(&guest)?;
    load::fill(site)?;
    system.save(&file, LIMIT_MS)?;
    system.stop()?;
    let count = options.clones.div_ceil(FEWER);
    let mut samples = Samples::default();
    for round in 1..=ROUNDS {
        let began = monotonic();
        let mut machines = Vec::new();
        let mut last = began;
        for n in 1..=count {
            let (machine, started) = system.restored(&guest, &file, &format!("tap{n}"))?;
            last = started.runs;
            machines.push(machine);
        }
        samples.all_run.push((last - began).as_nanos() as u64);
        eprintln!("QEMU, {count} from one file: {round} of {ROUNDS}");
    }
    let name = format!("{} -incoming, one after the other", system.name());
    Ok(Figures::new(&name, count, &samples))
}

//! What it costs to keep everything: the key-value store without and with a journal, beside
//! redis-server with its append-only file. The journals and the file lie on one disk.
//!
//! The systems take turns, round after round, so that a drift of the host's speed or of its disk
//! affects all alike.

use std::{net::SocketAddr, path::Path};

use serde::Serialize;
use vmm_lite_lab::{
    Result,
    error::Doing,
    images::{image, installed, workspace},
    probe::Connection,
    process::Process,
    redis::{BenchmarkRow, benchmark},
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

use crate::{options::Options, system::GUEST_IP};

const PORT: u16 = 6379;
const ROUNDS: usize = 3;

/// A server, and how it keeps what it is told: options of vmm-lite, or of redis-server.
const SYSTEMS: [(&str, &[&str]); 6] = [
    ("kv", &[]),
    ("kv, journal, --sync never", &["--sync", "never"]),
    ("kv, journal, --sync 1s", &["--sync", "1s"]),
    ("kv, journal, --sync always", &["--sync", "always"]),
    ("redis-server, appendfsync everysec", &["everysec"]),
    ("redis-server, appendfsync always", &["always"]),
];

/// One run of one system.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// The system.
    pub system: String,
    /// SET, by 50 clients.
    pub many: BenchmarkRow,
    /// SET, by one client.
    pub one: BenchmarkRow,
    /// CPU time of the server for each request of the many, in µs.
    pub cpu_us: f64,
}

/// Runs each system in turn.
pub fn run(options: &Options) -> Result<Vec<Kept>> {
    installed("redis-server", "redis-server")?;
    let image = image("kv")?;
    let site = Site::new()?;
    let vmm = Vmm::on(&site.hosts[0])?;
    let mut results = Vec::new();
    for round in 1..=ROUNDS {
        for (system, how) in SYSTEMS {
            // Where images are built: on a disk, which a directory for temporary files may not be.
            let dir = tempfile::tempdir_in(workspace().join("target")).doing("make a directory")?;
            let (process, ip) = match system.starts_with("redis") {
                true => (redis(&site, dir.path(), how)?, site.hosts[0].data_ip.clone()),
                false => (kv(&vmm, &image, dir.path(), how)?, GUEST_IP.to_owned()),
            };
            results.push(measure(&site, options, system, &ip, process)?);
            eprintln!("journals: round {round} of {ROUNDS}: {system}");
        }
    }
    Ok(results)
}

fn kv(vmm: &Vmm, image: &Path, dir: &Path, how: &[&str]) -> Result<Process> {
    let (cidr, journal) = (format!("{GUEST_IP}/24"), dir.join("journal"));
    let journal = journal.to_string_lossy();
    let mut args = vec!["--name", "kv", "--memory", "64M", "--tap", "tap0", "--ip", &cidr];
    if !how.is_empty() {
        args.extend(["--journal", &*journal].iter().chain(how));
    }
    vmm.run(image, &args)
}

fn redis(site: &Site, dir: &Path, how: &[&str]) -> Result<Process> {
    let mut command = site.hosts[0].ns.command("redis-server");
    command.args(["--port", &PORT.to_string(), "--save", "", "--protected-mode", "no"]);
    command.arg("--dir").arg(dir).args(["--appendonly", "yes", "--appendfsync"]).args(how);
    Process::start(command)
}

fn measure(
    site: &Site,
    options: &Options,
    system: &str,
    ip: &str,
    process: Process,
) -> Result<Kept> {
    let at: SocketAddr = format!("{ip}:{PORT}").parse().expect("constants");
    drop(Connection::open_when_up(&site.client, at, TIMEOUT)?);
    let set = |requests: u32, clients: &str| {
        let requests = requests.to_string();
        let args = ["-t", "set", "-n", &requests, "-c", clients, "-r", "10000"];
        benchmark(&site.client, at, &args).map(|mut rows| rows.remove(0))
    };
    let before = cpu_us(process.pid())?;
    let many = set(options.requests, "50")?;
    let cpu_us = (cpu_us(process.pid())? - before) / f64::from(options.requests);
    let one = set(options.requests / 20, "1")?;
    drop(process);
    Ok(Kept { system: system.into(), many, one, cpu_us })
}

/// CPU time of a process so far, all its threads, in µs.
fn cpu_us(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).doing(format!("read {path}"))?;
    // The name, in parentheses, may contain spaces; then state and ten more fields come first.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: f64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
    // USER_HZ is 100 on Linux.
    Ok(ticks * 10_000.0)
}

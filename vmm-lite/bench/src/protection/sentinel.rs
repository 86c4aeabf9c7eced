//! redis-server with one replica, and three Sentinels: what a user would take for a store that
//! survives the end of its host.
//!
//! The master runs on the first host, the replica on the second one; a Sentinel on each and one
//! beside the clients. They know each other from the beginning, so that none of the time to find
//! each other is measured.

use std::{fs, net::SocketAddr, path::Path, time::Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use vmm_lite_lab::{
    Error, Result,
    error::Doing,
    net::Namespace,
    process::Process,
    redis,
    site::{CLIENT_IP, Site},
    vmm::TIMEOUT,
};

/// The port of the servers.
pub const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// The name of the master for Sentinel.
pub const MASTER: &str = "bench";
/// How often a state without notification is polled.
const LOOK: std::time::Duration = std::time::Duration::from_millis(10);

/// See the module. A part that was killed is `None`.
pub struct Replicated {
    /// Master and replica.
    servers: [Option<Process>; 2],
    sentinels: Vec<Option<Process>>,
    addresses: Vec<SocketAddr>,
    _dir: TempDir,
}

impl Replicated {
    /// Starts all of them and waits until the replica has what the master has, and the Sentinels
    /// would agree. They take the master for dead when it has not answered for `down_after_ms`.
    pub fn start(site: &Site, down_after_ms: u32) -> Result<Self> {
        let dir = tempfile::tempdir().doing("make a directory")?;
        let [master, replica] = site.hosts.each_ref().map(|host| host.data_ip.as_str());
        let follows = [master, &PORT.to_string()].map(str::to_owned);
        let servers = [
            Some(server(&site.hosts[0].ns, dir.path(), &[])?),
            Some(server(
                &site.hosts[1].ns,
                dir.path(),
                &["--replicaof", &follows[0], &follows[1]],
            )?),
        ];
        let places =
            [(&site.hosts[0].ns, master), (&site.hosts[1].ns, replica), (&site.client, CLIENT_IP)];
        let mut sentinels = Vec::new();
        for (number, (ns, _)) in places.iter().enumerate() {
            let file = dir.path().join(format!("sentinel-{number}.conf"));
            let others = places.iter().enumerate().filter(|(other, _)| *other != number);
            let known: String = others
                .map(|(other, (_, ip))| {
                    let id = id(other);
                    format!("sentinel known-sentinel {MASTER} {ip} {SENTINEL_PORT} {id}\n")
                })
                .collect();
            let id = id(number);
            let text = format!(
                "port {SENTINEL_PORT}\nprotected-mode no\nsentinel myid {id}\n\
                 sentinel monitor {MASTER} {master} {PORT} 2\n\
                 sentinel down-after-milliseconds {MASTER} {down_after_ms}\n\
                 sentinel failover-timeout {MASTER} 1000\n\
                 sentinel known-replica {MASTER} {replica} {PORT}\n{known}"
            );
            fs::write(&file, text).doing("write Sentinel's configuration")?;
            let mut command = ns.command("redis-server");
            command.arg(&file).arg("--sentinel").current_dir(dir.path());
            sentinels.push(Some(Process::start(command)?));
        }
        let addresses = places.iter().map(|(_, ip)| address(ip, SENTINEL_PORT)).collect();
        let this = Self { servers, sentinels, addresses, _dir: dir };
        this.ready(site, address(master, PORT))?;
        Ok(this)
    }

    fn ready(&self, site: &Site, master: SocketAddr) -> Result<()> {
        let ask = |at: SocketAddr, args: &[&str]| redis::cli(&site.client, at, args);
        until("a replica in sync", || {
            Ok(ask(master, &["INFO", "replication"])?.contains("state=online"))
        })?;
        for at in &self.addresses {
            let agree = || Ok(ask(*at, &["SENTINEL", "CKQUORUM", MASTER])?.starts_with("OK 3"));
            until("quorum of Sentinels", agree)?;
            until("replica known to Sentinel", || {
                let lines = ask(*at, &["SENTINEL", "REPLICAS", MASTER])?;
                Ok(lines.contains("master-link-status\nok"))
            })?;
        }
        Ok(())
    }

    /// The Sentinels' addresses.
    pub fn sentinels(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Kills the master, and with it the Sentinel of its host if the whole host dies.
    pub fn kill_primary(&mut self, host: bool) -> Result<()> {
        let dies = [self.servers[0].as_ref(), self.sentinels[0].as_ref().filter(|_| host)];
        dies.into_iter().flatten().try_for_each(|process| process.signal(Signal::SIGKILL))
    }

    /// The processes on both hosts.
    pub fn pids(&self) -> [Vec<u32>; 2] {
        [0, 1].map(|host| {
            let processes = [self.servers[host].as_ref(), self.sentinels[host].as_ref()];
            processes.into_iter().flatten().map(Process::pid).collect()
        })
    }
}

/// A server that keeps nothing on disk.
pub fn server(ns: &Namespace, dir: &Path, args: &[&str]) -> Result<Process> {
    let mut command = ns.command("redis-server");
    command.args(["--port", &PORT.to_string(), "--save", "", "--protected-mode", "no"]);
    command.args(["--repl-diskless-sync-delay", "0"]).args(args).current_dir(dir);
    Process::start(command)
}

/// An address of the test bed.
pub fn address(ip: &str, port: u16) -> SocketAddr {
    format!("{ip}:{port}").parse().expect("constants")
}

/// A Sentinel's identity.
fn id(number: usize) -> String {
    format!("{:040x}", number + 1)
}

/// Polls `so` until it holds; an error of it is not the end, as servers start.
fn until(what: &str, so: impl Fn() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + TIMEOUT;
    loop {
        let state = so();
        if matches!(state, Ok(true)) {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(Error::Timeout {
                what: what.into(),
                seconds: TIMEOUT.as_secs(),
                output: format!("{state:?}"),
            });
        }
        std::thread::sleep(LOOK);
    }
}

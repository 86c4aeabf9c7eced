//! A key-value store on one host, protected by a standby on the other one, as a user does it.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use vmm_lite_lab::{
    Error, Result,
    error::Doing,
    images::image,
    process::{Process, run},
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

use crate::{options::Options, system::GUEST_IP};

/// The VM's name.
const NAME: &str = "kv";
/// Where standbys listen.
const PORT: u16 = 7100;
/// What `protect` says if the standby was silent meanwhile.
const MISSED: &str = "missed its heartbeats";
/// Silence is taken for death so often before it is an error.
const MOST_FALSE_ALARMS: u32 = 100;
/// How often a state without notification is polled.
pub const LOOK: Duration = Duration::from_millis(5);

/// See the module.
pub struct Pair {
    vmms: [Vmm; 2],
    processes: [Option<Process>; 2],
    /// The host on which the VM runs.
    active: usize,
    /// A directory that both hosts see.
    arbiter: TempDir,
    heartbeat: String,
    misses: String,
    /// How often silence was taken for death, with nothing dead.
    false_alarms: u32,
}

impl Pair {
    /// Starts the store, unprotected, on the first host.
    pub fn start(site: &Site, options: &Options) -> Result<Self> {
        let vmms = Vmm::on_both(site)?;
        let cidr = format!("{GUEST_IP}/24");
        let args = ["--name", NAME, "--memory", "64M", "--tap", "tap0", "--ip", &cidr];
        let vm = vmms[0].run(&image("kv")?, &args)?;
        Ok(Self {
            vmms,
            processes: [Some(vm), None],
            active: 0,
            arbiter: tempfile::tempdir().doing("make the arbiter's directory")?,
            heartbeat: format!("{}ms", options.heartbeat_ms),
            misses: options.misses.to_string(),
            false_alarms: 0,
        })
    }

    /// The host on which the VM runs.
    pub fn active(&self) -> usize {
        self.active
    }

    /// How often silence was taken for death, with nothing dead.
    pub fn false_alarms(&self) -> u32 {
        self.false_alarms
    }

    /// Starts a standby on the other host and protects the VM by it.
    pub fn protect(&mut self) -> Result<()> {
        loop {
            match self.try_to_protect() {
                Err(e) if e.to_string().contains(MISSED) => self.false_alarm()?,
                other => return other,
            }
        }
    }

    fn try_to_protect(&mut self) -> Result<()> {
        let other = 1 - self.active;
        // First the old one, as both have the same name.
        self.processes[other] = None;
        let (url, arbiter) = (self.vmms[other].url(PORT), self.arbiter());
        let args = ["standby", "--listen", &url, "--tap", "tap0", "--arbiter", &arbiter];
        let standby = Process::start(self.vmms[other].command(&args)?)?;
        standby.wait_for_line("listening", TIMEOUT)?;
        self.processes[other] = Some(standby);
        let beats = ["--heartbeat", &self.heartbeat, "--misses", &self.misses];
        let args = ["protect", NAME, &url, "--arbiter", &arbiter, "--json"];
        self.vmms[self.active].json(&[&args[..], &beats].concat())?;
        Ok(())
    }

    fn false_alarm(&mut self) -> Result<()> {
        self.false_alarms += 1;
        if self.false_alarms > MOST_FALSE_ALARMS {
            return Err(self.timeout("protection that stays, with nothing dead"));
        }
        Ok(())
    }

    fn arbiter(&self) -> String {
        format!("file:{}", self.arbiter.path().display())
    }

    /// Whether it is protected: its standby is in sync.
    pub fn is_protected(&self) -> bool {
        self.replication(self.active)["standbys"][0]["in_sync"] == true
    }

    /// What `stats` on the host where the VM runs says of the protection.
    pub fn protection(&self) -> Value {
        self.replication(self.active)
    }

    /// `Null` if the process does not answer, or has no VM.
    fn replication(&self, host: usize) -> Value {
        let stats = self.vmms[host].json(&["stats", NAME, "--json"]);
        stats.map(|mut stats| stats["replication"].take()).unwrap_or_default()
    }

    /// Whether the process on a host says that it runs the VM: as a primary, or unprotected.
    fn runs(&self, host: usize) -> bool {
        let stats = self.vmms[host].json(&["stats", NAME, "--json"]).unwrap_or_default();
        let replication = &stats["replication"];
        replication["role"] == "primary" || (replication.is_null() && stats["state"] == "running")
    }

    /// After silence was taken for death: waits until one host says that it runs the VM and the
    /// other one does not, and protects it again.
    pub fn protect_again(&mut self) -> Result<()> {
        self.false_alarm()?;
        let end = Instant::now() + TIMEOUT;
        self.active = loop {
            match [0, 1].map(|host| self.runs(host)) {
                [true, false] => break 0,
                [false, true] => break 1,
                _ if Instant::now() > end => return Err(self.timeout("one host that runs the VM")),
                _ => std::thread::sleep(LOOK),
            }
        };
        self.protect()
    }

    /// The error that something did not happen in time.
    pub fn timeout(&self, what: &str) -> Error {
        Error::Timeout { what: what.into(), seconds: TIMEOUT.as_secs(), output: self.output() }
    }

    /// Swaps the roles. Returns the blackout by vmm-lite's own account, ns.
    pub fn swap(&mut self) -> Result<u64> {
        let swapped: api::replication::Swapped =
            self.vmms[self.active].report(&["failover", NAME, "--json"])?;
        self.active = 1 - self.active;
        Ok(swapped.blackout_ns)
    }

    /// Kills the process that runs the VM.
    pub fn kill_primary(&mut self) -> Result<()> {
        let primary = self.processes[self.active].as_ref().expect("it runs the VM");
        primary.signal(Signal::SIGKILL)?;
        self.active = 1 - self.active;
        Ok(())
    }

    /// The processes on both hosts.
    pub fn pids(&self) -> [Option<u32>; 2] {
        self.processes.each_ref().map(|process| process.as_ref().map(Process::pid))
    }

    /// What both have printed, for errors.
    pub fn output(&self) -> String {
        self.processes.iter().flatten().map(|p| p.output() + "\n").collect()
    }
}

/// Takes the links of a host down, or up, at once.
pub fn set_links(site: &Site, host: usize, up: bool) -> Result<()> {
    let (name, state) = (["a", "b"][host], if up { "up" } else { "down" });
    let batch = tempfile::NamedTempFile::new().doing("make a file")?;
    let lines: String =
        ["mig", "up"].iter().map(|link| format!("link set dev {name}-{link} {state}\n")).collect();
    std::fs::write(batch.path(), lines).doing("write commands of ip")?;
    run(&mut ip_batch(site, batch.path()))?;
    Ok(())
}

fn ip_batch(site: &Site, file: &Path) -> Command {
    let mut command = site.switch.command("ip");
    command.arg("-batch").arg(file);
    command
}

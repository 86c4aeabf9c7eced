//! Two hosts, a store that runs on one of them, protected by a standby on the other, and clients
//! that know what they were told.

use crate::{
    arbiter::{Arbiter, Kind},
    capture::Capture,
    oracle::Oracle,
    voices::{Heard, Voices},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::{Duration, Instant};
use vmm::fail_point::CHOICE;
use vmm_lite_lab::{
    Error,
    images::image,
    links,
    process::{Process, run},
    site::Site,
    skipped,
    vmm::{TIMEOUT, Vmm},
};

/// Where standbys listen.
const PORT: u16 = 7100;
/// How often a state without notification is polled.
const LOOK: Duration = Duration::from_millis(2);
/// A dead host is found within 100 ms: hosts that are as busy as those of tests are silent for
/// longer than the usual 5 ms now and then.
const HEARTBEATS: [&str; 4] = ["--heartbeat", "5ms", "--misses", "20"];
/// A call outside of a thread's filter ends the process, and is named.
const CONFINED: [&str; 2] = ["--seccomp", "trap"];

/// See the module.
pub struct Bed {
    pub site: Site,
    pub vmms: [Vmm; 2],
    pub arbiter: Arbiter,
    /// The VM's process on each host: the one that runs it, and the standby.
    pub vms: [Option<Process>; 2],
    /// The host on which it runs.
    pub active: usize,
    pub oracle: Oracle,
    capture: Capture,
    /// How the two hosts trust each other; by default by their keys.
    pub security: &'static [&'static str],
    pub voices: Voices,
}

impl Bed {
    /// A store without protection, with `clients`. `None` after a skip was reported.
    pub fn new(test: &str, kind: Kind, clients: usize) -> Option<Self> {
        Self::with(test, kind, clients, None)
    }

    /// The same, with fail points in the VM's process.
    pub fn with(test: &str, kind: Kind, clients: usize, points: Option<&str>) -> Option<Self> {
        let site = Site::for_test(test)?;
        let arbiter = match Arbiter::start(kind, &site) {
            Ok(arbiter) => arbiter,
            Err(e @ Error::Missing { .. }) => {
                skipped(test, e);
                return None;
            }
            Err(e) => panic!("{e}"),
        };
        let vmms = Vmm::on_both(&site).unwrap();
        let image = image("kv").unwrap();
        let args = ["run", image.to_str().unwrap(), "--name", "kv", "--memory", "32M"];
        let own = ["--tap", "tap0", "--ip", "10.0.0.2/24"];
        let mut command = vmms[0].command(&[&args[..], &own, &CONFINED].concat()).unwrap();
        points.map(|points| command.env(CHOICE, points));
        let vm = Process::start(command).unwrap();
        let oracle = Oracle::start(&site.client, clients);
        let capture = Capture::start(&site);
        let (vms, voices) = ([Some(vm), None], Voices::default());
        let security = &[];
        Some(Self { site, vmms, arbiter, vms, active: 0, oracle, capture, voices, security })
    }

    /// The host on which the VM does not run.
    pub fn other(&self) -> usize {
        1 - self.active
    }

    /// Starts a standby on the other host, which listens when this returns.
    pub fn stand_by(&mut self, points: Option<&str>) {
        self.stand_by_with(points, &[], &self.arbiter.name());
    }

    pub fn stand_by_with(&mut self, points: Option<&str>, own: &[&str], arbiter: &str) {
        let host = self.other();
        // First the old one, as both have the same name.
        self.vms[host] = None;
        let url = self.vmms[host].url(PORT);
        let args = ["standby", "--listen", &url, "--tap", "tap0", "--arbiter", arbiter];
        let args = [&args[..], self.security, &CONFINED, own].concat();
        let mut command = self.vmms[host].command(&args).unwrap();
        points.map(|points| command.env(CHOICE, points));
        let standby = Process::start(command).unwrap();
        standby.wait_for_line("listening", TIMEOUT).unwrap();
        self.vms[host] = Some(standby);
    }

    /// Where the standby listens.
    pub fn there(&self) -> String {
        self.vmms[self.other()].url(PORT)
    }

    /// Protects the VM by the standby that listens.
    ///
    /// # Errors
    /// What `protect` said.
    pub fn protect(&self) -> Result<Value, String> {
        self.protect_by(&self.there(), &self.arbiter.name())
    }

    pub fn protect_by(&self, to: &str, arbiter: &str) -> Result<Value, String> {
        let args = ["protect", "kv", to, "--arbiter", arbiter, "--json"];
        let args = [&args[..], self.security, &HEARTBEATS].concat();
        self.vmms[self.active].json(&args).map_err(|e| e.to_string())
    }

    /// Protects the VM by the standby that listens, with further options.
    ///
    /// # Errors
    /// What `protect` said.
    pub fn protect_with(&self, own: &[&str]) -> Result<Value, String> {
        let (to, arbiter) = (self.there(), self.arbiter.name());
        let args = ["protect", "kv", &to, "--arbiter", &arbiter, "--json"];
        let args = [&args[..], self.security, &HEARTBEATS, own].concat();
        self.vmms[self.active].json(&args).map_err(|e| e.to_string())
    }

    /// Begins that, and does not wait.
    pub fn begin_protect(&self) -> Process {
        let (to, arbiter) = (self.there(), self.arbiter.name());
        let args = ["protect", "kv", &to, "--arbiter", &arbiter, "--json"];
        self.begin(&[&args[..], self.security, &HEARTBEATS].concat())
    }

    /// Begins a verb about the VM, at the host on which it runs.
    pub fn begin_verb(&self, verb: &str) -> Process {
        self.begin(&[verb, "kv", "--json"])
    }

    fn begin(&self, args: &[&str]) -> Process {
        Process::start(self.vmms[self.active].command(args).unwrap()).unwrap()
    }

    /// A verb about the VM, at the host on which it runs.
    ///
    /// # Errors
    /// What it said.
    pub fn verb(&self, verb: &str) -> Result<Value, String> {
        self.vmms[self.active].json(&[verb, "kv", "--json"]).map_err(|e| e.to_string())
    }

    /// Ends the protection.
    ///
    /// # Errors
    /// What `unprotect` said.
    pub fn unprotect(&self) -> Result<(), String> {
        let mut command = self.vmms[self.active].command(&["unprotect", "kv"]).unwrap();
        run(&mut command).map(drop).map_err(|e| e.to_string())
    }

    /// A new standby, which is in sync.
    ///
    /// # Errors
    /// What `protect` said.
    pub fn protected(&mut self, points: Option<&str>) -> Result<(), String> {
        self.stand_by(points);
        self.protect().map(drop).map_err(|e| format!("{e}\n{}", self.said()))
    }

    /// Whether the VM's process on a host has not ended.
    pub fn lives(&mut self, host: usize) -> bool {
        self.vms[host].as_mut().is_some_and(Process::is_running)
    }

    pub fn signal(&self, host: usize, signal: Signal) {
        self.vms[host].as_ref().unwrap().signal(signal).unwrap();
    }

    /// The host dies: its links and its process at once.
    pub fn host_dies(&self, host: usize) {
        links::set(&self.site, links::of_host(host), false).unwrap();
        self.signal(host, Signal::SIGKILL);
    }

    /// The member of the stats about protection, at a host; `Null` if it is not protected, or does
    /// not answer.
    pub fn replication(&self, host: usize) -> Value {
        let stats = self.vmms[host].json(&["stats", "kv", "--json"]);
        stats.map(|mut stats| stats["replication"].take()).unwrap_or_default()
    }

    /// Waits until the process on `host` has ended, or says that it is fenced.
    ///
    /// # Errors
    /// What it is instead.
    pub fn steps_down(&mut self, host: usize) -> Result<(), String> {
        let end = Instant::now() + TIMEOUT;
        loop {
            if !self.lives(host) {
                return Ok(());
            }
            let replication = self.replication(host);
            if replication["role"] == "fenced" {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("host {host} does not step down: {replication}"));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Whether the process on a host says that it runs the VM: as a primary, or unprotected.
    fn runs(&self, host: usize) -> bool {
        let stats = self.vmms[host].json(&["stats", "kv", "--json"]).unwrap_or_default();
        let replication = &stats["replication"];
        let alone = replication.is_null() && stats["state"] == "running";
        alone || replication["role"] == "primary"
    }

    /// Waits until one process says that it runs the VM, and the other one does not; returns which.
    ///
    /// # Errors
    /// What they say instead.
    pub fn only_runner(&self) -> Result<usize, String> {
        let end = Instant::now() + TIMEOUT;
        loop {
            if let [a, b] = [0, 1].map(|host| self.runs(host))
                && a != b
            {
                return Ok(usize::from(b));
            }
            if Instant::now() > end {
                return Err(format!("who runs it?\n{}", self.said()));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits for a state at the host on which the VM runs.
    ///
    /// # Errors
    /// What it is instead.
    pub fn until(&self, what: &str, so: impl Fn(&Value) -> bool) -> Result<Value, String> {
        let end = Instant::now() + TIMEOUT;
        loop {
            let replication = self.replication(self.active);
            if so(&replication) {
                return Ok(replication);
            }
            if Instant::now() > end {
                return Err(format!("not {what}: {replication}\n{}", self.said()));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until the VM says that it has no standby.
    ///
    /// # Errors
    /// What it says instead.
    pub fn unprotected(&self) -> Result<(), String> {
        let none = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
        let so = |r: &Value| none(&r["in_sync"]) && none(&r["standbys"]);
        self.until("unprotected", so).map(drop)
    }

    /// Judges what the network heard since the last call.
    ///
    /// # Errors
    /// As [`Voices::hear`].
    pub fn heard(&mut self) -> Result<Heard, String> {
        self.voices.hear(self.capture.take())
    }

    /// What both processes have printed.
    pub fn said(&self) -> String {
        let said = |host: usize| {
            let output = self.vms[host].as_ref().map(Process::output).unwrap_or_default();
            format!("host {host}, {}:\n{output}\n", self.replication(host))
        };
        [0, 1].map(said).concat()
    }
}

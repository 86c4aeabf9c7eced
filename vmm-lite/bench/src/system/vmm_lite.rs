//! `vmm-lite`, as a user runs it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    time::Duration,
};

use api::{MoveReport, SnapshotReport};
use serde_json::Value;
use vmm_lite_lab::{
    Error, Result,
    exec::{self, Exec},
    process::Process,
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

use super::{GUEST_IP, GUEST_MAC, Guest, Moved, Restore, Saved, Started, System};

const NAME: &str = "bench";
const PORT: u16 = 7000;

/// `vmm-lite run`, `receive` and `migrate`, `snapshot` and `restore`.
pub struct VmmLite {
    vmms: [Vmm; 2],
    at: usize,
    process: Option<Process>,
}

impl VmmLite {
    /// On the site's hosts.
    pub fn new(site: &Site) -> Result<Self> {
        Ok(Self {
            vmms: [Vmm::on(&site.hosts[0])?, Vmm::on(&site.hosts[1])?],
            at: 0,
            process: None,
        })
    }

    /// The VMM of the host where the guest runs, for features that only vmm-lite has.
    pub fn vmm(&self) -> &Vmm {
        &self.vmms[self.at]
    }

    /// The guest's name.
    pub fn guest(&self) -> &'static str {
        NAME
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("started before it is moved or stopped")
    }
}

/// A figure that a report may lack.
fn known<T>(figure: Option<T>, what: &str) -> Result<T> {
    let missing = || Error::Protocol { what: format!("no {what} in a report"), said: what.into() };
    figure.ok_or_else(missing)
}

impl System for VmmLite {
    fn name(&self) -> &'static str {
        "vmm-lite"
    }

    fn start(&mut self, guest: &Guest) -> Result<()> {
        self.at = 0;
        let memory = format!("{}M", guest.memory_mib);
        let ip = format!("{GUEST_IP}/24");
        let mut args = vec!["--name", NAME, "--memory", &memory];
        args.extend(["--tap", "tap0", "--ip", &ip, "--mac", GUEST_MAC, "--"]);
        args.extend(guest.args.iter().map(String::as_str));
        self.process = Some(self.vmms[0].run(&guest.image, &args)?);
        Ok(())
    }

    fn move_on(&mut self) -> Result<Moved> {
        let (from, to) = (self.at, 1 - self.at);
        let destination = self.vmms[to].receive(PORT, &["--tap", "tap0"])?;
        let migrate = ["migrate", NAME, &self.vmms[to].url(PORT), "--json"];
        let report: MoveReport = self.vmms[from].report(&migrate)?;
        // The source ends by itself once no more packets for the guest arrive there.
        self.process().wait(TIMEOUT)?;
        self.process = Some(destination);
        self.at = to;
        let cost = known(report.cost, "cost")?;
        let phases = cost.phases.unwrap_or_default();
        Ok(Moved {
            blackout_ns: known(cost.blackout_ns, "blackout_ns")?,
            total_ns: cost.total_ns,
            bytes_sent: cost.bytes_sent,
            rounds: cost.rounds.into(),
            phases_ns: [
                phases.quiesce_ns,
                phases.last_pages_and_state_ns,
                phases.transfer_and_apply_ns,
                phases.commit_and_run_ns,
            ],
            last_pages: cost.last_pages,
        })
    }

    fn save(&mut self, file: &Path, _: u64) -> Result<Saved> {
        let began = exec::monotonic();
        let snapshot = ["snapshot", NAME, &*file.to_string_lossy(), "--json"];
        let report: SnapshotReport = self.vmm().report(&snapshot)?;
        let total_ns = (exec::monotonic() - began).as_nanos() as u64;
        Ok(Saved { pause_ns: known(report.copy.pause_ns, "pause_ns")?, total_ns })
    }

    fn ways(&self) -> &'static [Restore] {
        &[Restore::Eager, Restore::Lazy]
    }

    fn restore(&mut self, _: &Guest, file: &Path, tap: &str, how: Restore) -> Result<Started> {
        self.at = 0;
        let (says, theirs) =
            std::io::pipe().map_err(|source| Error::Io { what: "make a pipe".into(), source })?;
        let mut command = self.vmms[0].command(&["restore"])?;
        command.arg(file).args(["--tap", tap]);
        command.args((how == Restore::Lazy).then_some("--lazy"));
        let fd = exec::inherit(&mut command, theirs).to_string();
        command.args(["--ready-fd", &fd]);
        let exec = Exec::of(&mut command)?;
        let process = Process::start(command)?;
        let mut line = String::new();
        // An end without a line is reported with the process's output.
        let read = BufReader::new(says).read_line(&mut line);
        let ready = read.ok().and_then(|_| serde_json::from_str::<Value>(&line).ok());
        let Some(entered) = ready.as_ref().and_then(|ready| ready["entered_ns"].as_u64()) else {
            return Err(Error::Protocol {
                what: "vmm-lite restore".into(),
                said: process.output(),
            });
        };
        self.process = Some(process);
        Ok(Started { exec: exec.at()?, runs: Duration::from_nanos(entered) })
    }

    fn kill(&mut self) {
        self.process = None;
    }

    fn stop(&mut self) -> Result<()> {
        self.vmms[self.at].json(&["stop", NAME, "--json"])?;
        self.process().wait(TIMEOUT)?;
        self.process = None;
        Ok(())
    }
}

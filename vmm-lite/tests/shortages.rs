//! A destination that lacks something: both sides say what, the VM runs on, and the next try succeeds when it is there.

#[path = "fail_points/client.rs"]
mod client;

use client::{Client, PORT as GUEST_PORT, Talk};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};
use vmm_lite_lab::{
    images::image,
    process::Process,
    site::Site,
    vmm::{PATIENCE, Vmm},
};

const PORT: u16 = 7000;
const STORE: Talk = Talk::Store { count: 0 };
const MEMORY: Talk = Talk::Memory { nonce: None, written: 0 };

/// The VM, wherever it is.
struct Lab {
    // Dropped with what is in it.
    _site: Site,
    vmms: [Vmm; 2],
    /// Which of the hosts it runs on.
    here: usize,
    vm: Process,
    client: Client,
}

impl Lab {
    fn new(test: &str, app: &str, talk: Talk) -> Option<Self> {
        let site = Site::for_test(test)?;
        let vmms = Vmm::on_both(&site).unwrap();
        let port = GUEST_PORT.to_string();
        let args = ["--name", "d", "--memory", "64M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
        let args = [&args[..], &["--", "--port", &port]].concat();
        let vm = vmms[0].run(&image(app).unwrap(), &args).unwrap();
        let client = Client::start(&site.client, talk);
        Some(Self { _site: site, vmms, here: 0, vm, client })
    }

    fn there(&self) -> &Vmm {
        &self.vmms[1 - self.here]
    }

    fn migrate(&self) -> vmm_lite_lab::Result<serde_json::Value> {
        self.vmms[self.here].migrate("d", &self.there().url(PORT))
    }

    /// A move fails for want of something, which both sides say.
    #[track_caller]
    fn lacks(&self, destination: &Process, what: &str) {
        let said = self.migrate().unwrap_err().to_string();
        assert!(said.contains(what), "{said}");
        let line = destination.wait_for_line("did not arrive", PATIENCE).unwrap();
        assert!(line.contains(what), "{line}");
        let stats = self.vmms[self.here].json(&["stats", "d", "--json"]).unwrap();
        assert_eq!(stats["state"], "running", "{what}");
        self.client.hears(what);
    }

    /// Now it is there.
    #[track_caller]
    fn moves(&mut self, destination: Process) {
        self.migrate().unwrap_or_else(|e| panic!("{e}\n{}", destination.output()));
        assert!(self.vm.wait(PATIENCE).unwrap().success(), "{}", self.vm.output());
        self.vm = destination;
        self.here = 1 - self.here;
        self.client.hears("the VM is there");
    }
}

#[test]
fn a_tap_that_is_not_to_be_had() {
    let Some(mut lab) = Lab::new("destinations without a TAP", "kv", STORE) else { return };
    // None was named. What was is said when the process starts, so another takes its place.
    let without = lab.there().receive(PORT, &[]).unwrap();
    lab.lacks(&without, "given no TAP device (--tap)");
    drop(without);
    let with = lab.there().receive(PORT, &["--tap", "tap0"]).unwrap();
    lab.moves(with);

    // There is none of that name yet.
    let late = lab.there().receive(PORT, &["--tap", "late0"]).unwrap();
    lab.lacks(&late, "there is no network device late0");
    lab.there().host().tap("late0").unwrap();
    lab.moves(late);

    // Another VM has it.
    let args = ["--name", "other", "--tap", "tap0", "--ip", "10.0.0.3/24", "--", "--quiet"];
    let mut other = lab.there().run(&image("dirtier").unwrap(), &args).unwrap();
    other.wait_for_line("nonce", PATIENCE).unwrap();
    let taken = lab.there().receive(PORT, &["--tap", "tap0"]).unwrap();
    lab.lacks(&taken, "TAP device tap0 is busy");
    lab.there().json(&["stop", "other", "--json"]).unwrap();
    other.wait(PATIENCE).unwrap();
    lab.moves(taken);
}

/// Bytes of address space that a process has.
fn address_space(process: &Process) -> u64 {
    let sizes = fs::read_to_string(format!("/proc/{}/statm", process.pid())).unwrap();
    4096 * sizes.split(' ').next().unwrap().parse::<u64>().unwrap()
}

/// Lets a process have so much of it; the limit that it had.
fn limit_address_space(process: &Process, bytes: u64) -> u64 {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let to = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    let pid = process.pid().cast_signed();
    // SAFETY: both limits are valid, and outlive the call.
    let r = unsafe { libc::prlimit(pid, libc::RLIMIT_AS, &raw const to, &raw mut before) };
    assert_eq!(r, 0, "{}", std::io::Error::last_os_error());
    before.rlim_cur
}

#[test]
fn memory_that_is_not_to_be_had() {
    let Some(mut lab) = Lab::new("destinations without memory", "dirtier", MEMORY) else { return };
    let destination = lab.there().receive(PORT, &["--tap", "tap0"]).unwrap();
    // Enough for a thread, and not for the VM's 64 MiB.
    let most = address_space(&destination) + (32 << 20);
    let before = limit_address_space(&destination, most);
    lab.lacks(&destination, "memory");
    limit_address_space(&destination, before);
    lab.moves(destination);
}

/// Where a host's control sockets are.
fn sockets(vmm: &Vmm) -> PathBuf {
    vmm.identity().with_file_name("vmm-lite")
}

#[test]
fn a_directory_that_nothing_can_be_written_to() {
    let Some(mut lab) =
        Lab::new("destinations whose directory is not to be written to", "kv", STORE)
    else {
        return;
    };
    let destination = lab.there().receive(PORT, &["--tap", "tap0"]).unwrap();
    let directory = sockets(lab.there());
    let mode = |mode| fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
    // The process has given up what would let root write to it all the same.
    mode(0o500);
    lab.lacks(&destination, "for control sockets");
    mode(0o700);
    lab.moves(destination);
}

//! A host with VMs on it, a client, and a directory for snapshots.

use serde_json::Value;
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use vmm_lite_lab::{
    images::image,
    probe::Connection,
    process::Process,
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

/// A host with a client, an image and a directory, or `None` after printing why not.
pub struct Lab {
    pub site: Site,
    pub vmm: Vmm,
    pub image: PathBuf,
    pub dir: tempfile::TempDir,
}

impl Lab {
    pub fn new(test: &str, app: &str) -> Option<Self> {
        let site = Site::for_test(test)?;
        let vmm = Vmm::on(&site.hosts[0]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        Some(Self { site, vmm, image: image(app).unwrap(), dir })
    }

    pub fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn files(&self) -> usize {
        std::fs::read_dir(self.dir.path()).unwrap().count()
    }

    /// Runs a verb that succeeds with JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        self.vmm.json(args).unwrap_or_else(|e| panic!("{args:?}: {e}"))
    }

    /// The output of a verb that fails.
    pub fn said(&self, args: &[&str]) -> String {
        let mut verb = self.start(args);
        let status = verb.wait(TIMEOUT).unwrap_or_else(|e| panic!("{args:?} does not end: {e}"));
        assert!(!status.success(), "{args:?} succeeds");
        verb.output()
    }

    pub fn start(&self, args: &[&str]) -> Process {
        Process::start(self.vmm.command(args).unwrap()).unwrap()
    }

    pub fn snapshot(&self, name: &str, file: &str) -> Value {
        self.json(&["snapshot", name, file, "--json"])
    }

    pub fn stop(&self, name: &str, mut vm: Process) {
        self.json(&["stop", name, "--json"]);
        vm.wait(TIMEOUT).unwrap();
    }

    pub fn dirtier(&self) -> Process {
        let args = ["--name", "d", "--memory", "16M", "--", "--pages", "1024"];
        let vm = self.vmm.run(&self.image, &args).unwrap();
        vm.wait_for_line("nonce", TIMEOUT).unwrap();
        vm
    }

    pub fn kv(&self) -> Process {
        let args = ["--name", "kv", "--memory", "16M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
        self.vmm.run(&self.image, &args).unwrap()
    }

    pub fn client(&self, address: &str) -> Connection {
        let address: SocketAddr = address.parse().unwrap();
        Connection::open_when_up(&self.site.client, address, TIMEOUT).unwrap()
    }
}

pub const KV: &str = "10.0.0.2:6379";

/// Waits for dirtier's output, once a second, and checks it.
pub fn dirtier_is_whole(vm: &Process) {
    let line = vm.wait_for_line("passes=", TIMEOUT).unwrap();
    assert!(line.contains("errors=0"), "{line}");
}

pub fn info(connection: &mut Connection, field: &str) -> String {
    let info = connection.bulk("INFO vmm\r\n").unwrap().unwrap();
    let line = info.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in {info}")).to_owned()
}

/// Checks that the wall clock of a store is right at once, and that its monotonic clock did not go
/// back to before `since`. Returns the uptime by the monotonic clock.
#[track_caller]
pub fn clocks_are_right(connection: &mut Connection, since: Duration) -> Duration {
    let number = |text: &str, field: &str| -> u64 {
        let value = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {field} in {text}")).trim().parse().unwrap()
    };
    let before = std::time::UNIX_EPOCH.elapsed().unwrap();
    let server = connection.bulk("INFO server\r\n").unwrap().unwrap();
    let after = std::time::UNIX_EPOCH.elapsed().unwrap();
    let there = Duration::from_micros(number(&server, "server_time_usec"));
    let off = Duration::from_secs(1);
    assert!(there + off >= before && there <= after + off, "{there:?} there, {before:?} here");
    let up = connection.bulk("INFO vmm\r\n").unwrap().unwrap();
    let up = Duration::from_millis(number(&up, "uptime_ms"));
    assert!(up >= since, "the clock went back: {up:?} after {since:?}");
    up
}

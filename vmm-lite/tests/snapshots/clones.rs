//! Clones of VMs.

use crate::lab::{KV, Lab, clocks_are_right, dirtier_is_whole, info};
use serde_json::Value;
use std::{
    collections::HashSet,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};
use vmm_lite_lab::vmm::TIMEOUT;

/// A process that is another process's child.
struct Pidfd(OwnedFd);

impl Pidfd {
    fn of(clone: &Value) -> Self {
        let pid = clone["pid"].as_u64().unwrap();
        // SAFETY: the call takes numbers only; the result is checked.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the descriptor was just made and nothing else owns it.
        Self(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// Waits until it has ended.
    fn wait(&self) {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the pointer is to one valid entry.
        let ended = unsafe { libc::poll(&raw mut poll, 1, TIMEOUT.as_millis() as i32) };
        assert_eq!(ended, 1, "the process does not end");
    }
}

#[test]
fn clones_of_a_store_are_independent() {
    let Some(lab) = Lab::new("clones of kv", "kv") else { return };
    let vm = lab.kv();
    let mut parent = lab.client(KV);
    assert_eq!(parent.request("SET a common\r\n").unwrap(), "+OK");
    let nonce = info(&mut parent, "nonce");
    let up = clocks_are_right(&mut parent, Duration::ZERO);
    for n in 1..=3 {
        lab.site.hosts[0].tap(&format!("tap{n}")).unwrap();
    }
    let network = ["--tap", "tap%d", "--ip", "10.0.0.21/24"];
    let said = lab.said(&["fork", "kv", "--count", "3", "--tap", "tap0", "--keep-ip"]);
    assert!(said.contains("1 were named"), "{said}");
    let fork = [&["fork", "kv", "--count", "3", "--json"][..], &network].concat();
    let mut clones = lab.start(&fork);
    let line = clones.wait_for_line("\"clones\"", TIMEOUT).unwrap();
    let report: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(report["clones"].as_array().unwrap().len(), 3);
    let mut drawn = HashSet::new();
    for n in 1..=3 {
        let mut clone = lab.client(&format!("10.0.0.{}:6379", 20 + n));
        assert_eq!(clone.bulk("GET a\r\n").unwrap().as_deref(), Some("common"));
        assert_eq!(info(&mut clone, "nonce"), nonce, "the memory is the parent's");
        clocks_are_right(&mut clone, up);
        assert_eq!(info(&mut clone, "last_resume"), "forked");
        assert_eq!(info(&mut clone, "copies"), "1");
        assert!(drawn.insert(info(&mut clone, "drawn")), "random numbers are its own");
        assert_eq!(clone.request(&format!("SET a {n}\r\n")).unwrap(), "+OK");
        assert_eq!(report["clones"][n - 1]["ip"], format!("10.0.0.{}/24", 20 + n));
    }
    let macs: HashSet<_> =
        report["clones"].as_array().unwrap().iter().map(|c| c["mac"].to_string()).collect();
    assert_eq!(macs.len(), 3);
    for n in 1..=3 {
        let mut clone = lab.client(&format!("10.0.0.{}:6379", 20 + n));
        assert_eq!(clone.bulk("GET a\r\n").unwrap(), Some(n.to_string()), "each has its own");
    }
    // The connection that its clones closed still belongs to the parent.
    assert_eq!(parent.bulk("GET a\r\n").unwrap().as_deref(), Some("common"));
    assert_eq!(info(&mut parent, "copies"), "0");
    assert_eq!(info(&mut parent, "last_resume"), "resumed");
    // A clone is a VM like any other.
    let file = lab.file("clone.snap");
    lab.snapshot("kv-2", &file);
    let clone = Pidfd::of(&report["clones"][1]);
    lab.json(&["stop", "kv-2", "--json"]);
    clone.wait();
    let restored = lab.start(&["restore", &file, "--tap", "tap2"]);
    let mut clone = lab.client("10.0.0.22:6379");
    assert_eq!(clone.bulk("GET a\r\n").unwrap().as_deref(), Some("2"));
    lab.stop("kv-2", restored);
    // The others end with the process that started them.
    clones.signal(nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(clones.wait(TIMEOUT).unwrap().code(), Some(130));
    let left = lab.json(&["ps", "--json"]);
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    lab.stop("kv", vm);
}

#[test]
fn twenty_clones_from_a_vm_and_from_a_file() {
    let Some(lab) = Lab::new("clones of dirtier", "dirtier") else { return };
    let vm = lab.dirtier();
    let file = lab.file("d.snap");
    lab.snapshot("d", &file);
    for args in [["fork", "d"], ["restore", &file]] {
        let verb = [&args[..], &["--count", "20", "--detach", "--json"]].concat();
        let report = lab.json(&verb);
        let clones = report["clones"].as_array().unwrap();
        assert_eq!(clones.len(), 20);
        let again = lab.said(&verb);
        assert!(again.contains("no clone was started"), "{again}");
        for n in 1..=20 {
            let name = format!("d-{n}");
            // It checks its memory page by page, and would have ended on an error.
            assert_eq!(lab.json(&["stats", &name, "--json"])["state"], "running");
            let process = Pidfd::of(&clones[n - 1]);
            lab.json(&["stop", &name, "--json"]);
            process.wait();
        }
    }
    dirtier_is_whole(&vm);
    lab.stop("d", vm);
}

//! Failures while a VM is saved or reverted: the VM is unchanged, or its process died, and files
//! are complete or do not exist.

use nix::{
    sys::{
        signal::Signal,
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use std::path::PathBuf;
use testkit::client::{Client, PORT, Talk};
use vmm::fail_point::CHOICE;
use vmm_lite_lab::{
    images::image,
    process::Process,
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

/// The fail points of this file.
pub const POINTS: [&str; 6] = [
    "snapshot.copying",
    "snapshot.copied",
    "snapshot.synced",
    "snapshot.other-name",
    "revert.half-exchanged",
    "revert.exchanged",
];

struct Lab {
    site: Site,
    vmm: Vmm,
    dir: tempfile::TempDir,
    image: PathBuf,
}

impl Lab {
    fn new(test: &str) -> Option<Self> {
        let site = Site::for_test(test)?;
        let vmm = Vmm::on(&site.hosts[0]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        Some(Self { site, vmm, dir, image: image("kv").unwrap() })
    }

    fn start(&self, args: &[&str], choice: &str) -> Process {
        let mut command = self.vmm.command(args).unwrap();
        if !choice.is_empty() {
            command.env(CHOICE, choice);
        }
        Process::start(command).unwrap()
    }

    /// A VM that counts, and a client that reads the count.
    fn run(&self, choice: &str) -> (Process, Client) {
        let (image, port) = (self.image.to_str().unwrap(), PORT.to_string());
        let args = ["run", image, "--name", "d", "--memory", "16M", "--tap", "tap0"];
        let args = [&args[..], &["--ip", "10.0.0.2/24", "--", "--port", &port]].concat();
        let vm = self.start(&args, choice);
        (vm, Client::start(&self.site.client, Talk::Store { count: 0 }))
    }

    fn file(&self) -> String {
        self.dir.path().join("d.snap").to_str().unwrap().to_owned()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.dir.path()).unwrap().count()
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.file()).unwrap()
    }

    fn snapshot(&self) {
        self.vmm.json(&["snapshot", "d", &self.file(), "--json"]).unwrap();
    }

    /// The saved VM can be run.
    fn is_whole(&self) {
        self.vmm.json(&["inspect", &self.file(), "--json"]).unwrap();
    }
}

/// Waits until `process` has reached the point and is frozen there, and thaws it.
fn freeze_and_thaw(process: &Process, point: &str) {
    process.wait_for_line(&format!("fail point {point}"), TIMEOUT).unwrap();
    let id = Id::Pid(Pid::from_raw(process.pid().cast_signed()));
    waitid(id, WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    process.signal(Signal::SIGCONT).unwrap();
}

#[test]
fn a_snapshot_whose_writer_fails_changes_nothing() {
    let Some(lab) = Lab::new("fail points of snapshots") else { return };
    let (_vm, client) = lab.run("");
    lab.snapshot();
    for point in ["snapshot.copied", "snapshot.synced", "snapshot.other-name"] {
        let before = lab.bytes();
        let args = ["snapshot", "d", &lab.file(), "--json"];
        let mut verb = lab.start(&args, &format!("{point}=kill"));
        verb.wait_for_line(point, TIMEOUT).unwrap();
        assert!(!verb.wait(TIMEOUT).unwrap().success());
        assert!(lab.bytes() == before, "{point}: the earlier file has changed");
        client.hears(point);
        let left = lab.files();
        lab.snapshot();
        assert_eq!(lab.files(), 1, "{point}: {left} files were there, and the next does not clean");
        let mut verb = lab.start(&args, &format!("{point}=stop"));
        freeze_and_thaw(&verb, point);
        assert!(verb.wait(TIMEOUT).unwrap().success(), "{point}: {}", verb.output());
        client.hears(point);
        assert_eq!(lab.files(), 1, "{point}");
        lab.is_whole();
    }
}

#[test]
fn a_vm_that_fails_while_it_is_saved_leaves_no_file() {
    const POINT: &str = "snapshot.copying";
    let Some(lab) = Lab::new("fail points of VMs that are saved") else { return };
    let how = ["rounds", "copy-on-write"].into_iter();
    for (mode, action) in how.flat_map(|mode| ["kill", "stop", "error"].map(|a| (mode, a))) {
        let args = ["snapshot", "d", &lab.file(), "--mode", mode, "--json"];
        let (mut vm, client) = lab.run(&format!("{POINT}={action}@2"));
        let mut verb = lab.start(&args, "");
        if action == "stop" {
            freeze_and_thaw(&vm, POINT);
            assert!(verb.wait(TIMEOUT).unwrap().success(), "{}", verb.output());
            lab.is_whole();
            client.hears(action);
            std::fs::remove_file(lab.file()).unwrap();
            continue;
        }
        vm.wait_for_line(POINT, TIMEOUT).unwrap();
        assert!(!verb.wait(TIMEOUT).unwrap().success());
        assert_eq!(lab.files(), 0, "{action}");
        if action == "error" {
            assert!(verb.output().contains("a test wants it to fail"), "{}", verb.output());
            client.hears("the VM runs on");
            lab.snapshot();
            lab.is_whole();
            std::fs::remove_file(lab.file()).unwrap();
        } else {
            vm.wait(TIMEOUT).unwrap();
        }
    }
}

#[test]
fn a_vm_that_fails_while_it_is_reverted_is_unchanged_or_gone() {
    let Some(lab) = Lab::new("fail points of reverts") else { return };
    for (point, actions) in [
        ("revert.half-exchanged", &["kill", "stop"][..]),
        ("revert.exchanged", &["kill", "stop", "error"]),
    ] {
        for action in actions {
            let what = format!("{action} at {point}");
            let (mut vm, client) = lab.run(&format!("{point}={action}"));
            lab.snapshot();
            let before = lab.bytes();
            // What the client hears after the snapshot must not be lost unless the VM is reverted.
            client.hears(&what);
            let mut verb = lab.start(&["revert", "d", &lab.file(), "--json"], "");
            match *action {
                "stop" => {
                    freeze_and_thaw(&vm, point);
                    assert!(verb.wait(TIMEOUT).unwrap().success(), "{}", verb.output());
                    let stats = lab.vmm.json(&["stats", "d", "--json"]).unwrap();
                    assert_eq!(stats["state"], "running", "{what}");
                }
                "error" => {
                    assert!(!verb.wait(TIMEOUT).unwrap().success(), "{}", verb.output());
                    client.hears(&what);
                }
                _ => {
                    vm.wait(TIMEOUT).unwrap();
                    assert!(!verb.wait(TIMEOUT).unwrap().success());
                }
            }
            assert!(lab.bytes() == before, "{what}: the file has changed");
            lab.is_whole();
        }
    }
}

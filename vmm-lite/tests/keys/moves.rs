//! No process with a VM has a private key in its memory, at any stage of a move.

use crate::memory::Needles;
use std::path::PathBuf;
use vmm::identity::IdentityDir;
use vmm_lite_lab::{
    images::image,
    process::Process,
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

/// A round that takes long enough to cut a link, and to leave pages for post-copy.
const SLOWLY: [&str; 2] = ["--bandwidth", "40MB"];
/// What the source asks for.
const HYBRID: [&str; 3] = ["--json", "--mode", "hybrid"];

struct Lab {
    _site: Site,
    vmms: [Vmm; 2],
    image: PathBuf,
    needles: Needles,
}

impl Lab {
    fn new(test: &str) -> Option<Self> {
        let site = Site::for_test(test)?;
        let vmms = Vmm::on_both(&site).unwrap();
        let dirs = vmms.each_ref().map(Vmm::identity);
        let needles = Needles::of(dirs.iter().map(|dir| &**dir));
        Some(Self { _site: site, vmms, image: image("dirtier").unwrap(), needles })
    }

    /// A VM on the first host, whose process has a fail point.
    fn run(&self, fail: Option<&str>) -> Process {
        let path = self.image.to_str().unwrap();
        let args = ["run", path, "--name", "d", "--memory", "32M", "--", "--pages", "2048"];
        let mut command = self.vmms[0].command(&args).unwrap();
        fail.map(|fail| command.env("VMM_LITE_FAIL_POINT", fail));
        let vm = Process::start(command).unwrap();
        vm.wait_for_line("passes=", TIMEOUT).unwrap();
        vm
    }

    fn receive(&self, fail: Option<&str>) -> Process {
        let url = self.vmms[1].url(7000);
        let mut command = self.vmms[1].command(&["receive", "--listen", &url]).unwrap();
        fail.map(|fail| command.env("VMM_LITE_FAIL_POINT", fail));
        let there = Process::start(command).unwrap();
        there.wait_for_line("listening", TIMEOUT).unwrap();
        there
    }

    /// Begins to move the VM, and does not wait for it.
    fn migrate(&self, args: &[&str]) -> Process {
        let url = self.vmms[1].url(7000);
        let all = [&["migrate", "d", &url], args].concat();
        Process::start(self.vmms[0].command(&all).unwrap()).unwrap()
    }

    fn searched(&self, processes: &[&Process], when: &str) {
        processes.iter().for_each(|process| self.needles.are_not_in(process.pid(), when));
    }
}

#[test]
fn no_process_with_a_vm_has_a_key_before_during_and_after_moves() {
    let Some(lab) = Lab::new("keys in memory") else { return };
    let vm = lab.run(None);
    lab.searched(&[&vm], "a VM that runs");
    // No listener; a host that does not trust this one; a cancelled move.
    let failed = |args: &[&str]| {
        let mut migrate = lab.migrate(args);
        assert!(!migrate.wait(TIMEOUT).unwrap().success(), "{}", migrate.output());
        migrate.output()
    };
    failed(&["--json"]);
    lab.searched(&[&vm], "after a move without a listener");
    let there = lab.receive(None);
    lab.searched(&[&there], "a process that waits for a VM");
    let url = lab.vmms[1].url(7000);
    // The host at the address is expected: an untrusted host trusts both.
    let untrusted = Vmm::untrusted(lab.vmms[0].host()).unwrap();
    let dir = IdentityDir::find(Some(lab.vmms[1].identity()));
    let keyed = format!("{url}#{}", dir.load().unwrap().public());
    let mut refused = untrusted.command(&["migrate", "d", &keyed, "--json"]).unwrap();
    refused.env("XDG_RUNTIME_DIR", lab.vmms[0].identity().parent().unwrap());
    let mut refused = Process::start(refused).unwrap();
    assert!(!refused.wait(TIMEOUT).unwrap().success());
    let said = refused.output();
    assert!(said.contains("does not trust this one's key"), "{said}");
    lab.searched(&[&vm, &there], "after a move that was refused");
    let under_way = lab.migrate(&["--json", "--mode", "pre-copy", "--bandwidth", "4MB"]);
    under_way.wait_for_line("copying", TIMEOUT).unwrap();
    lab.searched(&[&vm, &there], "while memory is sent");
    lab.vmms[0].json(&["cancel", "d", "--json"]).unwrap();
    there.wait_for_line("a VM did not arrive", TIMEOUT).unwrap();
    lab.searched(&[&vm, &there], "after a move that was called off");
    drop(under_way);
    let (mut vm, there) = (vm, there);
    lab.vmms[0].migrate("d", &url).unwrap();
    assert!(vm.wait(TIMEOUT).unwrap().success(), "{}", vm.output());
    lab.searched(&[&there], "after a VM has arrived");
}

/// Both processes are searched at each of these points, and at the others on the way. The link is
/// cut during post-copy, so that the source reconnects and proves its identity again.
#[test]
#[cfg(debug_assertions)]
fn no_process_with_a_vm_has_a_key_at_any_point_of_a_move() {
    use nix::sys::signal::Signal;
    use vmm::fail_point::POINTS;
    let Some(lab) = Lab::new("keys in memory at every point") else { return };
    let cut = "source.following=cut@2";
    let mut reached = Vec::new();
    for point in POINTS {
        let (side, _) = point.name.split_once('.').unwrap();
        let stop = format!("{}=stop", point.name);
        let both = format!("{cut},{stop}");
        let (source, destination) = match side {
            "source" if point.name == "source.following" => (stop, None),
            "source" => (both, None),
            "destination" => (cut.to_owned(), Some(stop)),
            _ => continue,
        };
        let vm = lab.run(Some(&source));
        let there = lab.receive(destination.as_deref());
        let mut migrate = lab.migrate(&[&HYBRID[..], &SLOWLY].concat());
        let stops = if destination.is_some() { &there } else { &vm };
        // Points that this move does not reach belong to failing moves, or to moves that are not
        // hybrid.
        let said = format!("fail point {}: Stop", point.name);
        let stopped = loop {
            if stops.wait_for_line(&said, std::time::Duration::from_millis(50)).is_ok() {
                break true;
            }
            if !migrate.is_running() {
                break stops.output().contains(&said);
            }
        };
        if stopped {
            crate::stops_at(stops, point.name);
            lab.searched(&[&vm, &there], &said);
            reached.push(point.name);
            stops.signal(Signal::SIGCONT).unwrap();
            migrate.wait(TIMEOUT).unwrap();
            lab.searched(&[&there], &format!("after {said}"));
        }
        drop((vm, there));
    }
    for needed in [
        "source.connected",
        "source.committed",
        "source.following",
        "source.asking",
        "destination.greeted",
        "destination.applied",
        "destination.announced",
        "destination.rejoined",
        "destination.whole",
    ] {
        assert!(reached.contains(&needed), "{needed} was not reached: {reached:?}");
    }
}

//! Moves in lockstep: roles are swapped with a destination that has just begun to follow.

use crate::{arbiter::Kind, bed::Bed};
use nix::sys::signal::Signal;
use vmm::fail_point::CHOICE;
use vmm_lite_lab::{process::Process, vmm::TIMEOUT};

const CLIENTS: usize = 3;
const PORT: u16 = 7000;
const FILTERED: [&str; 4] = ["--tap", "tap0", "--seccomp", "trap"];

impl Bed {
    /// The other host waits for the VM; with fail points.
    fn receives(&mut self, points: Option<&str>) {
        let there = self.other();
        self.vms[there] = None;
        let url = self.vmms[there].url(PORT);
        let args = [&["receive", "--listen", &url][..], &FILTERED].concat();
        let mut command = self.vmms[there].command(&args).unwrap();
        points.map(|points| command.env(CHOICE, points));
        let process = Process::start(command).unwrap();
        process.wait_for_line("listening", TIMEOUT).unwrap();
        self.vms[there] = Some(process);
    }

    fn moves(&self, own: &[&str]) -> Result<serde_json::Value, String> {
        let url = self.vmms[self.other()].url(PORT);
        let args = [&["migrate", "kv", &url, "--mode", "lockstep", "--json"], own].concat();
        self.vmms[self.active].json(&args).map_err(|e| e.to_string())
    }

    /// The clients go on, and only the host heard on which the VM is now.
    fn goes_on(&mut self) {
        self.oracle.hears().unwrap_or_else(|e| panic!("{e}\n{}", self.said()));
        self.oracle.check().unwrap();
    }
}

#[test]
fn a_vm_moves_in_lockstep_under_load() {
    let Some(mut bed) = Bed::new("moves in lockstep", Kind::File, CLIENTS) else { return };
    for _ in 0..4 {
        bed.goes_on();
        bed.heard().unwrap();
        bed.receives(None);
        let (from, to) = (bed.active, bed.other());
        let report = bed.moves(&[]).unwrap_or_else(|e| panic!("{e}\n{}", bed.said()));
        eprintln!("{report}");
        assert!(report["blackout_ns"].as_u64().unwrap() > 0);
        assert!(report["pages_sent"].as_u64().unwrap() > 0);
        let old = bed.vms[from].as_mut().unwrap().wait(TIMEOUT).unwrap();
        assert!(old.success(), "{old:?}");
        bed.active = to;
        bed.goes_on();
        let heard = bed.heard().unwrap_or_else(|e| panic!("{e}\n{}", bed.said()));
        assert_eq!(heard.order, [from, to]);
        // It is a VM as any other there.
        let stats = bed.vmms[to].json(&["stats", "kv", "--json"]).unwrap();
        assert_eq!((&stats["state"], &stats["replication"]), (&"running".into(), &().into()));
    }
}

#[test]
fn a_destination_that_fails_before_the_vm_is_given_changes_nothing() {
    let Some(mut bed) = Bed::new("a failed move in lockstep", Kind::File, CLIENTS) else { return };
    bed.goes_on();
    let refused = bed.moves(&[]).unwrap_err();
    assert!(refused.contains("cannot reach"), "{refused}");
    for point in ["protection.received", "protection.executed"] {
        bed.receives(Some(&format!("{point}=kill")));
        let failed = bed.moves(&[]).unwrap_err();
        eprintln!("{failed}");
        bed.goes_on();
    }
    // One that waits for a VM to protect, and the other way round.
    bed.stand_by(None);
    let there = bed.there();
    let args = ["migrate", "kv", &there, "--mode", "lockstep", "--json"];
    let refused = bed.vmms[0].json(&args).unwrap_err().to_string();
    assert!(refused.contains("refused"), "{refused}");
    bed.receives(None);
    let there = bed.vmms[1].url(PORT);
    let refused = bed.protect_by(&there, &bed.arbiter.name()).unwrap_err();
    assert!(refused.contains("vmm-lite standby"), "{refused}");
    // After all that it moves, by the same `receive`.
    bed.moves(&[]).unwrap_or_else(|e| panic!("{e}\n{}", bed.said()));
    bed.active = 1;
    bed.goes_on();
    assert_eq!(bed.heard().unwrap().order, [0, 1]);
}

#[test]
fn a_source_that_dies_before_it_gives_the_vm_leaves_no_second_one() {
    let point = "protection.stopped=kill";
    let bed = Bed::with("a source that dies", Kind::File, CLIENTS, Some(point));
    let Some(mut bed) = bed else { return };
    bed.goes_on();
    bed.receives(None);
    bed.moves(&[]).unwrap_err();
    let waits = bed.vms[1].as_ref().unwrap();
    waits.wait_for_line("waiting for the next", TIMEOUT).unwrap();
    let heard = bed.heard().unwrap();
    assert_eq!(heard.frames[1], 0, "it said something");
}

#[test]
fn a_move_whose_outcome_is_unknown_is_decided_by_the_user() {
    let Some(mut bed) = Bed::new("an unknown outcome", Kind::File, CLIENTS) else { return };
    bed.goes_on();
    bed.receives(Some("protection.taking-over=kill"));
    let unknown = bed.moves(&[]).unwrap_err();
    assert!(unknown.contains("--i-know-it-runs-nowhere-else"), "{unknown}");
    assert!(!bed.lives(1));
    bed.vmms[0].json(&["stats", "kv", "--json"]).unwrap();
    let mut resume =
        bed.vmms[0].command(&["resume", "kv", "--i-know-it-runs-nowhere-else"]).unwrap();
    vmm_lite_lab::process::run(&mut resume).unwrap();
    bed.goes_on();
    assert_eq!(bed.heard().unwrap().order, [0]);
    bed.signal(0, Signal::SIGTERM);
}

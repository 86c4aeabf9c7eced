//! What users do with a protected VM, under load: planned swaps, a new standby, the end of
//! protection. And a primary that was stopped for a second, and lost.

use crate::{arbiter::Kind, bed::Bed};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use vmm_lite_lab::vmm::TIMEOUT;

const CLIENTS: usize = 3;

#[test]
fn the_roles_are_swapped_there_and_back_under_load() {
    let Some(mut bed) = Bed::new("planned swaps", Kind::Etcd, CLIENTS) else { return };
    bed.protected(None).unwrap();
    bed.oracle.hears().unwrap();
    bed.heard().unwrap();
    let mut term = 0;
    for swap in 0..6 {
        let (from, to, at) = (bed.active, bed.other(), Instant::now());
        let swapped = bed.verb("failover").unwrap_or_else(|e| panic!("{e}\n{}", bed.said()));
        bed.active = to;
        bed.oracle.hears().unwrap_or_else(|e| panic!("swap {swap}: {e}\n{}", bed.said()));
        bed.oracle.check().unwrap();
        let heard = bed.heard().unwrap_or_else(|e| panic!("swap {swap}: {e}"));
        assert_eq!(heard.order, [from, to]);
        assert!(swapped["term"].as_u64().unwrap() > term, "{swapped}");
        term = swapped["term"].as_u64().unwrap();
        eprintln!("{swapped}; clients: {:?}", bed.oracle.gaps(at));
        // The old primary is a standby now, and in sync.
        let roles = |bed: &Bed| [from, to].map(|host| bed.replication(host)["role"].clone());
        assert_eq!(roles(&bed), ["standby", "primary"]);
        bed.until("in sync", |r| r["standbys"][0]["in_sync"] == true).unwrap();
    }
}

#[test]
fn protection_ends_and_begins_again() {
    let Some(mut bed) = Bed::new("protection ends", Kind::File, CLIENTS) else { return };
    for _ in 0..2 {
        bed.protected(None).unwrap();
        bed.oracle.hears().unwrap();
        bed.unprotect().unwrap();
        let standby = bed.other();
        bed.vms[standby].as_mut().unwrap().wait(TIMEOUT).unwrap();
        bed.oracle.hears().unwrap();
        bed.oracle.check().unwrap();
        let refused = bed.verb("failover").unwrap_err();
        assert!(refused.contains("protected"), "{refused}");
    }
    let heard = bed.heard().unwrap();
    assert_eq!(heard.order, [0], "the VM never left");
}

/// It has been given up meanwhile. It finds out before it says anything.
#[test]
fn a_primary_that_was_stopped_steps_down_and_never_speaks_again() {
    for kind in [Kind::Etcd, Kind::File] {
        let Some(mut bed) = Bed::new("a stopped primary", kind, CLIENTS) else { return };
        bed.protected(None).unwrap();
        bed.oracle.hears().unwrap();
        let (old, new, at) = (bed.active, bed.other(), Instant::now());
        bed.signal(old, Signal::SIGSTOP);
        bed.oracle.hears().unwrap_or_else(|e| panic!("{e}\n{}", bed.said()));
        eprintln!("{kind:?}: clients: {:?}", bed.oracle.gaps(at));
        std::thread::sleep(Duration::from_secs(1).saturating_sub(at.elapsed()));
        bed.signal(old, Signal::SIGCONT);
        bed.steps_down(old).unwrap();
        bed.active = new;
        bed.oracle.check().unwrap();
        let heard = bed.heard().unwrap_or_else(|e| panic!("{e}\n{}", bed.said()));
        assert_eq!(heard.order, [old, new]);
        // It can be protected by the host that came back.
        bed.protected(None).unwrap();
        bed.oracle.check().unwrap();
        assert_eq!(bed.heard().unwrap().order, [new]);
    }
}

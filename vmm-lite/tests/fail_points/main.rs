//! The fault matrix between messages: at every named fail point of a move and of a snapshot the
//! process is killed, frozen and thawed, disconnected, or made to fail. Exactly one VM runs, or
//! none where its only host died; never two; and nothing that a client was told is lost.
#![cfg(debug_assertions)]

mod check;
mod fixture;
mod snapshots;
mod table;

use fixture::Fixture;
use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};
use table::{Case, ROWS, cases};
use vmm::fail_point::POINTS;

/// Concurrent moves. Most of the time each waits for a timeout.
const FIXTURES: usize = 4;
/// Number of runs in random order; and the seed of that order, to repeat it.
const RUNS: &str = "VMM_LITE_FAULT_RUNS";
const SEED: &str = "VMM_LITE_FAULT_SEED";

/// Runs cases, several at a time. After a failure no more are begun.
fn run(test: &str, cases: &[Case]) {
    let began = Instant::now();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..FIXTURES.min(cases.len()) {
            scope.spawn(|| {
                let Some(fixture) = Fixture::new(test) else { return };
                while let Some(&case) = cases.get(next.fetch_add(1, SeqCst)) {
                    let checked = catch_unwind(AssertUnwindSafe(|| check::check(&fixture, case)));
                    if let Err(panic) = checked {
                        next.store(cases.len(), SeqCst);
                        eprintln!("failed: {case}");
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
                        return;
                    }
                    done.fetch_add(1, SeqCst);
                }
            });
        }
    });
    let (done, took) = (done.into_inner(), began.elapsed());
    eprintln!("{done} of {} failures in {took:?}", cases.len());
    if let Some(panic) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(panic);
    }
    // Either all of them, or none where the test bed cannot be set up.
    assert!(done == cases.len() || done == 0, "{done} of {}", cases.len());
}

/// Fail points where threads are held while verbs arrive: see `tests/states`.
const HELD: [&str; 10] = [
    "run.booting",
    "vm.quiescing",
    "copy.begun",
    "restore.loading",
    "lazy.loading",
    // By tests/stalls.
    "vcpu.entering",
    "vcpu.stopping",
    "control.accepting",
    "control.serving",
    "metrics.serving",
];

#[test]
fn every_fail_point_is_in_the_matrix() {
    let mut listed: Vec<_> = ROWS.iter().map(|row| row.point).collect();
    listed.extend(snapshots::POINTS);
    // Of every verb that starts a VM, see tests/verbs/self_test.rs; of a VM that is stopped, see
    // tests/states.
    listed.extend(["kvm.self-test", "destination.vm-ended"]);
    // Those of protection: see tests/protection/points.rs.
    let elsewhere = |name: &str| HELD.contains(&name) || name.starts_with("protection.");
    for point in POINTS.iter().filter(|point| !elsewhere(point.name)) {
        assert!(listed.contains(&point.name), "{} is in no table", point.name);
    }
    for name in listed {
        assert!(POINTS.iter().any(|point| point.name == name), "{name} is no fail point");
    }
}

#[test]
fn one_vm_runs_after_any_failure_between_the_messages_of_a_move() {
    run("fail points of moves", &cases());
}

/// As many cases as `VMM_LITE_FAULT_RUNS` says, in random order, each at a random occurrence.
#[test]
#[ignore = "takes long: make faults"]
fn one_vm_runs_after_any_failure_for_hours() {
    let number = |name| {
        let text = env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name} must be a number")))
    };
    let runs = number(RUNS).unwrap_or(300) as usize;
    let seed = number(SEED).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{runs} failures with {SEED}={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut all = Vec::new();
    while all.len() < runs {
        // Each as often as any other, so that rare ones are covered for certain.
        let mut round = cases();
        random.shuffle(&mut round);
        for case in &mut round {
            case.nth = random.u32(1..=case.row.times());
            case.encrypted = random.bool();
        }
        all.extend(round);
    }
    all.truncate(runs);
    run("fail points of moves, for hours", &all);
}

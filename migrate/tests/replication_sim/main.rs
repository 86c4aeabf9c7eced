//! Replica sets in simulated time: the state machines with their real timeouts, over links and with
//! an arbiter whose delays are drawn, and with faults at drawn moments. One seed is one run.
//!
//! `REPLICATION_RUNS` runs more of them, `REPLICATION_SEED` begins with that seed.

mod drivers;
mod faults;
mod host;
mod net;
mod sim;

use std::{env, io::Write, time::Duration};

use migrate::replication::Commit;
use sim::Sim;

/// Faults happen before this moment.
const FAULTS: Duration = Duration::from_millis(50);
/// From here on output must leave again.
const CALM: Duration = Duration::from_millis(130);
const END: Duration = Duration::from_millis(150);

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// What happened in all runs: faults that are never seen prove nothing.
#[derive(Default, Debug)]
struct Seen {
    runs: u64,
    excused: u64,
    outputs: usize,
    takeovers: u64,
    swaps: u64,
    fenced: u64,
    dropped: u64,
    joined: u64,
    /// Times that a member released output after another had taken over from it.
    repeated: u64,
}

fn run(seed: u64, commit: Commit, faults: usize, seen: &mut Seen) {
    let mut sim = Sim::new(seed, commit, faults);
    sim.run(CALM);
    let before = sim.outputs();
    sim.run(END);
    let what = format!("seed {seed}, {commit:?}, {faults} faults");
    if sim.excused() {
        seen.excused += 1;
    } else {
        let state = sim.state();
        assert!(sim.outputs() > before, "{what}: no output after the faults\n{state}");
        assert_eq!(sim.active(), 1, "{what}: not one is active\n{state}");
    }
    sim.count(seen);
    seen.runs += 1;
    seen.outputs += sim.outputs();
}

fn runs(most: u64, commit: Commit, faults: usize) -> Seen {
    let first = number("REPLICATION_SEED").unwrap_or(1);
    let mut seen = Seen::default();
    for seed in first..first + number("REPLICATION_RUNS").unwrap_or(most) {
        run(seed, commit, faults, &mut seen);
    }
    let _ = writeln!(std::io::stderr(), "replication: {commit:?}, {faults} faults: {seen:?}");
    seen
}

#[test]
fn without_a_fault_nobody_is_taken_over() {
    for commit in [Commit::Received, Commit::Executed] {
        let seen = runs(100, commit, 0);
        assert_eq!((seen.takeovers, seen.fenced, seen.dropped, seen.excused), (0, 0, 0, 0));
        assert!(seen.swaps > 0 && seen.joined > 0);
    }
}

#[test]
fn one_fault_costs_no_output() {
    for commit in [Commit::Received, Commit::Executed] {
        let seen = runs(700, commit, 1);
        assert!(seen.takeovers > 50 && seen.dropped > 50 && seen.fenced > 5, "{seen:?}");
        assert!(seen.excused < seen.runs / 20, "{seen:?}");
    }
}

#[test]
fn many_faults_break_no_rule() {
    let seen = runs(700, Commit::Received, 4);
    assert!(seen.takeovers > 200 && seen.dropped > 200 && seen.fenced > 50, "{seen:?}");
    assert!(seen.excused < seen.runs / 3, "{seen:?}");
}

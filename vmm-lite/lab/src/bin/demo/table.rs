//! The table at the end of the demo.

use vmm_lite_lab::{
    probe::Seen,
    stats::{human_ns, summary},
};

use crate::{Move, load::Told};
use api::moves::{MoveCost, MovePhases};

/// A phase of the blackout: its name, and how long it took, in ns.
type Phase = (&'static str, fn(&MovePhases) -> u64);

/// The phases, in order.
const PHASES: [Phase; 4] = [
    ("quiesce", |phases| phases.quiesce_ns),
    ("last pages and state", |phases| phases.last_pages_and_state_ns),
    ("transfer and apply", |phases| phases.transfer_and_apply_ns),
    ("commit and run", |phases| phases.commit_and_run_ns),
];

/// Prints the blackout by phase, and the client's measurements.
pub fn print(moves: &[Move], told: &Told) {
    let seen = &told.seen;
    println!(
        "\n{:<28}{:>12}{:>12}{:>12}",
        format!("{} moves", moves.len()),
        "median",
        "p99",
        "max"
    );
    let row = |name: &str, values: &[u64]| {
        let s = summary(values);
        println!(
            "{name:<28}{:>12}{:>12}{:>12}",
            human_ns(s.median),
            human_ns(s.p99),
            human_ns(s.max)
        );
    };
    let of = |figure: &dyn Fn(&MoveCost) -> Option<u64>| {
        moves.iter().filter_map(|m| figure(m.report.cost.as_ref()?)).collect::<Vec<_>>()
    };
    row("blackout", &of(&|cost| cost.blackout_ns));
    for (name, phase) in PHASES {
        row(&format!("  {name}"), &of(&|cost| cost.phases.as_ref().map(phase)));
    }
    row("whole move", &of(&|cost| Some(cost.total_ns)));
    let latencies: Vec<u64> = seen.samples.iter().map(|s| s.latency_ns).collect();
    row("client: all requests", &latencies);
    row("client: worst in each move", &worst_in_moves(moves, seen));
    told.print();
}

fn worst_in_moves(moves: &[Move], seen: &Seen) -> Vec<u64> {
    let worst = |m: &Move| {
        let during = |at: u64, latency: u64| at + latency >= m.began_ns && at <= m.ended_ns;
        seen.samples.iter().filter(|s| during(s.at_ns, s.latency_ns)).map(|s| s.latency_ns).max()
    };
    moves.iter().filter_map(worst).collect()
}

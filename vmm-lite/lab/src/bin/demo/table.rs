//! The table at the end of the demo.

use vmm_lite_lab::{
    probe::Seen,
    stats::{human_ns, summary},
};

use crate::Move;

/// Prints the blackout by phase, and the client's measurements.
pub fn print(moves: &[Move], seen: &Seen, writes: u64, served: u64) {
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
    let of = |key: &str| moves.iter().filter_map(|m| m.report[key].as_u64()).collect::<Vec<_>>();
    row("blackout", &of("blackout_ns"));
    for phase in phases(moves) {
        let values: Vec<u64> =
            moves.iter().filter_map(|m| m.report["phases"][&phase].as_u64()).collect();
        row(&format!("  {}", phase.trim_end_matches("_ns").replace('_', " ")), &values);
    }
    row("whole move", &of("total_ns"));
    let latencies: Vec<u64> = seen.samples.iter().map(|s| s.latency_ns).collect();
    row("client: all requests", &latencies);
    row("client: worst in each move", &worst_in_moves(moves, seen));
    println!(
        "\nchecking client: {} requests, {} errors, {} reconnects, {} TCP retransmissions; \
         writers: {writes} writes, each done once; with redis-benchmark: {served} requests",
        seen.samples.len(),
        seen.errors.len(),
        seen.reconnects,
        seen.retransmissions
    );
}

/// Names of the phases in order; any that is not known here comes last.
fn phases(moves: &[Move]) -> Vec<String> {
    const ORDER: [&str; 4] =
        ["quiesce_ns", "last_pages_and_state_ns", "transfer_and_apply_ns", "commit_and_run_ns"];
    let Some(first) = moves.first().and_then(|m| m.report["phases"].as_object()) else {
        return Vec::new();
    };
    let mut names: Vec<String> =
        first.iter().filter(|(_, v)| v.is_u64()).map(|(k, _)| k.clone()).collect();
    names.sort_by_key(|name| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()));
    names
}

fn worst_in_moves(moves: &[Move], seen: &Seen) -> Vec<u64> {
    let worst = |m: &Move| {
        let during = |at: u64, latency: u64| at + latency >= m.began_ns && at <= m.ended_ns;
        seen.samples.iter().filter(|s| during(s.at_ns, s.latency_ns)).map(|s| s.latency_ns).max()
    };
    moves.iter().filter_map(worst).collect()
}

//! `vmm-lite stats`.

use api::{
    Stats, hang,
    replication::{Replication, Role, Standby},
    stats::{Jail, State},
    verb,
};
use std::{process::ExitCode, time::Duration};

/// Show a VM's figures
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  vmm-lite stats kv\n  vmm-lite stats kv --json | jq .exits\n  \
        vmm-lite stats kv --prometheus > /var/lib/node_exporter/kv.prom"
)]
pub struct Args {
    /// Name of the VM
    name: String,
    /// Print one object, as docs/control-socket.md has it
    #[arg(long)]
    json: bool,
    /// Print what Prometheus reads, as --metrics of `run` serves it; see docs/metrics.md
    #[arg(long, conflicts_with = "json")]
    prometheus: bool,
    /// First measure for this many milliseconds how fast the guest writes to its memory, which
    /// slows it down a little
    #[arg(long, value_name = "MS", num_args = 0..=1, default_missing_value = "100")]
    dirty_rate: Option<u64>,
}

/// Runs the verb.
///
/// # Errors
/// If there is no such VM, or it does not answer.
pub fn run(args: Args) -> super::Result {
    let mut client = super::connect(&args.name)?;
    let stats = client.call(verb::Stats { dirty_rate_ms: args.dirty_rate })?;
    if args.prometheus {
        print!("{}", client.call(verb::Metrics {})?.text);
    } else if args.json {
        super::print_json(&stats)?;
    } else {
        print!("{}", text(&stats));
    }
    Ok(ExitCode::SUCCESS)
}

/// A VM's state for people.
#[must_use]
pub fn state(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Paused => "paused",
        State::Ended => "ended",
        State::Unknown => "-",
    }
}

/// A member's role for people, with how well its VM is protected.
#[must_use]
pub fn role(set: &Replication) -> &'static str {
    match set.role {
        Role::Primary if set.standbys.iter().any(|standby| standby.in_sync) => "protected",
        Role::Primary => "unprotected",
        Role::Standby => "standby",
        Role::Fenced => "fenced",
        Role::Unknown => "-",
    }
}

fn text(s: &Stats) -> String {
    let (exits, guest) = (&s.exits, &s.guest);
    let mut text = format!(
        "{} (process {}): {}, for {}, {} time(s) resumed\n",
        s.name,
        s.pid,
        state(s.state),
        duration(s.uptime_ms),
        s.resumes.saturating_sub(1),
    );
    let mut row = |what: &str, value: String| text += &format!("  {what:<10} {value}\n");
    for stalled in &s.stalled {
        row("stalled", hang::stalled(s.pid, stalled));
    }
    if let stalls @ 1.. = s.stalls {
        row("stalls", format!("{stalls} time(s) that a thread did not answer in time"));
    }
    let (resident, memory) = (bytes(s.memory_resident_bytes), bytes(s.memory_bytes));
    row("memory", format!("{resident} of {memory} resident"));
    row(
        "guest",
        format!(
            "{} threads, {} sockets, heap {} used and {} free",
            guest.threads,
            guest.sockets,
            bytes(guest.heap_used),
            bytes(guest.heap_free)
        ),
    );
    row(
        "exits",
        format!(
            "{} doorbells ({} to wait, {} of them slept, {} network, {} console, {} quiesced), {} \
             device registers, {} kicks",
            exits.doorbell,
            exits.wait,
            exits.slept,
            exits.net,
            exits.console,
            exits.quiesced,
            exits.mmio,
            exits.kicked
        ),
    );
    if let Some(rate) = s.dirty_rate {
        let written = bytes(rate.bytes_per_second);
        row("writes", format!("{written} per second, as last measured"));
    }
    let history = &s.history;
    let (arrived, failed) = (history.moves_arrived, history.moves_failed);
    let cancelled = history.moves_cancelled;
    if [arrived, failed, cancelled] != [0; 3] {
        let blackout = history.blackout.sum_ns as f64 / 1e6 / arrived.max(1) as f64;
        row(
            "moves",
            format!(
                "{arrived} made ({blackout:.2} ms blackout on average), {failed} failed, \
                 {cancelled} cancelled"
            ),
        );
    }
    if let Some(Jail { user, files, network, cgroup }) = &s.jail {
        let user = user.map_or("shared".into(), |user| user.to_string());
        let none = |without: &bool| if *without { "none" } else { "unrestricted" };
        let (files, network) = (none(files), none(network));
        let cgroup = cgroup.as_deref().unwrap_or("none");
        row("jail", format!("user {user}, files {files}, network {network}, cgroup {cgroup}"));
    }
    if let Some(set) = &s.replication {
        replication(&mut row, set);
    }
    throttled(&mut row, "console", s.console_throttled, s.console_throttled_ns);
    if let Some(net) = &s.net {
        row("network", format!("{} {}", net.mac, net.ip.as_deref().unwrap_or("-")));
        for (way, packets, volume, dropped) in [
            ("in", net.rx_packets, net.rx_bytes, net.rx_dropped),
            ("out", net.tx_packets, net.tx_bytes, net.tx_dropped),
        ] {
            row(way, format!("{packets} packets, {}, {dropped} dropped", bytes(volume)));
        }
        throttled(&mut row, "in", net.rx_throttled, net.rx_throttled_ns);
        throttled(&mut row, "out", net.tx_throttled, net.tx_throttled_ns);
        if let spoofed @ 1.. = net.tx_spoofed {
            row("spoofed", format!("{spoofed} packets dropped, from addresses not its own"));
        }
    } else {
        row("network", "none".into());
    }
    text
}

/// Adds rows on a VM's protection.
fn replication(row: &mut impl FnMut(&str, String), set: &Replication) {
    let time = |ns: u64| format!("{:.1?}", Duration::from_nanos(ns));
    row("set", format!("{}, term {}, by the arbiter's record", set.set, set.term));
    row("role", format!("{}: member {}", role(set), set.member));
    if let Some(why) = &set.arbiter_unreachable {
        row("arbiter", format!("does not answer: {why}"));
    }
    let log = bytes(set.log_bytes);
    row("log", format!("{} records, {log}; released up to {}", set.last, set.released));
    if let Some(silent) = set.primary_silent_ns {
        row("primary", format!("last heard of {} ago", time(silent)));
        row(
            "executed",
            format!("up to {}, {} behind", set.executed, set.last - set.executed.min(set.last)),
        );
    }
    for standby in &set.standbys {
        let state = match standby {
            Standby { leaving: true, .. } => "leaving",
            Standby { in_sync: true, .. } => "in sync",
            _ => "joining",
        };
        row("standby", format!("{} at {}: {state}", standby.member, standby.address));
        row(
            "",
            format!(
                "{} records behind ({}), round trip {}, last heard of {} ago",
                standby.not_executed,
                time(standby.lag_ns),
                time(standby.round_trip_ns),
                time(standby.silent_ns)
            ),
        );
    }
    if set.slowed_down {
        row("slowed", "a standby is too far behind".into());
    }
    if let divergences @ 1.. = set.divergences {
        row("diverged", format!("{divergences} copies"));
    }
    if let Some(event) = set.events.last() {
        row("last", event.clone());
    }
}

/// Adds a row on how often and how long something was throttled, if it was.
fn throttled(row: &mut impl FnMut(&str, String), what: &str, times: u64, ns: u64) {
    if times > 0 {
        let time = duration(ns / 1_000_000);
        row("throttled", format!("{what}: {times} times, for {time} in total, by its rate limit"));
    }
}

/// Formats a number of bytes for people.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit =
        UNITS.iter().enumerate().rev().find(|(i, _)| n >> (10 * i) > 0).map_or(0, |(i, _)| i);
    match unit {
        0 => format!("{n} B"),
        _ => {
            let value = n as f64 / (1_u64 << (10 * unit)) as f64;
            let decimals = usize::from(value.fract() > 0.05 && value < 100.0);
            format!("{value:.decimals$} {}", UNITS[unit])
        }
    }
}

/// Formats milliseconds for people.
#[must_use]
pub fn duration(ms: u64) -> String {
    let (s, m, h) = (ms / 1000, ms / 60_000, ms / 3_600_000);
    match ms {
        0..60_000 => format!("{}.{}s", s, ms % 1000 / 100),
        60_000..3_600_000 => format!("{m}m{:02}s", s % 60),
        _ => format!("{h}h{:02}m", m % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(16 << 20), "16 MiB");
        assert_eq!(bytes(1_600_000), "1.5 MiB");
        assert_eq!(duration(1234), "1.2s");
        assert_eq!(duration(61_000), "1m01s");
        assert_eq!(duration(7_260_000), "2h01m");
    }

    #[test]
    fn a_vm_without_a_network_has_a_text_too() {
        let state = State::Running;
        let stats = Stats { name: "kv".into(), pid: 7, state, ..Stats::default() };
        let text = text(&stats);
        assert!(
            text.starts_with("kv (process 7): running") && text.contains("network    none"),
            "{text}"
        );
    }
}

//! `vmm-lite stats`.

use api::hang;
use serde_json::{Value, json};
use std::process::ExitCode;

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
    let mut request = json!({ "verb": "stats" });
    if let Some(ms) = args.dirty_rate {
        request["dirty_rate_ms"] = ms.into();
    }
    let stats = client.request(&request, |_| {})?;
    if args.prometheus {
        print!("{}", client.call("metrics")?["text"].as_str().unwrap_or_default());
    } else if args.json {
        println!("{stats}");
    } else {
        print!("{}", text(&stats));
    }
    Ok(ExitCode::SUCCESS)
}

fn text(s: &Value) -> String {
    let n = |v: &Value| v.as_u64().unwrap_or(0);
    let str = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    let (exits, net, guest) = (&s["exits"], &s["net"], &s["guest"]);
    let mut text = format!(
        "{} (process {}): {}, for {}, {} time(s) resumed\n",
        str(&s["name"]),
        n(&s["pid"]),
        str(&s["state"]),
        duration(n(&s["uptime_ms"])),
        n(&s["resumes"]).saturating_sub(1),
    );
    let mut row = |what: &str, value: String| text += &format!("  {what:<10} {value}\n");
    for stalled in s["stalled"].as_array().into_iter().flatten() {
        row("stalled", hang::stalled(n(&s["pid"]), stalled));
    }
    if let stalls @ 1.. = n(&s["stalls"]) {
        row("stalls", format!("{stalls} time(s) that a thread did not answer in time"));
    }
    row(
        "memory",
        format!(
            "{} of {} resident",
            bytes(n(&s["memory_resident_bytes"])),
            bytes(n(&s["memory_bytes"]))
        ),
    );
    row(
        "guest",
        format!(
            "{} threads, {} sockets, heap {} used and {} free",
            n(&guest["threads"]),
            n(&guest["sockets"]),
            bytes(n(&guest["heap_used"])),
            bytes(n(&guest["heap_free"]))
        ),
    );
    row(
        "exits",
        format!(
            "{} doorbells ({} to wait, {} of them slept, {} network, {} console, {} quiesced), {} \
             device registers, {} kicks",
            n(&exits["doorbell"]),
            n(&exits["wait"]),
            n(&exits["slept"]),
            n(&exits["net"]),
            n(&exits["console"]),
            n(&exits["quiesced"]),
            n(&exits["mmio"]),
            n(&exits["kicked"])
        ),
    );
    if let Some(rate) = s["dirty_rate"]["bytes_per_second"].as_u64() {
        row("writes", format!("{} per second, as last measured", bytes(rate)));
    }
    let moves = ["moves_arrived", "moves_failed", "moves_cancelled"].map(|k| n(&s["history"][k]));
    if moves != [0; 3] {
        let [arrived, failed, cancelled] = moves;
        let blackout = n(&s["history"]["blackout"]["sum_ns"]) as f64 / 1e6 / arrived.max(1) as f64;
        row(
            "moves",
            format!(
                "{arrived} made ({blackout:.2} ms blackout on average), {failed} failed, \
                 {cancelled} cancelled"
            ),
        );
    }
    if let Some(jail) = s["jail"].as_object() {
        let user = jail["user"].as_u64().map_or("shared".into(), |user| user.to_string());
        let files = if jail["files"] == true { "none" } else { "unrestricted" };
        let network = if jail["network"] == true { "none" } else { "unrestricted" };
        let cgroup = jail["cgroup"].as_str().unwrap_or("none");
        row("jail", format!("user {user}, files {files}, network {network}, cgroup {cgroup}"));
    }
    throttled(&mut row, "console", s, "console");
    if net.is_null() {
        row("network", "none".into());
    } else {
        row("network", format!("{} {}", str(&net["mac"]), str(&net["ip"])));
        for (way, key) in [("in", "rx"), ("out", "tx")] {
            let [packets, volume, dropped] =
                ["packets", "bytes", "dropped"].map(|k| n(&net[format!("{key}_{k}")]));
            row(way, format!("{packets} packets, {}, {dropped} dropped", bytes(volume)));
        }
        for (way, key) in [("in", "rx"), ("out", "tx")] {
            throttled(&mut row, way, net, key);
        }
        if let spoofed @ 1.. = n(&net["tx_spoofed"]) {
            row("spoofed", format!("{spoofed} packets dropped, from addresses not its own"));
        }
    }
    text
}

/// Adds a row on how often and how long something was throttled, if it was.
fn throttled(row: &mut impl FnMut(&str, String), what: &str, of: &Value, key: &str) {
    let n = |name: &str| of[format!("{key}_{name}")].as_u64().unwrap_or(0);
    if let times @ 1.. = n("throttled") {
        let time = duration(n("throttled_ns") / 1_000_000);
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
        let stats = serde_json::json!({ "name": "kv", "pid": 7, "state": "running", "net": null });
        let text = text(&stats);
        assert!(
            text.starts_with("kv (process 7): running") && text.contains("network    none"),
            "{text}"
        );
    }
}

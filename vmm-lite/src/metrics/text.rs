//! A VM's metrics in Prometheus' text format 0.0.4.

use super::replication;
use std::fmt::{Display, Write};
use vmm::{
    replication::protection::Member,
    vm::{BOUNDS_NS, Histogram, RunState, Stats},
};

/// The format's content type in HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of this process's VM, and of its part in the VM's protection. Without a VM, only
/// that there is none yet.
#[must_use]
pub fn of(member: Option<&Member>) -> String {
    let mut text = Text { out: String::with_capacity(8 << 10), vm: String::new() };
    text.one(
        "present",
        Kind::Gauge,
        "1 if a VM is here, 0 while it is awaited.",
        member.is_some() as u8,
    );
    if let Some(member) = member {
        let stats = member.vm().stats();
        text.vm = format!("vm=\"{}\"", escaped(&stats.name));
        all(&mut text, &stats);
        replication::add(&mut text, member.figures().as_ref());
    }
    text.out
}

fn all(text: &mut Text, s: &Stats) {
    use Kind::{Counter, Gauge};
    let version = env!("CARGO_PKG_VERSION");
    text.head("info", Gauge, "Version of vmm-lite, and the VM's addresses.");
    let (mac, ip) = s.net.as_ref().map_or(("", ""), |n| (&n.mac, n.ip.as_deref().unwrap_or("")));
    text.sample("info", &format!("version=\"{version}\",mac=\"{mac}\",ip=\"{ip}\""), 1);
    text.head("state", Gauge, "State of the VM: 1 for the present one.");
    for (state, name) in
        [(RunState::Running, "running"), (RunState::Paused, "paused"), (RunState::Ended, "ended")]
    {
        text.sample("state", &format!("state=\"{name}\""), u8::from(s.state == state));
    }
    text.one(
        "uptime_seconds",
        Gauge,
        "Time that it has been in this process.",
        seconds(s.uptime_ms * 1_000_000),
    );
    text.one("memory_bytes", Gauge, "Size of its memory.", s.memory_bytes);
    text.one(
        "memory_resident_bytes",
        Gauge,
        "Part of its memory that is resident.",
        s.memory_resident_bytes,
    );
    text.one(
        "guest_heap_used_bytes",
        Gauge,
        "What its program has allocated, as the guest reports.",
        s.guest.heap_used,
    );
    text.one(
        "guest_heap_free_bytes",
        Gauge,
        "What its program could still allocate.",
        s.guest.heap_free,
    );
    text.one("guest_threads", Gauge, "Its threads, as the guest reports.", s.guest.threads);
    text.one("guest_sockets", Gauge, "Its open sockets.", s.guest.sockets);
    text.one(
        "resumes_total",
        Counter,
        "How often it was resumed in this process, including its start.",
        s.resumes,
    );
    text.one("console_bytes_total", Counter, "Bytes it printed in this process.", s.console_bytes);
    text.throttled("console", "what it prints", s.console_throttled, s.console_throttled_ns);
    text.one(
        "stalls_total",
        Counter,
        "How often a thread of this process did not answer in time.",
        s.stalls,
    );
    text.one("stalled_threads", Gauge, "Threads that do not answer now.", s.stalled.len());
    exits(text, s);
    network(text, s);
    moves(text, s);
    if let Some(rate) = &s.dirty_rate {
        text.one(
            "dirty_bytes_per_second",
            Gauge,
            "Rate of its writes to pages, as `stats --dirty-rate` last measured.",
            rate.bytes_per_second,
        );
        text.one(
            "dirty_sampled_timestamp_seconds",
            Gauge,
            "Time of that measurement.",
            seconds(rate.unix_ms * 1_000_000),
        );
    }
}

fn exits(text: &mut Text, s: &Stats) {
    let e = &s.exits;
    text.head("exits_total", Kind::Counter, "Exits of the guest to the VMM.");
    for (kind, n) in [("doorbell", e.doorbell), ("mmio", e.mmio), ("kick", e.kicked)] {
        text.sample("exits_total", &format!("kind=\"{kind}\""), n);
    }
    text.head(
        "doorbells_total",
        Kind::Counter,
        "Reasons of doorbell rings; a ring can have several.",
    );
    for (reason, n) in
        [("wait", e.wait), ("net", e.net), ("console", e.console), ("quiesced", e.quiesced)]
    {
        text.sample("doorbells_total", &format!("reason=\"{reason}\""), n);
    }
    text.one("slept_total", Kind::Counter, "How often the vCPU thread slept in a wait.", e.slept);
}

fn network(text: &mut Text, s: &Stats) {
    let Some(n) = &s.net else { return };
    for (name, help, value) in [
        ("network_receive_packets_total", "Packets to the guest.", n.rx_packets),
        ("network_receive_bytes_total", "Bytes to the guest.", n.rx_bytes),
        ("network_receive_dropped_total", "Packets that did not fit its buffers.", n.rx_dropped),
        ("network_transmit_packets_total", "Packets from the guest.", n.tx_packets),
        ("network_transmit_bytes_total", "Bytes from the guest.", n.tx_bytes),
        ("network_transmit_dropped_total", "Packets that the host did not accept.", n.tx_dropped),
        (
            "network_transmit_spoofed_total",
            "Packets dropped because they came from addresses which are not the guest's.",
            n.tx_spoofed,
        ),
    ] {
        text.one(name, Kind::Counter, help, value);
    }
    text.throttled("network_receive", "packets to it", n.rx_throttled, n.rx_throttled_ns);
    text.throttled("network_transmit", "packets from it", n.tx_throttled, n.tx_throttled_ns);
}

fn moves(text: &mut Text, s: &Stats) {
    let h = &s.history;
    text.head("moves_total", Kind::Counter, "Moves of the VM on all hosts, by result.");
    for (outcome, n) in
        [("arrived", h.moves_arrived), ("cancelled", h.moves_cancelled), ("failed", h.moves_failed)]
    {
        text.sample("moves_total", &format!("outcome=\"{outcome}\""), n);
    }
    text.histogram(
        "move_blackout_seconds",
        "How long the guest was stopped in each move, on all hosts.",
        &h.blackout,
    );
    text.histogram(
        "move_brownout_seconds",
        "How long the guest was slower after each move, on all hosts.",
        &h.brownout,
    );
    text.histogram(
        "quiesce_seconds",
        "How long the guest took to quiesce, on all hosts.",
        &h.quiesce,
    );
    text.one(
        "quiesce_unanswered_total",
        Kind::Counter,
        "How often it did not quiesce in time, on all hosts.",
        h.quiesce_unanswered,
    );
}

/// Kind of a metric.
#[derive(Clone, Copy)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Metrics, as they are written.
pub struct Text {
    out: String,
    /// The label that all samples have.
    vm: String,
}

impl Text {
    /// Begins a metric, whose samples follow.
    pub fn head(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = writeln!(self.out, "# HELP vmm_lite_{name} {help}\n# TYPE vmm_lite_{name} {kind}");
    }

    /// A sample of the metric that was begun last, with these labels beside the VM's.
    pub fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let between = if self.vm.is_empty() || labels.is_empty() { "" } else { "," };
        let labels = format!("{}{between}{labels}", self.vm);
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        let _ = writeln!(self.out, "vmm_lite_{name}{open}{labels}{close} {value}");
    }

    /// A metric with one sample.
    pub fn one(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.sample(name, "", value);
    }

    /// How often and how long something was throttled.
    fn throttled(&mut self, name: &str, what: &str, times: u64, ns: u64) {
        let help = format!("How often {what} had to wait for its rate limit.");
        self.one(&format!("{name}_throttled_total"), Kind::Counter, &help, times);
        let help = format!("For how long {what} had to wait for its rate limit.");
        self.one(&format!("{name}_throttled_seconds_total"), Kind::Counter, &help, seconds(ns));
    }

    fn histogram(&mut self, name: &str, help: &str, h: &Histogram) {
        self.head(name, Kind::Histogram, help);
        let mut sum = 0_u64;
        for (count, bound) in h.counts.iter().zip(BOUNDS_NS) {
            sum = sum.saturating_add(*count);
            self.sample(&format!("{name}_bucket"), &format!("le=\"{}\"", seconds(bound)), sum);
        }
        self.sample(&format!("{name}_bucket"), "le=\"+Inf\"", h.count());
        self.sample(&format!("{name}_sum"), "", seconds(h.sum_ns));
        self.sample(&format!("{name}_count"), "", h.count());
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Escapes a label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

//! The metrics of a VM's protection.

use super::text::{
    Kind::{Counter, Gauge},
    Text,
};
use vmm::replication::protection::{Figures, Role, StandbyFigures};

/// Its role, protected or not, and the figures of its replica set, if it has one.
pub fn add(text: &mut Text, set: Option<&Figures>) {
    let role = set.map(|set| set.role);
    text.head("replication_role", Gauge, "Role of this process: 1 for the present one.");
    for (of, name) in [
        (None, "none"),
        (Some(Role::Primary), "primary"),
        (Some(Role::Standby), "standby"),
        (Some(Role::Fenced), "fenced"),
    ] {
        text.sample("replication_role", &format!("role=\"{name}\""), u8::from(role == of));
    }
    text.one(
        "replication_standbys_in_sync",
        Gauge,
        "Standbys that may take over, by the arbiter's record as it is known here.",
        set.map_or(0, |set| set.in_sync.len()),
    );
    if let Some(set) = set {
        of_set(text, set);
        of_standbys(text, &set.standbys);
    }
}

fn of_set(text: &mut Text, set: &Figures) {
    text.head("replication_info", Gauge, "The replica set, and this member of it.");
    text.sample("replication_info", &format!("set=\"{}\",member=\"{}\"", set.set, set.member), 1);
    text.one("replication_term", Gauge, "Term, by the arbiter's record.", set.term.0);
    text.one(
        "replication_arbiter_up",
        Gauge,
        "1 if the arbiter answered when it was last asked.",
        u8::from(set.arbiter_unreachable.is_none()),
    );
    for (name, help, position) in [
        (
            "replication_last_record",
            "Position of the last record that was appended, or received by a standby.",
            set.last,
        ),
        (
            "replication_executed_record",
            "Position of the last record that was executed here.",
            set.executed,
        ),
        (
            "replication_released_record",
            "Output that depends on records up to this position has left.",
            set.released,
        ),
    ] {
        text.one(name, Gauge, help, position);
    }
    text.one(
        "replication_log_bytes_total",
        Counter,
        "Bytes of records that were appended or received here.",
        set.log_bytes,
    );
    text.one(
        "replication_slowed_down",
        Gauge,
        "1 while the VM is slowed down, as a standby is too far behind.",
        u8::from(set.slowed_down),
    );
    text.one(
        "replication_divergences_total",
        Counter,
        "Copies of the VM that diverged, as far as this member has seen.",
        set.divergences,
    );
    text.one(
        "replication_takeovers_total",
        Counter,
        "How often this member became the primary.",
        set.takeovers,
    );
    if let Some(silent) = set.primary_silent {
        text.one(
            "replication_primary_silent_seconds",
            Gauge,
            "For a standby, time since its primary was last heard of.",
            silent.as_secs_f64(),
        );
    }
}

/// A standby's figure: its name, what it is, and its value.
type Figure = (&'static str, &'static str, fn(&StandbyFigures) -> f64);

const FIGURES: [Figure; 7] = [
    ("in_sync", "1 if the VM is protected by this standby, by the arbiter's record.", |s| {
        f64::from(u8::from(s.in_sync))
    }),
    ("unreceived_records", "Records that have not arrived there, by its last ack.", |s| {
        s.not_received as f64
    }),
    ("unexecuted_records", "Records that have not been executed there, by its last ack.", |s| {
        s.not_executed as f64
    }),
    ("lag_seconds", "Age of the oldest record that has not been executed there.", |s| {
        s.lag.as_secs_f64()
    }),
    ("lag_bytes", "Size of the records that have not been executed there, rounded up.", |s| {
        s.lag_bytes as f64
    }),
    ("round_trip_seconds", "Time from sending records there to their ack.", |s| {
        s.round_trip.as_secs_f64()
    }),
    ("silent_seconds", "Time since the standby was last heard of.", |s| s.silent.as_secs_f64()),
];

fn of_standbys(text: &mut Text, standbys: &[StandbyFigures]) {
    if standbys.is_empty() {
        return;
    }
    for (name, help, value) in FIGURES {
        let name = format!("replication_standby_{name}");
        text.head(&name, Gauge, help);
        for standby in standbys {
            text.sample(&name, &format!("standby=\"{}\"", standby.member), value(standby));
        }
    }
}

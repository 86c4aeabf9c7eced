//! QEMU's own live migration from one [`Machine`] to another, and what it cost.
//!
//! Without quiescing, QEMU alone decides when to stop the guest: that is the reference. With
//! quiescing, the guest is asked first and stays quiescent for the whole copy, because QEMU has no
//! hook between its last round and its stop: that proves that state arrives intact, and is not a
//! result to compare.

use crate::machine::Machine;
use crate::qmp::{Event, Qmp};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::{Duration, Instant};
use vmm_lite_interface::control::ResumeReason;

/// How to migrate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the destination listens and the source connects: `tcp:ADDRESS:PORT` or `unix:PATH`.
    pub uri: String,
    /// How long QEMU may stop the guest, in milliseconds: it continues copying until it expects to
    /// stay within that.
    pub downtime_limit_ms: u64,
    /// Rate limit, in bytes per second.
    pub max_bandwidth: u64,
    /// Quiesce the guest first with this number, and resume it at the destination.
    pub quiesce: Option<u32>,
    /// How long everything may take.
    pub timeout: Duration,
}

impl Options {
    /// Uses `uri` without a rate limit, with a downtime limit of 1 ms.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            downtime_limit_ms: 1,
            max_bandwidth: 10 << 30,
            quiesce: None,
            timeout: Duration::from_secs(30),
        }
    }
}

/// What a migration cost, by QEMU's and this host's clock.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `query-migrate`: downtime.
    pub downtime_ms: u64,
    /// `query-migrate`: total time.
    pub total_ms: u64,
    /// `query-migrate`: setup time.
    pub setup_ms: u64,
    /// From the source's STOP event to the destination's RESUME event. QEMU sends the first after
    /// it has stopped the vCPU, the second before it starts it: the blackout is longer than this.
    pub stop_to_resume_us: i64,
    /// From the call of [`migrate`] until the destination ran, and was resumed if it was quiesced.
    pub switched_us: u64,
    /// Bytes sent.
    pub transferred: u64,
    /// Pages sent with their content.
    pub pages: u64,
    /// How often the dirty bitmap was read.
    pub rounds: u64,
    /// If the guest was quiesced: how long it took to answer.
    pub quiesce_us: Option<u64>,
    /// If the guest was quiesced: from its `quiesced` to its `resumed`.
    pub quiescent_us: Option<u64>,
}

/// `query-migrate`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Info {
    /// `active`, `completed`, `failed` …
    #[serde(default)]
    pub status: String,
    /// Milliseconds since it began, or its total duration.
    #[serde(default)]
    pub total_time: u64,
    /// Milliseconds that the guest was stopped.
    #[serde(default)]
    pub downtime: u64,
    /// Milliseconds until the first page.
    #[serde(default)]
    pub setup_time: u64,
    /// Why it failed.
    #[serde(default)]
    pub error_desc: String,
    /// About memory.
    #[serde(default)]
    pub ram: RamInfo,
}

/// The memory part of [`Info`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RamInfo {
    /// Bytes sent.
    pub transferred: u64,
    /// Pages sent with their content.
    pub normal: u64,
    /// Pages that were all zero.
    pub duplicate: u64,
    /// How often the dirty bitmap was read.
    pub dirty_sync_count: u64,
    /// Bytes still to be sent.
    pub remaining: u64,
}

/// Queries the state of this machine's migration.
///
/// # Errors
/// Errors of the monitor.
pub fn query(qmp: &mut Qmp) -> Result<Info> {
    let value = qmp.execute("query-migrate", json!({}))?;
    serde_json::from_value(value)
        .map_err(|e| Error::Protocol { channel: "query-migrate", message: e.to_string() })
}

/// Moves the guest of `source` to `destination`, which was started with `incoming` and otherwise
/// the same configuration.
///
/// After an error the guest is where QEMU left it: if the migration failed, at the source, resumed.
///
/// # Errors
/// [`Error::Migration`] if QEMU's migration failed; otherwise errors of the monitor and of the
/// quiesce port.
pub fn migrate(
    source: &mut Machine,
    destination: &mut Machine,
    options: &Options,
) -> Result<Report> {
    steps(source, destination, options).map_err(|error| {
        let error = source.explain(error, "the source had given its guest away");
        destination.explain(error, "the destination had taken the guest over")
    })
}

fn steps(source: &mut Machine, destination: &mut Machine, options: &Options) -> Result<Report> {
    prepare(source.qmp(), options)?;
    prepare(destination.qmp(), options)?;
    destination.qmp().execute("migrate-incoming", json!({ "uri": options.uri }))?;
    source.qmp().forget_events()?;

    let began = Instant::now();
    let quiesced = match options.quiesce {
        Some(number) => {
            let took = port(source)?.quiesce(number, options.timeout)?;
            Some((number, took, Instant::now()))
        }
        None => None,
    };
    let moved = run(source, destination, options);
    let (info, stop_to_resume_us) = match (moved, quiesced) {
        (Ok(moved), _) => moved,
        (Err(error @ Error::Migration { .. }), Some((number, ..))) => {
            port(source)?.resume(number, ResumeReason::Resumed, options.timeout)?;
            return Err(error);
        }
        (Err(error), _) => return Err(error),
    };
    let mut quiescent = None;
    if let Some((number, _, at)) = quiesced {
        port(destination)?.resume(number, ResumeReason::Migrated, options.timeout)?;
        quiescent = Some(at.elapsed());
    }
    Ok(Report {
        downtime_ms: info.downtime,
        total_ms: info.total_time,
        setup_ms: info.setup_time,
        stop_to_resume_us,
        switched_us: micros(began.elapsed()),
        transferred: info.ram.transferred,
        pages: info.ram.normal,
        rounds: info.ram.dirty_sync_count,
        quiesce_us: quiesced.map(|(_, took, _)| micros(took)),
        quiescent_us: quiescent.map(micros),
    })
}

pub(crate) fn prepare(qmp: &mut Qmp, options: &Options) -> Result<()> {
    let events = json!([{ "capability": "events", "state": true }]);
    qmp.execute("migrate-set-capabilities", json!({ "capabilities": events }))?;
    let parameters = json!({
        "downtime-limit": options.downtime_limit_ms,
        "max-bandwidth": options.max_bandwidth,
    });
    qmp.execute("migrate-set-parameters", parameters).map(drop)
}

/// Runs the migration. Returns the source's measurements, and the time from its stop to the
/// destination's start.
fn run(source: &mut Machine, destination: &mut Machine, options: &Options) -> Result<(Info, i64)> {
    let qmp = source.qmp();
    let (info, stopped_us) = send(qmp, options)?;
    let resumed =
        destination.qmp().wait_event("RESUME at the destination", options.timeout, |event| {
            event.name == "RESUME"
        })?;
    Ok((info, resumed.at_us() - stopped_us))
}

/// Sends the guest away and waits for the end. Returns the measurements, and the time of QEMU's
/// STOP event.
pub(crate) fn send(qmp: &mut Qmp, options: &Options) -> Result<(Info, i64)> {
    qmp.execute("migrate", json!({ "uri": options.uri }))?;
    let mut stopped_us = 0;
    let ended = loop {
        let event = qmp.wait_event("end of the migration", options.timeout, |_| true)?;
        match event.name.as_str() {
            "STOP" => stopped_us = event.at_us(),
            "MIGRATION" if has_ended(&event) => break event,
            _ => {}
        }
    };
    if ended.data["status"] != "completed" {
        let info = query(qmp)?;
        return Err(Error::Migration { status: info.status, description: info.error_desc });
    }
    Ok((final_figures(qmp, options.timeout)?, stopped_us))
}

/// `query-migrate` after a completed migration. QEMU sums up only after it has sent its last event,
/// and sends none for that; its run state, which it sets last, shows it.
fn final_figures(qmp: &mut Qmp, timeout: Duration) -> Result<Info> {
    let deadline = Instant::now() + timeout;
    loop {
        let state = qmp.execute("query-status", json!({}))?;
        if state["status"] == "postmigrate" {
            return query(qmp);
        }
        if Instant::now() > deadline {
            return Err(Error::Timeout {
                expected: "run state `postmigrate`".to_owned(),
                timeout,
                last_seen: state.to_string(),
            });
        }
        std::thread::yield_now();
    }
}

fn has_ended(event: &Event) -> bool {
    ["completed", "failed", "cancelled"].iter().any(|&status| event.data["status"] == status)
}

fn port(machine: &mut Machine) -> Result<&mut crate::quiesce::QuiesceUart> {
    machine.quiesce().ok_or(Error::Closed("the quiesce UART (the machine was started without)"))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

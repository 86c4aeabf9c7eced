//! QEMU's own way to save a guest to a file while it runs, and to start one from it: a migration to
//! a command that writes, and from one that reads. (`savevm` stops the guest for all of it, and
//! needs a disk image with room for the state.)

use crate::machine::Machine;
use crate::migration::{self, Options};
use crate::{Error, Result};
use serde::Serialize;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// What saving cost, as QEMU has it.
#[derive(Clone, Debug, Serialize)]
pub struct Saved {
    /// `query-migrate`: downtime.
    pub downtime_ms: u64,
    /// From the STOP event to the RESUME event of the same machine, which is told to go on as soon
    /// as QEMU takes that. QEMU sends the first after it has stopped the vCPU, the second before it
    /// starts it: the pause is longer than this.
    pub stop_to_resume_us: i64,
    /// Bytes written.
    pub transferred: u64,
    /// How often the dirty bitmap was read.
    pub rounds: u64,
}

/// Saves the guest of `machine` to `file` while it runs, as fast as it goes, and lets it go on.
/// QEMU stops it when it expects to be done within `downtime_limit_ms`.
///
/// # Errors
/// [`Error::Migration`] if QEMU gave up: the guest runs on then. Else those of the monitor.
pub fn to_file(machine: &mut Machine, file: &Path, downtime_limit_ms: u64) -> Result<Saved> {
    let uri = format!("exec:cat > {}", quoted(file)?);
    let options = Options { downtime_limit_ms, ..Options::new(uri) };
    steps(machine, &options).map_err(|error| machine.explain(error, "the guest was saved"))
}

fn steps(machine: &mut Machine, options: &Options) -> Result<Saved> {
    let qmp = machine.qmp();
    migration::prepare(qmp, options)?;
    qmp.forget_events()?;
    let (info, stopped_us) = migration::send(qmp, options)?;
    qmp.execute("cont", json!({}))?;
    let resumed = qmp.wait_event("RESUME", options.timeout, |event| event.name == "RESUME")?;
    Ok(Saved {
        downtime_ms: info.downtime,
        stop_to_resume_us: resumed.at_us() - stopped_us,
        transferred: info.ram.transferred,
        rounds: info.ram.dirty_sync_count,
    })
}

/// Where a machine is [`incoming`](crate::Config::incoming) from that was saved to `file`.
///
/// # Errors
/// [`Error::Protocol`] for a path that a shell would not take.
pub fn source(file: &Path) -> Result<String> {
    Ok(format!("exec:cat {}", quoted(file)?))
}

/// Waits until the guest of a machine that is [from a file](source) runs.
///
/// # Errors
/// [`Error::Ended`] with QEMU's message if it does not take the file; [`Error::Timeout`].
pub fn wait_running(machine: &mut Machine, timeout: Duration) -> Result<()> {
    let began = Instant::now();
    // The event may have been before the monitor was asked for the first time.
    let state = machine.qmp().execute("query-status", json!({}));
    let waited = state.and_then(|state| match state["running"].as_bool() {
        Some(true) => Ok(()),
        _ => machine
            .qmp()
            .wait_event("RESUME", timeout.saturating_sub(began.elapsed()), |e| e.name == "RESUME")
            .map(drop),
    });
    waited.map_err(|error| machine.explain(error, "its guest ran"))
}

/// A path as a word for the shell.
fn quoted(file: &Path) -> Result<String> {
    match file.to_str() {
        Some(path) if !path.contains('\'') => Ok(format!("'{path}'")),
        _ => Err(Error::Protocol { channel: "the shell", message: file.display().to_string() }),
    }
}

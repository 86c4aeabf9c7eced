//! QEMU's own way to save a running guest to a file, and to start one from it: a migration to a
//! command that writes, and from one that reads. (`savevm` stops the guest for all of it, and needs
//! a disk image with room for the state.)

use crate::machine::Machine;
use crate::migration::{self, Options};
use crate::{Error, Result};
use serde::Serialize;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a save cost, as QEMU reports it.
#[derive(Clone, Debug, Serialize)]
pub struct Saved {
    /// `query-migrate`: downtime.
    pub downtime_ms: u64,
    /// From the STOP event to the RESUME event of the same machine, which is resumed as soon as
    /// QEMU accepts that. QEMU sends the first after it has stopped the vCPU, the second before it
    /// starts it: the pause is longer than this.
    pub stop_to_resume_us: i64,
    /// Bytes written.
    pub transferred: u64,
    /// How often the dirty bitmap was read.
    pub rounds: u64,
}

/// Saves the guest of `machine` to `file` while it runs, without a rate limit, and resumes it. QEMU
/// stops it when it expects to finish within `downtime_limit_ms`.
///
/// # Errors
/// [`Error::Migration`] if QEMU's migration failed: the guest then keeps running. Otherwise errors
/// of the monitor.
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

/// The value of [`incoming`](crate::Config::incoming) for a machine that was saved to `file`.
///
/// # Errors
/// [`Error::Protocol`] for a path that the shell would misread.
pub fn source(file: &Path) -> Result<String> {
    Ok(format!("exec:cat {}", quoted(file)?))
}

/// Waits until the guest of a machine that is started [from a file](source) runs.
///
/// # Errors
/// [`Error::Ended`] with QEMU's message if it refuses the file; [`Error::Timeout`].
pub fn wait_running(machine: &mut Machine, timeout: Duration) -> Result<()> {
    let began = Instant::now();
    // The event may precede the monitor's first request.
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

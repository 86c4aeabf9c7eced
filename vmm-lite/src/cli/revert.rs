//! `vmm-lite revert`.

use super::waiting::{Teller, Wait};
use api::verb::{Clock, Revert};
use std::{os::fd::AsFd, path::PathBuf, process::ExitCode};
use vmm::snapshot::load;

const EXAMPLES: &str = "\
The VM becomes what it was, in its place: same process, name, TAP device and addresses. What it \
did since is lost. Its program is told by its resume hooks, and its random
numbers start anew. If that cannot be, it is left as it is and runs on.

Examples:
  vmm-lite snapshot kv before.snap && upgrade || vmm-lite revert kv before.snap";

/// Put a VM back to its state in a snapshot
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name of the VM
    name: String,
    /// The snapshot
    file: PathBuf,
    /// How its monotonic clock (`Instant`) continues from the snapshot's; the wall clock
    /// (`SystemTime`) is the host's
    #[arg(long, value_name = "HOW", default_value = "continue",
        value_parser = super::choices::clock(Clock::Continue, Clock::Jump))]
    clock: Clock,
    #[command(flatten)]
    wait: Wait,
    /// Print the report as one JSON object; times in nanoseconds
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// If there is no such VM, or it cannot be reverted to that file: then the VM keeps running.
pub fn run(args: Args) -> super::Result {
    let mut client = super::connect(&args.name)?;
    let file =
        files::open(&args.file).map_err(|e| format!("cannot read {}: {e}", args.file.display()))?;
    load::open(file.try_clone()?)?;
    let request = Revert { clock: args.clock, timeout_ns: args.wait.timeout_ns() };
    let mut teller = Teller::default();
    let report = client.call_with(request, &[file.as_fd()], |progress| {
        teller.tell(&progress);
    })?;
    if args.json {
        super::print_json(&report)?;
    } else {
        let ms = report.pause_ns as f64 / 1e6;
        println!("{} is reverted; it was paused for {ms:.1} ms", args.name);
    }
    Ok(ExitCode::SUCCESS)
}

//! `vmm-lite revert`.

use super::waiting::{Teller, Wait};
use serde_json::json;
use std::{os::fd::AsFd, path::PathBuf, process::ExitCode};
use vmm::snapshot::{GuestClock, load};

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
    #[arg(long, value_name = "HOW", value_parser = super::choices::clock(),
        default_value = "continue")]
    clock: GuestClock,
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
    let mut request = json!({ "verb": "revert", "clock": args.clock });
    args.wait.to_request(&mut request);
    let mut teller = Teller::default();
    let report = client.request_with(&request, &[file.as_fd()], |progress| {
        teller.tell(&progress);
    })?;
    if args.json {
        println!("{report}");
    } else {
        let ns = report["pause_ns"].as_f64().unwrap_or_default();
        println!("{} is reverted; it was paused for {:.1} ms", args.name, ns / 1e6);
    }
    Ok(ExitCode::SUCCESS)
}

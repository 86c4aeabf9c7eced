//! `vmm-lite unprotect`.

use super::arguments;
use api::verb::Unprotect;
use std::{process::ExitCode, time::Duration};

/// End the protection of a VM; its standbys end
///
/// The VM runs on where it is. Without the arbiter's answer it stays protected.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  vmm-lite unprotect kv")]
pub struct Args {
    /// Name of the VM
    name: String,
    /// How long to wait for the arbiter
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = arguments::duration)]
    timeout: Duration,
}

/// Runs the verb.
///
/// # Errors
/// If there is no such VM, or it stays protected.
pub fn run(args: Args) -> super::Result {
    let timeout_ns = Some(api::nanoseconds(args.timeout));
    super::connect(&args.name)?.call(Unprotect { timeout_ns })?;
    Ok(ExitCode::SUCCESS)
}

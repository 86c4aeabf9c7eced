//! `vmm-lite pause`.

use api::verb::Pause;
use std::process::ExitCode;

/// Pause a VM
///
/// Its packets wait in the TAP device while that has room, and its clock continues.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  vmm-lite pause kv && sleep 1 && vmm-lite resume kv\n  vmm-lite \
        pause kv --quiesce 100 --json"
)]
pub struct Args {
    /// Name of the VM
    name: String,
    /// First run the program's quiesce hooks, for at most this many milliseconds
    #[arg(long, value_name = "MS")]
    quiesce: Option<u64>,
    /// Print the answer as JSON: whether the guest was quiescent, and how long the stop took
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// If there is no such VM, or it refuses.
pub fn run(args: Args) -> super::Result {
    let answer = super::connect(&args.name)?.call(Pause { quiesce_ms: args.quiesce })?;
    if args.json {
        super::print_json(&answer)?;
    }
    Ok(ExitCode::SUCCESS)
}

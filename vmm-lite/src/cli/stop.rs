//! `vmm-lite stop`.

use std::process::ExitCode;

/// Stop a VM
///
/// At once, without asking its program: output that it has not sent or printed is lost. Its `run`
/// ends with code 143.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name of the VM
    name: String,
    /// End it even if another host may need what only this process has: a VM that was handed over,
    /// and whose memory may still be in transit. That memory is lost
    #[arg(long)]
    force: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// If there is no such VM, or it refuses.
pub fn run(args: Args) -> super::Result {
    let answer = super::connect(&args.name)?.stop(args.force)?;
    if args.json {
        super::print_json(&answer)?;
    }
    Ok(ExitCode::SUCCESS)
}

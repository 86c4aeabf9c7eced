//! `vmm-lite resume`.

use api::verb::Resume;
use std::process::ExitCode;

/// Resume a paused VM
///
/// The guest's clock continued while it was paused, and the guest is told for how long.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name of the VM
    name: String,
    /// Run a VM that was handed to another host which has not reported the outcome since. YOU vouch
    /// that it does not run there and never will: if it does, there are two of it, with one address
    /// and two memories. It continues as it was when it was handed over, and `stats` says so from
    /// then on
    #[arg(long = "i-know-it-runs-nowhere-else")]
    runs_nowhere_else: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// If there is no such VM, or it refuses.
pub fn run(args: Args) -> super::Result {
    let Args { runs_nowhere_else, .. } = args;
    let answer = super::connect(&args.name)?.call(Resume { runs_nowhere_else })?;
    if runs_nowhere_else {
        eprintln!(
            "vmm-lite: WARNING: {} runs here on your word that it runs nowhere else, as it was \
             when it was handed over",
            args.name
        );
    }
    if args.json {
        super::print_json(&answer)?;
    }
    Ok(ExitCode::SUCCESS)
}

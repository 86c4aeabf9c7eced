//! `vmm-lite resume`.

use crate::control::Client;
use std::process::ExitCode;

/// Let a paused VM run on
///
/// The guest's clock went on while it was paused, and the guest is told for how long.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name of the VM
    name: String,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// When there is no such VM, or it refuses.
pub fn run(args: Args) -> super::Result {
    let answer = Client::connect(&args.name)?.call("resume")?;
    if args.json {
        println!("{answer}");
    }
    Ok(ExitCode::SUCCESS)
}

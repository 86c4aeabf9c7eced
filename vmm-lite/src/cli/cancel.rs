//! `vmm-lite cancel`.

use api::verb::Cancel;
use std::process::ExitCode;

/// Cancel the move of a VM
///
/// Before the switch the VM keeps running here as if no move had begun. After the switch there is
/// nothing left to cancel.
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
/// If there is no such VM, or it is not being moved.
pub fn run(args: Args) -> super::Result {
    let answer = super::connect(&args.name)?.call(Cancel {})?;
    if args.json {
        super::print_json(&answer)?;
    }
    Ok(ExitCode::SUCCESS)
}

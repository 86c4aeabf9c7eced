//! `vmm-lite cancel`.

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
    let answer = super::connect(&args.name)?.call("cancel")?;
    if args.json {
        println!("{answer}");
    }
    Ok(ExitCode::SUCCESS)
}

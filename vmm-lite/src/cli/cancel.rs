//! `vmm-lite cancel`.

use std::process::ExitCode;

/// Call off the move of a VM that is under way
///
/// Until the VM has left, it runs on here as if nothing had been tried. After the switch there is
/// nothing left to be called off.
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
/// When there is no such VM, or it is not being moved.
pub fn run(args: Args) -> super::Result {
    let answer = super::connect(&args.name)?.call("cancel")?;
    if args.json {
        println!("{answer}");
    }
    Ok(ExitCode::SUCCESS)
}

//! `vmm-lite receive`.

/// Wait for a VM that moves here, and run it
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the verb.
///
/// # Errors
/// Always: this verb is being written.
pub fn run(_args: Args) -> super::Result {
    Err("`vmm-lite receive` is not written yet".into())
}

//! `vmm-lite run`.

/// Run an image as a VM
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the verb.
///
/// # Errors
/// Always: this verb is being written.
pub fn run(_args: Args) -> super::Result {
    Err("`vmm-lite run` is not written yet".into())
}

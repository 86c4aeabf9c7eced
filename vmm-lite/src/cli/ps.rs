//! `vmm-lite ps`.

/// List the VMs that run
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the verb.
///
/// # Errors
/// Always: this verb is being written.
pub fn run(_args: Args) -> super::Result {
    Err("`vmm-lite ps` is not written yet".into())
}

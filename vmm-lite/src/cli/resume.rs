//! `vmm-lite resume`.

/// Let a paused VM run on
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the verb.
///
/// # Errors
/// Always: this verb is being written.
pub fn run(_args: Args) -> super::Result {
    Err("`vmm-lite resume` is not written yet".into())
}

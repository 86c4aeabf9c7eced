//! `vmm-lite migrate`.

/// Move a VM to another host
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the verb.
///
/// # Errors
/// Always: this verb is being written.
pub fn run(_args: Args) -> super::Result {
    Err("`vmm-lite migrate` is not written yet".into())
}

//! `vmm-lite build`.

/// Make a unikernel image from a Rust crate
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the verb.
///
/// # Errors
/// Always: this verb is being written.
pub fn run(_args: Args) -> super::Result {
    Err("`vmm-lite build` is not written yet".into())
}

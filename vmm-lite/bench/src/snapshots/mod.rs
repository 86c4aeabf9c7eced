//! Snapshots of the same image by vmm-lite and by QEMU, alternately, and what is started from them.
//!
//! - [`saves`]: how long the guest is stopped while it is saved, what a client sees of that, how
//!   large the file is
//! - [`restores`]: from exec to the first reply of a store
//! - [`first_instruction`]: from exec to the guest's first instruction, for guests of three sizes
//! - [`forks`]: many from one; `idle`: what each costs
//!
//! QEMU 7.2 saves a running guest by a migration to a file, and starts from it by `-incoming`.
//! Files are in the system's temporary directory and in the page cache when they are read.

mod client;
mod first_instruction;
mod forks;
mod idle;
mod restores;
mod saves;
mod table;

use serde::Serialize;
use vmm_lite_lab::{Result, runtime_dir::RuntimeDir, site::Site};

use crate::options::Options;

/// Samples of one system before the other follows.
const BLOCK: u32 = 10;
/// How long QEMU may expect to stop a guest that is saved, in ms, as for its moves.
const LIMIT_MS: u64 = 1;

/// All measurements.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshots {
    /// See [`saves`].
    pub saves: Vec<saves::Scenario>,
    /// See [`restores`].
    pub restores: Vec<restores::Figures>,
    /// See [`first_instruction`].
    pub first_instruction: Vec<first_instruction::Figures>,
    /// See [`forks`].
    pub forks: Vec<forks::Figures>,
}

/// Runs all measurements.
pub fn run(options: &Options) -> Result<Snapshots> {
    let site = Site::new()?;
    let dir = RuntimeDir::new()?;
    Ok(Snapshots {
        saves: saves::run(options, &site, dir.path())?,
        restores: restores::run(options, &site, dir.path())?,
        first_instruction: first_instruction::run(options, &site, dir.path())?,
        forks: forks::run(options, &site, dir.path())?,
    })
}

//! Command-line options of the jail.

use std::path::PathBuf;
use vmm::host::confine::jail::{Jail, Part};

/// Options for the jail.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct Args {
    /// Put the process into a jail: a user of its own, no access to files or the network, limits
    /// for memory, CPU time and threads. A part that this host cannot provide is an error.
    /// `vmm-lite stats` shows the jail
    #[arg(long)]
    jail: bool,

    /// Leave out parts of the jail; may be repeated
    #[arg(long, value_name = "PART", value_parser = super::choices::part(), value_delimiter = ',',
        requires = "jail")]
    jail_without: Vec<Part>,

    /// The cgroup (v2) in which the jail gets one of its own, with memory.max, cpu.max and pids.max
    /// [default: vmm-lite, at the root of the hierarchy]
    #[arg(long, value_name = "DIRECTORY", requires = "jail")]
    jail_cgroup: Option<PathBuf>,
}

impl Args {
    /// The jail, if it was requested.
    #[must_use]
    pub fn jail(&self) -> Option<Jail> {
        let (without, cgroup) = (self.jail_without.clone(), self.jail_cgroup.clone());
        self.jail.then_some(Jail { without, cgroup })
    }
}

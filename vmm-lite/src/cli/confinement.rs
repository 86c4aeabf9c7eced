//! Options for the confinement of a VM's process.

use super::{
    arguments::{self, Watchdog},
    jail, rates,
};
use serde::{Deserialize, Serialize};
use std::{io, os::fd::RawFd};
use vmm::{
    devices::throttle::Rates,
    host::confine::{
        self, Mode, files,
        jail::{Jail, Part},
        privileges::{self, Identity},
    },
    host::watchdog,
};

/// Which user the process becomes, and what it may then do.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Confinement")]
#[group(skip)]
pub struct Args {
    /// Change to this user once everything that takes privileges is open
    #[arg(long, value_name = "USER|UID")]
    pub user: Option<String>,

    /// With --user: its group [default: the user's]
    #[arg(long, value_name = "GROUP|GID", requires = "user")]
    group: Option<String>,

    /// What happens to a thread that makes a system call outside its filter
    #[arg(long, value_parser = super::choices::seccomp(), value_name = "MODE",
        default_value = "kill")]
    seccomp: Mode,

    /// Filter no system calls, like --seccomp off: for debuggers and profilers
    #[arg(long, conflicts_with = "seccomp")]
    no_seccomp: bool,

    /// Let the guest send packets from any address. Otherwise the VMM drops and counts frames whose
    /// Ethernet or IPv4 source (in ARP the sender) is not the guest's own, and frames of protocols
    /// other than IPv4 and ARP
    #[arg(long)]
    allow_spoofing: bool,

    #[command(flatten)]
    jail: jail::Args,

    #[command(flatten)]
    rates: rates::Args,
    /// Warn when a thread of this process owes an answer for longer than this and hangs; `off`:
    /// never. See docs/watchdog.md
    #[arg(long, value_name = "TIME|off", default_value = "5s", value_parser = arguments::watchdog)]
    #[arg(help_heading = "Supervision")]
    watchdog: Watchdog,
}

/// A process that will be confined.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Confinement {
    identity: Option<Identity>,
    jail: Option<Jail>,
    mode: Mode,
    /// Whether the guest may send from any address.
    pub allow_spoofing: bool,
    /// Rate limits of its network and console.
    pub rates: Rates,
    /// How long a thread may take to answer.
    watchdog: Watchdog,
}

impl Args {
    /// Call this before the process opens anything: closes inherited descriptors except `keep`, and
    /// looks up the user.
    ///
    /// # Errors
    /// Wrong arguments, or the host's error.
    pub fn begin(&self, keep: &[RawFd]) -> Result<Confinement, confine::Error> {
        files::close_inherited(keep)?;
        let identity = Identity::find(self.user.as_deref(), self.group.as_deref())?;
        let mode = if self.no_seccomp { Mode::Off } else { self.seccomp };
        let (allow_spoofing, rates) = (self.allow_spoofing, self.rates.rates());
        Ok(Confinement {
            identity,
            jail: self.jail.jail(),
            mode,
            allow_spoofing,
            rates,
            watchdog: self.watchdog,
        })
    }
}

impl Confinement {
    /// For a process without options about it, which keeps its user.
    #[must_use]
    pub fn usual() -> Self {
        Self {
            identity: None,
            jail: None,
            mode: Mode::Kill,
            allow_spoofing: false,
            rates: Rates::default(),
            watchdog: Watchdog(None),
        }
    }

    /// What happens to a thread that makes a system call outside its filter.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Starts the watchdog for the process's threads. Call it once the calling thread is confined.
    ///
    /// # Errors
    /// If the host cannot start a thread for it.
    pub fn watch(&self) -> io::Result<()> {
        watchdog::start(self.watchdog.0)
    }

    /// Whether the process cannot open files once it is confined.
    #[must_use]
    pub fn jails_files(&self) -> bool {
        self.jail.as_ref().is_some_and(|jail| !jail.without.contains(&Part::Files))
    }

    /// Whether the process cannot open anything once it is confined.
    #[must_use]
    pub fn opens_nothing(&self) -> bool {
        self.identity.is_some() || self.jail.is_some()
    }

    /// Gives up what the process does not need once everything is open, and makes
    /// [`confine::enter`] confine each thread from now on. Call it while there is only one thread,
    /// for a VM with at most `memory` bytes of memory.
    ///
    /// # Errors
    /// The host's error: the process must then not continue.
    pub fn enter(&self, memory: u64) -> Result<(), confine::Error> {
        let jail = self.jail.as_ref().map(|jail| jail.enter(memory, self.identity)).transpose()?;
        privileges::drop_to(jail.as_ref().map_or(self.identity, |jail| jail.user))?;
        if let Some(jail) = jail {
            jail.finish()?;
        }
        confine::arm(self.mode)
    }
}

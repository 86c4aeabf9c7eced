//! A jail: it takes away whatever the process of a VM does not need.
//!
//! In addition to what every VM's process gives up, a jailed one has a user of its own, no access
//! to files or the network, and resource limits. A part that cannot be set up is an error and is
//! never left out silently: a jail without effect would be worse than none.
//!
//! - [`cgroup`][]: limits
//! - [`files`][]: Landlock
//! - [`network`][]: a network namespace

pub mod cgroup;
pub mod files;
pub mod network;

use super::{Error, privileges::Identity};
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, sync::OnceLock};

/// User ids that no host assigns, with room for all process ids: each process adds its own id.
const FIRST_USER: u32 = 0x7000_0000;

/// A part of a jail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Part {
    /// A user of its own, where --user names none
    User,
    /// No file can be opened and no TCP port listened on (Landlock)
    Files,
    /// No network but the TAP device and the open listening sockets (network namespace)
    Network,
    /// Limits for memory, CPU time and threads (cgroup v2)
    Cgroup,
}

impl Part {
    /// The part's name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Files => "files",
            Self::Network => "network",
            Self::Cgroup => "cgroup",
        }
    }
}

/// A jail, as requested.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Jail {
    /// Parts that are left out.
    pub without: Vec<Part>,
    /// The cgroup in which the VM gets its own.
    pub cgroup: Option<PathBuf>,
}

/// What jails a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Jailed {
    /// The user, which no other process has.
    pub user: Option<u32>,
    /// It can open no files.
    pub files: bool,
    /// It has a network of its own, with nothing in it.
    pub network: bool,
    /// Its own cgroup.
    pub cgroup: Option<PathBuf>,
}

static JAILED: OnceLock<Jailed> = OnceLock::new();

/// What jails this process, if it is in a jail.
#[must_use]
pub fn jailed() -> Option<&'static Jailed> {
    JAILED.get()
}

impl Jail {
    fn has(&self, part: Part) -> bool {
        !self.without.contains(&part)
    }

    /// The first half, while the process has its rights and one thread: limits for a VM of this
    /// memory size, and the network. Returns the user to become, if that is another one.
    ///
    /// # Errors
    /// [`Error::Jail`]: a part that this host cannot provide.
    pub fn enter(&self, memory: u64, user: Option<Identity>) -> Result<Entering, Error> {
        let cgroup = match self.has(Part::Cgroup) {
            true => Some(cgroup::join(self.cgroup.as_deref(), memory).map_err(part(Part::Cgroup))?),
            false => None,
        };
        let network = self.has(Part::Network);
        if network {
            network::leave().map_err(part(Part::Network))?;
        }
        let user = match user {
            None if self.has(Part::User) => Some(own_user()?),
            user => user,
        };
        Ok(Entering { user, files: self.has(Part::Files), network, cgroup })
    }
}

/// A process that is half in its jail.
#[derive(Debug)]
pub struct Entering {
    /// The user to become.
    pub user: Option<Identity>,
    files: bool,
    network: bool,
    cgroup: Option<PathBuf>,
}

impl Entering {
    /// The second half, after rights are given up. Call it while there is only one thread.
    ///
    /// # Errors
    /// [`Error::Jail`].
    pub fn finish(self) -> Result<(), Error> {
        if self.files {
            files::close().map_err(part(Part::Files))?;
        }
        let user = self.user.map(Identity::uid);
        let Self { files, network, cgroup, .. } = self;
        JAILED.get_or_init(|| Jailed { user, files, network, cgroup });
        Ok(())
    }
}

fn own_user() -> Result<Identity, Error> {
    if !Uid::effective().is_root() {
        let why = "only root can give a process a user of its own".into();
        return Err(part(Part::User)(why));
    }
    Ok(Identity::numbered(FIRST_USER + std::process::id()))
}

fn part(part: Part) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Error {
    move |source| Error::Jail { part: part.name(), source }
}

//! Waiting until all of a machine's memory is here: what every verb does first that copies the VM
//! or moves it on. See [`memory`](crate::memory) for the proof that comes of it.

use super::{CallOff, CalledOff, End, Vm};
use crate::{
    host::poll::Watch,
    memory::{Absent, Complete, Supply},
};
use std::{
    fmt, io,
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a source may be away before a verb that waits for its memory gives up. It tries to come
/// back twice a second.
const AWAY: Duration = Duration::from_secs(10);
/// How often a wait is told about.
const TELL: Duration = Duration::from_millis(500);

/// Why there was no use in waiting any longer. The VM is as it was before.
#[derive(thiserror::Error, Debug)]
pub enum Incomplete {
    /// The machine ended.
    #[error("the VM has ended: {0}")]
    Ended(Arc<End>),
    /// `vmm-lite cancel`.
    #[error("it was cancelled while it waited for {0}")]
    Cancelled(Waiting),
    /// The client that asked has gone.
    #[error("the client that asked for it went away while it waited for {0}")]
    AskerGone(Waiting),
    /// It took too long.
    #[error(
        "it took longer than the {timeout:?} it may take (--timeout), while it waited for {waiting}"
    )]
    Timeout {
        /// How long it may take.
        timeout: Duration,
        /// What for.
        waiting: Waiting,
    },
    /// The source has been away for too long.
    #[error(
        "the VM lacks {:.1} MiB of memory that only its source {} has, which is away ({why}): try \
         again when it is back, or end the VM with `vmm-lite stop`",
        waiting.mib(), waiting.supplier()
    )]
    Away {
        /// What it waited for.
        waiting: Waiting,
        /// Why the source is away.
        why: String,
    },
    /// What is missing never comes.
    #[error(
        "the VM lacks memory that never comes: it was lost with {0}, and the VM cannot be copied"
    )]
    Lost(String),
    /// A call to the host failed.
    #[error("cannot wait for memory that is not here yet")]
    Host(#[from] io::Error),
}

/// What is waited for, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    supply: Supply,
    /// Bytes that are missing, at most.
    pub bytes: u64,
    away: bool,
}

impl Waiting {
    fn of(absent: &Absent) -> Self {
        let bytes = absent.pages as u64 * crate::memory::PAGE as u64;
        Self { supply: absent.supply.clone(), bytes, away: absent.away.is_some() }
    }

    fn mib(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20)
    }

    fn supplier(&self) -> String {
        match &self.supply {
            Supply::Source(address) => address.clone(),
            Supply::Snapshot => "its snapshot file".into(),
            Supply::Unknown => "elsewhere".into(),
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.supply == Supply::Snapshot { "is loaded" } else { "follows" };
        write!(f, "{:.1} MiB of memory that still {verb} from {}", self.mib(), self.supplier())?;
        if self.away { write!(f, ", which is away") } else { Ok(()) }
    }
}

impl Vm {
    /// What of its memory is not here yet; `None` if all is.
    #[must_use]
    pub fn absent(&self) -> Option<Absent> {
        self.ram().absent()
    }

    /// Whether it runs here while memory follows from the source of the move that brought it.
    #[must_use]
    pub fn following(&self) -> bool {
        self.absent().is_some_and(|absent| matches!(absent.supply, Supply::Source(_)))
    }

    /// Whether its memory is still being loaded from a snapshot.
    #[must_use]
    pub fn loading(&self) -> bool {
        self.absent().is_some_and(|absent| absent.supply == Supply::Snapshot)
    }

    /// Waits until all memory is here, which what brings it goes on to do meanwhile, and so does
    /// the guest. `tell` is told now and then what is waited for; `false` from it ends the wait.
    ///
    /// # Errors
    /// [`Incomplete`].
    pub fn wait_complete(
        &self,
        call_off: CallOff,
        tell: &mut dyn FnMut(&Waiting) -> bool,
    ) -> Result<Complete<'_>, Incomplete> {
        loop {
            let Some(absent) = self.absent() else {
                // Complete once is complete for good.
                match self.ram().complete() {
                    Some(complete) => return Ok(complete),
                    None => continue,
                }
            };
            let waiting = Waiting::of(&absent);
            let now = Instant::now();
            let mut left = TELL;
            if absent.lost {
                return Err(Incomplete::Lost(waiting.supplier()));
            }
            if let Some((since, why)) = absent.away {
                let until = since + AWAY;
                if until <= now {
                    return Err(Incomplete::Away { waiting, why });
                }
                left = left.min(until - now);
            }
            if !tell(&waiting) {
                return Err(Incomplete::AskerGone(waiting));
            }
            let settled = absent.settled.as_ref().map_or(-1, |settled| settled.as_raw_fd());
            match call_off.wait(&[Watch::Readable(settled)], left)? {
                Ok(_) => {}
                Err(CalledOff::Cancelled) => return Err(Incomplete::Cancelled(waiting)),
                Err(CalledOff::ObserverGone) => return Err(Incomplete::AskerGone(waiting)),
                Err(CalledOff::Ended) => return Err(Incomplete::Ended(self.wait_end())),
                Err(CalledOff::Timeout(timeout)) => {
                    return Err(Incomplete::Timeout { timeout, waiting });
                }
            }
        }
    }
}

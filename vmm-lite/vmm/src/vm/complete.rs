//! Waits until all of a VM's memory is present: the first step of every verb that copies the VM or
//! moves it on. See [`memory`](crate::memory) for the resulting proof.

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

/// How long a source may be unreachable before a verb that waits for its memory fails. The source
/// tries to reconnect twice a second.
const AWAY: Duration = Duration::from_secs(10);
/// How often a wait is reported.
const TELL: Duration = Duration::from_millis(500);

/// Why the wait was ended. The VM is unchanged.
#[derive(thiserror::Error, Debug)]
pub enum Incomplete {
    /// The VM has ended.
    #[error("the VM has ended: {0}")]
    Ended(Arc<End>),
    /// `vmm-lite cancel`.
    #[error("it was cancelled while it waited for {0}")]
    Cancelled(Waiting),
    /// The client that requested it has disconnected.
    #[error("its client disconnected while it waited for {0}")]
    AskerGone(Waiting),
    /// The timeout expired.
    #[error(
        "it took longer than the {timeout:?} it may take (--timeout), while it waited for {waiting}"
    )]
    Timeout {
        /// How long it may take.
        timeout: Duration,
        /// What it waited for.
        waiting: Waiting,
    },
    /// The source has been unreachable for too long.
    #[error(
        "the VM lacks {:.1} MiB of memory that only its source {} has, which is away ({why}): try \
         again when it is back, or end the VM with `vmm-lite stop`",
        waiting.mib(), waiting.supplier()
    )]
    Away {
        /// What it waited for.
        waiting: Waiting,
        /// Why the source is unreachable.
        why: String,
    },
    /// The missing memory never arrives.
    #[error(
        "the VM lacks memory that never arrives: it was lost with {0}, and the VM cannot be copied"
    )]
    Lost(String),
    /// A call to the host failed.
    #[error("cannot wait for memory that is not here yet")]
    Host(#[from] io::Error),
}

/// What a wait is for, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    supply: Supply,
    /// Upper bound of the missing bytes.
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
    /// What is missing of its memory; `None` if nothing is.
    #[must_use]
    pub fn absent(&self) -> Option<Absent> {
        self.ram().absent()
    }

    /// Whether it runs here during post-copy from the source of its last move.
    #[must_use]
    pub fn following(&self) -> bool {
        self.absent().is_some_and(|absent| matches!(absent.supply, Supply::Source(_)))
    }

    /// Whether its memory is still being loaded from a snapshot.
    #[must_use]
    pub fn loading(&self) -> bool {
        self.absent().is_some_and(|absent| absent.supply == Supply::Snapshot)
    }

    /// Waits until all memory is present. Meanwhile the memory continues to arrive and the guest to
    /// run. It calls `tell` from time to time with what it waits for; `false` from `tell` ends the
    /// wait.
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
                // Memory that is complete stays complete.
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

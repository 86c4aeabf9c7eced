//! The phase of a VM, and waits for it to change.

use crate::{
    Control, Platform,
    sync::{MutexGuard, PoisonError},
};
use std::time::{Duration, Instant};

/// What the vCPUs of a VM do.
#[derive(Clone, Debug)]
pub enum Phase<E> {
    /// They run the guest, or wait for it.
    Running,
    /// They are stopped.
    Paused {
        /// The guest itself reported that it is quiescent.
        quiescent: bool,
        /// When they stopped.
        since: Instant,
    },
    /// They will not run again.
    Ended(E),
}

impl<E> Phase<E> {
    /// Whether it is [`Running`](Self::Running).
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }

    /// Whether it is [`Paused`](Self::Paused).
    pub fn is_paused(&self) -> bool {
        matches!(self, Self::Paused { .. })
    }

    /// Whether it is [`Ended`](Self::Ended).
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

/// What is decided under the lock.
pub(crate) struct State<E> {
    pub phase: Phase<E>,
    /// A thread holds the stopped VM.
    pub held: bool,
    /// The vCPUs that have not stopped since the last resume, a bit each.
    pub running: u64,
    /// One of those that have stopped was quiescent.
    pub quiescent: bool,
    /// How the VM ends when the last vCPU has stopped.
    pub end: Option<E>,
    /// Why it has to end, where the host failed: this takes precedence.
    pub failure: Option<E>,
}

impl<E: Clone> State<E> {
    /// The end, as an error.
    pub fn ended(&self) -> Result<(), E> {
        match &self.phase {
            Phase::Ended(end) => Err(end.clone()),
            Phase::Running | Phase::Paused { .. } => Ok(()),
        }
    }

    /// Whether a vCPU is to run.
    pub fn runs(&self, member: usize) -> bool {
        self.phase.is_running() && self.running & (1 << member) != 0
    }

    /// The last vCPU has stopped: the VM is paused, or has ended (`true`).
    pub fn all_stopped(&mut self) -> bool {
        self.running = 0;
        let quiescent = std::mem::take(&mut self.quiescent);
        // A failure of the host ends a VM only once its vCPUs have: before that it may be paused.
        self.phase = match self.end.take().map(|end| self.failure.take().unwrap_or(end)) {
            Some(end) => Phase::Ended(end),
            None => Phase::Paused { quiescent, since: Instant::now() },
        };
        self.phase.is_ended()
    }
}

impl<P: Platform> Control<P> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<P::End>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the vCPUs do now.
    pub fn phase(&self) -> Phase<P::End> {
        self.lock().phase.clone()
    }

    pub(crate) fn wait_changed<'c>(
        &'c self,
        state: MutexGuard<'c, State<P::End>>,
        timeout: Option<Duration>,
    ) -> MutexGuard<'c, State<P::End>> {
        P::waits(|| match timeout {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.changed.wait_timeout(state, timeout);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        })
    }

    /// Waits until `look` returns a value, or `deadline`. `look` is called with the phase, and
    /// whether a thread holds the VM, under the lock: at the beginning, and after every change of
    /// these and every [`changed`](Self::changed).
    pub fn wait_until<T>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut(&Phase<P::End>, bool) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&state.phase, state.held) {
                return Some(found);
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            state = self.wait_changed(state, left);
        }
    }

    /// Has all waiting threads look again, as something they look at has changed.
    pub fn changed(&self) {
        // Taking the lock once ensures that a waiting thread either sleeps or has yet to look.
        drop(self.lock());
        self.changed.notify_all();
    }
}

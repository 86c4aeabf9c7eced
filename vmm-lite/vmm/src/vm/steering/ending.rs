//! The end of a machine.

use super::Phase;
use crate::vm::{End, Error, shared::Shared};
use std::{
    os::fd::AsRawFd,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

/// How long a vCPU that is to end may take to leave the guest before what may hold it up is let go.
/// It takes tens of microseconds unless it waits for just that.
const LET_GO: Duration = Duration::from_millis(100);

impl Shared {
    /// Ends the machine, whatever it does.
    pub(in crate::vm) fn stop(&self, end: End) {
        self.end_soon();
        let mut control = self.lock_control();
        while matches!(control.phase, Phase::Running) {
            control = self.wait_changed(control, None);
        }
        if matches!(control.phase, Phase::Ended(_)) {
            return;
        }
        control.phase = Phase::Ended(Arc::new(end));
        drop(control);
        self.tell_end();
    }

    /// The vCPU is to stop, and does not run again.
    fn end_soon(&self) {
        self.stopping.store(true, SeqCst);
        self.stir();
    }

    /// Ends the machine because the host lets it down. What the guest does or waits for then has no
    /// part in how it ended. `let_go` ends what may hold up the vCPU's thread.
    pub(in crate::vm) fn fail(&self, why: Arc<End>, let_go: impl FnOnce()) {
        {
            let mut control = self.lock_control();
            if !matches!(control.phase, Phase::Ended(_)) {
                control.failure = Some(Arc::clone(&why));
            }
        }
        self.end_soon();
        // Most often it is out of the guest before anything is let go. Where it waits for what
        // `let_go` ends, a signal is pending, with which KVM enters no guest.
        let deadline = Instant::now() + LET_GO;
        let mut control = self.lock_control();
        while matches!(control.phase, Phase::Running) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            control = self.wait_changed(control, Some(left));
        }
        drop(control);
        let_go();
        let mut control = self.lock_control();
        while matches!(control.phase, Phase::Running) {
            control = self.wait_changed(control, None);
        }
        if matches!(control.phase, Phase::Paused { .. }) {
            control.phase = Phase::Ended(why);
            drop(control);
            self.tell_end();
        }
    }

    /// Makes a paused machine one that has ended.
    pub(in crate::vm) fn end_paused(&self, end: End) -> Result<(), Error> {
        let mut control = self.lock_control();
        control.ended()?;
        if matches!(control.phase, Phase::Running) {
            return Err(control.busy());
        }
        control.phase = Phase::Ended(Arc::new(end));
        drop(control);
        self.tell_end();
        Ok(())
    }

    /// Tells all threads that may wait that the phase is `Ended`.
    pub(super) fn tell_end(&self) {
        self.console.close();
        self.nudge();
        // Cannot overflow: a machine ends once.
        let _ = self.ended.write(1);
        self.changed.notify_all();
    }

    /// Readable once the machine has ended.
    pub(in crate::vm) fn end_fd(&self) -> i32 {
        self.ended.as_raw_fd()
    }

    pub(in crate::vm) fn wait_end(&self) -> Arc<End> {
        let mut control = self.lock_control();
        loop {
            if let Phase::Ended(end) = &control.phase {
                return Arc::clone(end);
            }
            control = self.wait_changed(control, None);
        }
    }
}

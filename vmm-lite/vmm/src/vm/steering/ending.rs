//! The end of a VM.

use super::Phase;
use crate::vm::{End, Error, shared::Shared};
use std::{
    os::fd::AsRawFd,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

/// How long a vCPU that is to end may take to leave the guest before `let_go` is called. It takes
/// tens of microseconds unless it waits for what that ends.
const LET_GO: Duration = Duration::from_millis(100);

impl Shared {
    /// Ends the VM, whatever it does.
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

    /// The vCPU has to stop, and does not run again.
    fn end_soon(&self) {
        self.stopping.store(true, SeqCst);
        self.stir();
    }

    /// Ends the VM because the host failed. What the guest does or waits for then does not affect
    /// how it ended. `let_go` ends whatever may block the vCPU thread.
    pub(in crate::vm) fn fail(&self, why: Arc<End>, let_go: impl FnOnce()) {
        {
            let mut control = self.lock_control();
            if !matches!(control.phase, Phase::Ended(_)) {
                control.failure = Some(Arc::clone(&why));
            }
        }
        self.end_soon();
        // Most often the vCPU is out of the guest before `let_go` is called. Where it waits for
        // what `let_go` ends, a signal is pending, with which KVM does not enter the guest.
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

    /// Makes a paused VM an ended one.
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

    /// Notifies all waiting threads that the phase is `Ended`.
    pub(super) fn tell_end(&self) {
        self.console.close();
        self.nudge();
        // Cannot overflow: a VM ends once.
        let _ = self.ended.write(1);
        self.changed.notify_all();
    }

    /// Readable once the VM has ended.
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

//! What a debugger has a guest do that is replayed, and why it has stopped.

use super::Moment;
use std::{
    io,
    ops::Range,
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// What a debugged guest is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Orders {
    /// Run until it comes to a breakpoint.
    Continue {
        /// Addresses of instructions.
        breakpoints: Vec<u64>,
        /// At most to the record at this position.
        until: Option<u64>,
    },
    /// Execute instruction by instruction until it is out of a range of addresses, or at a
    /// breakpoint.
    Step {
        /// The range; an empty one: one instruction.
        within: Range<u64>,
        /// Addresses of instructions.
        breakpoints: Vec<u64>,
        /// At most to the record at this position.
        until: Option<u64>,
    },
    /// Run to a moment, which is not before the guest's own, and note where it comes to breakpoints
    /// on its way. For a guest that has not run since a record.
    Reach {
        /// The moment.
        moment: Moment,
        /// Addresses of instructions.
        breakpoints: Vec<u64>,
    },
}

/// Why a debugged guest has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DebugStop {
    /// At a breakpoint.
    Breakpoint,
    /// Its steps are done.
    Stepped,
    /// At the moment, or at the record, to which it was to go.
    Reached,
    /// As it was [interrupted](DebugLink::interrupt).
    Interrupted,
    /// Its log has ended. When it goes on, its replay ends.
    EndOfLog,
    /// It has passed the moment to which it was to go: it did not run as it did before.
    Missed,
}

/// What a debugged guest and its debugger share while the guest runs.
#[derive(Debug)]
pub struct DebugLink {
    interrupt: AtomicBool,
    stopped: EventFd,
}

impl DebugLink {
    /// A new one.
    ///
    /// # Errors
    /// The host's error, if it has no descriptors left.
    pub fn new() -> io::Result<Arc<Self>> {
        let stopped = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        Ok(Arc::new(Self { interrupt: AtomicBool::new(false), stopped }))
    }

    /// Has the guest stop at its next exit, breakpoint or step: at a moment that can be found
    /// again.
    pub fn interrupt(&self) {
        self.interrupt.store(true, SeqCst);
    }

    /// Readable once the guest has stopped, until [`rearm`](Self::rearm).
    pub fn stopped_fd(&self) -> RawFd {
        self.stopped.as_raw_fd()
    }

    /// For a guest that is about to run.
    pub fn rearm(&self) {
        self.interrupt.store(false, SeqCst);
        // Empty where it has not run before.
        let _ = self.stopped.read();
    }

    /// Has the debugger look, as it does when the guest has stopped.
    pub fn has_stopped(&self) {
        // The counter cannot overflow: it is read before each run.
        let _ = self.stopped.write(1);
    }

    /// Whether it is to stop, which is asked for once.
    pub(super) fn interrupted(&self) -> bool {
        self.interrupt.swap(false, SeqCst)
    }
}

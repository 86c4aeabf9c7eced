//! The VM's output while its guest waits, and at its end.

use super::{Vcpus, wait};
use crate::devices::{Devices, Violation, console::Drained, gate::Gate, throttle::Rates};
use std::{sync::Arc, time::Duration};

/// What output waits for.
#[derive(Debug)]
pub(super) enum Blocked {
    /// The reader of standard output.
    ByReader,
    /// Time to pass.
    For(Duration),
    /// A gate.
    At(Arc<Gate>),
}

impl Devices {
    /// Prints the content of the ring. If some is left, returns what the guest waits for.
    pub(super) fn print(&mut self, vcpus: &Vcpus) -> Result<Option<Blocked>, Violation> {
        Ok(match self.rings.drain(vcpus.memory_at_exit(), vcpus.console())? {
            Drained::All => None,
            Drained::Blocked => Some(Blocked::ByReader),
            Drained::Held(wait) => Some(Blocked::For(wait)),
            Drained::AtGate(gate) => Some(Blocked::At(gate)),
        })
    }

    /// Sends what the program of an ended guest had queued, if its queues are valid; an error there
    /// matters less than how the guest ended. At most a full ring is sent, whatever the rate, as
    /// nothing can wait any more.
    pub(super) fn send_rest(&mut self, vcpus: &Vcpus) {
        for device in self.bus.devices_mut() {
            device.limit(&Rates::default());
            if let Err(violation) = device.flush(vcpus.memory_at_exit()) {
                tracing::debug!("a guest that has ended leaves its queues broken: {violation}");
            }
        }
    }

    /// Prints what is left in the ring of an ended guest, as far as a reader accepts it, whatever
    /// the rate.
    pub(super) fn flush(&mut self, vcpus: &Vcpus, member: usize) {
        self.rings.limit(None);
        while let Ok(Some(blocked)) = self.print(vcpus) {
            if vcpus.control.pause_wanted() {
                return;
            }
            wait::for_output(vcpus, member, &blocked);
        }
    }
}

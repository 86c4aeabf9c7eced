//! The VM's output while its guest waits, and at its end.

use super::{Vcpus, wait};
use crate::devices::{Devices, Violation, console::Drained, throttle::Rates};
use std::time::Duration;

impl Devices {
    /// Prints the content of the ring. If some is left, returns whether the guest waits for it, and
    /// for how long.
    pub(super) fn print(&mut self, vcpus: &Vcpus) -> Result<Option<Option<Duration>>, Violation> {
        Ok(match self.rings.drain(vcpus.memory_at_exit(), vcpus.console())? {
            Drained::All => None,
            Drained::Blocked => Some(None),
            Drained::Held(wait) => Some(Some(wait)),
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
        while let Ok(Some(held)) = self.print(vcpus) {
            if vcpus.control.pause_wanted() {
                return;
            }
            wait::for_output(vcpus, member, held);
        }
    }
}

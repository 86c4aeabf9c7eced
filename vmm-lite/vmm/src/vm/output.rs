//! The VM's output while its guest waits, and at its end.

use super::{machine::Machine, shared::Shared, wait};
use crate::devices::{Violation, console::Drained, throttle::Rates};
use std::time::Duration;

impl Machine {
    /// Prints the content of the ring. If some is left, returns whether the guest waits for it, and
    /// for how long.
    pub(super) fn print(&mut self, shared: &Shared) -> Result<Option<Option<Duration>>, Violation> {
        Ok(match self.rings.drain(&self.ram, &shared.console)? {
            Drained::All => None,
            Drained::Blocked => Some(None),
            Drained::Held(wait) => Some(Some(wait)),
        })
    }

    /// Sends what the program of an ended guest had queued, if its queues are valid; an error there
    /// matters less than how the guest ended. At most a full ring is sent, whatever the rate, as
    /// nothing can wait any more.
    pub(super) fn send_rest(&mut self) {
        for device in self.bus.devices_mut() {
            device.limit(&Rates::default());
            if let Err(violation) = device.flush(&self.ram) {
                tracing::debug!("a guest that has ended leaves its queues broken: {violation}");
            }
        }
    }

    /// Prints what is left in the ring of an ended guest, as far as a reader accepts it, whatever
    /// the rate.
    pub(super) fn flush(&mut self, shared: &Shared) {
        self.rings.limit(None);
        while let Ok(Some(held)) = self.print(shared) {
            if shared.pause_wanted() {
                return;
            }
            wait::for_output(shared, held);
        }
    }
}

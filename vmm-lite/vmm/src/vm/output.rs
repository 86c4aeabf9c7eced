//! What leaves the machine while its guest waits for that, and at its end.

use super::{machine::Machine, shared::Shared, wait};
use crate::devices::{Violation, console::Drained, throttle::NetRate};
use std::time::Duration;

impl Machine {
    /// Prints what there is in the ring. If that is not all of it, whether the guest is held back,
    /// and for how long.
    pub(super) fn print(&mut self, shared: &Shared) -> Result<Option<Option<Duration>>, Violation> {
        Ok(match self.rings.drain(&self.ram, &shared.console)? {
            Drained::All => None,
            Drained::Blocked => Some(None),
            Drained::Held(wait) => Some(Some(wait)),
        })
    }

    /// What the program of a guest that has ended had sent leaves, if its queues are in order; that
    /// they are not is worth no more than how it ended. A ring full is sent whatever the rate, as
    /// nothing is that waits.
    pub(super) fn send_rest(&mut self) {
        let Some(net) = &mut self.net else { return };
        net.limit(NetRate::default());
        if let Err(violation) = net.flush(&self.ram) {
            tracing::debug!("a guest that has ended leaves its queues broken: {violation}");
        }
    }

    /// Prints what is left in the ring of a guest that has ended, as far as somebody takes it,
    /// whatever the rate.
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

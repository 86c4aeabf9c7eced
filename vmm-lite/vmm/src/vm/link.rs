//! Whether a machine's TAP device is good enough for a guest that is to come.

use super::Vm;
use crate::devices::{net::MtuTooSmall, tap};
use std::sync::atomic::Ordering::Relaxed;

/// Why it is not.
#[derive(thiserror::Error, Debug)]
pub enum LinkError {
    /// It is set down.
    #[error("TAP device {0} is down: set it up with `ip link set {0} up`, and try again")]
    Down(String),
    /// The guest's longest packets do not fit.
    #[error(transparent)]
    Mtu(#[from] MtuTooSmall),
    /// The host does not say.
    #[error(transparent)]
    Tap(#[from] tap::Error),
}

impl Vm {
    /// The MTU that the guest was told; `None` without a network.
    #[must_use]
    pub fn mtu(&self) -> Option<u16> {
        self.shared.net_counters.as_ref().map(|counters| counters.mtu.load(Relaxed))
    }

    /// Whether the guest may send packets from addresses that are not its own.
    #[must_use]
    pub fn may_spoof(&self) -> bool {
        self.shared.net_counters.as_ref().is_some_and(|counters| counters.may_spoof.load(Relaxed))
    }

    /// Whether a guest that was told `mtu` elsewhere loses nothing by having this machine's TAP
    /// device. An MTU that is not known is taken for good.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn check_link(&self, mtu: Option<u16>) -> Result<(), LinkError> {
        let Some(device) = &self.shared.announcer else { return Ok(()) };
        let (tap, up) = device.mtu_and_up()?;
        if !up {
            return Err(LinkError::Down(device.name().into()));
        }
        match mtu.filter(|guest| *guest > tap) {
            Some(guest) => Err(MtuTooSmall { guest, tap, device: device.name().into() }.into()),
            None => Ok(()),
        }
    }
}

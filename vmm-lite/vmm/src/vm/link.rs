//! Whether a VM's TAP device suits a guest that will arrive.

use super::Vm;
use crate::devices::net::{MtuTooSmall, tap};
use std::sync::atomic::Ordering::Relaxed;

/// Why it does not.
#[derive(thiserror::Error, Debug)]
pub enum LinkError {
    /// It is set down.
    #[error("TAP device {0} is down: set it up with `ip link set {0} up`, and try again")]
    Down(String),
    /// The guest's longest packets do not fit.
    #[error(transparent)]
    Mtu(#[from] MtuTooSmall),
    /// The host's error.
    #[error(transparent)]
    Tap(#[from] tap::Error),
}

impl Vm {
    /// The longest MTU that the guest was given; `None` without a network.
    #[must_use]
    pub fn mtu(&self) -> Option<u16> {
        self.shared.nets.iter().map(|net| net.counters.mtu.load(Relaxed)).max()
    }

    /// Whether the guest may send packets from addresses that are not its own.
    #[must_use]
    pub fn may_spoof(&self) -> bool {
        self.shared.nets.iter().any(|net| net.counters.may_spoof.load(Relaxed))
    }

    /// Whether a guest that was given `mtu` elsewhere loses nothing by using this VM's TAP devices.
    /// An unknown MTU is accepted.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn check_link(&self, mtu: Option<u16>) -> Result<(), LinkError> {
        for device in self.shared.nets.iter().map(|net| &net.tap) {
            let (tap, up) = device.mtu_and_up()?;
            if !up {
                return Err(LinkError::Down(device.name().into()));
            }
            if let Some(guest) = mtu.filter(|guest| *guest > tap) {
                return Err(MtuTooSmall { guest, tap, device: device.name().into() }.into());
            }
        }
        Ok(())
    }
}

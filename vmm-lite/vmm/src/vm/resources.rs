//! The host's resources of a VM that need privileges: KVM, the TAP device, and faults of its
//! memory.
//!
//! They are opened first, so that a process can give up the privileges before it handles any input
//! of a guest.

use super::Error;
use crate::{devices::net::tap::Tap, kvm::Host, memory::keep_userfault};

/// KVM and a TAP device.
#[derive(Debug)]
pub struct Resources {
    pub(super) host: Host,
    tap: Option<TapDevice>,
}

#[derive(Debug)]
enum TapDevice {
    Open(Tap),
    Named(String),
}

impl Resources {
    /// Opens KVM, and the TAP device `tap`. The device stays open while the process waits for a VM.
    ///
    /// # Errors
    /// What is missing, and how the user can fix it.
    pub fn open(tap: Option<&str>) -> Result<Self, Error> {
        Self::on(Host::open()?, tap)
    }

    /// Like [`open`](Self::open), with an opened KVM.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn on(host: Host, tap: Option<&str>) -> Result<Self, Error> {
        keep_userfault();
        let tap = tap.map(|name| Ok::<_, Error>(TapDevice::Open(Tap::open(name)?))).transpose()?;
        Ok(Self { host, tap })
    }

    /// Opens KVM. The TAP device is opened with each VM, which may have to wait for it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn with_tap_later(tap: Option<&str>) -> Result<Self, Error> {
        let host = Host::open()?;
        keep_userfault();
        Ok(Self { host, tap: tap.map(|name| TapDevice::Named(name.into())) })
    }

    /// KVM.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Whether there is a TAP device.
    #[must_use]
    pub fn has_tap(&self) -> bool {
        self.tap.is_some()
    }

    /// The TAP device for a VM.
    pub(super) fn tap(&self) -> Result<Option<Tap>, Error> {
        Ok(match &self.tap {
            None => None,
            Some(TapDevice::Named(name)) => Some(Tap::open(name)?),
            Some(TapDevice::Open(tap)) => {
                let tap = tap.try_clone()?;
                // Packets that arrived before there was a VM are discarded.
                tap.drain();
                Some(tap)
            }
        })
    }
}

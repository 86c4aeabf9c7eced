//! What a machine takes from the host that needs rights: KVM, the TAP device, and faults of its
//! memory.
//!
//! Opened first, so that a process can give those rights up before anything of a guest's reaches
//! it.

use super::Error;
use crate::{devices::tap::Tap, kvm::Host, memory::keep_userfault};

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
    /// Opens KVM, and the TAP device `tap`. Whoever waits for a machine with it holds the device
    /// meanwhile.
    ///
    /// # Errors
    /// What is missing, and what the user can do about it.
    pub fn open(tap: Option<&str>) -> Result<Self, Error> {
        Self::on(Host::open()?, tap)
    }

    /// Like [`open`](Self::open), with KVM as it was opened.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn on(host: Host, tap: Option<&str>) -> Result<Self, Error> {
        keep_userfault();
        let tap = tap.map(|name| Ok::<_, Error>(TapDevice::Open(Tap::open(name)?))).transpose()?;
        Ok(Self { host, tap })
    }

    /// Opens KVM, and leaves the TAP device to be opened with each machine, which may have to wait
    /// for it.
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

    /// The TAP device for a machine.
    pub(super) fn tap(&self) -> Result<Option<Tap>, Error> {
        Ok(match &self.tap {
            None => None,
            Some(TapDevice::Named(name)) => Some(Tap::open(name)?),
            Some(TapDevice::Open(tap)) => {
                let tap = tap.try_clone()?;
                // What came while no machine was there is nobody's.
                tap.drain();
                Some(tap)
            }
        })
    }
}

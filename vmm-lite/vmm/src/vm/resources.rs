//! The host's resources of a VM that need privileges: KVM, its TAP devices, and faults of its
//! memory.
//!
//! They are opened first, so that a process can give up the privileges before it handles any input
//! of a guest.

use super::{Error, Identity};
use crate::{devices::net::tap::Tap, kvm::Host, memory::keep_userfault};

/// KVM and TAP devices.
#[derive(Debug)]
pub struct Resources {
    pub(super) host: Host,
    taps: Vec<TapDevice>,
}

#[derive(Debug)]
enum TapDevice {
    Open(Tap),
    Named(String),
    Nothing,
}

impl Resources {
    /// Opens KVM, and the TAP devices `taps`. They stay open while the process waits for a VM.
    ///
    /// # Errors
    /// What is missing, and how the user can fix it.
    pub fn open<'t>(taps: impl IntoIterator<Item = &'t str>) -> Result<Self, Error> {
        Self::on(Host::open()?, taps)
    }

    /// Like [`open`](Self::open), with an opened KVM.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn on<'t>(host: Host, taps: impl IntoIterator<Item = &'t str>) -> Result<Self, Error> {
        keep_userfault();
        let open = |name| Ok::<_, Error>(TapDevice::Open(Tap::open(name)?));
        Ok(Self { host, taps: taps.into_iter().map(open).collect::<Result<_, _>>()? })
    }

    /// Opens KVM. The TAP devices are opened with each VM, which may have to wait for them.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn with_taps_later<'t>(taps: impl IntoIterator<Item = &'t str>) -> Result<Self, Error> {
        let host = Host::open()?;
        keep_userfault();
        let named = |name: &str| TapDevice::Named(name.into());
        Ok(Self { host, taps: taps.into_iter().map(named).collect() })
    }

    /// Like [`on`](Self::on), for a VM that is only replayed: its networks have nothing on them.
    #[must_use]
    pub fn for_replay(host: Host, of: &Identity) -> Self {
        keep_userfault();
        Self { host, taps: of.nets.iter().map(|_| TapDevice::Nothing).collect() }
    }

    /// KVM.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Whether there is a TAP device.
    #[must_use]
    pub fn has_tap(&self) -> bool {
        !self.taps.is_empty()
    }

    /// The TAP devices for a VM.
    pub(super) fn taps(&self) -> Result<Vec<Tap>, Error> {
        let for_vm = |device: &TapDevice| match device {
            TapDevice::Nothing => Tap::nothing().map_err(|source| Error::Host {
                doing: "make a network with nothing on it",
                source,
            }),
            TapDevice::Named(name) => Ok(Tap::open(name)?),
            TapDevice::Open(tap) => {
                let tap = tap.try_clone()?;
                // Packets that arrived before there was a VM are discarded.
                tap.drain();
                Ok(tap)
            }
        };
        self.taps.iter().map(for_vm).collect()
    }
}

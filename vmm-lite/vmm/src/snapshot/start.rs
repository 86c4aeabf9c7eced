//! A VM from a copy: the same VM, or one with another identity.

use super::{Error, GuestClock, saved_vm::SavedVm};
use crate::{
    boot::Cidr,
    devices::{console::Console, throttle::Rates},
    host::confine::{self, Thread},
    kvm::Host,
    memory::GuestRam,
    vm::{Address, Identity, Paused, Resources, Resume, ResumeReason, Vm},
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use vmm_lite_interface::INTERFACE_VERSION;

/// The changes to a VM.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Change {
    /// Its name.
    pub name: Option<String>,
    /// Its Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// Its address.
    pub ip: Option<Cidr>,
    /// Its gateway to other networks.
    pub gateway: Option<IpAddr>,
    /// Its name servers; empty: unchanged.
    pub dns: Vec<IpAddr>,
}

/// A copy with everything open that needs privileges: its process can do the rest without any.
#[derive(Debug)]
pub struct Opened {
    guest: SavedVm,
    address: Address,
    resources: Resources,
    allow_spoofing: bool,
    rates: Rates,
}

impl Opened {
    /// Opens the TAP device.
    ///
    /// # Errors
    /// [`Error`], also if the TAP device is busy.
    pub fn new(
        host: Host,
        mut guest: SavedVm,
        change: &Change,
        tap: Option<&str>,
    ) -> Result<Self, Error> {
        let address = self::change(&mut guest, change)?;
        let resources = Resources::on(host, tap)?;
        let (allow_spoofing, rates) = (false, Rates::default());
        Ok(Self { guest, address, resources, allow_spoofing, rates })
    }

    /// Sets whether the guest may send packets from addresses that are not its own.
    pub fn allow_spoofing(&mut self, allow: bool) {
        self.allow_spoofing = allow;
    }

    /// Sets the rates of its network and its console.
    pub fn limit(&mut self, rates: Rates) {
        self.rates = rates;
    }

    /// The VM, with this memory or else with zero memory.
    ///
    /// # Errors
    /// The VM's error.
    pub fn machine(&self, console: Console, ram: Option<GuestRam>) -> Result<Vm, crate::vm::Error> {
        let identity = self.guest.manifest.identity.clone();
        Vm::prepare_with(&self.resources, identity, console, ram)
    }

    /// Lets the VM run, whose memory is present or will arrive, and confines the calling thread,
    /// the process's main thread.
    ///
    /// # Errors
    /// The VM's error: it must be dropped then.
    pub fn run(self, vm: &Vm, reason: ResumeReason, clock: GuestClock) -> Result<(), Error> {
        let mut held = vm.hold()?;
        if self.allow_spoofing {
            held.allow_spoofing();
        }
        held.limit(&self.rates);
        run(held, &self.guest, &self.address, reason, clock)?;
        vm.announce_when_up();
        Ok(confine::enter(Thread::Main)?)
    }
}

/// Applies `change` to `guest`, its addresses to its first network. Returns what the guest must be
/// told about it.
///
/// # Errors
/// [`Error::Options`].
pub fn change(guest: &mut SavedVm, change: &Change) -> Result<Address, Error> {
    let SavedVm { manifest, state } = guest;
    let identity: &mut Identity = &mut manifest.identity;
    if identity.interface_version != INTERFACE_VERSION {
        return Err(Error::Options(format!(
            "the VM's image was built for version {} of the interface to vmm-lite, and this one \
             has {INTERFACE_VERSION}",
            identity.interface_version
        )));
    }
    if let Some(name) = &change.name {
        identity.name.clone_from(name);
    }
    let (Some(net), Some(device)) = (identity.nets.first_mut(), state.nets_mut().next()) else {
        let none = Change { name: change.name.clone(), ..Change::default() };
        if *change != none {
            return Err(Error::Options("the VM has no network, so it can have no address".into()));
        }
        return Ok(Address::default());
    };
    if let Some(mac) = change.mac {
        (net.mac, device.mac) = (mac, mac);
    }
    if let Some(ip) = change.ip {
        net.ip = Some(ip);
    }
    Ok(Address {
        mac: device.mac,
        ip: change.ip.map(|ip| Ok::<_, Error>((v4(ip.address)?, ip.prefix))).transpose()?,
        gateway: change.gateway.map(v4).transpose()?,
        dns: change.dns.iter().map(|ip| v4(*ip)).collect::<Result<_, _>>()?,
    })
}

fn v4(ip: IpAddr) -> Result<Ipv4Addr, Error> {
    match ip {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(ip) => Err(Error::Options(format!("{ip}: guests know IPv4 only"))),
    }
}

/// Lets a VM run whose memory is present or will arrive: from where `guest` was. The guest gets the
/// reason and the changes.
///
/// # Errors
/// The VM's error: it must be dropped then.
pub fn run(
    mut held: Paused<'_>,
    guest: &SavedVm,
    address: &Address,
    reason: ResumeReason,
    clock: GuestClock,
) -> Result<(), Error> {
    let away = guest.age();
    held.apply(&guest.state, clock.passes(away))?;
    held.readdress(address);
    Ok(held.resume(Resume { reason, away })?)
}

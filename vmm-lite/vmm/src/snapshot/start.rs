//! A VM from what was copied: the same, or somebody else.

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

/// What is to be different of a VM.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Change {
    /// Its name.
    pub name: Option<String>,
    /// Its Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// Its address.
    pub ip: Option<Cidr>,
    /// Where it sends packets to other networks.
    pub gateway: Option<IpAddr>,
    /// Whom it asks for names; empty: whom it asked before.
    pub dns: Vec<IpAddr>,
}

/// A copy for which everything is open that takes rights: what follows, its process can do that has
/// none.
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
    /// [`Error`], and a TAP device that is taken.
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

    /// Says whether the guest may send packets from addresses that are not its own.
    pub fn allow_spoofing(&mut self, allow: bool) {
        self.allow_spoofing = allow;
    }

    /// Says how fast its network and its console may be.
    pub fn limit(&mut self, rates: Rates) {
        self.rates = rates;
    }

    /// The machine, with this memory or else with one that is zero.
    ///
    /// # Errors
    /// What the machine says.
    pub fn machine(&self, console: Console, ram: Option<GuestRam>) -> Result<Vm, crate::vm::Error> {
        let identity = self.guest.manifest.identity.clone();
        Vm::prepare_with(&self.resources, identity, console, ram)
    }

    /// Lets the machine run, whose memory is there or will come, and confines the calling thread,
    /// the process's first.
    ///
    /// # Errors
    /// What the machine says; it is then to be dropped.
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

/// Makes `guest` what `change` says. What comes back is what it must be told of that.
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
    let (Some(net), Some(device)) = (&mut identity.net, &mut state.net) else {
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

/// Lets a machine run whose memory is there or will come: from where `guest` was, and it is told
/// why and what has changed.
///
/// # Errors
/// What the machine says; it is then to be dropped.
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

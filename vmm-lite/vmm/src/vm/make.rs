//! Makes a VM: for an image, or for a guest that will arrive.

use super::{
    Config, Error, Identity, NetIdentity, Owner, Resources, Vm, health, machine::Machine,
    shared::Shared, thread,
};
use crate::{
    boot::{self, Image},
    devices::{
        console::Console,
        net::{Net, Own, tap::Tap},
    },
    kvm::Host,
    memory::{self, GuestRam},
};
use std::sync::Arc;

impl Vm {
    /// Makes a VM and loads `image` into it. It does not run before it is
    /// [resumed](super::Paused::resume) with [`ResumeReason::Boot`](super::ResumeReason::Boot).
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub fn boot(config: &Config, image: &Image, console: Console) -> Result<Self, Error> {
        let tap = config.net.as_ref().map(|net| net.tap.as_str());
        Self::boot_with(&Resources::open(tap)?, config, image, console)
    }

    /// As [`boot`](Self::boot), with resources opened before; the VM takes the TAP device.
    ///
    /// # Errors
    /// As [`boot`](Self::boot).
    pub fn boot_with(
        resources: &Resources,
        config: &Config,
        image: &Image,
        console: Console,
    ) -> Result<Self, Error> {
        let net = config.net.as_ref();
        let tap = resources.tap()?;
        let ram = Arc::new(GuestRam::new(config.memory)?);
        boot::load(image, &config.parameters, &ram)?;
        let identity = Identity {
            name: config.parameters.name.clone(),
            memory_size: config.memory,
            interface_version: image.interface_version(),
            net: net.map(|n| NetIdentity { mac: n.mac, ip: config.parameters.ip }),
        };
        let vm = Self::make(resources.host(), identity, ram, tap, console)?;
        vm.shared.lock_machine().set_entry(image.entry())?;
        Ok(vm)
    }

    /// Makes a VM for a guest that will arrive: memory, vCPU and TAP exist, and it never runs
    /// before a state was [applied](super::Paused::apply) and it was
    /// [resumed](super::Paused::resume). The memory is zero.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub fn prepare(identity: Identity, tap: Option<&str>, console: Console) -> Result<Self, Error> {
        Self::prepare_with(&Resources::with_tap_later(tap)?, identity, console, None)
    }

    /// Like [`prepare`](Self::prepare), with resources opened before, and optionally its memory,
    /// which need not be zero.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn prepare_with(
        resources: &Resources,
        identity: Identity,
        console: Console,
        ram: Option<GuestRam>,
    ) -> Result<Self, Error> {
        match (&identity.net, resources.has_tap()) {
            (Some(_), false) => {
                return Err(Error::Network(
                    "the VM has a network: name a TAP device for it with --tap",
                ));
            }
            (None, true) => tracing::info!("the VM has no network: the TAP device stays unused"),
            _ => {}
        }
        let tap = if identity.net.is_some() { resources.tap()? } else { None };
        let ram = Arc::new(match ram {
            Some(ram) => ram,
            None => GuestRam::new(identity.memory_size)?,
        });
        if ram.size() != identity.memory_size {
            return Err(memory::Error::Size(ram.size()).into());
        }
        Self::make(resources.host(), identity, ram, tap, console)
    }

    fn make(
        host: &Host,
        identity: Identity,
        ram: Arc<GuestRam>,
        tap: Option<Tap>,
        console: Console,
    ) -> Result<Self, Error> {
        let thread = thread::start()?;
        let (vcpu, log, cpuid) = host.create(&ram)?;
        let (mut net, mut announcer) = (None, None);
        if let (Some(identity), Some(tap)) = (&identity.net, tap) {
            let (mtu, up) = tap.mtu_and_up()?;
            if !up {
                let name = tap.name();
                tracing::warn!("TAP device {name} is down; set it up with `ip link set {name} up`");
            }
            let mut device = Net::new(tap.try_clone()?, identity.mac, mtu);
            device.restrict_to(Some(Own::new(identity.mac, identity.ip.map(|ip| ip.address))));
            (net, announcer) = (Some(device), Some(tap));
        }
        let machine = Machine::new(vcpu, net, ram.clone())?;
        let shared = Arc::new(Shared::new(identity, ram, log, cpuid, machine, console, announcer)?);
        let thread = Some(thread.take(&shared));
        health::watch(&shared);
        let owner = Owner { shared: Arc::clone(&shared), thread };
        Ok(Self { shared, _owner: Arc::new(owner), host: host.clone() })
    }
}

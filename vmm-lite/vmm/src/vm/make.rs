//! Makes a VM: for an image, or for a guest that will arrive.

use super::{
    Config, Error, Identity, NetConfig, NetIdentity, Owner, Resources, Vm, announce::Fence,
    decisions::Decisions, network, record::Record, shared::Shared,
};
use crate::{
    boot::{self, Image},
    devices::{Devices, bus::Bus, console::Console, net::tap::Tap},
    host::watchdog,
    kvm::Host,
    memory::{self, GuestRam},
    vcpu::{self, Vcpus},
};
use std::sync::{Arc, Mutex};

impl Vm {
    /// Makes a VM and loads `image` into it. It does not run before it is
    /// [resumed](super::Paused::resume) with [`ResumeReason::Boot`](super::ResumeReason::Boot).
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub fn boot(config: &Config, image: &Image, console: Console) -> Result<Self, Error> {
        let taps = config.nets.iter().map(|net| net.tap.as_str());
        Self::boot_with(&Resources::open(taps)?, config, image, console)
    }

    /// As [`boot`](Self::boot), with resources opened before; the VM takes the TAP devices.
    ///
    /// # Errors
    /// As [`boot`](Self::boot).
    pub fn boot_with(
        resources: &Resources,
        config: &Config,
        image: &Image,
        console: Console,
    ) -> Result<Self, Error> {
        let taps = resources.taps()?;
        let mut ram = GuestRam::new(config.memory)?;
        boot::load(image, &config.parameters, ram.writable())?;
        let ram = Arc::new(ram);
        let net = |net: &NetConfig| NetIdentity { mac: net.mac, ip: config.parameters.ip };
        let identity = Identity {
            name: config.parameters.name.clone(),
            memory_size: config.memory,
            interface_version: image.interface_version(),
            nets: config.nets.iter().map(net).collect(),
            own_clock: image.own_clock().clone(),
        };
        let vm = Self::make(resources.host(), identity, ram, taps, console)?;
        vm.shared.vcpus.control.lock_member(0).vcpu.set_entry(image.entry())?;
        Ok(vm)
    }

    /// Makes a VM for a guest that will arrive: memory, vCPU and TAP exist, and it never runs
    /// before a state was [applied](super::Paused::apply) and it was
    /// [resumed](super::Paused::resume). The memory is zero.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub fn prepare(identity: Identity, tap: Option<&str>, console: Console) -> Result<Self, Error> {
        Self::prepare_with(&Resources::with_taps_later(tap)?, identity, console, None)
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
        match (identity.nets.is_empty(), resources.has_tap()) {
            (false, false) => {
                return Err(Error::Network(
                    "the VM has a network: name a TAP device for it with --tap",
                ));
            }
            (true, true) => tracing::info!("the VM has no network: the TAP device stays unused"),
            (false, true) | (true, false) => {}
        }
        let taps = if identity.nets.is_empty() { Vec::new() } else { resources.taps()? };
        let ram = Arc::new(match ram {
            Some(ram) => ram,
            None => GuestRam::new(identity.memory_size)?,
        });
        if ram.size() != identity.memory_size {
            return Err(memory::Error::Size(ram.size()).into());
        }
        Self::make(resources.host(), identity, ram, taps, console)
    }

    fn make(
        host: &Host,
        identity: Identity,
        ram: Arc<GuestRam>,
        taps: Vec<Tap>,
        console: Console,
    ) -> Result<Self, Error> {
        let failed = |doing| move |source| Error::Host { doing, source };
        // Before the VM exists: that takes as long as making it.
        let thread = vcpu::start().map_err(failed("start the vCPU's thread"))?;
        let (vcpu, log, cpuid) = host.create(&ram)?;
        let mut bus = Bus::default();
        let nets = network::attach(&identity.nets, taps, &mut bus)?;
        let devices = Devices::new(bus, vcpu.tsc_hz()?, ram.writable_while_stopped());
        let event = failed("make an event descriptor");
        let vcpus = Vcpus::new(vec![vcpu], devices, ram, console).map_err(event)?;
        let shared = Arc::new(Shared {
            identity,
            log,
            cpuid,
            vcpus: Arc::new(vcpus),
            decisions: Decisions::new().map_err(event)?,
            record: Record::default(),
            fence: Fence::default(),
            gate: Mutex::default(),
            nets,
        });
        let threads = vec![thread.take(&shared.vcpus, 0)];
        let watched = Arc::downgrade(&shared.vcpus);
        watchdog::watch(watched);
        let owner = Owner { shared: Arc::clone(&shared), threads };
        Ok(Self { shared, _owner: Arc::new(owner), host: host.clone() })
    }
}

//! The devices of one VM.

use super::{
    bus::Bus,
    clock::Clock,
    console::{Console, Rings},
    inputs::{Traffic, Unlike},
};
use crate::memory::Writable;
use migrate::input_log::Inputs;
use std::sync::atomic::Ordering::SeqCst;
use vmm_lite_interface::{
    INTERFACE_VERSION, control,
    layout::{CONTROL_PAGE, PAGE_SIZE},
};

/// The devices of a VM, behind one lock: the thread that has it serves them.
#[derive(Debug)]
pub struct Devices {
    /// Those with registers.
    pub(crate) bus: Bus,
    pub(crate) rings: Rings,
    pub(crate) clock: Clock,
}

impl Devices {
    /// The devices of a VM whose CPU counts `tsc_hz` ticks a second. Writes to the control page
    /// what the guest finds there at its start.
    #[must_use]
    pub fn new(bus: Bus, tsc_hz: u64, ram: Writable<'_>) -> Self {
        let control = ram.control_page();
        control.magic.store(control::MAGIC, SeqCst);
        control.version.store(INTERFACE_VERSION, SeqCst);
        control.wake_deadline_ns.store(u64::MAX, SeqCst);
        ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
        Self { bus, rings: Rings::default(), clock: Clock::start(tsc_hz) }
    }

    /// Begins to note what passes between them and the guest, anew; or no longer does.
    pub fn record(&mut self, on: bool) {
        self.bus.devices_mut().for_each(|device| device.recording().set(on));
        self.rings.record(on);
    }

    /// What passed since the last call, while the guest is recorded.
    pub fn take_inputs(&mut self) -> Inputs {
        let mut devices: Vec<_> =
            self.bus.devices_mut().map(|device| device.recording().take()).collect();
        let given =
            devices.iter().rposition(|device| !device.is_empty()).map_or(0, |last| last + 1);
        devices.truncate(given);
        Inputs { devices, console: self.rings.take_inputs(), ..Inputs::default() }
    }

    /// Repeats what passed.
    ///
    /// # Errors
    /// [`Unlike`].
    pub fn replay(
        &mut self,
        inputs: &Inputs,
        ram: Writable<'_>,
        console: &Console,
        mut traffic: Option<&mut (dyn Traffic + 'static)>,
    ) -> Result<(), Unlike> {
        let mut devices = self.bus.devices_mut();
        for (number, inputs) in inputs.devices.iter().enumerate() {
            let device = devices.next().ok_or(Unlike::NoDevice(number))?;
            device.replay(inputs, ram, traffic.as_deref_mut().map(|traffic| traffic as _))?;
        }
        drop(devices);
        self.rings.replay(&inputs.console, ram, console)
    }
}

//! The devices of one VM.

use super::{bus::Bus, clock::Clock, console::Rings};
use crate::memory::Writable;
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
}

//! What a guest is told before it runs, in its control page.

use migrate::input_log::{Clock, News, Quiesce};
use std::sync::atomic::Ordering::SeqCst;
use vmm_lite_interface::{
    control::{ControlPage, PvClock},
    layout::{CONTROL_PAGE, PAGE_SIZE},
};

use crate::memory::GuestRam;

/// Writes what the guest is told. For a guest that does not run.
pub(crate) fn tell(ram: &GuestRam, news: &News) {
    let News { reason, resume_count, away_ns, generation, entropy, clock, net_mmio, memory_size } =
        news;
    let control: &ControlPage = ram.control_page();
    set_clock(&control.clock, clock);
    control.resume_reason.store(*reason, SeqCst);
    control.away_ns.store(*away_ns, SeqCst);
    control.net_mmio.store(*net_mmio, SeqCst);
    control.memory_size.store(*memory_size, SeqCst);
    control.generation.iter().zip(generation).for_each(|(to, n)| to.store(*n, SeqCst));
    control.entropy.iter().zip(entropy).for_each(|(to, n)| to.store(*n, SeqCst));
    control.resume_count.store(*resume_count, SeqCst);
    ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
}

fn set_clock(to: &PvClock, clock: &Clock) {
    let Clock { tsc_base, mono_base_ns, mult, wall_offset_ns, tsc_hz } = clock;
    to.tsc_base.store(*tsc_base, SeqCst);
    to.mono_base_ns.store(*mono_base_ns, SeqCst);
    to.mult.store(*mult, SeqCst);
    to.wall_offset_ns.store(*wall_offset_ns, SeqCst);
    to.tsc_hz.store(*tsc_hz, SeqCst);
}

/// Writes a quiesce request. The guest may run.
pub(super) fn ask_to_quiesce(ram: &GuestRam, quiesce: Quiesce) {
    let control = ram.control_page();
    control.quiesce_deadline_tsc.store(quiesce.deadline_tsc, SeqCst);
    control.quiesce_request.store(quiesce.number, SeqCst);
    ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
}

/// Writes a request to return memory. The guest may run.
pub(super) fn ask_to_reclaim(ram: &GuestRam, number: u32) {
    ram.control_page().reclaim_request.store(number, SeqCst);
    ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
}

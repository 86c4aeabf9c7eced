//! The platform in a guest: each function asks whether there is a control page.

use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use vmm_lite_interface::control::{ControlPage, FaultReport};

use super::{CONSOLE_READABLE, ConsoleRead, Epoch, qemu, vmm_lite};
use crate::{samples, time};

static CONTROL: AtomicPtr<ControlPage> = AtomicPtr::new(core::ptr::null_mut());

/// The control page, under vmm-lite.
#[inline]
#[must_use]
pub fn control() -> Option<&'static ControlPage> {
    // SAFETY: null, or where vmm-lite put the page, which is there for good. All its fields are
    // atomics.
    unsafe { CONTROL.load(Relaxed).as_ref() }
}

/// Sets the control page, before anything else runs.
///
/// # Safety
/// It is there, mapped, for good.
pub unsafe fn set_control(address: usize) {
    let page = core::ptr::with_exposed_provenance_mut(address);
    CONTROL.store(page, Relaxed);
    if let Some(control) = control() {
        samples::use_ring();
        time::use_control_page(&control.clock, &control.resume_count);
    }
}

/// Sets up what this platform needs, once memory is in place.
pub fn init() {
    if control().is_none() {
        qemu::init();
    }
}

/// Handles what came in, without waiting, for a guest that is busy.
pub fn poll() {
    match control() {
        Some(control) => vmm_lite::poll(control),
        None => qemu::poll(),
    }
}

/// Waits for something from outside, until the monotonic clock reaches `deadline` at the latest.
pub fn idle(deadline: Option<u64>) {
    match control() {
        Some(control) => vmm_lite::idle(control, deadline),
        None => qemu::idle(deadline),
    }
}

/// Whether a thread waits for console input.
#[must_use]
pub fn console_is_awaited() -> bool {
    !CONSOLE_READABLE.is_empty()
}

/// Prints all of `bytes`.
pub fn console_write(bytes: &[u8]) {
    match control() {
        Some(control) => vmm_lite::console_write(control, bytes),
        None => qemu::console_write(bytes),
    }
}

/// Reads what has arrived, without waiting. `buffer` is not empty.
pub fn console_read(buffer: &mut [u8]) -> ConsoleRead {
    match control() {
        Some(control) => vmm_lite::console_read(control, buffer),
        None => qemu::console_read(buffer),
    }
}

/// Whether [`console_read`] would find something, or the end.
#[must_use]
pub fn console_readable() -> bool {
    match control() {
        Some(control) => vmm_lite::console_readable(control),
        None => qemu::console_readable(),
    }
}

/// Address of the registers of the virtio-mmio network device, if there is one.
#[must_use]
pub fn net_mmio() -> Option<usize> {
    match control() {
        Some(control) => Some(control.net_mmio.load(Relaxed) as usize).filter(|at| *at != 0),
        None => qemu::net_mmio(),
    }
}

/// Notifies the network device of its queue number `queue`: under vmm-lite with the next doorbell,
/// under QEMU now.
pub fn notify_net(queue: u16) {
    match control() {
        Some(_) => vmm_lite::notify_net(),
        None => qemu::notify_net(queue),
    }
}

/// The generation id, which changes in a guest that is a copy.
#[must_use]
pub fn generation() -> [u64; 2] {
    control().map_or([0; 2], |c| [0, 1].map(|n| c.generation[n].load(Relaxed)))
}

/// The host's part of the seed of random numbers. It changes only while the guest does not run.
#[must_use]
pub fn epoch() -> Epoch {
    let host = control().map_or([0; 8], |c| core::array::from_fn(|n| c.entropy[n].load(Relaxed)));
    Epoch { generation: generation(), host }
}

/// Ends the guest with the program's exit code.
pub fn exit(code: i32) -> ! {
    match control() {
        Some(control) => vmm_lite::exit(control, code),
        None => qemu::exit(code),
    }
}

/// Ends the guest with a report, which `fill` fills.
pub fn fail(fill: impl FnOnce(&FaultReport)) -> ! {
    match control() {
        Some(control) => {
            fill(&control.fault);
            vmm_lite::fail()
        }
        None => {
            let report = FaultReport::default();
            fill(&report);
            qemu::fail(&report)
        }
    }
}

/// Reports that memory was reclaimed. Only vmm-lite asks for that.
pub fn reclaimed() {
    vmm_lite::reclaimed();
}

/// Stops at the doorbell as quiescent; returns after the resume. Under vmm-lite only.
pub fn quiesced() {
    vmm_lite::quiesced();
}

/// Pages of low memory that are shared with vmm-lite: from, to.
pub fn shared() -> impl Iterator<Item = (usize, usize)> {
    const { assert!(size_of::<ControlPage>() == 4096) };
    let page = control().map(|c| (&raw const *c).addr());
    page.into_iter().flat_map(|at| [(at, at + 4096)].into_iter().chain(vmm_lite::SHARED))
}

/// Windows of device registers to map, on this platform.
pub fn devices() -> impl Iterator<Item = (usize, usize)> {
    let net = control().and(net_mmio()).map(|at| (at, 4096));
    let others = if control().is_some() { &[][..] } else { &qemu::DEVICES };
    others.iter().copied().chain(net)
}

/// Under QEMU: whether there is something for [`quiesce_read`].
#[must_use]
pub fn quiesce_readable() -> bool {
    qemu::quiesce_readable()
}

/// Under QEMU: reads from the port for quiesce requests; returns how many bytes.
pub fn quiesce_read(buffer: &mut [u8]) -> usize {
    qemu::quiesce_read(buffer)
}

/// Under QEMU: writes an answer to that port.
pub fn quiesce_write(bytes: &[u8]) {
    qemu::quiesce_write(bytes);
}

/// Under QEMU: halts until something arrives there, and lets everything else wait until
/// [`quiesce_end`].
pub fn quiesce_wait() {
    qemu::quiesce_wait();
}

/// Under QEMU: handles what arrived elsewhere during [`quiesce_wait`].
pub fn quiesce_end() {
    qemu::serve_all();
}

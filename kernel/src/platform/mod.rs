//! Where the guest runs: under vmm-lite (a control page is there) or under QEMU (it is not).

mod console;
pub mod pvh;
mod qemu;
mod vmm_lite;

use core::sync::atomic::{AtomicUsize, Ordering};

pub use console::{CONSOLE_READABLE, ConsoleRead, console_read, console_write};
use vmm_lite_interface::control::{ControlPage, FaultReport};

static CONTROL: AtomicUsize = AtomicUsize::new(0);

/// The control page, under vmm-lite.
#[must_use]
pub fn control() -> Option<&'static ControlPage> {
    let at = CONTROL.load(Ordering::Relaxed) as *const ControlPage;
    // SAFETY: null, or the address that vmm-lite gave, where the page is for good; all fields are atomics.
    unsafe { at.as_ref() }
}

/// Takes note of the control page.
pub fn set_control(address: usize) {
    CONTROL.store(address, Ordering::Relaxed);
}

/// Sets up what this platform needs, once memory is in place.
pub fn init() {
    if control().is_none() {
        qemu::init();
    }
}

/// Serves what came in without waiting.
pub fn poll() {
    match control() {
        Some(_) => vmm_lite::poll(),
        None => qemu::poll(),
    }
}

/// Waits for the world, until `deadline` of the monotonic clock at the latest.
pub fn idle(deadline: Option<u64>) {
    match control() {
        Some(control) => vmm_lite::idle(control, deadline),
        None => qemu::idle(deadline),
    }
}

/// Tells the device that queues have work.
pub fn notify_net() {
    vmm_lite::notify_net();
}

/// Address of the virtio-mmio network device.
#[must_use]
pub fn net_mmio() -> Option<usize> {
    match control() {
        Some(control) => {
            Some(control.net_mmio.load(Ordering::Relaxed) as usize).filter(|at| *at != 0)
        }
        None => qemu::net_mmio(),
    }
}

/// Ends the guest with the program's exit code.
pub fn exit(code: i32) -> ! {
    match control() {
        Some(control) => vmm_lite::exit(control, code),
        None => qemu::exit(code as u8),
    }
}

/// Ends the guest with a report.
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

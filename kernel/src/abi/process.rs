//! How a program ends, and what it asks about itself.

use vmm_lite_interface::control::FaultKind;

use crate::{fault, net, platform};

/// Exit code of a program that panicked, as on other systems.
const PANICKED: i32 = 101;

#[unsafe(no_mangle)]
extern "C" fn sys_exit(code: i32) -> ! {
    net::finish();
    platform::exit(code)
}

#[unsafe(no_mangle)]
extern "C" fn sys_abort() -> ! {
    fault::end(FaultKind::Abort)
}

/// Called by the panic runtime that images are built with, when the message has been printed. `std`'s own calls [`sys_abort`], which
/// would not tell a panic from an abort.
#[unsafe(no_mangle)]
extern "C" fn sys_vmm_lite_panicked() -> ! {
    sys_exit(PANICKED)
}

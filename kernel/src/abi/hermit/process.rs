//! How a program ends, and what it asks about itself.

use vmm_lite_interface::control::FaultKind;

use crate::{fault, mm, net, platform};

/// Exit code of a program that panicked, as on other systems.
const PANICKED: i32 = 101;

#[unsafe(no_mangle)]
extern "C" fn sys_exit(code: i32) -> ! {
    net::finish();
    platform::exit(code)
}

/// Memory that the kernel needs to send what is left.
const FINISH_ROOM: usize = 256 << 10;

#[unsafe(no_mangle)]
extern "C" fn sys_abort() -> ! {
    // As elsewhere, what was sent outlives the program, however that ends. Who aborts for want of
    // memory leaves the kernel none to do it with: that is then the reason to be told.
    if mm::usage().1 >= FINISH_ROOM {
        net::finish();
    }
    fault::end(FaultKind::Abort)
}

/// Called by the panic runtime that images are built with, when the message has been printed. `std`'s own calls [`sys_abort`], which
/// would not tell a panic from an abort.
#[unsafe(no_mangle)]
extern "C" fn sys_vmm_lite_panicked() -> ! {
    sys_exit(PANICKED)
}

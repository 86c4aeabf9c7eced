//! How a program ends.

use crate::process;

#[unsafe(no_mangle)]
extern "C" fn sys_exit(code: i32) -> ! {
    process::exit(code)
}

#[unsafe(no_mangle)]
extern "C" fn sys_abort() -> ! {
    process::abort()
}

/// Called by the panic runtime that images are built with, when the message has been printed.
/// `std`'s own calls [`sys_abort`], which does not distinguish a panic from an abort.
#[unsafe(no_mangle)]
extern "C" fn sys_vmm_lite_panicked() -> ! {
    process::panicked()
}

//! What a panic ends with in a guest: the crate `panic_abort` of the guest's standard library,
//! compiled against it in place of the original.
//!
//! The original calls `abort`, as `std::process::abort` does, so a kernel could not tell a panic
//! from an abort. This one tells it, and the program ends with 101, as on systems that unwind.
//! `std` calls it when the panic hook has printed the message; what aborts for another reason (a
//! panic in a panic, or one that must not unwind) does not come here.
#![no_std]
#![feature(panic_runtime, rustc_attrs, std_internals)]
#![allow(internal_features)]
#![panic_runtime]

use core::any::Any;
use core::panic::PanicPayload;

unsafe extern "C" {
    /// The kernel ends the program.
    safe fn sys_vmm_lite_panicked() -> !;
}

/// # Safety
/// Not called: nothing unwinds.
#[rustc_std_internal_symbol]
#[allow(improper_ctypes_definitions)]
pub unsafe extern "C" fn __rust_panic_cleanup(_: *mut u8) -> *mut (dyn Any + Send + 'static) {
    unreachable!()
}

/// # Safety
/// Called by `std` alone.
#[rustc_std_internal_symbol]
pub unsafe fn __rust_start_panic(_: &mut dyn PanicPayload) -> u32 {
    sys_vmm_lite_panicked()
}

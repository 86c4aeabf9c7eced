//! The end of a panic in a guest: the crate `panic_abort` of the guest's standard library, compiled
//! against it in place of the original.
//!
//! The original calls `abort`, as `std::process::abort` does, so a kernel could not tell a panic
//! from an abort. This one tells the kernel, and the program ends with 101, as on systems that
//! unwind. `std` calls it after the panic hook has printed the message; aborts for other reasons (a
//! panic in a panic, or one that must not unwind) do not reach it.
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
/// Never called: nothing unwinds.
#[rustc_std_internal_symbol]
#[allow(improper_ctypes_definitions)]
pub unsafe extern "C" fn __rust_panic_cleanup(_: *mut u8) -> *mut (dyn Any + Send + 'static) {
    unreachable!()
}

/// # Safety
/// Only `std` calls it.
#[rustc_std_internal_symbol]
pub unsafe fn __rust_start_panic(_: &mut dyn PanicPayload) -> u32 {
    sys_vmm_lite_panicked()
}

//! The kernel's own panics: they end the guest with a report.

use core::panic::PanicInfo;

use vmm_lite_interface::control::FaultKind;

use crate::{fault, print};

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    print!("vmm-lite kernel: {info}\n");
    fault::end(FaultKind::Kernel)
}

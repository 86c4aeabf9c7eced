//! Quiesce: the request seen, answered at the doorbell.

use core::sync::atomic::Ordering;

use vmm_lite_interface::doorbell::{Doorbell, PORT};

use crate::{
    arch::{cpu, port},
    platform,
};

/// Answers a request, if there is one that has not been answered.
pub fn answer() {
    let Some(control) = platform::control() else { return };
    let request = control.quiesce_request.load(Ordering::Relaxed);
    if request == control.quiesce_answer.load(Ordering::Relaxed) {
        return;
    }
    control.quiesce_answer.store(request, Ordering::Relaxed);
    control.quiesced_tsc.store(cpu::tsc(), Ordering::Relaxed);
    // SAFETY: the doorbell; nothing of the kernel's is lent out where this is called.
    unsafe { port::out32(PORT, Doorbell::QUIESCED.union(Doorbell::NET).0) };
    control.resumed_tsc.store(cpu::tsc(), Ordering::Relaxed);
}

//! Under vmm-lite's kernel.

use crate::{Quiesce, Reason, Resume};
use std::time::{Duration, Instant};

type OnQuiesce = Box<dyn FnMut(&Quiesce) + Send>;
type OnResume = Box<dyn FnMut(&Resume) + Send>;

unsafe extern "C" {
    /// Has the kernel call `hook(data, ns until the deadline)` before each pause.
    safe fn sys_vmm_lite_on_quiesce(hook: extern "C" fn(usize, u64), data: usize) -> i32;
    /// Has the kernel call `hook(data, reason, ns away, generation)` after each resume.
    safe fn sys_vmm_lite_on_resume(
        hook: extern "C" fn(usize, u32, u64, u64, u64),
        data: usize,
    ) -> i32;
}

pub fn on_quiesce(hook: OnQuiesce) {
    let hook = Box::into_raw(Box::new(hook)).expose_provenance();
    assert_eq!(sys_vmm_lite_on_quiesce(call_on_quiesce, hook), 0, "no memory for a hook");
}

pub fn on_resume(hook: OnResume) {
    let hook = Box::into_raw(Box::new(hook)).expose_provenance();
    assert_eq!(sys_vmm_lite_on_resume(call_on_resume, hook), 0, "no memory for a hook");
}

extern "C" fn call_on_quiesce(hook: usize, left_ns: u64) {
    let left = Duration::from_nanos(left_ns);
    let quiesce = Quiesce { deadline: Instant::now() + left };
    // SAFETY: made by `on_quiesce` and never freed. The kernel calls hooks one at a time, so
    // nothing else has it now.
    let hook = unsafe { &mut *std::ptr::with_exposed_provenance_mut::<OnQuiesce>(hook) };
    hook(&quiesce);
}

extern "C" fn call_on_resume(hook: usize, reason: u32, away_ns: u64, low: u64, high: u64) {
    let resume = Resume {
        reason: Reason::from(reason),
        away: Duration::from_nanos(away_ns),
        generation: u128::from(low) | u128::from(high) << 64,
    };
    // SAFETY: made by `on_resume` and never freed. The kernel calls hooks one at a time, so nothing
    // else has it now.
    let hook = unsafe { &mut *std::ptr::with_exposed_provenance_mut::<OnResume>(hook) };
    hook(&resume);
}

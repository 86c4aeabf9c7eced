//! What the crate `vmm-lite-hooks` calls. These functions are this kernel's own, not hermit-abi's.

use hermit_abi::errno;

use crate::quiesce::{self, OnQuiesce, OnResume};

#[unsafe(no_mangle)]
extern "C" fn sys_vmm_lite_on_quiesce(hook: OnQuiesce, data: usize) -> i32 {
    quiesce::on_quiesce(hook, data).map_or(-errno::ENOMEM, |()| 0)
}

#[unsafe(no_mangle)]
extern "C" fn sys_vmm_lite_on_resume(hook: OnResume, data: usize) -> i32 {
    quiesce::on_resume(hook, data).map_or(-errno::ENOMEM, |()| 0)
}

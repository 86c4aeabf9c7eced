//! Random numbers.

use core::slice;

use hermit_abi::errno;

use crate::entropy;
use crate::events;

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_read_entropy(to: *mut u8, len: usize, flags: u32) -> isize {
    if flags != 0 || (to.is_null() && len != 0) {
        return -(errno::EINVAL as isize);
    }
    if len != 0 {
        // A clone has to learn that it is one before it draws.
        events::checkpoint();
        // SAFETY: the caller's buffer.
        entropy::fill(unsafe { slice::from_raw_parts_mut(to, len) });
    }
    len.cast_signed()
}

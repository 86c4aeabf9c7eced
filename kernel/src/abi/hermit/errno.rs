//! Errors: returned as negative numbers, and kept by thread for callers that ask for the last one,
//! as the `mio` and `polling` crates do.

use crate::{fd::Errno, sched};

/// A count as `sys_*` functions return it, or a negative error.
pub fn size(result: Result<usize, Errno>) -> isize {
    match result {
        Ok(n) => n as isize,
        Err(Errno(errno)) => {
            sched::set_last_error(errno);
            -(errno as isize)
        }
    }
}

/// A small number as `sys_*` functions return it, or a negative error.
pub fn int(result: Result<i32, Errno>) -> i32 {
    result.unwrap_or_else(|Errno(errno)| {
        sched::set_last_error(errno);
        -errno
    })
}

/// 0, or a negative error.
pub fn unit(result: Result<(), Errno>) -> i32 {
    int(result.map(|()| 0))
}

#[unsafe(no_mangle)]
extern "C" fn sys_get_errno() -> i32 {
    sched::last_error()
}

#[unsafe(no_mangle)]
extern "C" fn sys_errno() -> i32 {
    sched::last_error()
}

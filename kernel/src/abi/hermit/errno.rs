//! Errors: returned as negative numbers, and kept by thread for callers that ask for the last one,
//! as the `mio` and `polling` crates do.

use crate::{cpu::KernelCell, fd::Errno, sched};
use alloc::vec::Vec;

/// The last error of each thread, by its number.
static LAST: KernelCell<Vec<i32>> = KernelCell::new(Vec::new());

/// A count as `sys_*` functions return it, or a negative error.
pub fn size(result: Result<usize, Errno>) -> isize {
    match result {
        Ok(n) => n as isize,
        Err(Errno(errno)) => {
            set(errno);
            -(errno as isize)
        }
    }
}

/// A small number as `sys_*` functions return it, or a negative error.
pub fn int(result: Result<i32, Errno>) -> i32 {
    result.unwrap_or_else(|Errno(errno)| {
        set(errno);
        -errno
    })
}

/// 0, or a negative error.
pub fn unit(result: Result<(), Errno>) -> i32 {
    int(result.map(|()| 0))
}

fn set(errno: i32) {
    let thread = sched::current_id() as usize;
    LAST.with(|last| {
        if last.len() <= thread {
            let more = thread + 1 - last.len();
            if last.try_reserve(more).is_err() {
                return;
            }
            last.resize(thread + 1, 0);
        }
        last[thread] = errno;
    });
}

fn last() -> i32 {
    let thread = sched::current_id() as usize;
    LAST.with(|last| last.get(thread).copied().unwrap_or(0))
}

#[unsafe(no_mangle)]
extern "C" fn sys_get_errno() -> i32 {
    last()
}

#[unsafe(no_mangle)]
extern "C" fn sys_errno() -> i32 {
    last()
}

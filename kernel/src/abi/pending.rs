//! Descriptors until their own files are there: the console's output, and errors.

use crate::platform;
use hermit_abi::errno;

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_write(fd: i32, p: *const u8, n: usize) -> isize {
    if fd == 1 || fd == 2 {
        // SAFETY: the caller's buffer.
        platform::console_write(unsafe { core::slice::from_raw_parts(p, n) });
        n as isize
    } else {
        -errno::EBADF as isize
    }
}
#[repr(C)]
struct IoVec {
    base: *const u8,
    len: usize,
}
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_writev(fd: i32, v: *const IoVec, n: usize) -> isize {
    let mut t = 0;
    // SAFETY: the caller's buffers.
    for v in unsafe { core::slice::from_raw_parts(v, n) } {
        // SAFETY: the caller's buffer.
        let w = unsafe { sys_write(fd, v.base, v.len) };
        if w < 0 {
            return w;
        }
        t += w;
    }
    t
}
macro_rules! missing { ($($n:ident)*) => { $(#[unsafe(no_mangle)] extern "C" fn $n() -> isize { -(errno::ENOSYS as isize) })* } }
missing!(sys_open sys_close sys_read sys_readv sys_lseek sys_dup sys_poll sys_ioctl sys_stat sys_lstat sys_fstat sys_getdents64 sys_mkdir sys_rmdir sys_unlink sys_socket sys_bind sys_listen sys_accept sys_connect sys_send sys_sendto sys_recv sys_recvfrom sys_shutdown sys_getsockname sys_getpeername sys_getsockopt sys_setsockopt sys_getaddrinfo sys_freeaddrinfo);

//! `sys_*`.
use crate::{entropy, mm, platform, sched, time};
use core::alloc::Layout;
use hermit_abi::{errno, timespec};

#[unsafe(no_mangle)]
extern "C" fn sys_malloc(size: usize, align: usize) -> *mut u8 {
    Layout::from_size_align(size, align).map_or(core::ptr::null_mut(), mm::allocate)
}
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_free(p: *mut u8, size: usize, align: usize) {
    if let Ok(l) = Layout::from_size_align(size, align) {
        unsafe { mm::free(p, l) }
    }
}
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_realloc(p: *mut u8, size: usize, align: usize, new: usize) -> *mut u8 {
    Layout::from_size_align(size, align)
        .map_or(core::ptr::null_mut(), |l| unsafe { mm::reallocate(p, l, new) })
}
#[unsafe(no_mangle)]
extern "C" fn sys_exit(code: i32) -> ! {
    platform::exit(code)
}
#[unsafe(no_mangle)]
extern "C" fn sys_abort() -> ! {
    platform::fail(|r| {
        use core::sync::atomic::Ordering::Relaxed;
        r.kind.store(5, Relaxed);
        let rsp: usize;
        unsafe { core::arch::asm!("mov {}, rsp", out(reg) rsp) };
        crate::fault::backtrace(r, rsp);
    })
}
#[unsafe(no_mangle)]
extern "C" fn sys_get_errno() -> i32 {
    0
}
#[unsafe(no_mangle)]
extern "C" fn sys_spawn2(
    f: extern "C" fn(usize),
    arg: usize,
    _prio: u8,
    stack: usize,
    _core: isize,
) -> usize {
    sched::spawn(f, arg, stack).map_or(0, |id| id)
}
#[unsafe(no_mangle)]
extern "C" fn sys_join(id: usize) -> i32 {
    if sched::join(id) { 0 } else { -errno::EINVAL }
}
#[unsafe(no_mangle)]
extern "C" fn sys_yield() {
    sched::yield_now()
}
#[unsafe(no_mangle)]
extern "C" fn sys_available_parallelism() -> usize {
    1
}
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_futex_wait(
    a: *mut u32,
    expected: u32,
    timeout: *const timespec,
    flags: u32,
) -> i32 {
    sched::look_around();
    if unsafe { a.read_volatile() } != expected {
        return -errno::EAGAIN;
    }
    let deadline = unsafe { timeout.as_ref() }.map(|t| {
        let ns = (t.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec as u64);
        if flags & 1 != 0 { ns.saturating_add(time::now_ns()) } else { ns }
    });
    match sched::futex_wait(a as usize, deadline) {
        sched::Wake::Woken => 0,
        sched::Wake::TimedOut => -errno::ETIMEDOUT,
    }
}
#[unsafe(no_mangle)]
extern "C" fn sys_futex_wake(a: *mut u32, n: i32) -> i32 {
    sched::futex_wake(a as usize, n.max(0) as usize) as i32
}
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_clock_gettime(id: i32, tp: *mut timespec) -> i32 {
    crate::quiesce::answer();
    let ns = if id == 1 { time::wall_ns() } else { time::now_ns() };
    unsafe {
        tp.write(timespec {
            tv_sec: (ns / 1_000_000_000) as _,
            tv_nsec: (ns % 1_000_000_000) as i32,
        })
    };
    0
}
#[unsafe(no_mangle)]
extern "C" fn sys_usleep(us: u64) {
    sched::block(Some(time::now_ns().saturating_add(us.saturating_mul(1000))));
}
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_read_entropy(p: *mut u8, n: usize, _f: u32) -> isize {
    entropy::fill(unsafe { core::slice::from_raw_parts_mut(p, n) });
    n as isize
}
#[unsafe(no_mangle)]
unsafe extern "C" fn sys_write(fd: i32, p: *const u8, n: usize) -> isize {
    if fd == 1 || fd == 2 {
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
    for v in unsafe { core::slice::from_raw_parts(v, n) } {
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

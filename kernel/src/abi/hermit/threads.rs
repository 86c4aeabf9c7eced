//! Threads. There is one vCPU and one priority: both are reported and otherwise ignored.

use hermit_abi::{NORMAL_PRIO, Tid, errno};

use crate::events;
use crate::sched;

/// Stack of a thread that asks for no size, bytes.
const DEFAULT_STACK: usize = 1 << 20;

#[unsafe(no_mangle)]
extern "C" fn sys_spawn2(
    entry: extern "C" fn(usize),
    argument: usize,
    _priority: u8,
    stack_size: usize,
    _core: isize,
) -> Tid {
    events::checkpoint();
    // The main thread is 0, so others are not.
    sched::spawn(entry, argument, stack_size).unwrap_or(0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_spawn(
    id: *mut Tid,
    entry: extern "C" fn(usize),
    argument: usize,
    _priority: u8,
    _core: isize,
) -> i32 {
    events::checkpoint();
    let Ok(spawned) = sched::spawn(entry, argument, DEFAULT_STACK) else {
        return -errno::EAGAIN;
    };
    if !id.is_null() {
        // SAFETY: where the caller wants it.
        unsafe { id.write(spawned) };
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn sys_join(id: Tid) -> i32 {
    events::checkpoint();
    // False for a thread that has ended already: then there is nothing to wait for.
    sched::join(id);
    0
}

#[unsafe(no_mangle)]
extern "C" fn sys_yield() {
    events::yield_now();
}

#[unsafe(no_mangle)]
extern "C" fn sys_available_parallelism() -> usize {
    1
}

#[unsafe(no_mangle)]
extern "C" fn sys_get_processor_count() -> usize {
    1
}

#[unsafe(no_mangle)]
extern "C" fn sys_getpid() -> i32 {
    sched::current_id().cast_signed()
}

#[unsafe(no_mangle)]
extern "C" fn sys_get_priority() -> u8 {
    NORMAL_PRIO.into()
}

#[unsafe(no_mangle)]
extern "C" fn sys_set_priority(_id: Tid, _priority: u8) {}

//! Counters that threads wait for.

use super::errno::int;
use crate::{
    events,
    fd::{self, Errno, Object, eventfd::EventFd},
};
use hermit_abi::{EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE, errno};

#[unsafe(no_mangle)]
extern "C" fn sys_eventfd(initial: u64, flags: i16) -> i32 {
    events::checkpoint();
    if flags & !(EFD_NONBLOCK | EFD_SEMAPHORE | EFD_CLOEXEC) != 0 {
        return int(Err(Errno(errno::EINVAL)));
    }
    let event = EventFd::new(initial, flags & EFD_SEMAPHORE != 0);
    let nonblocking = flags & EFD_NONBLOCK != 0;
    int(event.and_then(|event| fd::open(Object::Event(event), nonblocking)))
}

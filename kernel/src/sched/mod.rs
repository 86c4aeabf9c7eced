//! Threads on one vCPU, scheduled where they block.

mod wait_queue;

pub use wait_queue::{WaitQueue, Wake};

/// Lets other threads run, if any can.
pub fn yield_now() {
    unimplemented!()
}

/// Looks at what came in meanwhile: a quiesce request, and the network if the last look was a while ago. Cheap enough for
/// each `sys_*` that may go on for long without waiting (a read that finds data, a poll that finds something ready).
/// No [`KernelCell`](crate::cell::KernelCell) may be lent out.
pub fn checkpoint() {
    unimplemented!()
}

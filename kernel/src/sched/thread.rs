//! A thread: its stack, its thread-local storage, and how it begins and ends.

use alloc::{boxed::Box, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use super::{bury, exit_thread};
use crate::{arch::context, mm::stacks::Stack, tls::Tls};

/// Index of a thread.
pub type ThreadId = usize;

/// What the scheduler keeps of a thread.
#[derive(Debug)]
pub struct Thread {
    /// Tells threads apart that had the same index.
    pub serial: u64,
    /// Stack pointer while it does not run.
    pub sp: usize,
    /// Its stack.
    pub stack: Stack,
    /// Its thread-local storage.
    pub tls: Tls,
    /// When it wakes at the latest, while it blocks.
    pub deadline: Option<u64>,
    /// Whether the deadline woke it.
    pub timed_out: bool,
    /// Threads that wait for its end.
    pub joiners: Vec<ThreadId>,
    entry: extern "C" fn(usize),
    argument: usize,
}

static SERIAL: AtomicU64 = AtomicU64::new(1);

impl Thread {
    /// A thread that will call `entry(argument)`.
    pub fn new(
        entry: extern "C" fn(usize),
        argument: usize,
        stack_size: usize,
    ) -> Option<Box<Self>> {
        let tls = Tls::new()?;
        let stack = Stack::new(stack_size)?;
        let mut thread = Box::new(Self {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            sp: 0,
            stack,
            tls,
            deadline: None,
            timed_out: false,
            joiners: Vec::new(),
            entry,
            argument,
        });
        let this = &raw const *thread;
        // SAFETY: the top chunk of a new stack is committed; the box outlives the thread.
        thread.sp = unsafe { context::prepare(stack.top, begin, this as usize) };
        Some(thread)
    }
}

extern "C" fn begin(this: usize) -> ! {
    bury();
    // SAFETY: `this` is the box that `new` made, which the scheduler keeps until the thread has ended.
    let thread = unsafe { &*(this as *const Thread) };
    (thread.entry)(thread.argument);
    exit_thread()
}

//! How threads begin and end.

use alloc::alloc::{alloc, dealloc};
use core::{alloc::Layout, cell::Cell, ptr::NonNull};

use super::{
    Thread, ThreadId, WaitQueue,
    switch::{IDLE_WORK, QUEUES, current, enter, switch},
    table::Table,
    timers::NOWHERE,
};
use crate::{arch::context, cpu::KernelCell, cpu::tls::Tls, list::Links, mm::stacks::Stack};

static TABLE: KernelCell<Table> = KernelCell::new(Table::new());

/// The thread that ended last, whose stack may still be in use.
static ENDED: KernelCell<Ended> = KernelCell::new(Ended(None));

struct Ended(Option<NonNull<Thread>>);

/// No memory for a thread: heap, stack or page tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpawnError;

/// Makes a thread that will run `entry(argument)`.
///
/// # Errors
/// [`SpawnError`].
pub fn spawn(
    entry: extern "C" fn(usize),
    argument: usize,
    stack_size: usize,
) -> Result<ThreadId, SpawnError> {
    // What can fail comes first, so that nothing is half done.
    let alive = TABLE.with(|t| t.reserve().map(|()| t.len())).map_err(|_| SpawnError)?;
    QUEUES.with(|q| q.timers.reserve(alive + 1)).map_err(|_| SpawnError)?;
    let tls = Tls::new().ok_or(SpawnError)?;
    let stack = Stack::new(stack_size).ok_or(SpawnError)?;
    let layout = Layout::new::<Thread>();
    // SAFETY: not of size 0.
    let memory = NonNull::new(unsafe { alloc(layout) }.cast::<Thread>());
    let Some(thread) = memory else {
        stack.retire();
        return Err(SpawnError);
    };
    // SAFETY: a new stack's top is committed, and nothing uses it.
    let sp = unsafe { context::prepare(stack.top(), begin, thread.as_ptr() as usize) };
    let id = TABLE.with(|t| t.insert(thread));
    let value = Thread {
        id,
        sp: Cell::new(sp),
        stack,
        tls,
        links: Links::new(),
        timer: Cell::new(NOWHERE),
        timed_out: Cell::new(false),
        futex: Cell::new(0),
        last_error: Cell::new(0),
        ended: WaitQueue::new(),
        entry,
        argument,
    };
    // SAFETY: allocated for it.
    unsafe { thread.write(value) };
    // SAFETY: new, so in no list; it stays until `free_ended`.
    QUEUES.with(|q| unsafe { q.ready.push_back(thread) });
    Ok(id)
}

/// Runs the threads that were spawned, and never returns. `idle_work` is called whenever no thread
/// is ready; it waits until something may have made one ready.
///
/// # Panics
/// When there are none.
pub fn start(idle_work: fn()) -> ! {
    IDLE_WORK.with(|work| *work = idle_work);
    let first = QUEUES.with(|q| q.ready.pop_front()).expect("the main thread was spawned");
    let mut boot_sp = 0;
    // SAFETY: it is alive, its stack was prepared, and the boot stack is not needed again.
    unsafe {
        enter(first);
        context::switch_stack(&raw mut boot_sp, first.as_ref().sp.get());
    }
    unreachable!("nothing switches back to the boot stack")
}

extern "C" fn begin(thread: usize) -> ! {
    free_ended();
    // SAFETY: what `spawn` prepared the stack with: this thread, which runs and so is alive.
    let (entry, argument) = unsafe {
        let thread = &*core::ptr::with_exposed_provenance::<Thread>(thread);
        (thread.entry, thread.argument)
    };
    entry(argument);
    exit_thread()
}

/// Ends the current thread.
pub fn exit_thread() -> ! {
    let me = current();
    // SAFETY: it runs, so it is alive.
    let thread = unsafe { me.as_ref() };
    TABLE.with(|t| t.remove(thread.id));
    thread.ended.wake_all();
    let before = ENDED.with(|e| e.0.replace(me));
    debug_assert!(before.is_none(), "a thread that runs has freed the one that ended before");
    switch();
    unreachable!("a thread that ended is not ready")
}

/// Frees the thread that ended last, now that another's stack is in use.
pub(super) fn free_ended() {
    if let Some(thread) = ENDED.with(|e| e.0.take()) {
        // SAFETY: it ended: it is in no list or table, and nothing runs on its stack. `spawn`
        // allocated it.
        let value = unsafe {
            let value = thread.read();
            dealloc(thread.as_ptr().cast(), Layout::new::<Thread>());
            value
        };
        value.stack.retire();
    }
}

/// Waits until thread `id` has ended. False if there never was such a thread, or it has ended
/// already.
pub fn join(id: ThreadId) -> bool {
    let Some(thread) = TABLE.with(|t| t.get(id)) else { return false };
    // SAFETY: threads in the table are alive, and its end empties the queue before anything of it
    // is freed.
    unsafe { thread.as_ref() }.ended.wait(None);
    true
}

/// Threads that have not ended.
#[must_use]
pub fn alive() -> usize {
    TABLE.with(|t| t.len())
}

/// Calls `f` with the stack of each thread that does not run, and its stack pointer.
pub(crate) fn each_waiting_stack(mut f: impl FnMut(&Stack, usize)) {
    let me = current();
    TABLE.with(|t| {
        for thread in t.iter().filter(|t| *t != me) {
            // SAFETY: threads in the table are alive.
            let thread = unsafe { thread.as_ref() };
            f(&thread.stack, thread.sp.get());
        }
    });
}

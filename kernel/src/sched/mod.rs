//! Threads on one vCPU, scheduled where they block.
//!
//! A thread runs until it waits, yields or ends. When none can run, the thread that noticed waits for the world: it polls the
//! network, fires timers, and idles at the doorbell until the nearest deadline.

mod futex;
mod thread;
mod wait_queue;

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use core::sync::atomic::{AtomicU64, Ordering};

pub use futex::{futex_wait, futex_wake};
pub use thread::{Thread, ThreadId};
pub use wait_queue::{WaitQueue, Wake};

use crate::{
    arch::{context, cpu},
    cell::KernelCell,
    mm::stacks::Stack,
    net, platform, quiesce, time,
};

/// How often a busy guest looks at the network, ns.
const NET_EVERY: u64 = 200_000;

#[derive(Debug)]
struct Scheduler {
    threads: Vec<Option<Box<Thread>>>,
    free_ids: Vec<ThreadId>,
    current: ThreadId,
    ready: VecDeque<ThreadId>,
    timers: BTreeMap<(u64, ThreadId), ()>,
    alive: usize,
    /// A stack whose thread has ended on it, to be retired from another.
    dead: Option<Box<Thread>>,
}

static SCHED: KernelCell<Scheduler> = KernelCell::new(Scheduler {
    threads: Vec::new(),
    free_ids: Vec::new(),
    current: 0,
    ready: VecDeque::new(),
    timers: BTreeMap::new(),
    alive: 0,
    dead: None,
});
static NEXT_NET: AtomicU64 = AtomicU64::new(0);

/// Starts `entry(argument)` on a thread of its own. `None` without memory.
pub fn spawn(entry: extern "C" fn(usize), argument: usize, stack_size: usize) -> Option<ThreadId> {
    let thread = Thread::new(entry, argument, stack_size)?;
    Some(SCHED.with(|s| {
        let id = s.free_ids.pop().unwrap_or_else(|| {
            s.threads.push(None);
            s.threads.len() - 1
        });
        s.threads[id] = Some(thread);
        s.alive += 1;
        s.ready.push_back(id);
        id
    }))
}

/// Runs the first thread, and never returns.
pub fn start() -> ! {
    let mut boot_sp = 0;
    let load = SCHED.with(|s| {
        let first = s.ready.pop_front().expect("the main thread was spawned");
        s.enter(first)
    });
    // SAFETY: `load` is the prepared stack of the first thread; the boot stack is not needed again.
    unsafe { context::switch_stack(&raw mut boot_sp, load) };
    unreachable!("nothing switches back to the boot stack")
}

impl Scheduler {
    /// Makes `id` the current thread and returns its stack pointer.
    fn enter(&mut self, id: ThreadId) -> usize {
        self.current = id;
        let thread = self.threads[id].as_ref().expect("only living threads are ready");
        // SAFETY: the next instructions that use thread-local storage are that thread's.
        unsafe { cpu::set_fs_base(thread.tls.pointer()) };
        thread.sp
    }

    fn thread(&mut self, id: ThreadId) -> &mut Thread {
        self.threads[id].as_mut().expect("a living thread")
    }

    fn fire(&mut self, now: u64) {
        while let Some((&(deadline, id), ())) = self.timers.first_key_value() {
            if deadline > now {
                break;
            }
            self.timers.remove(&(deadline, id));
            let thread = self.thread(id);
            thread.deadline = None;
            thread.timed_out = true;
            self.ready.push_back(id);
        }
    }
}

/// The thread that runs.
#[must_use]
pub fn current() -> ThreadId {
    SCHED.with(|s| s.current)
}

/// Threads that have not ended.
#[must_use]
pub fn alive() -> usize {
    SCHED.with(|s| s.alive)
}

/// Lets others run first.
pub fn yield_now() {
    look_around();
    let alone = SCHED.with(|s| {
        let current = s.current;
        s.ready.push_back(current);
        s.ready.len() == 1
    });
    if alone {
        SCHED.with(|s| s.ready.clear());
    } else {
        switch();
    }
}

/// What every entry that may yield does: answers a quiesce request, fires timers, and now and then looks at the network.
pub fn look_around() {
    quiesce::answer();
    let now = time::now_ns();
    SCHED.with(|s| s.fire(now));
    if now >= NEXT_NET.load(Ordering::Relaxed) {
        NEXT_NET.store(now + NET_EVERY, Ordering::Relaxed);
        platform::poll();
        net::poll(now);
    }
}

/// Blocks the current thread until [`wake`] or the deadline; true if it was the deadline.
pub fn block(deadline: Option<u64>) -> bool {
    SCHED.with(|s| {
        let id = s.current;
        let thread = s.thread(id);
        thread.timed_out = false;
        thread.deadline = deadline;
        if let Some(at) = deadline {
            s.timers.insert((at, id), ());
        }
    });
    switch();
    SCHED.with(|s| {
        let id = s.current;
        s.thread(id).timed_out
    })
}

/// Makes a blocked thread ready.
pub fn wake(id: ThreadId) {
    SCHED.with(|s| {
        if let Some(at) = s.thread(id).deadline.take() {
            s.timers.remove(&(at, id));
        }
        s.ready.push_back(id);
    });
}

/// Goes to the next ready thread; waits for the world when there is none.
fn switch() {
    loop {
        let next = SCHED.with(|s| s.ready.pop_front());
        let Some(next) = next else {
            idle();
            continue;
        };
        let to = SCHED.with(|s| {
            let from = s.current;
            if from == next {
                return None;
            }
            let load = s.enter(next);
            let save: *mut usize = match s.threads[from].as_mut() {
                Some(thread) => &raw mut thread.sp,
                // It has ended; nobody will load what is saved.
                None => &raw mut s.dead.as_mut().expect("a thread that ended").sp,
            };
            Some((save, load))
        });
        if let Some((save, load)) = to {
            // SAFETY: `save` lies in a box that stays; `load` was saved by a switch or prepared.
            unsafe { context::switch_stack(save, load) };
            bury();
        }
        return;
    }
}

/// Frees what the thread that ended last left, now that another's stack is in use.
fn bury() {
    if let Some(thread) = SCHED.with(|s| s.dead.take()) {
        thread.stack.retire();
        drop(thread.tls);
    }
}

fn idle() {
    quiesce::answer();
    let now = time::now_ns();
    let net = net::poll(now);
    let ready = SCHED.with(|s| {
        s.fire(now);
        !s.ready.is_empty()
    });
    if ready {
        return;
    }
    let timer = SCHED.with(|s| s.timers.first_key_value().map(|(&(at, _), ())| at));
    let deadline = [net, timer].into_iter().flatten().min();
    platform::idle(deadline);
    net::poll(time::now_ns());
}

/// Ends the current thread.
pub fn exit_thread() -> ! {
    let joiners = SCHED.with(|s| {
        let id = s.current;
        let mut thread = s.threads[id].take().expect("the current thread");
        s.free_ids.push(id);
        s.alive -= 1;
        let joiners = core::mem::take(&mut thread.joiners);
        s.dead = Some(thread);
        joiners
    });
    for id in joiners {
        wake(id);
    }
    switch();
    unreachable!("a thread that ended is not ready")
}

/// Waits until thread `id` has ended. False if there is no such thread any more.
pub fn join(id: ThreadId) -> bool {
    let waits = SCHED.with(|s| {
        let current = s.current;
        match s.threads.get_mut(id).and_then(Option::as_mut) {
            Some(thread) => {
                thread.joiners.push(current);
                true
            }
            _ => false,
        }
    });
    if waits {
        block(None);
    }
    waits
}

/// The stack of the current thread, for the page-fault handler.
pub fn with_current_stack<R>(f: impl FnOnce(&mut Stack) -> R) -> R {
    SCHED.with(|s| {
        let id = s.current;
        f(&mut s.thread(id).stack)
    })
}

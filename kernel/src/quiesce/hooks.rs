//! The program's hooks, and the thread that runs them.

use alloc::vec::Vec;

use core::sync::atomic::Ordering::Relaxed;

use crate::{cpu::KernelCell, platform, sched, time};

/// Runs before the pause: what was registered, and the time until the deadline, ns.
pub type OnQuiesce = extern "C" fn(data: usize, left_ns: u64);
/// Runs after it: what was registered, a
/// [`ResumeReason`](vmm_lite_interface::control::ResumeReason), the time away in ns, the generation
/// id.
pub type OnResume =
    extern "C" fn(data: usize, reason: u32, away_ns: u64, generation_0: u64, generation_1: u64);

/// A resume, as hooks see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resumed {
    pub reason: u32,
    pub away_ns: u64,
    pub generation: [u64; 2],
}

#[derive(Debug)]
struct Hooks {
    quiesce: Vec<(OnQuiesce, usize)>,
    resume: Vec<(OnResume, usize)>,
    /// Whether there is a thread for them.
    thread: bool,
    work: Work,
}

/// What the thread has to do.
#[derive(Clone, Copy, Debug)]
struct Work {
    /// Deadline of the request whose hooks run, or are to run.
    quiesce: Option<u64>,
    resume: Option<Resumed>,
}

static HOOKS: KernelCell<Hooks> = KernelCell::new(Hooks {
    quiesce: Vec::new(),
    resume: Vec::new(),
    thread: false,
    work: Work { quiesce: None, resume: None },
});
static WORK_TO_DO: sched::WaitQueue = sched::WaitQueue::new();

/// Stack of the hooks' thread.
const STACK: usize = 1 << 20;

/// No memory for another hook, or for the thread that would run it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

/// Adds a hook that runs before each pause; the latest first.
///
/// # Errors
/// [`NoMemory`].
pub fn on_quiesce(hook: OnQuiesce, data: usize) -> Result<(), NoMemory> {
    ensure_thread()?;
    HOOKS.with(|h| {
        h.quiesce.try_reserve(1).map_err(|_| NoMemory)?;
        h.quiesce.push((hook, data));
        if let Some(control) = platform::control() {
            control.no_quiesce_hooks.store(0, Relaxed);
        }
        Ok(())
    })
}

/// Adds a hook that runs after each resume; the earliest first.
///
/// # Errors
/// [`NoMemory`].
pub fn on_resume(hook: OnResume, data: usize) -> Result<(), NoMemory> {
    ensure_thread()?;
    HOOKS.with(|h| {
        h.resume.try_reserve(1).map_err(|_| NoMemory)?;
        h.resume.push((hook, data));
        Ok(())
    })
}

fn ensure_thread() -> Result<(), NoMemory> {
    if !HOOKS.with(|h| h.thread) {
        sched::spawn(run, 0, STACK).map_err(|_| NoMemory)?;
        HOOKS.with(|h| h.thread = true);
    }
    Ok(())
}

/// Whether there are hooks.
pub(super) fn any() -> bool {
    HOOKS.with(|h| h.thread)
}

/// Whether quiesce hooks run, or are to run.
pub(super) fn running() -> bool {
    HOOKS.with(|h| h.work.quiesce.is_some())
}

/// Has quiesce hooks run; false if there are none.
pub(super) fn start_quiesce(deadline: u64) -> bool {
    let any = HOOKS.with(|h| {
        // Hooks that still run for an earlier request count for this one.
        if !h.quiesce.is_empty() {
            h.work.quiesce.get_or_insert(deadline);
        }
        !h.quiesce.is_empty()
    });
    if any {
        WORK_TO_DO.wake_all();
    }
    any
}

/// Has resume hooks run, if there are any.
pub(super) fn start_resume(resumed: Resumed) {
    let any = HOOKS.with(|h| {
        if !h.resume.is_empty() {
            // Of two resumes in a row hooks see the second, with the time away of both.
            let before = h.work.resume.map_or(0, |r| r.away_ns);
            let away_ns = before.saturating_add(resumed.away_ns);
            h.work.resume = Some(Resumed { away_ns, ..resumed });
        }
        !h.resume.is_empty()
    });
    if any {
        WORK_TO_DO.wake_all();
    }
}

extern "C" fn run(_: usize) {
    loop {
        let work = HOOKS.with(|h| Work { resume: h.work.resume.take(), ..h.work });
        // Resume hooks run before the next pause's.
        if let Some(Resumed { reason, away_ns, generation: [g0, g1] }) = work.resume {
            // By number: a hook may register others.
            for n in 0.. {
                let Some((hook, data)) = HOOKS.with(|h| h.resume.get(n).copied()) else { break };
                hook(data, reason, away_ns, g0, g1);
            }
        }
        if let Some(deadline) = work.quiesce {
            for n in (0..HOOKS.with(|h| h.quiesce.len())).rev() {
                let Some((hook, data)) = HOOKS.with(|h| h.quiesce.get(n).copied()) else { break };
                hook(data, deadline.saturating_sub(time::now_ns()));
            }
            HOOKS.with(|h| h.work.quiesce = None);
            super::poll();
        }
        if HOOKS.with(|h| h.work.quiesce.is_none() && h.work.resume.is_none()) {
            WORK_TO_DO.wait(None);
        }
    }
}

//! Quiesce: the VMM asks the guest to choose a good moment at which it is moved, copied or paused.
//!
//! 1. The request is seen at the next checkpoint, and hooks of the program begin to run on a thread
//!    of the kernel's, while the other threads go on: a hook may wait for a lock that one of them
//!    holds.
//! 2. When the hooks have run, or the deadline has passed, the guest answers: what can be sent is
//!    sent, page hints are set, and the vCPU stops at the doorbell.
//! 3. After the resume, maybe on another host, these hints are taken back, and resume hooks run.
//!    They run too when the guest was stopped without a request, or before it could answer.
//!
//! Without hooks a request is answered where it is seen, and a guest that is to be moved gets
//! no request.
//!
//! Free memory is hinted at all times. The VMM can also request that the guest returns memory
//! that it keeps for later use: it frees it, reports that, and runs on.

mod hooks;
mod page_hints;
mod uart;

use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

pub use hooks::{OnQuiesce, OnResume, on_quiesce, on_resume};
use vmm_lite_interface::control::ControlPage;

use crate::{
    arch::{cpu, touch},
    counters,
    cpu::KernelCell,
    mm, net, platform, samples, time,
};

/// The state of the request that is being answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// There is none.
    None,
    /// Hooks run since `started`; at `deadline` the answer goes out without them.
    Hooks { started: u64, deadline: u64 },
}

static PHASE: KernelCell<Phase> = KernelCell::new(Phase::None);
/// Resumes that the kernel has handled.
static RESUMES: AtomicU64 = AtomicU64::new(0);
/// The sequence number of the addresses that the guest uses.
static ADDRESSES: AtomicU32 = AtomicU32::new(0);
/// How long hooks took last, ns.
static HOOKS_NS: AtomicU64 = AtomicU64::new(0);
/// A guard against answering within an answer.
static ANSWERING: AtomicBool = AtomicBool::new(false);

/// Whether [`poll`] has something to do. A few loads.
#[inline]
pub fn requested() -> bool {
    match platform::control() {
        Some(control) => {
            quiesce_requested(control) || resumed(control) || reclaim_requested(control)
        }
        None => uart::requested(),
    }
}

fn quiesce_requested(control: &ControlPage) -> bool {
    control.quiesce_request.load(Relaxed) != control.quiesce_answer.load(Relaxed)
}

fn reclaim_requested(control: &ControlPage) -> bool {
    control.reclaim_request.load(Relaxed) != control.reclaim_answer.load(Relaxed)
}

fn resumed(control: &ControlPage) -> bool {
    control.resume_count.load(Relaxed) != RESUMES.load(Relaxed)
}

/// When [`poll`] must be called at the latest, by the monotonic clock.
pub fn deadline() -> Option<u64> {
    PHASE.with(|phase| match *phase {
        Phase::Hooks { deadline, .. } => Some(deadline),
        Phase::None => None,
    })
}

/// Whether hooks could make a thread ready that waits.
pub fn can_wake() -> bool {
    hooks::any()
}

/// Whether hooks have a deadline, so that other threads should make room for them.
pub fn is_urgent() -> bool {
    deadline().is_some()
}

/// Sees requests and resumes, and answers when it is time.
pub fn poll() {
    let Some(control) = platform::control() else { return uart::poll() };
    if resumed(control) {
        after_resume(control);
    }
    if reclaim_requested(control) {
        // What is free is hinted already.
        mm::shrink();
        control.reclaim_answer.store(control.reclaim_request.load(Relaxed), SeqCst);
        platform::reclaimed();
    }
    if !quiesce_requested(control) {
        // Taken back: the guest was stopped before it could answer.
        if deadline().is_some() && !hooks::running() {
            PHASE.with(|phase| *phase = Phase::None);
        }
        return;
    }
    let left = time::until_tsc(control.quiesce_deadline_tsc.load(Relaxed));
    // Part of it is for the answer itself.
    if ready_to_answer(left - left / 8) {
        answer(control);
    }
}

/// Has hooks run, if there are any; returns whether the answer may be sent.
fn ready_to_answer(left_ns: u64) -> bool {
    let now = time::now_ns();
    match PHASE.with(|phase| *phase) {
        Phase::None => {
            HOOKS_NS.store(0, Relaxed);
            if !hooks::start_quiesce(now + left_ns) {
                return true;
            }
            PHASE.with(|p| *p = Phase::Hooks { started: now, deadline: now + left_ns });
            false
        }
        Phase::Hooks { started, deadline } => {
            if hooks::running() && now < deadline {
                return false;
            }
            HOOKS_NS.store(now - started, Relaxed);
            PHASE.with(|phase| *phase = Phase::None);
            true
        }
    }
}

fn answer(control: &ControlPage) {
    if ANSWERING.swap(true, Relaxed) {
        return;
    }
    // Sends what can be sent, so that the fewest packets are left in the guest.
    let _ = net::poll(time::now_ns());
    counters::publish();
    page_hints::set();
    control.hooks_ns.store(HOOKS_NS.load(Relaxed), Relaxed);
    control.quiesce_answer.store(control.quiesce_request.load(Relaxed), Relaxed);
    control.quiesced_tsc.store(samples::tsc(), SeqCst);
    platform::quiesced();
    control.resumed_tsc.store(samples::tsc(), SeqCst);
    page_hints::clear();
    ANSWERING.store(false, Relaxed);
    if resumed(control) {
        after_resume(control);
    }
}

fn after_resume(control: &ControlPage) {
    RESUMES.store(control.resume_count.load(Relaxed), Relaxed);
    let sequence = control.address.sequence.load(Relaxed);
    if ADDRESSES.swap(sequence, Relaxed) != sequence {
        // Before anything is sent from the old address.
        net::adopt(&control.address);
    }
    hooks::start_resume(hooks::Resumed {
        reason: control.resume_reason.load(Relaxed),
        away_ns: control.away_ns.load(Relaxed),
        generation: platform::generation(),
    });
}

/// Prepares for requests, before the first thread runs.
pub fn init() {
    if let Some(control) = platform::control() {
        RESUMES.store(control.resume_count.load(Relaxed), Relaxed);
        let memory = control.memory_size.load(Relaxed) as usize;
        if let Some((address, len)) = mm::page_hints::init(memory) {
            control.page_hints_len.store(len, SeqCst);
            control.page_hints.store(address, SeqCst);
        }
        control.no_quiesce_hooks.store(1, Relaxed);
        control.touch_pages.store(touch::address(), Relaxed);
        for (to, at) in
            control.sample_routines.iter().flatten().zip(samples::routines().as_flattened())
        {
            to.store(*at, Relaxed);
        }
    }
    cpu::touch_stack();
}

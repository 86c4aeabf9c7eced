//! The thread of a vCPU.

use super::{End, Vcpus, run::Stop};
use crate::host::{
    confine::{self, Thread},
    this_thread,
};
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::Ordering::SeqCst,
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
};
use vcpu_control::Stopped;

/// Enough for the run loop, and little to commit.
const STACK: usize = 256 << 10;

/// A bug in vmm-lite; the panic message has been printed.
#[derive(thiserror::Error, Debug)]
#[error("vmm-lite itself failed while it ran the VM; please report the message above")]
struct Panicked;

/// The thread, started before its VM exists: starting and confining it takes as long as making
/// that. Dropping this ends it.
#[derive(Debug)]
pub(crate) struct Starting {
    vcpus: SyncSender<(Arc<Vcpus>, usize)>,
    thread: JoinHandle<()>,
}

impl Starting {
    /// Passes it the vCPU `member`. The thread is parked, and ends when the VM does.
    pub fn take(self, vcpus: &Arc<Vcpus>, member: usize) -> JoinHandle<()> {
        // The thread waits for nothing else, and the channel has room for one.
        let _ = self.vcpus.send((Arc::clone(vcpus), member));
        self.thread
    }
}

/// Starts the thread.
pub(crate) fn start() -> io::Result<Starting> {
    let (vcpus, given) = sync_channel::<(Arc<Vcpus>, usize)>(1);
    let thread = std::thread::Builder::new()
        .name(Thread::Vcpu.name().into())
        .stack_size(STACK)
        .spawn(move || {
            // The guest's deadlines are met to the microsecond, not to the 50 that threads have by
            // default. The call fails only for another thread.
            let _ = nix::sys::prctl::set_timerslack(1);
            let confined = confine::enter(Thread::Vcpu);
            let Ok((vcpus, member)) = given.recv() else { return };
            vcpus.threads[member].id.store(this_thread(), SeqCst);
            if let Err(e) = confined {
                let why = Stopped::Ended(Arc::new(End::Vmm(Arc::new(e))));
                return vcpus.control.stopped(member, vcpus.control.lock_member(member), why);
            }
            run(&vcpus, member);
        })?;
    Ok(Starting { vcpus, thread })
}

/// Runs the vCPU whenever it is to run, until the VM has ended.
fn run(vcpus: &Vcpus, member: usize) {
    let control = &vcpus.control;
    while control.park(member) {
        // Another thread may have taken hold of it meanwhile.
        let Some(mut runner) = control.lock_running(member) else { continue };
        fail_point!("vcpu.entering");
        let run = AssertUnwindSafe(|| runner.run(vcpus, member));
        let stop = catch_unwind(run).unwrap_or_else(|_| Stop::Ended(End::Vmm(Arc::new(Panicked))));
        let why = match stop {
            Stop::Waits(wait_for) => {
                drop(runner);
                wait_for.wait(vcpus, member);
                continue;
            }
            Stop::Paused { quiescent } => {
                fail_point!("vcpu.stopping");
                Stopped::Paused { quiescent }
            }
            Stop::Ended(end) => Stopped::Ended(Arc::new(end)),
            Stop::Failed(e) => Stopped::Ended(Arc::new(End::Vmm(Arc::new(e)))),
        };
        control.stopped(member, runner, why);
    }
}

//! The vCPU thread.

use super::{End, Error, machine::Stop, shared::Shared, steering::Phase};
use crate::host::{
    confine::{self, Thread},
    this_thread,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::Ordering::SeqCst,
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Instant,
};

/// Enough for the run loop, and little to commit.
const STACK: usize = 256 << 10;

/// A bug in vmm-lite; the panic message has been printed.
#[derive(thiserror::Error, Debug)]
#[error("vmm-lite itself failed while it ran the VM; please report the message above")]
struct Panicked;

/// The thread, started before its VM exists: starting and confining it takes as long as making
/// that. Dropping this ends it.
#[derive(Debug)]
pub(super) struct Starting {
    machine: SyncSender<Arc<Shared>>,
    thread: JoinHandle<()>,
}

impl Starting {
    /// Passes it the VM. The thread is parked, and ends when the VM does.
    pub(super) fn take(self, shared: &Arc<Shared>) -> JoinHandle<()> {
        // The thread waits for nothing else, and the channel has room for one.
        let _ = self.machine.send(Arc::clone(shared));
        self.thread
    }
}

/// Starts the thread.
pub(super) fn start() -> Result<Starting, Error> {
    let (machine, given) = sync_channel::<Arc<Shared>>(1);
    let thread = std::thread::Builder::new()
        .name(Thread::Vcpu.name().into())
        .stack_size(STACK)
        .spawn(move || {
            // The guest's deadlines are met to the microsecond, not to the 50 that threads have by
            // default. SAFETY: changes only how late timers of this thread may fire.
            unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
            let confined = confine::enter(Thread::Vcpu);
            let Ok(shared) = given.recv() else { return };
            shared.thread.store(this_thread(), SeqCst);
            if let Err(e) = confined {
                let ended = Phase::Ended(Arc::new(End::Vmm(Arc::new(e))));
                return shared.stopped(shared.lock_machine(), ended);
            }
            while shared.park() {
                // Another thread may have taken hold of it meanwhile.
                let Some(mut machine) = shared.lock_running() else { continue };
                fail_point!("vcpu.entering");
                let run = AssertUnwindSafe(|| machine.run(&shared));
                let stop =
                    catch_unwind(run).unwrap_or_else(|_| Stop::Ended(End::Vmm(Arc::new(Panicked))));
                let phase = match stop {
                    Stop::Waits(wait_for) => {
                        drop(machine);
                        wait_for.wait(&shared);
                        continue;
                    }
                    Stop::Paused { quiescent } => {
                        fail_point!("vcpu.stopping");
                        Phase::Paused { quiescent, since: Instant::now() }
                    }
                    Stop::Ended(end) => Phase::Ended(Arc::new(end)),
                    Stop::Failed(e) => Phase::Ended(Arc::new(End::Vmm(Arc::new(e)))),
                };
                shared.stopped(machine, phase);
            }
        })
        .map_err(|source| Error::Host { doing: "start the vCPU's thread", source })?;
    Ok(Starting { machine, thread })
}

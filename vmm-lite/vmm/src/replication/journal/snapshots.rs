//! Snapshots of a VM in its journal, now and then: a replay begins with one of them, and what lies
//! before the oldest that is kept is removed.

use super::{Error, Journal, write::resume};
use crate::{
    host::confine::{self, Thread},
    host::poll::wait_readable,
    replication::base,
    vm::Vm,
};
use ::journal::{Keep, Writer};
use std::{fs, io, sync::Arc, time::Duration};

/// Stack of the thread.
const STACK: usize = 256 << 10;

/// When snapshots are made, and which are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshots {
    /// The time between two.
    pub every: Duration,
    /// Which are kept.
    pub keep: Keep,
}

impl Journal {
    /// Makes snapshots of `vm`, whose journal this is, until it ends: on a thread of its own.
    ///
    /// # Errors
    /// If the host cannot start a thread.
    pub fn make_snapshots(&self, vm: &Vm, how: Snapshots) -> io::Result<()> {
        let (vm, writer) = (vm.clone(), Arc::clone(self.writer()));
        let thread = std::thread::Builder::new().name(Thread::Snapshots.name().into());
        let make = move || {
            if let Err(e) = confine::enter(Thread::Snapshots) {
                tracing::error!("no snapshots are made: {}", crate::host::with_causes(&e));
                return;
            }
            // Readable once the VM has ended.
            while let Ok(false) = wait_readable(vm.end_fd(), how.every) {
                if let Err(e) = make(&vm, &writer, how.keep) {
                    tracing::warn!(
                        "no snapshot for the journal this time: {}",
                        crate::host::with_causes(&e)
                    );
                }
            }
        };
        thread.stack_size(STACK).spawn(make).map(drop)
    }
}

/// Makes one, and removes what is older than those that are kept.
fn make(vm: &Vm, writer: &Writer, keep: Keep) -> Result<(), Error> {
    let path = writer.snapshot_path();
    // One that was given up.
    let _ = fs::remove_file(&path);
    let mut wanted = || !vm.stop_wanted();
    let at = base::write_running(vm, &path, &mut wanted).inspect_err(|_| {
        let _ = fs::remove_file(&path);
    })?;
    writer.commit_snapshot(at.record, &resume(at))?;
    writer.prune(keep)?;
    Ok(())
}

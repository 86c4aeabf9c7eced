//! Runs a guest that is replayed for a debugger, on the vCPU's thread.

use super::{
    Debug, DebugLink, DebugStop, Moment, Orders, Tape,
    debug::Entry,
    patches::{Patches, may_be_hit},
    replay::{Replayer, Step},
    successors::{fault_handler, successors},
};
use crate::{
    kvm::{self, Exit, VcpuState},
    vcpu::{Runner, Vcpus, run::Stop},
};
use std::sync::Arc;

/// A guest that has stopped for its debugger.
#[derive(Clone, PartialEq, Debug)]
pub struct Debugged {
    /// Why it has stopped. `None`: its replay has ended, or it has not run yet.
    pub stopped: Option<DebugStop>,
    /// Where it is.
    pub at: Moment,
    /// The last moment before the exit where it is that it was stopped at, or counted to.
    pub before: Option<Moment>,
    /// Where it came to a breakpoint last, on its way to a moment.
    pub last_hit: Option<Moment>,
    /// The last reading of its time stamp counter, if it took one since its replay began.
    pub tsc: Option<u64>,
}

/// How a guest that runs is to be stopped.
#[derive(Debug, Default)]
pub(super) struct Traps {
    patches: Patches,
    /// The instruction that it is to execute, and where it goes if that faults.
    from: Option<u64>,
    handler: Option<u64>,
}

const PAUSED: Stop = Stop::Paused { quiescent: false };

impl Runner {
    /// Has a guest that is replayed stop for a debugger.
    pub fn debug(&mut self, link: Arc<DebugLink>) {
        if let Tape::Replay(replayer) = &mut self.tape {
            replayer.debug = Some(Box::new(Debug::new(link, replayer.position())));
        }
    }

    /// Has a debugged guest do this when it runs.
    pub fn order(&mut self, orders: Orders) {
        if let Tape::Replay(replayer) = &mut self.tape
            && let Some(debug) = &mut replayer.debug
        {
            debug.link.rearm();
            debug.order(orders);
        }
    }

    /// Where a debugged guest is.
    pub fn debugged(&self) -> Option<Debugged> {
        let Tape::Replay(replayer) = &self.tape else { return None };
        let debug = replayer.debug.as_ref()?;
        let (at, last_hit) = (debug.at().clone(), debug.last_hit().cloned());
        let before = debug.before().cloned();
        Some(Debugged { stopped: debug.stopped, at, before, last_hit, tsc: replayer.tsc() })
    }

    /// Its registers.
    pub fn registers(&mut self) -> Result<VcpuState, kvm::Error> {
        self.vcpu.capture()
    }

    /// It is not debugged any more.
    pub fn end_debugging(&mut self) {
        if let Tape::Replay(replayer) = &mut self.tape {
            replayer.debug = None;
        }
    }

    /// Whether it stops at the end of its log, so that the debugger sees it as it is there.
    pub(super) fn stops_at_end(&mut self, replayer: &mut Replayer) -> Result<bool, kvm::Error> {
        if self.arrives(replayer)? {
            return Ok(true);
        }
        Ok(replayer.debug.as_mut().is_some_and(|debug| debug.end().is_some()))
    }

    /// Before it goes on from a record, or at the end of its log. Returns whether it stops instead.
    fn arrives(&mut self, replayer: &mut Replayer) -> Result<bool, kvm::Error> {
        let position = replayer.position();
        let Some(debug) = &mut replayer.debug else { return Ok(false) };
        let rip = || Ok::<_, kvm::Error>(self.vcpu.capture()?.regs.rip);
        Ok(debug.arrive(position, rip)?.is_some())
    }

    /// Runs a debugged guest until it exits, or is where it may have to stop.
    pub(super) fn replay_debugged(
        &mut self,
        replayer: &mut Replayer,
        vcpus: &Vcpus,
        member: usize,
    ) -> Step {
        match self.arrives(replayer) {
            Ok(false) => {}
            Ok(true) => return Step::Stop(PAUSED),
            Err(e) => return Step::Stop(Stop::Failed(e)),
        }
        if let Err(e) = self.set_traps(replayer, vcpus) {
            return Step::Stop(Stop::Failed(e));
        }
        let step = self.replay_to_exit(replayer, vcpus, member);
        // It was not even entered, if they are still there.
        match replayer.debug.as_mut().map(|debug| debug.traps.patches.take(&vcpus.ram)) {
            Some(Err(e)) => Step::Stop(Stop::Failed(e.into())),
            Some(Ok(_)) | None => step,
        }
    }

    fn set_traps(&mut self, replayer: &mut Replayer, vcpus: &Vcpus) -> Result<(), kvm::Error> {
        let Some(debug) = &mut replayer.debug else { return Ok(()) };
        let ram = &vcpus.ram;
        if let Entry::Run(at) = debug.enter() {
            let at = at.clone();
            (debug.traps.from, debug.traps.handler) = (None, None);
            if at.is_empty() {
                return Ok(());
            }
            let sregs = self.vcpu.system()?;
            if sregs.tr.base != 0 {
                return Ok(debug.traps.patches.put(ram, &sregs, at)?);
            }
            // It has just begun to boot, and has no permission map yet.
            debug.steps_over();
        }
        // This completes the last exit's instruction, which is none of the steps.
        let state = self.vcpu.capture()?;
        debug.traps.from = Some(state.regs.rip);
        debug.traps.handler = fault_handler(ram, &state);
        let at = successors(ram, &state).into_iter().chain(debug.traps.handler);
        Ok(debug.traps.patches.put(ram, &state.sregs, at)?)
    }

    /// What a debugged guest's exit means. `None`: what it does without a debugger.
    pub(super) fn debug_exit(
        &mut self,
        replayer: &mut Replayer,
        exit: &Exit,
        vcpus: &Vcpus,
    ) -> Option<Step> {
        let debug = replayer.debug.as_mut()?;
        match self.trapped(&mut debug.traps, exit, vcpus) {
            Err(e) => Some(Step::Stop(Stop::Failed(e))),
            Ok(None) => None,
            Ok(Some(rip)) => {
                let stopped = match debug.traps.from {
                    Some(from) if debug.traps.handler == Some(rip) => debug.fault(from, rip),
                    _ => debug.stop(rip),
                };
                Some(stopped.map_or(Step::Again, |_| Step::Stop(PAUSED)))
            }
        }
    }

    /// Undoes the patches. Returns the patched instruction that it was about to execute.
    fn trapped(
        &mut self,
        traps: &mut Traps,
        exit: &Exit,
        vcpus: &Vcpus,
    ) -> Result<Option<u64>, kvm::Error> {
        if traps.patches.is_empty() {
            return Ok(None);
        }
        let patches = traps.patches.take(&vcpus.ram)?;
        if *exit == Exit::Kicked && traps.from.is_some() {
            // It may have executed the instruction, and not yet the one behind it.
            let rip = self.vcpu.capture()?.regs.rip;
            return Ok(patches.has(rip).then_some(rip));
        }
        if !may_be_hit(exit) {
            return Ok(None);
        }
        let hit = patches.hit(self.vcpu.capture()?.regs.rip);
        if let Some(rip) = hit {
            self.vcpu.set_rip(rip)?;
        }
        Ok(hit)
    }
}

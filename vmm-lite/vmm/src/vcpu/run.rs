//! The loop that runs a vCPU and handles its exits.

use super::{
    End, Exits, Vcpus,
    inputs::{Failure, Tape},
    wait::{self, WaitFor},
};
use crate::{
    devices::{Devices, Violation},
    kvm::{self, Exit, Vcpu},
};
use vmm_lite_interface::doorbell::{self, Doorbell};

/// Why [`Runner::run`] returned.
#[derive(Debug)]
pub(super) enum Stop {
    /// The guest waits, for this. A thread that takes hold of the VM meanwhile finds it stopped.
    Waits(WaitFor),
    /// A pause was requested, or the guest is quiescent on request.
    Paused { quiescent: bool },
    /// It will not run again.
    Ended(End),
    /// KVM failed.
    Failed(kvm::Error),
}

/// The result of serving a doorbell.
pub(super) enum Served {
    /// Continue the guest.
    All,
    /// Stop here; the unserved bits are served after the resume.
    Stop(Stop),
}

/// A vCPU and where its guest is. While a thread has its lock, it does not run.
#[derive(Debug)]
pub(crate) struct Runner {
    pub vcpu: Vcpu,
    /// Doorbell bits that the guest rang and that are not served yet.
    pub unserved: Doorbell,
    /// The guest waits, at most until this time by its clock.
    pub(super) wait: Option<u64>,
    /// It was made to wait although it asked to be woken at once, as it cannot send. This happens
    /// at most once in each wait.
    pub(super) stuck: bool,
    /// Whether the first entry after the last resume is noted.
    entry_noted: bool,
    /// What happens to the guest's inputs.
    pub(super) tape: Tape,
}

impl Runner {
    pub(super) fn new(vcpu: Vcpu) -> Self {
        let unserved = Doorbell::default();
        let (wait, tape) = Default::default();
        Self { vcpu, unserved, wait, stuck: false, entry_noted: false, tape }
    }

    /// Whether its guest waits for an event.
    pub fn guest_waits(&self) -> bool {
        self.wait.is_some()
    }

    /// It is about to run again.
    pub fn before_resume(&mut self) {
        // The guest checks by itself what it waited for.
        self.wait = None;
        self.entry_noted = false;
    }

    /// Runs the guest until it has to stop, or waits. On the vCPU's thread.
    pub(super) fn run(&mut self, vcpus: &Vcpus, member: usize) -> Stop {
        if let Tape::Replay(_) = self.tape {
            return self.replay(vcpus, member);
        }
        let stop = self.run_live(vcpus, member);
        match stop {
            Stop::Ended(end) => self.last_record(end, vcpus),
            Stop::Waits(_) | Stop::Paused { .. } | Stop::Failed(_) => stop,
        }
    }

    fn run_live(&mut self, vcpus: &Vcpus, member: usize) -> Stop {
        let thread = crate::host::this_thread();
        let kick = vcpus.control.kick(member);
        loop {
            let mut devices = vcpus.lock_devices();
            match self.serve(&mut devices, vcpus, member) {
                Ok(Served::All) => {}
                Ok(Served::Stop(stop)) => return stop,
                Err(violation) => return broke(&violation, &mut devices, vcpus, member),
            }
            if let Some(deadline) = self.wait {
                match wait::for_something(self, &mut devices, vcpus, member, deadline) {
                    Ok(Some(wait_for)) => return Stop::Waits(wait_for),
                    Ok(None) => self.wait = None,
                    Err(violation) => return broke(&violation, &mut devices, vcpus, member),
                }
            }
            if let Tape::Record(recorder) = &mut self.tape
                && let Err(failure) = recorder.before_entry(&mut devices, vcpus)
            {
                return unrecorded(failure, &mut devices, vcpus, member);
            }
            drop(devices);
            let near = vcpus.control.stop_is_near();
            self.vcpu.hand_over_registers(near);
            if !kick.enter(thread, || vcpus.control.pause_wanted()) {
                if near {
                    self.capture_early();
                }
                return Stop::Paused { quiescent: false };
            }
            self.note_first_entry(vcpus);
            let exit = self.vcpu.run();
            kick.leave();
            if let (Ok(exit), Tape::Record(recorder)) = (&exit, &mut self.tape)
                && let Err(failure) = recorder.exit(exit, &mut self.vcpu, &vcpus.ram)
            {
                return unrecorded(failure, &mut vcpus.lock_devices(), vcpus, member);
            }
            let handled = match exit {
                Ok(exit) => self.handle(exit, vcpus),
                Err(e) => return Stop::Failed(e),
            };
            if let Err(violation) = handled {
                return broke(&violation, &mut vcpus.lock_devices(), vcpus, member);
            }
        }
    }

    /// Notes the first entry after a resume.
    pub(super) fn note_first_entry(&mut self, vcpus: &Vcpus) {
        if !self.entry_noted {
            vcpus.note_entry();
            self.entry_noted = true;
        }
    }

    /// The end of the guest, whose last output was served, also goes into its log.
    fn last_record(&mut self, end: End, vcpus: &Vcpus) -> Stop {
        if let Tape::Record(recorder) = &mut self.tape
            && let Err(failure) = recorder.flush(&mut vcpus.lock_devices())
        {
            tracing::error!("{}", crate::host::with_causes(&failure));
        }
        Stop::Ended(end)
    }

    pub(super) fn handle(&mut self, exit: Exit, vcpus: &Vcpus) -> Result<(), Violation> {
        match exit {
            Exit::PortWrite { port: doorbell::PORT, size: 4, value } => {
                Exits::count(&vcpus.exits.doorbell);
                if value & !Doorbell::ALL.0 != 0 {
                    return Err(Violation::Doorbell(value));
                }
                self.unserved = Doorbell(value);
                Ok(())
            }
            Exit::PortWrite { port: doorbell::PORT, size, .. } => {
                Err(Violation::DoorbellSize(size))
            }
            Exit::PortWrite { port, .. } | Exit::PortRead { port } => Err(Violation::Port(port)),
            Exit::MmioRead { address, len } => {
                Exits::count(&vcpus.exits.mmio);
                let mut data = [0; 8];
                vcpus.lock_devices().bus.read(address, &mut data[..len])?;
                self.vcpu.answer_read(&data[..len]);
                Ok(())
            }
            Exit::MmioWrite { address, data, len } => {
                Exits::count(&vcpus.exits.mmio);
                vcpus.lock_devices().bus.write(address, &data[..len], vcpus.memory_at_exit())
            }
            Exit::Kicked => {
                Exits::count(&vcpus.exits.kicked);
                Ok(())
            }
            Exit::Halted => Err(Violation::Halted),
            Exit::TripleFault => Err(Violation::TripleFault),
            Exit::Cannot { what, rip } => Err(Violation::CannotRun { what, rip }),
        }
    }
}

fn broke(violation: &Violation, devices: &mut Devices, vcpus: &Vcpus, member: usize) -> Stop {
    devices.flush(vcpus, member);
    Stop::Ended(End::Broke(violation.clone()))
}

/// The guest cannot be recorded any further, and does not run unrecorded.
fn unrecorded(failure: Failure, devices: &mut Devices, vcpus: &Vcpus, member: usize) -> Stop {
    match failure.into_end() {
        Ok(error) => Stop::Ended(End::Vmm(error)),
        Err(violation) => broke(&violation, devices, vcpus, member),
    }
}

//! The vCPU with its devices, and the loop that runs it.

use super::{
    ApplyError, End, Error, GuestFault, InvariantState, VmState,
    shared::{Exits, Shared},
    wait::{self, WaitFor},
};
use crate::{
    devices::{Violation, bus::Bus, clock::Clock, console::Rings, device::RestoreError, net::Net},
    host::random,
    kvm::{self, Exit, Kick, PageFaults, Vcpu},
    memory::GuestRam,
};
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use vmm_lite_interface::{
    INTERFACE_VERSION,
    control::{self, ResumeReason},
    doorbell::{self, Doorbell},
    layout::{CONTROL_PAGE, PAGE_SIZE},
};

/// Why [`Machine::run`] returned.
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

/// The vCPU and its devices. While a thread holds it, the guest does not run.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) vcpu: Vcpu,
    pub(super) bus: Bus,
    pub(super) rings: Rings,
    pub(super) clock: Clock,
    pub(super) ram: Arc<GuestRam>,
    /// Doorbell bits that the guest rang and that are not served yet.
    pub(super) unserved: Doorbell,
    kick: Arc<Kick>,
    /// The guest waits, at most until this time by its clock.
    wait: Option<u64>,
    /// It was made to wait although it asked to be woken at once, as it cannot send. This happens
    /// at most once in each wait.
    pub(super) stuck: bool,
    /// Whether the first entry after the last resume is noted.
    entry_noted: bool,
    /// The reason of its resume, while it has not run since.
    pub(super) untold: Option<ResumeReason>,
}

impl Machine {
    pub(super) fn new(vcpu: Vcpu, bus: Bus, ram: Arc<GuestRam>) -> Result<Self, Error> {
        let clock = Clock::start(vcpu.tsc_hz()?);
        let control = ram.control_page();
        control.magic.store(control::MAGIC, SeqCst);
        control.version.store(INTERFACE_VERSION, SeqCst);
        control.wake_deadline_ns.store(u64::MAX, SeqCst);
        ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
        let kick = vcpu.kick_handle();
        Ok(Self {
            vcpu,
            bus,
            rings: Rings::default(),
            clock,
            ram,
            unserved: Doorbell::default(),
            kick,
            wait: None,
            stuck: false,
            entry_noted: false,
            untold: None,
        })
    }

    pub(super) fn set_entry(&mut self, entry: u64) -> Result<(), kvm::Error> {
        self.vcpu.set_entry(entry)
    }

    pub(super) fn kick_handle(&self) -> Arc<Kick> {
        Arc::clone(&self.kick)
    }

    pub(super) fn page_faults(&self) -> Option<Arc<PageFaults>> {
        self.vcpu.page_faults()
    }

    /// Writes what the guest needs to know when it runs (again).
    pub(super) fn before_resume(
        &mut self,
        reason: ResumeReason,
        away: Duration,
        fresh: Option<&Fresh>,
    ) {
        self.ram.let_guest_write();
        let control = self.ram.control_page();
        self.clock.publish(&control.clock);
        control.resume_reason.store(reason as u32, SeqCst);
        control.away_ns.store(away.as_nanos() as u64, SeqCst);
        if reason != ResumeReason::Boot {
            control.resume_count.fetch_add(1, SeqCst);
        }
        control.net_mmio.store(self.bus.window_of::<Net>().unwrap_or(0), SeqCst);
        control.memory_size.store(self.ram.size(), SeqCst);
        if let Some(fresh) = fresh {
            let generation = fresh.generation.iter().flatten();
            control.generation.iter().zip(generation).for_each(|(to, n)| to.store(*n, SeqCst));
            control.entropy.iter().zip(&fresh.entropy).for_each(|(to, n)| to.store(*n, SeqCst));
        }
        self.ram.mark(CONTROL_PAGE, PAGE_SIZE as usize);
        // The guest checks by itself what it waited for.
        self.wait = None;
        self.entry_noted = false;
    }

    /// Runs the guest until it has to stop, or waits. On the vCPU thread.
    pub(super) fn run(&mut self, shared: &Shared) -> Stop {
        let thread = crate::host::this_thread();
        loop {
            match self.serve(shared) {
                Ok(Served::All) => {}
                Ok(Served::Stop(stop)) => return stop,
                Err(violation) => return self.broke(violation, shared),
            }
            if let Some(deadline) = self.wait {
                match wait::for_something(self, shared, deadline) {
                    Ok(Some(wait_for)) => return Stop::Waits(wait_for),
                    Ok(None) => self.wait = None,
                    Err(violation) => return self.broke(violation, shared),
                }
            }
            let near = shared.stop_is_near();
            self.vcpu.hand_over_registers(near);
            if !self.kick.enter(thread, || shared.pause_wanted()) {
                if near {
                    self.capture_early();
                }
                return Stop::Paused { quiescent: false };
            }
            if !self.entry_noted {
                shared.note_entry();
                self.entry_noted = true;
            }
            let exit = self.vcpu.run();
            self.kick.leave();
            let handled = match exit {
                Ok(exit) => self.handle(exit, shared),
                Err(e) => return Stop::Failed(e),
            };
            if let Err(violation) = handled {
                return self.broke(violation, shared);
            }
        }
    }

    fn handle(&mut self, exit: Exit, shared: &Shared) -> Result<(), Violation> {
        match exit {
            Exit::PortWrite { port: doorbell::PORT, size: 4, value } => {
                Exits::count(&shared.exits.doorbell);
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
                Exits::count(&shared.exits.mmio);
                let mut data = [0; 8];
                self.bus.read(address, &mut data[..len])?;
                self.vcpu.answer_read(&data[..len]);
                Ok(())
            }
            Exit::MmioWrite { address, data, len } => {
                Exits::count(&shared.exits.mmio);
                self.bus.write(address, &data[..len], &self.ram)
            }
            Exit::Kicked => {
                Exits::count(&shared.exits.kicked);
                Ok(())
            }
            Exit::Halted => Err(Violation::Halted),
            Exit::TripleFault => Err(Violation::TripleFault),
            Exit::Cannot { what, rip } => Err(Violation::CannotRun { what, rip }),
        }
    }

    /// Serves the bits that the guest rang, in their order; each is cleared when it is done.
    fn serve(&mut self, shared: &Shared) -> Result<Served, Violation> {
        if self.unserved == Doorbell::default() {
            return Ok(Served::All);
        }
        if self.rang(Doorbell::CONSOLE) {
            Exits::count(&shared.exits.console);
            while let Some(held) = self.print(shared)? {
                if shared.pause_wanted() {
                    return Ok(Served::Stop(Stop::Paused { quiescent: false }));
                }
                wait::for_output(shared, held);
            }
            self.done(Doorbell::CONSOLE);
        }
        // A wait begins with the same service; a guest that says that it is quiescent has hinted
        // its receive buffers as not needed.
        if self.rang(Doorbell::NET) {
            Exits::count(&shared.exits.net);
            if !self.rang(Doorbell::WAIT) && !self.rang(Doorbell::QUIESCED) {
                for device in self.bus.devices_mut() {
                    device.serve(&self.ram)?;
                }
                self.rings.fill(&self.ram, &shared.console)?;
            }
            self.done(Doorbell::NET);
        }
        if self.rang(Doorbell::WAIT) {
            Exits::count(&shared.exits.wait);
            // After any end of the wait the guest checks by itself: also one that was paused in its
            // wait.
            self.done(Doorbell::WAIT);
            if self.unserved == Doorbell::default() {
                self.stuck = false;
                self.wait = Some(self.ram.control_page().wake_deadline_ns.load(SeqCst));
            }
        }
        if self.rang(Doorbell::QUIESCED) {
            Exits::count(&shared.exits.quiesced);
            self.done(Doorbell::QUIESCED);
            self.bus.devices_mut().try_for_each(|device| device.flush(&self.ram))?;
            let answer = self.ram.control_page().quiesce_answer.load(SeqCst);
            // An answer that comes too late, after a kick and a resume, is ignored.
            if shared.quiesce_wanted() && answer == shared.quiesce_number() {
                return Ok(Served::Stop(Stop::Paused { quiescent: true }));
            }
        }
        if self.rang(Doorbell::RECLAIMED) {
            self.done(Doorbell::RECLAIMED);
            // A move is near. The capture reads what cannot be read now.
            shared.set_invariant(self.note_invariant().ok());
            shared.answered();
        }
        if self.rang(Doorbell::FAULT) {
            let fault = GuestFault::copy(&self.ram.control_page().fault);
            self.send_rest();
            self.flush(shared);
            return Ok(Served::Stop(Stop::Ended(End::Failed(fault))));
        }
        if self.rang(Doorbell::EXIT) {
            let code = self.ram.control_page().exit_code.load(SeqCst);
            self.send_rest();
            self.flush(shared);
            return Ok(Served::Stop(Stop::Ended(End::Exited(code))));
        }
        Ok(Served::All)
    }

    fn rang(&self, bit: Doorbell) -> bool {
        self.unserved.contains(bit)
    }

    fn done(&mut self, bit: Doorbell) {
        self.unserved.0 &= !bit.0;
    }

    fn broke(&mut self, violation: Violation, shared: &Shared) -> Stop {
        self.flush(shared);
        Stop::Ended(End::Broke(violation))
    }

    /// Captures the vCPU on its own thread, so that KVM need not load it on another CPU for that.
    /// An error here occurs again in the capture that needs the state.
    pub(super) fn capture_early(&mut self) {
        if let Err(e) = self.vcpu.capture_early() {
            tracing::debug!("{}", crate::host::with_causes(&e));
        }
    }

    pub(super) fn capture(&mut self, shared: &Shared) -> Result<VmState, kvm::Error> {
        Ok(VmState {
            vcpu: self.vcpu.capture()?,
            devices: self.bus.save(),
            console: self.rings.capture(),
            clock: self.clock.capture(),
            unserved: self.unserved.0,
            quiesce_number: shared.quiesce_number(),
            history: *shared.lock_history(),
        })
    }

    fn note_invariant(&mut self) -> Result<InvariantState, kvm::Error> {
        let vcpu = self.vcpu.note_invariant()?.clone();
        let offloads = self.bus.of_kind().map(Net::offload).collect();
        Ok(InvariantState { vcpu, system: self.vcpu.system()?, offloads })
    }

    /// Applies the invariant state, as far as this host accepts it: the complete state repeats it.
    pub(super) fn apply_invariant(&mut self, invariant: &InvariantState) -> Result<(), kvm::Error> {
        for (net, offload) in self.bus.of_kind_mut::<Net>().zip(&invariant.offloads) {
            net.tell_offload(*offload);
        }
        self.vcpu.apply_invariant(&invariant.vcpu)
    }

    pub(super) fn apply(
        &mut self,
        state: &VmState,
        away: Duration,
        shared: &Shared,
    ) -> Result<(), ApplyError> {
        if state.unserved & !Doorbell::ALL.0 != 0 {
            return Err(ApplyError::Doorbell(state.unserved));
        }
        self.bus.restore(&state.devices, &self.ram)?;
        fail_point!("vm.half-applied", else return Err(RestoreError::Devices.into()));
        self.vcpu.apply(&state.vcpu)?;
        self.rings.apply(state.console);
        self.clock.apply(state.clock, away);
        self.unserved = Doorbell(state.unserved);
        shared.set_quiesce_number(state.quiesce_number);
        *shared.lock_history() = state.history;
        Ok(())
    }
}

/// Random numbers for a guest whose memory may have been copied.
#[derive(Debug)]
pub(super) struct Fresh {
    /// Random numbers for a guest that is such a copy.
    generation: Option<[u64; 2]>,
    entropy: [u64; 8],
}

impl Fresh {
    pub(super) fn draw(new_generation: bool) -> Result<Self, Error> {
        let failed = |source| Error::Host { doing: "draw random numbers", source };
        let bytes: [u8; 80] = random::bytes().map_err(failed)?;
        let mut words = bytes.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b));
        let mut next = || words.next().expect("ten words");
        Ok(Self {
            generation: new_generation.then(|| std::array::from_fn(|_| next())),
            entropy: std::array::from_fn(|_| next()),
        })
    }
}

//! Records a guest: its exits and what it is given there go into a log.

use super::{check, check::Checks, tell};
use crate::{
    devices::{Devices, Violation},
    kvm::{self, Exit, Vcpu},
    memory::GuestRam,
    vcpu::Vcpus,
};
use migrate::input_log::{self, Inputs, News, Reason, Record};
use std::{fmt, io, sync::Arc};
use vmm_lite_interface::doorbell::{self, Doorbell};

/// Where records go. Called on the vCPU's thread while the guest stands at an exit.
pub trait Log: fmt::Debug + Send {
    /// Takes the record at `position`.
    ///
    /// # Errors
    /// When it cannot be kept; the VM ends then.
    fn append(&mut self, position: u64, record: &[u8], urgency: Urgency) -> io::Result<()>;
}

/// What waits for a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Urgency {
    /// Nothing before the next one.
    None,
    /// A copy of the VM elsewhere, which begins to work on what the guest was given.
    Copy,
    /// Output of the guest may depend on it.
    Output,
}

/// What a log has besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RecordOptions {
    /// Digests of registers and memory at one exit of this many, and at the last; 0: only there.
    pub check_every: u64,
    /// Digests of all of the memory, not of a part of it.
    pub check_whole: bool,
    /// Also record a guest whose program takes values from the CPU by itself.
    pub allow_own_clock: bool,
}

/// Why a guest cannot be recorded any further.
#[derive(thiserror::Error, Debug)]
pub(in crate::vcpu) enum Failure {
    /// The log cannot be kept.
    #[error("the log of the VM's inputs cannot be kept")]
    Log(#[source] io::Error),
    /// Its registers cannot be read.
    #[error(transparent)]
    Kvm(#[from] kvm::Error),
    /// The guest broke a rule.
    #[error(transparent)]
    Broke(#[from] Violation),
}

/// Records one guest.
#[derive(Debug)]
pub(in crate::vcpu) struct Recorder {
    log: Box<dyn Log>,
    /// Of the last record.
    position: u64,
    /// The guest stands at an exit that it took by itself: whatever it is given now is in the log.
    open: bool,
    /// What it is told at the next input point.
    news: Option<Box<News>>,
    checks: Checks,
    bytes: Vec<u8>,
}

impl Recorder {
    /// Records a guest that stands where the log begins, after the record at `position`.
    pub fn new(log: Box<dyn Log>, position: u64, options: RecordOptions) -> Self {
        let checks = Checks::new(options.check_every, options.check_whole);
        Self { log, position, open: true, news: None, checks, bytes: Vec::new() }
    }

    /// Of the last record.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The guest is told this at the next input point, which is made to come soon.
    pub fn tell(&mut self, news: News, ram: &GuestRam) {
        self.news = Some(Box::new(news));
        if !self.open {
            ram.samples().interrupt();
        }
    }

    /// What it was not told yet.
    pub fn untold(&mut self) -> Option<Box<News>> {
        self.news.take()
    }

    /// The guest has exited, and nothing was done about it yet.
    pub fn exit(&mut self, exit: &Exit, vcpu: &mut Vcpu, ram: &GuestRam) -> Result<(), Failure> {
        let Some(reason) = reason(exit) else { return Ok(()) };
        self.open = true;
        let samples = ram.samples().take().map_err(Violation::from)?;
        let (mut check, mut urgency) = (None, Urgency::None);
        if let Reason::Doorbell(bits) = reason {
            let last = bits & (Doorbell::EXIT.0 | Doorbell::FAULT.0) != 0;
            if let Some(pages) = self.checks.due(last, ram.pages()) {
                check = Some(check::digest(vcpu, ram, pages)?.0);
            }
            if bits & !Doorbell::SAMPLES.0 != 0 {
                urgency = Urgency::Output;
            }
        }
        self.append(&Record::Exit(input_log::Exit { reason, samples, check }), urgency)
    }

    /// The guest is about to run: gives it what waits for an input point, if it is at one.
    pub fn before_entry(&mut self, devices: &mut Devices, vcpus: &Vcpus) -> Result<(), Failure> {
        if !self.open {
            return Ok(());
        }
        let ram = &vcpus.ram;
        // Before the requests are taken: one that comes later interrupts the guest.
        ram.samples().uninterrupt();
        let (quiesce, reclaim) = vcpus.requests.staged.deliver(ram);
        let news = self.news.take();
        if let Some(news) = &news {
            tell(ram, news);
        }
        self.given(Inputs { news, quiesce, reclaim, ..devices.take_inputs() })?;
        self.open = false;
        Ok(())
    }

    /// Brings the log up to date for a guest that stays where it is.
    pub fn flush(&mut self, devices: &mut Devices) -> Result<(), Failure> {
        self.given(devices.take_inputs())
    }

    fn given(&mut self, inputs: Inputs) -> Result<(), Failure> {
        if inputs.is_empty() {
            return Ok(());
        }
        let packets = inputs.devices.iter().any(|device| !device.packets.is_empty());
        let urgency = if packets { Urgency::Copy } else { Urgency::None };
        self.append(&Record::Inputs(inputs), urgency)
    }

    fn append(&mut self, record: &Record, urgency: Urgency) -> Result<(), Failure> {
        self.bytes.clear();
        input_log::encode(record, &mut self.bytes);
        self.position += 1;
        self.log.append(self.position, &self.bytes, urgency).map_err(Failure::Log)
    }
}

/// Why the guest left, unless it was made to.
pub(super) fn reason(exit: &Exit) -> Option<Reason> {
    Some(match *exit {
        Exit::Kicked => return None,
        Exit::PortWrite { port: doorbell::PORT, size: 4, value } => Reason::Doorbell(value),
        Exit::MmioRead { address, len } => Reason::MmioRead { address, len: len as u8 },
        Exit::MmioWrite { address, data, len } => {
            Reason::MmioWrite { address, data, len: len as u8 }
        }
        Exit::PortWrite { .. }
        | Exit::PortRead { .. }
        | Exit::Halted
        | Exit::TripleFault
        | Exit::Cannot { .. } => Reason::Broke,
    })
}

impl Failure {
    /// The error with which the VM ends, unless the guest is to blame.
    pub fn into_end(self) -> Result<Arc<dyn std::error::Error + Send + Sync>, Violation> {
        match self {
            Self::Broke(violation) => Err(violation),
            other => Ok(Arc::new(other)),
        }
    }
}

//! Switching a vCPU that does not run from one kind of tape to another.

use super::{Log, RecordOptions, Recorder, Replayer, Source, Tape, leave_routine};
use crate::{
    devices::{Devices, inputs::Traffic},
    kvm,
    memory::GuestRam,
    vcpu::Runner,
};
use migrate::input_log::News;
use std::io;

/// A place in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// Position of the last record.
    pub record: u64,
    /// Samples that the guest has taken since.
    pub samples: usize,
}

impl Runner {
    /// Begins to record, after the record at position `after`.
    pub fn begin_recording(
        &mut self,
        ram: &GuestRam,
        log: Box<dyn Log>,
        after: u64,
        options: RecordOptions,
    ) -> Result<(), kvm::Error> {
        self.leave_routine(ram)?;
        self.tape = Tape::Record(Box::new(Recorder::new(log, after, options)));
        Ok(())
    }

    /// Begins to replay from where the guest stands.
    pub fn begin_replaying(
        &mut self,
        ram: &GuestRam,
        source: Box<dyn Source>,
        at: Position,
        traffic: Option<Box<dyn Traffic>>,
    ) -> Result<(), kvm::Error> {
        self.leave_routine(ram)?;
        let replayer = Replayer::new(source, at.record, at.samples, traffic);
        self.tape = Tape::Replay(Box::new(replayer));
        Ok(())
    }

    /// Ends both. For a replay returns the last reading of the time stamp counter in it, if there
    /// was one.
    pub fn end_tape(&mut self, ram: &GuestRam) -> Result<Option<Option<u64>>, kvm::Error> {
        self.leave_routine(ram)?;
        if let Tape::Record(recorder) = &mut self.tape
            && let Some(news) = recorder.untold()
        {
            super::tell(ram, &news);
        }
        Ok(match std::mem::take(&mut self.tape) {
            Tape::Replay(replayer) => Some(replayer.tsc()),
            Tape::Off | Tape::Record(_) => None,
        })
    }

    /// Where in its log the guest stands.
    pub fn position(
        &mut self,
        devices: &mut Devices,
        ram: &GuestRam,
    ) -> io::Result<Option<Position>> {
        let record = match &mut self.tape {
            Tape::Off => return Ok(None),
            Tape::Record(recorder) => {
                recorder.flush(devices).map_err(io::Error::other)?;
                recorder.position()
            }
            Tape::Replay(replayer) => replayer.position(),
        };
        let samples = ram.samples().count().map_err(io::Error::other)?;
        Ok(Some(Position { record, samples }))
    }

    /// Tells the guest why it runs: now, or at the next input point of one that is recorded. One
    /// that is replayed is told by its log.
    pub fn tell(&mut self, news: News, ram: &GuestRam) {
        match &mut self.tape {
            Tape::Off => super::tell(ram, &news),
            Tape::Record(recorder) => recorder.tell(news, ram),
            Tape::Replay(_) => {}
        }
    }

    /// Has the guest begin anew with a sample that it is just taking.
    fn leave_routine(&mut self, ram: &GuestRam) -> Result<(), kvm::Error> {
        let mut state = self.vcpu.capture()?;
        if leave_routine(ram, &mut state.regs) {
            self.vcpu.apply(&state)?;
        }
        Ok(())
    }
}

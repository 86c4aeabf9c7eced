//! Replays a guest: runs it through a log, and compares what it does with what is recorded.

use super::{Debug, Tape, check, record::reason, staged, tell};
use crate::{
    devices::{Devices, clock, inputs::Traffic},
    kvm::Exit,
    vcpu::{Runner, Vcpus, run::Stop, serve::ending, wait::WaitFor},
};
use migrate::input_log::{self, Inputs, Record};
use std::{fmt, io, os::fd::RawFd, sync::atomic::Ordering::Relaxed};
use vmm_lite_interface::{doorbell::Doorbell, layout::SAMPLE_SLOTS, samples::RANDOM};

/// Where records come from. Called on the vCPU's thread.
pub trait Source: fmt::Debug + Send {
    /// The record at `position`: after the one before, each in turn. Never blocks for long.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    fn next(&mut self, position: u64) -> io::Result<Next>;
}

/// The answer of a [`Source`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// It is there.
    Record(Record),
    /// It may come: then this descriptor is readable.
    Later(RawFd),
    /// The log ends before it.
    End,
}

/// How a replay ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replayed {
    /// Position of the last record that was executed as recorded.
    pub position: u64,
    /// The last reading of the recorded guest's time stamp counter, if it took one.
    pub tsc: Option<u64>,
    /// What ended it.
    pub outcome: Outcome,
}

/// What ended a replay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The end of the log. The guest can go on from there.
    Complete,
    /// The guest did something else at the next record than is recorded (rule R8).
    Diverged(String),
    /// The next record cannot be read.
    Unreadable(String),
}

/// Replays one guest.
#[derive(Debug)]
pub(in crate::vcpu) struct Replayer {
    source: Box<dyn Source>,
    traffic: Option<Box<dyn Traffic>>,
    /// Of the last record that was executed.
    position: u64,
    /// Samples of the next exit that the guest took before the replay began.
    skip: usize,
    /// The exit to which the guest is under way.
    expected: Option<input_log::Exit>,
    tsc: Option<u64>,
    /// It runs for a debugger.
    pub(super) debug: Option<Box<Debug>>,
}

/// Doorbell bits that are still to be served after the guest was given something.
const KEPT: u32 = Doorbell::CONSOLE.0 | Doorbell::EXIT.0 | Doorbell::FAULT.0;

/// What to do next.
pub(super) enum Step {
    Enter,
    Again,
    Stop(Stop),
    Over(Outcome),
}

impl Replayer {
    /// Replays a guest that stands after the record at `position`, and has taken `skip` samples
    /// since.
    pub fn new(
        source: Box<dyn Source>,
        position: u64,
        skip: usize,
        traffic: Option<Box<dyn Traffic>>,
    ) -> Self {
        Self { source, traffic, position, skip, expected: None, tsc: None, debug: None }
    }

    /// Of the last record that was executed.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The last reading of the guest's time stamp counter since the replay began.
    pub fn tsc(&self) -> Option<u64> {
        self.tsc
    }

    /// Takes the next record, if the guest is not under way.
    fn next(&mut self, runner: &mut Runner, vcpus: &Vcpus, member: usize) -> Step {
        if self.expected.is_some() {
            return Step::Enter;
        }
        let position = self.position + 1;
        let mut next = self.source.next(position);
        if let Ok(Next::Later(_)) = next {
            // Announced before the last look, as a nudge can be about it.
            vcpus.control.set_waiting(member, true);
            next = self.source.next(position);
            if let (Ok(Next::Later(fd)), false) = (&next, vcpus.control.pause_wanted()) {
                return Step::Stop(Stop::Waits(WaitFor::readable(*fd)));
            }
            vcpus.control.set_waiting(member, false);
        }
        match next {
            Ok(Next::Record(Record::Exit(exit))) => self.expect(exit, runner, vcpus),
            Ok(Next::Record(Record::Inputs(inputs))) => {
                match self.give(&inputs, &mut vcpus.lock_devices(), vcpus) {
                    Ok(()) => {
                        // Should the guest go on by itself, it looks first at what it was given.
                        runner.unserved.0 &= KEPT;
                        self.done(vcpus);
                        Step::Again
                    }
                    Err(unlike) => Step::Over(Outcome::Diverged(unlike)),
                }
            }
            Ok(Next::Later(_)) => Step::Stop(Stop::Paused { quiescent: false }),
            Ok(Next::End) if self.debug.is_some() => match runner.stops_at_end(self) {
                Ok(true) => Step::Stop(Stop::Paused { quiescent: false }),
                Ok(false) => end(runner, vcpus),
                Err(e) => Step::Stop(Stop::Failed(e)),
            },
            Ok(Next::End) => end(runner, vcpus),
            Err(e) => Step::Over(Outcome::Unreadable(crate::host::with_causes(&e))),
        }
    }

    /// The next record is executed.
    fn done(&mut self, vcpus: &Vcpus) {
        self.position += 1;
        vcpus.replay_position.store(self.position, Relaxed);
    }

    /// Has the guest run to this exit.
    fn expect(&mut self, mut exit: input_log::Exit, runner: &mut Runner, vcpus: &Vcpus) -> Step {
        if exit.samples.len() > SAMPLE_SLOTS as usize || self.skip > exit.samples.len() {
            let n = exit.samples.len();
            return Step::Over(Outcome::Unreadable(format!("an exit with {n} samples")));
        }
        exit.samples.drain(..std::mem::take(&mut self.skip));
        let mut readings = exit.samples.iter().copied().filter(|sample| sample & RANDOM == 0);
        self.tsc = readings.next_back().or(self.tsc);
        vcpus.ram.samples().replay(&exit.samples);
        runner.unserved = Doorbell::default();
        self.expected = Some(exit);
        Step::Enter
    }

    /// Gives the guest what the recorded one was given.
    fn give(
        &mut self,
        inputs: &Inputs,
        devices: &mut Devices,
        vcpus: &Vcpus,
    ) -> Result<(), String> {
        let memory = vcpus.memory_at_exit();
        let mut traffic = self.traffic.as_deref_mut();
        if let Some(traffic) = &mut traffic {
            let clock = || clock::as_published(&memory.control_page().clock);
            traffic.at(self.position, self.tsc.map(|tsc| clock::wall_ns(&clock(), tsc)));
        }
        devices
            .replay(inputs, memory, vcpus.console(), traffic)
            .map_err(|unlike| unlike.to_string())?;
        staged::write(&vcpus.ram, inputs.quiesce, inputs.reclaim);
        if let Some(news) = &inputs.news {
            tell(&vcpus.ram, news);
        }
        Ok(())
    }

    /// Compares an exit with the recorded one.
    fn compare(&mut self, exit: &Exit, runner: &mut Runner, vcpus: &Vcpus) -> Step {
        let Some(here) = reason(exit) else { return Step::Again };
        let Some(recorded) = self.expected.take() else { return Step::Again };
        let diverged = |what: String| Step::Over(Outcome::Diverged(what));
        if here != recorded.reason {
            return diverged(format!("it left for {here:x?} instead of {:x?}", recorded.reason));
        }
        let (took, of) = (vcpus.ram.samples().count(), recorded.samples.len());
        if took != Ok(of) {
            let took = took.map_or_else(|e| e.0, |n| n as u64);
            return diverged(format!("it took {took} samples instead of {of}"));
        }
        if let Some(check) = &recorded.check {
            let pages = check.first_page as usize;
            let pages = pages..pages.saturating_add(check.pages as usize).min(vcpus.ram.pages());
            match check::digest(&mut runner.vcpu, &vcpus.ram, pages) {
                Err(e) => return Step::Stop(Stop::Failed(e)),
                Ok(here) => {
                    if let Some(difference) = check::difference(check, &here) {
                        return diverged(difference);
                    }
                }
            }
        }
        vcpus.ram.samples().replay(&[]);
        self.done(vcpus);
        Step::Again
    }
}

/// The log has ended.
fn end(runner: &Runner, vcpus: &Vcpus) -> Step {
    match ending(runner.unserved, vcpus) {
        Some(end) => Step::Stop(Stop::Ended(end)),
        None => Step::Over(Outcome::Complete),
    }
}

impl Runner {
    /// Replays the guest until the log ends or it differs, or it has to stop. On the vCPU's thread.
    pub(in crate::vcpu) fn replay(&mut self, vcpus: &Vcpus, member: usize) -> Stop {
        let Tape::Replay(mut replayer) = std::mem::take(&mut self.tape) else {
            unreachable!("asked for by the run loop only while it replays")
        };
        let stop = loop {
            if vcpus.control.pause_wanted() {
                break Stop::Paused { quiescent: false };
            }
            let step = match replayer.next(self, vcpus, member) {
                Step::Enter => self.replay_debugged(&mut replayer, vcpus, member),
                step => step,
            };
            match step {
                Step::Enter | Step::Again => {}
                Step::Stop(stop) => break stop,
                Step::Over(outcome) => {
                    let Replayer { position, tsc, .. } = *replayer;
                    vcpus.set_replayed(Replayed { position, tsc, outcome });
                    break Stop::Paused { quiescent: false };
                }
            }
        };
        if let (Some(debug), false) = (&replayer.debug, matches!(stop, Stop::Waits(_))) {
            debug.link.has_stopped();
        }
        self.tape = Tape::Replay(replayer);
        stop
    }

    pub(super) fn replay_to_exit(
        &mut self,
        replayer: &mut Replayer,
        vcpus: &Vcpus,
        member: usize,
    ) -> Step {
        let kick = vcpus.control.kick(member);
        self.vcpu.hand_over_registers(false);
        if !kick.enter(crate::host::this_thread(), || vcpus.control.pause_wanted()) {
            return Step::Stop(Stop::Paused { quiescent: false });
        }
        self.note_first_entry(vcpus);
        let exit = self.vcpu.run();
        kick.leave();
        let exit = match exit {
            Ok(exit) => exit,
            Err(e) => return Step::Stop(Stop::Failed(e)),
        };
        if let Some(step) = self.debug_exit(replayer, &exit, vcpus) {
            return step;
        }
        let step = replayer.compare(&exit, self, vcpus);
        if let Step::Again = step
            && let Err(violation) = self.handle(exit, vcpus)
        {
            // The recorded guest ended by it too.
            let end = crate::vcpu::End::Broke(violation);
            return Step::Stop(Stop::Ended(end));
        }
        step
    }
}

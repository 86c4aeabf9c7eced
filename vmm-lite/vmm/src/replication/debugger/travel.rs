//! Where a debugged run goes.
//!
//! Backwards it goes by replaying it again. To the last breakpoint before now: from a checkpoint to
//! now, noting the last arrival at one, and then from a checkpoint to that. One instruction back:
//! the steps from the last moment whose place is known to now are counted, unless they are known,
//! and all but one of them are made again. A checkpoint is kept at the exit before each moment that
//! was gone back to, so that the next way back is short.

use super::{Checkpoint, Debugger, Error, Run};
use crate::vm::{DebugStop, Debugged, Leg, Moment, Orders, Outcome};
use std::ops::Range;

/// How many checkpoints are kept besides the first. Each has a copy of the VM's touched memory.
const CHECKPOINTS: usize = 8;

/// Any address.
const ANYWHERE: Range<u64> = 0..u64::MAX;

/// What the VM runs for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Task {
    /// To be where it stops.
    Forward,
    /// From checkpoint number `from` to `to`, to find the last breakpoint in between.
    Search { from: usize, to: Moment },
    /// To the exit before a moment, to keep a checkpoint there; then on to the moment.
    Approach { moment: Moment, why: Why },
    /// To a moment.
    Go { why: Why },
    /// To the exit before the record at this position, to count the steps up to it.
    Before { record: u64 },
    /// To where the steps up to `now`, which is at `address`, are to be counted from.
    Anchor { now: Moment, address: u64 },
    /// Step by step, to this moment: one instruction before it is where to go.
    Count { now: Moment },
}

/// Why the client sees it stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    Breakpoint,
    Step,
    Interrupt,
    /// The beginning of the run, or the record that was named.
    Begin,
    End,
    /// It has ended, with this code.
    Exited(u8),
    /// It has failed, or does not run as recorded; a message says so.
    Failed,
}

impl Debugger {
    /// Runs on.
    pub(super) fn forward(&mut self, orders: Orders) -> Result<(), Error> {
        self.catch_up()?;
        self.task = Task::Forward;
        self.run.go(orders)
    }

    pub(super) fn now(&self) -> Result<Debugged, Error> {
        let debugged = self.run.hold()?.debugged();
        Ok(debugged.unwrap_or_else(|| unreachable!("it is debugged from the beginning")))
    }

    /// Goes back to the last breakpoint.
    pub(super) fn search_back(&mut self) -> Result<(), Error> {
        let now = self.now()?.at;
        self.search(now)
    }

    fn search(&mut self, to: Moment) -> Result<(), Error> {
        // The first one, unless there is another that is before the moment.
        let from = self.checkpoints.iter().rposition(|c| is_before(&c.moment, &to)).unwrap_or(0);
        if to == *self.begin() {
            return self.start(Task::Go { why: Why::Begin }, 0, &to, false);
        }
        self.start(Task::Search { from, to: to.clone() }, from, &to, true)
    }

    /// Goes back by one instruction.
    pub(super) fn step_back(&mut self) -> Result<(), Error> {
        let mut now = self.now()?.at;
        match now.path.pop() {
            None if now == *self.begin() => self.search(now),
            // Out of the exit.
            None => {
                let record = now.record;
                let from = self.before(record);
                self.task = Task::Before { record };
                self.restart(from)?;
                self.run.go(Orders::Continue {
                    breakpoints: Vec::new(),
                    until: Some(record.saturating_sub(2)),
                })
            }
            Some(Leg::Steps(steps)) => {
                if steps > 1 {
                    now.path.push(Leg::Steps(steps - 1));
                }
                self.go_to(now, Why::Step)
            }
            Some(Leg::To { address, times }) => {
                let goal = now.then(Leg::To { address, times });
                let task = Task::Anchor { now: goal, address };
                if times > 1 {
                    now.path.push(Leg::To { address, times: times - 1 });
                }
                let from = self.at_or_before(now.record);
                self.start(task, from, &now, false)
            }
        }
    }

    /// Goes to a moment that is before now.
    fn go_to(&mut self, moment: Moment, why: Why) -> Result<(), Error> {
        let from = self.at_or_before(moment.record);
        if self.checkpoints[from].moment.record == moment.record {
            return self.start(Task::Go { why }, from, &moment, false);
        }
        let exit = Moment::after(moment.record);
        self.start(Task::Approach { moment, why }, from, &exit, false)
    }

    /// Begins again at a checkpoint, and goes to a moment.
    fn start(&mut self, task: Task, from: usize, to: &Moment, notes: bool) -> Result<(), Error> {
        self.task = task;
        self.restart(from)?;
        if self.checkpoints[from].moment == *to {
            self.is_there = true;
            self.link.has_stopped();
            return Ok(());
        }
        let breakpoints = if notes { self.breakpoints.clone() } else { Vec::new() };
        self.reach(to.clone(), breakpoints)
    }

    fn reach(&mut self, moment: Moment, breakpoints: Vec<u64>) -> Result<(), Error> {
        self.run.go(Orders::Reach { moment, breakpoints })
    }

    fn restart(&mut self, from: usize) -> Result<(), Error> {
        self.catch_up()?;
        self.run = Run::from(&self.checkpoints[from], &self.opened, &self.host, &self.link)?;
        Ok(())
    }

    fn at_or_before(&self, record: u64) -> usize {
        self.checkpoints.iter().rposition(|c| c.moment.record <= record).unwrap_or(0)
    }

    fn before(&self, record: u64) -> usize {
        self.checkpoints.iter().rposition(|c| c.moment.record < record).unwrap_or(0)
    }

    /// The VM has stopped. Returns what the client is told; `None`: it runs on.
    pub(super) fn stopped(&mut self) -> Result<Option<Why>, Error> {
        let Some(debugged) = self.run.stopped()? else { return Ok(Some(self.exited())) };
        let reached = std::mem::take(&mut self.is_there).then_some(DebugStop::Reached);
        let Some(stopped) = debugged.stopped.or(reached) else { return Ok(Some(self.ended())) };
        match stopped {
            DebugStop::Interrupted => return Ok(Some(Why::Interrupt)),
            DebugStop::Missed => {
                return Err(Error::Missed(debugged.at.record));
            }
            _ => {}
        }
        match self.task.clone() {
            Task::Forward => Ok(Some(match stopped {
                DebugStop::Breakpoint => Why::Breakpoint,
                DebugStop::EndOfLog => Why::End,
                _ => Why::Step,
            })),
            Task::Go { why } => Ok(Some(why)),
            Task::Search { from, to } => self.searched(debugged, from, &to).map(|()| None),
            Task::Approach { moment, why } => {
                self.keep_checkpoint()?;
                if moment.is_at_record() {
                    return Ok(Some(why));
                }
                self.task = Task::Go { why };
                self.reach(moment, Vec::new()).map(|()| None)
            }
            Task::Before { record } => {
                self.keep_checkpoint()?;
                self.task = Task::Count { now: Moment::after(record) };
                self.step_to(Vec::new(), record).map(|()| None)
            }
            Task::Anchor { now, address } => {
                let record = now.record + 1;
                self.task = Task::Count { now };
                self.step_to(vec![address], record).map(|()| None)
            }
            Task::Count { now } => self.counted(debugged, &now).map(|()| None),
        }
    }

    /// It has come from a checkpoint to where it was.
    fn searched(&mut self, debugged: Debugged, from: usize, to: &Moment) -> Result<(), Error> {
        let floor = self.until.filter(|until| *until < to.record);
        let hit = debugged.last_hit.filter(|hit| floor.is_none_or(|floor| hit.record >= floor));
        let checkpoint = self.checkpoints[from].moment.clone();
        match (hit, floor) {
            (Some(hit), _) => self.go_to(hit, Why::Breakpoint),
            (None, Some(floor)) if checkpoint.record <= floor => {
                self.task = Task::Go { why: Why::Begin };
                self.restart(from)?;
                self.run.go(Orders::Continue { breakpoints: Vec::new(), until: Some(floor) })
            }
            (None, _) => self.search(checkpoint),
        }
    }

    /// Steps until it comes to a breakpoint, or to the record at `until`.
    fn step_to(&mut self, breakpoints: Vec<u64>, until: u64) -> Result<(), Error> {
        self.run.go(Orders::Step { within: ANYWHERE, breakpoints, until: Some(until) })
    }

    /// It has come to `now` step by step. Goes one step less far.
    fn counted(&mut self, debugged: Debugged, now: &Moment) -> Result<(), Error> {
        let mut before = debugged.at;
        if now.is_at_record() {
            // The last instruction made the exit, and was not counted.
            before = debugged.before.unwrap_or_else(|| self.begin().clone());
        } else if let Some(Leg::Steps(steps)) = before.path.pop()
            && steps > 1
        {
            before.path.push(Leg::Steps(steps - 1));
        }
        self.go_to(before, Why::Step)
    }

    fn keep_checkpoint(&mut self) -> Result<(), Error> {
        let Some(checkpoint) = Checkpoint::of(&self.run)? else { return Ok(()) };
        let at = self.checkpoints.partition_point(|c| c.moment.record < checkpoint.moment.record);
        if self.checkpoints.get(at).is_some_and(|c| c.moment == checkpoint.moment) {
            return Ok(());
        }
        self.checkpoints.insert(at, checkpoint);
        if self.checkpoints.len() > CHECKPOINTS + 1 {
            // The one that is farthest from what is looked at.
            self.checkpoints.remove(if at > CHECKPOINTS / 2 { 1 } else { CHECKPOINTS + 1 });
        }
        Ok(())
    }

    /// The guest has ended.
    fn exited(&self) -> Why {
        use crate::vm::{End, VmPhase};
        match self.run.vm.phase() {
            VmPhase::Ended(end) => match &*end {
                End::Exited(code) => Why::Exited(*code as u8),
                end => {
                    tracing::warn!("the guest has ended: {end}");
                    Why::Failed
                }
            },
            _ => Why::Failed,
        }
    }

    /// The replay has ended, and the VM has not.
    fn ended(&self) -> Why {
        match self.run.vm.wait_replayed(Some(std::time::Duration::ZERO)).flatten() {
            Some(replayed) if replayed.outcome == Outcome::Complete => Why::End,
            Some(replayed) => {
                tracing::error!("at record {}: {:?}", replayed.position + 1, replayed.outcome);
                Why::Failed
            }
            None => Why::Failed,
        }
    }
}

/// Whether a moment right after a record is before another.
fn is_before(checkpoint: &Moment, moment: &Moment) -> bool {
    checkpoint.record < moment.record
        || checkpoint.record == moment.record && !moment.path.is_empty()
}

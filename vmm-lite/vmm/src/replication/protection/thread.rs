//! The set's own thread: connections, the arbiter, time, and what needs the guest stopped.

use super::{
    feed::{Feed, FeedSource, Kept},
    late::Late,
    log::SetLog,
    set::{Core, Part, Purpose, Set, Todo},
};
use crate::{
    host::{
        confine::{self, Thread},
        poll::wait_some,
        urgent::{Side, Urgent},
    },
    vm::{self, Operation, Outcome, Paused, Position, Replayed, Resume, ResumeReason, VmPhase},
};
use migrate::replication::{
    Standby, primary,
    standby::{self, Ended},
};
use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

const STACK: usize = 512 << 10;
/// How long the guest may take to get to an exit when it is stopped for a swap.
const STOP: Duration = Duration::from_millis(20);

/// Why a member cannot go on with its VM.
#[derive(thiserror::Error, Debug)]
pub(super) enum Failure {
    #[error("{0}")]
    Lost(String),
    #[error("the VM cannot go on after the takeover")]
    Vm(#[from] vm::Error),
}

/// Starts the thread. `prints` is where the console goes when the member takes over.
pub(super) fn start(set: &Arc<Set>) -> io::Result<()> {
    let set = Arc::clone(set);
    let thread = std::thread::Builder::new().name(Thread::Replication.name().into());
    let run = move || {
        if let Err(e) = confine::enter(Thread::Replication) {
            let why = crate::host::with_causes(&e);
            set.lock().tally.failed = Some(why.clone());
            set.vm.fail(Failure::Lost(why), || {});
            return;
        }
        // It does little at a time, and is late for no heartbeat.
        let _urgent = Urgent::this(Side::Source);
        while set.turn() {}
        set.has_changed();
    };
    thread.stack_size(STACK).spawn(run).map(drop)
}

impl Set {
    /// Waits for something, and deals with it. `false`: there is nothing left to do.
    fn turn(self: &Arc<Self>) -> bool {
        let (watched, timeout) = {
            let core = self.lock();
            if let (Part::Over { .. }, true) = (&core.part, core.closing.is_empty()) {
                return false;
            }
            (self.watched(&core), core.timeout())
        };
        // A failed wait is a look at everything.
        let _ = wait_some(&watched, timeout);
        let _ = self.wake.read();
        let mut core = self.lock();
        core.look();
        core.hear_arbiter();
        core.flush_closing();
        let arrived = std::mem::take(&mut core.arrived);
        drop(core);
        for packet in arrived {
            if !self.vm.deliver_forwarded(packet) {
                tracing::debug!("a forwarded packet was dropped: no room");
            }
        }
        self.replayed();
        self.work_off();
        self.tell_those_beside();
        self.print();
        self.has_changed();
        true
    }

    /// Tells the user what has happened, without the lock: standard error may be slow.
    fn print(&self) {
        let unsaid = std::mem::take(&mut self.lock().tally.unsaid);
        for what in unsaid {
            eprintln!("vmm-lite: {}: {what}", self.vm.identity().name);
        }
    }

    /// What waits for the guest's network is worth keeping while the guest runs here, and a guest
    /// that has no standby any more is to have another one.
    fn tell_those_beside(&self) {
        let core = &mut *self.lock();
        let record = match &core.part {
            Part::Primary(machine) => machine.record(),
            Part::Standby(..) | Part::Over { .. } => None,
        };
        let had = core.tally.was_protected || core.tally.takeovers > 0;
        let alone = had && record.is_some_and(|record| record.in_sync.is_empty());
        let vm = matches!(core.part, Part::Primary(_)).then_some(&self.vm);
        let (beside, tally) = (&mut core.beside, &mut core.tally);
        if let Some(Err(e)) = beside.keeper.as_mut().map(|keeper| keeper.keep(vm)) {
            let why = crate::host::with_causes(&e);
            tally.say(format!("if this process dies its unread packets are lost: {why}"));
        }
        if let Some(Err(e)) = beside.protector.as_mut().map(|protector| protector.tell(alone)) {
            let why = crate::host::with_causes(&e);
            tally.say(format!("it will not be protected again on its own: {why}"));
        }
    }

    /// What the vCPU of a standby has come to.
    fn replayed(&self) {
        let feed = match &self.lock().part {
            Part::Standby(_, feed) => Arc::clone(feed),
            Part::Primary(_) | Part::Over { .. } => return,
        };
        let event = match self.vm.wait_replayed(Some(Duration::ZERO)) {
            None => standby::Event::Executed(feed.executed()),
            Some(None) => standby::Event::Diverged {
                position: feed.executed() + 1,
                what: "its program has ended".into(),
            },
            Some(Some(Replayed { position, outcome, .. })) => match outcome {
                Outcome::Complete => standby::Event::Executed(position),
                Outcome::Diverged(what) | Outcome::Unreadable(what) => {
                    standby::Event::Diverged { position: position + 1, what }
                }
            },
        };
        if let standby::Event::Executed(_) = event {
            fail_point!("protection.executed");
        }
        self.lock().standby(event);
    }

    /// Does what was left for this thread.
    fn work_off(self: &Arc<Self>) {
        loop {
            let Some(todo) = self.lock().todo.pop_front() else { return };
            let done = match todo {
                // Only its source can say that the VM was given.
                Todo::Ask(_) if matches!(self.purpose, Purpose::Arriving) => {
                    self.over(false, "its source was lost before it gave the VM");
                    Ok(())
                }
                Todo::Ask(request) => {
                    let mut core = self.lock();
                    if let Part::Standby(..) = core.part {
                        fail_point!("protection.asking");
                    }
                    core.beside.arbiter.ask(&request);
                    core.hear_arbiter();
                    Ok(())
                }
                Todo::Stop => self.stop(),
                // It was called off before the guest was stopped, or there was nothing to stop.
                Todo::Resume | Todo::HandedOver => Ok(()),
                Todo::Fence(why) => {
                    self.over(true, &why);
                    Ok(())
                }
                Todo::Unprotected => self.release(),
                Todo::TakeOver { position } => self.take_over(position),
                Todo::End(ended) => {
                    self.lock().tally.dismissed = ended == Ended::Goodbye;
                    self.over(false, &ended.to_string());
                    Ok(())
                }
            };
            if let Err(e) = done {
                self.over(false, &crate::host::with_causes(&e));
            }
        }
    }

    /// This member has no part in the set any more, and the VM does not run here.
    pub(super) fn over(&self, fenced: bool, why: &str) {
        let mut core = self.lock();
        core.part = Part::Over { fenced };
        core.gate.close_for_good();
        // The process prints it as the end of its VM.
        core.tally.note(why.to_owned());
        core.tally.failed = Some(why.to_owned());
        let members: Vec<_> = core.peers.keys().copied().collect();
        members.into_iter().for_each(|member| core.close(member));
        drop(core);
        self.vm.fail(Failure::Lost(why.to_owned()), || {});
    }

    /// Stops the guest for a swap, and makes a standby of this member.
    fn stop(self: &Arc<Self>) -> Result<(), Failure> {
        let began = Instant::now();
        let mut paused = self.vm.stop_at_exit(STOP)?;
        fail_point!("protection.stopped");
        // A repeated announcement from before would lead the network here.
        self.vm.keep_quiet(true);
        let stands = paused.position()?;
        let mut core = self.lock();
        core.tally.swap = (Some(began), None);
        core.send_recent();
        match stands {
            Some(Position { samples: 0, .. }) => core.primary(primary::Event::Stopped),
            _ => core.primary(primary::Event::SwapCancelled(format!(
                "the guest was at no exit within {STOP:?}"
            ))),
        }
        let handed = core.todo.iter().any(|todo| matches!(todo, Todo::HandedOver));
        let Part::Primary(_) = &core.part else { return Ok(()) };
        if !handed {
            drop(core);
            self.vm.keep_quiet(false);
            return Ok(paused.resume_here()?);
        }
        core.todo.clear();
        if let Purpose::Leaving(own) = &self.purpose {
            own.open(false);
        }
        let Part::Primary(machine) =
            std::mem::replace(&mut core.part, Part::Over { fenced: false })
        else {
            return Ok(());
        };
        let now = core.now();
        let Some(standby) = machine.into_standby(now) else { return Ok(()) };
        let feed = feed_of(core.recent.last(), &self.wake)?;
        core.gate.stand_by(core.gate.opened_up_to().saturating_sub(1));
        core.slow = false;
        core.output = self.vm.console().print_no_more();
        core.late = Some(Late::new(paused.packets_in_transit()?, true));
        core.part = Part::Standby(standby, Arc::clone(&feed));
        core.standing_by = self.vm.begin(Operation::StandBy).ok();
        let gate = Arc::clone(&core.gate);
        let at = core.recent.last();
        drop(core);
        follow(paused, &feed, Position { record: at, samples: 0 }, Kept(gate))?;
        fail_point!("protection.handed-over");
        Ok(())
    }

    /// The copy becomes the VM.
    fn take_over(self: &Arc<Self>, position: u64) -> Result<(), Failure> {
        // The vCPU waits for a record.
        let mut held = self.vm.pause()?;
        fail_point!("protection.taking-over");
        let mut core = self.lock();
        let now = core.now();
        // The source of a move cannot have taken it back.
        if let Part::Standby(machine, _) = &mut core.part
            && !self.purpose.moves()
            && let Some(actions) = machine.reconsider(now)
        {
            core.act_as_standby(actions, &mut VecDeque::new());
            return Ok(());
        }
        let Part::Standby(machine, feed) =
            std::mem::replace(&mut core.part, Part::Over { fenced: false })
        else {
            return Ok(());
        };
        drop(core);
        let away = feed.came().elapsed();
        held.go_live(away)?;
        if self.purpose.moves() {
            return self.go_on_alone(held, machine, position, away);
        }
        let log = Box::new(SetLog(Arc::clone(self)));
        held.record(log, position, self.record)?;
        let mut core = self.lock();
        let now = core.now();
        let Some((primary, actions)) = machine.into_primary(now) else { return Ok(()) };
        let term = primary.term();
        core.become_primary(primary, position);
        self.speak(&mut core);
        let mut events = VecDeque::new();
        core.act_as_primary(actions, &mut events);
        events.into_iter().for_each(|event| core.primary(event));
        core.tally.takeovers += 1;
        core.tally.say(format!("took over in term {term}: the VM runs here now"));
        drop(core);
        fail_point!("protection.took-over");
        held.resume(Resume { reason: ResumeReason::TakenOver, away })?;
        Ok(())
    }

    /// The VM has moved: it goes on as any other.
    fn go_on_alone(
        &self,
        mut held: Paused<'_>,
        machine: Standby,
        position: u64,
        away: Duration,
    ) -> Result<(), Failure> {
        let mut core = self.lock();
        let now = core.now();
        let Some((primary, actions)) = machine.into_primary(now) else { return Ok(()) };
        core.become_primary(primary, position);
        self.speak(&mut core);
        // The other host is told, and hears no more of this set.
        core.act_as_primary(actions, &mut VecDeque::new());
        core.todo.clear();
        core.part = Part::Over { fenced: false };
        core.tally.takeovers += 1;
        core.tally.unprotected = true;
        let gate = Arc::clone(&core.gate);
        drop(core);
        gate.open_up_to(u64::MAX);
        held.release_output()?;
        held.resume(Resume { reason: ResumeReason::TakenOver, away })?;
        Ok(())
    }

    /// What the VM says leaves from here from now on.
    fn speak(&self, core: &mut Core) {
        if let Some(output) = core.output.take() {
            self.vm.console().print_to(output);
        }
        self.vm.keep_quiet(false);
        if let Err(e) = self.vm.announce() {
            tracing::warn!("the VM was not announced to the network: {e}");
        }
    }

    /// There is no standby, and the set is given up.
    pub(super) fn give_up(&self) {
        if let Err(e) = self.release() {
            tracing::warn!("{}", crate::host::with_causes(&e));
        }
        self.lock().wake();
    }

    /// The VM is protected no longer, and goes on as any other.
    fn release(&self) -> Result<(), Failure> {
        if let VmPhase::Ended(_) = self.vm.phase() {
            let mut core = self.lock();
            core.part = Part::Over { fenced: false };
            core.tally.unprotected = true;
            return Ok(());
        }
        let mut paused = self.vm.pause()?;
        let mut core = self.lock();
        core.send_recent();
        core.part = Part::Over { fenced: false };
        core.tally.unprotected = true;
        let gate = Arc::clone(&core.gate);
        drop(core);
        gate.open_up_to(u64::MAX);
        paused.go_live(Duration::ZERO)?;
        paused.release_output()?;
        Ok(paused.resume_here()?)
    }
}

/// The records for a copy that stands at `position`.
pub(super) fn feed_of(
    position: u64,
    wake: &Arc<vmm_sys_util::eventfd::EventFd>,
) -> Result<Arc<Feed>, vm::Error> {
    Feed::new(position, Arc::clone(wake))
        .map_err(|source| vm::Error::Host { doing: "make an event descriptor", source })
}

/// Has a VM that does not run execute what its feed brings.
pub(super) fn follow(
    mut paused: Paused<'_>,
    feed: &Arc<Feed>,
    at: Position,
    kept: Kept,
) -> Result<(), vm::Error> {
    paused.replay(Box::new(FeedSource(Arc::clone(feed))), at, Some(Box::new(kept)))?;
    paused.resume(Resume { reason: ResumeReason::Resumed, away: Duration::ZERO })
}

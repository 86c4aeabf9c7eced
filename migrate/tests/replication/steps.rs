//! What can happen in a state, and how it changes that.

use migrate::replication::{
    arbiter::{Answer, Request},
    primary, standby,
};
use stateright::{Model, Property};

use super::{
    mutation::Mutation,
    properties,
    world::{Entry, NOW, Role, Sets, World, id},
};

/// What happens next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// A member reads from another one: a message, or the connection's end.
    Reads { from: usize, to: usize },
    /// A copy executes its next record.
    Executes(usize),
    /// The arbiter acts on a member's request.
    Acts(usize),
    /// Its answer arrives.
    Answers(usize),
    /// A member's deadline is over.
    Ticks(usize),
    /// The guest is stopped for a swap.
    Stops(usize),
    /// A late swap happens, or never will.
    Late { which: usize, happens: bool },
    /// The guest of a primary goes on by one record.
    Appends(usize),
    /// The user wants a swap.
    Swaps { from: usize, to: usize },
    /// The user ends the protection.
    Unprotects(usize),
    /// A new standby is seeded.
    Seeds(usize),
    /// Fault: a process dies; the first `keep` messages of each of its connections arrive. Its
    /// request at the arbiter may be carried out.
    Dies { member: usize, keep: usize, acts: bool },
    /// Fault: a connection breaks.
    Cuts { one: usize, other: usize, keep: (usize, usize) },
    /// Fault: a member takes another one for dead.
    Suspects { member: usize, other: usize },
    /// Fault: the arbiter does not answer.
    Fails(usize, How),
    /// Fault: a copy diverges at its next record.
    Diverges(usize),
    /// Fault: the guest cannot be stopped.
    StopFails(usize),
}

/// What becomes of a request that has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum How {
    Lost,
    Done,
    Late,
}

impl Model for Sets {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        // Of a wrong variant more than one property may be wanted, but not without end.
        if world.flaws.len() > 2 {
            return;
        }
        steps.extend(self.inner_steps(world));
        self.user_steps(world, steps);
        if world.faults < self.bounds.faults {
            self.faults(world, steps);
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        world.step(self, step);
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}

impl Sets {
    /// What happens by itself sooner or later.
    pub fn inner_steps(&self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        for (&(from, to), pipe) in &world.pipes {
            if pipe.readable() && world.get(to).is_some() {
                steps.push(Step::Reads { from, to });
            }
        }
        for n in 0..world.members.len() {
            let Some(member) = world.get(n) else { continue };
            if member.request.is_some() {
                steps.push(Step::Acts(n));
            }
            if member.answer.is_some() {
                steps.push(Step::Answers(n));
            }
            let deadline = match &member.role {
                Role::Primary(machine) => machine.deadline(),
                Role::Standby(machine) => machine.deadline(),
                Role::Rogue | Role::Ended => None,
            };
            if deadline == Some(NOW) {
                steps.push(Step::Ticks(n));
            }
            if member.stopping {
                steps.push(Step::Stops(n));
            }
            if member.standby().is_some() && member.executed < member.log.len() && !member.wrong {
                steps.push(Step::Executes(n));
            }
        }
        for which in 0..world.late.len() {
            steps.extend([true, false].map(|happens| Step::Late { which, happens }));
        }
        steps
    }

    fn user_steps(&self, world: &World, steps: &mut Vec<Step>) {
        let bounds = &self.bounds;
        for n in 0..world.members.len() {
            let Some(member) = world.get(n) else { continue };
            let runs = matches!(member.role, Role::Primary(_) | Role::Rogue);
            if runs && world.records < bounds.records {
                steps.push(Step::Appends(n));
            }
            if member.primary().is_none() {
                continue;
            }
            if world.joined < bounds.standbys + bounds.joins {
                steps.push(Step::Seeds(n));
            }
            if world.swaps < bounds.swaps {
                let others = world.peers(n).into_iter();
                steps.extend(others.map(|to| Step::Swaps { from: n, to }));
            }
            if bounds.unprotect && !world.unprotected {
                steps.push(Step::Unprotects(n));
            }
        }
    }

    fn faults(&self, world: &World, steps: &mut Vec<Step>) {
        let bounds = &self.bounds;
        for n in 0..world.members.len() {
            let Some(member) = world.get(n).filter(|member| member.there()) else { continue };
            let peers = world.peers(n);
            if bounds.deaths {
                let longest = peers.iter().map(|&to| world.pipes[&(n, to)].len()).max();
                for keep in 0..=longest.unwrap_or(0) {
                    steps.push(Step::Dies { member: n, keep, acts: false });
                    if member.request.is_some() {
                        steps.push(Step::Dies { member: n, keep, acts: true });
                    }
                }
            }
            if bounds.cuts {
                for &other in peers.iter().filter(|&&other| other > n) {
                    let (there, back) = (&world.pipes[&(n, other)], &world.pipes[&(other, n)]);
                    if !there.open() && !back.open() {
                        continue;
                    }
                    let keeps =
                        (0..=there.len()).flat_map(|a| (0..=back.len()).map(move |b| (a, b)));
                    steps.extend(keeps.map(|keep| Step::Cuts { one: n, other, keep }));
                }
            }
            if bounds.alarms {
                steps.extend(peers.iter().map(|&other| Step::Suspects { member: n, other }));
            }
            if bounds.silence && member.request.is_some() {
                steps.extend([How::Lost, How::Done, How::Late].map(|how| Step::Fails(n, how)));
            }
            if bounds.divergence && member.standby().is_some() && member.executed < member.log.len()
            {
                steps.push(Step::Diverges(n));
            }
            if member.stopping {
                steps.push(Step::StopFails(n));
            }
        }
    }
}

impl World {
    pub fn step(&mut self, model: &Sets, step: Step) {
        match step {
            Step::Reads { from, to } => self.reads(model, from, to),
            Step::Executes(n) => self.executes(model, n),
            Step::Acts(n) => self.acts(model, n),
            Step::Answers(n) => {
                let answer = self.members[n].as_mut().and_then(|member| member.answer.take());
                answer.into_iter().for_each(|answer| self.answered(model, n, answer));
            }
            Step::Ticks(n) => {
                self.event(model, n, primary::Event::Tick, Some(standby::Event::Tick));
            }
            Step::Stops(n) => {
                self.members[n].as_mut().into_iter().for_each(|member| member.stopping = false);
                self.event(model, n, primary::Event::Stopped, None);
            }
            Step::Late { which, happens } => {
                let request = self.late.remove(which);
                if happens {
                    self.arbiter(&request, false);
                }
            }
            Step::Appends(n) => self.appends(model, n),
            Step::Swaps { from, to } => {
                self.swaps += 1;
                self.event(model, from, primary::Event::Swap { to: id(to) }, None);
            }
            Step::Unprotects(n) => {
                self.unprotected = true;
                self.event(model, n, primary::Event::Unprotect, None);
            }
            Step::Seeds(n) => self.seed(model, n),
            fault => {
                self.faults += 1;
                self.fault(model, fault);
            }
        }
    }

    fn acts(&mut self, model: &Sets, n: usize) {
        let request = self.members[n].as_mut().and_then(|member| member.request.take());
        let Some(request) = request else { return };
        let answer = self.arbiter(&request, model.mutation == Mutation::BlindArbiter);
        self.members[n].as_mut().into_iter().for_each(|it| it.answer = Some(answer.clone()));
    }

    fn fault(&mut self, model: &Sets, fault: Step) {
        match fault {
            Step::Dies { member, keep, acts } => {
                if acts {
                    self.acts(model, member);
                }
                let peers = self.peers(member);
                for to in peers {
                    self.pipes.get_mut(&(member, to)).into_iter().for_each(|out| out.cut(keep));
                    self.pipes.get_mut(&(to, member)).into_iter().for_each(|back| back.shut());
                }
                let active = self.members[member].take().is_some_and(|m| m.primary().is_some());
                // An active member that was alone takes the VM with it, as any host does.
                self.excused |= active && !self.named().any(|(_, other)| other.there());
            }
            Step::Cuts { one, other, keep } => {
                self.pipes.get_mut(&(one, other)).into_iter().for_each(|out| out.cut(keep.0));
                self.pipes.get_mut(&(other, one)).into_iter().for_each(|back| back.cut(keep.1));
            }
            Step::Suspects { member, other } => {
                let why = String::new();
                let suspected = primary::Event::Suspected { member: id(other), why: why.clone() };
                self.event(model, member, suspected, Some(standby::Event::Suspected(why)));
            }
            Step::Fails(n, how) => {
                let request = self.members[n].as_mut().and_then(|member| member.request.take());
                let Some(request) = request else { return };
                match how {
                    How::Lost => {}
                    How::Done => drop(self.arbiter(&request, false)),
                    How::Late if matches!(request, Request::Read(_)) => {}
                    How::Late => self.late.push(request.clone()),
                }
                self.silent(model, n, request, Answer::Unreachable(String::new()));
            }
            Step::Diverges(n) => {
                let Some(member) = &mut self.members[n] else { return };
                member.wrong = true;
                let (position, what) = (member.executed as u64 + 1, String::new());
                if model.mutation == Mutation::HidesDivergence {
                    member.executed = member.log.len();
                    let all = member.log.len() as u64;
                    return self.standby_event(model, n, standby::Event::Executed(all));
                }
                self.standby_event(model, n, standby::Event::Diverged { position, what });
            }
            Step::StopFails(n) => {
                self.members[n].as_mut().into_iter().for_each(|member| member.stopping = false);
                let cancelled = primary::Event::SwapCancelled(String::new());
                self.event(model, n, cancelled, None);
            }
            _ => {}
        }
    }

    fn appends(&mut self, model: &Sets, n: usize) {
        let Some(member) = &mut self.members[n] else { return };
        let term = member.primary().map_or(0, |primary| primary.term().0 as u8);
        member.log.push(Entry { by: n as u8, term });
        member.executed = member.log.len();
        self.records += 1;
        let last = member.log.len() as u64;
        if matches!(member.role, Role::Rogue) {
            return self.release(n, last);
        }
        self.primary_event(model, n, primary::Event::Appended { last, bytes: 1 });
        if model.mutation == Mutation::ReleasesAtOnce {
            self.release(n, last);
        }
    }
}

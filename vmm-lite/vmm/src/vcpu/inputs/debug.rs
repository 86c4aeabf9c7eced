//! How a guest that is replayed runs for a debugger: where it stops, and which moment that is. What
//! the CPU does about it is in `debugged`.

use super::{DebugLink, DebugStop, Leg, Moment, Orders, debugged::Traps};
use std::sync::Arc;

/// How a debugged guest is entered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    /// It runs to the first of these instructions.
    Run(Vec<u64>),
    /// It executes the instruction where it is, at which it would stop again.
    StepOver,
    /// It executes an instruction, which counts.
    Step,
}

/// A guest that is replayed for a debugger.
#[derive(Debug)]
pub(in crate::vcpu) struct Debug {
    pub link: Arc<DebugLink>,
    pub(super) traps: Traps,
    orders: Orders,
    /// The last moment of which it is known how to find it again.
    at: Moment,
    /// The last such moment before its last exit.
    before: Option<Moment>,
    /// How often it came to instructions since then.
    arrivals: Vec<(u64, u64)>,
    /// Legs of the moment that it is to reach that are done, and steps of the next one.
    legs: usize,
    steps: u64,
    /// Where it is, if it has stopped since the last exit. The arrival there has been counted.
    rip: Option<u64>,
    /// The instruction to which it returns from a fault, and which is a step to be counted.
    returning: Option<u64>,
    entry: Entry,
    /// Since its last orders.
    entered: bool,
    last_hit: Option<Moment>,
    pub stopped: Option<DebugStop>,
    told_end: bool,
}

impl Debug {
    /// Of a guest that stands right after the record at `position`.
    pub fn new(link: Arc<DebugLink>, position: u64) -> Self {
        Self {
            link,
            traps: Traps::default(),
            orders: Orders::Continue { breakpoints: Vec::new(), until: None },
            at: Moment::after(position),
            before: None,
            arrivals: Vec::new(),
            legs: 0,
            steps: 0,
            rip: None,
            returning: None,
            entry: Entry::StepOver,
            entered: false,
            last_hit: None,
            stopped: None,
            told_end: false,
        }
    }

    /// Has it do this when it runs.
    pub fn order(&mut self, orders: Orders) {
        self.orders = orders;
        (self.legs, self.steps, self.returning, self.entered) = (0, 0, None, false);
        (self.stopped, self.last_hit) = (None, None);
    }

    /// The moment at which it has stopped.
    pub fn at(&self) -> &Moment {
        &self.at
    }

    /// Before its last exit, if it stopped there.
    pub fn before(&self) -> Option<&Moment> {
        self.before.as_ref()
    }

    /// Where it came to a breakpoint last, before the moment that it was to reach.
    pub fn last_hit(&self) -> Option<&Moment> {
        self.last_hit.as_ref()
    }

    fn breakpoints(&self) -> &[u64] {
        match &self.orders {
            Orders::Continue { breakpoints, .. }
            | Orders::Step { breakpoints, .. }
            | Orders::Reach { breakpoints, .. } => breakpoints,
        }
    }

    /// What it is to do next, to reach a moment.
    fn goal(&self) -> Option<Leg> {
        match &self.orders {
            Orders::Reach { moment, .. } if moment.record == self.at.record => {
                moment.path.get(self.legs).copied()
            }
            _ => None,
        }
    }

    /// How it is to be entered.
    pub fn enter(&mut self) -> &Entry {
        let goal = self.goal();
        let counts =
            matches!(self.orders, Orders::Step { .. }) || matches!(goal, Some(Leg::Steps(_)));
        let address = match goal {
            Some(Leg::To { address, .. }) => Some(address),
            _ => None,
        };
        let stops: Vec<u64> =
            self.breakpoints().iter().copied().chain(address).chain(self.returning).collect();
        self.entered = true;
        self.entry = if counts && self.returning.is_none() {
            Entry::Step
        } else if self.rip.is_some_and(|rip| stops.contains(&rip)) {
            Entry::StepOver
        } else {
            Entry::Run(stops)
        };
        &self.entry
    }

    /// It is entered for one instruction only, which does not count.
    pub fn steps_over(&mut self) {
        self.entry = Entry::StepOver;
    }

    /// It is about to run on from the record at `position`, or its log ends there. Returns why it
    /// stops instead. `rip` reads its instruction pointer.
    pub fn arrive<E>(
        &mut self,
        position: u64,
        rip: impl FnOnce() -> Result<u64, E>,
    ) -> Result<Option<DebugStop>, E> {
        if position == self.at.record {
            return Ok(None);
        }
        self.before = Some(std::mem::replace(&mut self.at, Moment::after(position)));
        self.arrivals.clear();
        (self.legs, self.steps, self.rip, self.returning) = (0, 0, None, None);
        let stopped = match &self.orders {
            Orders::Continue { until: Some(until), .. }
            | Orders::Step { until: Some(until), .. }
                if position >= *until =>
            {
                Some(DebugStop::Reached)
            }
            Orders::Step { within, .. } if self.entered && !within.contains(&rip()?) => {
                Some(DebugStop::Stepped)
            }
            Orders::Reach { moment, .. } if position > moment.record => Some(DebugStop::Missed),
            Orders::Reach { moment, .. } if *moment == self.at => Some(DebugStop::Reached),
            _ => None,
        };
        let stopped = stopped.or_else(|| self.link.interrupted().then_some(DebugStop::Interrupted));
        self.stopped = stopped;
        Ok(stopped)
    }

    /// Its log has ended. Returns why it stops; `None`, if it has done so before.
    pub fn end(&mut self) -> Option<DebugStop> {
        if std::mem::replace(&mut self.told_end, true) {
            return None;
        }
        self.stopped = Some(DebugStop::EndOfLog);
        self.stopped
    }

    /// The instruction at `from`, which it was to execute, has faulted: it is at the handler's
    /// first one. Returns why it does not go on.
    pub fn fault(&mut self, from: u64, handler: u64) -> Option<DebugStop> {
        if self.entry == Entry::Step {
            (self.rip, self.returning) = (Some(handler), Some(from));
            return None;
        }
        self.stop(handler)
    }

    /// It has executed the instruction that it was to execute, or is at one to which it was to run:
    /// the next one is at `rip`. Returns why it does not go on.
    pub fn stop(&mut self, rip: u64) -> Option<DebugStop> {
        self.rip = Some(rip);
        if self.returning == Some(rip) {
            self.returning = None;
            return None;
        }
        let stepped = self.entry == Entry::Step;
        if stepped {
            self.set_at(self.at.then(Leg::Steps(1)));
            self.steps += 1;
        }
        let (hit, goal) = (self.breakpoints().contains(&rip), self.goal());
        let to_goal = matches!(goal, Some(Leg::To { address, .. }) if address == rip);
        let arrival = (!stepped && (hit || to_goal)).then(|| self.arrival(rip));
        let here = arrival.map_or_else(|| self.at.clone(), |leg| self.at.then(leg));
        let stopped = match &self.orders {
            Orders::Continue { .. } => hit.then_some(DebugStop::Breakpoint),
            Orders::Step { .. } if hit => Some(DebugStop::Breakpoint),
            Orders::Step { within, .. } if stepped && !within.contains(&rip) => {
                Some(DebugStop::Stepped)
            }
            Orders::Step { .. } => {
                (stepped && self.link.interrupted()).then_some(DebugStop::Interrupted)
            }
            Orders::Reach { moment, .. } => {
                let done = match goal {
                    Some(Leg::Steps(steps)) => stepped && steps == self.steps,
                    leg => leg.is_some() && leg == arrival,
                };
                let last = self.legs + 1 == moment.path.len();
                if !(done && last) {
                    return self.passes(here, hit, done);
                }
                Some(DebugStop::Reached)
            }
        };
        if stopped.is_some() {
            self.set_at(here);
        }
        self.stopped = stopped;
        stopped
    }

    /// It is `here` on its way to a moment: at a breakpoint, or at the end of a leg, or neither.
    fn passes(&mut self, here: Moment, hit: bool, done: bool) -> Option<DebugStop> {
        if hit {
            self.last_hit = Some(here.clone());
        }
        if done {
            self.set_at(here);
            (self.legs, self.steps) = (self.legs + 1, 0);
        }
        None
    }

    /// Counts an arrival.
    fn arrival(&mut self, rip: u64) -> Leg {
        if let Some((_, times)) = self.arrivals.iter_mut().find(|(address, _)| *address == rip) {
            *times += 1;
            return Leg::To { address: rip, times: *times };
        }
        self.arrivals.push((rip, 1));
        Leg::To { address: rip, times: 1 }
    }

    fn set_at(&mut self, at: Moment) {
        self.at = at;
        self.arrivals.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u64 = 0x10_0000;
    const B: u64 = 0x20_0000;
    const HANDLER: u64 = 0x30_0000;

    fn to(address: u64, times: u64) -> Leg {
        Leg::To { address, times }
    }

    /// A guest that has just executed record 2.
    fn debug(orders: Orders) -> Debug {
        let mut debug = Debug::new(DebugLink::new().unwrap(), 0);
        assert_eq!(debug.arrive(2, || Ok::<_, ()>(0)), Ok(None));
        debug.order(orders);
        debug
    }

    fn step(breakpoints: Vec<u64>) -> Orders {
        Orders::Step { within: 0..0, breakpoints, until: None }
    }

    fn run_to(debug: &mut Debug, rip: u64) -> Option<DebugStop> {
        assert!(matches!(debug.enter(), Entry::Run(at) if at.contains(&rip)), "{rip:x}");
        debug.stop(rip)
    }

    fn step_over(debug: &mut Debug, rip: u64) {
        assert_eq!(*debug.enter(), Entry::StepOver);
        assert_eq!(debug.stop(rip), None);
    }

    #[test]
    fn arrivals_at_a_breakpoint_are_counted_until_the_next_exit() {
        let orders = Orders::Continue { breakpoints: vec![A], until: Some(9) };
        let mut debug = debug(orders.clone());
        assert_eq!(run_to(&mut debug, A), Some(DebugStop::Breakpoint));
        assert_eq!(*debug.at(), Moment::after(2).then(to(A, 1)));
        debug.order(orders);
        step_over(&mut debug, A + 1);
        assert_eq!(run_to(&mut debug, A), Some(DebugStop::Breakpoint));
        assert_eq!(*debug.at(), Moment::after(2).then(to(A, 2)));
        assert_eq!(debug.arrive(4, || Ok::<_, ()>(0)), Ok(None));
        assert_eq!(debug.before(), Some(&Moment::after(2).then(to(A, 2))));
        assert_eq!(debug.arrive(9, || Ok::<_, ()>(0)), Ok(Some(DebugStop::Reached)));
        assert_eq!((debug.end(), debug.end()), (Some(DebugStop::EndOfLog), None));
    }

    #[test]
    fn a_moment_is_reached_by_its_legs_and_breakpoints_before_it_are_noted() {
        let mut moment = Moment::after(2).then(to(A, 2));
        moment.go(Leg::Steps(2));
        let mut debug =
            debug(Orders::Reach { moment: moment.clone(), breakpoints: vec![B, A + 2] });
        assert_eq!(run_to(&mut debug, A), None);
        step_over(&mut debug, A + 1);
        assert_eq!(run_to(&mut debug, B), None);
        assert_eq!(debug.last_hit(), Some(&Moment::after(2).then(to(B, 1))));
        step_over(&mut debug, A);
        for (rip, stopped) in [(A + 1, None), (A + 2, Some(DebugStop::Reached))] {
            assert_eq!(*debug.enter(), Entry::Step);
            assert_eq!(debug.stop(rip), stopped);
        }
        assert_eq!(*debug.at(), moment);
        assert_eq!(
            debug.last_hit(),
            Some(&Moment::after(2).then(to(B, 1))),
            "not the moment itself"
        );
    }

    #[test]
    fn a_step_that_faults_is_made_when_the_fault_is_served() {
        let mut debug = debug(step(vec![B]));
        assert_eq!(*debug.enter(), Entry::Step);
        assert_eq!(debug.fault(A, HANDLER), None);
        assert_eq!(run_to(&mut debug, A), None, "back");
        assert_eq!(*debug.enter(), Entry::Step);
        assert_eq!(debug.stop(A + 1), Some(DebugStop::Stepped));
        assert_eq!(*debug.at(), Moment::after(2).then(Leg::Steps(1)));
        // A breakpoint within the handler.
        debug.order(step(vec![B]));
        assert_eq!(*debug.enter(), Entry::Step);
        assert_eq!(debug.fault(A + 1, HANDLER), None);
        assert_eq!(run_to(&mut debug, B), Some(DebugStop::Breakpoint));
        assert_eq!(*debug.at(), Moment::after(2).then(Leg::Steps(1)).then(to(B, 1)));
    }

    #[test]
    fn another_way_than_before_and_an_interruption_are_seen() {
        let reach = Orders::Reach { moment: Moment::after(5), breakpoints: vec![] };
        let mut debug = debug(reach.clone());
        assert_eq!(debug.arrive(6, || Ok::<_, ()>(0)), Ok(Some(DebugStop::Missed)));
        debug.link.interrupt();
        debug.order(step(vec![]));
        assert_eq!(debug.arrive(8, || Ok::<_, ()>(0)), Ok(Some(DebugStop::Interrupted)));
    }
}

//! A second hop: the receiver is asked to move the VM on during the first hop's post-copy.
//!
//! The model is two worlds; the second's source is the first's receiver. A is the source of the
//! first, B its receiver and the source of the second, C the receiver of that. All state machines
//! are `migrate`'s own. B begins the second hop once the state machine of the first reports that
//! nothing is missing, as vmm-lite does by `memory::Complete`; that is the gate.

use migrate::destination::Event;
use stateright::{Model, Property};

use super::{
    link::PAGES,
    steps::Step,
    world::{Moves, World},
};

pub const ONE: &str = "never two of three run";
pub const WHOLE: &str = "a VM that was moved on has every page";
pub const KEPT: &str = "the last copy of memory that is whole is not dropped";

/// When B begins the second hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// When all memory has arrived.
    Waits,
    /// At once: missing pages are treated as zero. This is wrong.
    Open,
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Hops {
    pub first: Moves,
    pub second: Moves,
    pub gate: Gate,
}

/// The request to B.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Asked {
    Nothing,
    /// B shall move the VM on and waits for memory.
    Waits,
    /// The wait was cancelled, timed out, or lost its source.
    GivenUp,
    /// The second hop has begun.
    Begun,
}

/// A state of the model.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Both {
    first: World,
    asked: Asked,
    second: Option<World>,
}

/// A step of the model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Hop {
    /// A step in the first hop. If the VM ends at B, so does the source of the second.
    First(Step),
    /// The operator asks B to move the VM on, while pages are missing.
    Asks,
    /// The wait ends without them.
    GivesUp,
    /// The second hop begins.
    Begins,
    /// A step in the second hop.
    Second(Step),
    /// B's process learns that its VM runs at C, and ends the attempt of the first hop.
    Leaves,
}

impl Model for Hops {
    type State = Both;
    type Action = Hop;

    fn init_states(&self) -> Vec<Both> {
        vec![Both { first: World::new(), asked: Asked::Nothing, second: None }]
    }

    fn actions(&self, both: &Both, hops: &mut Vec<Hop>) {
        let mut steps = Vec::new();
        self.first.actions(&both.first, &mut steps);
        hops.extend(steps.drain(..).map(Hop::First));
        let runs = both.first.runs_at_receiver();
        match (&both.second, both.asked) {
            (None, Asked::Nothing) if runs && both.first.lacking_at_receiver() => {
                hops.push(Hop::Asks);
            }
            (None, Asked::Waits) if runs => {
                hops.push(Hop::GivesUp);
                if self.gate == Gate::Open || both.first.complete_at_receiver() {
                    hops.push(Hop::Begins);
                }
            }
            (Some(second), _) => {
                self.second.actions(second, &mut steps);
                hops.extend(steps.into_iter().map(Hop::Second));
                if runs && second.origin.as_ref().is_some_and(|b| b.moved) {
                    hops.push(Hop::Leaves);
                }
            }
            _ => {}
        }
    }

    fn next_state(&self, last: &Both, hop: Hop) -> Option<Both> {
        let mut both = last.clone();
        match hop {
            Hop::First(step) => {
                both.first = self.first.next_state(&last.first, step)?;
                if last.first.runs_at_receiver() && !both.first.runs_at_receiver() {
                    // The VM has ended at B, with its process or because pages are missing.
                    both.second.iter_mut().for_each(World::source_dies);
                }
            }
            Hop::Asks => both.asked = Asked::Waits,
            Hop::GivesUp => both.asked = Asked::GivenUp,
            Hop::Begins => {
                let mut second = World::new();
                if let (Some(b), Some(there)) = (&mut second.origin, last.first.memory_there()) {
                    b.memory = there;
                }
                (both.asked, both.second) = (Asked::Begun, Some(second));
            }
            Hop::Second(step) => {
                both.second = Some(self.second.next_state(last.second.as_ref()?, step)?);
            }
            Hop::Leaves => {
                let receiver = both.first.receiver.as_mut()?;
                (receiver.vm, receiver.complete) = (false, false);
                if receiver.attempt.is_some() {
                    both.first.receiver_event(&self.first, Event::VmEnded);
                }
            }
        }
        Some(both)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE, |_, both: &Both| both.running() <= 1),
            Property::always(WHOLE, |_, both: &Both| !both.ran_at_c() || both.whole_at_c()),
            Property::always(KEPT, |_, both: &Both| {
                let let_go = both.first.origin.as_ref().is_some_and(|a| a.moved);
                let whole = if both.ran_at_c() {
                    both.whole_at_c() || both.first.complete_at_receiver()
                } else {
                    !both.first.lacking_at_receiver()
                };
                !let_go || whole
            }),
            Property::always("no machine breaks a driver's rule", |_, both: &Both| {
                both.first.broken.is_none()
                    && both.second.as_ref().is_none_or(|second| second.broken.is_none())
            }),
            Property::sometimes(
                "it runs at the third host, and both others have ended it",
                |_, both: &Both| {
                    let ended = |world: &World| world.origin.as_ref().is_some_and(|o| o.moved);
                    both.second
                        .as_ref()
                        .is_some_and(|second| second.runs_at_receiver() && ended(second))
                        && ended(&both.first)
                        && !both.first.runs_at_receiver()
                },
            ),
            Property::sometimes(
                "the wait is cancelled, and all memory arrives",
                |_, both: &Both| {
                    both.asked == Asked::GivenUp
                        && both.first.runs_at_receiver()
                        && both.first.complete_at_receiver()
                },
            ),
            Property::sometimes(
                "the first source ends after the second hop began",
                |_, both: &Both| {
                    both.asked == Asked::Begun
                        && both.first.origin.as_ref().is_some_and(|a| !a.moved)
                },
            ),
        ]
    }
}

impl Both {
    fn running(&self) -> usize {
        let at_b = match &self.second {
            None => self.first.runs_at_receiver(),
            Some(second) => second.runs_at_source(),
        };
        let at_c = self.second.as_ref().is_some_and(World::runs_at_receiver);
        usize::from(self.first.runs_at_source()) + usize::from(at_b) + usize::from(at_c)
    }

    fn ran_at_c(&self) -> bool {
        self.second.as_ref().is_some_and(|second| second.tries.iter().any(|t| t.ran))
    }

    /// Whether what left B for C is what the guest had at A. (That C has what left B is a property
    /// of the second world.)
    fn whole_at_c(&self) -> bool {
        let at_a = self.first.tries.iter().find(|t| t.ran).and_then(|t| t.stopped);
        let at_b = self.second.iter().flat_map(|s| &s.tries).find(|t| t.ran);
        let at_b = at_b.and_then(|t| t.stopped);
        at_a.zip(at_b).is_some_and(|(a, b)| (0..PAGES).all(|n| a[n].is_some() && a[n] == b[n]))
    }
}

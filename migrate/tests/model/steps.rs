//! What can happen next, in any state.

use migrate::{
    destination::{Action as ReceiverAction, Event as ReceiverEvent},
    source::{Action, Event},
    wire::Message,
};
use stateright::{Model, Property};

use super::{
    link::{PAGES, Packet, Way},
    properties,
    source::Done,
    world::{Harsh, Moves, Reach, World},
};

/// A step of the model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// The guest writes a page at the source.
    Writes(usize),
    /// A client requests a move.
    Begins,
    /// A client requests a cancel.
    Cancels,
    /// A client resumes a VM that is stopped and is not being moved.
    Resumes,
    /// The source's driver carries out an action.
    SourceDoes(Done),
    /// The source reads what has arrived.
    SourceReads,
    /// The source's deadline passes.
    SourceTicks,
    /// The thread that moves the VM dies.
    MoverDies,
    /// The source's process dies.
    SourceDies,
    /// The receiver reads from a connection.
    ReceiverReads(usize),
    /// The receiver reads a query, and reports it to the state machine.
    ReceiverIsAsked(usize),
    /// The receiver's driver carries out an action, or fails to.
    ReceiverDoes(bool),
    /// The receiver's driver reports that it is preparing.
    ReceiverPrepares,
    /// The receiver's deadline passes.
    ReceiverTicks,
    /// The guest at the receiver touches a missing page.
    Faults(usize),
    /// The guest at the receiver is at full speed.
    Settles,
    /// The receiver's thread takes the connection of a source that is back.
    TakesBack,
    /// The receiver answers a query.
    Answers(usize),
    /// The receiving process dies.
    ReceiverDies,
    /// Another receiving process takes its place.
    ReceiverStarts,
    /// One direction of a connection breaks, and this many packets still arrive.
    Breaks(usize, Way, usize),
    /// A harsh network loses one packet.
    Loses(usize, Way, usize),
    /// A harsh network repeats a message that was sent before.
    Repeats(usize, usize),
}

impl Model for Moves {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.broken.is_some() {
            return;
        }
        self.source_steps(world, steps);
        self.receiver_steps(world, steps);
        self.network_steps(world, steps);
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

impl Moves {
    fn source_steps(&self, world: &World, steps: &mut Vec<Step>) {
        let Some(origin) = &world.origin else { return };
        let bounds = &self.bounds;
        if origin.runs && world.writes < bounds.writes {
            steps.extend((0..PAGES).map(Step::Writes));
        }
        if bounds.source_dies {
            steps.push(Step::SourceDies);
        }
        let Some(mover) = &origin.mover else {
            if origin.runs && world.tries.len() < bounds.tries {
                steps.push(Step::Begins);
            }
            if !origin.runs && !origin.fenced && !origin.moved {
                steps.push(Step::Resumes);
            }
            return;
        };
        if bounds.source_dies {
            steps.push(Step::MoverDies);
        }
        if let Some(task) = mover.tasks.front() {
            let connects = matches!(task, Action::Reconnect { .. });
            let can = !connects || world.questions < bounds.questions && world.receiver.is_some();
            if can {
                steps.push(Step::SourceDoes(Done::Well));
            }
            let looks = matches!(task, Action::Stop { .. } | Action::PeekDirty | Action::TakeDirty);
            if bounds.page_hints && looks {
                steps.push(Step::SourceDoes(Done::WellWithoutLastPage));
            }
            let may_fail = bounds.failures && !matches!(task, Action::SendFollowing(_));
            if may_fail || connects {
                steps.push(Step::SourceDoes(Done::Badly));
            }
            if bounds.failures && matches!(task, Action::SendPages { .. } | Action::SendLast { .. })
            {
                steps.push(Step::SourceDoes(Done::Cancelled));
            }
            return;
        }
        if bounds.failures {
            steps.push(Step::Cancels);
        }
        if mover.machine.deadline().is_some() {
            steps.push(Step::SourceTicks);
        }
        let pipe = mover.connection.map(|at| &world.connections[at].to_source);
        if pipe.is_some_and(|p| p.len() > 0 || p.ended()) {
            steps.push(Step::SourceReads);
        }
    }

    fn receiver_steps(&self, world: &World, steps: &mut Vec<Step>) {
        let Some(receiver) = &world.receiver else {
            steps.push(Step::ReceiverStarts);
            return;
        };
        if world.receivers <= self.bounds.restarts {
            steps.push(Step::ReceiverDies);
        }
        for (at, connection) in world.connections.iter().enumerate() {
            if World::readable(connection) && receiver.reads(at) {
                steps.push(Step::ReceiverReads(at));
                let own = receiver.attempt.as_ref().is_some_and(|a| a.connection == Some(at));
                if let Some(Packet::Message(Message::Query(id, asked))) =
                    connection.to_receiver.peek()
                    && !own
                    && receiver.must_wait(self, id, asked)
                {
                    steps.push(Step::ReceiverIsAsked(at));
                }
            }
        }
        if let Some(attempt) = &receiver.attempt {
            if let Some(ReceiverAction::Prepare(_)) = attempt.task
                && !attempt.said_preparing
                // A repeated one is like any other message at a wrong time.
                && self.bounds.harsh == Harsh::NONE
            {
                steps.push(Step::ReceiverPrepares);
            }
            if attempt.task.is_some() {
                steps.push(Step::ReceiverDoes(true));
                if self.bounds.failures {
                    steps.push(Step::ReceiverDoes(false));
                }
            } else if attempt.machine.deadline().is_some() {
                steps.push(Step::ReceiverTicks);
            }
            if attempt.machine.runs() {
                steps.extend(attempt.machine.lacking().iter().map(Step::Faults));
            }
            if attempt.machine.runs() && !attempt.settled {
                steps.push(Step::Settles);
            }
            if attempt.back.is_some() {
                steps.push(Step::TakesBack);
            }
        }
        for (which, (_, id, asked)) in receiver.questions.iter().enumerate() {
            if !receiver.must_wait(self, id, asked) {
                steps.push(Step::Answers(which));
            }
        }
    }

    fn network_steps(&self, world: &World, steps: &mut Vec<Step>) {
        let harsh = &self.bounds.harsh;
        for (at, connection) in world.connections.iter().enumerate() {
            for way in [Way::ToReceiver, Way::ToSource] {
                let pipe = connection.way(way);
                if self.bounds.breaks {
                    steps.extend(pipe.prefixes().map(|keep| Step::Breaks(at, way, keep)));
                }
                if world.losses < harsh.losses {
                    steps.extend((0..pipe.len()).map(|n| Step::Loses(at, way, n)));
                }
                if world.copies < harsh.copies && pipe.open() {
                    let arrives = |(from, its, _): &(usize, Way, Message)| {
                        *its == way && (*from == at || harsh.reach == Reach::AnyConnection)
                    };
                    let which = world.sent.iter().enumerate().filter(|(_, s)| arrives(s));
                    steps.extend(which.map(|(which, _)| Step::Repeats(which, at)));
                }
            }
        }
    }
}

impl World {
    fn step(&mut self, model: &Moves, step: Step) {
        match step {
            Step::Writes(page) => {
                self.writes += 1;
                if let Some(origin) = &mut self.origin {
                    origin.write(page);
                }
            }
            Step::Begins => self.begin(model),
            Step::Cancels => self.source_event(model, Event::Cancel("no".into())),
            Step::Resumes => {
                if let Some(origin) = &mut self.origin {
                    origin.runs = true;
                }
                if let Some(last) = self.tries.last_mut() {
                    last.resumed |= last.committed;
                }
            }
            Step::SourceDoes(done) => self.source_does(model, done),
            Step::SourceReads => self.source_reads(model),
            Step::SourceTicks => self.source_event(model, Event::Tick),
            Step::MoverDies => self.mover_dies(),
            Step::SourceDies => self.source_dies(),
            Step::ReceiverReads(at) => self.receiver_reads(model, at),
            Step::ReceiverIsAsked(at) => self.receiver_is_asked(model, at),
            Step::ReceiverDoes(well) => self.receiver_does(model, well),
            Step::ReceiverPrepares => self.receiver_prepares(model),
            Step::ReceiverTicks => self.receiver_event(model, ReceiverEvent::Tick),
            Step::Faults(page) => self.receiver_event(model, ReceiverEvent::Fault(page)),
            Step::Settles => self.receiver_settles(model),
            Step::TakesBack => self.take_back(model),
            Step::Answers(which) => self.answer(model, which),
            Step::ReceiverDies => self.receiver_dies(),
            Step::ReceiverStarts => self.receiver_starts(),
            Step::Breaks(at, way, keep) => self.connections[at].way_mut(way).cut(keep),
            Step::Loses(at, way, which) => {
                self.losses += 1;
                self.connections[at].way_mut(way).lose(which);
            }
            Step::Repeats(which, at) => {
                self.copies += 1;
                let (_, way, message) = self.sent[which].clone();
                self.connections[at].way_mut(way).push(Packet::Message(message));
                if self.copies == model.bounds.harsh.copies {
                    self.sent.clear();
                }
            }
        }
    }
}

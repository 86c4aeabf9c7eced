//! The receiving process: the ledger, and what drives [`migrate::destination::Destination`], as vmm-lite's `migration::destination` does it.

use std::time::Duration;

use migrate::{
    MoveId, ReceiverId,
    destination::{Action, Destination, Event, Ledger},
    offer::Refusal,
    wire::{Message, Outcome, Started},
};

use super::{
    link::{Connection, Memory, PAGES, Packet, Way},
    mutation::Mutation,
    world::{Moves, World, receiver_id, try_of},
};

/// The process that waits for a VM.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Receiver {
    number: u8,
    pub ledger: Ledger,
    /// Whether it has become a VM.
    pub taken: bool,
    /// Whether the VM's instructions are run.
    pub vm: bool,
    /// The attempt under way.
    pub attempt: Option<Attempt>,
    /// Questions that wait for an attempt to end: connection, move and receiver.
    pub questions: Vec<(usize, MoveId, ReceiverId)>,
}

/// An attempt: the machine and its driver.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Attempt {
    pub machine: Destination,
    pub connection: usize,
    id: MoveId,
    /// Memory of the VM prepared.
    prepared: Option<Memory>,
    applied: bool,
    /// What the machine asked for and whose outcome is open.
    pub task: Option<Action>,
}

impl Receiver {
    pub fn new(number: u8) -> Self {
        Self {
            number,
            ledger: Ledger::new(receiver_id(number)),
            taken: false,
            vm: false,
            attempt: None,
            questions: Vec::new(),
        }
    }

    /// Whether it would take what comes on this connection now.
    pub fn reads(&self, at: usize) -> bool {
        match &self.attempt {
            Some(attempt) if attempt.connection == at => attempt.task.is_none(),
            _ => self.questions.iter().all(|(connection, ..)| *connection != at),
        }
    }

    /// Whether an answer has to wait: the move asked about is under way, and could still be committed.
    pub fn must_wait(&self, model: &Moves, id: &MoveId, receiver: &ReceiverId) -> bool {
        model.mutation != Mutation::AnswersTooSoon
            && self.ledger.outcome(id, receiver) == Outcome::Never
            && self.attempt.as_ref().is_some_and(|a| a.id == *id)
    }
}

impl World {
    fn host(&mut self) -> &mut Receiver {
        self.receiver.as_mut().expect("the receiver lives")
    }

    fn attempt(&mut self) -> &mut Attempt {
        self.host().attempt.as_mut().expect("an attempt is under way")
    }

    /// The receiver takes what has come on a connection: a packet, or its end.
    pub fn receiver_reads(&mut self, model: &Moves, at: usize) {
        let packet = self.connections[at].to_receiver.pop();
        if self.host().attempt.as_ref().is_some_and(|a| a.connection == at) {
            let event = match packet {
                Some(Packet::Message(message)) => Event::Message(message),
                Some(Packet::Pages(pages)) => self.write(&pages),
                None => Event::LinkLost("closed".into()),
            };
            return self.receiver_event(model, event);
        }
        match packet {
            Some(Packet::Message(Message::Hello(id))) => self.take_in(model, at, id),
            Some(Packet::Message(Message::Query(id, receiver))) => {
                if self.host().must_wait(model, &id, &receiver) {
                    // It ends the attempt's connection, and waits for what its thread says: what has arrived is still read.
                    let under_way = self.attempt().connection;
                    self.connections[under_way].to_receiver.close();
                    self.connections[under_way].to_source.close();
                }
                self.host().questions.push((at, id, receiver));
            }
            Some(_) => {
                self.send(model, at, Way::ToSource, Message::Abort("neither".into()));
                self.connections[at].receiver_leaves();
            }
            None => self.connections[at].receiver_leaves(),
        }
    }

    /// The same for a question, by a driver that tells the machine rather than end its connection.
    pub fn receiver_is_asked(&mut self, model: &Moves, at: usize) {
        let Some(Packet::Message(Message::Query(id, receiver))) =
            self.connections[at].to_receiver.pop()
        else {
            return;
        };
        if self.host().must_wait(model, &id, &receiver) {
            self.receiver_event(model, Event::Asked);
        }
        self.host().questions.push((at, id, receiver));
    }

    /// Answers a question that need not wait any more.
    pub fn answer(&mut self, model: &Moves, which: usize) {
        let host = self.host();
        let (at, id, receiver) = host.questions.remove(which);
        let outcome = model.mutation.outcome(&host.ledger, &id, &receiver);
        if outcome == Outcome::Never
            && let Some(remembered) = self.tries.get_mut(try_of(&id))
        {
            remembered.said_never = true;
        }
        self.send(model, at, Way::ToSource, Message::Outcome(id, outcome));
        self.connections[at].receiver_leaves();
    }

    fn take_in(&mut self, model: &Moves, at: usize, id: MoveId) {
        let host = self.host();
        if host.taken || host.attempt.is_some() {
            self.send(model, at, Way::ToSource, Message::Refuse(Refusal::Busy));
            self.connections[at].receiver_leaves();
            return;
        }
        let machine = Destination::new(receiver_id(host.number), Duration::ZERO, Duration::ZERO);
        let attempt =
            Attempt { machine, connection: at, id, prepared: None, applied: false, task: None };
        host.attempt = Some(attempt);
        self.receiver_event(model, Event::Message(Message::Hello(id)));
    }

    fn write(&mut self, pages: &[Option<u8>; PAGES]) -> Event {
        let attempt = self.attempt();
        if let (true, Some(memory)) = (attempt.machine.receives(), &mut attempt.prepared) {
            pages.iter().zip(memory).for_each(|(from, to)| *to = from.unwrap_or(*to));
        }
        Event::Pages
    }

    pub fn receiver_event(&mut self, model: &Moves, event: Event) {
        let attempt = self.attempt();
        let now = match &event {
            Event::Tick => attempt.machine.deadline().unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let (at, id) = (attempt.connection, attempt.id);
        let actions = model.mutation.destination(&mut attempt.machine, event, now);
        for action in actions {
            #[allow(unreachable_patterns)]
            match action {
                Action::Send(message) => self.send(model, at, Way::ToSource, message),
                Action::Prepare(_) | Action::Apply(_) => self.attempt().task = Some(action),
                Action::Run => self.run(model, &id),
                Action::Deliver(_) => {}
                Action::Discard(_) => {
                    if self.host().vm && self.host().taken && self.attempt().machine.runs() {
                        self.broken = Some("a VM that runs is thrown away");
                    }
                    self.attempt().prepared = None;
                }
                Action::End => {
                    self.connections[at].receiver_leaves();
                    self.host().attempt = None;
                    return;
                }
                // A new action of the destination goes here: at once if it cannot fail, as a task above if it can.
                _ => self.broken = Some("the model does not know an action of the destination"),
            }
        }
    }

    fn run(&mut self, model: &Moves, id: &MoveId) {
        let attempt = self.attempt();
        let (memory, applied) = (attempt.prepared.take(), attempt.applied);
        let number = try_of(id);
        let host = self.host();
        host.ledger.ran(*id);
        (host.taken, host.vm) = (true, true);
        self.tries[number].ran = true;
        match memory {
            Some(memory) if applied => {
                if model.bounds.harsh == super::world::Harsh::NONE && !self.whole(number, &memory) {
                    self.broken = Some("the memory there is not the guest's");
                }
            }
            _ => self.broken = Some("it runs without its memory and state"),
        }
        self.receiver_event(model, Event::Runs(Started::default()));
    }

    /// The driver does what the machine asked for.
    pub fn receiver_does(&mut self, model: &Moves, well: bool) {
        let attempt = self.attempt();
        let event = match attempt.task.take().expect("a task") {
            Action::Prepare(_) if well => {
                attempt.prepared = Some([0; PAGES]);
                Event::Prepared(Ok(()))
            }
            Action::Prepare(_) => Event::Prepared(Err(Refusal::Network)),
            Action::Apply(_) if well => {
                attempt.applied = true;
                Event::Applied(Ok(()))
            }
            _ => Event::Applied(Err("no".into())),
        };
        self.receiver_event(model, event);
    }

    /// Connections that the receiver has not closed.
    pub fn readable(connection: &Connection) -> bool {
        connection.to_receiver.len() > 0 || connection.to_receiver.ended()
    }
}

//! The receiving process: the ledger, and what drives [`migrate::destination::Destination`], as
//! vmm-lite's `migration::destination` does it.

use std::time::Duration;

use migrate::{
    MoveId, ReceiverId,
    brownout::Settled,
    destination::{Action, Destination, Event, Ledger, Timeouts},
    offer::Refusal,
    wire::{Accepted, Message, Outcome, Run, Started},
};

use super::{
    link::{Connection, Memory, PAGES, Packet, Way},
    mutation::Mutation,
    world::{Harsh, Moves, World, receiver_id, try_of},
};

/// The process that waits for a VM.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Receiver {
    number: u8,
    pub ledger: Ledger,
    /// Whether it runs a VM, or has.
    pub taken: bool,
    /// Whether the VM's instructions are run.
    pub vm: bool,
    /// Whether the VM has all of its memory, by the state machine's actions. In vmm-lite nothing
    /// copies a VM or moves it on before (`memory::Complete`).
    pub complete: bool,
    /// The attempt under way.
    pub attempt: Option<Attempt>,
    /// Queries that wait for an attempt to end: connection, move and receiver.
    pub questions: Vec<(usize, MoveId, ReceiverId)>,
}

/// An attempt: the state machine and its driver.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Attempt {
    pub machine: Destination,
    pub connection: Option<usize>,
    /// The source is back on this connection; the attempt's thread has not taken it yet.
    pub back: Option<usize>,
    id: MoveId,
    /// Memory of the prepared VM, or of the VM that runs and lacks some.
    memory: Option<Memory>,
    applied: bool,
    /// It has told the source that it is preparing, and still is: another such message changes
    /// nothing.
    pub said_preparing: bool,
    /// The guest is at full speed, and the state machine knows.
    pub settled: bool,
    /// The open action of the state machine.
    pub task: Option<Action>,
}

impl Receiver {
    pub fn new(number: u8) -> Self {
        Self {
            number,
            ledger: Ledger::new(receiver_id(number)),
            taken: false,
            vm: false,
            complete: false,
            attempt: None,
            questions: Vec::new(),
        }
    }

    /// Whether it would read from this connection now.
    pub fn reads(&self, at: usize) -> bool {
        match &self.attempt {
            Some(attempt) if attempt.connection == Some(at) => attempt.task.is_none(),
            Some(attempt) if attempt.back == Some(at) => false,
            _ => self.questions.iter().all(|(connection, ..)| *connection != at),
        }
    }

    /// Whether the VM of a move runs here and lacks pages: its thread then answers.
    fn lacks(&self, model: &Moves, id: &MoveId) -> bool {
        let lacks =
            |a: &Attempt| a.id == *id && a.machine.runs() && !a.machine.lacking().is_empty();
        model.mutation != Mutation::SaysThatItRanWhileItLacks
            && self.attempt.as_ref().is_some_and(lacks)
    }

    /// Whether an answer has to wait: the move in question is under way, and could still be
    /// committed.
    pub fn must_wait(&self, model: &Moves, id: &MoveId, receiver: &ReceiverId) -> bool {
        model.mutation != Mutation::AnswersTooSoon
            && self.ledger.outcome(id, receiver) == Outcome::Never
            && self.attempt.as_ref().is_some_and(|a| a.id == *id)
    }
}

impl World {
    fn host(&mut self) -> &mut Receiver {
        self.receiver.as_mut().expect("the receiving process is alive")
    }

    fn attempt(&mut self) -> &mut Attempt {
        self.host().attempt.as_mut().expect("an attempt is under way")
    }

    /// The receiver reads from a connection: a packet, or its end.
    pub fn receiver_reads(&mut self, model: &Moves, at: usize) {
        let packet = self.connections[at].to_receiver.pop();
        if self.host().attempt.as_ref().is_some_and(|a| a.connection == Some(at)) {
            let event = match packet {
                Some(Packet::Message(message)) => Event::Message(message),
                Some(Packet::Pages(pages)) => self.write(&pages),
                None => {
                    self.receiver_hangs_up();
                    Event::LinkLost("closed".into())
                }
            };
            return self.receiver_event(model, event);
        }
        match packet {
            Some(Packet::Message(Message::Hello(id))) => self.take_in(model, at, id),
            Some(Packet::Message(Message::Query(id, receiver))) => {
                if self.host().must_wait(model, &id, &receiver) {
                    // It shuts down the attempt's connection, and waits for its thread: what has
                    // arrived is still read.
                    self.shut_down();
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

    /// Shuts down the attempt's connection, as another thread may: what has arrived is still read.
    fn shut_down(&mut self) {
        if let Some(at) = self.attempt().connection {
            self.connections[at].to_receiver.close();
            self.connections[at].to_source.close();
        }
    }

    /// The same for a query, by a driver that tells the state machine instead of shutting down its
    /// connection.
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

    /// Answers a query that need not wait any more.
    pub fn answer(&mut self, model: &Moves, which: usize) {
        let host = self.host();
        let (at, id, receiver) = host.questions.remove(which);
        let outcome = model.mutation.outcome(&host.ledger, &id, &receiver);
        if outcome == Outcome::Ran && host.lacks(model, &id) {
            self.shut_down();
            if let Some(before) = self.attempt().back.replace(at) {
                self.connections[before].receiver_leaves();
            }
            return;
        }
        if outcome == Outcome::Never {
            self.note_never(&id);
        }
        self.send(model, at, Way::ToSource, Message::Outcome(id, outcome));
        self.connections[at].receiver_leaves();
    }

    fn note_never(&mut self, id: &MoveId) {
        if let Some(remembered) = self.tries.get_mut(try_of(id)) {
            remembered.said_never = true;
        }
    }

    /// The attempt's thread takes the connection on which the source is back.
    pub fn take_back(&mut self, model: &Moves) {
        let attempt = self.attempt();
        let back = attempt.back.take();
        if let Some(before) = std::mem::replace(&mut attempt.connection, back) {
            self.connections[before].receiver_leaves();
        }
        self.receiver_event(model, Event::Rejoined);
    }

    fn take_in(&mut self, model: &Moves, at: usize, id: MoveId) {
        let host = self.host();
        if host.taken || host.attempt.is_some() {
            self.send(model, at, Way::ToSource, Message::Refuse(Refusal::Busy));
            self.connections[at].receiver_leaves();
            return;
        }
        if !host.ledger.begin(id, None) {
            self.send(model, at, Way::ToSource, Message::Abort("again".into()));
            self.connections[at].receiver_leaves();
            return;
        }
        let timeout = Timeouts { silence: Duration::ZERO, lost: Some(Duration::ZERO) };
        let machine = Destination::new(receiver_id(host.number), timeout, Duration::ZERO);
        let connection = Some(at);
        host.attempt = Some(Attempt {
            machine,
            connection,
            back: None,
            id,
            memory: None,
            applied: false,
            said_preparing: false,
            settled: false,
            task: None,
        });
        self.receiver_event(model, Event::Message(Message::Hello(id)));
    }

    fn write(&mut self, pages: &[Option<u8>; PAGES]) -> Event {
        let attempt = self.attempt();
        let lacking = attempt.machine.lacking();
        if let (true, Some(memory)) = (attempt.machine.receives(), &mut attempt.memory) {
            for (n, content) in pages.iter().enumerate() {
                // While the VM runs, only missing pages are written.
                if !attempt.machine.runs() || lacking.contains(n) {
                    memory[n] = content.unwrap_or(memory[n]);
                }
            }
        }
        let came = (0..PAGES).filter(|n| !lacking.is_empty() && pages[*n].is_some());
        Event::Pages(came.map(|n| (n as u64, 1)).collect())
    }

    /// Whether the source must still keep its memory.
    pub fn lacking_at_receiver(&self) -> bool {
        let lacks = |a: &Attempt| a.machine.runs() && !a.machine.lacking().is_empty();
        self.receiver.as_ref().and_then(|r| r.attempt.as_ref()).is_some_and(lacks)
    }

    /// Whether the VM runs at the receiver with all of its memory.
    pub fn complete_at_receiver(&self) -> bool {
        self.receiver.as_ref().is_some_and(|r| r.vm && r.complete)
    }

    /// Memory of the VM that runs at the receiver; what is missing there is zero.
    pub fn memory_there(&self) -> Option<Memory> {
        match &self.receiver.as_ref().filter(|r| r.vm)?.attempt {
            Some(attempt) => attempt.memory,
            // The attempt has ended with nothing missing; its last step compared the memory.
            None => Some(self.tries.last()?.stopped?.map(Option::unwrap_or_default)),
        }
    }

    pub fn receiver_event(&mut self, model: &Moves, event: Event) {
        let attempt = self.attempt();
        let now = match &event {
            Event::Tick => attempt.machine.deadline().unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let id = attempt.id;
        let actions = model.mutation.destination(&mut attempt.machine, event, now);
        for action in actions {
            #[allow(unreachable_patterns)]
            match action {
                Action::Send(message) => {
                    if let Message::Outcome(id, Outcome::Never) = &message {
                        self.note_never(id);
                    }
                    if let Some(at) = self.attempt().connection {
                        self.send(model, at, Way::ToSource, message);
                    }
                }
                Action::Prepare(_) | Action::Apply(_) | Action::Forget(_) => {
                    self.attempt().task = Some(action);
                }
                Action::SwitchHint(_) | Action::Prewake => {}
                Action::Run => self.run(model, &id),
                Action::Complete => {
                    self.host().complete = true;
                    self.compare(model, &id);
                }
                Action::Deliver(_) => {}
                Action::Supply(_) => {
                    self.broken = Some("the guest waits for a page that is present")
                }
                Action::AwaitSource(_) => self.receiver_hangs_up(),
                Action::Lost(_) => {
                    self.host().vm = false;
                    self.tries[try_of(&id)].lost = true;
                }
                Action::Discard(_) => {
                    if self.host().taken && self.host().vm {
                        self.broken = Some("a VM that runs is discarded");
                    }
                    self.attempt().memory = None;
                }
                Action::End => {
                    self.receiver_hangs_up();
                    if let Some(back) = self.attempt().back.take() {
                        self.connections[back].receiver_leaves();
                    }
                    self.host().attempt = None;
                    return;
                }
                // Add a new action of the destination here if it cannot fail, and as a task above
                // if it can.
                _ => self.broken = Some("the model does not know an action of the destination"),
            }
        }
    }

    fn receiver_hangs_up(&mut self) {
        if let Some(at) = self.attempt().connection.take() {
            self.connections[at].receiver_leaves();
        }
    }

    fn run(&mut self, model: &Moves, id: &MoveId) {
        let number = try_of(id);
        let host = self.host();
        host.ledger.ran(*id);
        (host.taken, host.vm) = (true, true);
        self.tries[number].ran = true;
        let nothing_follows = self.attempt().machine.lacking().is_empty();
        self.host().complete = nothing_follows;
        if !self.attempt().applied {
            self.broken = Some("it runs without its state");
        }
        self.compare(model, id);
        self.receiver_event(model, Event::Runs(Started::default()));
    }

    /// Compares: pages that are not missing are what the guest had.
    fn compare(&mut self, model: &Moves, id: &MoveId) {
        let attempt = self.attempt();
        let (memory, lacking) = (attempt.memory, attempt.machine.lacking().clone());
        let right = memory.is_some_and(|memory| self.whole(try_of(id), &memory, &lacking));
        if !right && model.bounds.harsh == Harsh::NONE {
            self.broken = Some("the memory there is not the guest's");
        }
    }

    /// The guest there reaches full speed.
    pub fn receiver_settles(&mut self, model: &Moves) {
        self.attempt().settled = true;
        self.receiver_event(model, Event::Settled(Settled::UNKNOWN));
    }

    /// The driver reports that it is preparing.
    pub fn receiver_prepares(&mut self, model: &Moves) {
        self.attempt().said_preparing = true;
        if let Some(at) = self.attempt().connection {
            self.send(model, at, Way::ToSource, Message::Preparing);
        }
    }

    /// The driver carries out the open action.
    pub fn receiver_does(&mut self, model: &Moves, well: bool) {
        let attempt = self.attempt();
        attempt.said_preparing = false;
        let event = match attempt.task.take().expect("an open task") {
            Action::Prepare(_) if well => {
                attempt.memory = Some([0; PAGES]);
                Event::Prepared(Ok(Accepted { follow: true, apply_ns: 0 }))
            }
            Action::Forget(runs) if well => {
                forget(&mut attempt.memory, &runs);
                Event::Forgot(Ok(()))
            }
            Action::Forget(_) => Event::Forgot(Err("no".into())),
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

fn forget(memory: &mut Option<Memory>, runs: &[Run]) {
    let Some(memory) = memory else { return };
    for &(first, count) in runs {
        (first..first + count).for_each(|n| memory[n as usize] = 0);
    }
}

//! What the members' drivers do: they hand events to the state machines and carry out the actions.
//! A new event or action of a machine goes here; a forgotten one breaks a property.

use migrate::replication::{
    Standby,
    arbiter::{Answer, Request},
    primary::{self, Event},
    standby,
    wire::{Message, RecordsHead},
};

use super::{
    link::{Pipe, Read},
    mutation::Mutation,
    world::{Entry, Flaw, Member, NOW, Role, SET, Sets, World, id, member},
};

impl World {
    /// The next standby is seeded by member `n`, with the VM as it was at the log's beginning.
    pub fn seed(&mut self, model: &Sets, n: usize) {
        self.joined += 1;
        let new = self.joined;
        let machine = Standby::begin((id(new), id(n)), SET, model.bounds.settings(), 0, NOW);
        self.members[new] = Some(Member::new(Role::Standby(machine.into())));
        self.pipes.extend([((n, new), Pipe::default()), ((new, n), Pipe::default())]);
        self.primary_event(model, n, Event::Seeded { member: id(new), base: 0 });
    }

    /// An event for whatever the member is.
    pub fn event(&mut self, model: &Sets, n: usize, event: Event, other: Option<standby::Event>) {
        match self.get(n).map(|member| &member.role) {
            Some(Role::Primary(_)) => self.primary_event(model, n, event),
            Some(Role::Standby(_)) => {
                other.into_iter().for_each(|event| self.standby_event(model, n, event));
            }
            _ => {}
        }
    }

    pub fn reads(&mut self, model: &Sets, from: usize, to: usize) {
        let read = self.pipes.get_mut(&(from, to)).and_then(Pipe::read);
        match read {
            Some(Read::Message(message)) => {
                self.hears_too_late(model, to, from, &message);
                let event = Event::Message { from: id(from), message: message.clone() };
                self.event(model, to, event, Some(standby::Event::Message(message)));
            }
            Some(Read::End) => {
                self.close(to, from);
                let why = String::new();
                let event = Event::Disconnected { member: id(from), why: why.clone() };
                self.event(model, to, event, Some(standby::Event::Disconnected(why)));
            }
            None => {}
        }
    }

    pub fn executes(&mut self, model: &Sets, n: usize) {
        let Some(member) = &mut self.members[n] else { return };
        member.executed += 1;
        let executed = member.executed as u64;
        self.standby_event(model, n, standby::Event::Executed(executed));
    }

    /// An answer of the arbiter arrives.
    pub fn answered(&mut self, model: &Sets, n: usize, answer: Answer) {
        let answer = model.mutation.answer(answer);
        let other = standby::Event::Arbiter(answer.clone());
        self.event(model, n, Event::Arbiter(answer), Some(other));
    }

    /// No answer arrives.
    pub fn silent(&mut self, model: &Sets, n: usize, request: Request, answer: Answer) {
        let answer = model.mutation.silence(self, request, answer);
        let other = standby::Event::Arbiter(answer.clone());
        self.event(model, n, Event::Arbiter(answer), Some(other));
    }

    pub fn primary_event(&mut self, model: &Sets, n: usize, event: Event) {
        let Some(Member { role: Role::Primary(machine), .. }) = &mut self.members[n] else {
            return;
        };
        let actions = machine.handle(event, NOW);
        self.primary_does(model, n, actions);
        self.acks_made_up(model, n);
    }

    pub fn primary_does(&mut self, model: &Sets, n: usize, actions: Vec<primary::Action>) {
        self.acts_in_term(n);
        for action in actions {
            use primary::Action;
            match action {
                Action::Ask(request) => self.asks(model, n, request),
                Action::Send { to, message } => self.send(n, member(to), message),
                Action::SendRecords { to, first, last, released } => {
                    let Some(it) = &self.members[n] else { return };
                    let log = it.log.get(first as usize - 1..last as usize).unwrap_or_default();
                    let records: Vec<u8> = log.iter().flat_map(|e| [e.by, e.term]).collect();
                    if records.is_empty() {
                        return self.flawed(Flaw::Driver("records that there are none of"));
                    }
                    let head = RecordsHead { first, last, released, stamp_ns: 0 };
                    self.send(n, member(to), Message::Records(head, records));
                }
                Action::Close(to) => self.close(n, member(to)),
                Action::Release(up_to) => self.release(n, up_to),
                Action::SlowDown(_) | Action::Report(_) => {}
                Action::Stop => self.with(n, |it| it.stopping = true),
                Action::Resume => self.with(n, |it| it.stopping = false),
                Action::HandedOver => self.hands_over(n),
                Action::Fence { .. } => self.is_fenced(model, n),
            }
        }
        self.acts_in_term(n);
    }

    fn with(&mut self, n: usize, change: impl FnMut(&mut Member)) {
        self.members[n].as_mut().into_iter().for_each(change);
    }

    fn asks(&mut self, model: &Sets, n: usize, request: Request) {
        if let Some(answer) = model.mutation.unasked(self.get(n), &request) {
            return self.answered(model, n, answer);
        }
        let Some(it) = &mut self.members[n] else { return };
        if it.request.is_some() || it.answer.is_some() {
            return self.flawed(Flaw::Driver("two requests at a time"));
        }
        it.request = Some(request);
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        self.pipes.get_mut(&(from, to)).into_iter().for_each(|pipe| pipe.push(message.clone()));
    }

    fn hands_over(&mut self, n: usize) {
        let Some(it) = &mut self.members[n] else { return };
        let role = std::mem::replace(&mut it.role, Role::Ended);
        let Role::Primary(machine) = role else { return };
        match machine.into_standby(NOW) {
            Some(machine) => it.role = Role::Standby(machine.into()),
            None => self.flawed(Flaw::Driver("handed over, and no standby")),
        }
    }

    fn is_fenced(&mut self, model: &Sets, n: usize) {
        let rogue = model.mutation == Mutation::IgnoresTheFence;
        self.with(n, |it| it.role = if rogue { Role::Rogue } else { Role::Ended });
        if rogue {
            let all = self.get(n).map_or(0, |it| it.log.len());
            return self.release(n, all as u64);
        }
        self.with(n, |it| (it.request, it.answer, it.stopping) = (None, None, false));
        self.peers(n).into_iter().for_each(|peer| self.close(n, peer));
    }

    pub fn standby_event(&mut self, model: &Sets, n: usize, event: standby::Event) {
        let event = model.mutation.standby(self.get(n), event);
        let Some(Member { role: Role::Standby(machine), .. }) = &mut self.members[n] else {
            return;
        };
        let actions = machine.handle(event, NOW);
        self.standby_does(model, n, actions);
    }

    fn standby_does(&mut self, model: &Sets, n: usize, actions: Vec<standby::Action>) {
        // The member at the other end: a standby has one connection.
        let peers = self.peers(n);
        for action in actions {
            use standby::Action;
            match action {
                Action::Execute { first, last, records } => {
                    let Some(it) = &mut self.members[n] else { return };
                    let (entries, _) = records.as_chunks::<2>();
                    let entries = entries.iter().map(|&[by, term]| Entry { by, term });
                    let right = it.log.len() as u64 + 1 == first;
                    it.log.extend(entries);
                    if !right || it.log.len() as u64 != last {
                        return self.flawed(Flaw::Driver("records out of order"));
                    }
                    if model.mutation == Mutation::AcksUnexecuted {
                        self.standby_event(model, n, standby::Event::Executed(last));
                    }
                }
                Action::Released(up_to) => self.with(n, |it| it.gone_out = up_to as usize),
                Action::Send(message) => {
                    peers.iter().for_each(|&to| self.send(n, to, message.clone()));
                }
                Action::Close if model.mutation == Mutation::AcksAfterSuspicion => {}
                Action::Close => peers.iter().for_each(|&to| self.close(n, to)),
                Action::Ask(request) => self.asks(model, n, request),
                Action::TakeOver { position, released } => {
                    return self.takes_over(model, n, position, released);
                }
                Action::End(_) => {
                    self.with(n, |it| {
                        it.role = Role::Ended;
                        (it.request, it.answer) = (None, None);
                    });
                }
                Action::PrimaryLost(_)
                | Action::ArbiterUnreachable(_)
                | Action::AloneWithoutArbiter => {}
            }
        }
    }

    fn takes_over(&mut self, model: &Sets, n: usize, position: u64, released: u64) {
        let Some(it) = &mut self.members[n] else { return };
        let Role::Standby(machine) = std::mem::replace(&mut it.role, Role::Ended) else { return };
        let Some((machine, actions)) = machine.into_primary(NOW) else {
            return self.flawed(Flaw::Driver("took over, and no primary"));
        };
        it.role = Role::Primary(machine.into());
        let all = it.executed == it.log.len() && it.log.len() as u64 == position;
        let held = it.gone_out as u64 == released;
        let wrong = it.wrong;
        if model.mutation == Mutation::DropsHeldOutput {
            it.gone_out = it.log.len();
        }
        if !all || !held {
            self.flawed(Flaw::Unfinished);
        }
        if wrong {
            self.flawed(Flaw::Wrong);
        }
        self.primary_does(model, n, actions);
    }
}

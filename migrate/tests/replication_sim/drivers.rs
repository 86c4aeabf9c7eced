//! What the members' drivers do with the actions of the state machines.

use migrate::replication::{
    Standby,
    arbiter::{Answer, Request},
    primary::{self, Event, News},
    standby,
    wire::{Decoder, Message, RecordsHead},
};

use super::{
    host::{Entry, Host, Role, SET, id, member},
    sim::{Sim, What, us},
};

/// Size of a record, in bytes.
const RECORD: usize = 5;

impl Sim {
    pub fn event(&mut self, n: usize, event: Event, other: Option<standby::Event>) {
        match self.host(n).map(|host| &host.role) {
            Some(Role::Primary(_)) => self.primary_event(n, event),
            Some(Role::Standby(_)) => {
                other.into_iter().for_each(|event| self.standby_event(n, event));
            }
            _ => {}
        }
    }

    pub fn arrives(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let mut decoder = Decoder::new();
        decoder.feed(bytes);
        let message = decoder.next_message().expect("a valid message").expect("a whole message");
        let event = Event::Message { from: id(from), message: message.clone() };
        self.event(to, event, Some(standby::Event::Message(message)));
    }

    fn primary_event(&mut self, n: usize, event: Event) {
        let now = self.now;
        let Some(Host { role: Role::Primary(machine), .. }) = &mut self.hosts[n] else { return };
        let actions = machine.handle(event, now);
        self.primary_does(n, actions);
    }

    pub fn primary_does(&mut self, n: usize, actions: Vec<primary::Action>) {
        self.acts_in_term(n);
        for action in actions {
            use primary::Action;
            match action {
                Action::Ask(request) => self.asks(n, request),
                Action::Send { to, message } => self.sends(n, member(to), &message),
                Action::SendRecords { to, first, last, released } => {
                    let Some(host) = self.host(n) else { return };
                    let log = &host.log[first as usize - 1..last as usize];
                    let bytes = |e: &Entry| [&[e.by][..], &e.number.to_le_bytes()].concat();
                    let records = log.iter().flat_map(bytes).collect();
                    let stamp_ns = self.now.as_nanos() as u64;
                    let head = RecordsHead { first, last, released, stamp_ns };
                    self.sends(n, member(to), &Message::Records(head, records));
                }
                Action::Close(to) => self.closes(n, member(to)),
                Action::Release(up_to) => self.release(n, up_to as usize),
                Action::SlowDown(slow) => self.with(n, |host| host.slow_guest = slow),
                Action::Report(news) => match news {
                    News::InSync(_) => self.count.joined += 1,
                    News::Left(_) => self.count.dropped += 1,
                    _ => {}
                },
                Action::Stop => self.after(5..80, What::Stopped(n)),
                Action::Resume => self.with(n, |host| host.stopped = false),
                Action::HandedOver => {
                    let (now, Some(host)) = (self.now, &mut self.hosts[n]) else { return };
                    let role = std::mem::replace(&mut host.role, Role::Ended);
                    let Role::Primary(machine) = role else { return };
                    let machine = machine.into_standby(now).expect("handed over");
                    host.role = Role::Standby(machine.into());
                    self.count.swaps += 1;
                }
                Action::Fence { .. } => {
                    self.count.fenced += 1;
                    self.ends(n);
                }
            }
        }
        self.acts_in_term(n);
        self.plan(n);
    }

    fn with(&mut self, n: usize, change: impl FnMut(&mut Host)) {
        self.hosts[n].as_mut().into_iter().for_each(change);
    }

    fn ends(&mut self, n: usize) {
        self.with(n, |host| host.role = Role::Ended);
        self.net.peers(n).into_iter().for_each(|peer| self.closes(n, peer));
    }

    fn asks(&mut self, member: usize, request: Request) {
        self.numbers += 1;
        let number = u64::from(self.numbers);
        self.with(member, |host| {
            assert!(host.request.replace(number).is_none(), "two requests at a time");
        });
        if self.now < self.arbiter.silent {
            // The request is lost, or carried out, at once or late; none of them is told.
            if self.rng.u8(..3) > 0 {
                let request = request.clone();
                self.after(100..9000, What::Acts { member, number, request, heard: false });
            }
            let answer = Answer::Unreachable("no answer".into());
            let at = self.now + us(3000);
            self.at(at, What::Answers { member, number, answer });
        } else {
            self.after(50..900, What::Acts { member, number, request, heard: true });
        }
    }

    fn sends(&mut self, from: usize, to: usize, message: &Message) {
        if let Some((at, epoch)) = self.net.send((from, to), self.now, &mut self.rng) {
            self.at(at, What::Arrives { from, to, epoch, bytes: message.encode() });
        }
    }

    pub fn closes(&mut self, from: usize, to: usize) {
        let end = self.net.send((from, to), self.now, &mut self.rng);
        if let (true, Some((at, epoch))) = (self.net.close(from, to), end) {
            self.at(at, What::Ends { from, to, epoch });
        }
    }

    /// A new standby is there, with the active member's VM as it was a moment ago.
    pub fn seeded(&mut self, by: usize, base: usize) {
        let Some(log) = self.host(by).map(|host| host.log[..base].to_vec()) else { return };
        if self.host(by).and_then(Host::active).is_none() {
            return;
        }
        let (new, base) = (self.hosts.len(), base as u64);
        let machine = Standby::begin((id(new), id(by)), SET, self.settings, base, self.now);
        let speed = self.rng.u64(5..40);
        self.hosts.push(Some(Host::new(Role::Standby(machine.into()), log, speed)));
        self.net.connect(by, new);
        self.primary_event(by, Event::Seeded { member: id(new), base });
        self.plan(new);
    }

    /// The guest of an active member goes on by a record.
    pub fn runs(&mut self, n: usize) {
        let Some(host) = &mut self.hosts[n] else { return };
        let Role::Primary(machine) = &host.role else { return };
        if !machine.active() {
            return;
        }
        let next = if host.slow_guest { 2000..4000 } else { 40..400 };
        if !host.stopped {
            self.numbers += 1;
            host.log.push(Entry { by: n as u8, number: self.numbers });
            host.executed = host.log.len();
            let last = host.log.len() as u64;
            self.primary_event(n, Event::Appended { last, bytes: RECORD as u64 });
        }
        self.after(next, What::Runs(n));
    }

    /// Output of member `n` leaves its host.
    fn release(&mut self, n: usize, up_to: usize) {
        let Some(host) = &mut self.hosts[n] else { return };
        assert!(host.gone_out <= self.seen.len(), "output is left out");
        let out = host.log[..up_to].to_vec();
        if self.the_active() != Some(n) {
            self.count.repeated += 1;
        }
        let Some(host) = &mut self.hosts[n] else { return };
        let from = std::mem::replace(&mut host.gone_out, up_to);
        for (at, entry) in out.iter().enumerate().skip(from) {
            match self.seen.get(at) {
                Some(seen) => assert_eq!(seen, entry, "two histories\n{}", self.state()),
                None => self.seen.push(*entry),
            }
        }
        self.check();
    }

    pub fn standby_event(&mut self, n: usize, event: standby::Event) {
        let now = self.now;
        let Some(Host { role: Role::Standby(machine), .. }) = &mut self.hosts[n] else { return };
        let actions = machine.handle(event, now);
        self.standby_does(n, actions);
        self.executes(n);
        self.plan(n);
    }

    fn standby_does(&mut self, n: usize, actions: Vec<standby::Action>) {
        for action in actions {
            use standby::Action;
            match action {
                Action::Execute { first, last, records } => {
                    let entries = records.chunks_exact(RECORD).map(|bytes| {
                        let number = bytes[1..].try_into().expect("four bytes");
                        Entry { by: bytes[0], number: u32::from_le_bytes(number) }
                    });
                    let Some(host) = &mut self.hosts[n] else { return };
                    assert_eq!(host.log.len() as u64 + 1, first);
                    host.log.extend(entries);
                    assert_eq!(host.log.len() as u64, last);
                }
                Action::Released(up_to) => self.with(n, |host| host.gone_out = up_to as usize),
                Action::Send(message) => {
                    let peers = self.net.peers(n);
                    peers.into_iter().for_each(|to| self.sends(n, to, &message));
                }
                Action::Close => self.net.peers(n).into_iter().for_each(|to| self.closes(n, to)),
                Action::Ask(request) => self.asks(n, request),
                Action::TakeOver { .. } => self.takes_over(n),
                Action::End(_) => self.ends(n),
                Action::PrimaryLost(_)
                | Action::ArbiterUnreachable(_)
                | Action::AloneWithoutArbiter => {}
            }
        }
    }

    fn executes(&mut self, n: usize) {
        let Some(host) = &mut self.hosts[n] else { return };
        let standby = matches!(host.role, Role::Standby(_)) && !host.wrong;
        if standby && !host.executing && host.executed < host.log.len() {
            host.executing = true;
            let took = host.speed;
            self.after(took / 2..took * 2, What::Executed(n));
        }
    }

    pub fn executed(&mut self, n: usize) {
        let Some(host) = self.hosts[n].as_mut().filter(|host| host.executing) else { return };
        host.executing = false;
        host.executed += 1;
        let executed = host.executed as u64;
        self.standby_event(n, standby::Event::Executed(executed));
    }

    fn takes_over(&mut self, n: usize) {
        let (now, Some(host)) = (self.now, &mut self.hosts[n]) else { return };
        let Role::Standby(machine) = std::mem::replace(&mut host.role, Role::Ended) else { return };
        let (machine, actions) = machine.into_primary(now).expect("it took over");
        let alone = machine.record().is_some_and(|record| record.in_sync.is_empty());
        host.role = Role::Primary(machine.into());
        (host.stopped, host.slow_guest) = (false, false);
        assert!(host.executed == host.log.len() && !host.wrong, "not all is executed");
        // After a swap the member before is in sync.
        self.count.takeovers += u64::from(alone);
        self.primary_does(n, actions);
        self.after(1..50, What::Runs(n));
    }
}

//! Carries out what the state machines say, under the lock.

use super::set::{Core, Part, Peer, Todo};
use migrate::replication::{
    arbiter::{Answer, MemberId},
    primary::{self, Lost, News},
    standby,
    wire::{Message, RecordsHead, records_head},
};
use std::{collections::VecDeque, sync::Arc};

impl Core {
    /// The primary's machine gets an event.
    pub fn primary(&mut self, event: primary::Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.now();
            let Part::Primary(machine) = &mut self.part else { return };
            let actions = machine.handle(event, now);
            self.act_as_primary(actions, &mut events);
        }
    }

    pub fn act_as_primary(
        &mut self,
        actions: Vec<primary::Action>,
        events: &mut VecDeque<primary::Event>,
    ) {
        for action in actions {
            match action {
                primary::Action::Ask(request) => self.do_later(Todo::Ask(request)),
                primary::Action::Send { to, message } => {
                    self.send(to, &message.encode(), events);
                }
                primary::Action::SendRecords { to, first, last, released } => {
                    self.send_records(to, (first, last), released, events);
                }
                primary::Action::Close(member) => self.close(member),
                primary::Action::Release(position) => {
                    fail_point!("protection.releasing");
                    self.gate.open_up_to(position);
                }
                primary::Action::SlowDown(slow) => {
                    self.slow = slow;
                    if slow {
                        self.tally.say_slow();
                    }
                    self.wake();
                }
                primary::Action::Stop => self.do_later(Todo::Stop),
                primary::Action::Resume => self.do_later(Todo::Resume),
                primary::Action::HandedOver => self.do_later(Todo::HandedOver),
                primary::Action::Fence { term } => {
                    self.gate.close_for_good();
                    self.do_later(Todo::Fence(format!(
                        "another member of its replica set goes on with the VM (term {term}): it \
                         ends here, and has answered nothing since"
                    )));
                }
                primary::Action::Report(news) => self.report(news),
            }
        }
    }

    fn send(&mut self, to: MemberId, bytes: &[u8], events: &mut VecDeque<primary::Event>) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        if let Err(e) = peer.channel.queue_bytes(bytes).and_then(|()| peer.channel.flush()) {
            let why = crate::host::with_causes(&e);
            events.push_back(primary::Event::Disconnected { member: to, why });
        } else if peer.channel.is_full() {
            self.wake();
        }
    }

    fn send_records(
        &mut self,
        to: MemberId,
        (mut first, last): (u64, u64),
        released: u64,
        events: &mut VecDeque<primary::Event>,
    ) {
        let stamp_ns = self.now().as_nanos() as u64;
        let Some(Peer { channel, .. }) = self.peers.get_mut(&to) else { return };
        let Some(pieces) = self.recent.pieces(first, last) else {
            let why = "records that it needs are gone: seed it again".into();
            return events.push_back(primary::Event::Disconnected { member: to, why });
        };
        let send = || {
            for (last, records) in pieces {
                let head = RecordsHead { first, last, released, stamp_ns };
                channel.queue_bytes(&records_head(head, records))?;
                channel.queue_bytes(records)?;
                first = last + 1;
            }
            channel.flush()
        };
        match send() {
            Err(e) => {
                let why = crate::host::with_causes(&e);
                events.push_back(primary::Event::Disconnected { member: to, why });
            }
            Ok(()) if channel.is_full() => self.wake(),
            Ok(()) => fail_point!("protection.sent"),
        }
    }

    /// The state machine is told of the records that are new, and sends them.
    pub fn send_recent(&mut self) {
        if self.recent.is_new() {
            let (last, bytes) = self.recent.tell();
            self.tally.log_bytes += bytes;
            self.primary(primary::Event::Appended { last, bytes });
        }
        self.recent.forget();
    }

    fn report(&mut self, news: News) {
        let tally = &mut self.tally;
        match news {
            News::InSync(member) => {
                tally.standbys.insert(member, Ok(()));
                (tally.was_protected, tally.not_protected) = (true, None);
                tally.say(format!("protected by standby {member}"));
            }
            News::NotAccepted { member, why } => {
                tally.standbys.insert(member, Err(why.into()));
                tally.say(format!("standby {member} is not accepted: {why}"));
            }
            News::Leaving { member, why } => {
                if let Lost::Diverged { .. } = why {
                    tally.divergences += 1;
                }
                tally.standbys.insert(member, Err(why.to_string()));
                tally.say(format!("standby {member} leaves: {why}"));
            }
            News::Left(member) => {
                tally.say(format!("standby {member} has left"));
            }
            News::ArbiterUnreachable(why) => {
                tally.say(format!("the arbiter does not answer: {why}"));
                tally.arbiter_unreachable = Some(why);
            }
            News::AloneWithoutArbiter => {
                tally.say("goes on alone without the arbiter, as it was told to".into());
            }
            News::SwapFailed(why) => {
                tally.say(format!("the swap failed: {why}"));
                tally.swap_failed = Some(why);
            }
            News::Unprotected => {
                tally.say("not protected any more".into());
                self.do_later(Todo::Unprotected);
            }
        }
    }

    /// The standby's machine gets an event.
    pub fn standby(&mut self, event: standby::Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.now();
            let Part::Standby(machine, _) = &mut self.part else { return };
            let actions = machine.handle(event, now);
            self.act_as_standby(actions, &mut events);
        }
    }

    pub fn act_as_standby(
        &mut self,
        actions: Vec<standby::Action>,
        events: &mut VecDeque<standby::Event>,
    ) {
        let Part::Standby(_, feed) = &self.part else { return };
        let feed = Arc::clone(feed);
        for action in actions {
            match action {
                standby::Action::Execute { first, last, records } => {
                    fail_point!("protection.received");
                    self.tally.log_bytes += records.len() as u64;
                    if let Err(e) = feed.add(&records, last - first + 1) {
                        let (position, what) = (first, e.to_string());
                        events.push_back(standby::Event::Diverged { position, what });
                    }
                }
                // What depends on this very record may still be on its way there.
                standby::Action::Released(position) => {
                    self.gate.forget_up_to(position.saturating_sub(1));
                }
                standby::Action::Send(message) => self.answer(&message, events),
                standby::Action::Close => {
                    let members: Vec<_> = self.peers.keys().copied().collect();
                    members.into_iter().for_each(|member| self.close(member));
                }
                standby::Action::Ask(request) => self.do_later(Todo::Ask(request)),
                standby::Action::TakeOver { position, .. } => {
                    self.do_later(Todo::TakeOver { position });
                }
                standby::Action::End(ended) => self.do_later(Todo::End(ended)),
                standby::Action::PrimaryLost(why) => {
                    self.tally.say(why.to_string());
                    // What the network brings here from now on may be for this member.
                    self.late = None;
                    feed.wait_for_it();
                }
                standby::Action::ArbiterUnreachable(why) => {
                    self.tally.say(format!("the arbiter does not answer: {why}"));
                    self.tally.arbiter_unreachable = Some(why);
                }
                standby::Action::AloneWithoutArbiter => {
                    self.tally.say("goes on without the arbiter, as it was told to".into());
                }
            }
        }
    }

    fn answer(&mut self, message: &Message, events: &mut VecDeque<standby::Event>) {
        let Some(peer) = self.peers.values_mut().next() else { return };
        if let Err(e) = peer.channel.queue(message).and_then(|()| peer.channel.flush()) {
            events.push_back(standby::Event::Disconnected(crate::host::with_causes(&e)));
        }
    }

    /// The arbiter's answer, if there is one.
    pub fn hear_arbiter(&mut self) {
        while let Some(answer) = self.beside.arbiter.answer() {
            if !matches!(answer, Answer::Unreachable(_)) {
                self.tally.arbiter_unreachable = None;
            }
            match self.part {
                Part::Primary(_) => self.primary(primary::Event::Arbiter(answer)),
                Part::Standby(..) => self.standby(standby::Event::Arbiter(answer)),
                Part::Over { .. } => {}
            }
        }
    }
}

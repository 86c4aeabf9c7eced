//! The destination's side of a move.
//!
//! ```text
//! Greeting ─Hello▶ Waiting ─Offer, prepared▶ Receiving ─State▶ Applying ─applied▶ Ready ─Commit▶ Running ─LateEnd▶ Ended
//!    any before the commit: link lost, abort, deadline, nonsense, question about this move ─▶ Ended, and it never runs
//! ```
//! A destination that ended before the commit answers questions about that move with *never*, for good; [`Ledger`] keeps the answers.

use std::{collections::VecDeque, time::Duration};

use crate::{
    MoveId, Peer, ReceiverId,
    offer::{Offer, Refusal},
    wire::{Message, Outcome, Started},
};

/// What happens to the destination.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A message from the source. Pages come as [`Event::Pages`], after they were written.
    Message(Message),
    /// Pages came and were written to the prepared VM's memory.
    Pages,
    /// What came of [`Action::Prepare`].
    Prepared(Result<(), Refusal>),
    /// What came of [`Action::Apply`].
    Applied(Result<(), String>),
    /// The vCPU is right before the guest's first instruction, after [`Action::Run`].
    Runs(Started),
    /// The connection is gone.
    LinkLost(String),
    /// Another connection asks what became of this move.
    Asked,
    /// Time has passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Send a message.
    Send(Message),
    /// Judge the offer and prepare a VM for it.
    Prepare(Box<Offer>),
    /// Apply the state to the prepared VM.
    Apply(Vec<u8>),
    /// Write it down that the VM runs here, run it, and announce it.
    Run,
    /// Hand a late packet to the guest.
    Deliver(Vec<u8>),
    /// Throw the prepared VM away; it never runs.
    Discard(String),
    /// Nothing more will come on this connection.
    End,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum State {
    Greeting,
    Waiting,
    Preparing,
    Receiving,
    Applying,
    Ready,
    Running,
    Ended,
}

/// The destination's machine, for one connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Destination {
    state: State,
    me: ReceiverId,
    id: Option<MoveId>,
    deadline: Option<Duration>,
    patience: Duration,
}

impl Destination {
    /// For a connection that was accepted at `now`; `patience` is how long the source may be silent before the commit.
    #[must_use]
    pub fn new(me: ReceiverId, patience: Duration, now: Duration) -> Self {
        Self { state: State::Greeting, me, id: None, deadline: Some(now + patience), patience }
    }

    /// The move, once it said its number.
    #[must_use]
    pub fn id(&self) -> Option<MoveId> {
        self.id
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Whether pages may come now.
    #[must_use]
    pub fn receives(&self) -> bool {
        self.state == State::Receiving
    }

    /// Whether the commit has come: this move's VM is here.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.state == State::Running
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        if matches!(event, Event::Message(_) | Event::Pages) && self.deadline.is_some() {
            self.deadline = Some(now + self.patience);
        }
        match (self.state, event) {
            (State::Ended, _) => Vec::new(),
            (State::Running, event) => self.running(event),
            (_, Event::LinkLost(why)) => self.give_up(why, false),
            (_, Event::Asked) => {
                self.give_up("the source asked for the outcome before it committed".into(), false)
            }
            (_, Event::Tick) => match self.deadline {
                Some(at) if now >= at => self.give_up("the source fell silent".into(), true),
                _ => Vec::new(),
            },
            (_, Event::Message(Message::Abort(why))) => self.give_up(why, false),
            (State::Greeting, Event::Message(Message::Hello(id))) => {
                self.id = Some(id);
                self.state = State::Waiting;
                vec![Action::Send(Message::Welcome(id, self.me))]
            }
            (State::Waiting, Event::Message(Message::Offer(offer)))
                if offer.receiver != self.me =>
            {
                self.give_up(
                    "the offer was made to another receiver, as one that was recorded".into(),
                    true,
                )
            }
            (State::Waiting, Event::Message(Message::Offer(offer))) => {
                self.state = State::Preparing;
                // Making a VM takes this side's time, not the source's.
                self.deadline = None;
                vec![Action::Prepare(offer)]
            }
            (State::Preparing, Event::Prepared(Ok(()))) => {
                self.state = State::Receiving;
                self.deadline = Some(now + self.patience);
                vec![Action::Send(Message::Accept)]
            }
            (State::Preparing, Event::Prepared(Err(why))) => {
                self.state = State::Ended;
                let reason = why.to_string();
                vec![Action::Send(Message::Refuse(why)), Action::Discard(reason), Action::End]
            }
            (State::Receiving, Event::Pages | Event::Message(Message::Zero(_))) => Vec::new(),
            (State::Receiving, Event::Message(Message::RoundEnd(n))) => {
                vec![Action::Send(Message::RoundDone(n))]
            }
            (State::Receiving, Event::Message(Message::State(state))) => {
                self.state = State::Applying;
                self.deadline = None;
                vec![Action::Apply(state)]
            }
            (State::Applying, Event::Applied(Ok(()))) => {
                self.state = State::Ready;
                self.deadline = Some(now + self.patience);
                vec![Action::Send(Message::Ready)]
            }
            (State::Applying, Event::Applied(Err(why))) => self.give_up(why, true),
            (State::Ready, Event::Message(Message::Commit)) => {
                self.state = State::Running;
                self.deadline = None;
                vec![Action::Run]
            }
            (_, Event::Message(got)) => {
                self.give_up(format!("{:?} came at the wrong time", got.kind()), true)
            }
            (_, Event::Pages) => self.give_up("pages came at the wrong time".into(), true),
            // An answer to an action that a failure has overtaken.
            (_, Event::Prepared(_) | Event::Applied(_) | Event::Runs(_)) => Vec::new(),
        }
    }

    fn running(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Runs(started) => vec![Action::Send(Message::Running(started))],
            Event::Message(Message::Late(frame)) => vec![Action::Deliver(frame)],
            Event::Message(Message::LateEnd) | Event::LinkLost(_) => {
                self.state = State::Ended;
                vec![Action::End]
            }
            // The VM is here; nothing that a peer says changes that.
            _ => Vec::new(),
        }
    }

    fn give_up(&mut self, why: String, tell: bool) -> Vec<Action> {
        self.state = State::Ended;
        let mut actions = Vec::new();
        if tell {
            actions.push(Action::Send(Message::Abort(why.clone())));
        }
        actions.extend([Action::Discard(why), Action::End]);
        actions
    }
}

/// What became of moves, for sources that lost the link at the commit.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Ledger {
    me: ReceiverId,
    /// Moves that were begun, and by whom.
    begun: VecDeque<(MoveId, Peer)>,
    ran: VecDeque<MoveId>,
}

/// Moves remembered. A process runs one VM, so it takes one commit; room is left for tests and for what is to come.
const REMEMBERED: usize = 16;
/// Moves remembered that were begun, most of which come to nothing.
const REMEMBERED_BEGUN: usize = 1024;

impl Ledger {
    /// Nothing yet.
    #[must_use]
    pub fn new(me: ReceiverId) -> Self {
        Self { me, begun: VecDeque::new(), ran: VecDeque::new() }
    }

    /// Writes down that `peer` begins a move. `false`: that move was begun before, so this is somebody who repeats what was said then.
    #[must_use]
    pub fn begin(&mut self, id: MoveId, peer: Peer) -> bool {
        if self.ran.contains(&id) || self.begun.iter().any(|(begun, _)| *begun == id) {
            return false;
        }
        if self.begun.len() == REMEMBERED_BEGUN {
            self.begun.pop_front();
        }
        self.begun.push_back((id, peer));
        true
    }

    /// Whether `peer` may ask about a move, and end it by asking: not if another began it.
    #[must_use]
    pub fn may_ask(&self, id: &MoveId, peer: &Peer) -> bool {
        self.begun.iter().find(|(begun, _)| begun == id).is_none_or(|(_, by)| by == peer)
    }

    /// Writes down that a move's commit was taken. Before the VM runs.
    pub fn ran(&mut self, id: MoveId) {
        if self.ran.len() == REMEMBERED {
            self.ran.pop_front();
        }
        self.ran.push_back(id);
    }

    /// What became of a move that `receiver` took part in. One that is still under way must be ended with [`Event::Asked`]
    /// first; whatever is not written down as run never ran in this process and never will, because its connection is gone. What another
    /// process did, this one cannot know.
    #[must_use]
    pub fn outcome(&self, id: &MoveId, receiver: &ReceiverId) -> Outcome {
        if *receiver != self.me {
            Outcome::Unknown
        } else if self.ran.contains(id) {
            Outcome::Ran
        } else {
            Outcome::Never
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ReceiverId = [7; 16];
    const ANNE: Peer = Some([1; 32]);
    const BOB: Peer = Some([2; 32]);

    #[test]
    fn a_move_begins_once() {
        let mut ledger = Ledger::new(ME);
        assert!(ledger.begin([1; 16], None));
        assert!(!ledger.begin([1; 16], None), "a recorded hello");
        assert!(!ledger.begin([1; 16], ANNE));
        ledger.ran([2; 16]);
        assert!(!ledger.begin([2; 16], None));
    }

    #[test]
    fn a_move_is_the_business_of_whoever_began_it() {
        let mut ledger = Ledger::new(ME);
        assert!(ledger.begin([1; 16], ANNE));
        assert!(ledger.may_ask(&[1; 16], &ANNE));
        assert!(!ledger.may_ask(&[1; 16], &BOB) && !ledger.may_ask(&[1; 16], &None));
        assert!(ledger.may_ask(&[9; 16], &BOB), "nobody's");
    }

    #[test]
    fn moves_that_come_to_nothing_take_bounded_room_and_push_out_none_that_ran() {
        let mut ledger = Ledger::new(ME);
        ledger.ran([0xff; 16]);
        for n in 0..2 * REMEMBERED_BEGUN as u128 {
            assert!(ledger.begin(n.to_le_bytes(), ANNE));
        }
        assert_eq!(ledger.begun.len(), REMEMBERED_BEGUN);
        assert_eq!(ledger.outcome(&[0xff; 16], &ME), Outcome::Ran);
    }

    #[test]
    fn an_offer_to_another_receiver_is_no_offer() {
        let offer = |receiver| {
            let name = String::new();
            let (memory_size, interface_version, network, identity) = (4096, 1, false, Vec::new());
            Box::new(Offer { receiver, name, memory_size, interface_version, network, identity })
        };
        let greeted = || {
            let mut machine = Destination::new(ME, Duration::from_secs(1), Duration::ZERO);
            machine.handle(Event::Message(Message::Hello([1; 16])), Duration::ZERO);
            machine
        };
        let take = |offer| greeted().handle(Event::Message(Message::Offer(offer)), Duration::ZERO);
        assert!(matches!(&take(offer(ME))[..], [Action::Prepare(_)]));
        assert!(matches!(
            &take(offer([8; 16]))[..],
            [Action::Send(Message::Abort(_)), Action::Discard(_), Action::End]
        ));
    }
}

//! Wrong variants of the rules in `REPLICATION.md`, built around the right state machines: the
//! checker must detect each.

use migrate::replication::{
    arbiter::{Answer, MemberId, Request, Version, Versioned},
    primary, standby,
    wire::Message,
};

use super::world::{Member, Sets, World, id};

/// A wrong variant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mutation {
    /// None: the state machines as they are.
    None,
    /// The primary releases output when the guest makes it.
    ReleasesAtOnce,
    /// A standby acks the execution of records that it has only received.
    AcksUnexecuted,
    /// A standby takes over with records that it has not executed.
    SkipsUnexecuted,
    /// A standby acks records after it has given up the primary.
    AcksAfterSuspicion,
    /// The primary goes on without a standby, and does not ask.
    GoesOnUnasked,
    /// A standby takes over, and does not ask.
    TakesOverUnasked,
    /// A member takes a lost swap for a won one.
    TakesConflictForWon,
    /// A member takes an arbiter that does not answer for a won swap.
    TakesSilenceForWon,
    /// A member takes an arbiter that does not answer for a lost swap.
    TakesSilenceForLost,
    /// A member forgets a swap that had no answer: it may still happen.
    ForgetsLateSwap,
    /// The arbiter swaps without a look at the version.
    BlindArbiter,
    /// A standby ends when the arbiter's record is not the one that it knows.
    GivesUpOnConflict,
    /// A member that was fenced goes on.
    IgnoresTheFence,
    /// The primary has a standby recorded before it has all output that was released.
    JoinsTooEarly,
    /// Output does not wait for a standby that is being recorded.
    IgnoresTheOneThatJoins,
    /// The primary gives the VM to a standby before the arbiter has recorded it.
    GivesUnrecorded,
    /// After a swap output does not wait for the primary before.
    IgnoresTheOneBefore,
    /// A member that takes over does not release what it holds.
    DropsHeldOutput,
    /// A copy that has diverged goes on as if it had not.
    HidesDivergence,
}

/// A version that no record has.
const MADE_UP: Version = Version(99);

impl Mutation {
    /// The answer that a member believes it has.
    pub fn answer(self, answer: Answer) -> Answer {
        match (self, answer) {
            (Self::TakesConflictForWon, Answer::Conflict(_)) => Answer::Swapped(MADE_UP),
            (Self::GivesUpOnConflict, Answer::Conflict(Some(mut there))) => {
                there.record.active = MemberId([77; 16]);
                there.record.in_sync.clear();
                Answer::Conflict(Some(there))
            }
            (_, answer) => answer,
        }
    }

    /// What a member makes of silence.
    pub fn silence(self, world: &World, request: Request, answer: Answer) -> Answer {
        let Request::CompareAndSwap { new, .. } = request else { return answer };
        match self {
            Self::TakesSilenceForWon => Answer::Swapped(MADE_UP),
            Self::TakesSilenceForLost => {
                let record = new.next(MemberId([77; 16]), []);
                Answer::Conflict(Some(Versioned { version: MADE_UP, record }))
            }
            Self::ForgetsLateSwap => Answer::Conflict(world.there.clone()),
            _ => answer,
        }
    }

    /// A made-up answer in place of a request.
    pub fn unasked(self, member: Option<&Member>, request: &Request) -> Option<Answer> {
        let Request::CompareAndSwap { new, .. } = request else { return None };
        let primary = member.and_then(Member::primary);
        let known = primary.and_then(|primary| primary.record());
        let drops = known.is_some_and(|it| new.in_sync.len() < it.in_sync.len());
        let hands_over = known.is_some_and(|it| new.active != it.active);
        let made_up = match self {
            Self::GoesOnUnasked => primary.is_some() && drops,
            Self::TakesOverUnasked => primary.is_none(),
            Self::GivesUnrecorded => hands_over,
            _ => false,
        };
        made_up.then_some(Answer::Swapped(MADE_UP))
    }

    /// What a standby is told of an event.
    pub fn standby(self, member: Option<&Member>, event: standby::Event) -> standby::Event {
        let machine = member.and_then(Member::standby);
        match (self, event, machine) {
            (Self::SkipsUnexecuted, standby::Event::Executed(_), Some(machine)) => {
                standby::Event::Executed(machine.received())
            }
            (_, event, _) => event,
        }
    }
}

impl World {
    /// A standby that has given up the primary still acks its records.
    pub fn hears_too_late(&mut self, model: &Sets, to: usize, from: usize, message: &Message) {
        let standby = self.get(to).and_then(Member::standby);
        let (Some(machine), Message::Records(head, _)) = (standby, message) else { return };
        let given_up = machine.received() < head.last && machine.deadline().is_none();
        if model.mutation == Mutation::AcksAfterSuspicion && given_up {
            let (received, executed) = (head.last, head.last);
            let ack = Message::Ack { received, executed, stamp_ns: 0 };
            self.pipes.get_mut(&(to, from)).into_iter().for_each(|pipe| pipe.push(ack.clone()));
        }
    }

    /// The primary counts acks that its standbys have not sent.
    pub fn acks_made_up(&mut self, model: &Sets, n: usize) {
        let Some(machine) = self.get(n).and_then(Member::primary) else { return };
        let Some(known) = machine.record() else { return };
        let all = self.get(n).map_or(0, |it| it.log.len() as u64);
        let asks = match self.get(n).and_then(|it| it.request.as_ref()) {
            Some(Request::CompareAndSwap { new, .. }) => new.in_sync.clone(),
            _ => Vec::new(),
        };
        let behind = |peer: MemberId| {
            let mut standbys = machine.standbys(super::world::NOW);
            standbys.any(|(id, it)| id == peer && it.not_received > 0 && !it.leaving)
        };
        let of = |peer: MemberId| match model.mutation {
            Mutation::JoinsTooEarly => !known.names(peer),
            Mutation::IgnoresTheOneThatJoins => !known.names(peer) && asks.contains(&peer),
            Mutation::IgnoresTheOneBefore => n != 0 && peer == id(0),
            _ => false,
        };
        let peers: Vec<_> =
            self.peers(n).into_iter().filter(|&p| of(id(p)) && behind(id(p))).collect();
        for from in peers {
            let message = Message::Ack { received: all, executed: all, stamp_ns: 0 };
            let ack = primary::Event::Message { from: id(from), message };
            self.primary_event(model, n, ack);
        }
    }
}

//! Wrong variants of the commit rule, built around the right state machines: the checker must
//! detect each.

use std::time::Duration;

use migrate::{
    MoveId, ReceiverId,
    destination::{self, Ledger},
    page_set::PageSet,
    source::{Action, Ended, Event, Failure, Source},
    wire::{Message, Outcome},
};

use super::link::PAGES;

/// A wrong variant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mutation {
    /// None: the state machines as they are.
    None,
    /// The source treats silence after the commit as a failure.
    ResumesWhenSilent,
    /// The source treats a broken link after the commit as a failure.
    ResumesWhenLinkBreaks,
    /// The source accepts a cancel after the commit.
    ResumesWhenCancelled,
    /// The source treats the answer *unknown* as *never*.
    TakesUnknownForNever,
    /// The source sends the commit without the fence.
    CommitsUnfenced,
    /// The guest stays stopped after a failure before the commit.
    StaysStopped,
    /// A page that changed is missing from the last pages.
    LosesADirtyPage,
    /// The destination runs what it has applied, without a commit.
    RunsWithoutCommit,
    /// The destination runs on a commit that comes with the state, before it has applied the state.
    RunsUnapplied,
    /// The destination does not record the commit.
    ForgetsThatItRan,
    /// The destination answers *never* without ending the attempt first.
    AnswersTooSoon,
    /// A process answers for one that received before it.
    AnswersForAnother,
    /// The source ends when the VM runs there, before it has sent the post-copy pages.
    LetsGoTooSoon,
    /// The destination answers *ran* though it lacks pages.
    SaysThatItRanWhileItLacks,
    /// The source does not check which move an outcome belongs to.
    TakesAnyOutcome,
    /// The destination does not check which move a commit belongs to.
    TakesAnyCommit,
}

impl Mutation {
    /// The source's reaction to an event.
    pub fn source(
        self,
        id: MoveId,
        machine: &mut Source,
        event: Event,
        now: Duration,
    ) -> Vec<Action> {
        let event = match event {
            Event::Message(Message::Outcome(_, outcome)) if self == Self::TakesAnyOutcome => {
                Event::Message(Message::Outcome(id, outcome))
            }
            event => event,
        };
        let gives_up = match (&event, self) {
            (Event::Tick, Self::ResumesWhenSilent)
            | (Event::LinkLost(_), Self::ResumesWhenLinkBreaks)
            | (Event::Cancel(_), Self::ResumesWhenCancelled)
            | (Event::Message(Message::Outcome(_, Outcome::Unknown)), Self::TakesUnknownForNever) => {
                machine.committed()
            }
            _ => false,
        };
        if gives_up {
            return vec![Action::RunHere, Action::End(Ended::Failed(Failure::NeverRan))];
        }
        let runs = matches!(event, Event::Message(Message::Running(_))) && machine.committed();
        let mut actions = machine.handle(event, now);
        if self == Self::LetsGoTooSoon && runs {
            return vec![Action::HandOn, Action::End(Ended::Moved)];
        }
        actions.retain(|action| match action {
            Action::Fence => self != Self::CommitsUnfenced,
            Action::RunHere => self != Self::StaysStopped,
            _ => true,
        });
        for action in &mut actions {
            if let (Self::LosesADirtyPage, Action::SendLast { pages, .. }) = (self, action) {
                let mut first = PageSet::none(PAGES);
                first.insert(0);
                pages.take_out(&first);
            }
        }
        actions
    }

    /// The destination's reaction to an event.
    pub fn destination(
        self,
        machine: &mut destination::Destination,
        event: destination::Event,
        now: Duration,
    ) -> Vec<destination::Action> {
        let event = match (event, machine.id()) {
            (destination::Event::Message(Message::Commit(_, state)), Some(id))
                if self == Self::TakesAnyCommit =>
            {
                destination::Event::Message(Message::Commit(id, state))
            }
            (event, _) => event,
        };
        let commit = matches!(&event, destination::Event::Message(Message::Commit(..)));
        let mut actions = machine.handle(event, now);
        let applies = actions.iter().any(|a| matches!(a, destination::Action::Apply(_)));
        let ready = actions.contains(&destination::Action::Send(Message::Ready));
        let unapplied = self == Self::RunsUnapplied && commit && applies;
        if self == Self::RunsWithoutCommit && ready || unapplied {
            actions.push(destination::Action::Run);
        }
        actions
    }

    /// The answer of the destination's ledger.
    pub fn outcome(self, ledger: &Ledger, id: &MoveId, receiver: &ReceiverId) -> Outcome {
        match (self, ledger.outcome(id, receiver)) {
            (Self::ForgetsThatItRan, Outcome::Ran)
            | (Self::AnswersForAnother, Outcome::Unknown) => Outcome::Never,
            (_, right) => right,
        }
    }
}

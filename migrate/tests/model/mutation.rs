//! Wrong variants of the commit rule, put around the right machines: the checker must find each.

use std::time::Duration;

use migrate::{
    MoveId, ReceiverId,
    destination::{self, Ledger},
    pages::Pages,
    source::{Action, Ended, Event, Failure, Source},
    wire::{Message, Outcome},
};

use super::link::PAGES;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mutation {
    /// Nothing: the machines as they are.
    None,
    /// The source takes silence after the commit for a failure.
    ResumesWhenSilent,
    /// The source takes a broken link after the commit for a failure.
    ResumesWhenLinkBreaks,
    /// The source lets itself be cancelled after the commit.
    ResumesWhenCancelled,
    /// The source takes a destination that cannot know for one that did not.
    TakesUnknownForNever,
    /// The commit goes out without the fence.
    CommitsUnfenced,
    /// A failure before the commit leaves the guest standing.
    StaysStopped,
    /// A page that changed is not among the last.
    LosesADirtyPage,
    /// The destination runs what it has applied, commit or not.
    RunsWithoutCommit,
    /// The destination runs at a commit with the state, applied or not.
    RunsUnapplied,
    /// The destination does not write the commit down.
    ForgetsThatItRan,
    /// The destination answers *never* without ending the attempt first.
    AnswersTooSoon,
    /// A process answers for one that received before it.
    AnswersForAnother,
    /// The source ends when the VM runs there, though pages are to follow.
    LetsGoTooSoon,
    /// The destination answers *ran* though it lacks pages.
    SaysThatItRanWhileItLacks,
    /// The source does not look which move an outcome is of.
    TakesAnyOutcome,
    /// The destination does not look which move a commit is of.
    TakesAnyCommit,
}

impl Mutation {
    /// What the source does about an event.
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
                let mut first = Pages::none(PAGES);
                first.insert(0);
                pages.take_out(&first);
            }
        }
        actions
    }

    /// What the destination does about an event.
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

    /// What the destination's ledger says.
    pub fn outcome(self, ledger: &Ledger, id: &MoveId, receiver: &ReceiverId) -> Outcome {
        match (self, ledger.outcome(id, receiver)) {
            (Self::ForgetsThatItRan, Outcome::Ran)
            | (Self::AnswersForAnother, Outcome::Unknown) => Outcome::Never,
            (_, right) => right,
        }
    }
}

//! The destination once its VM runs: takes the pages that are missing, and waits for a source that
//! went away.

use std::time::Duration;

use super::{Action, Away, Destination, Event};
use crate::wire::{Message, Outcome};

impl Destination {
    /// The VM is here. Nothing that a peer sends changes that.
    pub(super) fn running(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match event {
            Event::Runs(started) => vec![Action::Send(Message::Running(started))],
            Event::Message(Message::Forwarded(frame)) => vec![Action::Deliver(frame)],
            Event::Message(Message::ForwardedEnd) => {
                self.late = false;
                self.end_if_over()
            }
            Event::Pages(runs) | Event::Message(Message::Zero(runs))
                if !self.lacking.is_empty() =>
            {
                let mut actions = vec![Action::Send(self.lacking.filled(&runs, now))];
                if self.lacking.is_empty() {
                    self.wait_no_more();
                    actions.push(Action::Complete);
                    actions.push(Action::Send(Message::Whole(self.lacking.arrival())));
                    actions.extend(self.end_if_over());
                }
                actions
            }
            Event::Fault(page) if self.lacking.pages().contains(page) => {
                let news = self.lacking.wait_for(page, now);
                let word = Action::Send(Message::Want(vec![(page as u64, 1)]));
                if news && self.linked { vec![word] } else { Vec::new() }
            }
            Event::Fault(page) => vec![Action::Supply(page)],
            Event::LinkLost(_) if self.lacking.is_empty() => {
                self.linked = false;
                self.end_if_over()
            }
            Event::Settled(settled) => {
                self.settled = Some(settled);
                let word = Action::Send(Message::Settled(settled));
                let mut actions = if self.linked { vec![word] } else { Vec::new() };
                actions.extend(self.end_if_over());
                actions
            }
            Event::LinkLost(why) => self.await_source(Away::Link(why)),
            Event::Rejoined => {
                self.linked = true;
                if !self.lacking.is_empty() {
                    self.heard(now);
                }
                let outcome = if self.lacking.is_empty() { Outcome::Ran } else { Outcome::Lacking };
                let id = self.id.unwrap_or_default();
                let mut actions = vec![Action::Send(Message::Outcome(id, outcome))];
                if outcome == Outcome::Lacking {
                    actions.extend(self.lacking.say_all().into_iter().map(Action::Send));
                    // The source may not have received it, as the connection it was sent on has
                    // broken.
                    actions.extend(self.settled.map(|s| Action::Send(Message::Settled(s))));
                }
                actions
            }
            Event::VmEnded => {
                // Nothing needs the missing pages any more.
                let whole = Action::Send(Message::Whole(self.lacking.arrival()));
                let mut actions = if self.lacking.is_empty() { Vec::new() } else { vec![whole] };
                actions.extend(self.end());
                actions
            }
            Event::Tick if self.lost_at.is_some_and(|at| now >= at) => {
                self.wait_no_more();
                let mut actions = vec![Action::Lost(self.lacking.pages().clone())];
                actions.extend(self.end());
                actions
            }
            Event::Tick if self.deadline.is_some_and(|at| now >= at) => {
                self.await_source(Away::Silent)
            }
            // What a source sends late or twice, and answers to actions from before the commit.
            Event::Message(_)
            | Event::Pages(_)
            | Event::Prepared(_)
            | Event::Forgot(_)
            | Event::Applied(_)
            | Event::Asked
            | Event::Tick => Vec::new(),
        }
    }

    /// The link has failed while pages are missing. The only deadline left is the end of the wait,
    /// if it is limited.
    fn await_source(&mut self, why: Away) -> Vec<Action> {
        self.linked = false;
        self.deadline = None;
        vec![Action::AwaitSource(why)]
    }

    fn end_if_over(&mut self) -> Vec<Action> {
        let late = self.late && self.linked;
        let over = !late && self.lacking.is_empty() && self.settled.is_some();
        if over { self.end() } else { Vec::new() }
    }

    /// No page is missing any more, or none will arrive: the guest waits for nothing.
    fn wait_no_more(&mut self) {
        (self.deadline, self.lost_at) = (None, None);
    }
}

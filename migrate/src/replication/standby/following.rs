//! What the primary sends, and its silence.

use std::time::Duration;

use super::{Action, Ended, Lost, Standby, State};
use crate::replication::{
    Commit, Position,
    arbiter::{Term, Versioned},
    wire::{Message, RecordsHead},
};

impl Standby {
    pub(super) fn message(&mut self, message: Message, now: Duration, out: &mut Vec<Action>) {
        match &self.state {
            State::Following => self.heard = now,
            State::Taking { .. } => return self.heard = now,
            State::Diverged(position, what) => {
                self.heard = now;
                if let Message::Dropped(_) | Message::Goodbye = message {
                    let (position, what) = (*position, what.clone());
                    self.end(Ended::Diverged { position, what }, out);
                }
                return;
            }
            // What was sent before the primary was given up, and arrives after.
            State::Finishing | State::Asking | State::TookOver(_) | State::Ended => return,
        }
        match message {
            Message::Records(head, records) => self.records(head, records, out),
            Message::Heartbeat { released, .. } => self.released(released, out),
            Message::Membership(known, commit) => self.membership(known, commit, out),
            Message::Yours { position, record } => self.yours(position, record, now, out),
            Message::Goodbye => self.end(Ended::Goodbye, out),
            Message::Dropped(term) if term >= self.term() => self.end(Ended::Dropped(term), out),
            // From before a swap, or the answer to it.
            Message::Dropped(_) | Message::Ack { .. } | Message::Mine { .. } => {}
            // From before a swap.
            Message::Forwarded(_) => {}
            Message::Seeding(_) => self.lose(Lost::Nonsense("it seeds a copy that follows"), out),
            // The member that was given the VM cannot run it.
            Message::Divergence { .. } => {
                self.lose(Lost::Nonsense("its copy of the VM had diverged"), out);
            }
        }
    }

    fn term(&self) -> Term {
        self.record().map_or_else(Term::default, |record| record.term)
    }

    fn records(&mut self, head: RecordsHead, records: Vec<u8>, out: &mut Vec<Action>) {
        let RecordsHead { first, last, released, stamp_ns } = head;
        if self.received.checked_add(1) != Some(first) || last < first {
            return self.lose(Lost::Nonsense("a record is missing, or came twice"), out);
        }
        (self.received, self.stamp_ns) = (last, stamp_ns);
        out.push(Action::Execute { first, last, records });
        if self.commit != Some(Commit::Executed) {
            self.ack(out);
        }
        self.released(released, out);
    }

    fn released(&mut self, released: Position, out: &mut Vec<Action>) {
        let released = released.min(self.received);
        if released > self.released {
            self.released = released;
            out.push(Action::Released(released));
        }
    }

    fn membership(&mut self, known: Versioned, commit: Commit, out: &mut Vec<Action>) {
        if known.record.set != self.asking.set || known.record.term < self.term() {
            return self.lose(Lost::Nonsense("a record of another set, or an old one"), out);
        }
        self.commit = Some(commit);
        self.asking.learn(known);
    }

    fn yours(
        &mut self,
        position: Position,
        known: Versioned,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let record = &known.record;
        let right = record.set == self.asking.set
            && record.active == self.me
            && record.in_sync == [self.primary]
            && record.term >= self.term()
            && position == self.received;
        if !right {
            return self.lose(Lost::Nonsense("it gave a VM that is not this one"), out);
        }
        self.asking.learn(known);
        self.heard = now;
        self.state = State::Taking { gone: false };
    }

    pub(super) fn tick(&mut self, now: Duration, out: &mut Vec<Action>) {
        if self.heard.saturating_add(self.settings.silence()) <= now {
            self.lose(Lost::Silent, out);
        }
        let beats = matches!(self.state, State::Following | State::Taking { gone: false });
        if beats && self.beat <= now {
            self.beat = now.saturating_add(self.settings.heartbeat);
            if self.state == State::Following {
                self.ack(out);
            }
            let (term, released) = (self.term(), self.released);
            out.push(Action::Send(Message::Heartbeat { term, released }));
        }
    }
}

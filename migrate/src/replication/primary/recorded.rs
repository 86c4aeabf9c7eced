//! The arbiter's answers, and what follows from the record that is there.

use std::time::Duration;

use super::{Action, News, Primary, Stage, swap::Step};
use crate::replication::{
    arbiter::{Answer, MemberId, Versioned},
    asking::Heard,
};

impl Primary {
    pub(super) fn answered(&mut self, answer: Answer, now: Duration, out: &mut Vec<Action>) {
        match self.asking.hear(answer, now, self.settings.retry) {
            Heard::Won => self.recorded(out),
            Heard::There(there) => self.judge(there, now, out),
            Heard::Nothing(why) => self.unreachable(why, out),
            Heard::Unasked => {}
        }
    }

    /// Another record is there than the one that was wanted.
    fn judge(&mut self, there: Versioned, now: Duration, out: &mut Vec<Action>) {
        // By an earlier swap of this member that had no answer. Only this member writes a record
        // that it is active in, or one that hands the VM over and keeps it in sync.
        let mine = there.record.active == self.me || self.asking.late.contains(&there.record);
        if mine {
            self.asking.learn(there);
            return self.recorded(out);
        }
        if self.asking.known.is_some() {
            return self.fence(there.record.term, out);
        }
        // A new set's number is random, so this is a mistake, and no reason to stop a VM.
        self.asking.retry = Some(now.saturating_add(self.settings.retry));
        self.unreachable("this set belongs to another primary: protect the VM anew".into(), out);
    }

    fn unreachable(&mut self, why: String, out: &mut Vec<Action>) {
        if self.asking.first_failure() {
            out.push(Action::Report(News::ArbiterUnreachable(why)));
        }
        let waits = |id: &MemberId| self.peers.get(id).is_none_or(|peer| peer.leaving());
        let waits = self.in_the_way().iter().any(waits);
        if waits && self.settings.alone_without_arbiter && !self.alone {
            self.alone = true;
            out.push(Action::Report(News::AloneWithoutArbiter));
        }
    }

    /// The known record is new.
    fn recorded(&mut self, out: &mut Vec<Action>) {
        let Some(record) = self.asking.record().cloned() else { return };
        self.alone = false;
        if record.active == self.me {
            self.term = record.term;
        }
        let handed = self.swap.as_mut().filter(|swap| record.active == swap.to);
        if let Some(swap) = handed.filter(|swap| swap.step == Step::Asking) {
            swap.step = Step::Stopping;
            out.push(Action::Stop);
        }
        let target = self.log.last();
        let ids: Vec<_> = self.peers.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            match (peer.stage, record.names(id)) {
                (Stage::Joining { .. }, true) => {
                    peer.stage = Stage::InSync;
                    out.push(Action::Report(News::InSync(id)));
                }
                // A swap leaves it out; if that fails it is put back.
                (Stage::InSync, false) => peer.stage = Stage::Joining { target },
                (Stage::Leaving, false) => {
                    self.left(id, out);
                    continue;
                }
                _ => {}
            }
            self.tell_record(id, out);
        }
    }
}

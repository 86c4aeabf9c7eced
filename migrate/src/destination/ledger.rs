//! What became of moves.

use std::collections::VecDeque;

use crate::{MoveId, Peer, ReceiverId, wire::Outcome};

/// What became of moves, for sources that lost the link at the commit.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Ledger {
    me: ReceiverId,
    /// Moves that were begun, and by whom.
    begun: VecDeque<(MoveId, Peer)>,
    ran: VecDeque<MoveId>,
}

/// Moves remembered. A process runs one VM, so it takes one commit; room is left for tests and for
/// what is to come.
const REMEMBERED: usize = 16;
/// Moves remembered that were begun, most of which come to nothing.
const REMEMBERED_BEGUN: usize = 1024;

impl Ledger {
    /// Nothing yet.
    #[must_use]
    pub fn new(me: ReceiverId) -> Self {
        Self { me, begun: VecDeque::new(), ran: VecDeque::new() }
    }

    /// Writes down that `peer` begins a move. `false`: that move was begun before, so this is
    /// somebody who repeats what was said then.
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

    /// What became of a move that `receiver` took part in. One that is still under way must be
    /// ended with [`Event::Asked`](super::Event::Asked) first; whatever is not written down as run
    /// never ran in this process and never will, because its connection is gone. What another
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
}

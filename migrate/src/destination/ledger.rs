//! The outcomes of moves.

use std::collections::VecDeque;

use crate::{MoveId, Peer, ReceiverId, wire::Outcome};

/// The outcomes of moves, for sources that lost the link at the commit.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Ledger {
    me: ReceiverId,
    /// Moves that were begun, and by which peer.
    begun: VecDeque<(MoveId, Peer)>,
    ran: VecDeque<MoveId>,
}

/// Committed moves to remember. A process runs one VM, so it takes one commit; the rest is for
/// tests and future use.
const REMEMBERED: usize = 16;
/// Begun moves to remember; most of them are never committed.
const REMEMBERED_BEGUN: usize = 1024;

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(me: ReceiverId) -> Self {
        Self { me, begun: VecDeque::new(), ran: VecDeque::new() }
    }

    /// Records that `peer` begins a move. `false`: that move was begun before, so this is a replay.
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

    /// Whether `peer` may ask about a move, and end it by asking: no if another peer began it.
    #[must_use]
    pub fn may_ask(&self, id: &MoveId, peer: &Peer) -> bool {
        self.begun.iter().find(|(begun, _)| begun == id).is_none_or(|(_, by)| by == peer)
    }

    /// Records that a move's commit was accepted. Call it before the VM runs.
    pub fn ran(&mut self, id: MoveId) {
        if self.ran.len() == REMEMBERED {
            self.ran.pop_front();
        }
        self.ran.push_back(id);
    }

    /// The outcome of a move that `receiver` took part in. End a move that is still under way with
    /// [`Event::Asked`](super::Event::Asked) first. A move that is not recorded as run never ran in
    /// this process and never will, because its connection is gone. This process cannot know what
    /// another one did.
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
    fn only_the_peer_that_began_a_move_may_ask_about_it() {
        let mut ledger = Ledger::new(ME);
        assert!(ledger.begin([1; 16], ANNE));
        assert!(ledger.may_ask(&[1; 16], &ANNE));
        assert!(!ledger.may_ask(&[1; 16], &BOB) && !ledger.may_ask(&[1; 16], &None));
        assert!(ledger.may_ask(&[9; 16], &BOB), "a move that no peer began");
    }

    #[test]
    fn failed_moves_take_bounded_room_and_evict_no_move_that_ran() {
        let mut ledger = Ledger::new(ME);
        ledger.ran([0xff; 16]);
        for n in 0..2 * REMEMBERED_BEGUN as u128 {
            assert!(ledger.begin(n.to_le_bytes(), ANNE));
        }
        assert_eq!(ledger.begun.len(), REMEMBERED_BEGUN);
        assert_eq!(ledger.outcome(&[0xff; 16], &ME), Outcome::Ran);
    }
}

//! What a move's thread gives up once its VM runs.

use super::{
    super::stage::{Stage, heard, narrow},
    Attempt,
};
use migrate::wire::{Message, Outcome};

impl Attempt<'_> {
    /// Of a VM that runs: waits for the source's last word. `false`: it did not come.
    pub fn farewell(&mut self) -> bool {
        if self.ran > self.epoch {
            self.settle();
            self.heard = self.heard || self.connection.as_mut().is_some_and(heard);
            self.heard = self.heard || self.answered();
        }
        self.heard
    }

    /// Answers a source that came back just when no page was missing any more, as the last came or
    /// the VM ended. `false`: there is none, or it did not hear the answer.
    fn answered(&mut self) -> bool {
        let (Some(mut connection), Some(id)) = (self.rejoin.take(), self.machine.id()) else {
            return false;
        };
        connection.send(&Message::Outcome(id, Outcome::Ran)).is_ok() && heard(&mut connection)
    }

    /// Nothing is in a hurry any more: what making a VM took is given up, by all threads.
    pub(super) fn settle(&mut self) {
        if !std::mem::replace(&mut self.narrow, true) {
            self.receiver.stages.enter(Stage::Arrived);
            // A VM is not given up for it, and what went wrong is logged.
            let _ = narrow();
        }
    }
}

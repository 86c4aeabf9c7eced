//! What a move's thread gives up once its VM runs.

use super::{
    super::stage::{Stage, heard, narrow},
    Attempt,
};
use migrate::wire::{Message, Outcome};

impl Attempt<'_> {
    /// Of a running VM: waits for the source's last message. `false`: it did not arrive.
    pub fn farewell(&mut self) -> bool {
        if self.ran > self.epoch {
            self.settle();
            self.heard = self.heard || self.connection.as_mut().is_some_and(heard);
            self.heard = self.heard || self.answered();
        }
        self.heard
    }

    /// Answers a source that reconnected just when the last page had arrived or the VM ended.
    /// `false`: there is none, or it did not receive the answer.
    fn answered(&mut self) -> bool {
        let (Some(mut connection), Some(id)) = (self.rejoin.take(), self.machine.id()) else {
            return false;
        };
        connection.send(&Message::Outcome(id, Outcome::Ran)).is_ok() && heard(&mut connection)
    }

    /// Urgency is over: all threads give up what making a VM needs.
    pub(super) fn settle(&mut self) {
        if !std::mem::replace(&mut self.narrow, true) {
            self.receiver.stages.enter(Stage::Arrived);
            // The VM continues even if this fails; the error is logged.
            let _ = narrow();
        }
    }
}

//! Feeds both state machines arbitrary messages and arbitrary results of their actions, at any
//! time.
//!
//! Input: which state machine, and events as [`arbitrary`] makes them of bytes. Messages pass
//! through the wire's encoding. One event means: the next event of a successful move. It is the
//! last of its list, so that an input of all ones is such a move, whatever is added to the list.
//!
//! - `message`: arbitrary messages
//! - `source`, `destination`: a state machine, its input, and the properties of its output

mod destination;
mod message;
mod source;

use arbitrary::Unstructured;
use migrate::{
    MoveId, PAGE, ReceiverId,
    offer::Offer,
    source::Mode,
    wire::{Kind, Message},
};

/// Pages of the VM.
const PAGES: usize = 70;
const ID: MoveId = [1; 16];
const ME: ReceiverId = [2; 16];

/// The result of an input.
#[derive(Debug, Default)]
pub struct Course {
    /// Kinds of the messages that the state machine received and sent.
    pub kinds: Vec<Kind>,
    /// The mode that the source was given.
    pub mode: Option<Mode>,
    /// Whether the move succeeded, as far as the state machine knows.
    pub made: bool,
}

impl Course {
    fn saw(&mut self, kind: Kind) {
        if !self.kinds.contains(&kind) {
            self.kinds.push(kind);
        }
    }
}

/// Checks that no state machine panics, continues after its end, or breaks the commit rule.
pub fn check(data: &[u8]) {
    course(data);
}

/// The same; returns the result.
pub fn course(data: &[u8]) -> Course {
    let mut input = Unstructured::new(data);
    if input.arbitrary().unwrap_or(true) {
        source::drive(&mut input)
    } else {
        destination::drive(&mut input)
    }
}

fn offer(receiver: ReceiverId) -> Offer {
    Offer {
        receiver,
        name: "vm".into(),
        memory_size: (PAGES * PAGE) as u64,
        interface_version: 1,
        network: true,
        identity: vec![1, 2, 3],
    }
}

/// A message as it arrives: `None` if the wire would refuse it.
fn arrives(message: &Message) -> Option<Message> {
    crate::wire::sent(message, PAGES).ok()
}

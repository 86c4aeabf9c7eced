//! Both machines, fed any messages and any answers to what they ask for, at any time.
//!
//! Input: which machine, and events as [`arbitrary`] makes them of bytes. Messages go through the
//! wire's encoding. One event stands for whatever comes next in a move that goes well; it is the
//! last of its list, so that bytes of all ones are such a move, whatever is put into the list.
//!
//! - `said`: messages
//! - `source`, `destination`: a machine, what goes into it, and what must hold of what comes out

mod destination;
mod said;
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

/// What came of an input.
#[derive(Debug, Default)]
pub struct Course {
    /// Kinds of the messages that the machine was told, and that it sent.
    pub kinds: Vec<Kind>,
    /// How the source was told to move the VM.
    pub mode: Option<Mode>,
    /// Whether the move was made, as far as the machine knows.
    pub made: bool,
}

impl Course {
    fn saw(&mut self, kind: Kind) {
        if !self.kinds.contains(&kind) {
            self.kinds.push(kind);
        }
    }
}

/// Neither machine panics, goes on after its end, or breaks the commit rule.
pub fn check(data: &[u8]) {
    course(data);
}

/// The same; says what came of it.
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

/// A message as it arrives: `None` if the wire would not bring it.
fn arrives(message: &Message) -> Option<Message> {
    crate::wire::sent(message, PAGES).ok()
}

//! The VM's state as it is sent, and what an operator has decided about the VM.

use crate::vm::VmState;

/// What is handed over with the commit.
#[derive(Clone, PartialEq, Debug)]
pub struct Handover {
    /// Everything but the memory.
    pub state: VmState,
    /// It is paused, and stays so at the destination.
    pub paused: bool,
    /// An operator once vouched for it running nowhere else.
    pub vouched_for: bool,
}

/// Bits of the byte behind the state. Without one none is set: a destination that knows of no such
/// byte takes a VM with none, and refuses any other before it runs.
const PAUSED: u8 = 1;
const VOUCHED_FOR: u8 = 2;

impl Handover {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = postcard::to_stdvec(&self.state)
            .expect("a state has nothing that postcard cannot write");
        let bits =
            if self.paused { PAUSED } else { 0 } | if self.vouched_for { VOUCHED_FOR } else { 0 };
        if bits != 0 {
            bytes.push(bits);
        }
        bytes
    }

    /// Reads them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (state, rest) = postcard::take_from_bytes(bytes).ok()?;
        let bits = match *rest {
            [] => 0,
            [bits @ 1..=3] => bits,
            _ => return None,
        };
        Some(Self { state, paused: bits & PAUSED != 0, vouched_for: bits & VOUCHED_FOR != 0 })
    }
}

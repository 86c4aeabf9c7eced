//! The VM's state as it is sent, with the operator's decisions about the VM.

use crate::vm::{
    VmState,
    codec::{self, CodecError, Payload, Sections},
};

/// What is handed over with the commit.
#[derive(Clone, PartialEq, Debug)]
pub struct Handover {
    /// Everything but the memory.
    pub state: VmState,
    /// It is paused, and stays so at the destination.
    pub paused: bool,
    /// It was once resumed by operator override.
    pub vouched_for: bool,
}

impl Handover {
    /// Encodes it as a payload.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let value = (self.paused, self.vouched_for, self.state.sections());
        codec::encode(Payload::Handover, &value)
    }

    /// Decodes a payload.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let (paused, vouched_for, sections): (_, _, Sections) =
            codec::decode(Payload::Handover, bytes)?;
        Ok(Self { state: VmState::from_sections(&sections)?, paused, vouched_for })
    }
}

//! The messages between a VM's process and the one that talks to its arbiter: postcard, one a
//! datagram. A message that cannot be decoded ends the connection.

use crate::{
    error::Error,
    record::{MemberId, SetId, Version},
    swap::{Current, Outcome, Swap},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io;

/// Longest message.
pub const MESSAGE_MAX: usize = 8 << 10;
/// Most requests that wait for their answers.
pub const REQUESTS_MAX: usize = 16;
/// Most members in a request.
const MEMBERS_MAX: usize = 64;

/// What the arbiter is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// The record of a set. Answer: [`Reply::Found`].
    Read(SetId),
    /// A change of a record. Answer: [`Reply::Changed`].
    Swap(Swap),
    /// Removes the record if it has this version. Answer: [`Reply::Changed`], where `Won` has the
    /// same version.
    Forget(SetId, Version),
    /// Shows other members that this process runs, until it ends. Answer: [`Reply::Announced`].
    Announce(SetId, MemberId),
    /// Which of these members run, at most 64. For display only: no decision may depend on it.
    /// Answer: [`Reply::Present`].
    Present(SetId, Vec<MemberId>),
}

impl Ask {
    /// Whether it changes a record.
    pub(super) fn changes(&self) -> bool {
        matches!(self, Self::Swap(_) | Self::Forget(..))
    }

    /// Whether it is within the bounds.
    pub(super) fn is_valid(&self) -> bool {
        !matches!(self, Self::Present(_, members) if members.len() > MEMBERS_MAX)
    }
}

/// The answer to an [`Ask`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The record; `None`: the set has none.
    Found(Option<Current>),
    /// Whether the change was made.
    Changed(Outcome),
    /// Other members see this one.
    Announced,
    /// The members that run.
    Present(Vec<MemberId>),
}

/// Numbers the requests of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RequestId(pub(super) u64);

#[derive(PartialEq, Debug, Serialize, Deserialize)]
pub struct Request {
    pub id: RequestId,
    /// Milliseconds from now until the answer is needed.
    pub within_ms: u32,
    pub ask: Ask,
}

#[derive(PartialEq, Debug, Serialize, Deserialize)]
pub struct Answer {
    pub id: RequestId,
    pub reply: Result<Reply, Error>,
}

pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    if bytes.len() > MESSAGE_MAX {
        return Err(io::Error::other("the message is too long"));
    }
    Ok(bytes)
}

/// A message is used only if it is all of the datagram.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(invalid("a message with more behind it".to_owned())),
        Err(e) => Err(invalid(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Nonce, Record, STANDBYS_MAX, Term};
    use proptest::prelude::*;

    #[test]
    fn the_longest_messages_fit() {
        let member = MemberId([255; 16]);
        let record = Record {
            set: SetId([255; 16]),
            term: Term(u64::MAX),
            active: member,
            in_sync: vec![member; STANDBYS_MAX],
        };
        let current = Current { record, version: Version(u64::MAX), writer: Nonce([255; 16]) };
        let swap =
            Swap { expected: current.version, new: current.record.clone(), nonce: current.writer };
        let id = RequestId(u64::MAX);
        for ask in [Ask::Swap(swap), Ask::Present(SetId([255; 16]), vec![member; MEMBERS_MAX])] {
            let request = Request { id, within_ms: u32::MAX, ask };
            assert_eq!(decode::<Request>(&encode(&request).unwrap()).unwrap(), request);
        }
        let long = Error::Refused("€".repeat(1000)).shortened();
        for reply in [Ok(Reply::Changed(Outcome::Lost(Some(current)))), Err(long)] {
            let answer = Answer { id, reply };
            assert_eq!(decode::<Answer>(&encode(&answer).unwrap()).unwrap(), answer);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Answer>(&bytes);
        }
    }
}

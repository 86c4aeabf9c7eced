//! What a standby is seeded with, before it follows.
//!
//! ```text
//!  primary                                   standby
//!    │ Hello(set, primary)              ───▶ │
//!    │ ◀───                  Welcome(standby) │
//!    │ Offer(the VM, the CPU, settings) ───▶ │ makes a VM for it
//!    │ ◀───                  Accept, or Refuse │
//!    │ Pages…                           ───▶ │ while the guest runs, some more than once
//!    │ Seed(position, state)            ───▶ │ applies it
//!    │ ◀───                              Ready │
//! ```

use serde::{Deserialize, Serialize};

use super::header::{Kind, PAGES_MAX};
use crate::{
    PAGE,
    replication::{
        Position,
        arbiter::{MemberId, SetId},
    },
    wire::{WireError, gist, plain, read, small},
};

/// Size of what stands before the content of pages for each page, in bytes.
const NUMBER: usize = 4;

/// A message before a standby follows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Seeding {
    /// Primary: its first message.
    Hello {
        /// The set.
        set: SetId,
        /// The primary.
        from: MemberId,
    },
    /// Standby: the answer.
    Welcome(MemberId),
    /// Primary: the VM, in a form that only the VMM reads.
    Offer(Vec<u8>),
    /// Standby: there is a VM for it.
    Accept,
    /// Standby: why not, for people.
    Refuse(String),
    /// Primary: pages of memory, in place of what was sent for them before. Their numbers, and
    /// their contents one after the other.
    Pages(Vec<u32>, Vec<u8>),
    /// Primary: the VM stands here.
    Seed(Seed),
    /// Standby: it follows from there.
    Ready,
}

/// The VM at the instant of the copy, without its memory.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Seed {
    /// Position of the last record.
    pub position: Position,
    /// Samples that the guest has taken since.
    pub samples: u32,
    /// The state, in a form that only the VMM reads.
    pub state: Vec<u8>,
}

impl Seeding {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Hello { .. } => Kind::Hello,
            Self::Welcome(_) => Kind::Welcome,
            Self::Offer(_) => Kind::Offer,
            Self::Accept => Kind::Accept,
            Self::Refuse(_) => Kind::Refuse,
            Self::Pages(..) => Kind::Pages,
            Self::Seed(_) => Kind::Seed,
            Self::Ready => Kind::Ready,
        }
    }

    pub(super) fn body(&self) -> Vec<u8> {
        match self {
            Self::Hello { set, from } => [set.0, from.0].concat(),
            Self::Welcome(member) => member.0.to_vec(),
            Self::Offer(offer) => offer.clone(),
            Self::Accept | Self::Ready => Vec::new(),
            Self::Refuse(why) => small(&gist(why)),
            Self::Pages(numbers, content) => {
                let numbers = numbers.iter().flat_map(|n| n.to_le_bytes());
                numbers.chain(content.iter().copied()).collect()
            }
            Self::Seed(seed) => small(seed),
        }
    }

    /// Decodes a body whose checksum is right. `None`: it is of another kind.
    pub(super) fn decode(kind: Kind, body: &[u8]) -> Result<Option<Self>, WireError> {
        let empty = |this| if body.is_empty() { Ok(this) } else { Err(WireError::Body("a word")) };
        Ok(Some(match kind {
            Kind::Hello => {
                let wrong = WireError::Body("a greeting");
                let (ids, []) = body.as_chunks::<16>() else { return Err(wrong) };
                let &[set, from] = ids else { return Err(wrong) };
                Self::Hello { set: SetId(set), from: MemberId(from) }
            }
            Kind::Welcome => {
                let member = body.try_into().map_err(|_| WireError::Body("a greeting"))?;
                Self::Welcome(MemberId(member))
            }
            Kind::Offer => Self::Offer(body.to_vec()),
            Kind::Accept => empty(Self::Accept)?,
            Kind::Ready => empty(Self::Ready)?,
            Kind::Refuse => {
                let why: String = read(body, "a reason")?;
                plain(&why)?;
                Self::Refuse(why)
            }
            Kind::Pages => {
                let count = body.len() / (NUMBER + PAGE);
                if count == 0 || count > PAGES_MAX || body.len() != count * (NUMBER + PAGE) {
                    return Err(WireError::Body("pages"));
                }
                let (numbers, content) = body.split_at(count * NUMBER);
                let (numbers, _) = numbers.as_chunks::<NUMBER>();
                let numbers = numbers.iter().map(|n| u32::from_le_bytes(*n)).collect();
                Self::Pages(numbers, content.to_vec())
            }
            Kind::Seed => Self::Seed(read(body, "a state")?),
            Kind::Records
            | Kind::Ack
            | Kind::Heartbeat
            | Kind::Membership
            | Kind::Yours
            | Kind::Mine
            | Kind::Divergence
            | Kind::Goodbye
            | Kind::Dropped
            | Kind::Forwarded => return Ok(None),
        }))
    }
}

//! The header before every message: checked before anything of the body is read.

use super::WireError;
use crate::PROTOCOL_VERSION;

/// First bytes of every message.
pub const MAGIC: [u8; 4] = *b"VMLM";
/// Size of the header, in bytes.
pub const HEADER_SIZE: usize = 16;

/// The kinds of message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum Kind {
    /// Source: opens a move, with its number.
    Hello = 1,
    /// Destination: the move's number and the receiver's.
    Welcome = 2,
    /// Source: the VM that it offers.
    Offer = 3,
    /// Destination: it accepts the offer.
    Accept = 4,
    /// Destination: it refuses the offer.
    Refuse = 5,
    /// Source: pages with their content.
    Pages = 6,
    /// Source: pages that are zero.
    Zero = 7,
    /// Source: all pages of a round have been sent.
    RoundEnd = 8,
    /// Destination: all pages of a round have been applied.
    RoundDone = 9,
    /// Source: the VM state.
    State = 10,
    /// Destination: all is applied, and the VM could run.
    Ready = 11,
    /// Source: run the VM, with the state in this message if none came before. From here on the
    /// source may not run it.
    Commit = 12,
    /// Destination: the VM runs.
    Running = 13,
    /// Source: a forwarded packet, which reached the source's TAP after the pause.
    Forwarded = 14,
    /// Source: no more forwarded packets.
    ForwardedEnd = 15,
    /// Either side, before the commit: cancel the move.
    Abort = 16,
    /// Source, on a new connection: asks for the outcome of a move.
    Query = 17,
    /// Destination: the outcome.
    Outcome = 18,
    /// Source: pages that it will send after the commit; their content so far is no longer valid.
    Follow = 19,
    /// Destination, after the commit: pages that the guest waits for.
    Want = 20,
    /// Destination, after the commit: how many pages have arrived.
    Filled = 21,
    /// Destination, after the commit: nothing is missing any more.
    Whole = 22,
    /// Destination, on a new connection after the commit: pages that it lacks.
    Lacks = 23,
    /// Source: the switch-over hint. The pause is near, and what comes next is urgent. It contains
    /// the invariant state.
    SwitchHint = 24,
    /// Destination, after the commit: how the guest returned to full speed.
    Settled = 25,
    /// Destination, until it accepts or refuses: it is preparing the VM.
    Preparing = 26,
    /// Source: the guest is being stopped; its state comes next.
    Stopping = 27,
    /// Source, last: it knows that the VM runs there with all its memory, and will not ask again.
    Heard = 28,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 28] = [
        Self::Hello,
        Self::Welcome,
        Self::Offer,
        Self::Accept,
        Self::Refuse,
        Self::Pages,
        Self::Zero,
        Self::RoundEnd,
        Self::RoundDone,
        Self::State,
        Self::Ready,
        Self::Commit,
        Self::Running,
        Self::Forwarded,
        Self::ForwardedEnd,
        Self::Abort,
        Self::Query,
        Self::Outcome,
        Self::Follow,
        Self::Want,
        Self::Filled,
        Self::Whole,
        Self::Lacks,
        Self::SwitchHint,
        Self::Settled,
        Self::Preparing,
        Self::Stopping,
        Self::Heard,
    ];

    /// Longest body of this kind, in bytes: a receiver must be ready to hold it.
    #[must_use]
    pub const fn most(self) -> u32 {
        match self {
            Self::Hello | Self::Welcome | Self::Query | Self::Outcome => 64,
            Self::Offer => 64 << 10,
            Self::Refuse | Self::Abort | Self::SwitchHint => 4 << 10,
            Self::Pages => 8 + super::PAGES_PER_FRAME as u32 * (8 + crate::PAGE as u32),
            Self::Zero | Self::Follow | Self::Want | Self::Lacks => 64 << 10,
            Self::State => super::STATE_MAX,
            Self::Commit => 16 + super::STATE_MAX,
            Self::Forwarded => 128 << 10,
            Self::Accept | Self::RoundEnd | Self::RoundDone | Self::Running => 32,
            Self::Filled | Self::Whole | Self::Settled => 32,
            Self::Ready | Self::ForwardedEnd | Self::Preparing | Self::Stopping | Self::Heard => 0,
        }
    }
}

/// A header that has passed the checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Kind of the body.
    pub kind: Kind,
    /// Its length, in bytes; at most [`Kind::most`].
    pub length: u32,
    /// CRC-32 (IEEE) of the body.
    pub checksum: u32,
}

impl Header {
    /// The header of a body.
    #[must_use]
    pub fn of(kind: Kind, length: u32, checksum: u32) -> Self {
        Self { kind, length, checksum }
    }

    /// Encodes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut out = [0; HEADER_SIZE];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&(self.kind as u16).to_le_bytes());
        out[8..12].copy_from_slice(&self.length.to_le_bytes());
        out[12..16].copy_from_slice(&self.checksum.to_le_bytes());
        out
    }

    /// Checks sixteen bytes from a peer.
    ///
    /// # Errors
    /// All but [`WireError::Checksum`] and [`WireError::Body`].
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<Self, WireError> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if bytes[0..4] != MAGIC {
            return Err(WireError::Magic);
        }
        if u16_at(4) != PROTOCOL_VERSION {
            return Err(WireError::Version { ours: PROTOCOL_VERSION, theirs: u16_at(4) });
        }
        let number = u16_at(6);
        let kind =
            Kind::ALL.into_iter().find(|k| *k as u16 == number).ok_or(WireError::Kind(number))?;
        let length = u32_at(8);
        if length > kind.most() {
            return Err(WireError::Length { length, most: kind.most() });
        }
        Ok(Self { kind, length, checksum: u32_at(12) })
    }
}

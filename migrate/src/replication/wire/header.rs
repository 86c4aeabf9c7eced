//! The header before every message: checked before anything of the body is read.

use crate::wire::WireError;

/// First bytes of every message.
pub const MAGIC: [u8; 4] = *b"VMLR";
/// Version of these messages. Peers with another are refused.
pub const VERSION: u16 = 1;
/// Size of the header, in bytes.
pub const HEADER_SIZE: usize = 16;
/// Most bytes of records in one message.
pub const RECORDS_MAX: u32 = 32 << 20;
/// Longest packet in one message, with its virtio-net header, in bytes.
pub const PACKET_MAX: u32 = 128 << 10;
/// Most pages in one message.
pub const PAGES_MAX: usize = 64;
/// Size of what stands before the records in [`Kind::Records`], in bytes.
pub const RECORDS_HEAD: usize = 32;

/// The kinds of message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum Kind {
    /// Primary: consecutive records of the input log.
    Records = 1,
    /// Standby: how far it has received and executed.
    Ack = 2,
    /// Either side: it is there, and its term.
    Heartbeat = 3,
    /// Primary: the arbiter's record, as it is now.
    Membership = 4,
    /// Primary: the VM is yours from this position on. From here on the primary may not run it.
    Yours = 5,
    /// Standby: it runs the VM.
    Mine = 6,
    /// Standby: its copy differs from the log.
    Divergence = 7,
    /// Primary: the VM is protected no longer; the standby is to end.
    Goodbye = 8,
    /// Primary: the standby is no longer in the set.
    Dropped = 9,
    /// Primary: its first message to a standby that is to be seeded.
    Hello = 10,
    /// Standby: the answer to that.
    Welcome = 11,
    /// Primary: the VM that is offered.
    Offer = 12,
    /// Standby: it takes the VM.
    Accept = 13,
    /// Standby: it does not, and why.
    Refuse = 14,
    /// Primary: pages of memory.
    Pages = 15,
    /// Primary: the rest of the VM at one instant.
    Seed = 16,
    /// Standby: it follows from there.
    Ready = 17,
    /// Standby that was the primary before: a packet that reached it since.
    Forwarded = 18,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 18] = [
        Self::Records,
        Self::Ack,
        Self::Heartbeat,
        Self::Membership,
        Self::Yours,
        Self::Mine,
        Self::Divergence,
        Self::Goodbye,
        Self::Dropped,
        Self::Hello,
        Self::Welcome,
        Self::Offer,
        Self::Accept,
        Self::Refuse,
        Self::Pages,
        Self::Seed,
        Self::Ready,
        Self::Forwarded,
    ];

    /// Longest body of this kind, in bytes: a receiver must be ready to hold it.
    #[must_use]
    pub const fn most(self) -> u32 {
        match self {
            Self::Records => RECORDS_HEAD as u32 + RECORDS_MAX,
            Self::Ack | Self::Heartbeat | Self::Mine | Self::Hello => 32,
            Self::Membership | Self::Yours => 256,
            Self::Divergence | Self::Refuse => 8 << 10,
            Self::Goodbye | Self::Accept | Self::Ready => 0,
            Self::Dropped | Self::Welcome => 16,
            Self::Offer => 64 << 10,
            Self::Forwarded => PACKET_MAX,
            Self::Pages => (PAGES_MAX * (4 + crate::PAGE)) as u32,
            Self::Seed => 1 << 20,
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
    /// CRC-32 (IEEE) of the header up to here and of the body.
    pub checksum: u32,
}

impl Header {
    /// The header of a body that consists of these parts. Their total length is at most
    /// [`Kind::most`].
    #[must_use]
    pub fn of(kind: Kind, body: &[&[u8]]) -> Self {
        let length = body.iter().map(|part| part.len() as u32).sum();
        let mut header = Self { kind, length, checksum: 0 };
        header.checksum = header.expected(body);
        header
    }

    /// The checksum that the header has with this body.
    #[must_use]
    pub fn expected(&self, body: &[&[u8]]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.encode()[..12]);
        body.iter().for_each(|part| crc.update(part));
        crc.finalize()
    }

    /// Encodes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut out = [0; HEADER_SIZE];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
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
        if u16_at(4) != VERSION {
            return Err(WireError::Version { ours: VERSION, theirs: u16_at(4) });
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

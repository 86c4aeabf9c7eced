//! The manifest: what the journal is, written once.

use super::{
    JournalId, Refused,
    fields::{check_start, long, put, put_start, seal, word},
};

/// First bytes of a manifest.
pub const MAGIC: [u8; 8] = *b"vmljrnl\0";
/// Size of the header, in bytes; the identity follows.
pub const HEADER: usize = 64;
/// Longest identity, in bytes.
pub const IDENTITY_MAX: usize = 256 << 10;

/// A journal's manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The journal's id, random.
    pub id: JournalId,
    /// Position of the first record that was ever appended. The base is the snapshot before it.
    pub first: u64,
    /// When the journal was created, in ns of Unix time. Information for people.
    pub created_ns: u64,
    /// What the journal belongs to. It means nothing to this crate: the VMM puts the VM manifest
    /// and the CPU model there, and compares them.
    pub identity: Vec<u8>,
}

impl Manifest {
    /// Encodes the whole file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        put_start(&mut out, &MAGIC, &self.id);
        put(&mut out, 32, &self.first.to_le_bytes());
        put(&mut out, 40, &self.created_ns.to_le_bytes());
        put(&mut out, 48, &(self.identity.len() as u32).to_le_bytes());
        put(&mut out, 52, &crc32fast::hash(&self.identity).to_le_bytes());
        seal(&mut out);
        out.extend_from_slice(&self.identity);
        out
    }

    /// Decodes a whole file.
    ///
    /// # Errors
    /// When it is not what [`encode`](Self::encode) returned for some manifest.
    pub fn decode(file: &[u8]) -> Result<Self, Refused> {
        let (header, identity) =
            file.split_at_checked(HEADER).ok_or(Refused::Because("it is too short"))?;
        let id = check_start(header, &MAGIC)?;
        if identity.len() > IDENTITY_MAX || word(header, 48) as usize != identity.len() {
            return Err(Refused::Because("its length is wrong"));
        }
        if word(header, 52) != crc32fast::hash(identity) {
            return Err(Refused::Because("the checksum of the identity is wrong"));
        }
        let first = long(header, 32);
        if first == 0 {
            return Err(Refused::Because("no record has position 0"));
        }
        Ok(Self { id, first, created_ns: long(header, 40), identity: identity.to_vec() })
    }
}

//! The file that registers a snapshot: a snapshot without it does not count.

use super::{
    JournalId, Refused,
    fields::{check_start, long, put, put_start, seal, word},
};

/// First bytes of such a file.
pub const MAGIC: [u8; 8] = *b"vmlresm\0";
/// Size of the header, in bytes; the resume bytes follow.
pub const HEADER: usize = 72;
/// Most resume bytes.
pub const RESUME_MAX: usize = 64 << 10;

/// A registered snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registered {
    /// The journal's id.
    pub id: JournalId,
    /// The last record whose effect the snapshot contains.
    pub position: u64,
    /// Size of the snapshot's file, in bytes.
    pub size: u64,
    /// When it was registered, in ns of Unix time.
    pub taken_ns: u64,
    /// What the VMM needs to go on from it; means nothing to this crate.
    pub resume: Vec<u8>,
}

impl Registered {
    /// Encodes the whole file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        put_start(&mut out, &MAGIC, &self.id);
        put(&mut out, 32, &self.position.to_le_bytes());
        put(&mut out, 40, &self.size.to_le_bytes());
        put(&mut out, 48, &self.taken_ns.to_le_bytes());
        put(&mut out, 56, &(self.resume.len() as u32).to_le_bytes());
        put(&mut out, 60, &crc32fast::hash(&self.resume).to_le_bytes());
        seal(&mut out);
        out.extend_from_slice(&self.resume);
        out
    }

    /// Decodes the whole file of the journal `id` for `position`.
    ///
    /// # Errors
    /// When it is not what [`encode`](Self::encode) returned for that position of that journal.
    pub fn decode(file: &[u8], id: &JournalId, position: u64) -> Result<Self, Refused> {
        let (header, resume) =
            file.split_at_checked(HEADER).ok_or(Refused::Because("it is too short"))?;
        if check_start(header, &MAGIC)? != *id {
            return Err(Refused::Because("it belongs to another journal"));
        }
        if long(header, 32) != position {
            return Err(Refused::Because("it has another position than its name"));
        }
        if resume.len() > RESUME_MAX || word(header, 56) as usize != resume.len() {
            return Err(Refused::Because("its length is wrong"));
        }
        if word(header, 60) != crc32fast::hash(resume) {
            return Err(Refused::Because("the checksum of the resume bytes is wrong"));
        }
        Ok(Self {
            id: *id,
            position,
            size: long(header, 40),
            taken_ns: long(header, 48),
            resume: resume.to_vec(),
        })
    }
}

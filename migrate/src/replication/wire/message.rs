//! The messages, and their bodies.

use super::{
    header::{HEADER_SIZE, Header, Kind, RECORDS_HEAD},
    seeding::Seeding,
};
use crate::{
    replication::{
        Commit, Position,
        arbiter::{Term, Versioned},
    },
    wire::{WireError, gist, plain, read, small},
};

/// What stands before the records of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RecordsHead {
    /// Position of the first record.
    pub first: Position,
    /// Position of the last.
    pub last: Position,
    /// The primary has released all output up to here.
    pub released: Position,
    /// The primary's clock when it sent them, in ns; the standby returns it with its ack.
    pub stamp_ns: u64,
}

/// A message of a replication connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// Primary: consecutive records of the input log. A sender that does not want to copy them
    /// uses [`records_head`].
    Records(RecordsHead, Vec<u8>),
    /// Standby: it has received and executed all records up to these positions.
    Ack {
        /// Received.
        received: Position,
        /// Executed; at most `received`.
        executed: Position,
        /// The stamp of the records that it received last.
        stamp_ns: u64,
    },
    /// Either side: it is there.
    Heartbeat {
        /// The term that the sender knows of.
        term: Term,
        /// All output up to here has been released, as far as the sender knows.
        released: Position,
    },
    /// Primary: the arbiter's record, as it is now, and which acks the primary waits for.
    Membership(Versioned, Commit),
    /// Primary: the VM is yours from this position on, by this record of the arbiter.
    Yours {
        /// The last record of the primary.
        position: Position,
        /// The record, in which the standby is active and the primary in sync.
        record: Versioned,
    },
    /// Standby: it runs the VM from this position on, in this term.
    Mine {
        /// As in [`Self::Yours`].
        position: Position,
        /// The record's term.
        term: Term,
    },
    /// Standby: its copy did something else at this position than the log says.
    Divergence {
        /// The record.
        position: Position,
        /// The difference, for people.
        what: String,
    },
    /// Primary: the VM is protected no longer; the standby is to end.
    Goodbye,
    /// Primary: the standby is no longer in the set, by the arbiter's record of this term.
    Dropped(Term),
    /// Standby that was the primary before a swap: a packet for the guest that has reached it
    /// since, with its virtio-net header.
    Forwarded(Vec<u8>),
    /// Either side: before the standby follows.
    Seeding(Seeding),
}

impl Message {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Records(..) => Kind::Records,
            Self::Ack { .. } => Kind::Ack,
            Self::Heartbeat { .. } => Kind::Heartbeat,
            Self::Membership(..) => Kind::Membership,
            Self::Yours { .. } => Kind::Yours,
            Self::Mine { .. } => Kind::Mine,
            Self::Divergence { .. } => Kind::Divergence,
            Self::Goodbye => Kind::Goodbye,
            Self::Dropped(_) => Kind::Dropped,
            Self::Forwarded(_) => Kind::Forwarded,
            Self::Seeding(seeding) => seeding.kind(),
        }
    }

    /// Header and body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        if let Self::Records(head, records) = self {
            return [&records_head(*head, records)[..], records].concat();
        }
        let body = self.body();
        [&Header::of(self.kind(), &[&body]).encode()[..], &body].concat()
    }

    fn body(&self) -> Vec<u8> {
        match self {
            Self::Records(head, records) => [&head.encode()[..], records].concat(),
            Self::Ack { received, executed, stamp_ns } => {
                numbers([*received, *executed, *stamp_ns])
            }
            Self::Heartbeat { term, released } => numbers([term.0, *released]),
            Self::Membership(record, commit) => small(&(record, commit)),
            Self::Yours { position, record } => small(&(position, record)),
            Self::Mine { position, term } => numbers([*position, term.0]),
            Self::Divergence { position, what } => small(&(position, gist(what))),
            Self::Goodbye => Vec::new(),
            Self::Dropped(term) => numbers([term.0]),
            Self::Forwarded(packet) => packet.clone(),
            Self::Seeding(seeding) => seeding.body(),
        }
    }
}

impl RecordsHead {
    fn encode(&self) -> [u8; RECORDS_HEAD] {
        let mut out = [0; RECORDS_HEAD];
        let numbers = [self.first, self.last, self.released, self.stamp_ns];
        let (chunks, _) = out.as_chunks_mut::<8>();
        chunks.iter_mut().zip(numbers).for_each(|(to, number)| *to = number.to_le_bytes());
        out
    }

    /// The numbers are those of consecutive records, each of which has at least a byte.
    fn check(&self, bytes: usize) -> Result<(), WireError> {
        let count = self.last.checked_sub(self.first);
        let fits = count.is_some_and(|count| count < bytes as u64);
        if self.first == 0 || !fits {
            return Err(WireError::Body("records"));
        }
        Ok(())
    }
}

/// All of [`Message::Records`] that comes before `records` themselves. These have at most
/// [`RECORDS_MAX`](super::RECORDS_MAX) bytes.
#[must_use]
pub fn records_head(head: RecordsHead, records: &[u8]) -> [u8; HEADER_SIZE + RECORDS_HEAD] {
    let mut out = [0; HEADER_SIZE + RECORDS_HEAD];
    let body = head.encode();
    out[..HEADER_SIZE].copy_from_slice(&Header::of(Kind::Records, &[&body, records]).encode());
    out[HEADER_SIZE..].copy_from_slice(&body);
    out
}

fn numbers<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn read_numbers<const N: usize>(body: &[u8], what: &'static str) -> Result<[u64; N], WireError> {
    let (numbers, rest) = body.as_chunks::<8>();
    let numbers: [[u8; 8]; N] = numbers.try_into().map_err(|_| WireError::Body(what))?;
    if rest.is_empty() { Ok(numbers.map(u64::from_le_bytes)) } else { Err(WireError::Body(what)) }
}

fn checked(record: Versioned) -> Result<Versioned, WireError> {
    record.record.check().map_err(|error| WireError::Body(error.0))?;
    Ok(record)
}

/// Checks a body against its header and decodes it.
///
/// # Errors
/// [`WireError::Checksum`], [`WireError::Body`].
pub fn decode(header: &Header, body: &[u8]) -> Result<Message, WireError> {
    if body.len() != header.length as usize || header.expected(&[body]) != header.checksum {
        return Err(WireError::Checksum);
    }
    if let Some(seeding) = Seeding::decode(header.kind, body)? {
        return Ok(Message::Seeding(seeding));
    }
    Ok(match header.kind {
        Kind::Records => {
            let wrong = WireError::Body("records");
            let (head, records) = body.split_first_chunk::<RECORDS_HEAD>().ok_or(wrong)?;
            let [first, last, released, stamp_ns] = read_numbers(head, "records")?;
            let head = RecordsHead { first, last, released, stamp_ns };
            head.check(records.len())?;
            Message::Records(head, records.to_vec())
        }
        Kind::Ack => {
            let [received, executed, stamp_ns] = read_numbers(body, "an ack")?;
            if executed > received {
                return Err(WireError::Body("an ack of more than was received"));
            }
            Message::Ack { received, executed, stamp_ns }
        }
        Kind::Heartbeat => {
            let [term, released] = read_numbers(body, "a heartbeat")?;
            Message::Heartbeat { term: Term(term), released }
        }
        Kind::Membership => {
            let (record, commit) = read(body, "an arbiter's record")?;
            Message::Membership(checked(record)?, commit)
        }
        Kind::Yours => {
            let (position, record) = read(body, "an arbiter's record")?;
            Message::Yours { position, record: checked(record)? }
        }
        Kind::Mine => {
            let [position, term] = read_numbers(body, "an answer to a swap")?;
            Message::Mine { position, term: Term(term) }
        }
        Kind::Divergence => {
            let (position, what): (_, String) = read(body, "a divergence")?;
            plain(&what)?;
            Message::Divergence { position, what }
        }
        Kind::Goodbye => Message::Goodbye,
        Kind::Dropped => {
            let [term] = read_numbers(body, "a term")?;
            Message::Dropped(Term(term))
        }
        Kind::Forwarded => Message::Forwarded(body.to_vec()),
        Kind::Hello
        | Kind::Welcome
        | Kind::Offer
        | Kind::Accept
        | Kind::Refuse
        | Kind::Pages
        | Kind::Seed
        | Kind::Ready => return Err(WireError::Kind(header.kind as u16)),
    })
}

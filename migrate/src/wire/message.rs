//! Messages and their bodies: postcard for small ones, raw pages for large ones.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{HEADER_SIZE, Header, Kind, PageFrame, WireError, encode_page_frame_head};
use crate::{
    MoveId, PAGE, ReceiverId,
    brownout::Settled,
    offer::{Offer, Refusal},
};

/// The outcome of a move, as its destination knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// It accepted the commit: the VM runs there, or did.
    Ran,
    /// It did not run the VM and never will: the VM may run at the source.
    Never,
    /// Another process received then, and this one does not know the outcome.
    Unknown,
    /// It accepted the commit, and pages are missing: a list of them comes next.
    Lacking,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// See [`Kind::Hello`].
    Hello(MoveId),
    /// See [`Kind::Welcome`]: the move, and the receiver.
    Welcome(MoveId, ReceiverId),
    /// See [`Kind::Offer`].
    Offer(Box<Offer>),
    /// See [`Kind::Accept`].
    Accept(Accepted),
    /// See [`Kind::Refuse`].
    Refuse(Refusal),
    /// See [`Kind::Pages`]: numbers and contents.
    Pages(Vec<(u64, Box<[u8; PAGE]>)>),
    /// See [`Kind::Zero`]: runs of pages, first and count.
    Zero(Vec<Run>),
    /// See [`Kind::RoundEnd`]: its number.
    RoundEnd(u32),
    /// See [`Kind::RoundDone`]: its number.
    RoundDone(u32),
    /// See [`Kind::State`].
    State(Vec<u8>),
    /// See [`Kind::Ready`].
    Ready,
    /// See [`Kind::Commit`]: the move, so that a commit that is repeated on another connection has
    /// no effect there, and the state, empty if it was sent before.
    Commit(MoveId, Vec<u8>),
    /// See [`Kind::Running`].
    Running(Started),
    /// See [`Kind::Forwarded`].
    Forwarded(Vec<u8>),
    /// See [`Kind::ForwardedEnd`].
    ForwardedEnd,
    /// See [`Kind::Abort`]: why.
    Abort(String),
    /// See [`Kind::Query`]: the move, and its receiver.
    Query(MoveId, ReceiverId),
    /// See [`Kind::Outcome`]: the move, and its outcome. It names the move for the same reason as
    /// the commit.
    Outcome(MoveId, Outcome),
    /// See [`Kind::Follow`]: runs of pages.
    Follow(Vec<Run>),
    /// See [`Kind::Want`]: runs of pages.
    Want(Vec<Run>),
    /// See [`Kind::Filled`]: how many pages have arrived on this connection since the commit.
    Filled(u64),
    /// See [`Kind::Whole`].
    Whole(Arrival),
    /// See [`Kind::Lacks`]: runs of pages; an empty list ends the report.
    Lacks(Vec<Run>),
    /// See [`Kind::SwitchHint`].
    SwitchHint(Vec<u8>),
    /// See [`Kind::Settled`].
    Settled(Settled),
    /// See [`Kind::Preparing`].
    Preparing,
    /// See [`Kind::Stopping`].
    Stopping,
    /// See [`Kind::Heard`].
    Heard,
}

/// Consecutive pages: the first, and how many.
pub type Run = (u64, u64);

/// Most runs in one message: far below what the header allows.
pub const RUNS_PER_MESSAGE: usize = 1000;

/// What a destination reports when it accepts a VM.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Accepted {
    /// Whether post-copy is possible.
    pub follow: bool,
    /// How long it took to apply a state in a trial, in ns.
    pub apply_ns: u64,
}

/// How post-copy pages arrived, by the destination's clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Arrival {
    /// Pages that the guest had to wait for.
    pub waited: u32,
    /// How long it waited for them in total, in ns.
    pub waited_ns: u64,
    /// The longest of these, in ns.
    pub worst_ns: u64,
}

/// How the start at the destination took place, by its own clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Started {
    /// From the arrival of the state's first byte until it was applied, in ns.
    pub apply_ns: u64,
    /// From the arrival of the commit, or from when the state that came with it was applied, to
    /// right before the first instruction, in ns.
    pub run_ns: u64,
    /// From then until this message was sent, in ns: not part of the blackout.
    pub told_ns: u64,
}

impl Message {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Welcome(..) => Kind::Welcome,
            Self::Offer(_) => Kind::Offer,
            Self::Accept(_) => Kind::Accept,
            Self::Refuse(_) => Kind::Refuse,
            Self::Pages(_) => Kind::Pages,
            Self::Zero(_) => Kind::Zero,
            Self::RoundEnd(_) => Kind::RoundEnd,
            Self::RoundDone(_) => Kind::RoundDone,
            Self::State(_) => Kind::State,
            Self::Ready => Kind::Ready,
            Self::Commit(..) => Kind::Commit,
            Self::Running(_) => Kind::Running,
            Self::Forwarded(_) => Kind::Forwarded,
            Self::ForwardedEnd => Kind::ForwardedEnd,
            Self::Abort(_) => Kind::Abort,
            Self::Query(..) => Kind::Query,
            Self::Outcome(..) => Kind::Outcome,
            Self::Follow(_) => Kind::Follow,
            Self::Want(_) => Kind::Want,
            Self::Filled(_) => Kind::Filled,
            Self::Whole(_) => Kind::Whole,
            Self::Lacks(_) => Kind::Lacks,
            Self::SwitchHint(_) => Kind::SwitchHint,
            Self::Settled(_) => Kind::Settled,
            Self::Preparing => Kind::Preparing,
            Self::Stopping => Kind::Stopping,
            Self::Heard => Kind::Heard,
        }
    }

    /// Header and body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = self.body();
        let header = Header::of(self.kind(), body.len() as u32, crc32fast::hash(&body));
        let mut out = Vec::with_capacity(HEADER_SIZE + body.len());
        out.extend(header.encode());
        out.extend(body);
        out
    }

    fn body(&self) -> Vec<u8> {
        match self {
            Self::Hello(id) => id.to_vec(),
            Self::Commit(id, state) => [&id[..], state].concat(),
            Self::Welcome(id, receiver) | Self::Query(id, receiver) => [*id, *receiver].concat(),
            Self::Offer(offer) => small(offer),
            Self::Refuse(Refusal::Prepare(why)) => small(&Refusal::Prepare(gist(why))),
            Self::Refuse(why) => small(why),
            Self::Pages(pages) => {
                let numbers: Vec<u64> = pages.iter().map(|(n, _)| *n).collect();
                let mut body = encode_page_frame_head(&numbers);
                pages.iter().for_each(|(_, page)| body.extend_from_slice(&page[..]));
                body
            }
            Self::Accept(accepted) => small(accepted),
            Self::Zero(runs) | Self::Follow(runs) | Self::Want(runs) | Self::Lacks(runs) => {
                small(runs)
            }
            Self::Filled(count) => count.to_le_bytes().to_vec(),
            Self::Whole(arrival) => small(arrival),
            Self::Settled(settled) => small(settled),
            Self::RoundEnd(n) | Self::RoundDone(n) => n.to_le_bytes().to_vec(),
            Self::State(bytes) | Self::Forwarded(bytes) | Self::SwitchHint(bytes) => bytes.clone(),
            Self::Running(started) => small(started),
            Self::Abort(why) => gist(why).into_bytes(),
            Self::Outcome(id, outcome) => small(&(id, outcome)),
            Self::Ready | Self::ForwardedEnd | Self::Preparing | Self::Stopping | Self::Heard => {
                Vec::new()
            }
        }
    }
}

/// Shortens a reason to its gist on one line: a reader needs no more, and the header allows no
/// more.
pub(crate) fn gist(why: &str) -> String {
    why.chars().take(1000).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Refuses control characters in a peer's text, as people will read it: it could steer their
/// terminals.
pub(crate) fn plain(text: &str) -> Result<(), WireError> {
    if text.chars().any(char::is_control) { Err(WireError::Body("a reason")) } else { Ok(()) }
}

pub(crate) fn small(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("these types have nothing that postcard cannot write")
}

pub(crate) fn read<T: DeserializeOwned>(body: &[u8], what: &'static str) -> Result<T, WireError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(WireError::Body(what)),
    }
}

/// Runs of pages, each inside the VM's memory of `limit` pages.
fn runs(body: &[u8], limit: usize) -> Result<Vec<Run>, WireError> {
    let runs: Vec<Run> = read(body, "runs of pages")?;
    let inside =
        |&(first, count): &Run| first.checked_add(count).is_some_and(|end| end <= limit as u64);
    // In total at most the number of pages: repetition would cost the receiver time and convey
    // nothing.
    let all = runs.iter().map(|(_, count)| u128::from(*count)).sum::<u128>();
    if runs.iter().all(inside) && all <= limit as u128 {
        Ok(runs)
    } else {
        Err(WireError::Body("a page outside of the VM's memory"))
    }
}

/// Checks a body against its header and decodes it. `limit` is the number of pages of the VM, 0
/// while there is none.
///
/// # Errors
/// [`WireError::Checksum`], [`WireError::Body`].
pub fn decode(header: &Header, body: &[u8], limit: usize) -> Result<Message, WireError> {
    if body.len() != header.length as usize || crc32fast::hash(body) != header.checksum {
        return Err(WireError::Checksum);
    }
    let two = || match body.as_chunks::<16>() {
        ([id, receiver], []) => Ok((*id, *receiver)),
        _ => Err(WireError::Body("a move's and a receiver's number")),
    };
    let id = || MoveId::try_from(body).map_err(|_| WireError::Body("a move's number"));
    let number =
        || body.try_into().map(u32::from_le_bytes).map_err(|_| WireError::Body("a round's number"));
    Ok(match header.kind {
        Kind::Hello => Message::Hello(id()?),
        Kind::Welcome => two().map(|(id, receiver)| Message::Welcome(id, receiver))?,
        Kind::Query => two().map(|(id, receiver)| Message::Query(id, receiver))?,
        Kind::Offer => Message::Offer(Box::new(read(body, "an offer")?)),
        Kind::Accept => Message::Accept(read(body, "an acceptance")?),
        Kind::Refuse => {
            let why: Refusal = read(body, "a refusal")?;
            plain(&why.to_string())?;
            Message::Refuse(why)
        }
        Kind::Pages => {
            let frame = PageFrame::decode(body, limit)?;
            Message::Pages(frame.iter().map(|(n, page)| (n as u64, Box::new(*page))).collect())
        }
        Kind::Zero => Message::Zero(runs(body, limit)?),
        Kind::Follow => Message::Follow(runs(body, limit)?),
        Kind::Want => Message::Want(runs(body, limit)?),
        Kind::Lacks => Message::Lacks(runs(body, limit)?),
        Kind::Filled => Message::Filled(
            body.try_into().map(u64::from_le_bytes).map_err(|_| WireError::Body("a count"))?,
        ),
        Kind::Whole => Message::Whole(read(body, "an arrival")?),
        Kind::Settled => Message::Settled(read(body, "a guest's speed")?),
        Kind::RoundEnd => Message::RoundEnd(number()?),
        Kind::RoundDone => Message::RoundDone(number()?),
        Kind::State => Message::State(body.to_vec()),
        Kind::Ready => Message::Ready,
        Kind::SwitchHint => Message::SwitchHint(body.to_vec()),
        Kind::Commit => match body.split_first_chunk() {
            Some((id, state)) => Message::Commit(*id, state.to_vec()),
            None => return Err(WireError::Body("a move's number")),
        },
        Kind::Running => Message::Running(read(body, "a start")?),
        Kind::Forwarded => Message::Forwarded(body.to_vec()),
        Kind::ForwardedEnd => Message::ForwardedEnd,
        Kind::Preparing => Message::Preparing,
        Kind::Stopping => Message::Stopping,
        Kind::Heard => Message::Heard,
        Kind::Abort => {
            let why = String::from_utf8(body.to_vec()).map_err(|_| WireError::Body("a reason"))?;
            plain(&why)?;
            Message::Abort(why)
        }
        Kind::Outcome => {
            let (id, outcome) = read(body, "an outcome")?;
            Message::Outcome(id, outcome)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_would_steer_a_terminal_is_refused() {
        let evil = "\u{1b}]0;gone\u{7}";
        let header = |kind, body: &[u8]| Header::of(kind, body.len() as u32, crc32fast::hash(body));
        let aborts = evil.as_bytes();
        assert!(decode(&header(Kind::Abort, aborts), aborts, 0).is_err());
        let refuses = postcard::to_stdvec(&Refusal::Features(vec![evil.into()])).unwrap();
        assert!(decode(&header(Kind::Refuse, &refuses), &refuses, 0).is_err());
        // An honest reason of two lines arrives as one.
        let bytes = Message::Abort("a\nb".into()).encode();
        let (head, body) = bytes.split_first_chunk::<HEADER_SIZE>().unwrap();
        let came = decode(&Header::decode(head).unwrap(), body, 0);
        assert_eq!(came, Ok(Message::Abort("a b".into())));
    }

    #[test]
    fn a_long_reason_arrives_shortened() {
        let long = "\u{10ffff}".repeat(5000);
        for message in
            [Message::Abort(long.clone()), Message::Refuse(Refusal::Prepare(long.clone()))]
        {
            let bytes = message.encode();
            let (header, body) = bytes.split_first_chunk::<HEADER_SIZE>().unwrap();
            let header = Header::decode(header).expect("a body within its kind's limit");
            assert_eq!(decode(&header, body, 0).unwrap().kind(), message.kind());
        }
    }
}

//! Arbitrary messages from bytes.

use super::{ID, ME, arrives};
use arbitrary::Arbitrary;
use migrate::{
    PAGE,
    brownout::{Brownout, Settled},
    offer::{Offer, Refusal},
    wire::{Accepted, Arrival, HEADER_SIZE, Header, Message, Outcome, Run, Started, decode},
};

#[derive(Arbitrary, Debug)]
pub enum ArbitraryMessage<'a> {
    Hello(u8),
    Welcome(u8, u8),
    /// To this receiver or to another one.
    Offer(bool, &'a str, u16, u32, bool, &'a [u8]),
    Accept(bool, u64),
    Refuse(&'a str),
    RefuseFeatures(Vec<String>),
    RefuseBusy,
    Zero(Vec<(u64, u64)>),
    RoundEnd(u32),
    RoundDone(u8),
    State(&'a [u8]),
    Ready,
    Commit(u8, &'a [u8]),
    SwitchHint(&'a [u8]),
    Running(u64, u64, u64),
    Forwarded(&'a [u8]),
    ForwardedEnd,
    Abort(&'a str),
    Query(u8, u8),
    Outcome(u8, u8),
    Follow(Vec<Run>),
    Want(Vec<Run>),
    Filled(u64),
    Whole(u32, u64, u64),
    Lacks(Vec<Run>),
    Settled(u8, u64, u64, u64),
    Preparing,
    Stopping,
    Raw(&'a [u8]),
}

impl ArbitraryMessage<'_> {
    fn message(&self) -> Option<Message> {
        let id = |n: &u8| [*n; 16];
        Some(match self {
            Self::Hello(n) => Message::Hello(id(n)),
            Self::Welcome(n, by) => Message::Welcome(id(n), id(by)),
            Self::Offer(mine, name, pages, interface_version, network, identity) => {
                Message::Offer(Box::new(Offer {
                    receiver: if *mine { ME } else { ID },
                    name: (*name).into(),
                    memory_size: u64::from(*pages) * PAGE as u64,
                    interface_version: *interface_version,
                    network: *network,
                    identity: identity.to_vec(),
                }))
            }
            Self::Accept(follow, apply_ns) => {
                Message::Accept(Accepted { follow: *follow, apply_ns: *apply_ns })
            }
            Self::Refuse(why) => Message::Refuse(Refusal::Prepare((*why).into())),
            Self::RefuseFeatures(which) => Message::Refuse(Refusal::Features(which.clone())),
            Self::RefuseBusy => Message::Refuse(Refusal::Busy),
            Self::Zero(runs) => Message::Zero(runs.clone()),
            Self::RoundEnd(n) => Message::RoundEnd(*n),
            Self::RoundDone(n) => Message::RoundDone((*n).into()),
            Self::State(bytes) => Message::State(bytes.to_vec()),
            Self::Ready => Message::Ready,
            Self::Commit(n, state) => Message::Commit(id(n), state.to_vec()),
            Self::SwitchHint(invariant) => Message::SwitchHint(invariant.to_vec()),
            Self::Running(apply_ns, run_ns, told_ns) => Message::Running(Started {
                apply_ns: *apply_ns,
                run_ns: *run_ns,
                told_ns: *told_ns,
            }),
            Self::Forwarded(frame) => Message::Forwarded(frame.to_vec()),
            Self::ForwardedEnd => Message::ForwardedEnd,
            Self::Abort(why) => Message::Abort((*why).into()),
            Self::Query(n, by) => Message::Query(id(n), id(by)),
            Self::Outcome(n, what) => {
                let what = match what % 4 {
                    0 => Outcome::Ran,
                    1 => Outcome::Never,
                    2 => Outcome::Lacking,
                    _ => Outcome::Unknown,
                };
                Message::Outcome(id(n), what)
            }
            Self::Follow(runs) => Message::Follow(runs.clone()),
            Self::Want(runs) => Message::Want(runs.clone()),
            Self::Filled(count) => Message::Filled(*count),
            Self::Whole(waited, waited_ns, worst_ns) => {
                let (waited, waited_ns, worst_ns) = (*waited, *waited_ns, *worst_ns);
                Message::Whole(Arrival { waited, waited_ns, worst_ns })
            }
            Self::Lacks(runs) => Message::Lacks(runs.clone()),
            Self::Settled(what, ns, page_faults, lost_ns) => {
                Message::Settled(settled(*what, *ns, *page_faults, *lost_ns))
            }
            Self::Preparing => Message::Preparing,
            Self::Stopping => Message::Stopping,
            Self::Raw(bytes) => {
                let (header, body) = bytes.split_first_chunk::<HEADER_SIZE>()?;
                let header = Header::decode(header).ok()?;
                let header = Header::of(header.kind, body.len() as u32, crc32fast::hash(body));
                Header::decode(&header.encode())
                    .ok()
                    .and_then(|h| decode(&h, body, super::PAGES).ok())?
            }
        })
    }

    /// The message as it arrives: `None` if the wire would refuse it.
    pub fn arrives(&self) -> Option<Message> {
        arrives(&self.message()?)
    }
}

/// How a guest returned to full speed.
pub fn settled(what: u8, ns: u64, page_faults: u64, lost_ns: u64) -> Settled {
    let brownout = match what % 3 {
        0 => Brownout::Over(ns),
        1 => Brownout::Lasts(ns),
        _ => Brownout::Unknown,
    };
    Settled { brownout, page_faults, lost_ns }
}

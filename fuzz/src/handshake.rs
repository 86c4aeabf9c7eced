//! Both machines, fed any messages and any answers to what they ask for, at any time.
//!
//! Input: which machine, and events as [`arbitrary`] makes them of bytes. Messages go through the wire's encoding.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use migrate::{
    MoveId, PAGE, ReceiverId,
    brownout::{Brownout, Settled},
    destination::{self, Destination, Ledger, Patience},
    offer::{Offer, Refusal},
    pages::Pages,
    source::{self, Ended, Mode, Sent, Settings, Source, Stopped},
    wire::{Accepted, Arrival, HEADER_SIZE, Header, Message, Outcome, Run, Started, decode},
};

use crate::wire::round_trip;

/// Pages of the VM.
const PAGES: usize = 70;
const ID: MoveId = [1; 16];
const ME: ReceiverId = [2; 16];

#[derive(Arbitrary, Debug)]
enum Said<'a> {
    Hello(u8),
    Welcome(u8, u8),
    /// To this receiver or another.
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
    Brace(&'a [u8]),
    Running(u64, u64, u64),
    Late(&'a [u8]),
    LateEnd,
    Abort(&'a str),
    Query(u8, u8),
    Outcome(u8, u8),
    Follow(Vec<Run>),
    Want(Vec<Run>),
    Filled(u64),
    Whole(u32, u64, u64),
    Lacks(Vec<Run>),
    Settled(u8, u64, u64, u64),
    Raw(&'a [u8]),
    Stopping,
}

impl Said<'_> {
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
            Self::Brace(steady) => Message::Brace(steady.to_vec()),
            Self::Running(apply_ns, run_ns, told_ns) => Message::Running(Started {
                apply_ns: *apply_ns,
                run_ns: *run_ns,
                told_ns: *told_ns,
            }),
            Self::Late(frame) => Message::Late(frame.to_vec()),
            Self::LateEnd => Message::LateEnd,
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
            Self::Stopping => Message::Stopping,
            Self::Raw(bytes) => {
                let (header, body) = bytes.split_first_chunk::<HEADER_SIZE>()?;
                let header = Header::decode(header).ok()?;
                let header = Header::of(header.kind, body.len() as u32, crc32fast::hash(body));
                Header::decode(&header.encode()).ok().and_then(|h| decode(&h, body, PAGES).ok())?
            }
        })
    }

    /// As it arrives: `None` if the wire would not bring it.
    fn arrives(&self) -> Option<Message> {
        arrives(&self.message()?)
    }
}

fn settled(what: u8, ns: u64, page_faults: u64, lost_ns: u64) -> Settled {
    let brownout = match what % 3 {
        0 => Brownout::Over(ns),
        1 => Brownout::Lasts(ns),
        _ => Brownout::Unknown,
    };
    Settled { brownout, page_faults, lost_ns }
}

fn arrives(message: &Message) -> Option<Message> {
    let bytes = message.encode();
    let (header, body) = bytes.split_first_chunk::<HEADER_SIZE>()?;
    Header::decode(header).ok().and_then(|h| decode(&h, body, PAGES).ok())
}

#[derive(Arbitrary, Debug)]
enum AtSource<'a> {
    Said(Said<'a>),
    LinkLost,
    Reconnected,
    Cancel,
    Failed,
    Held,
    GivenUp(Vec<u64>),
    Sent(u64, u64, u64),
    Peeked(Vec<u64>, Vec<u64>),
    Dirty(Vec<u64>, Vec<u64>),
    Stopped(u64, u64, bool, Vec<u64>, Vec<u64>),
    Progress,
    Tick(u32),
    /// What the machine asked for last is done as it should be.
    Done,
}

#[derive(Arbitrary, Debug)]
enum AtDestination<'a> {
    Said(Said<'a>),
    Pages(Vec<Run>),
    Prepared(bool, bool),
    Forgot(bool),
    Fault(u8),
    Rejoined,
    VmEnded,
    Applied(bool),
    Runs,
    Settled(u8, u64, u64, u64),
    LinkLost,
    Asked,
    Tick(u32),
    /// What the machine asked for last is done as it should be.
    Done,
}

/// Neither machine panics, goes on after its end, or breaks the commit rule.
pub fn check(data: &[u8]) {
    let mut input = Unstructured::new(data);
    if input.arbitrary().unwrap_or(true) {
        source(&mut input);
    } else {
        destination(&mut input);
    }
}

fn offer() -> Offer {
    Offer {
        receiver: ReceiverId::default(),
        name: "vm".into(),
        memory_size: (PAGES * PAGE) as u64,
        interface_version: 1,
        network: true,
        identity: vec![1, 2, 3],
    }
}

/// What was given out so far.
#[derive(Debug, Default)]
struct Source1 {
    fenced: bool,
    committed: bool,
    resumed: bool,
    ended: bool,
    /// Whether the destination's word is that it never ran.
    word: bool,
    last: Option<source::Action>,
}

fn source(input: &mut Unstructured<'_>) {
    let mut now = Duration::ZERO;
    let mode = match input.arbitrary::<u8>().unwrap_or(0) % 4 {
        0 => Mode::Auto,
        1 => Mode::PreCopy,
        2 => Mode::Hybrid,
        _ => Mode::StopAndCopy,
    };
    let strict = input.arbitrary().unwrap_or(false);
    let settings = Settings { mode, strict, ..Settings::default() };
    let (mut machine, actions) = Source::begin(ID, offer(), settings, now);
    let mut seen = Source1::default();
    seen.look(actions);
    while let Ok(what) = input.arbitrary::<AtSource<'_>>() {
        let Some(event) = at_source(&what, &seen, &mut now) else { continue };
        if let source::Event::Message(Message::Outcome(ID, Outcome::Never)) = &event {
            seen.word |= seen.committed;
        }
        let actions = machine.handle(event, now);
        seen.look(actions);
        let _ = (machine.report(), machine.doing(), machine.rounds(), machine.bytes());
        assert_eq!(machine.committed(), seen.committed && !seen.ended);
        if input.is_empty() {
            break;
        }
    }
}

fn at_source(what: &AtSource<'_>, seen: &Source1, now: &mut Duration) -> Option<source::Event> {
    use source::{Action, Event};
    let pages = |words: &Vec<u64>| Pages::from_words(words.clone(), PAGES);
    let stopped = |requested, stopped, quiescent, dirty, dont_care: Pages| {
        Event::Stopped(Stopped {
            requested: Duration::from_nanos(requested),
            stopped: Duration::from_nanos(stopped),
            quiescent,
            dirty,
            needed: dont_care.iter().collect(),
            dont_care,
        })
    };
    Some(match what {
        AtSource::Said(said) => Event::Message(said.arrives()?),
        AtSource::LinkLost => Event::LinkLost("gone".into()),
        AtSource::Reconnected => Event::Reconnected,
        AtSource::Cancel => Event::Cancel("no".into()),
        AtSource::Failed => Event::Failed("no".into()),
        AtSource::Held => Event::Held,
        AtSource::GivenUp(words) => Event::GivenUp(pages(words)),
        // What this host measured itself: large, but not absurd.
        AtSource::Sent(bytes, full, zero) => Event::Sent(Sent {
            bytes: bytes >> 16,
            full: full >> 16,
            zero: zero >> 16,
            ..Sent::default()
        }),
        AtSource::Progress => Event::Progress,
        AtSource::Peeked(dirty, dont_care) => {
            Event::Peeked { dirty: pages(dirty), dont_care: pages(dont_care) }
        }
        AtSource::Dirty(dirty, dont_care) => {
            Event::Dirty { dirty: pages(dirty), dont_care: pages(dont_care) }
        }
        AtSource::Stopped(requested, at, quiescent, dirty, dont_care) => {
            stopped(*requested, *at, *quiescent, pages(dirty), pages(dont_care))
        }
        AtSource::Tick(us) => {
            *now += Duration::from_micros((*us).into());
            Event::Tick
        }
        AtSource::Done => match seen.last.as_ref()? {
            Action::SendPages { .. }
            | Action::Announce { .. }
            | Action::SendLast { hold: false, .. }
            | Action::SendFollowing(_) => {
                Event::Sent(Sent { bytes: 4096, full: 1, ..Sent::default() })
            }
            Action::PeekDirty => {
                Event::Peeked { dirty: Pages::none(PAGES), dont_care: Pages::none(PAGES) }
            }
            Action::TakeDirty => {
                Event::Dirty { dirty: Pages::none(PAGES), dont_care: Pages::none(PAGES) }
            }
            Action::SendLast { hold: true, .. } => Event::Held,
            Action::Stop { .. } => stopped(1, 2, true, Pages::all(PAGES), Pages::none(PAGES)),
            Action::Reconnect => Event::Reconnected,
            _ => return None,
        },
    })
}

impl Source1 {
    fn look(&mut self, actions: Vec<source::Action>) {
        use source::Action;
        for action in actions {
            assert!(!self.ended, "it goes on after its end: {action:?}");
            match &action {
                Action::Send(message) => round_trip(message, PAGES),
                Action::Commit(_) => {
                    assert!(self.fenced && !self.committed, "a commit without a fence, or twice");
                    self.committed = true;
                }
                Action::Fence => {
                    assert!(!self.fenced);
                    self.fenced = true;
                }
                Action::RunHere => {
                    assert!(
                        !self.resumed && (!self.fenced || self.word),
                        "it resumes after the commit"
                    );
                    self.resumed = true;
                }
                Action::End(Ended::Moved) => {
                    assert!(self.committed && !self.resumed);
                    self.ended = true;
                }
                Action::End(Ended::Failed(_)) => {
                    assert!(self.resumed, "it fails without letting the VM run");
                    self.ended = true;
                }
                _ => {}
            }
            self.last = Some(action);
        }
    }
}

/// What was given out so far.
#[derive(Debug, Default)]
struct Destination1 {
    prepared: bool,
    applied: bool,
    /// Whether the commit of this move has come.
    committed: bool,
    ran: bool,
    discarded: bool,
    ended: bool,
    last: Option<destination::Action>,
}

fn destination(input: &mut Unstructured<'_>) {
    use destination::Event;
    let mut now = Duration::ZERO;
    let patience =
        Patience { silence: Duration::from_secs(10), lost: Some(Duration::from_secs(60)) };
    let mut machine = Destination::new(ME, patience, now);
    let mut ledger = Ledger::new(ME);
    let mut seen = Destination1::default();
    while let Ok(what) = input.arbitrary::<AtDestination<'_>>() {
        let Some(event) = at_destination(&what, &seen, &mut now) else { continue };
        match &event {
            Event::Prepared(Ok(_)) => {
                seen.prepared |= matches!(seen.last, Some(destination::Action::Prepare(_)))
            }
            Event::Applied(Ok(())) => {
                seen.applied |= matches!(seen.last, Some(destination::Action::Apply(_)))
            }
            Event::Message(Message::Commit(id, _)) => seen.committed |= machine.id() == Some(*id),
            _ => {}
        }
        let actions = machine.handle(event, now);
        seen.look(actions, &machine, &mut ledger);
        assert!(!machine.runs() || seen.ran);
        if let Some(id) = machine.id() {
            let ran = ledger.outcome(&id, &ME) == Outcome::Ran;
            assert_eq!(ran, seen.ran);
            assert_eq!(ledger.outcome(&id, &[0; 16]), Outcome::Unknown);
        }
        if input.is_empty() {
            break;
        }
    }
}

fn at_destination(
    what: &AtDestination<'_>,
    seen: &Destination1,
    now: &mut Duration,
) -> Option<destination::Event> {
    use destination::{Action, Event};
    Some(match what {
        AtDestination::Said(said) => Event::Message(said.arrives()?),
        AtDestination::Pages(runs) => {
            // Drivers name pages that the wire has let through.
            let Message::Zero(runs) = arrives(&Message::Zero(runs.clone()))? else { return None };
            Event::Pages(runs)
        }
        AtDestination::Forgot(well) => Event::Forgot(well.then_some(()).ok_or("no".into())),
        AtDestination::Fault(page) => Event::Fault((*page).into()),
        AtDestination::Rejoined => Event::Rejoined,
        AtDestination::VmEnded => Event::VmEnded,
        AtDestination::Prepared(well, follow) => {
            let accepted = Accepted { follow: *follow, apply_ns: 1 };
            Event::Prepared(well.then_some(accepted).ok_or(Refusal::Network))
        }
        AtDestination::Applied(well) => Event::Applied(well.then_some(()).ok_or("no".into())),
        AtDestination::Runs => Event::Runs(Started::default()),
        AtDestination::Settled(what, ns, page_faults, lost_ns) => {
            Event::Settled(settled(*what, *ns, *page_faults, *lost_ns))
        }
        AtDestination::LinkLost => Event::LinkLost("gone".into()),
        AtDestination::Asked => Event::Asked,
        AtDestination::Tick(us) => {
            *now += Duration::from_micros((*us).into());
            Event::Tick
        }
        AtDestination::Done => match seen.last.as_ref()? {
            Action::Prepare(_) => Event::Prepared(Ok(Accepted { follow: true, apply_ns: 1 })),
            Action::Forget(_) => Event::Forgot(Ok(())),
            Action::Apply(_) => Event::Applied(Ok(())),
            Action::Run => Event::Runs(Started::default()),
            _ => return None,
        },
    })
}

impl Destination1 {
    fn look(
        &mut self,
        actions: Vec<destination::Action>,
        machine: &Destination,
        ledger: &mut Ledger,
    ) {
        use destination::Action;
        for action in actions {
            assert!(!self.ended, "it goes on after its end: {action:?}");
            match &action {
                Action::Send(message) => round_trip(message, PAGES),
                Action::Run => {
                    assert!(self.prepared && self.applied, "it runs what is not there");
                    assert!(self.committed, "it runs without a commit");
                    assert!(!self.ran && !self.discarded, "it runs twice, or what it threw away");
                    self.ran = true;
                    ledger.ran(machine.id().expect("a move that runs has a number"));
                }
                Action::Discard(_) => {
                    assert!(!self.ran, "it throws away what runs");
                    self.discarded = true;
                }
                Action::End => self.ended = true,
                _ => {}
            }
            self.last = Some(action);
        }
        assert_eq!(machine.ended(), self.ended);
    }
}

//! The source's machine, and the driver that answers it.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use migrate::{
    PAGE, ReceiverId,
    offer::Offer,
    pages::Pages,
    source::{Action, Ended, Event, Mode, Sent, Settings, Source, Stopped},
    wire::{Message, Outcome},
};

use super::{ID, PAGES, said::Said};
use crate::wire::round_trip;

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
struct Given {
    fenced: bool,
    committed: bool,
    resumed: bool,
    ended: bool,
    /// Whether the destination's word is that it never ran.
    word: bool,
    last: Option<Action>,
}

/// Feeds the machine with what is in `input`.
pub fn feed(input: &mut Unstructured<'_>) {
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
    let mut seen = Given::default();
    seen.look(actions);
    while let Ok(what) = input.arbitrary::<AtSource<'_>>() {
        let Some(event) = at_source(&what, &seen, &mut now) else { continue };
        if let Event::Message(Message::Outcome(ID, Outcome::Never)) = &event {
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

fn at_source(what: &AtSource<'_>, seen: &Given, now: &mut Duration) -> Option<Event> {
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

impl Given {
    fn look(&mut self, actions: Vec<Action>) {
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

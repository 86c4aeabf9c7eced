//! The source, with an honest driver and an honest destination that react to its actions.

use super::{Course, ID, ME, PAGES, message::ArbitraryMessage, offer};
use crate::wire::round_trip;
use arbitrary::{Arbitrary, Unstructured};
use migrate::{
    ReceiverId,
    brownout::{Brownout, Settled},
    page_set::PageSet,
    source::{Action, Ended, Event, Mode, Sent, Settings, Source, Stopped},
    wire::{Accepted, Arrival, Message, Outcome, Started},
};
use std::{collections::VecDeque, time::Duration};

#[derive(Arbitrary, Debug)]
enum At<'a> {
    Message(ArbitraryMessage<'a>),
    LinkLost,
    Reconnected,
    Cancel,
    Failed,
    Held,
    Reclaimed(Vec<u64>),
    LeftOut(Vec<u64>),
    Sent(u64, u64, u64),
    Peeked(Vec<u64>, Vec<u64>),
    Dirty(Vec<u64>, Vec<u64>),
    Stopped(u64, u64, bool, Vec<u64>, Vec<u64>),
    Progress,
    Tick(u32),
    /// The next event of a successful move. It is the last variant: see the parent module.
    Next,
}

/// One move.
pub fn drive(input: &mut Unstructured<'_>) -> Course {
    let mut now = Duration::ZERO;
    let mode = match input.arbitrary::<u8>().unwrap_or(0) % 4 {
        0 => Mode::Auto,
        1 => Mode::PreCopy,
        2 => Mode::Hybrid,
        _ => Mode::StopAndCopy,
    };
    let strict = input.arbitrary().unwrap_or(false);
    let together = input.arbitrary().unwrap_or(true);
    let settings = Settings { mode, strict, together, ..Settings::default() };
    let (mut machine, actions) = Source::begin(ID, offer(ReceiverId::default()), settings, now);
    let mut seen = Seen { course: Course { mode: Some(mode), ..Course::default() }, ..Seen::new() };
    seen.look(actions);
    while let Ok(what) = input.arbitrary::<At<'_>>() {
        if let Some(event) = event(&what, &mut seen, &mut now) {
            if let Event::Message(message) = &event {
                seen.course.saw(message.kind());
                let never = matches!(message, Message::Outcome(ID, Outcome::Never));
                seen.word |= never && seen.committed;
            }
            let actions = machine.handle(event, now);
            seen.look(actions);
            let _ = (machine.report(), machine.doing(), machine.rounds(), machine.bytes());
            assert_eq!(machine.committed(), seen.committed && !seen.ended);
        }
        if input.is_empty() {
            break;
        }
    }
    seen.course
}

fn event(what: &At<'_>, seen: &mut Seen, now: &mut Duration) -> Option<Event> {
    let pages = |words: &Vec<u64>| PageSet::from_words(words, PAGES);
    Some(match what {
        At::Message(message) => Event::Message(message.arrives()?),
        At::LinkLost => Event::LinkLost("gone".into()),
        At::Reconnected => Event::Reconnected,
        At::Cancel => Event::Cancel("no".into()),
        At::Failed => Event::Failed("no".into()),
        At::Held => Event::Held,
        At::Reclaimed(words) => Event::Reclaimed(pages(words)),
        At::LeftOut(words) => Event::LeftOut(pages(words)),
        // Measured by this host itself: large, but not absurd.
        At::Sent(bytes, full, zero) => Event::Sent(Sent {
            bytes: bytes >> 16,
            full: full >> 16,
            zero: zero >> 16,
            ..Sent::default()
        }),
        At::Progress => Event::Progress,
        At::Peeked(dirty, page_hints) => {
            Event::Peeked { dirty: pages(dirty), page_hints: pages(page_hints) }
        }
        At::Dirty(dirty, page_hints) => {
            Event::Dirty { dirty: pages(dirty), page_hints: pages(page_hints) }
        }
        At::Stopped(requested, at, quiescent, dirty, page_hints) => {
            let needed = pages(page_hints).iter().collect();
            Event::Stopped(Stopped {
                requested: Duration::from_nanos(*requested),
                stopped: Duration::from_nanos(*at),
                quiescent: *quiescent,
                dirty: pages(dirty),
                page_hints: pages(page_hints),
                needed,
            })
        }
        At::Tick(us) => {
            *now += Duration::from_micros((*us).into());
            Event::Tick
        }
        At::Next => return seen.next.pop_front(),
    })
}

/// The actions so far, and the events that follow from them in a successful move.
struct Seen {
    fenced: bool,
    committed: bool,
    resumed: bool,
    ended: bool,
    /// Whether the destination has answered that it never ran the VM.
    word: bool,
    next: VecDeque<Event>,
    /// Whether the state is sent with the commit.
    holds: bool,
    /// The pages that the destination lacks, and how many it has put in place.
    lacks: PageSet,
    filled: u64,
    course: Course,
}

impl Seen {
    fn new() -> Self {
        Self {
            fenced: false,
            committed: false,
            resumed: false,
            ended: false,
            word: false,
            next: VecDeque::new(),
            holds: false,
            lacks: PageSet::none(PAGES),
            filled: 0,
            course: Course::default(),
        }
    }

    fn look(&mut self, actions: Vec<Action>) {
        for action in actions {
            assert!(!self.ended, "it continues after its end: {action:?}");
            match &action {
                Action::Send(message) => {
                    round_trip(message, PAGES);
                    self.course.saw(message.kind());
                }
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
                    (self.ended, self.course.made) = (true, true);
                }
                Action::End(Ended::Failed(_)) => {
                    assert!(self.resumed, "it fails without letting the VM run");
                    self.ended = true;
                }
                _ => {}
            }
            self.answer(&action);
        }
    }

    /// The driver carries out the action, and the destination answers.
    fn answer(&mut self, action: &Action) {
        let none = || PageSet::none(PAGES);
        let sent = |pages: &PageSet| {
            let full = pages.len() as u64;
            Event::Sent(Sent { bytes: full << 12, full, ..Sent::default() })
        };
        let message = Event::Message;
        match action {
            Action::Send(Message::Hello(_)) => {
                self.next.push_back(message(Message::Welcome(ID, ME)));
            }
            Action::Send(Message::Offer(_)) => {
                let accepted = Accepted { follow: true, apply_ns: 1 };
                let accept = message(Message::Accept(accepted));
                let hinted = Event::Reclaimed(none());
                self.next.extend([message(Message::Preparing), hinted, accept]);
            }
            Action::SendPages { round, pages } => {
                self.next.extend([sent(pages), message(Message::RoundDone(*round))]);
            }
            Action::Announce { round, pages } => {
                self.lacks.add(pages);
                self.next.extend([sent(&none()), message(Message::RoundDone(*round))]);
            }
            Action::PeekDirty => {
                self.next.push_back(Event::Peeked { dirty: none(), page_hints: none() });
            }
            Action::TakeDirty => {
                self.next.push_back(Event::Dirty { dirty: none(), page_hints: none() });
            }
            Action::Stop { .. } => self.next.push_back(Event::Stopped(Stopped {
                requested: Duration::from_nanos(1),
                stopped: Duration::from_nanos(2),
                quiescent: true,
                dirty: PageSet::all(PAGES),
                page_hints: none(),
                needed: Vec::new(),
            })),
            Action::SendLast { pages, follow, hold } => {
                self.lacks.add(follow);
                self.lacks.take_out(pages);
                self.holds = *hold;
                if *hold {
                    self.next.push_back(Event::Held);
                } else {
                    self.next.extend([sent(pages), message(Message::Ready)]);
                }
            }
            Action::Commit(_) => {
                let held = self.holds.then(|| sent(&none()));
                self.next.extend(held);
                self.next.push_back(message(Message::Running(Started::default())));
                if self.lacks.is_empty() {
                    self.settle();
                } else {
                    let first = self.lacks.runs().next();
                    self.next.push_back(message(Message::Want(first.into_iter().collect())));
                }
            }
            Action::SendFollowing(pages) => {
                self.lacks.take_out(pages);
                self.filled += pages.len() as u64;
                self.next.extend([sent(pages), message(Message::Filled(self.filled))]);
                if self.lacks.is_empty() {
                    self.next.push_back(message(Message::Whole(Arrival::default())));
                    self.settle();
                }
            }
            Action::Reconnect { .. } => {
                // What was on the old connection no longer arrives.
                self.next.retain(|event| !matches!(event, Event::Message(_)));
                self.next.push_back(Event::Reconnected);
            }
            Action::Send(Message::Query(..)) if self.lacks.is_empty() => {
                self.next.push_back(message(Message::Outcome(ID, Outcome::Ran)));
            }
            Action::Send(Message::Query(..)) => {
                self.filled = 0;
                self.next.push_back(message(Message::Outcome(ID, Outcome::Lacking)));
                self.next.push_back(message(Message::Lacks(self.lacks.runs().collect())));
                self.next.push_back(message(Message::Lacks(Vec::new())));
            }
            _ => {}
        }
    }

    fn settle(&mut self) {
        let settled = Settled { brownout: Brownout::Over(1), page_faults: 1, lost_ns: 1 };
        self.next.push_back(Event::Message(Message::Settled(settled)));
    }
}

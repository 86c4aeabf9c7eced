//! The source's side of a move.
//!
//! ```text
//! Greeting ─Welcome▶ Offering ─Accept▶ Copying ─rest fits▶ Stopping ─stopped▶ Finishing ─sent▶ AwaitReady
//!                                                                                                  │ Ready
//!    any of these: link lost, refusal, abort, cancel, deadline ─▶ Ended, the VM runs on here       ▼
//!                                                     Ended ◀─Running─ Committed ─link lost▶ Unknown
//!                                                                                            │ Outcome
//!                                              Ran: Ended, it runs there;  Never: Ended, it runs on here
//! ```
//! From `Committed` on there is one way back only: the destination's word that it never ran the VM and never will (rule R2).

use std::time::Duration;

use crate::{
    MoveId, PAGE, ReceiverId,
    offer::{Offer, Refusal},
    pages::Pages,
    report::{Moments, Report},
    rounds::{Policy, Rounds},
    wire::{Message, Outcome},
};

/// What happens to the source.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A message from the destination.
    Message(Message),
    /// The connection is gone. Also in `Unknown`, when a try to connect again failed.
    LinkLost(String),
    /// In `Unknown`: a new connection stands.
    Reconnected,
    /// Somebody wants the move given up.
    Cancel(String),
    /// Something that was asked for by an action cannot be done.
    Failed(String),
    /// [`Action::SendPages`] is done; the destination has not confirmed it yet.
    PagesSent {
        /// Bytes on the wire.
        bytes: u64,
        /// Pages with content.
        full: u64,
        /// Zero pages.
        zero: u64,
    },
    /// What [`Action::TakeDirty`] found.
    Dirty {
        /// Changed since the last time.
        dirty: Pages,
        /// Pages whose content does not matter now.
        dont_care: Pages,
    },
    /// [`Action::Stop`] is done: the guest stands.
    Stopped {
        /// When the pause was asked for.
        requested: Duration,
        /// When the vCPU stood.
        stopped: Duration,
        /// Whether the guest answered.
        quiescent: bool,
        /// Changed since the last time.
        dirty: Pages,
        /// Pages whose content does not matter.
        dont_care: Pages,
    },
    /// [`Action::SendLast`] is done.
    LastSent {
        /// Bytes on the wire.
        bytes: u64,
        /// Pages with content.
        full: u64,
        /// Zero pages.
        zero: u64,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Send a message.
    Send(Message),
    /// Start logging changes, with all pages still to be sent.
    StartLog,
    /// Send these pages while the guest runs, then `RoundEnd` with this number.
    SendPages {
        /// Number of the round.
        round: u32,
        /// The pages.
        pages: Pages,
    },
    /// Find out what changed.
    TakeDirty,
    /// Ask the guest to quiesce, and stop it after that long in any case.
    Stop {
        /// How long.
        patience: Duration,
    },
    /// Capture the state and send these pages and it.
    SendLast {
        /// The pages.
        pages: Pages,
    },
    /// The VM may not run here any more, whatever fails. Comes right before `Send(Commit)`.
    Fence,
    /// The VM runs on here: let it, if it stands, and stop logging.
    RunHere,
    /// The VM runs there: hand on late packets, then end.
    HandOn,
    /// Connect to the destination again.
    Reconnect,
    /// Nothing more will come.
    End(Ended),
}

/// How a move ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ended {
    /// The VM runs at the destination. The report is at [`Source::report`].
    Moved,
    /// The VM runs on here.
    Failed(Failure),
}

/// Why a move was not made.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Failure {
    /// The destination does not take the VM.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The destination gave up.
    #[error("the destination gave the move up: {0}")]
    Aborted(String),
    /// The link broke.
    #[error("the connection to the destination broke while {during}: {why}")]
    Link {
        /// In which state.
        during: &'static str,
        /// What the network said.
        why: String,
    },
    /// It took too long.
    #[error("the destination did not answer in time while {during}")]
    Timeout {
        /// In which state.
        during: &'static str,
    },
    /// Cancelled.
    #[error("the move was cancelled: {0}")]
    Cancelled(String),
    /// This side failed.
    #[error("the move failed here: {0}")]
    Here(String),
    /// A message at the wrong time.
    #[error("the destination sent {got} while {during}")]
    Unexpected {
        /// What.
        got: String,
        /// In which state.
        during: &'static str,
    },
    /// The commit was sent, and the destination never ran the VM.
    #[error(
        "the connection broke at the commit, and the destination says that it never ran the VM"
    )]
    NeverRan,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum State {
    Greeting,
    Offering,
    /// Pages of a round are on their way.
    Copying,
    /// Waiting for `RoundDone`.
    Confirming,
    /// Waiting for the dirty set.
    Looking,
    Stopping,
    Finishing,
    AwaitReady,
    Committed,
    Unknown,
    Ended,
}

impl State {
    const fn doing(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Offering => "offering the VM",
            Self::Copying | Self::Confirming | Self::Looking => "copying memory",
            Self::Stopping => "stopping the guest",
            Self::Finishing | Self::AwaitReady => "sending the last pages and the state",
            Self::Committed | Self::Unknown => "waiting for the VM to run there",
            Self::Ended => "done",
        }
    }
}

/// What the source goes by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    /// When rounds end.
    pub policy: Policy,
    /// How long the guest may take to quiesce before it is stopped where it is.
    pub quiesce: Duration,
    /// How long the destination may be silent when it should answer.
    pub answer: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            quiesce: Duration::from_millis(10),
            answer: Duration::from_secs(10),
        }
    }
}

/// The source's machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    id: MoveId,
    receiver: ReceiverId,
    offer: Box<Offer>,
    settings: Settings,
    state: State,
    rounds: Rounds,
    began: Duration,
    round_began: Duration,
    deadline: Option<Duration>,
    moments: Moments,
    numbers: Numbers,
    dont_care: Pages,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Numbers {
    bytes: u64,
    full: u64,
    zero: u64,
    last: u64,
    quiescent: bool,
    predicted: Duration,
    apply_ns: u64,
    run_ns: u64,
    told_ns: u64,
}

impl Source {
    /// A move of a VM as offered, begun at `now`, over a connection that stands. The actions open it.
    #[must_use]
    pub fn begin(
        id: MoveId,
        offer: Offer,
        settings: Settings,
        now: Duration,
    ) -> (Self, Vec<Action>) {
        let pages = (offer.memory_size / PAGE as u64) as usize;
        let source = Self {
            id,
            receiver: ReceiverId::default(),
            offer: Box::new(offer),
            settings,
            state: State::Greeting,
            rounds: Rounds::new(pages, settings.policy),
            began: now,
            round_began: now,
            deadline: Some(now + settings.answer),
            moments: Moments::default(),
            numbers: Numbers::default(),
            dont_care: Pages::none(pages),
        };
        (source, vec![Action::Send(Message::Hello(id))])
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Whether the commit has been given out.
    #[must_use]
    pub fn committed(&self) -> bool {
        matches!(self.state, State::Committed | State::Unknown)
    }

    /// What it is doing, for people.
    #[must_use]
    pub fn doing(&self) -> &'static str {
        self.state.doing()
    }

    /// Rounds done so far.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        self.rounds.done()
    }

    /// Bytes sent so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.numbers.bytes
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        if self.state == State::Ended {
            return Vec::new();
        }
        if self.committed() {
            self.after_commit(event, now)
        } else {
            self.before_commit(event, now)
        }
    }

    fn before_commit(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match (self.state, event) {
            (_, Event::LinkLost(why)) => {
                self.fail(Failure::Link { during: self.state.doing(), why }, false)
            }
            (_, Event::Cancel(why)) => self.fail(Failure::Cancelled(why), true),
            (_, Event::Failed(why)) => self.fail(Failure::Here(why), true),
            (_, Event::Tick) => match self.deadline {
                Some(at) if now >= at => {
                    self.fail(Failure::Timeout { during: self.state.doing() }, true)
                }
                _ => Vec::new(),
            },
            (_, Event::Message(Message::Abort(why))) => self.fail(Failure::Aborted(why), false),
            (State::Greeting | State::Offering, Event::Message(Message::Refuse(why))) => {
                self.fail(Failure::Refused(why), false)
            }
            (State::Greeting, Event::Message(Message::Welcome(id, receiver))) if id == self.id => {
                self.receiver = receiver;
                self.offer.receiver = receiver;
                self.to(State::Offering, Some(now + self.settings.answer));
                vec![Action::Send(Message::Offer(self.offer.clone()))]
            }
            (State::Offering, Event::Message(Message::Accept)) => {
                let mut actions = vec![Action::StartLog];
                actions.extend(self.next_round(now));
                actions
            }
            (State::Copying, Event::PagesSent { bytes, full, zero }) => {
                self.count(bytes, full, zero);
                self.to(State::Confirming, Some(now + self.settings.answer));
                self.numbers.last = bytes;
                Vec::new()
            }
            (State::Confirming, Event::Message(Message::RoundDone(n)))
                if n == self.rounds.done() =>
            {
                self.rounds.sent(self.numbers.last, now.saturating_sub(self.round_began));
                self.to(State::Looking, None);
                vec![Action::TakeDirty]
            }
            (State::Looking, Event::Dirty { dirty, dont_care }) => {
                let enough = self.rounds.changed(&dirty);
                self.dont_care = dont_care;
                self.numbers.predicted = self.rounds.time_for(dirty.len());
                if enough {
                    self.to(State::Stopping, None);
                    vec![Action::Stop { patience: self.settings.quiesce }]
                } else {
                    self.next_round(now)
                }
            }
            (
                State::Stopping,
                Event::Stopped { requested, stopped, quiescent, dirty, dont_care },
            ) => {
                self.moments = Moments { requested, stopped, ..Moments::default() };
                self.numbers.quiescent = quiescent;
                self.to(State::Finishing, None);
                vec![Action::SendLast { pages: self.rounds.last(&dirty, &dont_care) }]
            }
            (State::Finishing, Event::LastSent { bytes, full, zero }) => {
                self.count(bytes, full, zero);
                self.numbers.last = full;
                self.moments.sent = now;
                self.to(State::AwaitReady, Some(now + self.settings.answer));
                Vec::new()
            }
            (State::AwaitReady, Event::Message(Message::Ready)) => {
                self.moments.ready = now;
                self.to(State::Committed, Some(now + self.settings.answer));
                vec![Action::Fence, Action::Send(Message::Commit)]
            }
            (state, Event::Message(got)) => {
                let got = format!("{:?}", got.kind());
                self.fail(Failure::Unexpected { got, during: state.doing() }, true)
            }
            // An answer to an action that a failure has overtaken.
            _ => Vec::new(),
        }
    }

    /// The point of no return is behind: nothing but the destination's word lets the VM run here again.
    fn after_commit(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match (self.state, event) {
            (State::Committed, Event::Message(Message::Running(started))) => {
                self.moments.running = now;
                self.numbers.apply_ns = started.apply_ns;
                self.numbers.run_ns = started.run_ns;
                self.numbers.told_ns = started.told_ns;
                self.to(State::Ended, None);
                vec![Action::HandOn, Action::End(Ended::Moved)]
            }
            (State::Unknown, Event::Message(Message::Outcome(Outcome::Ran))) => {
                self.to(State::Ended, None);
                vec![Action::End(Ended::Moved)]
            }
            (State::Unknown, Event::Message(Message::Outcome(Outcome::Never))) => {
                self.to(State::Ended, None);
                vec![Action::RunHere, Action::End(Ended::Failed(Failure::NeverRan))]
            }
            (State::Unknown, Event::Reconnected) => {
                self.to(State::Unknown, Some(now + self.settings.answer));
                vec![Action::Send(Message::Query(self.id, self.receiver))]
            }
            // Silence, a broken link, or nonsense: ask again on a new connection.
            (_, Event::LinkLost(_) | Event::Message(_)) => self.ask_again(now),
            (_, Event::Tick) => match self.deadline {
                Some(at) if now >= at => self.ask_again(now),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    fn ask_again(&mut self, now: Duration) -> Vec<Action> {
        self.to(State::Unknown, Some(now + self.settings.answer));
        vec![Action::Reconnect]
    }

    fn next_round(&mut self, now: Duration) -> Vec<Action> {
        self.round_began = now;
        self.to(State::Copying, None);
        let pages = self.rounds.next(&self.dont_care);
        vec![Action::SendPages { round: self.rounds.done(), pages }]
    }

    fn fail(&mut self, failure: Failure, tell: bool) -> Vec<Action> {
        self.to(State::Ended, None);
        let mut actions = vec![Action::RunHere];
        if tell {
            actions.push(Action::Send(Message::Abort(failure.to_string())));
        }
        actions.push(Action::End(Ended::Failed(failure)));
        actions
    }

    fn to(&mut self, state: State, deadline: Option<Duration>) {
        self.state = state;
        self.deadline = deadline;
    }

    fn count(&mut self, bytes: u64, full: u64, zero: u64) {
        self.numbers.bytes += bytes;
        self.numbers.full += full;
        self.numbers.zero += zero;
    }

    /// What the move cost. `None` before `Running` has arrived.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        let n = self.numbers;
        let phases = self.moments.phases(n.told_ns)?;
        Some(Report {
            blackout_ns: phases.blackout_ns(),
            total_ns: self.moments.running.checked_sub(self.began)?.as_nanos() as u64,
            bytes_sent: n.bytes,
            rounds: self.rounds.done(),
            pages_sent: n.full,
            last_pages: n.last,
            pages_zero: n.zero,
            pages_dont_care: self.rounds.omitted() as u64,
            quiescent: n.quiescent,
            predicted_last_pages_ns: n.predicted.as_nanos() as u64,
            phases,
            apply_ns: n.apply_ns,
            run_ns: n.run_ns,
        })
    }
}

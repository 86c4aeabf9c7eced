//! The source's side of a move.
//!
//! ```text
//! Greeting ─Welcome▶ Offering ─Accept▶ Copying ─rest fits▶ Stopping ─stopped▶ Finishing ─sent▶ AwaitReady
//!                                         │                  ▲                       │ held         │ Ready
//!                                         └─rest follows▶ Announcing                 │              │
//!    any of these: link lost, refusal, abort, cancel, deadline ─▶ Ended, the VM      ▼              ▼
//!                                                                 runs on here       └──────┬───────┘
//!      Ended ◀─Settled─ Settling ◀─Whole─ Following ◀─Running─ Committed ─link lost▶ Unknown
//!                                           └──────link lost, and back: Lacks────────▶│◀
//!                                                                                     │ Outcome
//!                                       Ran: Ended, it runs there;  Never: Ended, it runs on here
//! ```
//! From `Committed` on there is one way back only: the destination's answer that it never ran the
//! VM and never will (rule R2).
//!
//! The destination confirms the last pages and the state with `Ready` before the source sends the
//! commit. If they are small, the source sends them together with the commit. That saves a round
//! trip of blackout, but a destination that dies takes the VM with it for as long as those bytes
//! are in transit.
//!
//! - [`events`]: events and actions
//! - `before_commit`: from the greeting to the commit
//! - `deciding`: carries out what [`precopy`](crate::precopy) decides after each round
//! - `after_commit`: what differs once the commit is sent
//! - `following`: post-copy pages
//! - `settling`: the wait for the destination's report on the guest's speed

mod after_commit;
mod before_commit;
mod deciding;
pub mod events;
mod following;
mod settling;

pub use events::{Action, Ended, Event, Failure, Mode, Sent, Settings, Stopped};

use std::time::Duration;

use crate::{
    MoveId, PAGE, ReceiverId,
    brownout::Settled,
    offer::Offer,
    page_set::PageSet,
    precopy::{Measured, Rounds},
    report::{Moments, Phases, Report},
    wire::{Arrival, Message, Started},
};
use following::Following;

#[cfg(test)]
mod tests;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum State {
    Greeting,
    Offering,
    /// Pages of a round are on their way.
    Copying,
    /// Waiting for `RoundDone`.
    Confirming,
    /// Waiting for the number of dirty pages.
    Peeking,
    /// Waiting for the dirty set.
    Looking,
    /// Waiting for `RoundDone` after naming the post-copy pages.
    Announcing,
    Stopping,
    Finishing,
    AwaitReady,
    Committed,
    /// The destination runs the VM; post-copy pages are sent.
    Following,
    /// The destination has all memory; it has yet to report when the guest is at full speed.
    Settling,
    /// The link is lost after the commit; the source asks the destination for the outcome.
    Unknown,
    /// The destination reports, on a new connection, what it lacks.
    Rejoining,
    Ended,
}

impl State {
    const fn doing(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Offering => "offering the VM",
            Self::Copying | Self::Confirming | Self::Peeking | Self::Looking | Self::Announcing => {
                "copying memory"
            }
            Self::Stopping => "stopping the guest",
            Self::Finishing | Self::AwaitReady => "sending the last pages and the state",
            Self::Committed | Self::Unknown => "waiting for the VM to run there",
            Self::Following | Self::Rejoining => "sending post-copy memory",
            Self::Settling => "waiting for the guest to reach full speed there",
            Self::Ended => "done",
        }
    }
}

/// The source's state machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    id: MoveId,
    receiver: ReceiverId,
    offer: Box<Offer>,
    settings: Settings,
    state: State,
    rounds: Rounds,
    measured: Measured,
    /// Whether the destination supports post-copy.
    can_follow: bool,
    /// Pages that the source has announced as post-copy pages.
    announced: Option<PageSet>,
    following: Option<Following>,
    /// Whether the destination has reported that it runs the VM.
    ran: bool,
    /// Pages that the destination has reported missing on a new connection so far.
    lacks: PageSet,
    began: Duration,
    asked: Duration,
    deadline: Option<Duration>,
    /// The round that was sent last.
    last: Sent,
    moments: Moments,
    numbers: Numbers,
    page_hints: PageSet,
    said_hint: bool,
    /// Rounds since then.
    rounds_since_hint: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Numbers {
    bytes: u64,
    full: u64,
    zero: u64,
    last: u64,
    follow: u64,
    quiescent: bool,
    predicted: Duration,
    started: Started,
    /// `None`: there was post-copy, and the destination's report on it has not arrived.
    arrival: Option<Arrival>,
    settled: Option<Settled>,
    /// When the source learned that the VM is there with all its memory.
    whole: Option<Duration>,
}

impl Source {
    /// Begins the move of the offered VM at `now`, over an open connection. The actions start it.
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
            rounds: Rounds::new(PageSet::all(pages), settings.policy),
            measured: Measured::new(settings.quiesce_expected),
            can_follow: false,
            announced: None,
            following: None,
            ran: false,
            lacks: PageSet::none(pages),
            began: now,
            asked: now,
            deadline: Some(now + settings.answer),
            last: Sent::default(),
            moments: Moments::default(),
            numbers: Numbers::default(),
            page_hints: PageSet::none(pages),
            said_hint: false,
            rounds_since_hint: 0,
        };
        (source, vec![Action::Send(Message::Hello(id))])
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let over = self.committed() || self.state == State::Ended;
        let in_all = self.settings.timeout.filter(|_| !over);
        [self.deadline, in_all].into_iter().flatten().min()
    }

    /// Whether the commit has been issued.
    #[must_use]
    pub fn committed(&self) -> bool {
        use State::{Committed, Following, Rejoining, Settling, Unknown};
        matches!(self.state, Committed | Unknown | Following | Rejoining | Settling)
    }

    /// Whether only the destination knows the outcome: the commit has been issued and the link is
    /// lost.
    #[must_use]
    pub fn unknown(&self) -> bool {
        self.state == State::Unknown
    }

    /// The current activity, for people.
    #[must_use]
    pub fn doing(&self) -> &'static str {
        self.state.doing()
    }

    /// Number of rounds done so far.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        self.rounds.done()
    }

    /// Bytes sent so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.numbers.bytes
    }

    /// The blackout predicted when the dirty pages were last examined, if all that was left were
    /// sent in it.
    #[must_use]
    pub fn predicted(&self) -> Duration {
        self.numbers.predicted
    }

    /// Handles an event.
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

    fn count(&mut self, sent: Sent) {
        self.numbers.bytes += sent.bytes;
        self.numbers.full += sent.full;
        self.numbers.zero += sent.zero;
    }

    /// Pages known not to be sent since they changed, without those that were [left
    /// out](Event::LeftOut): for these, and for those changed since, the driver has to find out
    /// whether the guest [hints](Stopped::page_hints) them.
    #[must_use]
    pub fn unsent(&self) -> &PageSet {
        self.rounds.left()
    }

    /// Pages that were not sent because of the guest's page hints. Valid for a successful move:
    /// before that the guest may withdraw its hints.
    #[must_use]
    pub fn left_out(&self) -> PageSet {
        let mut pages = self.rounds.unsent();
        if let Some(announced) = &self.announced {
            // These were sent, as they were announced.
            pages.take_out(announced);
        }
        pages
    }

    /// What the move cost. `None` before the VM is there with all its memory. The owner of the
    /// memory fills in [`Report::bytes_left_out`].
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        let n = self.numbers;
        let whole = n.whole?;
        let phases = self.moments.phases(&n.started);
        let ns = |from: Duration, to: Duration| to.saturating_sub(from).as_nanos() as u64;
        let ran = self.moments.running.unwrap_or(self.moments.committed);
        // Without post-copy there are no waits.
        let arrival = if n.follow > 0 { n.arrival } else { Some(Arrival::default()) };
        Some(Report {
            blackout_ns: phases.as_ref().map(Phases::blackout_ns),
            predicted_blackout_ns: n.predicted.as_nanos() as u64,
            total_ns: ns(self.began, whole),
            bytes_sent: n.bytes,
            rounds: self.rounds.done(),
            pages_sent: n.full,
            last_pages: n.last,
            pages_zero: n.zero,
            pages_dont_care: self.left_out().len() as u64,
            bytes_left_out: None,
            pages_following: n.follow,
            following_ns: if n.follow > 0 { ns(ran, whole) } else { 0 },
            pages_waited_for: arrival.map(|a| a.waited.into()),
            waited_ns: arrival.map(|a| a.waited_ns),
            worst_wait_ns: arrival.map(|a| a.worst_ns),
            quiescent: n.quiescent,
            phases,
            apply_ns: self.moments.running.map(|_| n.started.apply_ns),
            run_ns: self.moments.running.map(|_| n.started.run_ns),
            ..settling::told(n.settled)
        })
    }
}

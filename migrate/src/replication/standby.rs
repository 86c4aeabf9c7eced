//! The standby's side of a replica set: it executes what the primary did, ready to go on.
//!
//! ```text
//! begin ─▶ Following ─primary lost▶ Finishing ─all executed▶ Asking ─won▶ TookOver ─into_primary▶ Primary
//!            │ │  ▲                                            └─lost▶ Ended
//!            │ │  └─into_standby─ Primary
//!            │ └─Yours▶ Taking ─all executed▶ TookOver
//!            └─Goodbye, Dropped, divergence and then one of these or a lost primary▶ Ended
//! ```
//! Once the primary is given up, nothing from it counts any more and nothing is acked to it: what
//! it may release is what this member had then, and takes over with.
//!
//! - [`events`]: events and actions
//! - `following`: messages of the primary
//! - `taking_over`: the arbiter, and the change to a primary

pub mod events;
mod following;
mod taking_over;

pub use events::{Action, Ended, Event, Lost};

use std::time::Duration;

use super::{
    Commit, Position, Settings,
    arbiter::{MemberId, Record, SetId, Versioned},
    asking::Asking,
    wire::Message,
};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum State {
    Following,
    /// The primary is given up; the copy executes what it has.
    Finishing,
    /// The arbiter is asked.
    Asking,
    /// The primary has given the VM; the copy executes what it has.
    Taking {
        /// The connection to the primary is lost since.
        gone: bool,
    },
    /// The driver makes a primary of it.
    TookOver(By),
    Diverged(Position, String),
    Ended,
}

/// How a standby became the primary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum By {
    /// It won at the arbiter.
    Arbiter,
    /// The primary gave it the VM.
    Swap { gone: bool },
    /// Without the arbiter, as the settings allow.
    Itself,
}

/// The standby's state machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Standby {
    me: MemberId,
    primary: MemberId,
    settings: Settings,
    state: State,
    asking: Asking,
    /// What the primary waits for; `None`: it has not said so.
    commit: Option<Commit>,
    received: Position,
    executed: Position,
    /// As the primary was told last.
    acked: (Position, Position),
    stamp_ns: u64,
    released: Position,
    heard: Duration,
    /// When the next heartbeat is due.
    beat: Duration,
}

impl Standby {
    /// Begins at `now` with a copy of the VM after the record at `base`, over an open connection to
    /// the primary of this set.
    #[must_use]
    pub fn begin(
        (me, primary): (MemberId, MemberId),
        set: SetId,
        settings: Settings,
        base: Position,
        now: Duration,
    ) -> Self {
        Self::new((me, primary), Asking::new(set, None), settings, (base, base), now)
    }

    /// A primary becomes a standby: see
    /// [`Primary::into_standby`](super::Primary::into_standby).
    pub(super) fn handed_over(
        me: MemberId,
        primary: MemberId,
        settings: Settings,
        known: Versioned,
        at: (Position, Position),
        now: Duration,
    ) -> Self {
        Self::new((me, primary), Asking::new(known.record.set, Some(known)), settings, at, now)
    }

    fn new(
        (me, primary): (MemberId, MemberId),
        asking: Asking,
        settings: Settings,
        (last, released): (Position, Position),
        now: Duration,
    ) -> Self {
        Self {
            me,
            primary,
            settings,
            state: State::Following,
            asking,
            commit: None,
            received: last,
            executed: last,
            acked: (last, last),
            stamp_ns: 0,
            released,
            heard: now,
            beat: now.saturating_add(settings.heartbeat),
        }
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let silent = self.heard.saturating_add(self.settings.silence());
        match self.state {
            State::Following | State::Taking { gone: false } => Some(self.beat.min(silent)),
            State::Diverged(..) => Some(silent),
            State::Asking => self.asking.retry,
            State::Finishing | State::Taking { .. } | State::TookOver(_) | State::Ended => None,
        }
    }

    /// All records up to this one were received.
    #[must_use]
    pub fn received(&self) -> Position {
        self.received
    }

    /// All records up to this one were executed.
    #[must_use]
    pub fn executed(&self) -> Position {
        self.executed
    }

    /// All output up to this record has left the primary, as far as it has said.
    #[must_use]
    pub fn known_released(&self) -> Position {
        self.released
    }

    /// The arbiter's record as this member knows it; `None`: the primary has not told it yet.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.asking.record()
    }

    /// Whether this member may take over, as far as it knows.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        let named = self.record().is_some_and(|record| record.names(self.me));
        named && !matches!(self.state, State::Diverged(..) | State::Ended)
    }

    /// Time since the primary was last heard of.
    #[must_use]
    pub fn silent(&self, now: Duration) -> Duration {
        now.saturating_sub(self.heard)
    }

    /// Handles an event.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut out = Vec::new();
        if matches!(self.state, State::TookOver(_) | State::Ended) {
            return out;
        }
        match event {
            Event::Message(message) => self.message(message, now, &mut out),
            Event::Executed(position) => self.execute(position, &mut out),
            Event::Diverged { position, what } => self.diverge(position, what, &mut out),
            Event::Disconnected(why) => self.lose(Lost::Disconnected(why), &mut out),
            Event::Suspected(why) => self.lose(Lost::Suspected(why), &mut out),
            Event::Arbiter(answer) => self.answered(answer, now, &mut out),
            Event::Tick => self.tick(now, &mut out),
        }
        self.go_on(now, &mut out);
        out
    }

    fn execute(&mut self, position: Position, out: &mut Vec<Action>) {
        if matches!(self.state, State::Diverged(..)) {
            return;
        }
        self.executed = self.executed.max(position.min(self.received));
        if self.state == State::Following && self.commit != Some(Commit::Received) {
            self.ack(out);
        }
    }

    fn diverge(&mut self, position: Position, what: String, out: &mut Vec<Action>) {
        match self.state {
            State::Following => {
                let message = Message::Divergence { position, what: what.clone() };
                out.push(Action::Send(message));
                self.state = State::Diverged(position, what);
            }
            // Whether the primary is there or not, this copy may not go on.
            State::Finishing | State::Asking | State::Taking { .. } => {
                self.end(Ended::Diverged { position, what }, out);
            }
            State::Diverged(..) | State::TookOver(_) | State::Ended => {}
        }
    }

    fn ack(&mut self, out: &mut Vec<Action>) {
        let (received, executed, stamp_ns) = (self.received, self.executed, self.stamp_ns);
        if self.acked != (received, executed) {
            self.acked = (received, executed);
            out.push(Action::Send(Message::Ack { received, executed, stamp_ns }));
        }
    }

    fn end(&mut self, ended: Ended, out: &mut Vec<Action>) {
        self.state = State::Ended;
        out.extend([Action::Close, Action::End(ended)]);
    }
}

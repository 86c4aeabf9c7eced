//! The events of a move in progress.
//!
//! Events are deferred during the blackout: reporting them takes time, which would extend it.

use super::address::Address;
use crate::vm::{Observer, Waiting};
use migrate::{
    PAGE, Peer,
    report::Report,
    source::{Event as Happened, Sent, Source},
};
use std::{io, time::Duration};

/// An event of a move. Variants are only ever added.
#[derive(Clone, PartialEq, Debug)]
pub enum Progress {
    /// A new phase has begun.
    Phase {
        /// Which, in words.
        doing: String,
        /// Since the move began, ns.
        at_ns: u64,
    },
    /// A round is done, and the changes of the guest meanwhile are known.
    Round {
        /// Its number, from 1.
        round: u32,
        /// Since the move began, ns.
        at_ns: u64,
        /// How long it took, until the destination had confirmed it.
        took_ns: u64,
        /// Pages sent with their content.
        pages: u64,
        /// Pages announced as zero.
        pages_zero: u64,
        /// Bytes on the wire.
        bytes: u64,
        /// Bytes on the wire per second.
        bytes_per_second: u64,
        /// Pages that changed meanwhile.
        dirty_pages: u64,
        /// Bytes changed per second.
        dirty_bytes_per_second: u64,
        /// Bytes sent so far in all rounds.
        bytes_sent: u64,
        /// The expected blackout if the guest were stopped now.
        predicted_blackout_ns: u64,
    },
    /// The move has not begun: it waits for missing memory of the VM. Repeated.
    Waiting {
        /// What for, in words.
        doing: String,
        /// Since the verb began, ns.
        at_ns: u64,
        /// How much is missing.
        bytes_missing: u64,
    },
}

/// A successful move.
#[derive(Clone, PartialEq, Debug)]
pub struct Moved {
    /// Where the VM is now.
    pub to: Address,
    /// The host there, as far as it has proved its identity.
    pub peer: Peer,
    /// It is paused there, as it was here.
    pub paused: bool,
    /// What the move cost. `None`: the connection was lost at the commit, and the answer to a
    /// question showed that the move succeeded.
    pub report: Option<Report>,
}

/// The client that started a move.
pub trait MoveObserver: Observer<Progress> {
    /// The VM runs at the destination, with no page missing.
    fn moved(&mut self, moved: Moved);
}

/// An operation has waited for this since then.
#[must_use]
pub fn waiting(waiting: &Waiting, since: Duration) -> Progress {
    Progress::Waiting {
        doing: format!("waiting for {waiting}"),
        at_ns: ns(since),
        bytes_missing: waiting.bytes,
    }
}

/// Derives events from the progress of a source's state machine.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    doing: &'static str,
    round_began: Duration,
    /// Rounds that were reported.
    told: u32,
    sent: Sent,
    events: Vec<Progress>,
}

impl Watcher {
    /// Observes an event before the state machine gets it.
    pub fn happened(&mut self, event: &Happened, source: &Source, now: Duration) {
        match event {
            Happened::Sent(sent) => self.sent = *sent,
            Happened::Peeked { dirty, .. } | Happened::Dirty { dirty, .. }
                // One peek at the changes is enough for an event.
                if self.told < source.rounds() =>
            {
                self.told = source.rounds();
                let took = now.saturating_sub(self.round_began);
                let a_second = |n: u64| (n as f64 / took.as_secs_f64().max(1e-9)) as u64;
                let Sent { bytes, full: pages, zero: pages_zero, .. } = self.sent;
                let dirty_pages = dirty.len() as u64;
                let bytes_per_second = a_second(bytes);
                self.events.push(Progress::Round {
                    round: source.rounds(),
                    at_ns: ns(now),
                    took_ns: ns(took),
                    pages,
                    pages_zero,
                    bytes,
                    bytes_per_second,
                    dirty_pages,
                    dirty_bytes_per_second: a_second(dirty_pages * PAGE as u64),
                    bytes_sent: source.bytes(),
                    predicted_blackout_ns: 0,
                });
            }
            Happened::Peeked { .. }
            | Happened::Dirty { .. }
            | Happened::Message(_)
            | Happened::LinkLost(_)
            | Happened::Reconnected
            | Happened::Vouched
            | Happened::Abandoned
            | Happened::Cancel(_)
            | Happened::Failed(_)
            | Happened::Held
            | Happened::Reclaimed(_)
            | Happened::LeftOut(_)
            | Happened::Stopped(_)
            | Happened::Progress
            | Happened::Tick => {}
        }
    }

    /// Observes the state machine's reaction.
    pub fn handled(&mut self, source: &Source, now: Duration) {
        if let Some(Progress::Round { round, predicted_blackout_ns, .. }) = self.events.last_mut()
            && *round == source.rounds()
        {
            *predicted_blackout_ns = ns(source.predicted());
        }
        if self.doing != source.doing() {
            self.doing = source.doing();
            self.events.push(Progress::Phase { doing: self.doing.into(), at_ns: ns(now) });
        }
    }

    /// Reports pending events, before a round begins or at the end: while the guest runs.
    ///
    /// # Errors
    /// If the observer has disconnected.
    pub fn tell(&mut self, observer: &mut dyn MoveObserver, now: Duration) -> io::Result<()> {
        self.round_began = now;
        self.events.drain(..).try_for_each(|event| observer.progress(event))
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

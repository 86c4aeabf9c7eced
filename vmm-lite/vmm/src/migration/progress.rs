//! What is told of a move while it is under way.
//!
//! Events are kept back while the guest stands: telling them takes time, which would be blackout.

use super::address::Address;
use crate::vm::{Observer, Waiting};
use migrate::{
    PAGE, Peer,
    report::Report,
    source::{Event as Happened, Sent, Source},
};
use serde::{Deserialize, Serialize};
use std::{io, time::Duration};

/// Something that a move came to. Members only ever get added.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// It does something else from now on.
    Phase {
        /// What, in words.
        doing: String,
        /// Since the move began, ns.
        at_ns: u64,
    },
    /// A pass over memory is done, and what the guest wrote meanwhile is known.
    Round {
        /// Its number, from 1.
        round: u32,
        /// Since the move began, ns.
        at_ns: u64,
        /// How long it took, until the destination had confirmed it.
        took_ns: u64,
        /// Pages sent with their content.
        pages: u64,
        /// Pages told to be zero.
        pages_zero: u64,
        /// Bytes on the wire.
        bytes: u64,
        /// What of that there was in a second.
        bytes_per_second: u64,
        /// Pages that changed meanwhile.
        dirty_pages: u64,
        /// What of those there was in a second, in bytes.
        dirty_bytes_per_second: u64,
        /// Bytes sent so far in all rounds.
        bytes_sent: u64,
        /// The blackout that is expected, did the guest stop now.
        predicted_blackout_ns: u64,
    },
    /// It has not begun: it waits for memory of the VM that is not here yet. Comes again and again.
    Waiting {
        /// What for, in words.
        doing: String,
        /// Since the verb began, ns.
        at_ns: u64,
        /// How much is missing.
        bytes_missing: u64,
    },
    /// The move came to nothing. The last event, where a report would be.
    Failed {
        /// Why, for people.
        error: String,
    },
}

/// A move that was made.
#[derive(Clone, PartialEq, Debug)]
pub struct Moved {
    /// Where the VM is now.
    pub to: Address,
    /// The host there, as far as it has proved which it is.
    pub peer: Peer,
    /// It is paused there, as it was here.
    pub paused: bool,
    /// What the move cost. `None`: the connection was lost at the commit, and that it was made is
    /// known by the answer to a question.
    pub report: Option<Report>,
}

/// The one who started a move.
pub trait MoveObserver: Observer<Progress> {
    /// The VM runs at the destination, and lacks nothing.
    fn moved(&mut self, moved: Moved);
}

/// That an operation has waited for this since then.
#[must_use]
pub fn waiting(waiting: &Waiting, since: Duration) -> Progress {
    Progress::Waiting {
        doing: format!("waiting for {waiting}"),
        at_ns: ns(since),
        bytes_missing: waiting.bytes,
    }
}

/// Makes events out of what a source's machine goes through.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    doing: &'static str,
    round_began: Duration,
    /// Rounds that there was an event for.
    told: u32,
    sent: Sent,
    events: Vec<Progress>,
}

impl Watcher {
    /// Takes note of what has happened, before the machine is told.
    pub fn happened(&mut self, event: &Happened, source: &Source, now: Duration) {
        match event {
            Happened::Sent(sent) => self.sent = *sent,
            Happened::Peeked { dirty, .. } | Happened::Dirty { dirty, .. }
                // One look at what changed is enough for an event.
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
            _ => {}
        }
    }

    /// Takes note of what the machine made of it.
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

    /// Tells what there is, before a round begins or when all is over: while the guest runs.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn tell(&mut self, observer: &mut dyn MoveObserver, now: Duration) -> io::Result<()> {
        self.round_began = now;
        self.events.drain(..).try_for_each(|event| observer.progress(event))
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_flat_objects_that_name_their_kind() {
        let event = Progress::Phase { doing: "greeting".into(), at_ns: 7 };
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(json, r#"{"event":"phase","doing":"greeting","at_ns":7}"#);
        assert_eq!(serde_json::from_str::<Progress>(&json).unwrap(), event);
        let failed = serde_json::to_value(Progress::Failed { error: "x".into() }).unwrap();
        assert_eq!(failed, serde_json::json!({ "event": "failed", "error": "x" }));
    }
}

//! The last wait: the VM is at the destination with all its memory, and the destination has yet to
//! report when the guest was back at full speed.
//!
//! Nothing depends on that report. Any other event ends the move as well, with a report that lacks
//! these values.

use std::time::Duration;

use super::{Action, Source, State, after_commit::Later};
use crate::{
    brownout::{Brownout, Settled, TIMEOUT},
    report::Report,
    wire::Message,
};

impl Source {
    pub(super) fn settle(&mut self, now: Duration) -> Vec<Action> {
        if self.numbers.settled.is_some() {
            return self.moved();
        }
        // The destination began to watch before it reported that the VM runs, and reports something
        // when its own timeout is over.
        self.to(State::Settling, Some(now + TIMEOUT + self.settings.answer));
        Vec::new()
    }

    pub(super) fn settling(&mut self, event: Later, now: Duration) -> Vec<Action> {
        match event {
            Later::Message(Message::Settled(settled)) => {
                self.numbers.settled = Some(settled);
                self.moved()
            }
            Later::Message(_) | Later::LinkLost => self.moved(),
            Later::Tick if self.deadline.is_none_or(|at| now >= at) => self.moved(),
            Later::Tick
            | Later::Reconnected
            | Later::Vouched
            | Later::Abandoned
            | Later::Sent(_)
            | Later::Progress => Vec::new(),
        }
    }
}

/// What the report contains about it.
pub(super) fn told(settled: Option<Settled>) -> Report {
    let settled = settled.unwrap_or(Settled::UNKNOWN);
    let (brownout_ns, brownout_over) = match settled.brownout {
        Brownout::Over(ns) => (Some(ns), true),
        Brownout::Lasts(ns) => (Some(ns), false),
        Brownout::Unknown => (None, false),
    };
    Report {
        brownout_ns,
        brownout_over,
        brownout_page_faults: settled.page_faults,
        brownout_lost_ns: settled.lost_ns,
        ..Report::default()
    }
}

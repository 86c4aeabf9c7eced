//! How far a standby is behind the log.

use std::{collections::VecDeque, time::Duration};

use crate::replication::Position;

/// Most marks. More records than these are counted together, as old as the oldest of them.
const MARKS_MAX: usize = 64;

/// Records that were appended at about the same time.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Mark {
    /// The last of them.
    last: Position,
    /// When the first of them was appended.
    since: Duration,
    /// Bytes of the log before them.
    bytes_before: u64,
}

/// The log's end, and since when the records are there that some standby has not executed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Log {
    last: Position,
    bytes: u64,
    marks: VecDeque<Mark>,
}

/// How far a standby is behind in its execution.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Behind {
    /// Whether it is in sync by the arbiter's record.
    pub in_sync: bool,
    /// Whether it is being taken out of the set.
    pub leaving: bool,
    /// Records that it has not received, or whose ack has not arrived.
    pub not_received: u64,
    /// Records that it has not executed, or whose ack has not arrived.
    pub not_executed: u64,
    /// Age of the oldest of these.
    pub time: Duration,
    /// Size of these, in bytes, rounded up.
    pub bytes: u64,
    /// Time from sending records to its last ack.
    pub round_trip: Duration,
    /// Time since it was last heard of.
    pub silent: Duration,
}

impl Log {
    pub fn new(last: Position) -> Self {
        Self { last, bytes: 0, marks: VecDeque::new() }
    }

    pub fn last(&self) -> Position {
        self.last
    }

    pub fn append(&mut self, last: Position, bytes: u64, now: Duration, max_lag: Duration) {
        let full = self.marks.len() == MARKS_MAX;
        let near = |mark: &Mark| full || now.saturating_sub(mark.since) <= max_lag / 32;
        match self.marks.back_mut().filter(|mark| near(mark)) {
            Some(mark) => mark.last = last,
            None => self.marks.push_back(Mark { last, since: now, bytes_before: self.bytes }),
        }
        self.last = last;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Every standby has executed these.
    pub fn executed(&mut self, up_to: Position) {
        while self.marks.front().is_some_and(|mark| mark.last <= up_to) {
            self.marks.pop_front();
        }
    }

    /// Since when the oldest record after `executed` is there, and how many bytes follow.
    pub fn behind(&self, executed: Position) -> Option<(Duration, u64)> {
        let mark = self.marks.iter().find(|mark| mark.last > executed)?;
        Some((mark.since, self.bytes - mark.bytes_before))
    }
}

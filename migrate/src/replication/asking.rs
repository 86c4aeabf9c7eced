//! A member's dealings with the arbiter: one request at a time, and what is known of the record.

use std::time::Duration;

use super::arbiter::{Answer, Record, Request, SetId, Version, Versioned};

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Asking {
    pub set: SetId,
    /// The record as this member knows it. Another may be there by now.
    pub known: Option<Versioned>,
    /// The open request.
    pub open: Option<Request>,
    /// Wanted records of swaps that expect the known version and had no answer: each may be in
    /// place, or may still be put there. Only another version at the arbiter excludes that.
    pub late: Vec<Record>,
    /// The arbiter did not answer; when it is asked again.
    pub retry: Option<Duration>,
    /// The last answer was none, and the user was told.
    pub failing: bool,
}

/// What an answer says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// The wanted record is in place.
    Won,
    /// This record is there instead, or was read. It is valid and of this set.
    There(Versioned),
    /// No usable answer.
    Nothing(String),
    /// No request was open.
    Unasked,
}

impl Asking {
    pub fn new(set: SetId, known: Option<Versioned>) -> Self {
        Self { set, known, open: None, late: Vec::new(), retry: None, failing: false }
    }

    pub fn record(&self) -> Option<&Record> {
        self.known.as_ref().map(|known| &known.record)
    }

    /// Whether a request can be made now.
    pub fn free(&self, now: Duration) -> bool {
        self.open.is_none() && self.retry.is_none_or(|at| at <= now)
    }

    pub fn read(&mut self) -> Request {
        self.request(Request::Read(self.set))
    }

    pub fn swap(&mut self, new: Record) -> Request {
        let expected = self.known.as_ref().map_or(Version::NONE, |known| known.version);
        self.request(Request::CompareAndSwap { expected, new })
    }

    fn request(&mut self, request: Request) -> Request {
        self.retry = None;
        self.open = Some(request.clone());
        request
    }

    /// The record that the open request wants.
    pub fn wanted(&self) -> Option<&Record> {
        match &self.open {
            Some(Request::CompareAndSwap { new, .. }) => Some(new),
            _ => None,
        }
    }

    /// Takes the answer to the open request. [`Self::known`] is then up to date, except after
    /// [`Heard::There`], where the member judges first.
    pub fn hear(&mut self, answer: Answer, now: Duration, retry: Duration) -> Heard {
        let Some(open) = self.open.take() else { return Heard::Unasked };
        let there = match answer {
            Answer::Swapped(version) => {
                let Request::CompareAndSwap { new: record, .. } = open else {
                    return self.fail("it answered a read as if it were a swap".into(), now, retry);
                };
                self.learn(Versioned { version, record });
                return Heard::Won;
            }
            Answer::Unreachable(why) => {
                if let Request::CompareAndSwap { new, .. } = open
                    && !self.late.contains(&new)
                {
                    self.late.push(new);
                }
                return self.fail(why, now, retry);
            }
            Answer::Found(there) | Answer::Conflict(there) => there,
        };
        // Without a record nobody can know who was active last.
        let Some(there) = there else {
            let why = "it has no record of this set: restore the arbiter's data".to_owned();
            return self.fail(why, now, retry);
        };
        if let Err(invalid) = there.record.check() {
            return self.fail(invalid.to_string(), now, retry);
        }
        if there.record.set != self.set {
            return self.fail("it answered with another set's record".into(), now, retry);
        }
        match open {
            Request::CompareAndSwap { new, .. } if new == there.record => {
                self.learn(there);
                Heard::Won
            }
            Request::CompareAndSwap { expected, .. } if expected == there.version => {
                self.fail("it refused a swap without a reason".into(), now, retry)
            }
            _ => Heard::There(there),
        }
    }

    fn fail(&mut self, why: String, now: Duration, retry: Duration) -> Heard {
        self.retry = Some(now.saturating_add(retry));
        Heard::Nothing(why)
    }

    /// Whether this failure is the first since the last usable answer: the user is told once.
    pub fn first_failure(&mut self) -> bool {
        !std::mem::replace(&mut self.failing, true)
    }

    /// This record is at the arbiter.
    pub fn learn(&mut self, there: Versioned) {
        if self.known.as_ref().is_none_or(|known| known.version != there.version) {
            self.late.clear();
        }
        self.known = Some(there);
        self.failing = false;
    }
}

//! The arbiter of a lockstep move: the source itself, until it has given the VM.
//!
//! Two hosts that only swap roles need no third one. While the source has the VM it alone may go
//! on, so it answers itself; the destination goes on by the source's word and by nothing else. From
//! that word on the source has no answer for itself either: should it not hear whether the word
//! arrived, it waits (rule R2).

use super::Arbiter;
use migrate::replication::arbiter::{Answer, Record, Request, Version, Versioned};
use std::{
    os::fd::RawFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

const CLOSED: &str = "the VM is being moved: only the other host's word counts";

/// See the module. Copies are the same arbiter.
#[derive(Clone, Debug)]
pub struct Own(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    there: Option<Versioned>,
    open: bool,
    answer: Option<Answer>,
}

impl Own {
    /// The source's.
    pub fn of_source() -> Self {
        Self::new(true)
    }

    /// The destination's, which never answers.
    pub fn of_destination() -> Self {
        Self::new(false)
    }

    fn new(open: bool) -> Self {
        Self(Arc::new(Mutex::new(State { there: None, open, answer: None })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it answers from now on.
    pub fn open(&self, open: bool) {
        self.state().open = open;
    }
}

impl State {
    fn swap(&mut self, expected: Version, new: &Record) -> Answer {
        let version = self.there.as_ref().map_or(Version::NONE, |there| there.version);
        if version != expected {
            return Answer::Conflict(self.there.clone());
        }
        let version = Version(version.0 + 1);
        self.there = Some(Versioned { version, record: new.clone() });
        Answer::Swapped(version)
    }
}

impl Arbiter for Own {
    fn ask(&mut self, request: &Request) {
        let mut state = self.state();
        let answer = match request {
            _ if !state.open => Answer::Unreachable(CLOSED.into()),
            Request::Read(_) => Answer::Found(state.there.clone()),
            Request::CompareAndSwap { expected, new } => state.swap(*expected, new),
        };
        state.answer = Some(answer);
    }

    fn answer(&mut self) -> Option<Answer> {
        self.state().answer.take()
    }

    /// None: it answers at once.
    fn fd(&self) -> RawFd {
        -1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrate::replication::arbiter::{MemberId, SetId, Term};

    #[test]
    fn it_decides_until_it_is_closed() {
        let (set, active) = (SetId([1; 16]), MemberId([2; 16]));
        let new = Record { set, term: Term(1), active, in_sync: vec![] };
        let mut own = Own::of_source();
        let swap = Request::CompareAndSwap { expected: Version::NONE, new: new.clone() };
        let asked = |own: &mut Own, request: &Request| {
            own.ask(request);
            own.answer().unwrap()
        };
        let Answer::Swapped(version) = asked(&mut own, &swap) else { panic!("not swapped") };
        let there = Some(Versioned { version, record: new });
        assert_eq!(asked(&mut own, &swap), Answer::Conflict(there.clone()));
        own.clone().open(false);
        assert!(matches!(asked(&mut own, &swap), Answer::Unreachable(_)));
        own.open(true);
        assert_eq!(asked(&mut own, &Request::Read(set)), Answer::Found(there));
        let mut other = Own::of_destination();
        assert!(matches!(asked(&mut other, &Request::Read(set)), Answer::Unreachable(_)));
    }
}

//! What happened in a replica set, for users and for threads that wait for it.

use migrate::replication::arbiter::MemberId;
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// Events that are kept for people.
const EVENTS_MAX: usize = 16;
/// How often users are told that the guest is slowed down.
const SAY_SLOW: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub struct Tally {
    /// Bytes of records appended or received.
    pub log_bytes: u64,
    /// Why the arbiter did not answer last time.
    pub arbiter_unreachable: Option<String>,
    pub divergences: u64,
    pub takeovers: u64,
    pub events: VecDeque<String>,
    /// Of these, what was not printed yet.
    pub unsaid: Vec<String>,
    /// What became of standbys; `Err`: why they are in sync no longer, or never were.
    pub standbys: BTreeMap<MemberId, Result<(), String>>,
    /// A standby was in sync.
    pub was_protected: bool,
    /// Why the last swap failed, if it did.
    pub swap_failed: Option<String>,
    /// When the guest was to be stopped for the last swap, and when the standby had it.
    pub swap: (Option<Instant>, Option<Instant>),
    /// Why an attempt to protect the VM failed last.
    pub not_protected: Option<String>,
    /// When the user was last told that the guest is slowed down.
    slow_said: Option<Instant>,
    /// The standbys were told to end.
    pub unprotected: bool,
    /// The primary has let this standby go.
    pub dismissed: bool,
    /// Why this member cannot go on.
    pub failed: Option<String>,
}

impl Tally {
    /// Tells the user that the guest is slowed down, now and then.
    pub fn say_slow(&mut self) {
        if self.slow_said.is_none_or(|said| said.elapsed() >= SAY_SLOW) {
            self.slow_said = Some(Instant::now());
            self.say("a standby falls behind: the VM is slowed down".into());
        }
    }

    /// Tells the user, unless the attempt before failed in the same way.
    pub fn say_not_protected(&mut self, why: String) {
        if self.not_protected.as_ref() != Some(&why) {
            self.not_protected = Some(why.clone());
            self.say(why);
        }
    }

    /// Tells the user.
    pub fn say(&mut self, what: String) {
        self.unsaid.push(what.clone());
        self.note(what);
    }

    /// Keeps it for those who ask.
    pub fn note(&mut self, what: String) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(what);
    }
}

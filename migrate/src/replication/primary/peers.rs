//! The standbys: how each joins, what it says, how far it is, why it leaves.

use std::time::Duration;

use super::{Action, Behind, Log, Lost, News, Primary};
use crate::replication::{
    Commit, Position, Settings,
    arbiter::{MemberId, STANDBYS_MAX},
    wire::Message,
};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Stage {
    /// It catches up with the log's end as it was when it came; then output waits for it, and the
    /// arbiter is asked to record it.
    Joining { target: Position },
    /// The arbiter's record names it.
    InSync,
    /// It is to leave the record. No record is sent to it, and none of its acks counts.
    Leaving,
}

/// A standby as the primary sees it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Peer {
    pub stage: Stage,
    pub received: Position,
    pub executed: Position,
    pub heard: Duration,
    /// Since when it is too far behind.
    pub slow: Option<Duration>,
    round_trip: Duration,
}

impl Peer {
    pub fn new(stage: Stage, base: Position, now: Duration) -> Self {
        let (received, executed) = (base, base);
        Self { stage, received, executed, heard: now, slow: None, round_trip: Duration::ZERO }
    }

    pub fn leaving(&self) -> bool {
        self.stage == Stage::Leaving
    }

    pub fn acked(&self, settings: &Settings) -> Position {
        match settings.commit {
            Commit::Received => self.received,
            Commit::Executed => self.executed,
        }
    }

    pub fn caught_up(&self, settings: &Settings) -> bool {
        matches!(self.stage, Stage::Joining { target } if self.acked(settings) >= target)
    }

    pub fn deadline(&self, log: &Log, settings: &Settings) -> Option<Duration> {
        if self.leaving() {
            return None;
        }
        let silent = self.heard.saturating_add(settings.silence());
        let lags = match self.slow {
            Some(slow) => Some(slow.saturating_add(settings.lag_grace)),
            None if self.stage == Stage::InSync => {
                log.behind(self.executed).map(|(since, _)| since.saturating_add(settings.max_lag))
            }
            None => None,
        };
        Some(lags.map_or(silent, |lags| lags.min(silent)))
    }

    pub fn behind(&self, log: &Log, now: Duration) -> Behind {
        let (since, bytes) = log.behind(self.executed).unwrap_or((now, 0));
        Behind {
            in_sync: self.stage == Stage::InSync,
            leaving: self.leaving(),
            not_received: log.last().saturating_sub(self.received),
            not_executed: log.last().saturating_sub(self.executed),
            time: now.saturating_sub(since),
            bytes,
            round_trip: self.round_trip,
            silent: now.saturating_sub(self.heard),
        }
    }
}

impl Primary {
    pub(super) fn seeded(
        &mut self,
        member: MemberId,
        base: Position,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let target = self.log.last();
        let why = if self.peers.contains_key(&member) || member == self.me {
            Some("it is in the set already")
        } else if self.in_the_way().contains(&member) {
            Some("it was in the set before: start another process")
        } else if self.peers.len() == STANDBYS_MAX {
            Some("the set has as many standbys as it can have")
        } else if self.swap.is_some() || self.unprotecting {
            Some("the set is about to change: try again")
        } else if base > target {
            Some("its copy is newer than the VM")
        } else {
            None
        };
        if let Some(why) = why {
            let known = self.peers.contains_key(&member);
            out.extend((!known).then_some(Action::Close(member)));
            out.push(Action::Report(News::NotAccepted { member, why }));
            return;
        }
        self.add(member, Peer::new(Stage::Joining { target }, base, now), now);
        self.tell_record(member, out);
        if base < target {
            let (first, released) = (base + 1, self.released);
            out.push(Action::SendRecords { to: member, first, last: target, released });
        }
    }

    pub(super) fn add(&mut self, member: MemberId, peer: Peer, now: Duration) {
        if self.peers.is_empty() {
            self.beat = now.saturating_add(self.settings.heartbeat);
        }
        self.peers.insert(member, peer);
    }

    pub(super) fn tell_record(&self, to: MemberId, out: &mut Vec<Action>) {
        if let Some(known) = &self.asking.known {
            let message = Message::Membership(known.clone(), self.settings.commit);
            out.push(Action::Send { to, message });
        }
    }

    pub(super) fn message(
        &mut self,
        from: MemberId,
        message: Message,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let known = self.asking.record().map_or(self.term, |record| record.term);
        // From a member that left the set messages may still arrive.
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.heard = now;
        if let Message::Dropped(term) | Message::Heartbeat { term, .. } = message
            && term > known
        {
            return self.fence(term, out);
        }
        if peer.leaving() {
            return;
        }
        match message {
            Message::Ack { received, executed, stamp_ns } => {
                let back = received < peer.received || executed < peer.executed;
                if back || executed > received || received > self.log.last() {
                    let why = Lost::Nonsense("it acked what it cannot have");
                    return self.leave(from, why, out);
                }
                (peer.received, peer.executed) = (received, executed);
                peer.round_trip = now.saturating_sub(Duration::from_nanos(stamp_ns));
            }
            // Packets are for the driver.
            Message::Heartbeat { .. } | Message::Dropped(_) | Message::Forwarded(_) => {}
            Message::Divergence { position, what } => {
                self.leave(from, Lost::Diverged { position, what }, out);
            }
            Message::Records(..)
            | Message::Membership(..)
            | Message::Yours { .. }
            | Message::Mine { .. }
            | Message::Goodbye
            | Message::Seeding(_) => {
                self.leave(from, Lost::Nonsense("it spoke as a primary does"), out);
            }
        }
    }

    /// The standby is to leave the set. Its connection stays until the arbiter has recorded that,
    /// with heartbeats, so that it does not take over what it is too slow for.
    pub(super) fn leave(&mut self, member: MemberId, why: Lost, out: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&member).filter(|peer| !peer.leaving()) else { return };
        peer.stage = Stage::Leaving;
        peer.slow = None;
        let text = why.to_string();
        out.push(Action::Report(News::Leaving { member, why }));
        if self.swap.as_ref().is_some_and(|swap| swap.to == member) {
            self.cancel_swap(text, out);
        }
        if !self.in_the_way().contains(&member) {
            self.left(member, out);
        }
    }

    /// The standby is in no record that may be at the arbiter.
    pub(super) fn left(&mut self, member: MemberId, out: &mut Vec<Action>) {
        self.peers.remove(&member);
        let term = self.asking.record().map_or(self.term, |record| record.term);
        let message = Message::Dropped(term);
        out.extend([Action::Send { to: member, message }, Action::Close(member)]);
        out.push(Action::Report(News::Left(member)));
    }

    /// Gives up the standbys that were silent for too long. This comes before any message counts
    /// that has waited here meanwhile: after a pause of this process they may have taken over.
    pub(super) fn watch_silence(&mut self, now: Duration, out: &mut Vec<Action>) {
        let silence = self.settings.silence();
        let silent = self.peers.iter().filter(|(_, p)| p.heard.saturating_add(silence) <= now);
        let silent: Vec<_> = silent.map(|(&id, _)| id).collect();
        silent.into_iter().for_each(|id| self.leave(id, Lost::Silent, out));
    }

    pub(super) fn tick(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.watch_lag(now, out);
        let over = |slow: Duration| slow.saturating_add(self.settings.lag_grace) <= now;
        let late = self.peers.iter().filter(|(_, peer)| peer.slow.is_some_and(over));
        let late: Vec<_> = late.map(|(&id, _)| id).collect();
        late.into_iter().for_each(|id| self.leave(id, Lost::Lag, out));
        if self.beat <= now {
            self.beat = now.saturating_add(self.settings.heartbeat);
            let message = Message::Heartbeat { term: self.term, released: self.released };
            let beat = |&to: &MemberId| Action::Send { to, message: message.clone() };
            out.extend(self.peers.keys().map(beat));
        }
    }

    /// Slows output down while a standby is too far behind.
    pub(super) fn watch_lag(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Settings { max_lag, max_lag_bytes, .. } = self.settings;
        for peer in self.peers.values_mut().filter(|peer| !peer.leaving()) {
            let in_sync = peer.stage == Stage::InSync;
            let far = self.log.behind(peer.executed).is_some_and(|(since, bytes)| {
                // A standby that joins may have much to catch up with.
                let late = in_sync && now.saturating_sub(since) >= max_lag;
                late || bytes > max_lag_bytes
            });
            peer.slow = far.then(|| peer.slow.unwrap_or(now));
        }
        let slow = self.peers.values().any(|peer| peer.slow.is_some());
        if slow != self.slow {
            self.slow = slow;
            out.push(Action::SlowDown(slow));
        }
        let executed = self.peers.values().filter(|p| !p.leaving()).map(|p| p.executed).min();
        self.log.executed(executed.unwrap_or_else(|| self.log.last()));
    }
}

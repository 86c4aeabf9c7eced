//! A look at everything that a member waits for: what has arrived, what can be sent, what is due.

use super::{
    late::Late,
    set::{Core, Part, Set},
};
use crate::{host::poll::Watch, migration::connection::LinkError};
use migrate::replication::{Commit, arbiter::MemberId, primary, standby, wire::Message};
use std::{
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

/// Most reads from a connection before others get their turn.
const READS: usize = 16;
/// The longest wait, where there is no deadline.
const LONG: Duration = Duration::from_secs(1);

impl Set {
    /// What is to be polled.
    pub(super) fn watched(&self, core: &Core) -> Vec<Watch> {
        let mut watched =
            vec![Watch::Readable(self.wake.as_raw_fd()), Watch::Readable(core.beside.arbiter.fd())];
        let has_room = match &core.part {
            Part::Standby(_, feed) => feed.has_room(),
            Part::Primary(_) | Part::Over { .. } => true,
        };
        for peer in core.peers.values() {
            let fd = peer.channel.fd();
            watched.extend(has_room.then_some(Watch::Readable(fd)));
            watched.extend(peer.channel.is_full().then_some(Watch::Writable(fd)));
        }
        watched.extend(core.late.as_ref().and_then(Late::fd).map(Watch::Readable));
        watched.extend(core.closing.iter().map(|channel| Watch::Writable(channel.fd())));
        watched
    }
}

impl Core {
    /// For how long.
    pub fn timeout(&self) -> Duration {
        if !self.todo.is_empty() {
            return Duration::ZERO;
        }
        let now = self.now();
        self.deadline().map_or(LONG, |deadline| deadline.saturating_sub(now)).min(LONG)
    }

    /// What has arrived, what can be sent, and what is due.
    pub fn look(&mut self) {
        // What waits for an urgent record does not wait longer than this.
        self.send_recent();
        let members: Vec<_> = self.peers.keys().copied().collect();
        for member in members {
            if let Err(e) = self.look_at(member) {
                let why = crate::host::with_causes(&e);
                // Nothing more is heard from it.
                if let Some(peer) = self.peers.remove(&member) {
                    peer.channel.close();
                }
                match self.part {
                    Part::Primary(_) => {
                        self.primary(primary::Event::Disconnected { member, why });
                    }
                    Part::Standby(..) => self.standby(standby::Event::Disconnected(why)),
                    Part::Over { .. } => {}
                }
            }
        }
        if let Err(e) = self.forward() {
            tracing::debug!("packets for the new primary are lost: {e}");
        }
        let due = self.deadline().is_some_and(|deadline| deadline <= self.now());
        match self.part {
            Part::Primary(_) if due => self.primary(primary::Event::Tick),
            Part::Standby(..) if due => self.standby(standby::Event::Tick),
            Part::Primary(_) | Part::Standby(..) | Part::Over { .. } => {}
        }
    }

    fn look_at(&mut self, member: MemberId) -> Result<(), LinkError> {
        let mut reads = 0;
        loop {
            // A message may end the connection.
            let Some(peer) = self.peers.get_mut(&member) else { return Ok(()) };
            if let Some(message) = peer.channel.next()? {
                self.heard(member, message);
                continue;
            }
            let full = matches!(&self.part, Part::Standby(_, feed) if !feed.has_room());
            // A peer that never stops is not the only one.
            if full || reads == READS || !peer.channel.read()? {
                return peer.channel.flush();
            }
            reads += 1;
        }
    }

    fn deadline(&self) -> Option<Duration> {
        match &self.part {
            Part::Primary(machine) => machine.deadline(),
            Part::Standby(machine, _) => machine.deadline(),
            Part::Over { .. } => None,
        }
    }

    fn heard(&mut self, from: MemberId, message: Message) {
        if let Message::Forwarded(packet) = message {
            // They may follow right behind the VM itself, which is about to run here then.
            self.arrived.push(packet);
            return;
        }
        let feed = match &self.part {
            Part::Primary(_) => {
                return self.primary(primary::Event::Message { from, message });
            }
            Part::Standby(_, feed) => Arc::clone(feed),
            Part::Over { .. } => return,
        };
        self.late.iter_mut().for_each(Late::heard);
        match &message {
            Message::Mine { .. } => self.tally.swap.1 = Some(Instant::now()),
            Message::Membership(_, Commit::Executed) => feed.wait_for_it(),
            _ => {}
        }
        let yours = matches!(message, Message::Yours { .. });
        if yours {
            // No record follows, and what the network brings here from now on is for this member.
            self.late = None;
            feed.wait_for_it();
        }
        self.standby(standby::Event::Message(message));
    }
}

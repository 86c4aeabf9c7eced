//! Faults at drawn moments.

use migrate::replication::{primary, standby};

use super::{
    host::{Role, id},
    sim::{Sim, us},
};

impl Sim {
    pub fn fault(&mut self) {
        let Some(active) = self.the_active() else { return };
        let peers = self.net.peers(active);
        let standby = self.rng.choice(&peers).copied();
        let either = standby.filter(|_| self.rng.bool()).unwrap_or(active);
        match self.rng.u8(..9) {
            // A process dies: its peers learn that its connections are closed.
            0 | 1 => self.dies(either, true),
            // A host dies: nobody is told.
            2 => self.dies(either, false),
            // The link is lost, and nobody is told.
            3 => {
                if let Some(standby) = standby {
                    self.net.cut(active, standby);
                }
            }
            // A process is frozen for a while, longer than its peers wait, and comes back.
            4 | 5 => {
                let thaws = self.now + us(self.rng.u64(2000..25_000));
                self.hosts[either].as_mut().into_iter().for_each(|host| host.frozen = thaws);
            }
            6 => self.arbiter.silent = self.now + us(self.rng.u64(2000..25_000)),
            // A false alarm.
            7 => {
                let other = if either == active { standby } else { Some(active) };
                if let Some(other) = other {
                    let why = || "an alarm".to_owned();
                    let event = primary::Event::Suspected { member: id(other), why: why() };
                    self.event(either, event, Some(standby::Event::Suspected(why())));
                }
            }
            // A copy diverges, or is far too slow.
            _ => {
                let Some(host) = standby.and_then(|n| self.hosts[n].as_mut()) else { return };
                if self.rng.bool() {
                    host.speed = 900;
                } else if let Role::Standby(_) = host.role {
                    host.wrong = true;
                    host.executing = false;
                    let position = host.executed as u64 + 1;
                    let what = "another frame".to_owned();
                    let n = standby.unwrap_or_default();
                    self.standby_event(n, standby::Event::Diverged { position, what });
                }
            }
        }
        self.excuse();
    }

    fn dies(&mut self, n: usize, told: bool) {
        for peer in self.net.peers(n) {
            if told {
                self.closes(n, peer);
            } else {
                self.net.cut(n, peer);
            }
        }
        self.hosts[n] = None;
    }

    /// Nobody is left that could go on: all that may are gone.
    pub fn excuse(&mut self) {
        let Some(there) = &self.arbiter.there else { return };
        let may = |n: usize| self.host(n).is_some_and(|host| host.there());
        let any = (0..self.hosts.len()).any(|n| there.record.names(id(n)) && may(n));
        self.excused |= !any;
    }
}

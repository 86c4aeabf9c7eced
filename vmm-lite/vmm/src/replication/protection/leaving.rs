//! A move by a swap of roles: the destination follows as a standby for a moment, and is then given
//! the VM. No memory is sent while the guest stands, and none is missing when it runs.

use super::{
    Beside, Error, How, Member, Progress, Swapped,
    late::FORWARDED,
    own::Own,
    seed::{Seeded, seed},
    set::{Part, Purpose, Set},
};
use crate::{
    migration::{address::Address, connection::Transport},
    vm::{Observer, VmPhase},
};
use migrate::{
    Peer,
    replication::{Settings, arbiter::MemberId, primary::Event},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the swap may take; the guest runs for most of it.
const SWAP: Duration = Duration::from_secs(10);
/// A peer that is silent for a second fails the move. There is no hurry: the guest runs.
const SETTINGS: (Duration, u32) = (Duration::from_millis(20), 50);

/// A VM that has left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Left {
    /// From the request to stop the guest here until the destination's message that it runs.
    pub blackout: Duration,
    /// The guest's pause for the copy, before that.
    pub pause: Duration,
    /// From the request to move it until then.
    pub total: Duration,
    /// Pages copied.
    pub pages: u64,
    /// Bytes sent on the connection until the destination followed.
    pub bytes: u64,
    /// The destination's key, if it has proved one.
    pub peer: Peer,
}

impl Member {
    /// Moves the VM to the `receive` at `to`. `told` is called when it runs there, before it ends
    /// here.
    ///
    /// # Errors
    /// [`Error`]: the VM runs on here, but for [`Error::Unknown`].
    pub fn leave<O: Observer<Progress>>(
        &self,
        to: &Address,
        transport: &Transport,
        observer: &mut O,
        told: impl FnOnce(&mut O, Left),
    ) -> Result<(), Error> {
        let _changing = self.change()?;
        if let VmPhase::Paused = self.vm().phase() {
            let why = "the VM is paused, and mode lockstep moves what runs: use another one";
            return Err(Error::NotNow(why.into()));
        }
        let (began, own) = (Instant::now(), Own::of_source());
        let beside = Beside { arbiter: Box::new(own.clone()), keeper: None, protector: None };
        let (heartbeat, misses) = SETTINGS;
        let settings = Settings { heartbeat, misses, ..Settings::default() };
        let how = How { settings, allow_own_clock: false };
        let set = self.begin(beside, how, Purpose::Leaving(own))?;
        let gone = self.recorded(&set).and_then(|()| seed(&set, to, transport, observer));
        let gone = gone.and_then(|seeded| {
            self.in_sync(&set, &seeded, began)?;
            let end = Instant::now() + SWAP;
            let swapped = loop {
                match self.swap(&set, seeded.member, SWAP) {
                    // The guest computes, and comes to an exit sooner or later.
                    Err(Error::NotNow(_)) if Instant::now() < end && set.has(seeded.member) => {}
                    swapped => break swapped?,
                }
            };
            Ok((seeded, swapped))
        });
        match gone {
            Ok((Seeded { pages, bytes, peer, pause, .. }, Swapped { blackout, .. })) => {
                told(
                    observer,
                    Left { blackout, pause, total: began.elapsed(), pages, bytes, peer },
                );
                self.end_here(&set)
            }
            Err(_) if set.was_handed_over() => Err(Error::Unknown),
            Err(e) => {
                set.lock().primary(Event::Unprotect);
                set.give_up();
                self.forget_set();
                Err(e)
            }
        }
    }

    /// Forwards what still comes, and ends the VM here: it runs elsewhere.
    fn end_here(&self, set: &Arc<Set>) -> Result<(), Error> {
        // The destination may close the connection before.
        set.wait_for(Instant::now() + FORWARDED, |core| core.peers.is_empty().then_some(()));
        let paused = self.vm().pause()?;
        let mut core = set.lock();
        core.part = Part::Over { fenced: false };
        core.todo.clear();
        let members: Vec<_> = core.peers.keys().copied().collect();
        members.into_iter().for_each(|member| core.close(member));
        core.wake();
        drop(core);
        Ok(paused.moved()?)
    }

    /// The user vouches that a VM whose move has an unknown outcome runs nowhere else: it goes on
    /// here. Whether there is such a VM.
    #[must_use]
    pub fn vouch(&self) -> bool {
        let Some(set) = self.set() else { return false };
        let Purpose::Leaving(own) = &set.purpose else { return false };
        let waits = set.was_handed_over();
        if waits {
            own.open(true);
            set.lock().wake();
        }
        waits
    }
}

impl Set {
    /// Whether the VM runs here, and this standby is in sync.
    fn has(&self, standby: MemberId) -> bool {
        match &self.lock().part {
            Part::Primary(machine) => {
                machine.record().is_some_and(|record| record.in_sync.contains(&standby))
            }
            Part::Standby(..) | Part::Over { .. } => false,
        }
    }

    /// Whether the VM was given away.
    fn was_handed_over(&self) -> bool {
        matches!(self.lock().part, Part::Standby(..))
    }
}

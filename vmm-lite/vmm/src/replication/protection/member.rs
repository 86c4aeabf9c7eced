//! This process's part in the protection of its VM.

use super::{
    Beside, Error, Figures, How, Progress, Protected, Role, Swapped,
    log::SetLog,
    seed::{Seeded, seed},
    set::{Beginning, Part, Purpose, Set, event},
    thread,
};
use crate::{
    devices::gate::Gate,
    migration::{address::Address, connection::Transport},
    vm::{End, Observer, RecordOptions, Vm, VmPhase},
};
use migrate::replication::{
    Primary,
    arbiter::{MemberId, SetId},
    primary::Event,
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

/// How long the arbiter may take to make the set's record.
const ARBITER: Duration = Duration::from_secs(5);
/// How long a standby that was seeded may take to be in sync.
const CATCH_UP: Duration = Duration::from_secs(60);
/// The log has digests of the guest's state at one exit of this many.
pub(super) const CHECK_EVERY: u64 = 4096;

/// See the module. Copies are the same member.
#[derive(Clone, Debug)]
pub struct Member(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    vm: Vm,
    /// The replica set of the VM, while it has one.
    set: Mutex<Option<Arc<Set>>>,
    /// Held by what changes the set.
    changing: Mutex<()>,
}

impl Member {
    /// The VM of this process, which is not protected.
    #[must_use]
    pub fn new(vm: Vm) -> Self {
        Self::of(vm, None)
    }

    pub(super) fn of(vm: Vm, set: Option<Arc<Set>>) -> Self {
        Self(Arc::new(Inner { vm, set: Mutex::new(set), changing: Mutex::default() }))
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Set>>> {
        self.0.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The set, unless it is over.
    pub(super) fn set(&self) -> Option<Arc<Set>> {
        let set = self.slot().clone()?;
        let over = matches!(set.lock().part, Part::Over { fenced: false });
        (!over).then_some(set)
    }

    /// The VM has no set any more.
    pub(super) fn forget_set(&self) {
        *self.slot() = None;
    }

    fn protected(&self) -> Result<Arc<Set>, Error> {
        self.set().ok_or_else(|| {
            Error::NotNow("the VM is not protected: `vmm-lite protect` does that".into())
        })
    }

    pub(super) fn change(&self) -> Result<MutexGuard<'_, ()>, Error> {
        match self.0.changing.try_lock() {
            Ok(changing) => Ok(changing),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Error::NotNow(
                "the VM's replica set is being changed already: try again when that is done".into(),
            )),
        }
    }

    /// The VM.
    #[must_use]
    pub fn vm(&self) -> &Vm {
        &self.0.vm
    }

    /// Its part; `None`: the VM is not protected. A VM that has one must not be moved by other
    /// means.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.set().map(|set| set.role())
    }

    /// Protects the VM by the standby at `to`, and waits until that is in sync. The first one makes
    /// the set, with `beside` and `how`; for further ones it keeps those that it has, but for a
    /// protector.
    ///
    /// # Errors
    /// [`Error`]: the VM runs on, as well protected as before.
    pub fn protect(
        &self,
        to: &Address,
        transport: &Transport,
        beside: Beside,
        how: How,
        observer: &mut dyn Observer<Progress>,
    ) -> Result<Protected, Error> {
        let _changing = self.change()?;
        let began = Instant::now();
        let (set, is_new) = match self.set() {
            Some(set) => {
                if !matches!(set.lock().part, Part::Primary(_)) {
                    return Err(Error::NotNow("another host runs the VM: protect it there".into()));
                }
                if let Some(protector) = beside.protector {
                    set.lock().beside.protector = Some(protector);
                }
                (set, false)
            }
            None => (self.begin(beside, how, Purpose::Protection)?, true),
        };
        let seeded = self.recorded(&set).and_then(|()| {
            fail_point!("protection.recorded");
            seed(&set, to, transport, observer)
        });
        let protected = seeded.and_then(|seeded| self.in_sync(&set, &seeded, began));
        match &protected {
            Ok(_) => {}
            Err(_) if is_new => {
                // There is no standby: at worst the arbiter keeps a record that no member needs.
                set.give_up();
                *self.slot() = None;
            }
            Err(e) => {
                let why = crate::host::with_causes(e);
                let mut core = set.lock();
                core.tally.say_not_protected(format!("not protected by {to}: {why}"));
                core.wake();
            }
        }
        protected
    }

    /// Begins a set: the VM is recorded from now on.
    pub(super) fn begin(
        &self,
        beside: Beside,
        how: How,
        purpose: Purpose,
    ) -> Result<Arc<Set>, Error> {
        let vm = &self.0.vm;
        if vm.is_recorded() {
            return Err(Error::NotNow(
                "the VM has a journal, and cannot be protected as well: start it without --journal"
                    .into(),
            ));
        }
        let host = |doing| move |source| Error::Host { doing, source };
        let (me, id) = (MemberId(draw()?), SetId(draw()?));
        let (wake, gate) = (event().map_err(host("make an event descriptor"))?, Gate::new());
        let epoch = Instant::now();
        let (machine, actions) = Primary::begin(me, id, how.settings, 0, Duration::ZERO);
        let record = RecordOptions {
            check_every: CHECK_EVERY,
            allow_own_clock: how.allow_own_clock,
            ..RecordOptions::default()
        };
        let set = Set::new(
            vm,
            Beginning {
                me,
                id,
                settings: how.settings,
                record,
                beside,
                gate: Arc::clone(&gate),
                last: 0,
                wake,
                epoch,
                part: Part::Primary(machine),
                purpose,
            },
        )
        .map_err(host("make a lock"))?;
        let mut paused = vm.pause()?;
        paused.record(Box::new(SetLog(Arc::clone(&set))), 0, record)?;
        paused.hold_output(&gate)?;
        paused.resume_here()?;
        let mut events = VecDeque::new();
        set.lock().act_as_primary(actions, &mut events);
        thread::start(&set).map_err(host("start a thread"))?;
        *self.slot() = Some(Arc::clone(&set));
        Ok(set)
    }

    /// Waits until the arbiter has the set's record.
    pub(super) fn recorded(&self, set: &Set) -> Result<(), Error> {
        let end = Instant::now() + ARBITER;
        let recorded = set.wait_for(end, |core| match &core.part {
            Part::Primary(machine) if machine.record().is_some() => Some(Ok(())),
            Part::Primary(_) => None,
            Part::Standby(..) | Part::Over { .. } => Some(Err(())),
        });
        if recorded == Some(Ok(())) {
            return Ok(());
        }
        let why = set.lock().tally.arbiter_unreachable.clone();
        Err(Error::Arbiter(why.unwrap_or_else(|| format!("nothing came within {ARBITER:?}"))))
    }

    /// Waits until a standby is in sync.
    pub(super) fn in_sync(
        &self,
        set: &Set,
        seeded: &Seeded,
        began: Instant,
    ) -> Result<Protected, Error> {
        let member = seeded.member;
        let end = Instant::now() + CATCH_UP;
        let became = set.wait_for(end, |core| {
            let over = matches!(core.part, Part::Over { .. });
            let failed = || core.tally.failed.clone().unwrap_or_default();
            core.tally.standbys.get(&member).cloned().or_else(|| over.then(|| Err(failed())))
        });
        match became {
            Some(Ok(())) => Ok(Protected {
                member,
                term: set.term().0,
                took: began.elapsed(),
                pause: seeded.pause,
                pages: seeded.pages,
            }),
            Some(Err(why)) => Err(Error::Refused(why)),
            None => {
                let why = "it did not catch up".into();
                set.lock().primary(Event::Suspected { member, why });
                Err(Error::Timeout("catching up with the VM", CATCH_UP))
            }
        }
    }

    /// Ends the protection; the standbys end. Waits for the arbiter at most `within`.
    ///
    /// # Errors
    /// [`Error::NotNow`], [`Error::Timeout`]: it is still protected.
    pub fn unprotect(&self, within: Duration) -> Result<(), Error> {
        let _changing = self.change()?;
        let set = self.protected()?;
        let mut core = set.lock();
        if !matches!(core.part, Part::Primary(_)) {
            return Err(Error::NotNow("another host runs the VM: end the protection there".into()));
        }
        core.primary(Event::Unprotect);
        core.wake();
        drop(core);
        let ended = set.wait_for(Instant::now() + within, |core| {
            let over = matches!(core.part, Part::Over { .. });
            (core.tally.unprotected || over).then_some(core.tally.unprotected)
        });
        match ended {
            Some(true) => {
                *self.slot() = None;
                Ok(())
            }
            Some(false) => Err(Error::NotNow("the VM has ended".into())),
            None => Err(Error::Timeout("the arbiter's record of that", within)),
        }
    }

    /// For a VM that has ended: its standbys are told, so that they do not go on with it, unless it
    /// is this host that failed. Waits at most `within`.
    pub fn ended(&self, within: Duration) {
        let Some(set) = self.set() else { return };
        if let VmPhase::Ended(end) = self.0.vm.phase()
            && let End::Vmm(_) = *end
        {
            return;
        }
        let mut core = set.lock();
        if !matches!(core.part, Part::Primary(_)) {
            return;
        }
        core.send_recent();
        drop(core);
        let end = Instant::now() + within;
        // Its last words leave first.
        set.wait_for(end, |core| match &core.part {
            Part::Primary(machine) => (machine.released() >= core.recent.last()).then_some(()),
            Part::Standby(..) | Part::Over { .. } => Some(()),
        });
        let mut core = set.lock();
        core.primary(Event::Unprotect);
        core.wake();
        drop(core);
        set.wait_for(end, |core| {
            let over = matches!(core.part, Part::Over { .. });
            ((core.tally.unprotected || over) && core.closing.is_empty()).then_some(())
        });
    }

    /// Swaps roles with the standby `to`, or with the only one. This member is a standby then.
    ///
    /// # Errors
    /// [`Error::NotNow`], [`Error::Timeout`]: the VM runs on here.
    pub fn failover(&self, to: Option<MemberId>, within: Duration) -> Result<Swapped, Error> {
        let _changing = self.change()?;
        let set = self.protected()?;
        if let VmPhase::Paused = self.0.vm.phase() {
            return Err(Error::NotNow("the VM is paused: resume it first".into()));
        }
        let core = set.lock();
        let Part::Primary(machine) = &core.part else {
            return Err(Error::NotNow("another host runs the VM: swap roles from there".into()));
        };
        let in_sync = machine.record().map_or(&[][..], |record| &record.in_sync);
        let to = match (to, in_sync) {
            (Some(to), _) => to,
            (None, [to]) => *to,
            (None, []) => return Err(Error::NotNow("no standby is in sync: see stats".into())),
            (None, _) => {
                return Err(Error::NotNow(
                    "the VM has several standbys: name one with --to (stats lists them)".into(),
                ));
            }
        };
        drop(core);
        self.swap(&set, to, within)
    }

    pub(super) fn swap(&self, set: &Set, to: MemberId, within: Duration) -> Result<Swapped, Error> {
        let mut core = set.lock();
        (core.tally.swap_failed, core.tally.swap) = (None, (None, None));
        core.primary(Event::Swap { to });
        core.wake();
        drop(core);
        let swapped =
            set.wait_for(Instant::now() + within, |core| match (core.tally.swap, &core.part) {
                ((Some(stopped), Some(ran)), _) => Some(Ok(ran - stopped)),
                _ if core.tally.swap_failed.is_some() => Some(Err(core.tally.swap_failed.clone())),
                ((Some(_), None), Part::Primary(_)) => Some(Err(Some(
                    "the standby failed when it had been given the VM: it is here again".into(),
                ))),
                (_, Part::Over { .. }) => Some(Err(core.tally.failed.clone())),
                _ => None,
            });
        match swapped {
            Some(Ok(blackout)) => Ok(Swapped { to, term: set.term().0, blackout }),
            Some(Err(why)) => Err(Error::NotNow(why.unwrap_or_default())),
            None => {
                let mut core = set.lock();
                core.primary(Event::SwapCancelled("it took too long".into()));
                core.wake();
                Err(Error::Timeout("the swap", within))
            }
        }
    }

    /// What users see of it; `None`: the VM is not protected.
    #[must_use]
    pub fn figures(&self) -> Option<Figures> {
        self.set().map(|set| set.figures())
    }

    /// Whether this was a standby that its primary has let go.
    #[must_use]
    pub fn was_dismissed(&self) -> bool {
        self.slot().as_ref().is_some_and(|set| set.lock().tally.dismissed)
    }
}

fn draw() -> Result<[u8; 16], Error> {
    crate::host::random::bytes()
        .map_err(|source| Error::Host { doing: "draw random numbers", source })
}

//! A replica set as one of its members keeps it: what its threads share.
//!
//! The vCPU's thread appends records and sends them itself, so that they leave without a change of
//! threads; the set's own thread does the rest. Both carry out what the state machine says while
//! they hold the lock, but for what needs the guest stopped, which only the set's thread does.
//!
//! Lock order: the VM's locks, then this, then the gate's.

use super::{
    Beside, channel::Channel, feed::Feed, late::Late, log::Recent, own::Own, tally::Tally,
};
use crate::{
    devices::gate::Gate,
    host::inheriting::{InheritingGuard, InheritingMutex},
    vm::{InProgress, Vm},
};
use migrate::replication::{
    Primary, Settings, Standby,
    arbiter::{MemberId, Request, SetId, Term},
    standby::Ended,
};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// How long the guest is stopped at an exit at most, to slow it down.
const SLOW_STEP: Duration = Duration::from_millis(2);

/// This member's part.
#[derive(Debug)]
pub(super) enum Part {
    /// It runs the VM.
    Primary(Primary),
    /// It executes what the primary did.
    Standby(Standby, Arc<Feed>),
    /// It has no part in the set any more. Whether another member may run the VM.
    Over { fenced: bool },
}

/// What the set is for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// The VM is to live on when a host dies.
    Protection,
    /// It leaves this host by a swap; the arbiter of that.
    Leaving(Own),
    /// It comes to this host by a swap.
    Arriving,
}

impl Purpose {
    /// Whether the VM moves.
    pub const fn moves(&self) -> bool {
        matches!(self, Self::Leaving(_) | Self::Arriving)
    }
}

/// What only the set's thread does, as it takes hold of the guest.
#[derive(Debug)]
pub(super) enum Todo {
    /// The arbiter is asked.
    Ask(Request),
    /// The guest is stopped for a swap.
    Stop,
    /// It goes on.
    Resume,
    /// It becomes a standby's.
    HandedOver,
    /// This member has lost.
    Fence(String),
    /// The VM is protected no longer.
    Unprotected,
    /// The copy becomes the VM.
    TakeOver {
        /// Position of its last record.
        position: u64,
    },
    /// The standby ends.
    End(Ended),
}

/// A member that this one has a connection to.
#[derive(Debug)]
pub(super) struct Peer {
    pub channel: Channel,
    pub address: String,
}

/// What the lock protects.
#[derive(Debug)]
pub(super) struct Core {
    pub part: Part,
    pub peers: BTreeMap<MemberId, Peer>,
    /// Connections that end when what was sent is out.
    pub closing: Vec<Channel>,
    pub beside: Beside,
    pub gate: Arc<Gate>,
    pub recent: Recent,
    pub todo: VecDeque<Todo>,
    pub slow: bool,
    pub tally: Tally,
    /// Packets that a standby has forwarded, for the guest.
    pub arrived: Vec<Vec<u8>>,
    /// A standby's packets.
    pub late: Option<Late>,
    /// Where the console of a standby's VM goes when it takes over.
    pub output: Option<OwnedFd>,
    /// The operation of a standby's VM: it may have no other.
    pub standing_by: Option<InProgress>,
    /// To wake the set's thread.
    wake: Arc<EventFd>,
    epoch: Instant,
}

/// See the module.
pub struct Set {
    core: InheritingMutex<Core>,
    /// Counts what other threads may wait for.
    changes: Mutex<u64>,
    changed: Condvar,
    pub(super) wake: Arc<EventFd>,
    pub(super) vm: Vm,
    pub(super) me: MemberId,
    pub(super) id: SetId,
    pub(super) settings: Settings,
    pub(super) record: crate::vm::RecordOptions,
    pub(super) purpose: Purpose,
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Set").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a set begins with.
pub(super) struct Beginning {
    pub me: MemberId,
    pub id: SetId,
    pub settings: Settings,
    pub record: crate::vm::RecordOptions,
    pub beside: Beside,
    pub gate: Arc<Gate>,
    /// Position of the last record.
    pub last: u64,
    pub wake: Arc<EventFd>,
    pub epoch: Instant,
    pub part: Part,
    pub purpose: Purpose,
}

/// An event for the set's thread.
pub(super) fn event() -> io::Result<Arc<EventFd>> {
    Ok(Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?))
}

impl Set {
    pub fn new(vm: &Vm, beginning: Beginning) -> io::Result<Arc<Self>> {
        let Beginning { me, id, settings, record, beside, gate, last, wake, epoch, part, purpose } =
            beginning;
        let core = Core {
            part,
            peers: BTreeMap::new(),
            closing: Vec::new(),
            beside,
            gate,
            recent: Recent::after(last),
            todo: VecDeque::new(),
            slow: false,
            tally: Tally::default(),
            arrived: Vec::new(),
            late: None,
            output: None,
            standing_by: None,
            wake: Arc::clone(&wake),
            epoch,
        };
        let (core, vm) = (InheritingMutex::new(core)?, vm.clone());
        let (changes, changed) = Default::default();
        Ok(Arc::new(Self { core, changes, changed, wake, vm, me, id, settings, record, purpose }))
    }

    pub fn lock(&self) -> InheritingGuard<'_, Core> {
        self.core.lock()
    }

    fn changes(&self) -> MutexGuard<'_, u64> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may have changed that other threads wait for.
    pub fn has_changed(&self) {
        *self.changes() += 1;
        self.changed.notify_all();
    }

    /// Waits, for a moment, while the guest is to be slowed down.
    pub fn wait_while_slow(&self) {
        self.wait_for(Instant::now() + SLOW_STEP, |core| (!core.slow).then_some(()));
    }

    /// The term, by the record as it is known here.
    pub fn term(&self) -> Term {
        let core = self.lock();
        let record = match &core.part {
            Part::Primary(machine) => machine.record(),
            Part::Standby(machine, _) => machine.record(),
            Part::Over { .. } => None,
        };
        record.map_or_else(Term::default, |record| record.term)
    }

    /// Waits until `found` finds something, until `end`.
    pub fn wait_for<T>(
        &self,
        end: Instant,
        mut found: impl FnMut(&mut Core) -> Option<T>,
    ) -> Option<T> {
        loop {
            let seen = *self.changes();
            if let Some(found) = found(&mut self.lock()) {
                return Some(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let same = |changes: &mut u64| *changes == seen;
            drop(self.changed.wait_timeout_while(self.changes(), left, same));
        }
    }
}

impl Core {
    /// The state machines' time.
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// What this member has executed so far is the VM.
    pub fn become_primary(&mut self, primary: Primary, position: u64) {
        self.recent = Recent::after(position);
        self.part = Part::Primary(primary);
        self.gate.take_over();
        (self.standing_by, self.late) = (None, None);
    }

    /// The set's thread is to look.
    pub fn wake(&self) {
        // A counter that is full is readable too.
        let _ = self.wake.write(1);
    }

    pub fn do_later(&mut self, todo: Todo) {
        self.todo.push_back(todo);
        self.wake();
    }

    /// The connection to a member ends when what was sent is out. The set's thread sees to that:
    /// the vCPU's, which may be the one to find the connection broken, must not shut it down.
    pub fn close(&mut self, member: MemberId) {
        if let Some(peer) = self.peers.remove(&member) {
            self.closing.push(peer.channel);
            self.wake();
        }
    }

    pub fn flush_closing(&mut self) {
        self.closing.retain_mut(|channel| {
            let more = channel.flush().is_ok() && channel.is_full();
            if !more {
                channel.close();
            }
            more
        });
    }
}

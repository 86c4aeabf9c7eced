//! Takes a VM in: drives [`migrate::destination::Destination`], one move a thread.
//!
//! - `attempt`: does what the machine says
//! - `prepared`: the VM made ready, and what happens to it; `preparing`: that this takes a while is
//!   said
//! - `names`: the name that it gets here
//! - `missing`: pages that whoever touches them waits for
//! - `settling`: how the guest gets to its speed
//! - `warm`: KVM's own tables filled in before the guest runs
//! - `rejoin`: the way back for a source that lost the link
//! - [`stage`]: what the process still needs once a VM is here
//! - `waiting`: what is said of a VM that waits for it

mod attempt;
mod missing;
mod names;
mod prepared;
mod preparing;
mod rejoin;
mod settling;
pub mod stage;
mod waiting;
mod warm;

use super::{
    Error,
    connection::{Connection, Incoming, LinkError, Transport},
    draw,
    listener::Session,
    timeout,
};
use crate::{
    devices::throttle::Rates,
    host::{
        confine::Thread,
        patient::give_way,
        watchdog::{self, Doing},
    },
    kvm::FaultCost,
    vm::{Resources, Vm},
};
pub use names::{NameError, Names};

use attempt::Attempt;
use migrate::{
    MoveId, Peer, ReceiverId,
    destination::Ledger,
    offer::Refusal,
    wire::{Message, Outcome},
};
use rejoin::Rejoin;
use stage::{Stage, Stages, heard};
use std::{
    net::TcpStream,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    time::Duration,
};

/// How long a source may be silent before the commit, its first word included.
const SILENCE: Duration = Duration::from_secs(5);

/// What a VM gets that comes in.
#[derive(Debug)]
pub struct Offering {
    /// The names of VMs on this host.
    pub names: Arc<dyn Names>,
    /// KVM, and the TAP device.
    pub resources: Resources,
    /// Most memory, in bytes.
    pub memory_max: u64,
    /// Where its console output goes.
    pub output: Option<OwnedFd>,
    /// What it costs a guest here when KVM's second tables lack a page, if that is known.
    pub fault_cost: Option<FaultCost>,
    /// How long a VM waits for a source that has memory of it, before it is given up for lost;
    /// `None`: for as long as it takes.
    pub lost_after: Option<Duration>,
    /// Whether a guest may come that sends packets from addresses which are not its own.
    pub allow_spoofing: bool,
    /// How fast its network and its console may be here.
    pub rates: Rates,
}

/// Everything that the connections of one receiving process share.
#[derive(Debug)]
pub struct Receiver {
    me: ReceiverId,
    /// What there is until there is a VM: then only another would need it.
    offering: Mutex<Option<Arc<Offering>>>,
    lost_after: Option<Duration>,
    arrived: Sender<Vm>,
    state: Mutex<State>,
    changed: Condvar,
    /// What the process still needs.
    pub stages: Stages,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    /// The move under way, and how to reach its thread.
    current: Option<(MoveId, Arc<Rejoin>)>,
    /// Whether the process has become a VM.
    taken: bool,
}

impl Receiver {
    /// One that sends what arrives to `arrived`.
    ///
    /// # Errors
    /// [`Error::Random`], [`Error::Event`].
    pub fn new(offering: Offering, arrived: Sender<Vm>) -> Result<Self, Error> {
        let me = draw()?;
        let state = State { ledger: Ledger::new(me), current: None, taken: false };
        let lost_after = offering.lost_after;
        let offering = Mutex::new(Some(Arc::new(offering)));
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Ok(Self { me, offering, lost_after, arrived, state, changed, stages: Stages::new()? })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offering(&self) -> MutexGuard<'_, Option<Arc<Offering>>> {
        self.offering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a VM that has ended: waits until its source knows what became of it, for at most so
    /// long. One that does not would ask for ever.
    pub fn wait_over(&self, most: Duration) {
        // The thread of the move tells it, if it can: it has its own limits.
        let waits = |state: &mut State| state.current.is_some();
        drop(self.changed.wait_while(self.state(), waits));
        self.stages.wait_over(timeout(most));
    }

    /// Whether the process has become a VM.
    #[must_use]
    pub fn taken(&self) -> bool {
        self.state().taken
    }

    /// Serves a connection to its end. It gives up `session` among the strangers when it has said
    /// who it is and what it wants.
    ///
    /// # Errors
    /// What went wrong, for the log: other connections are not concerned.
    pub fn serve(
        self: &Arc<Self>,
        stream: Arc<TcpStream>,
        transport: &Transport,
        session: &mut Session,
    ) -> Result<(), Error> {
        let mut connection = Connection::accept(stream, transport, SILENCE)?;
        let first = match connection.receive(0) {
            Ok(Incoming::Message(message)) => message,
            Ok(Incoming::Pages(_)) => return Err(Error::Nonsense),
            Err(e) => {
                if let LinkError::Encrypted = e {
                    let why = "this destination takes plaintext only: use --plaintext on both \
                        sides, or leave it out here";
                    connection.send(&Message::Abort(why.into()))?;
                }
                return Err(e.into());
            }
        };
        if !session.known() {
            connection.send(&Message::Refuse(Refusal::Busy))?;
            return Ok(());
        }
        connection.known();
        match first {
            Message::Query(id, receiver) => {
                let outcome = self.outcome(&id, &receiver, &connection.peer());
                if outcome == Outcome::Ran
                    && let Some(thread) = self.thread_of(&id)
                {
                    connection = match thread.join(connection) {
                        Ok(()) => return Ok(()),
                        Err(connection) => connection,
                    };
                }
                connection.send(&Message::Outcome(id, outcome))?;
                if outcome == Outcome::Ran && heard(&mut connection) {
                    self.stages.enter(Stage::Over);
                }
                Ok(())
            }
            Message::Hello(id) => self.take_in(connection, id),
            _ => {
                connection.send(&Message::Abort(Error::Nonsense.to_string()))?;
                Err(Error::Nonsense)
            }
        }
    }

    /// What became of a move. One that has not been committed is ended first. Whoever did not begin
    /// it learns nothing, and ends nothing.
    fn outcome(&self, id: &MoveId, receiver: &ReceiverId, peer: &Peer) -> Outcome {
        let mut state = self.state();
        if !state.ledger.may_ask(id, peer) {
            tracing::warn!(
                "a host asked about a move that another has begun, and was told nothing"
            );
            return Outcome::Unknown;
        }
        while state.ledger.outcome(id, receiver) == Outcome::Never
            && let Some((current, thread)) = &state.current
            && current == id
        {
            // Its thread sees the end of its connection, unless the commit has come: either way it
            // says so.
            thread.shut_down();
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.ledger.outcome(id, receiver)
    }

    /// The thread of a move: that one answers while its VM lacks pages.
    fn thread_of(&self, id: &MoveId) -> Option<Arc<Rejoin>> {
        let state = self.state();
        let (_, thread) = state.current.as_ref().filter(|(current, _)| current == id)?;
        Some(Arc::clone(thread))
    }

    fn take_in(self: &Arc<Self>, mut connection: Connection, id: MoveId) -> Result<(), Error> {
        let rejoin = Arc::new(Rejoin::new(connection.stream())?);
        {
            let mut state = self.state();
            if state.taken || state.current.is_some() {
                drop(state);
                connection.send(&Message::Refuse(Refusal::Busy))?;
                return Ok(());
            }
            if !state.ledger.begin(id, connection.peer()) {
                drop(state);
                connection.send(&Message::Abort(Error::Replayed.to_string()))?;
                return Err(Error::Replayed);
            }
            state.current = Some((id, Arc::clone(&rejoin)));
        }
        fail_point!("destination.greeted");
        let _attends = watchdog::attend(Thread::Receive.name());
        let _owes = watchdog::owe(Doing::Receive);
        give_way();
        let mut attempt = Attempt::new(self, connection, rejoin);
        attempt.run(id);
        if attempt.farewell() {
            self.stages.enter(Stage::Over);
        }
        // A VM that did not get to run is gone, with its name and its TAP, before anybody can try
        // again.
        let (prepared, why) = attempt.discard();
        if why.is_some() {
            fail_point!("destination.discarded");
        }
        drop(prepared);
        self.state().current = None;
        self.changed.notify_all();
        // Said when it is so.
        if let Some(why) = why {
            eprintln!("vmm-lite: a VM did not arrive: {why}; waiting for the next");
        }
        Ok(())
    }
}

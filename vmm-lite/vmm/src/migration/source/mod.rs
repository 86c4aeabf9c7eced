//! Moves a VM away: drives [`migrate::source::Source`].
//!
//! - [`options`]: what `vmm-lite migrate` asks for
//! - `driver`: a move under way
//! - `send`: memory, in pieces between which the move can be called off
//! - `send_pages`, `pace`, `forwarder`: pages into messages; how fast; packets that come late
//! - [`last_look`]: at the memory of a guest that is stopped
//! - `left_out`: what was not sent

mod driver;
mod forwarder;
pub mod last_look;
mod left_out;
pub mod options;
mod pace;
mod send;
mod send_pages;

use super::{
    Error,
    address::Address,
    called_off::{OBSERVER_GONE, failure},
    connection::{Connection, LinkError, Transport},
    progress::{MoveObserver, Progress, waiting},
};
use crate::{
    host::patient::give_way,
    memory::Complete,
    vm::{CallOff, CalledOff, Incomplete, MoveOutcome, Operation, Vm, VmPhase},
};
use driver::Driver;
use migrate::source::Failure;
use options::Options;
use std::time::{Duration, Instant};

/// How long a destination may leave a write or the rest of a message hanging.
const STALLED: Duration = Duration::from_millis(900);

/// What a move does before it begins, where it has to.
const MISSING: &str = "waiting for memory of the VM that is not here yet";

/// Moves `vm` to `to`, tells `observer` how it goes and what it cost, hands on late packets, and
/// ends the VM here.
///
/// # Errors
/// [`Error`]: the VM runs on here.
pub fn migrate(
    vm: &Vm,
    to: Address,
    transport: Transport,
    options: Options,
    observer: &mut dyn MoveObserver,
) -> Result<(), Error> {
    if let VmPhase::Ended(end) = vm.phase() {
        return Err(crate::vm::Error::Ended(end).into());
    }
    let moving = vm.begin(Operation::Move)?;
    vm.set_destination(to.to_string());
    let moved = begun(vm, to, transport, options, observer);
    match &moved {
        Err(Error::Failed(Failure::Cancelled(_))) => {
            moving.cancelled();
            vm.note_move(MoveOutcome::Cancelled);
        }
        // What became of it is not for this process to say.
        Ok(()) | Err(Error::Failed(Failure::Abandoned)) => {}
        Err(Error::Failed(_) | Error::Link(_)) => vm.note_move(MoveOutcome::Failed),
        // Nothing was tried.
        Err(_) => {}
    }
    moved
}

fn begun(
    vm: &Vm,
    to: Address,
    transport: Transport,
    options: Options,
    observer: &mut dyn MoveObserver,
) -> Result<(), Error> {
    let asked = Instant::now();
    let within = options.timeout.map(|timeout| (asked, timeout));
    let complete = complete(vm, asked, within, observer)?;
    // Whoever asked can call it off from now on.
    let connecting = Progress::Phase { doing: "connecting".into(), at_ns: 0 };
    observer.progress(connecting).map_err(|_| Failure::Cancelled(OBSERVER_GONE.into()))?;
    vm.request_reclaim();
    give_way();
    let call_off = CallOff::of(vm, observer.fd()).within(within);
    let connection =
        Connection::open(&to, &transport, None, STALLED, &call_off).map_err(|e| match e {
            Error::Link(LinkError::CalledOff(failure)) => failure.into(),
            e => e,
        })?;
    fail_point!("source.connected");
    Driver::new(vm, complete, to, transport, connection, options, asked)?.run(observer)
}

/// Waits for memory that follows from where the VM was before: what has not come cannot be sent on,
/// and the host that has it may end the VM there only once all of it is here.
fn complete<'vm>(
    vm: &'vm Vm,
    asked: Instant,
    within: Option<(Instant, Duration)>,
    observer: &mut dyn MoveObserver,
) -> Result<Complete<'vm>, Error> {
    let call_off = CallOff::of(vm, observer.fd()).within(within);
    let mut tell = |what: &_| observer.progress(waiting(what, asked.elapsed())).is_ok();
    vm.wait_complete(call_off, &mut tell).map_err(|e| match e {
        Incomplete::Ended(end) => crate::vm::Error::Ended(end).into(),
        Incomplete::Cancelled(_) => failure(CalledOff::Cancelled, MISSING).into(),
        Incomplete::AskerGone(_) => failure(CalledOff::ObserverGone, MISSING).into(),
        Incomplete::Timeout { timeout, .. } => failure(CalledOff::Timeout(timeout), MISSING).into(),
        e => e.into(),
    })
}

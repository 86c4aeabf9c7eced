//! Moves a VM away: drives [`migrate::source::Source`].
//!
//! - [`options`]: the options of `vmm-lite migrate`
//! - `driver`: a move in progress
//! - `send`: memory, in pieces between which the move can be cancelled
//! - `send_pages`, `pace`, `forwarder`: pages into messages; the rate limit; forwarded packets
//! - `left_out`: pages that were not sent

mod driver;
mod forwarder;
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

/// The timeout for a write to the destination or for the rest of a message from it.
const STALLED: Duration = Duration::from_millis(900);

/// The phase before a move begins, where it has to wait.
const MISSING: &str = "waiting for memory of the VM that is not here yet";

/// Moves `vm` to `to`, reports progress and costs to `observer`, forwards packets, and ends the VM
/// here.
///
/// # Errors
/// [`Error`]: the VM continues here.
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
        // This process cannot tell the outcome.
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
    // The client can cancel it from now on.
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

/// Waits for memory that is still missing from the VM's own last move: missing pages cannot be sent
/// on, and the host that has them may end the VM there only once all of them are here.
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

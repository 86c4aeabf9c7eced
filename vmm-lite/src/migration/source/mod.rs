//! Moves a VM away: drives [`migrate::source::Source`].
//!
//! - [`options`]: what `vmm-lite migrate` asks for
//! - `driver`: does what the machine says
//! - `send`: memory, in pieces between which the move can be called off
//! - `send_pages`, `pace`, `late`: pages into messages; how fast; packets that come late

mod driver;
mod late;
pub mod options;
mod pace;
mod send;
mod send_pages;

use super::{
    Error,
    address::Address,
    connection::{Connection, Transport},
};
use crate::{
    control::Reply,
    vm::{Vm, VmPhase, be_patient},
};
use driver::Driver;
use options::Options;
use std::time::Duration;

/// How long a destination may leave a write or the rest of a message hanging.
const STALLED: Duration = Duration::from_millis(900);

/// Moves `vm` to `to`, tells `reply` how it goes and what it cost, hands on late packets, and ends the VM here.
///
/// # Errors
/// [`Error`]: the VM runs on here.
pub fn migrate(
    vm: &Vm,
    to: Address,
    transport: Transport,
    options: Options,
    reply: &mut Reply,
) -> Result<(), Error> {
    match vm.phase() {
        VmPhase::Running => {}
        VmPhase::Paused => return Err(Error::Paused),
        VmPhase::Ended(end) => return Err(crate::vm::Error::Ended(end).into()),
    }
    let Some(_mover) = vm.begin_move() else { return Err(Error::Busy) };
    vm.ask_to_give_up();
    be_patient();
    let connection = Connection::open(&to, &transport, None, STALLED)?;
    fail_point!("source.connected");
    Driver::new(vm, to, transport, connection, options)?.run(reply)
}
